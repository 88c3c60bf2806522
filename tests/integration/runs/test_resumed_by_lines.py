"""A run is resumed line by line: what was answered for an output is not paid for again, however the input changes."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from ledger_help import failed, new_worker, succeeded

from understudy.models.config.settings import Settings
from understudy.models.failure import FailureClass
from understudy.models.jobs.execution import StartedJob
from understudy.models.routing.request_options import RouteOptions
from understudy.models.store import Store
from understudy.producer.ingest.decoding import InputError
from understudy.producer.ingest.input_rows import Shape
from understudy.producer.runs.reruns import EVERYTHING, retry_answered, retry_failed
from understudy.producer.runs.resume import begin, preview_of
from understudy.producer.runs.retry_chain import rows_of, views_of
from understudy.producer.runs.runs import BadInput, OtherRun, Run, RunRequest, final_summary


def settings_of(*steps: str) -> Settings:
    provider = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}
    return Settings.model_validate({"providers": {"lead": provider}, "chains": {"default": {"steps": list(steps)}}})


SETTINGS = settings_of("lead/large")


class Pipeline:
    """One input and one output, run repeatedly; answers repeat the prompt."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.source = folder / "in.jsonl"
        self.settings = SETTINGS
        self.shape = Shape()
        self.paid: list[str] = []  # prompts that were answered, in order

    def write(self, prompts: Iterable[str], *, ids: Sequence[str] = (), name: str = "in.jsonl") -> None:
        self.source = self.source.with_name(name)
        rows = [{"prompt": prompt} for prompt in prompts]
        for row, given in zip(rows, ids, strict=False):
            row["custom_id"] = given
        self.source.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))

    async def begin(self, **flags: Any) -> Run:
        output = self.source.with_name("out.jsonl")
        run = await begin(self.store, self.settings, RunRequest(self.source, output, self.shape, **flags))
        await self.store.runs.keep(run.batches, 3600.0)
        return run

    async def work(self, run: Run, most: int = 1_000, fail: Callable[[str], FailureClass | None] | None = None) -> None:
        """Answer, or fail, up to this many of the jobs that the planner sees."""
        worker = await new_worker(self.store)
        heads = [
            head for lane in await self.store.planning.lanes() for head in await self.store.planning.heads(lane, most)
        ]
        jobs = await self.store.claims.start(worker, sorted(head.id for head in heads)[:most])
        await self.store.claims.settle(worker, [self._outcome(job, fail) for job in jobs])
        await self.store.workers.remove(worker)
        await self.store.batch_lifecycle.close_finished()

    async def run(self, most: int = 1_000, **flags: Any) -> Run:
        """Begin, and finish up to this many jobs."""
        run = await self.begin(**flags)
        await self.work(run, most)
        return run

    def _outcome(self, job: StartedJob, fail: Callable[[str], FailureClass | None] | None) -> Any:
        prompt = orjson.loads(job.body)["messages"][-1]["content"]
        if fail is not None and (cls := fail(prompt)):
            return failed(job, cls)
        self.paid.append(prompt)
        return succeeded(job, prompt, cost_usd=0.25)

    async def output(self, run: Run) -> list[tuple[str, str | None]]:
        """Name and answer of each ended line, in order."""
        rows = [row async for row in self.store.outputs.of_run(run.id)]
        return [(row.custom_id, orjson.loads(row.body)["answer"] if row.body else None) for row in rows]

    async def answers(self, run: Run) -> list[str | None]:
        return [answer for _, answer in await self.output(run)]


@pytest.fixture
def pipeline(store: Store, tmp_path: Path) -> Pipeline:
    return Pipeline(store, tmp_path)


def words(run: Run) -> str:
    assert run.compared is not None
    return run.compared.words


