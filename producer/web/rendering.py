"""Renders pages: templates, how values look, and the headers of a page."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from understudy.models.errors import UnderstudyError
from understudy.producer.number_format import dollars, duration, spent
from understudy.producer.web.access import SignInNeeded

FOLDER = Path(__file__).parent
SHOWN_CHARS = 100_000
"""Characters of a prompt or an answer on a page."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # without a referrer, browsers send forms with the origin `null`
}


def render(request: Request, name: str, code: int = 200, **values: Any) -> Response:
    """A page from `templates/<name>.html`, with this HTTP status."""
    page = _environment.get_template(f"{name}.html").render(path=request.url.path, **values)
    return HTMLResponse(page, code, HEADERS)


class PageRoute(APIRoute):
    """Answers errors with a page, and leads to the sign-in page when no one is signed in."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except SignInNeeded:
                return RedirectResponse("/sign-in", 303)
            except UnderstudyError as error:
                if error.status >= 500 and error.status != 503:
                    raise
                return render(request, "error", error.status, status=error.status, message=str(error), viewer=None)

        return answered


def _moment(at: float | None) -> str:
    return "–" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _money(usd: float | None) -> str:
    return "unknown" if usd is None else dollars(usd)


def _spent(usd: float | None, unpriced_calls: int) -> str:
    return spent(usd or 0.0, unpriced_calls)


def _cost(usd: float | None) -> str:
    return "cost unknown" if usd is None else dollars(usd)


def _count(number: float | None) -> str:
    return "–" if number is None else f"{number:,.0f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else duration(seconds)


def _shortened(text: str) -> str:
    """With the number of characters that are not shown."""
    left_out = len(text) - SHOWN_CHARS
    return text if left_out <= 0 else f"{text[:SHOWN_CHARS]}\n… {left_out:,} more characters"


_environment = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {
    "moment": _moment,
    "money": _money,
    "cost": _cost,
    "spent": _spent,
    "count": _count,
    "percent": _percent,
    "seconds": _seconds,
    "shortened": _shortened,
}
