"""Errors that are reported to people as one sentence: a command prints it without a traceback.

UnderstudyError
├── WrongUse    an argument, a setting or a request must be changed first
└── OutOfReach  a required service cannot be reached or does not work; the request may be right

`producer.client.errors` shows the tree of those that a program meets.
"""


class UnderstudyError(Exception):
    """Something could not be done. The text is one sentence with the remedy, without prompts or secrets."""


class WrongUse(UnderstudyError):
    """A person has to change something. The text is one readable sentence, without secrets."""


class OutOfReach(UnderstudyError):
    """A required service does not work at the moment. The text is one readable sentence, without secrets."""
