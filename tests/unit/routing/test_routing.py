"""From a request to its chain."""

from typing import Any

import pytest

from understudy.models.config.settings import Settings
from understudy.models.failure import FailureClass
from understudy.models.request.tokens import estimate_chat_tokens as estimate_tokens
from understudy.models.request.wire import RequestError
from understudy.models.routing.chain import Chain, Step
from understudy.models.routing.request_options import ROUTE_WORDS, RouteOptions
from understudy.models.routing.route import Router

SETTINGS = Settings.model_validate(
    {
        "providers": {
            "openai": {},
            "anthropic": {},
            "openrouter": {},
            "local": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "models": ["llama3", "shared"]},
            "other": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "models": ["shared", "maker/odd"]},
        },
        "chains": {
            "default": {"steps": ["openai/gpt-4o-mini"]},
            "careful": {
                "steps": ["openai/gpt-4o", {"model": "anthropic/claude-sonnet-4-5", "max_tokens": 800}],
                "patience_s": 7,
                "spill": True,
                "fallback_on": ["rate_limit"],
                "accept": ["not_empty", "json_schema"],
            },
        },
    }
)
MESSAGES = [{"role": "user", "content": "hello"}]


def as_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}}


def resolve(
    settings: Settings, body: dict[str, Any], options: RouteOptions | None = None
) -> tuple[Chain, dict[str, Any]]:
    return Router(settings, options).resolve(body)


def steps(body: dict[str, Any], options: RouteOptions | None = None) -> list[str]:
    chain, _ = resolve(SETTINGS, {"messages": MESSAGES, **body}, options)
    return [str(step) for step in chain.steps]


@pytest.mark.parametrize(
    ("model", "step"),
    [
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("openrouter/meta-llama/llama-3.3-70b", "openrouter/meta-llama/llama-3.3-70b"),
        ("claude-sonnet-4-5", "anthropic/claude-sonnet-4-5"),
        ("o3-mini", "openai/o3-mini"),
        ("llama3", "local/llama3"),
        ("maker/odd", "other/maker/odd"),
    ],
)
def test_a_model_is_found_by_provider_by_list_or_by_family(model: str, step: str) -> None:
    assert steps({"model": model}) == [step]


def test_a_chain_is_named_as_a_model_and_keeps_its_policy_and_overrides() -> None:
    chain, _ = resolve(SETTINGS, {"model": "careful", "messages": MESSAGES})
    assert chain.steps == (
        Step(provider="openai", model="gpt-4o"),
        Step(provider="anthropic", model="claude-sonnet-4-5", params={"max_tokens": 800}),
    )
    assert (chain.patience_s, chain.spill, chain.fallback_on) == (7, True, frozenset({FailureClass.RATE_LIMIT}))


def test_fallbacks_follow_the_model_with_their_overrides() -> None:
    body = {"model": "openai/gpt-4o", "fallbacks": ["claude-sonnet-4-5", {"model": "local/llama3", "max_tokens": 5}]}
    chain, _ = resolve(SETTINGS, {**body, "messages": MESSAGES})
    assert [str(step) for step in chain.steps] == ["openai/gpt-4o", "anthropic/claude-sonnet-4-5", "local/llama3"]
    assert chain.steps[2].params == {"max_tokens": 5}


def test_our_words_do_not_reach_the_provider_and_all_others_do() -> None:
    body = {
        "model": "openai/gpt-4o",
        "fallbacks": ["local/llama3"],
        "allow_fallbacks": True,
        "patience_s": 3,
        "spill": False,
        "messages": MESSAGES,
        "temperature": 0.2,
        "priority": 4,
    }
    before = dict(body)
    chain, rest = resolve(SETTINGS, body)
    assert rest == {"messages": MESSAGES, "temperature": 0.2, "priority": 4}
    assert chain.patience_s == 3.0
    assert body == before


def test_forbidden_fallbacks_leave_the_first_step_alone() -> None:
    assert steps({"model": "careful", "fallbacks": ["local/llama3"], "allow_fallbacks": False}) == ["openai/gpt-4o"]


def test_a_fallback_that_is_already_in_the_chain_is_not_asked_twice() -> None:
    assert steps({"model": "openai/gpt-4o", "fallbacks": ["openai/gpt-4o", "gpt-4o"]}) == ["openai/gpt-4o"]


