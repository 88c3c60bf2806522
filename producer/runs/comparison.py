"""Decides which lines of a run's input to ask, by comparing them with what was asked for this output before.

A line is identified by its request, not by its chain: an answered line keeps its answer when the chain changes, and an
unanswered line is asked with the current chain.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from understudy.models.failure import FailureClass
from understudy.models.jobs.submission import NewJob
from understudy.models.state import OPEN_STATES, BatchState, JobState
from understudy.models.store import Store
from understudy.models.store.work.comparison import AGAIN, CHANGED, LEFT, NEW, REWORDED, ComparedLine, Displaced
from understudy.models.store.work.runs import RunLine
from understudy.producer.ingest.decoding import InputError
from understudy.producer.ingest.intake import request_of
from understudy.producer.number_format import counted
from understudy.producer.runs.reruns import WORTH_ANOTHER_CHAIN

LINES_NAMED = 5

Worth = Callable[[str], Awaitable[frozenset[FailureClass]]]
"""For a batch: the failures of its jobs that are worth a retry."""


@dataclass(slots=True)
class Comparison:
    """The state of the current lines, in numbers of lines. `asked`: lines to ask, by reason."""

    lines: int = 0
    answered: int = 0  # and keep their answer
    elsewhere: int = 0  # of those, by another chain than the current one
    refused: int = 0  # failed, and would fail again the same way
    left: int = 0  # accepted earlier, not asked yet
    retried: int = 0  # answered, and asked again by a retry in progress
    asked: Counter[str] = field(default_factory=Counter)
    changed_lines: list[int] = field(default_factory=list)  # line numbers of the first ones
    changed_cost_usd: float = 0.0  # cost of the answers that would be replaced
    changed_unpriced: int = 0  # answers of unknown cost, not in changed_cost_usd

    @property
    def to_ask(self) -> int:
        return self.asked.total()

    @property
    def counts(self) -> dict[str, int]:
        """The state of the lines, as JSON."""
        return {
            "answered": self.answered,
            "new": self.asked[NEW],
            "changed": self.asked[CHANGED] + self.asked[REWORDED],
            "to_try_again": self.asked[AGAIN],
            "not_asked_yet": self.left + self.asked[LEFT],
            "failed_and_not_tried_again": self.refused,
        }

    @property
    def words(self) -> str:
        """The state of the lines as text, such as "100 answered, 12 new, 3 changed"."""
        return ", ".join(f"{count:,} {word.replace('_', ' ')}" for word, count in self.counts.items() if count)

    @property
    def changed_words(self) -> str:
        """The changed lines as text."""
        more = ", …" if self.asked[CHANGED] > len(self.changed_lines) else ""
        lines = ", ".join(f"{line:,}" for line in self.changed_lines)
        one = self.asked[CHANGED] == 1
        return f"{counted(self.asked[CHANGED], 'line')} ({lines}{more}) {'has' if one else 'have'} changed"


def lines_of(jobs: Iterable[NewJob], first: int, *, with_jobs: bool) -> list[RunLine]:
    """Jobs as lines of a run, starting at position `first`. `with_jobs`: these jobs answer them."""
    return [
        RunLine(
            position=position,
            line=job.line,
            name=job.custom_id,
            named=job.named,
            request=request_of(job),
            chain_id=job.chain.id,
            extra=None if with_jobs else job.extra,
            job_id=job.id if with_jobs else None,
        )
        for position, job in enumerate(jobs, first)
    ]


async def compare(store: Store, run_id: str, version: int, lines: int, worth: Worth) -> Comparison:
    """Compare the `lines` lines of a new version with earlier ones, and record which of them to ask."""
    await store.comparison.match_lines(run_id, version, lines)
    found = Comparison(lines=lines)
    shift = 0  # between a line's previous and current position, judged by its neighbours
    async for page in store.comparison.compared(run_id, version):
        asks: dict[int, str] = {}
        strangers: list[tuple[ComparedLine, int]] = []
        for line in page:
            if line.was is not None:
                shift = line.was - line.position
            if line.state is None:
                strangers.append((line, line.position + shift))
            elif ask := await _why_again(found, line, worth):
                asks[line.position] = ask
        asks |= await _why_new(store, run_id, version, found, strangers)
        found.asked.update(asks.values())
        again = {line.position: line.again_id for line in page if line.again_id is not None}
        found.retried += len(again)
        notes = [
            {"position": position, "ask": asks.get(position), "again_id": again.get(position)}
            for position in sorted({*asks, *again})
        ]
        await store.comparison.note_lines(run_id, version, notes)
    return found


async def _why_again(found: Comparison, line: ComparedLine, worth: Worth) -> str | None:
    """The reason to ask a known line again. None: do not ask."""
    otherwise = line.job_chain != line.chain_id
    if line.state is JobState.SUCCEEDED:
        found.answered += 1
        found.elsewhere += otherwise
        return None
    if line.state in OPEN_STATES and line.batch_state is BatchState.IN_PROGRESS and not otherwise:
        found.left += 1
        return None
    tried = await worth(line.batch_id or "") | (WORTH_ANOTHER_CHAIN if otherwise else frozenset())
    if line.state is JobState.FAILED and line.failure not in tried:
        found.refused += 1
        return None
    return AGAIN


async def _why_new(
    store: Store, run_id: str, version: int, found: Comparison, strangers: list[tuple[ComparedLine, int]]
) -> dict[int, str]:
    """For lines whose request is new, with their expected previous positions: whether they replace another line."""
    names = [line.name for line, _ in strangers if line.named]
    places = [place for line, place in strangers if not line.named]
    if not strangers:
        return {}
    by_name, by_place = await store.comparison.displaced(run_id, version, names, places)
    asks: dict[int, str] = {}
    for line, place in strangers:
        before = by_name.get(line.name) if line.named else by_place.get(place)
        asks[line.position] = ask = _ask_of(before)
        if before is not None and ask == CHANGED:
            found.changed_cost_usd += before.cost_usd or 0.0
            found.changed_unpriced += before.cost_usd is None
            if len(found.changed_lines) < LINES_NAMED:
                found.changed_lines.append(line.line)
    return asks


def _ask_of(before: Displaced | None) -> str:
    if before is None:
        return NEW
    return CHANGED if before.answered else REWORDED


async def jobs_to_ask(
    store: Store, run_id: str, version: int, jobs: AsyncIterator[NewJob]
) -> AsyncIterator[tuple[int, NewJob, str]]:
    """The jobs of the input to ask, in order, with position and reason.

    Raises InputError when the input is no longer the one that was compared.
    """
    wanted = store.comparison.to_ask(run_id, version)
    next_one = await anext(wanted, None)
    position = 0
    async for job in jobs:
        position += 1
        if next_one is None:
            return
        at, request, reason = next_one
        if position == at:
            if request_of(job) != request:
                raise InputError("the input was changed while it was read; run the same command again")
            yield position, job, reason
            next_one = await anext(wanted, None)
    if next_one is not None:
        raise InputError("the input was changed while it was read; run the same command again")
