"""What requests need, and which steps provide it."""

from typing import Any

import pytest

from understudy.models.config.settings import Settings
from understudy.models.request.endpoints import ENDPOINTS
from understudy.models.request.needs import Needs, needs_of
from understudy.models.request.tokens import most_output_tokens
from understudy.models.routing.chain import CHAT, EMBEDDINGS, Chain, Step
from understudy.models.routing.suitability import Suitability, WhyNot

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
FILE = {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
TOOLS = [{"type": "function", "function": {"name": "f"}}]

SETTINGS = Settings.model_validate(
    {
        "providers": {
            "openai": {},
            "azure": {"base_url": "https://x.openai.azure.com/openai/v1"},
            "local": {
                "base_url": "http://127.0.0.1:9/v1",
                "tags": {"region": "eu"},
                "features": {"m": {"tools": False, "context_window": 1000, "max_output_tokens": 400}},
            },
        }
    }
)


def needs(*parts: dict[str, Any], **body: Any) -> Needs:
    document = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}, *parts]}], **body}
    return needs_of(document, CHAT, ENDPOINTS[CHAT].estimate_tokens(document), most_output_tokens(document))


def misfit(
    of: Needs, provider: str = "local", model: str = "m", settings: Settings = SETTINGS, **step: Any
) -> str | None:
    asked = Step.model_validate({"provider": provider, "model": model, **step})
    found = Suitability(settings).why_not(Chain(steps=(asked,)), asked, of)
    return None if found is None else found.text


def test_plain_text_needs_nothing_beyond_text() -> None:
    assert needs() == Needs(input_tokens=6, text_tokens=6)


def test_parts_of_messages_are_modalities_and_features() -> None:
    seen = needs(IMAGE, AUDIO, FILE)
    assert seen.modalities == {"text", "image", "audio", "file"}
    assert seen.features == {"images", "audio", "files"}


def test_tools_and_schemas_are_features_and_other_formats_are_not() -> None:
    assert needs(tools=TOOLS, response_format=SCHEMA).features == {"tools", "json_schema"}
    assert needs(tools=[], response_format={"type": "json_object"}).features == frozenset()


def test_images_and_files_are_guesses_that_no_window_is_judged_by() -> None:
    seen = needs(IMAGE, IMAGE, FILE)
    assert seen.input_tokens > 4_000
    assert seen.text_tokens == needs().text_tokens


def test_the_bound_of_the_answer_is_that_of_one_of_several() -> None:
    assert needs(max_tokens=100, n=3).output_tokens == 100
    assert needs(max_completion_tokens=70).output_tokens == 70
    assert needs().output_tokens == 0


def test_texts_to_be_embedded_are_read_one_by_one() -> None:
    assert needs_of({"input": ["a" * 40, "b" * 40]}, EMBEDDINGS, 20, 0) == Needs(input_tokens=20)
    assert needs_of({"input": "a" * 40}, EMBEDDINGS, 10, 0).text_tokens == 10
    assert needs_of({"input": [1, 2, 3]}, EMBEDDINGS, 3, 0).text_tokens == 3


def test_a_step_without_a_needed_feature_says_which() -> None:
    assert misfit(needs(tools=TOOLS)) == "'local/m' cannot use tools"
    assert misfit(needs()) is None


def test_what_a_step_adds_to_the_request_counts() -> None:
    assert misfit(needs(), params={"tools": TOOLS}) == "'local/m' cannot use tools"
    assert misfit(needs(max_tokens=500), params={"max_tokens": 300}) is None


def test_an_answer_longer_than_the_model_gives_does_not_fit() -> None:
    assert misfit(needs(max_tokens=401)) == "'local/m' answers with at most 400 tokens; the request asks for 401"
    assert misfit(needs(max_tokens=400)) is None