async def test_first_ten_and_then_all(pipeline: Pipeline) -> None:
    prompts = [f"p{number}" for number in range(25)]
    pipeline.write(prompts)
    pipeline.shape = Shape(limit=10)
    first = await pipeline.run()
    assert await pipeline.answers(first) == prompts[:10]
    pipeline.shape = Shape()
    run = await pipeline.run()
    assert words(run) == "10 answered, 15 new"
    assert await pipeline.answers(run) == prompts
    assert sorted(pipeline.paid) == sorted(prompts)
    pipeline.shape = Shape(limit=3)
    assert await pipeline.answers(await pipeline.run()) == prompts[:3], "the output has today's lines and no other"
    pipeline.shape = Shape()
    run = await pipeline.run()
    assert (words(run), len(pipeline.paid)) == ("25 answered", 25), "what was left out comes back with its answer"
    assert await pipeline.answers(run) == prompts


async def test_the_forecast_of_what_is_left_takes_answers_to_be_as_long_as_those_so_far(pipeline: Pipeline) -> None:
    tokens_of_an_answer = 5
    pipeline.write([f"p{number}" for number in range(25)])
    pipeline.shape = Shape(limit=10)
    await pipeline.run()
    pipeline.shape = Shape()
    asked = RunRequest(pipeline.source, pipeline.source.with_name("out.jsonl"), pipeline.shape)
    preview = await preview_of(pipeline.store, pipeline.settings, asked)
    assert preview is not None
    assert preview.preflight.forecast.output_tokens == 15 * tokens_of_an_answer
    run = await pipeline.begin()
    assert run.preflight is not None
    assert run.preflight.forecast.output_tokens == 15 * tokens_of_an_answer


async def test_only_the_rows_that_were_appended_or_put_between_are_paid_for(pipeline: Pipeline) -> None:
    pipeline.write(["a", "b", "c", "d"])
    await pipeline.run()
    pipeline.write(["a", "b", "x", "c", "d", "e"])
    run = await pipeline.run()
    assert words(run) == "4 answered, 2 new"
    assert await pipeline.output(run) == [("1", "a"), ("2", "b"), ("3", "x"), ("4", "c"), ("5", "d"), ("6", "e")]
    assert pipeline.paid == ["a", "b", "c", "d", "x", "e"]


async def test_a_window_that_moves_on_replaces_nothing(pipeline: Pipeline) -> None:
    pipeline.write("abcdef")
    await pipeline.run()
    pipeline.write("defghi")
    run = await pipeline.run()
    assert words(run) == "3 answered, 3 new"
    assert await pipeline.answers(run) == list("defghi")


async def test_lines_in_another_order_are_answered_already(pipeline: Pipeline) -> None:
    pipeline.write("abcdef")
    await pipeline.run()
    pipeline.write("fbdaec")
    run = await pipeline.run()
    assert (words(run), len(pipeline.paid)) == ("6 answered", 6)
    assert await pipeline.output(run) == [(str(number), answer) for number, answer in enumerate("fbdaec", 1)]


async def test_a_changed_line_needs_to_be_asked_for_and_is_the_only_one_that_is_paid(pipeline: Pipeline) -> None:
    pipeline.write(["a", "b", "c", "d"])
    await pipeline.run()
    before = await pipeline.begin()
    pipeline.write(["new", "a", "b", "c!", "d", "e"])
    with pytest.raises(OtherRun) as refused:
        await pipeline.begin()
    said = str(refused.value)
    assert said.startswith("3 answered, 2 new, 1 changed; nothing was sent. 1 line (4) has changed")
    assert "cost of that answer: $0.2500. --update asks it again, " in said
    assert "--fresh asks all 6 lines again" in said
    assert await pipeline.answers(before) == ["a", "b", "c", "d"], "nothing has changed for who was refused"
    run = await pipeline.run(update=True)
    assert words(run) == "3 answered, 2 new, 1 changed"
    assert await pipeline.answers(run) == ["new", "a", "b", "c!", "d", "e"]
    assert sorted(pipeline.paid) == sorted(["a", "b", "c", "d", "new", "c!", "e"])
    pipeline.write(["a", "b", "c", "d"])
    run = await pipeline.run()
    assert (words(run), len(pipeline.paid)) == ("4 answered", 7), "the old prompt has its old answer"
    assert await pipeline.answers(run) == ["a", "b", "c", "d"]


