"""Exit codes of the command line."""

ALL_SUCCEEDED = 0
SOME_FAILED = 1
WRONG_USE = 2
UNREACHABLE = 3
INTERRUPTED = 130
