"""`python -m understudy` is the command `understudy`."""

from understudy.producer.__main__ import main

main()
