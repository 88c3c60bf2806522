"""What a provider repeats of the request. A caller's own words are not evidence, so they are cut from a provider's
sentences before others could suffer for what these say.

Only letters and digits are compared, in lower case: providers quote, escape, join and break what they repeat. Removed
are

- every name and value of the request with at least 4 letters or digits, and every clause of one, where it occurs as a
word
- every run of at least 15 of them that occurs anywhere in the request, including inside a prompt.

The work is bounded, whatever the size of the request: of a long string only the beginning and the end are searched. If
even that is too much, no sentence counts: codes and the status remain.
"""

import re
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol
from urllib.parse import unquote

import orjson

SHORTEST = 4
GRAM, STEP = 12, 4
RUN = GRAM + STEP - 1
MAX_CHARS = 300_000
HEAD, TAIL = 3_000, 1_000
MAX_TEXT_CHARS = 1_500
"""A provider's message is within this much of its complaint; the rest is ignored."""

CUT = "…"
SEPARATORS = bytes(byte for byte in range(128) if not chr(byte).isalnum())
CLAUSE = re.compile(r"[\w\s-]{4,}")

EVERYBODYS = frozenset(
    b"model models message messages content role user system assistant developer tool tools function name type text "
    b"input prompt token tokens format object parameters properties description string number error code service "
    b"stream true false null auto none".split()
)
"""Names that every request may contain, and that providers' own sentences consist of."""


class Sent(Protocol):
    """The request that a provider received."""

    @property
    def path(self) -> str: ...
    @property
    def content(self) -> bytes: ...


class Echoes:
    """The words of one request."""

    def __init__(self, sent: Sent | None) -> None:
        self._words: set[bytes] = set()
        self._runs = b""
        self._is_blind = False
        if sent is not None:
            self._learn(sent)

    def _learn(self, sent: Sent) -> None:
        runs, room = list[bytes](), MAX_CHARS
        for text in _strings(sent):
            if len(text) > HEAD + TAIL:
                text = f"{text[:HEAD]}\n{text[-TAIL:]}"
            plain = _plain(text)
            room -= len(plain)
            if room < 0:
                self._is_blind = True
                return
            if len(plain) < RUN:
                self._words.add(plain)
            else:
                runs.append(plain)
                self._words.update(clause for each in CLAUSE.findall(text) if len(clause := _plain(each)) < RUN)
        self._words = {each for each in self._words if len(each) >= SHORTEST} - EVERYBODYS
        self._runs = b"\0".join(runs)

    def has(self, word: str) -> bool:
        """Whether a code, or a part of a sentence, occurs in the request."""
        plain = _plain(word)
        return plain in self._words or (len(plain) >= SHORTEST and plain in self._runs)

    def cut(self, text: str) -> str:
        """The text without what occurs in the request."""
        text = text[:MAX_TEXT_CHARS]
        if self._is_blind:
            return CUT
        if not self._words and not self._runs:
            return text
        plain, places = _with_places(text)
        gone = bytearray(len(text))
        for start, end in (*self._words_in(plain, places, text), *self._runs_in(plain)):
            first, last = places[start], places[end - 1]
            gone[first : last + 1] = b"\1" * (last + 1 - first)
        return _without(text, gone)

    def _words_in(self, plain: bytes, places: list[int], text: str) -> Iterator[tuple[int, int]]:
        for word in self._words:
            start = plain.find(word)
            while start >= 0:
                end = start + len(word)
                before, after = places[start] - 1, places[end - 1] + 1
                if not (before >= 0 and text[before].isalnum()) and not (after < len(text) and text[after].isalnum()):
                    yield start, end
                start = plain.find(word, start + 1)

    def _runs_in(self, plain: bytes) -> Iterator[tuple[int, int]]:
        """Searches for a gram every few positions; around a match, the run is extended in both directions."""
        at, runs = 0, self._runs
        while at <= len(plain) - GRAM:
            there = runs.find(plain[at : at + GRAM])
            if there < 0:
                at += STEP
                continue
            start, end = at, at + GRAM
            while start > 0 and there + start - at > 0 and plain[start - 1] == runs[there + start - at - 1]:
                start -= 1
            while end < len(plain) and there + end - at < len(runs) and plain[end] == runs[there + end - at]:
                end += 1
            if end - start >= RUN:
                yield start, end
            at = end


def _strings(sent: Sent) -> Iterator[str]:
    """The request's names and values; the model first, because it is in the path of some protocols."""
    yield from map(unquote, re.split(r"[/:?=&]", sent.path))
    try:
        waiting: deque[Any] = deque([orjson.loads(sent.content)])
    except orjson.JSONDecodeError:
        return
    while waiting:
        value = waiting.popleft()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += value.values()
            yield from value
        elif isinstance(value, list):
            waiting += value


def _plain(text: str) -> bytes:
    return text.lower().encode(errors="replace").translate(None, SEPARATORS)


def _with_places(text: str) -> tuple[bytes, list[int]]:
    """The letters and digits of a text, and the position of each byte in it."""
    plain, places = bytearray(), list[int]()
    for place, character in enumerate(text):
        letters = _plain(character)
        plain += letters
        places += [place] * len(letters)
    return bytes(plain), places


def _without(text: str, gone: bytearray) -> str:
    kept: list[str] = []
    for character, is_gone in zip(text, gone, strict=True):
        if not is_gone:
            kept.append(character)
        elif not kept or kept[-1] != CUT:
            kept.append(CUT)
    return "".join(kept)