def test_a_chain_among_the_fallbacks_brings_its_steps() -> None:
    assert steps({"model": "local/llama3", "fallbacks": ["careful"]}) == [
        "local/llama3",
        "openai/gpt-4o",
        "anthropic/claude-sonnet-4-5",
    ]


def test_without_a_model_the_default_chain_serves() -> None:
    assert steps({}) == ["openai/gpt-4o-mini"]


def test_without_a_default_chain_the_only_listed_model_serves() -> None:
    local = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "models": ["llama3"]}
    chain, _ = resolve(Settings.model_validate({"providers": {"local": local}}), {"messages": MESSAGES})
    assert [str(step) for step in chain.steps] == ["local/llama3"]


def test_the_options_of_a_batch_hold_for_its_lines_and_a_line_wins() -> None:
    options = RouteOptions(model="openai/gpt-4o", fallbacks=("local/llama3",), patience_s=9, spill=True)
    assert steps({}, options) == ["openai/gpt-4o", "local/llama3"]
    assert steps({"model": "openai/gpt-5", "fallbacks": []}, options) == ["openai/gpt-5"]
    chain, _ = resolve(SETTINGS, {"messages": MESSAGES, "patience_s": 1, "spill": False}, options)
    assert (chain.patience_s, chain.spill) == (1.0, False)


def test_what_an_answer_must_be_is_said_by_the_request_else_the_batch_else_the_chain() -> None:
    options = RouteOptions(accept=frozenset({"not_refused"}))
    careful = {"messages": MESSAGES, "chain": "careful"}
    assert resolve(SETTINGS, careful)[0].accept == {"not_empty", "json_schema"}
    assert resolve(SETTINGS, careful, options)[0].accept == {"not_refused"}
    chain, rest = resolve(SETTINGS, {**careful, "accept": []}, options)
    assert (chain.accept, rest) == (frozenset(), {"messages": MESSAGES})


def test_the_share_of_fallbacks_is_said_by_the_request_else_the_batch() -> None:
    options = RouteOptions(max_fallback_share=0.5)
    of = {"messages": MESSAGES, "model": "openai/gpt-4o"}
    assert resolve(SETTINGS, of)[0].max_fallback_share is None
    assert resolve(SETTINGS, of, options)[0].max_fallback_share == 0.5
    assert resolve(SETTINGS, {**of, "max_fallback_share": 0}, options)[0].max_fallback_share == 0.0


def test_a_schema_is_nobodys_concern_where_answers_are_not_held_against_it() -> None:
    body = {"messages": MESSAGES, "model": "openai/gpt-4o", **as_schema({"patternProperties": {}})}
    assert resolve(SETTINGS, body)[1]["response_format"] == body["response_format"]


