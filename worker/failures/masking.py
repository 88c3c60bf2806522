"""Removes keys: providers tend to repeat the key they reject, and nothing that we store may contain it."""

import base64
import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote

MASK = "***"

SHORTEST_SECRET = 8
LONGEST_WORD = 12
SHORTEST_FOR_FORMS = 16
"""The encoded forms of a shorter key occur in many texts by chance."""

_WORDS = re.compile(r"[A-Za-z]+([-_][A-Za-z]+)?")
_KEY_PREFIX = re.compile(r"(?:sk|pk|rk)[-_]")

_SECRET = re.compile(
    r"""
    (?P<prefixed>\b(?:sk|pk|rk|gsk|csk|xai|pplx|fw|hf|tgp|r8|nvapi|dsk|sess)[-_][A-Za-z0-9_\-*.]{7,})
    | AIza[A-Za-z0-9_\-]{8,}
    | \bya29\.[A-Za-z0-9_\-.]+
    | \bABSK[A-Za-z0-9+/=_\-]{8,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{8,}
    | (?P<token>\beyJ[A-Za-z0-9_\-.]{8,})
    """,
    re.VERBOSE,
)
_INTRODUCED = re.compile(
    r"""
    (?P<before>\bBearer\s+ | \bBasic\s+ | \bapi[ _-]?key(?:\ provided)?\s*[:=]\s*'?)
    (?P<secret>[\w.~+/=*\-]{7,})
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""A possible key is matched to its end at once and judged then: a lookahead would be evaluated again at every
position of a hostile text."""

_TOKEN = re.compile(r"eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-.]")
_DIGIT = re.compile(r"[\d*]")
_LOOKED_AHEAD = 64
"""Characters examined after the introduction of a key: a digit among them shows that it is one, if there is no space
in between."""


def masked(text: str) -> str:
    """The text without anything that looks like a key. Valid JSON stays valid JSON."""
    return _INTRODUCED.sub(_without_introduced, _SECRET.sub(_without_secret, text))


def _without_secret(found: re.Match[str]) -> str:
    """A key contains a digit, or stars that show that it was already masked; a token has parts."""
    word = found[0]
    if (found["prefixed"] and not _DIGIT.search(word)) or (found["token"] and not _TOKEN.match(word)):
        return word
    return MASK + word[len(word.rstrip("-.")) :] if found["prefixed"] else MASK


def _without_introduced(found: re.Match[str]) -> str:
    secret = found["secret"]
    behind = re.split(r"[\s'\"]", found.string[found.end() : found.end() + _LOOKED_AHEAD], maxsplit=1)[0]
    if not _DIGIT.search(secret) and not _DIGIT.search(behind):
        return found[0]
    return found["before"] + MASK + secret[len(secret.rstrip(".~+/-")) :]


def without_key(content: bytes, secret: str | None, *, answer: bool = False) -> bytes:
    """A provider's response without the key used for the call, verbatim and in easily decoded forms.

    `answer`: it is not an error, and a model's output must not change because a local server's key is a common word.
    """
    for form in _forms(secret or "", answer):
        content = content.replace(form, MASK.encode())
    return content


def headers_without_key(headers: Mapping[str, str], secret: str | None) -> Mapping[str, str]:
    forms = [form.decode("latin-1") for form in _forms(secret or "", False)]
    said = "\n".join(headers.values())
    if not any(form in said for form in forms):
        return headers
    return {name: without_key(value.encode("latin-1"), secret).decode("latin-1") for name, value in headers.items()}


@lru_cache(maxsize=1_024)
def _forms(secret: str, answer: bool) -> tuple[bytes, ...]:
    """The forms to search for. A word such as `none` or `ollama`, used as a key for local servers, is not secret."""
    key = secret.encode()
    if len(secret) < SHORTEST_SECRET or (answer and _is_a_word(secret)):
        return ()
    if len(secret) < SHORTEST_FOR_FORMS:
        return (key,)
    plain = (secret, secret.replace("/", "\\/"), quote(secret, safe=""), quote(secret, safe="").lower())
    spelled = (secret.upper(), secret.lower(), secret[::-1], " ".join(secret))
    encoded = (form for shift in range(3) for form in _in_base64(key, shift))
    return tuple(dict.fromkeys((*(form.encode() for form in (*plain, *spelled)), *encoded)))


def _is_a_word(secret: str) -> bool:
    return len(secret) <= LONGEST_WORD and bool(_WORDS.fullmatch(secret)) and not _KEY_PREFIX.match(secret)


def _in_base64(key: bytes, shift: int) -> tuple[bytes, bytes]:
    """The characters that the key alone determines if it is `shift` bytes after a full group of three."""
    first, whole = (0, 2, 3)[shift], (shift + len(key)) // 3 * 4
    written = b"\0" * shift + key
    return base64.b64encode(written)[first:whole], base64.urlsafe_b64encode(written)[first:whole]
