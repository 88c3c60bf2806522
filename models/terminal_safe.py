"""Removes from callers' and providers' text what would control a terminal: move, rename or repaint it, set a
clipboard, or reorder text."""

import logging
import re

_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters except tab and line feed, and those that change the direction of text."""


def inert(text: str) -> str:
    return _ACTING.sub("", text)


class _InertRecord(logging.LogRecord):
    def getMessage(self) -> str:
        return inert(super().getMessage())


def make_logs_inert() -> None:
    """Applies to everything that the process logs from now on."""
    logging.setLogRecordFactory(_InertRecord)
