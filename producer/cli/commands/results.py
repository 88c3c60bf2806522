"""`understudy results`: the results of finished jobs, one per line."""

from typing import Annotated

import typer

from understudy.models.config.settings import Settings
from understudy.models.state import TERMINAL_STATES
from understudy.models.store import Store
from understudy.producer.cli import options
from understudy.producer.cli.errors import Refused
from understudy.producer.cli.installation import HERE, Installation
from understudy.producer.ledger import NEWEST, job_named, shown_batch
from understudy.producer.runs.output import CsvForm, output_line, row_of_job, write_csv, write_jsonl
from understudy.producer.runs.retry_chain import rows_of
from understudy.producer.status import printing as show
from understudy.producer.terminal import output

app = options.Commands()


@app.command()
def results(
    given: options.AnyId,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV instead of JSON lines.")] = False,
    csv_safe: options.CsvSafe = False,
    tenant: options.Tenant = None,
    installation: Installation = HERE,
) -> None:
    """Print the results so far, one line per finished job; works while the rest is running.

    The format is that of OpenAI's batch output; with --csv, the columns of the input followed by the answer. Answers of
    a retry replace the original failures.
    """
    if csv_safe and not as_csv:
        raise typer.BadParameter("requires --csv; JSON lines have no formulas", param_hint="--csv-safe")

    async def work(_: Settings, store: Store) -> None:
        job = await job_named(store, given, tenant)
        if job is not None:
            row = row_of_job(job, await store.jobs.answer(job.id))
            if row.state not in TERMINAL_STATES:
                raise Refused(f"{given} has not ended yet: it is {row.state}")
            show.print_json(output_line(row))
            return
        batch_id = await shown_batch(store, given, tenant)
        rows = rows_of(store, await store.batches.root_of(batch_id) if given in NEWEST else batch_id)
        if as_csv:
            await write_csv(rows, output(), CsvForm(safe=csv_safe))
        else:
            await write_jsonl(rows, output())

    installation.on_ledger(work)
