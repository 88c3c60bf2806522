"""Why a batch does not move: the cases that no waiting heals."""

from collections.abc import Iterable, Sequence

from models.chain import Chain
from models.setaside import SetAside
from models.settings import Settings
from models.state import JobState
from models.store import Store


async def lack_of_workers(store: Store) -> str | None:
    """One sentence when nobody is there to do any work."""
    return None if await store.live_workers() else "no worker is running; start one with `understudy worker`"


async def blocked_by(store: Store, settings: Settings, batches: Sequence[str]) -> str | None:
    """What a person must mend before any of these batches goes on; None while something runs or may run."""
    aside = await store.set_aside_list()
    if not aside:
        return None
    for batch_id in batches:
        view = await store.batch_view(batch_id)
        if view is not None and view.counts.get(JobState.RUNNING):
            return None
    lanes = [lane for lane in await store.lanes() if lane.batch_id in batches]
    chains = [await store.get_chain(lane.chain_id) for lane in lanes]
    if not chains or any(not _blocked(chain, settings, aside) for chain in chains):
        return None
    lead = chains[0].steps[0].provider
    row = next((row for row in aside if row.provider == lead), aside[0])
    return f"key '{row.key}' of provider '{row.provider}' is set aside ({row.failure}: {row.reason})"


def _blocked(chain: Chain, settings: Settings, aside: Iterable[SetAside]) -> bool:
    """Whether every credential of every step is set aside."""
    refused = {(row.provider, row.key) for row in aside if row.model == ""}
    for step in chain.steps:
        provider = settings.providers.get(step.provider)
        if provider is None:
            continue
        if not provider.api_keys or any((step.provider, key.name) not in refused for key in provider.api_keys):
            return False
    return True
