"""Texts that callers or providers designed to be slow to read: each is read in a moment."""

import time

import orjson
import pytest

from understudy.models.failure import FailureClass
from understudy.worker.failures import classify
from understudy.worker.failures.masking import masked
from understudy.worker.providers.base import BadAnswer, Call
from understudy.worker.providers.registry import adapter_for

LENGTH = 200_000
PUMPS = {
    "keys": "sk-",
    "tokens": "eyJ-",
    "introduced": "apikey=",
    "titles": "<title> ",
    "blanks": " ",
    "newlines": "\n",
    "digits": "1",
    "quotes": "‘",
    "durations": "1h",
    "fences": "```\n",
    "brackets": "[",
}
FORMS = {
    "text": lambda text: text.encode(),
    "page": lambda text: f"<title>{text}".encode(),
    "error": lambda text: orjson.dumps({"error": {"message": text, "type": "invalid_request_error", "code": text}}),
}


def seconds(began: float) -> float:
    return time.thread_time() - began


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pump", PUMPS)
def test_what_a_provider_repeats_is_classified_in_a_moment(pump: str, form: str) -> None:
    body = FORMS[form](PUMPS[pump] * (LENGTH // len(PUMPS[pump])))
    began = time.thread_time()
    classify("openai", "openai", 400, {}, body, 0.0)
    assert seconds(began) < 1.0


@pytest.mark.parametrize("pump", PUMPS)
def test_an_answer_that_is_not_json_is_refused_in_a_moment(pump: str) -> None:
    text = "```\n" + PUMPS[pump] * (LENGTH // len(PUMPS[pump]))
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    content = orjson.dumps({"id": "x", "model": "m", "choices": [choice], "usage": {}})
    call = Call("vllm", "m", {"messages": [], "response_format": {"type": "json_object"}})
    began = time.thread_time()
    with pytest.raises(BadAnswer) as bad:
        adapter_for("openai").answer(call, 200, {}, content)
    assert seconds(began) < 1.0
    assert bad.value.cls is FailureClass.BAD_RESPONSE


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("key sk-proj-abcdef123456, please", "key ***, please"),
        ("sk-abcdefgh is a word", "sk-abcdefgh is a word"),
        ("it ends: sk-abcdef1234.", "it ends: ***."),
        ("sk-ab*****cd", "***"),
        ("eyJhbGciOiJI.eyJzdWIi.sig", "***"),
        ("eyJhbGciOiJI without parts", "eyJhbGciOiJI without parts"),
        ("Bearer abcdefg1 was refused", "Bearer *** was refused"),
        ("Bearer authentication is needed", "Bearer authentication is needed"),
        ("api key: 'abcdefgh$1'", "api key: '***$1'"),
    ],
)
def test_what_looks_like_a_key_is_masked_and_words_are_not(said: str, shown: str) -> None:
    assert masked(said) == shown


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        (' ```  \n{"a": 1}```\n', '{"a": 1}'),
        ('{"a": 1}', '{"a": 1}'),
    ],
)
def test_json_between_backticks_is_taken_out(text: str, inner: str) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    content = orjson.dumps({"id": "x", "model": "m", "choices": [choice], "usage": {}})
    call = Call("vllm", "m", {"messages": [], "response_format": {"type": "json_object"}})
    answer = adapter_for("openai").answer(call, 200, {}, content)
    assert orjson.loads(answer.completion["choices"][0]["message"]["content"]) == orjson.loads(inner)
