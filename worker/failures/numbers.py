"""What the numbers in a rate limit error say, which is stronger than any word or status: some requests can never
start."""

import re

from understudy.models.failure import FailureClass

REFUSE_RATES = frozenset({403, 413, 429})
"""The statuses of rate limit errors."""

_AMOUNT = r"\W{0,3}(?:is |of |to )?(\d[\d,_]*)(?!\d|[.:]\d)"
_LIMIT = rf"\b(?:limit|maximum){_AMOUNT}"
_REQUESTED = rf"\brequested{_AMOUNT}"
_ZERO = re.compile(r"\blimit\W{0,3}(?:is |of )?0(?![\d.,:]\d|\d)")
_IN_ONE_SENTENCE = r"[^.;\n]{0,60}?"
_LIMIT_FIRST = re.compile(_LIMIT + _IN_ONE_SENTENCE + _REQUESTED)
_REQUESTED_FIRST = re.compile(_REQUESTED + _IN_ONE_SENTENCE + _LIMIT)


def what_never_starts(text: str) -> FailureClass | None:
    """The class of a rejection that no waiting heals: a limit of zero, which means that the account does not have
    the model at all, or a single request above the limit. `text` is in lower case."""
    if _ZERO.search(text):
        return FailureClass.MODEL_MISSING
    pairs = [(limit, requested) for limit, requested in _LIMIT_FIRST.findall(text)]
    pairs += [(limit, requested) for requested, limit in _REQUESTED_FIRST.findall(text)]
    if any(_number(requested) > _number(limit) for limit, requested in pairs):
        return FailureClass.TOO_LARGE
    return None


def _number(digits: str) -> int:
    return int(digits.replace(",", "").replace("_", "")[:18])
