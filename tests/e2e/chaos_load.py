"""The work of a chaos run: producers post single jobs and batches until each is accepted, and remember them."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx
from stage_hands import digest

REFUSED = "content that no provider takes"
"""A prompt with these words is refused by the fake providers, so that its job must fail; all others must succeed."""

MOST_OPEN = 4_000
"""Producers rest while more jobs than this are open."""

REQUEST_TIMEOUT_S = 20.0
POST_AGAIN_S = 0.2


@dataclass
class Accepted:
    """What was answered with success."""

    singles: dict[str, str] = field(default_factory=dict)  # prompt by job id
    batches: dict[str, dict[str, str]] = field(default_factory=dict)  # batch id: prompt by custom_id

    @property
    def jobs(self) -> int:
        return len(self.singles) + sum(map(len, self.batches.values()))


class Load:
    """Two producers of single jobs and one of batches. `wrong` is the first failure that they cannot explain."""

    def __init__(self, seed: int, url: Callable[[], str], open_jobs: Callable[[], int]) -> None:
        self.accepted = Accepted()
        self.wrong: list[str] = []
        self._url = url
        self._open_jobs = open_jobs
        self._full = False
        self._ends = threading.Event()
        makers = (self._single, self._single, self._batch)
        self._threads = [
            threading.Thread(target=self._produce, args=(make, Random(f"{seed}-{number}"), number), daemon=True)
            for number, make in enumerate(makers)
        ]
        self._threads.append(threading.Thread(target=self._watch, daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def finish(self, deadline_s: float = 120.0) -> None:
        """A request that was begun is posted until it is accepted; no other one is begun."""
        self._ends.set()
        deadline = time.monotonic() + deadline_s
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
            assert not thread.is_alive(), "a producer's request is not accepted although all is well again"

    def _watch(self) -> None:
        while not self._ends.wait(0.5):
            with suppress(Exception):  # the ledger may be away at the moment
                self._full = self._open_jobs() > MOST_OPEN

    def _produce(self, make: Callable[[httpx.Client, Random, str], float], chance: Random, number: int) -> None:
        count = 0
        with httpx.Client(timeout=REQUEST_TIMEOUT_S) as http:
            while not self._ends.is_set():
                try:
                    pause_s = 0.5 if self._full else make(http, chance, f"{number}-{count}")
                except Exception as error:
                    self.wrong.append(repr(error))
                    return
                count += 1
                self._ends.wait(pause_s)

    def _single(self, http: httpx.Client, chance: Random, name: str) -> float:
        prompt = _prompt(chance, f"single {name}")
        headers = {"Idempotency-Key": f"single-{name}"}
        answer = self._posted(http, "/v1/jobs", headers=headers, json=_body(chance, prompt))
        self.accepted.singles[answer["id"]] = prompt
        return chance.uniform(0.0, 0.15)

    def _batch(self, http: httpx.Client, chance: Random, name: str) -> float:
        count = chance.choice([1, 20, 400, 1_500])
        prompts = {str(line): _prompt(chance, f"batch {name} line {line}") for line in range(count)}
        asked = {"method": "POST", "url": "/v1/chat/completions"}
        lines = [
            json.dumps({"custom_id": custom_id, **asked, "body": _body(chance, prompt)})
            for custom_id, prompt in prompts.items()
        ]
        content = {"files": {"file": ("in.jsonl", "\n".join(lines).encode())}, "data": {"purpose": "batch"}}
        file = self._posted(http, "/v1/files", **content)
        request = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        made = self._posted(http, "/v1/batches", headers={"Idempotency-Key": f"batch-{name}"}, json=request)
        self.accepted.batches[made["id"]] = prompts
        return chance.uniform(0.5, 4.0)

    def _posted(self, http: httpx.Client, path: str, **request: Any) -> dict[str, Any]:
        while True:
            try:
                answer = http.post(f"{self._url()}{path}", **request)
            except httpx.TransportError:
                time.sleep(POST_AGAIN_S)
                continue
            if answer.status_code in (200, 202):
                return dict(answer.json())
            if answer.status_code not in (429, 503) or "retry-after" not in answer.headers:
                raise AssertionError(f"{path}: {answer.status_code} {answer.text[:300]}")
            time.sleep(POST_AGAIN_S)


def _prompt(chance: Random, name: str) -> str:
    return f"{name}: {REFUSED}" if chance.random() < 0.02 else name


def _body(chance: Random, prompt: str) -> dict[str, Any]:
    model = chance.choice(["both", "both", "alpha/m", "beta/m"])
    return {"model": model, "messages": [{"role": "user", "content": prompt}]}


def mark_of(prompt: str) -> str:
    """The text of the fake providers' answer to a prompt."""
    return digest(prompt)[:12]
