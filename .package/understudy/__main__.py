"""`python -m understudy` runs the command `understudy`."""

from understudy.producer.__main__ import main

main()