async def test_what_would_be_asked_is_reported_and_not_kept(pipeline: Pipeline) -> None:
    request = RunRequest(pipeline.source, pipeline.source.with_name("out.jsonl"), pipeline.shape)
    pipeline.write("abcd")
    assert await preview_of(pipeline.store, SETTINGS, request) is None
    await pipeline.run(most=2)
    pipeline.write("axcde")
    preview = await preview_of(pipeline.store, SETTINGS, request)
    assert preview is not None
    assert preview.compared is not None
    assert preview.compared.words == "1 answered, 1 new, 1 changed, 2 not asked yet"
    assert preview.preflight.forecast.lines == 4
    pipeline.write("abcd")
    assert words(await pipeline.run()) == "2 answered, 2 not asked yet"
    assert pipeline.paid == list("abcd")


async def test_another_template_changes_every_line(pipeline: Pipeline) -> None:
    pipeline.write(["a", "b", "c"])
    await pipeline.run()
    pipeline.shape = Shape(system="Be kind.")
    with pytest.raises(OtherRun, match=re.escape("3 changed; nothing was sent. 3 lines (1, 2, 3) have changed")):
        await pipeline.begin()
    await pipeline.run(update=True)
    assert pipeline.paid == ["a", "b", "c", "a", "b", "c"]


async def test_a_prompt_that_stands_twice_is_asked_twice_and_each_answer_serves_once(pipeline: Pipeline) -> None:
    pipeline.write(["same", "same", "other"])
    await pipeline.run()
    assert len(pipeline.paid) == 3
    pipeline.write(["other", "same", "same", "same"])
    run = await pipeline.run()
    assert words(run) == "3 answered, 1 new"
    jobs = [row.job_id async for row in pipeline.store.outputs.of_run(run.id)]
    assert len(set(jobs)) == 4
    pipeline.write(["same"])
    assert words(await pipeline.run()) == "1 answered"


async def test_lines_with_ids_are_known_by_their_ids_and_then_by_what_they_ask(pipeline: Pipeline) -> None:
    pipeline.write(["a", "b", "c", "d"], ids=["w", "x", "y", "z"])
    await pipeline.run()
    pipeline.write(["d", "b", "a", "c"], ids=["z", "x", "renamed", "y"])
    run = await pipeline.run()
    assert (words(run), len(pipeline.paid)) == ("4 answered", 4)
    assert await pipeline.output(run) == [("z", "d"), ("x", "b"), ("renamed", "a"), ("y", "c")]
    pipeline.write(["b", "d", "a", "c"], ids=["z", "x", "renamed", "y"])
    run = await pipeline.run()
    assert words(run) == "4 answered", "two lines have changed their names"
    assert await pipeline.answers(run) == ["b", "d", "a", "c"]
    pipeline.write(["b", "other", "a", "c"], ids=["z", "x", "renamed", "y"])
    with pytest.raises(OtherRun, match=re.escape("3 answered, 1 changed; nothing was sent. 1 line (2) has changed")):
        await pipeline.begin()


async def test_the_output_repeats_todays_columns(pipeline: Pipeline) -> None:
    pipeline.shape = Shape(prompt="Describe {name}", id_column="sku")
    pipeline.source = pipeline.source.with_name("in.csv")
    pipeline.source.write_text("sku,name,shelf\n1,desk,A\n2,lamp,B\n")
    await pipeline.run()
    pipeline.source.write_text("sku,name,shelf\n2,lamp,C\n1,desk,A\n3,rug,D\n")
    run = await pipeline.run()
    assert words(run) == "2 answered, 1 new"
    columns = [orjson.loads(row.extra or "") async for row in pipeline.store.outputs.of_run(run.id)]
    assert [(each["sku"], each["shelf"]) for each in columns] == [("2", "C"), ("1", "A"), ("3", "D")]
    assert len(pipeline.paid) == 3


