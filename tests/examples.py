"""How many examples a property is tried with: all of them in `make test-all`, fewer in `make test`."""

import os

from hypothesis import settings

SHARE = 1.0 if os.environ.get("EXAMPLES") == "all" else 0.2
USUAL = 100
FEWEST = 3


def examples(many: int = USUAL) -> settings:
    """How long one example takes on a busy machine says nothing about the code, so none has a deadline."""
    return settings(deadline=None, max_examples=max(round(many * SHARE), FEWEST))
