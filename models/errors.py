"""What a person is told in one sentence, whoever raises it: a command prints it, without a traceback.

WrongUse    something that was given, configured or asked for must be changed first
OutOfReach  a service that is needed cannot be reached, or does not work; what was asked for may be right
"""


class WrongUse(Exception):
    """A person has to change something. The text is one sentence for them, without secrets."""


class OutOfReach(Exception):
    """What is needed does not work now. The text is one sentence for people, without secrets."""