async def test_what_was_left_is_asked_with_what_is_new_and_nothing_else_is(pipeline: Pipeline) -> None:
    pipeline.write("abcdef")
    await pipeline.run(most=2)
    pipeline.write("abcxe")  # d and f are gone, x replaces d
    run = await pipeline.run()
    assert words(run) == "2 answered, 1 changed, 2 not asked yet"
    assert pipeline.paid == ["a", "b", "c", "x", "e"]
    assert await pipeline.answers(run) == list("abcxe")
    pipeline.write("abcxefgh")
    await pipeline.run(most=1)
    pipeline.write("abcxef")
    await pipeline.run()
    assert pipeline.paid == ["a", "b", "c", "x", "e", "f"], "lines that were taken out are never asked"


async def test_a_run_whose_input_is_the_same_goes_on_with_its_batch(pipeline: Pipeline) -> None:
    pipeline.write("abcdef")
    first = await pipeline.run(most=2)
    second = await pipeline.begin()
    assert second.batches == first.batches
    assert words(second) == "2 answered, 4 not asked yet"
    await pipeline.work(second)
    summary = second.summary(await views_of(pipeline.store, second.batches))
    assert (summary.total, summary.succeeded, summary.failed, summary.open) == (6, 6, 0, False)


async def test_lines_without_an_answer_take_todays_chain_and_the_others_stay(pipeline: Pipeline) -> None:
    def refuse_c_and_lose_d(prompt: str) -> FailureClass | None:
        return {"c": FailureClass.BAD_REQUEST, "d": FailureClass.MODEL_MISSING}.get(prompt)

    pipeline.write("abcdef")
    run = await pipeline.begin()
    await pipeline.work(run, 4, fail=refuse_c_and_lose_d)
    pipeline.settings = settings_of("lead/right")
    run = await pipeline.begin()
    assert words(run) == "2 answered, 4 to try again", "what was refused of the old chain may not be of the new one"
    assert run.compared is not None
    assert run.compared.elsewhere == 2
    jobs = [job async for job in pipeline.store.reruns.unfinished(run.batches[-1])]
    assert {str(job.chain.steps[0]) for job in jobs} == {"lead/right"}
    await pipeline.work(run)
    assert await pipeline.answers(run) == list("abcdef")
    assert sorted(pipeline.paid) == list("abcdef")
    summary = await final_summary(pipeline.store, run, await views_of(pipeline.store, run.batches))
    assert (summary.succeeded, summary.failed, summary.cost_usd) == (6, 0, 6 * 0.25)


async def test_a_model_of_the_command_line_that_was_wrong_is_corrected_there(pipeline: Pipeline) -> None:
    pipeline.write("ab")
    pipeline.shape = Shape(route=RouteOptions(model="lead/lrage"))
    await pipeline.work(await pipeline.begin(), fail=lambda _: FailureClass.MODEL_MISSING)
    pipeline.shape = Shape(route=RouteOptions(model="lead/large"))
    run = await pipeline.run()
    assert words(run) == "2 to try again"
    assert await pipeline.answers(run) == ["a", "b"]


async def test_what_was_refused_is_counted_and_tried_again_only_when_that_is_asked_for(pipeline: Pipeline) -> None:
    def refuse(prompt: str) -> FailureClass | None:
        return FailureClass.CONTENT_FILTER if prompt == "b" else None

    pipeline.write("abc")
    await pipeline.work(await pipeline.begin(), fail=refuse)
    run = await pipeline.begin()
    assert words(run) == "2 answered, 1 failed and not tried again"
    assert not run.is_open
    run = await pipeline.run(everything=True)
    assert words(run) == "2 answered, 1 to try again"
    assert await pipeline.answers(run) == list("abc")


async def test_what_made_the_first_jobs_fail_is_worth_another_try(pipeline: Pipeline) -> None:
    prompts = [f"p{number}" for number in range(20)]
    pipeline.write(prompts)
    run = await pipeline.begin()
    await pipeline.work(run, 10, fail=lambda _: FailureClass.BAD_REQUEST)
    run = await pipeline.run()
    assert words(run) == "10 to try again, 10 not asked yet"
    assert await pipeline.answers(run) == prompts