def test_a_chain_that_the_batch_names_replaces_the_model_of_its_lines() -> None:
    assert steps({"model": "gpt-4o"}, RouteOptions(chain="default")) == ["openai/gpt-4o-mini"]
    assert steps({"model": "gpt-4o", "chain": "careful"}, RouteOptions(chain="default"))[0] == "openai/gpt-4o"


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"model": "opnai/x"}, "model", "unknown provider 'opnai' in model; did you mean 'openai'?"),
        (
            {"model": "openai/x", "fallbacks": ["local/x", "opnai/x"]},
            "fallbacks[1]",
            "unknown provider 'opnai' in fallbacks[1]; did you mean 'openai'?",
        ),
        ({"model": "zzzz/x"}, "model", "known: anthropic, local, openai, openrouter, other"),
        ({"model": "groq/x"}, "model", "provider 'groq' in model is not configured; set GROQ_API_KEY"),
        ({"model": "gemini-2.5-flash"}, "model", "set GEMINI_API_KEY"),
        ({"model": "shared"}, "model", "write 'local/shared' or 'other/shared'"),
        ({"model": "nobody-knows"}, "model", "write it as 'provider/model'"),
        ({"model": "carful"}, "model", "did you mean the chain 'careful'?"),
        ({"model": "openai/"}, "model", "lacks the model"),
        ({"model": 3}, "model", "must be the name of a model"),
        ({"model": ""}, "model", "must be the name of a model"),
        ({"model": "openai/" + "x" * 300}, "model", "is not a model name"),
        ({"model": "openai/gpt\n4"}, "model", "is not a model name"),
        ({"model": "openai/x", "fallbacks": "local/x"}, "fallbacks", "must be a list"),
        ({"model": "openai/x", "fallbacks": [None]}, "fallbacks[0]", "must be the name of a model"),
        ({"model": "openai/x", "fallbacks": [{"max_tokens": 3}]}, "fallbacks[0].model", "must be the name of a model"),
        (
            {"model": "openai/x", "fallbacks": [{"model": "local/x", "messages": []}]},
            "fallbacks[0]",
            "cannot override 'messages'",
        ),
        ({"model": "openai/x", "fallbacks": [f"local/{n}" for n in range(30)]}, "fallbacks", "may have 20 steps"),
        ({"model": "openai/x", "chain": "carful"}, "chain", "unknown chain 'carful'; did you mean 'careful'?"),
        ({"model": "openai/x", "chain": {"a": 1}}, "chain", "must be the name of a chain"),
        ({"model": "openai/x", "patience_s": -1}, "patience_s", "0 or more"),
        ({"model": "openai/x", "patience_s": True}, "patience_s", "number of seconds"),
        ({"model": "openai/x", "patience_s": float("nan")}, "patience_s", "number of seconds"),
        ({"model": "openai/x", "spill": 1}, "spill", "true or false"),
        ({"model": "openai/x", "accept": "not_empty"}, "accept", "json_schema, not_empty"),
        ({"model": "openai/x", "accept": ["good"]}, "accept", "json_schema, not_empty"),
        ({"model": "openai/x", "max_fallback_share": 1.5}, "max_fallback_share", "from 0 to 1"),
        (
            {"model": "openai/x", "max_fallback_share": 1, "order": "cheapest"},
            "max_fallback_share",
            "no step is the first",
        ),
        ({"model": "openai/x", "max_fallback_share": True}, "max_fallback_share", "from 0 to 1"),
        ({"chain": "careful", **as_schema({"$ref": "http://h/s"})}, "response_format", "outside the schema"),
        (
            {"model": "openai/x", "accept": ["json_schema"], **as_schema({"patternProperties": {"(": {}}})},
            "response_format",
            "not a regular expression",
        ),
        ({"model": "openai/x", "allow_fallbacks": "no"}, "allow_fallbacks", "true or false"),
    ],
)
def test_what_is_malformed_or_unknown_is_refused_by_name(body: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(RequestError) as refused:
        steps(body)
    assert words in refused.value.message
    assert refused.value.param == param


@pytest.mark.parametrize("word", ROUTE_WORDS)
def test_each_option_says_what_it_must_be_and_null_is_as_good_as_absent(word: str) -> None:
    with pytest.raises(RequestError, match=rf"^'{word}' must be (a|one of|the|true) ?\w+") as refused:
        RouteOptions.of({word: object()})
    assert refused.value.param == word
    assert not RouteOptions.of({word: None}).model_fields_set


@pytest.mark.parametrize("body", [{}, {"model": "x"}, {"model": "a/b"}])
def test_with_nothing_configured_the_sentence_says_what_to_do(body: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"not configured|no provider is configured|unknown provider"):
        resolve(Settings(), body)


def test_lines_that_say_the_same_share_one_chain() -> None:
    router = Router(SETTINGS)
    body = {"model": "openai/gpt-4o", "fallbacks": [{"model": "local/llama3", "max_tokens": 5}]}
    first, _ = router.resolve({**body, "messages": MESSAGES})
    second, _ = router.resolve({**body, "messages": [{"role": "user", "content": "another"}]})
    assert first is second


def test_a_good_flag_in_one_line_does_not_excuse_a_bad_one_in_the_next() -> None:
    router = Router(SETTINGS)
    router.resolve({"model": "openai/gpt-4o", "spill": True})
    with pytest.raises(RequestError):
        router.resolve({"model": "openai/gpt-4o", "spill": 1})


def test_a_million_different_models_do_not_fill_the_memory() -> None:
    router = Router(SETTINGS)
    for number in range(10_050):
        router.resolve({"model": f"openai/m{number}"})
    assert len(router._routes) <= 10_000


def test_tokens_are_estimated_from_bytes_and_images_count_as_one_image() -> None:
    assert estimate_tokens({"messages": [{"role": "user", "content": "x" * 4000}]}) == 1004
    assert estimate_tokens({"messages": [{"role": "user", "content": "語" * 4000}]}) == 3004
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    assert estimate_tokens({"messages": [{"role": "user", "content": [image]}]}) == 1004
    with_tool = {"messages": MESSAGES, "tools": [{"type": "function", "function": {"name": "f" * 400}}]}
    assert estimate_tokens(with_tool) > 100 + estimate_tokens({"messages": MESSAGES})
