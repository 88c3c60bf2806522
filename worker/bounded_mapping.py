"""A bounded mapping for keys that callers choose, such as model names."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

MODELS_MAX = 1_000
"""Beyond this many models, the least recently used are forgotten."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Latest(OrderedDict[K, V], Generic[K, V]):
    """A mapping of at most `most` keys. It drops the least recently set key; setting counts as use."""

    def __init__(self, most: int = MODELS_MAX) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._most:
            del self[next(iter(self))]