async def test_a_run_that_is_killed_while_it_is_taken_up_loses_nothing(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of its writes in turn."""
    pipeline.write("abcd")
    await pipeline.run(most=3)

    class Killed(BaseException):
        pass

    runs, comparison = pipeline.store.runs, pipeline.store.comparison
    intake, retention = pipeline.store.intake, pipeline.store.retention
    for area, step in (
        (runs, "add_lines"),
        (comparison, "match_lines"),
        (comparison, "note_lines"),
        (intake, "create_batch"),
        (comparison, "give_jobs"),
        (runs, "put_version"),
        (intake, "open_batch"),
    ):
        with monkeypatch.context() as patch:

            async def die(*_: object, **__: object) -> None:
                raise Killed

            pipeline.write([*"abcd", f"new after {step}"])
            patch.setattr(area, step, die)
            if step != "put_version":
                patch.setattr(comparison, "forget_stale_lines", _nothing)
                patch.setattr(retention, "discard_batch", _nothing)
            with pytest.raises(Killed):
                await pipeline.begin()
        run = await pipeline.begin()
        assert (run.compared and run.compared.answered) == 3
        assert run.standing.total == 5
    await pipeline.work(run)
    assert await pipeline.answers(run) == [*"abcd", "new after open_batch"]
    assert pipeline.paid == [*"abc", "d", "new after open_batch"]


async def _nothing(*_: object) -> None:
    """A killed process does not clean up."""


async def test_a_retry_by_hand_counts_for_the_lines_of_its_run(pipeline: Pipeline) -> None:
    store = pipeline.store
    pipeline.write("abcd")
    run = await pipeline.begin()
    await pipeline.work(run, fail=lambda prompt: {"b": FailureClass.BAD_REQUEST}.get(prompt))
    pipeline.write("xabcd")
    run = await pipeline.run()
    retry = await retry_failed(store, SETTINGS, run.batches[0], EVERYTHING)
    assert retry.batch_id is not None
    assert [job.custom_id async for job in store.reruns.unfinished(retry.batch_id)] == ["3"], "by its name of today"
    assert (await retry_failed(store, SETTINGS, run.batches[0], EVERYTHING)).batch_id is None
    run = await pipeline.begin()
    assert words(run) == "4 answered, 1 not asked yet"
    await pipeline.work(run)
    assert [row.custom_id async for row in rows_of(store, retry.batch_id)] == ["1", "2", "3", "4", "5"]
    assert await pipeline.answers(run) == list("xabcd")
    assert words(await pipeline.run()) == "5 answered"
    assert sorted(pipeline.paid) == list("abcdx")


async def test_a_run_works_off_a_retry_that_was_asked_for_by_hand(pipeline: Pipeline) -> None:
    pipeline.write("abc")
    run = await pipeline.begin()
    await pipeline.work(run, fail=lambda prompt: FailureClass.SERVER if prompt == "b" else None)
    await retry_failed(pipeline.store, SETTINGS, run.batches[0])
    run = await pipeline.run()
    assert words(run) == "2 answered, 1 not asked yet", "not to be tried once more"
    assert len(run.batches) == 2
    assert sorted(pipeline.paid) == list("abc")


async def test_an_answer_that_is_asked_again_stays_until_there_is_another(pipeline: Pipeline) -> None:
    store = pipeline.store
    pipeline.write("abc")
    run = await pipeline.run()
    await retry_answered(store, SETTINGS, run.batches[0], ["lead"], RouteOptions())
    pipeline.write("abc")
    run = await pipeline.begin()
    assert words(run) == "3 answered"
    assert run.standing.succeeded == 0, "they are open"
    before = [row.job_id async for row in store.outputs.of_run(run.id)]
    assert len(before) == 3
    await pipeline.work(run, fail=lambda prompt: FailureClass.SERVER if prompt == "b" else None)
    after = [row.job_id async for row in store.outputs.of_run(run.id)]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, False]
    summary = await final_summary(store, run, await views_of(store, run.batches))
    assert (summary.succeeded, summary.failed, summary.open) == (3, 0, False)


async def test_answers_that_are_asked_again_by_hand_are_so_also_when_a_line_is_added(pipeline: Pipeline) -> None:
    pipeline.write("abc")
    run = await pipeline.run()
    retry = await retry_answered(pipeline.store, SETTINGS, run.batches[0], ["lead"], RouteOptions())
    pipeline.write("abcd")
    run = await pipeline.run()
    assert words(run) == "3 answered, 1 new"
    assert sorted(pipeline.paid) == list("aabbccd")
    rows = [row.job_id async for row in pipeline.store.outputs.of_run(run.id)]
    assert retry.batch_id is not None
    assert rows[:3] == [row.job_id async for row in pipeline.store.outputs.of_batch(retry.batch_id)]
    summary = await final_summary(pipeline.store, run, await views_of(pipeline.store, run.batches))
    assert (summary.total, summary.succeeded, summary.open) == (4, 4, False)


async def test_fresh_forgets_every_answer_and_says_what_they_cost(pipeline: Pipeline) -> None:
    pipeline.write("abc")
    await pipeline.run()
    run = await pipeline.run(fresh=True)
    assert run.forgotten is not None
    assert (run.forgotten.succeeded, run.forgotten.cost_usd) == (3, 0.75)
    assert len(run.batches) == 1
    assert pipeline.paid == list("abcabc")


async def test_an_input_that_is_refused_forgets_no_answer(pipeline: Pipeline) -> None:
    pipeline.write("abc")
    await pipeline.run()
    with pipeline.source.open("ab") as source:
        source.write(b"not a request\n")
    with pytest.raises(BadInput):
        await pipeline.begin(fresh=True)
    run = await pipeline.begin(skip_bad=True)
    assert words(run) == "3 answered"
    pipeline.write([])
    with pytest.raises(InputError, match="no lines"):
        await pipeline.begin(fresh=True)
    pipeline.write("abc")
    assert words(await pipeline.begin()) == "3 answered"


async def test_answers_whose_words_are_gone_are_not_put_in_place_of_those_in_the_output(pipeline: Pipeline) -> None:
    """`store_content = "until_delivered"`: the output may be the only place that still has them."""
    pipeline.write("aab", ids=["1", "2"])
    run = await pipeline.run()
    assert await pipeline.store.content.acknowledge("batch", "default", run.batches[0])
    while await pipeline.store.content.forget_delivered("until_delivered", -1.0):
        pass
    pipeline.write("aabc", ids=["1", "2"])
    with pytest.raises(OtherRun, match=r"1 new, 3 changed; nothing was sent"):
        await pipeline.begin()
    run = await pipeline.run(update=True)
    assert await pipeline.answers(run) == list("aabc")
    assert sorted(pipeline.paid) == list("aaaabbc")


async def test_an_answer_that_lost_its_line_serves_a_line_that_asks_the_same_and_failed(pipeline: Pipeline) -> None:
    pipeline.write(["same", "same"], ids=["first", "second"])
    run = await pipeline.begin()
    await pipeline.work(run, 1)
    await pipeline.work(run, fail=lambda _: FailureClass.SERVER)
    pipeline.write(["same"], ids=["second"])
    run = await pipeline.run()
    assert (words(run), pipeline.paid) == ("1 answered", ["same"])
    assert await pipeline.output(run) == [("second", "same")]


async def test_many_lines_are_compared_in_parts(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.models.store.work.comparison.LINES_AT_ONCE", 7)
    monkeypatch.setattr("understudy.models.store.work.runs.SLICE", 5)
    prompts = [f"p{number}" for number in range(40)]
    pipeline.write(prompts)
    await pipeline.run()
    pipeline.write([*prompts[20:], "x", *reversed(prompts[:20])])
    run = await pipeline.run()
    assert words(run) == "40 answered, 1 new"
    assert await pipeline.answers(run) == [*prompts[20:], "x", *reversed(prompts[:20])]
