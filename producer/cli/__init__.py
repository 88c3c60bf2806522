"""The command line. Standard output carries data only; progress and prose go to standard error.

`app` lists every command and imports its module on first use. A module is named after its command, or after the object
its commands manage. `options` and `requests` hold shared options, `settings` and `ledger` the shared setup, `errors`
the exit codes.
"""
