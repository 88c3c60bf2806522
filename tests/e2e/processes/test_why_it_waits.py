"""A rate-limited primary: `status`, `providers` and HTTP say why nothing moves, and until when."""

import asyncio
import io
import json
import os
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from rich.console import Console
from stage_hands import DEADLINE_S, Mock, Scene, until

from understudy.models.config.settings import load_settings
from understudy.producer.ingest.input_rows import Shape
from understudy.producer.runs.run_command import RunOptions, run
from understudy.producer.runs.runs import RunRequest

RETRY_AFTER_S = 120
"""Longer than this test takes on a busy machine."""

ALWAYS_REFUSED = f"""
[[rules]]
provider = "alpha"
fail = "rate_limit"
retry_after_s = {RETRY_AFTER_S}
"""


def typed(scene: Scene, *words: str) -> str:
    done = scene.type(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def waiting_for_a_cooldown(url: str, path: str) -> dict[str, Any] | None:
    document = httpx.get(f"{url}{path}").raise_for_status().json()
    waiting: dict[str, Any] | None = document.get("understudy", document)["waiting"]
    return waiting if waiting and waiting["hold"] in ("cooldown", "put_back") else None


def test_who_waits_for_a_refusing_lead_is_told_for_whom_and_until_when(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    scene.configure(providers(ALWAYS_REFUSED))
    _, url = scene.serve()
    began = time.time()
    batch_id = scene.submit(scene.write_prompts(3))
    waiting = until(lambda: waiting_for_a_cooldown(url, f"/v1/batches/{batch_id}"), "the batch says what it waits for")
    assert (waiting["provider"], waiting["model"], waiting["account"]) == ("alpha", "m", "alpha:main")
    assert began + RETRY_AFTER_S < waiting["until"] < time.time() + RETRY_AFTER_S + 1

    said = typed(scene, "status", batch_id)
    expected = r"waits for alpha/m \(account alpha:main\): .* until (\S+ )?\d\d:\d\d:\d\d \(in (\dm\d\d|\d+)s\)"
    assert re.search(expected, said), said
    (row,) = [json.loads(line) for line in typed(scene, "providers", "--json").splitlines() if '"m"' in line]
    assert (row["state"], row["live"], row["last_minute"]["answered"]) == ("cooling", True, 0)
    assert row["last_minute"]["refused"] > 0
    (cooldown,) = row["cooldowns"]
    assert abs(cooldown["until"] - waiting["until"]) < 1.0
    (shown,) = httpx.get(f"{url}/v1/providers").json()["data"][:1]
    assert (shown["state"], shown["cooldowns"][0]["until"]) == ("cooling", cooldown["until"])


async def test_a_run_at_a_provider_that_is_not_there_says_so(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the log of a CI job there is no second shell in which to ask `status`."""
    config = scene.folder / "nobody.toml"
    config.write_text('[providers.nobody]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n')
    for name in ("REDIS_URL", "DATABASE_URL"):  # the environment tells its workers
        if name in scene.full_environment:
            monkeypatch.setenv(name, scene.full_environment[name])
        else:
            monkeypatch.delenv(name, raising=False)
    settings = load_settings(config, os.environ, scene.folder / "data")
    source = scene.write_prompts(50, model="nobody/m")
    options = RunOptions(RunRequest(source, scene.folder / "out.jsonl", Shape()), config, still_after_s=0.5)
    log = io.StringIO()
    under_way = asyncio.create_task(run(settings, options, Console(file=log, width=80)))
    try:
        async with asyncio.timeout(DEADLINE_S):
            while "waits for nobody/m" not in log.getvalue() and not under_way.done():
                await asyncio.sleep(0.05)
    finally:
        under_way.cancel()
        await asyncio.gather(under_way, return_exceptions=True)
    (line, *_) = [line for line in log.getvalue().splitlines() if line.startswith("waits for nobody/m")]
    assert "connection refused (http://127.0.0.1:1/v1)" in line