@pytest.mark.parametrize(("tokens", "fits"), [(900, True), (1_200, True), (1_201, False)])
def test_a_window_is_believed_to_be_too_small_only_beyond_a_fifth(tokens: int, fits: bool) -> None:
    reason = misfit(Needs(input_tokens=tokens, text_tokens=tokens))
    assert (reason is None) == fits
    assert fits or reason == "'local/m' has a context window of 1,000 tokens; the request has about 1,201 tokens"


def test_the_answer_needs_room_in_the_window_too() -> None:
    reason = misfit(Needs(input_tokens=900, text_tokens=900, output_tokens=300))
    assert reason is not None and reason.endswith("about 900 tokens and 300 for the answer")


def test_what_is_sure_of_a_model_is_known_at_its_makers_and_not_of_names_that_others_gave() -> None:
    assert misfit(needs(IMAGE), "openai", "gpt-3.5-turbo") == "'openai/gpt-3.5-turbo' cannot read images"
    long = Needs(input_tokens=100_000, text_tokens=100_000)
    assert "a context window of 16,385 tokens" in (misfit(long, "openai", "gpt-3.5-turbo") or "")
    for provider in ("azure", "local"):
        assert misfit(needs(IMAGE), provider, "gpt-3.5-turbo") is None
        assert misfit(long, provider, "gpt-3.5-turbo") is None


def test_a_configuration_knows_better_than_the_table() -> None:
    features = {"gpt-3.5-turbo": {"images": True, "context_window": 200_000}}
    deployment = "openai", "gpt-3.5-turbo", Settings.model_validate({"providers": {"openai": {"features": features}}})
    assert misfit(needs(IMAGE), *deployment) is None
    assert misfit(Needs(input_tokens=100_000, text_tokens=100_000), *deployment) is None
    assert misfit(needs(response_format=SCHEMA), *deployment) == "'openai/gpt-3.5-turbo' cannot keep to a json_schema"


def test_an_unknown_model_is_tried() -> None:
    assert misfit(needs(IMAGE, tools=TOOLS), "openai", "gpt-9") is None


@pytest.mark.parametrize(
    ("when", "of", "reason"),
    [
        ({"max_input_tokens": 5}, needs(), "is for requests of at most 5 input tokens; this one has about 6"),
        ({"max_input_tokens": 6}, needs(), None),
        ({"min_input_tokens": 7}, needs(), "is for requests of at least 7 input tokens; this one has about 6"),
        ({"min_input_tokens": 6}, needs(), None),
        ({"modality": "image"}, needs(), "is for requests with image"),
        ({"modality": "image"}, needs(IMAGE), None),
        ({"modality": "text"}, needs(IMAGE), "is for text-only requests"),
        ({"modality": "text"}, needs(), None),
        ({"needs": ["tools", "json_schema"]}, needs(response_format=SCHEMA), "is for requests that need tools"),
        ({"needs": ["json_schema"]}, needs(response_format=SCHEMA), None),
    ],
)
def test_a_conditional_step_is_for_the_requests_that_it_names(
    when: dict[str, Any], of: Needs, reason: str | None
) -> None:
    assert misfit(of, "local", "other", when=when) == (reason and f"'local/other' {reason}")


def test_a_broken_rule_is_told_before_a_misfit_and_as_what_it_is() -> None:
    fit = Suitability(SETTINGS)
    steps = (Step(provider="openai", model="m"), Step(provider="local", model="m"))
    chain = Chain(steps=steps, require={"region": ("eu",)})
    assert fit.why_not(chain, steps[0], needs()) == WhyNot(
        "'openai/m' breaks the rule require region = eu: provider 'openai' has no tag region", rule=True
    )
    assert fit.why_not(chain, steps[1], needs(tools=TOOLS)) == WhyNot("'local/m' cannot use tools", rule=False)
    assert fit.why_not(chain, steps[1], needs()) is None
    gone = Step(provider="gone", model="m")
    assert fit.broken_rule(chain, gone) is not None
    assert fit.broken_rule(Chain(steps=steps), gone) is None
