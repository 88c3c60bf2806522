"""The command line. Standard output carries data only; progress and prose go to standard error.

`app` knows every command by name and loads its module when it is typed. A module of a command is named after it, or
after what its commands are about. `options` and `requests` are what several commands take, `settings` and `ledger` are
what they begin with, `errors` how they end.
"""
