"""A real browser, and a running `understudy up` with fake providers for it."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from playwright.sync_api import Browser, Page, sync_playwright
from stage_hands import Mock, Scene, fake_providers

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.fail(f"install a browser: none of {', '.join(BROWSERS)} was found")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own session. Fails at the end if the console showed an error."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if "//127.0.0.1:" not in request.url else None)
    yield page
    context.close()
    assert not said


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        scene = Scene(tmp_path, {})
        stack.callback(scene.close)
        yield scene


@pytest.fixture
def providers() -> Iterator[Callable[[str], Mock]]:
    """Starts fake providers with a script in TOML."""
    with ExitStack() as stack:
        yield lambda script="": stack.enter_context(fake_providers(script))
