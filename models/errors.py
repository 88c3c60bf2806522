"""What a person is told in one sentence, whoever raises it: a command prints it, without a traceback.

UnderstudyError
├── WrongUse    something that was given, configured or asked for must be changed first
└── OutOfReach  a service that is needed cannot be reached, or does not work; what was asked for may be right

`producer.client.errors` draws those that a program meets.
"""


class UnderstudyError(Exception):
    """Something could not be done. The text is one sentence that says what to do, without prompts or secrets."""


class WrongUse(UnderstudyError):
    """A person has to change something. The text is one sentence for them, without secrets."""


class OutOfReach(UnderstudyError):
    """What is needed does not work now. The text is one sentence for people, without secrets."""
