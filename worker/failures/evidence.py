"""One row of evidence, and what it is matched against."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from understudy.models.failure import FailureClass, classes_where

CLIENT_ERRORS = frozenset(range(400, 500))

OF_THE_JOB = classes_where(lambda traits: traits.about_request) | {FailureClass.BAD_RESPONSE}
"""A failure of such a class concerns only the job that failed: its message may be the caller's own words."""


@dataclass(frozen=True, slots=True)
class Signs:
    """The signs in one response. `words` and texts are lower case; `waits`: it names a time to retry.

    `own_words` and `own_text` exclude what the provider repeats of the request. `about_request`: the provider itself
    says that the request is invalid, so none of its sentences concerns the account.
    """

    provider: str
    protocol: str
    status: int
    words: frozenset[str]
    text: str
    own_words: frozenset[str]
    own_text: str
    about_request: bool = False
    is_page: bool = False
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """Matches if every restriction holds and, if codes or phrases are given, one of them is present.

    `sure`: unambiguous, so that a single response may be enough to act for everyone. `always`: its sentences concern
    the account although the provider calls the request invalid.
    """

    cls: FailureClass
    codes: frozenset[str] = frozenset()
    says: re.Pattern[str] | None = None
    statuses: frozenset[int] | None = None
    speakers: frozenset[str] | None = None  # providers or protocols
    page: bool = False
    waits: bool = False
    sure: bool = False
    always: bool = False

    @property
    def is_in_words(self) -> bool:
        """Whether it requires a code or a phrase, and a status alone is not enough."""
        return bool(self.codes) or self.says is not None

    def fits(self, signs: Signs) -> bool:
        if self.statuses is not None and signs.status not in self.statuses:
            return False
        if self.speakers is not None and self.speakers.isdisjoint((signs.provider, signs.protocol)):
            return False
        if (self.page and not signs.is_page) or (self.waits and not signs.waits):
            return False
        if not self.is_in_words:
            return True
        if self.cls in OF_THE_JOB:
            return self._is_said(signs.words, signs.text)
        silent = signs.about_request and not self.always and self.cls is not FailureClass.MODEL_MISSING
        return self._is_said(signs.own_words, "" if silent else signs.own_text)

    def _is_said(self, words: frozenset[str], text: str) -> bool:
        return not self.codes.isdisjoint(words) or (self.says is not None and bool(self.says.search(text)))


def row(
    cls: FailureClass,
    *phrases: str,
    codes: str = "",
    statuses: Iterable[int] | None = None,
    speakers: str = "",
    **restrictions: bool,
) -> Evidence:
    """`codes` and `speakers` are separated by spaces; codes that contain spaces are given as phrases."""
    return Evidence(
        cls,
        frozenset(codes.split()),
        re.compile("|".join(phrases)) if phrases else None,
        None if statuses is None else frozenset(statuses),
        frozenset(speakers.split()) if speakers else None,
        **restrictions,
    )
