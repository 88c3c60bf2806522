"""What a provider may say in a 200: our keys, JSON of any depth, counts of any size. None of it causes an error."""

import base64
import json
from typing import Any

import pytest
from run_help import Stage, answered, answering, chain

from understudy.models.costs.budgets import BudgetRecord, of_batch
from understudy.models.failure import FailureClass
from understudy.models.state import JobState

KEY = "sk-alpha-main-1234"
USAGE = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}

pytestmark = pytest.mark.timeout(30)


def completion(message: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi", **(message or {})}}
    return {"id": "c", "created": 1, "model": "m", "choices": [choice], "usage": USAGE, **more}


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


class Says:
    """What alpha answers next, whatever it is asked."""

    def __init__(self, *documents: str | dict[str, Any]) -> None:
        self.documents = iter(documents)

    def __call__(self, prompt: str) -> Any:
        document = next(self.documents)
        return 200, (document if isinstance(document, str) else json.dumps(document)).encode()


FORMS = (
    KEY,
    f"Bearer {KEY}",
    f"the key {KEY} of yours",
    KEY.upper(),
    KEY[::-1],
    " ".join(KEY),
    *(base64.b64encode(around.encode()).decode() for around in (KEY, f"user:{KEY}", f"me:{KEY}!")),
)


@pytest.mark.parametrize("where", ["content", "arguments", "model", "fingerprint", "field"])
async def test_a_key_is_in_no_answer(redis_url: str, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    async with answering(redis_url, monkeypatch, Says(*(_showing(where, shown) for shown in FORMS))) as scene:
        for shown in FORMS:
            settled = await scene.run(chain("alpha/m"))
            assert settled.state is JobState.SUCCEEDED
            everything = json.dumps(answered(settled)) + repr(settled)
            assert KEY[3:] not in everything and shown.strip("=")[4:-4] not in everything
            assert "***" in everything


def _showing(where: str, shown: str) -> dict[str, Any]:
    call = {"id": "t", "type": "function", "function": {"name": "f", "arguments": json.dumps({"k": shown})}}
    return {
        "content": completion({"content": shown}),
        "arguments": completion({"content": None, "tool_calls": [call]}),
        "model": completion(model=shown),
        "fingerprint": completion(system_fingerprint=shown),
        "field": completion(whatever={shown: [shown]}),
    }[where]


@pytest.mark.parametrize("word", ["none", "ollama", "placeholder", "lm-studio", "not-needed"])
async def test_a_word_for_a_key_changes_no_answer(redis_url: str, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("WORD", word)
    text = f"of {word} I know"
    async with answering(redis_url, monkeypatch, Says(completion({"content": text})), api_keys=["env.WORD"]) as scene:
        scene.environ["WORD"] = word
        settled = await scene.run(chain("alpha/m"))
    assert answered(settled)["choices"][0]["message"]["content"] == text


WITH_DEEP = {
    "answer": '{"deep": %s, "choices": [{"finish_reason": "stop", "message": {"content": "hi"}}]}',
    "usage": '{"usage": {"deep": %s}, "choices": [{"finish_reason": "stop", "message": {"content": "hi"}}]}',
    "model": '{"model": %s, "choices": [{"finish_reason": "stop", "message": {"content": "hi"}}]}',
    "message": '{"choices": [{"finish_reason": "stop", "message": {"content": "hi", "deep": {"er": %s}}}]}',
    "error": '{"error": {"message": %s}}',
    "choice": '{"choices": [{"error": {"message": %s}}]}',
}
LEVELS = (250, 253, 254, 300, 5_000)


@pytest.mark.parametrize("where", WITH_DEEP)
async def test_an_answer_that_is_too_deep_is_a_bad_response_and_the_next_step_is_asked(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    for levels in LEVELS:
        async with answering(redis_url, monkeypatch, Says(*[WITH_DEEP[where] % nested(levels)] * 9)) as scene:
            settled = await scene.run(chain("alpha/m", "beta/m", patience_s=0))
        assert settled.state is JobState.SUCCEEDED
        if answered(settled)["extra_fields"]["provider"] == "beta":
            assert {each.cls for each in settled.attempts[:-1]} == {FailureClass.BAD_RESPONSE}
            assert all(each.possibly_billed for each in settled.attempts[:-1])
        else:
            assert levels < 254 and where not in ("error", "choice")


async def test_a_deep_error_is_shown_as_far_as_it_can_be(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = iter((100, 300, 900))
    error = lambda _: (400, {"message": "no", "detail": json.loads(nested(next(deep)))})  # noqa: E731
    async with answering(redis_url, monkeypatch, error) as scene:
        for _ in range(3):
            settled = await scene.run(chain("alpha/m"))
            assert settled.state is JobState.FAILED
            assert answered(settled)["error"]["message"] == "no"


COUNTS = (10**8, 2**39, 2**63, 10**24, 1e300, -1, "many", [1], None)


@pytest.mark.parametrize("field", ["prompt_tokens", "completion_tokens", "total_tokens"])
async def test_a_count_that_cannot_be_is_neither_priced_nor_charged(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    documents = [completion(usage={**USAGE, field: count}) for count in COUNTS]
    async with answering(redis_url, monkeypatch, Says(*documents)) as scene:
        before = _reserved(scene)
        for _ in COUNTS:
            settled = await scene.run(chain("alpha/m"))
            assert settled.state is JobState.SUCCEEDED and settled.result is not None
            assert answered(settled)["choices"][0]["message"]["content"] == "hi"
            (attempt,) = settled.attempts
            assert attempt.cost_usd < 0.1 and attempt.input_tokens < 100 and attempt.output_tokens < 100
            assert attempt.cost_usd or (attempt.unpriced and settled.result.unpriced)
        assert _reserved(scene) <= before


async def test_no_budget_is_charged_for_a_count_that_cannot_be(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = of_batch("batch_1")
    documents = [completion(usage={"prompt_tokens": count, "completion_tokens": count}) for count in COUNTS]
    async with answering(redis_url, monkeypatch, Says(*documents)) as scene:
        scene.known[batch] = BudgetRecord(20.0, 0.0, 0.0)
        for _ in COUNTS:
            assert (await scene.run(chain("alpha/m"), batch_budget=True)).state is JobState.SUCCEEDED
        (balance, *_) = (await scene.tools.budgets.read([batch]))[batch]
        assert (balance.spent_usd, balance.reserved_usd) == (0, 0)


def _reserved(scene: Stage) -> int:
    return scene.tools.estimates.tokens_to_reserve(("alpha", "m"), "openai", "batch_1", 9, 0)


async def test_words_of_ours_that_a_provider_uses_are_replaced(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forged = completion(extra_fields={"provider": "forged"})
    async with answering(redis_url, monkeypatch, Says(forged)) as scene:
        settled = await scene.run(chain("alpha/m"))
    assert settled.result is not None and settled.result.body is not None
    assert settled.result.body.count('"extra_fields"') == 1
    assert answered(settled)["extra_fields"]["provider"] == "alpha"


async def test_an_answer_of_nothing_but_brackets_is_refused_before_it_is_read(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    brackets = b'{"choices": [' + b"[]," * 3_000_000 + b"0]}"
    async with answering(redis_url, monkeypatch, lambda _: (200, brackets)) as scene:
        settled = await scene.run(chain("alpha/m"))
    assert settled.state is JobState.FAILED
    assert "too many values" in (settled.attempts[0].message or "")
