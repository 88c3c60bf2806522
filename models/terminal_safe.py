"""Words of callers and providers without what would make a terminal act: move, rename or repaint it, fill a clipboard,
or show them in another order than they stand."""

import logging
import re

_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters but tab and line feed, and those that turn the direction of writing."""


def inert(text: str) -> str:
    return _ACTING.sub("", text)


class _InertRecord(logging.LogRecord):
    def getMessage(self) -> str:
        return inert(super().getMessage())


def make_logs_inert() -> None:
    """Whatever a process logs from now on, whoever logs it."""
    logging.setLogRecordFactory(_InertRecord)
