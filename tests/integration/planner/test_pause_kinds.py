"""The kind of a pause is a value in the batch's row: a similar sentence means nothing."""

import pytest
from ledger_help import open_batch, state_of

from understudy.models.jobs.pause_reasons import PauseKind
from understudy.models.jobs.views import BatchView
from understudy.models.store import Store
from understudy.producer.runs.budget_grants import spent_its_budget
from understudy.producer.status.waiting import resume_advice


async def view_of(store: Store, batch_id: str) -> BatchView:
    view = await store.batches.view(batch_id)
    assert view is not None
    return view


@pytest.mark.parametrize("kind", [PauseKind.OWNER, PauseKind.BUDGET, PauseKind.CANARY, PauseKind.FAILING])
async def test_a_batch_says_what_kind_of_pause_holds_it_until_it_goes_on(store: Store, kind: PauseKind) -> None:
    batch_id, _ = await open_batch(store, 2, budget_usd=1.0)
    assert (await view_of(store, batch_id)).pause_kind is None
    match kind:
        case PauseKind.OWNER:
            assert await store.batch_lifecycle.pause(batch_id, "a sentence")
        case PauseKind.BUDGET:
            assert await store.budgets.pause_spent(batch_id, 1.0, "a sentence")
        case _:
            assert await store.canary.hold_failing(batch_id, "a sentence", canary=kind is PauseKind.CANARY)
    view = await view_of(store, batch_id)
    assert (view.pause_kind, view.paused) == (kind, "a sentence")
    assert spent_its_budget(view) is (kind is PauseKind.BUDGET)
    assert ("understudy attempts" in resume_advice(view)) is (kind in (PauseKind.CANARY, PauseKind.FAILING))
    assert await store.budgets.grant_batch(batch_id) == (2.0 if kind is PauseKind.BUDGET else None)
    assert await store.batch_lifecycle.resume(batch_id)
    view = await view_of(store, batch_id)
    assert (view.pause_kind, view.paused) == (None, None)


async def test_a_batch_whose_run_has_ended_is_stopped(store: Store) -> None:
    batch_id, ids = await open_batch(store, 1, runs_until=0.0)
    view = await view_of(store, batch_id)
    assert view.pause_kind is PauseKind.STOPPED
    assert resume_advice(view).startswith("stopped; ")
    assert await state_of(store, ids[0]) == "queued"


@pytest.mark.parametrize(
    "words", ["its budget of two", "the first 10 jobs all failed: so I hold it", "its run was stopped"]
)
async def test_who_holds_a_batch_may_say_what_they_like(store: Store, words: str) -> None:
    batch_id, _ = await open_batch(store, 1, budget_usd=1.0)
    await store.batch_lifecycle.pause(batch_id, words)
    view = await view_of(store, batch_id)
    assert view.pause_kind is PauseKind.OWNER
    assert resume_advice(view) == f"`understudy resume {batch_id}` resumes it"
    assert not spent_its_budget(view)
    assert await store.budgets.grant_batch(batch_id) is None
    assert (await view_of(store, batch_id)).paused == words


async def test_a_person_who_holds_what_failed_has_looked_at_it(store: Store) -> None:
    batch_id, _ = await open_batch(store, 1)
    assert await store.canary.hold_failing(batch_id, "a sentence", canary=True)
    assert await store.batch_lifecycle.pause(batch_id, "for another reason")
    assert (await view_of(store, batch_id)).pause_kind is PauseKind.OWNER
