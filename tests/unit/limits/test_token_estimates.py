"""The expected tokens of a call, learned from other calls."""

from hypothesis import given
from hypothesis import strategies as st

from understudy.models.request.tokens import TYPICAL_OUTPUT_TOKENS, Usage
from understudy.worker.bounded_mapping import MODELS_MAX
from understudy.worker.limits import estimates as module
from understudy.worker.limits.estimates import Estimates, keeps_max_tokens

MODEL = ("alpha", "large")


def answered(estimates: Estimates, output: int, times: int = 1, batch: str | None = None, used: int = 100) -> None:
    for _ in range(times):
        estimates.learn(MODEL, batch, 100, Usage(input_tokens=used, output_tokens=output))


def test_before_anything_is_known_an_answer_is_typical_and_within_what_the_request_allows() -> None:
    assert Estimates().tokens_to_reserve(MODEL, "openai", None, 100, 0) == 100 + TYPICAL_OUTPUT_TOKENS
    assert Estimates().tokens_to_reserve(MODEL, "openai", None, 100, 20) == 120


def test_nine_of_ten_answers_stay_within_what_is_reserved() -> None:
    estimates = Estimates()
    for output in range(1, 101):
        answered(estimates, output)
    assert estimates.output_tokens(MODEL) == 90


@given(st.lists(st.integers(0, 100_000), min_size=module.ENOUGH, max_size=module.REMEMBERED))
def test_the_share_holds_for_any_answers(outputs: list[int]) -> None:
    lengths = module._Lengths()
    for output in outputs:
        lengths.add(output)
    most = lengths.most()
    assert most in outputs
    assert sum(each <= most for each in outputs) >= module.SHARE * len(outputs)
    assert sum(each < most for each in outputs) < module.SHARE * len(outputs)


def test_a_batch_knows_its_own_answers_and_others_go_by_the_model() -> None:
    estimates = Estimates()
    answered(estimates, 1_000, times=50)
    answered(estimates, 10, times=20, batch="batch_short")
    assert estimates.output_tokens(MODEL, "batch_short") == 10
    assert estimates.output_tokens(MODEL, "batch_new") == 1_000
    assert estimates.output_tokens(("alpha", "small")) == TYPICAL_OUTPUT_TOKENS


def test_a_few_answers_prove_nothing() -> None:
    estimates = Estimates()
    answered(estimates, 3, times=module.ENOUGH - 1)
    assert estimates.output_tokens(MODEL) == TYPICAL_OUTPUT_TOKENS
    answered(estimates, 3)
    assert estimates.output_tokens(MODEL) == 3


def test_old_answers_are_forgotten() -> None:
    estimates = Estimates()
    answered(estimates, 5_000, times=module.REMEMBERED)
    answered(estimates, 7, times=module.REMEMBERED)
    assert estimates.output_tokens(MODEL) == 7


def test_the_input_is_corrected_by_what_was_used() -> None:
    estimates = Estimates()
    answered(estimates, 1, times=300, used=150)
    assert 148 <= estimates.input_tokens(MODEL, 100) <= 151
    assert estimates.input_tokens(("alpha", "small"), 100) == 100


def test_one_odd_call_moves_the_correction_little_and_none_moves_it_out_of_bounds() -> None:
    estimates = Estimates()
    answered(estimates, 1, used=400)
    assert estimates.input_tokens(MODEL, 100) < 140
    answered(estimates, 1, times=500, used=1_000_000)
    assert estimates.input_tokens(MODEL, 100) == 500


def test_providers_that_count_max_tokens_get_them_reserved_whole() -> None:
    estimates = Estimates()
    answered(estimates, 10, times=50)
    for dialect, reserved in (("openai", 110), ("azure", 2_100), ("bedrock", 2_100), ("groq", 2_100)):
        assert estimates.tokens_to_reserve(MODEL, dialect, None, 100, 2_000) == reserved
    assert estimates.tokens_to_reserve(MODEL, "azure", None, 100, 0) == 110
    assert [name for name in ("azure", "bedrock", "openai") if keeps_max_tokens(name)] == ["azure"]


def test_memory_is_bounded() -> None:
    estimates = Estimates()
    for number in range(module.BATCHES_MAX + 100):
        answered(estimates, 1, batch=f"batch_{number}")
        estimates.learn(("alpha", f"model-{number}"), None, 1, Usage(input_tokens=1, output_tokens=1))
    for kept, most in (
        (estimates._of_batch, module.BATCHES_MAX),
        (estimates._of_model, MODELS_MAX),
        (estimates._inputs, MODELS_MAX),
    ):
        assert len(kept) == most
    assert (MODEL, "batch_0") not in estimates._of_batch
