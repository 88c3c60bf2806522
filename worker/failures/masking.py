"""Providers like to repeat the key they refuse. What we store must not contain it."""

import re

MASK = "***"

_SECRET = re.compile(
    r"""
    \b(?:sk|pk|rk|gsk|csk|xai|pplx|fw|hf|tgp|r8|nvapi|dsk|sess)[-_](?=[\w\-*.]*[\d*])[A-Za-z0-9_\-*.]{6,}[A-Za-z0-9_*]
    | AIza[A-Za-z0-9_\-]{8,}
    | \bya29\.[A-Za-z0-9_\-.]+
    | \bABSK[A-Za-z0-9+/=_\-]{8,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{8,}
    | \beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-.]+
    """,
    re.VERBOSE,
)
_INTRODUCED = re.compile(
    r"""
    (?P<before>\bBearer\s+ | \bBasic\s+ | \bapi[ _-]?key(?:\ provided)?\s*[:=]\s*'?)
    (?P<secret>(?=[^\s'"]*[\d*])[\w.~+/=*\-]{6,}[\w=*])
    """,
    re.VERBOSE | re.IGNORECASE,
)


def masked(text: str) -> str:
    """The text without anything that looks like a key. Valid JSON stays valid JSON."""
    return _INTRODUCED.sub(rf"\g<before>{MASK}", _SECRET.sub(MASK, text))
