"""What is known by names that callers choose, such as those of models: of so many, and no more."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

MODELS_MAX = 1_000
"""Of more models than so many, those that were used least lately are forgotten."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Latest(OrderedDict[K, V], Generic[K, V]):
    """A mapping of at most `most` keys. It forgets the one that was set least lately; to set it is to use it."""

    def __init__(self, most: int = MODELS_MAX) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._most:
            del self[next(iter(self))]
