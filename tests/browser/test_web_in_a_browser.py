"""The web page in a real browser: live progress, buttons, sign-in, hostile content, widths, colors, accessibility."""

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from stage_hands import BIN, DEADLINE_S, Mock, Scene, until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

SLOWLY = "[answers]\nlatency_s = 0.3\n[[limits]]\nprovider = 'alpha'\nrequests_per_minute = 600\n"
HOSTILE = "<script>window.caught = 1</script><img src=x onerror='window.caught = 1'>\u202e\u2066 {{ 7 * 7 }}"
WAIT_MS = DEADLINE_S * 1000


def submit(url: str, count: int) -> str:
    """A batch of `count` lines, from prompts.jsonl. Returns its id."""
    body = {"model": "alpha/m", "messages": [{"role": "user", "content": "Say hello."}]}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    lines = [json.dumps({"custom_id": f"row {number}", **line}) for number in range(1, count + 1)]
    file = ("prompts.jsonl", "\n".join(lines))
    uploaded = httpx.post(f"{url}/v1/files", data={"purpose": "batch"}, files={"file": file}).json()
    asked = {"input_file_id": uploaded["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch_id: str = httpx.post(f"{url}/v1/batches", json=asked).json()["id"]
    return batch_id


def new_key(scene: Scene, tenant: str) -> str:
    made = scene.start(BIN / "understudy", "keys", "create", "--name", tenant, "--tenant", tenant, "--scope", "submit")
    assert made.exit_code() == 0, made.said
    (key,) = re.findall(r"us_\w+", made.said)
    return str(key)


def single(url: str, prompt: str) -> str:
    job = {"model": "alpha/m", "messages": [{"role": "user", "content": prompt}]}
    job_id: str = httpx.post(f"{url}/v1/jobs", json=job).json()["id"]
    return job_id


def serious(page: Page) -> list[Any]:
    """Findings of the accessibility check that matter."""
    found = Axe().run(page).response["violations"]
    return [each["id"] for each in found if each["impact"] in ("serious", "critical")]


def test_from_an_empty_page_to_an_answered_batch_without_reloading(
    scene: Scene, providers: Callable[[str], Mock], page: Page
) -> None:
    scene.configure(providers(SLOWLY))
    _, url = scene.serve("up")
    page.goto(url)
    expect(page.get_by_text("No batch is running")).to_be_visible()
    submit(url, 60)
    card = page.get_by_role("article")
    expect(card.get_by_text("in progress")).to_be_visible(timeout=WAIT_MS)
    card.get_by_role("link").click()
    expect(page.get_by_text("60 of 60 lines")).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_role("heading", level=1)).to_contain_text("completed", timeout=WAIT_MS)
    page.get_by_role("link", name="row 1", exact=True).click()
    expect(page.get_by_role("heading", name="Answer")).to_be_visible()
    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_role("heading", name="Ended last")).to_be_visible()


def test_a_batch_is_paused_and_resumed_with_the_keyboard_and_cancelled_with_the_mouse(
    scene: Scene, providers: Callable[[str], Mock], page: Page
) -> None:
    scene.configure(providers(SLOWLY))
    _, url = scene.serve("up")
    page.goto(f"{url}/batches/{submit(url, 2_000)}")
    page.get_by_role("button", name="Pause").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("paused by its owner")).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("button", name="Resume").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Pause")).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("button", name="Cancel the batch").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("cancelled", timeout=WAIT_MS)


def test_signed_in_people_see_their_tenant_and_others_see_the_form(
    scene: Scene, providers: Callable[[str], Mock], page: Page
) -> None:
    scene.configure(providers(SLOWLY))
    _, url = scene.serve("up")
    batch_id = submit(url, 1)
    ours = new_key(scene, "default")
    theirs = new_key(scene, "theirs")
    until(lambda: httpx.get(url, follow_redirects=False).status_code == 303, "a key is needed", 10)
    page.goto(f"{url}/batches")
    page.get_by_label("API key").fill(theirs)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Batches").click()
    expect(page.get_by_text("There are no batches.")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("API key").fill(ours)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.goto(f"{url}/batches/{batch_id}")
    expect(page.get_by_text(batch_id)).to_be_visible()


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("colors", ["light", "dark"])
def test_pages_fit_the_screen_and_are_accessible_and_hostile_words_stay_words(
    scene: Scene, providers: Callable[[str], Mock], browser: Browser, width: int, colors: Any
) -> None:
    scene.configure(providers(""))
    _, url = scene.serve("up")
    job_id, batch_id = single(url, HOSTILE + "w" * 2_000), submit(url, 5)
    until(lambda: httpx.get(f"{url}/v1/jobs/{job_id}").json()["state"] == "succeeded", "the job is answered")
    until(lambda: httpx.get(f"{url}/v1/batches/{batch_id}").json()["status"] == "completed", "the batch ends")
    with browser.new_context(viewport={"width": width, "height": 800}, color_scheme=colors) as context:
        page = context.new_page()
        for path in (
            "/",
            "/batches",
            f"/batches/{batch_id}",
            f"/jobs/{job_id}",
            "/providers",
            "/sign-in",
            "/jobs/none",
        ):
            page.goto(url + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            assert serious(page) == [], path
            assert page.evaluate("window.caught") is None, path


def test_everything_can_be_read_without_javascript(
    scene: Scene, providers: Callable[[str], Mock], browser: Browser
) -> None:
    scene.configure(providers(""))
    _, url = scene.serve("up")
    batch_id = submit(url, 3)
    until(lambda: httpx.get(f"{url}/v1/batches/{batch_id}").json()["status"] == "completed", "the batch ends")
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(url)
        page.get_by_role("table").get_by_role("link").click()
        expect(page.get_by_text("3 of 3 lines")).to_be_visible()
        page.get_by_role("link", name="row 2", exact=True).click()
        expect(page.get_by_role("heading", name="Answer")).to_be_visible()
