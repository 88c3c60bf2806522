"""One row of evidence, and what it is held against."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from models.failure import FailureClass


@dataclass(frozen=True, slots=True)
class Signs:
    """What one response shows. `words` and `text` are lower case; `waits`: it names a time to come back."""

    provider: str
    protocol: str
    status: int
    words: frozenset[str]
    text: str
    is_page: bool = False
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """Fits when every limitation holds and, where codes or phrases are given, one of them is there.

    `sure`: it can mean nothing else, so that one such answer may be enough to act on for everybody.
    """

    cls: FailureClass
    codes: frozenset[str] = frozenset()
    says: re.Pattern[str] | None = None
    statuses: frozenset[int] | None = None
    speakers: frozenset[str] | None = None  # providers or protocols
    page: bool = False
    waits: bool = False
    sure: bool = False

    def fits(self, signs: Signs) -> bool:
        if self.statuses is not None and signs.status not in self.statuses:
            return False
        if self.speakers is not None and self.speakers.isdisjoint((signs.provider, signs.protocol)):
            return False
        if (self.page and not signs.is_page) or (self.waits and not signs.waits):
            return False
        if not self.codes and self.says is None:
            return True
        return not self.codes.isdisjoint(signs.words) or (self.says is not None and bool(self.says.search(signs.text)))


def row(
    cls: FailureClass,
    *phrases: str,
    codes: str = "",
    statuses: Iterable[int] | None = None,
    speakers: str = "",
    page: bool = False,
    waits: bool = False,
    sure: bool = False,
) -> Evidence:
    """`codes` and `speakers` are separated by blanks; codes that contain blanks are given as phrases."""
    return Evidence(
        cls,
        frozenset(codes.split()),
        re.compile("|".join(phrases)) if phrases else None,
        None if statuses is None else frozenset(statuses),
        frozenset(speakers.split()) if speakers else None,
        page,
        waits,
        sure,
    )
