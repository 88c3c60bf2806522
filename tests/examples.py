"""How many examples each property is tried with: all of them in `make test-all`, fewer in `make test`."""

import os

from hypothesis import settings

SHARE = 1.0 if os.environ.get("EXAMPLES") == "all" else 0.2
USUAL = 100
FEWEST = 3


def examples(many: int = USUAL) -> settings:
    """The time of one example on a busy machine says nothing about the code, so examples have no deadline."""
    return settings(deadline=None, max_examples=max(round(many * SHARE), FEWEST))
