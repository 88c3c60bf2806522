"""The database itself: schema, locks, full disks, several processes, a server that is away."""

import asyncio
import fcntl
import secrets
import sqlite3
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from ledger_help import filled_batch, new_jobs, new_worker, open_batch, singles, succeeded
from sqlalchemy import Connection, create_engine, make_url, text

from understudy.models.store import (
    LEDGER_FILE,
    Store,
    StoreBusy,
    StoreConflict,
    StoreDefect,
    StoreError,
    StoreOutage,
    StoreRefused,
    StoreUnavailable,
    open_store,
)
from understudy.models.store.database import engine
from understudy.models.tables import Job

WRITER = Path(__file__).parents[2] / "standins" / "write_to_ledger.py"


def difference(connection: Connection) -> list[Any]:
    return list(compare_metadata(MigrationContext.configure(connection), Job.metadata))


async def test_the_revisions_make_exactly_the_tables_that_the_code_declares(
    store: Store, ledger_url: str | None, tmp_path: Path
) -> None:
    url = make_url(ledger_url or f"sqlite:///{tmp_path / 'ledger.db'}")
    bound = create_engine(url if ledger_url is None else url.set(drivername="postgresql+psycopg"))
    with bound.connect() as connection:
        assert difference(connection) == []
    bound.dispose()


async def test_the_schema_is_current_after_migrating_and_migrating_again_is_harmless(store: Store) -> None:
    assert await store.schema_is_current()
    await asyncio.gather(store.migrate(), store.migrate())
    assert await store.schema_is_current()


async def test_what_was_written_is_there_after_opening_again(tmp_path: Path) -> None:
    async with open_store(None, tmp_path / "new" / "folder") as store:
        batch_id, _ = await open_batch(store, 1)
    async with open_store(None, tmp_path / "new" / "folder") as store:
        assert await store.batches.latest() == batch_id


async def test_the_injected_clock_rules_on_sqlite(tmp_path: Path) -> None:
    now = [1000.0]
    async with open_store(None, tmp_path, clock=lambda: now[0]) as store:
        ids = await singles(store, 1, not_before=2000.0)
        worker = await new_worker(store, lease_s=5000)
        assert await store.claims.start(worker, ids) == []
        now[0] = 2000.0
        assert len(await store.claims.start(worker, ids)) == 1
        assert await store.now() == 2000.0


async def test_a_commit_survives_power_loss_and_readers_do_not_wait_for_writers(tmp_path: Path) -> None:
    async with open_store(None, tmp_path) as store:
        async with store._db.write() as connection:
            modes = [
                (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()
                for name in ("synchronous", "journal_mode")
            ]
            assert modes == [2, "wal"]
            assert await store.planning.lanes() == []


async def test_a_program_that_holds_the_lock_makes_the_store_busy_not_stuck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SQLITE_TIMEOUT_S", 0.05)
    async with open_store(None, tmp_path) as store:
        batch_id, _ = await filled_batch(store, 1)
        other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy, match=r"ledger\.db is locked by another program"):
            await store.intake.open_batch(batch_id, 1)
        assert await store.batches.view(batch_id) is not None
        other.execute("ROLLBACK")
        other.close()
        await store.intake.open_batch(batch_id, 1)


async def test_a_process_that_keeps_its_turn_too_long_makes_the_store_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SQLITE_TIMEOUT_S", 0.05)
    async with open_store(None, tmp_path) as store:
        with (tmp_path / "ledger.db.lock").open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(StoreBusy, match="another process has been writing"):
                await singles(store, 1)
        await singles(store, 1)


async def test_a_full_disk_is_said_plainly_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    async with open_store(None, tmp_path) as store:
        batch_id, _ = await filled_batch(store, 1)
        async with store._db.write() as connection:
            pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar()
            await connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        jobs = await new_jobs(store, 500)
        with pytest.raises(StoreBusy, match="is full; free some space"):
            await store.intake.add_jobs(batch_id, jobs)
        assert [await store.jobs.view(each.id) for each in jobs] == [None] * len(jobs)
        async with store._db.write() as connection:
            await connection.exec_driver_sql("PRAGMA max_page_count = 100000")
        await store.intake.add_jobs(batch_id, jobs)


async def test_two_processes_that_write_at_once_take_turns(tmp_path: Path) -> None:
    async with open_store(None, tmp_path):
        pass
    command = [sys.executable, str(WRITER), str(tmp_path), "100"]
    root = str(Path(__file__).parents[3])
    writers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": root})
        for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    printed = [writer.communicate(timeout=60)[0].split() for writer in writers]

    assert [writer.returncode for writer in writers] == [0, 0]
    commits = sorted((float(at), who) for who, times in enumerate(printed) for at in times)
    assert len(commits) == 200
    turns = sum(before[1] != after[1] for before, after in pairwise(commits))
    assert turns > 100


async def test_tasks_that_write_at_once_all_succeed(store: Store) -> None:
    made = await asyncio.gather(*(open_batch(store, 20) for _ in range(20)))
    assert len(await store.planning.lanes()) == len(made)


async def test_a_cancelled_write_leaves_the_store_usable(store: Store) -> None:
    batch_id, ids = await open_batch(store, 300)
    worker = await new_worker(store)
    jobs = await store.claims.start(worker, ids)
    outcomes = [succeeded(job) for job in jobs]
    for tenths_of_ms in range(0, 120, 4):
        write = asyncio.create_task(store.claims.settle(worker, outcomes))
        await asyncio.sleep(tenths_of_ms / 10_000)
        write.cancel()
        await asyncio.gather(write, return_exceptions=True)
    await store.claims.settle(worker, outcomes)
    view = await store.batches.view(batch_id)
    assert view is not None and sum(view.counts.values()) == view.total == view.by_deployment[0].answered


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://somebody:hunter2@127.0.0.1:1/ledger", "127.0.0.1:1/ledger cannot be reached"),
        ("mysql://somebody:hunter2@127.0.0.1/ledger", "only postgresql:// is supported"),
        ("hunter2", "cannot be parsed"),
    ],
)
async def test_a_database_that_is_away_is_one_clear_sentence_without_the_password(
    url: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(StoreUnavailable, match=words) as raised:
        async with open_store(url, tmp_path):
            pass
    assert "hunter2" not in str(raised.value)


@pytest.mark.servers
async def test_what_postgresql_refuses_is_said_with_its_cause(postgresql_url: str, tmp_path: Path) -> None:
    here = make_url(postgresql_url)
    for url, words in (
        (here.set(database="no_such_ledger"), "does not exist; create it"),
        (here.set(username="no_such_user"), "has no such user"),
        (here.update_query_dict({"sslmode": "require"}), "offers no TLS"),
        (here.set(host="no.such.host.invalid"), "its host name is not known"),
        (here.update_query_dict({"options": "-cdefault_transaction_read_only=on"}), "is read-only at the moment"),
        (here.update_query_dict({"schema": "public", "pgbouncer": "true"}), None),
    ):
        opening = open_store(url.render_as_string(hide_password=False), tmp_path, migrate=True)
        if words is None:
            async with opening:
                continue
        with pytest.raises(StoreError, match=words) as raised:
            async with opening as store:
                await store.batch_lifecycle.pause("batch_1", "by hand")
        assert len(str(raised.value).splitlines()) == 1


@pytest.mark.servers
async def test_of_several_hosts_the_one_that_answers_is_used(postgresql_url: str, tmp_path: Path) -> None:
    here = make_url(postgresql_url)
    secret, _, rest = postgresql_url.rpartition("@")
    several = f"{secret}@127.0.0.1:1,{here.host}:{here.port or 5432}/{rest.partition('/')[2]}"
    async with open_store(several, tmp_path, migrate=True):
        pass
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1,127\.0\.0\.1:2/d cannot be reached: nothing listens"):
        async with open_store("postgresql://us:hush@127.0.0.1:1,127.0.0.1:2/d", tmp_path):
            pass
    with pytest.raises(StoreUnavailable, match="DATABASE_URL cannot be parsed"):
        async with open_store("postgresql://us:hush@/d?host=a:1&host=b:2&port=3", tmp_path):
            pass


@pytest.mark.servers
async def test_a_user_who_may_not_write_is_told_what_is_forbidden(postgresql_url: str, tmp_path: Path) -> None:
    name = f"understudy_reader_{secrets.token_hex(4)}"
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'x'")
        try:
            url = make_url(postgresql_url).set(username=name, password="x")
            with pytest.raises(StoreUnavailable, match="denies its user permission: permission denied for"):
                async with open_store(url.render_as_string(hide_password=False), tmp_path, migrate=True):
                    pass
        finally:
            connection.execute(f'DROP ROLE "{name}"')


async def test_a_ledger_that_is_not_a_database_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / LEDGER_FILE).write_text("a letter to somebody\n" * 100)
    with pytest.raises(StoreUnavailable, match="is not an SQLite database; move it away"):
        async with open_store(None, tmp_path):
            pass


async def test_a_ledger_of_a_newer_version_is_one_clear_sentence_and_stays_as_it_is(
    store: Store, ledger_url: str | None, tmp_path: Path
) -> None:
    bound = create_engine(
        make_url(ledger_url or f"sqlite:///{tmp_path / LEDGER_FILE}").set(
            drivername="sqlite" if ledger_url is None else "postgresql+psycopg"
        )
    )
    with bound.begin() as connection:
        known = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    try:
        for migrate in (False, True):
            with pytest.raises(StoreUnavailable, match="was written by a newer version of Understudy"):
                async with open_store(ledger_url, tmp_path, migrate=migrate):
                    pass
    finally:
        with bound.begin() as connection:
            changed = connection.execute(
                text(f"UPDATE alembic_version SET version_num = '{known}' WHERE version_num = '9999'")
            )
        bound.dispose()
    assert changed.rowcount == 1


async def test_a_data_folder_that_cannot_be_made_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match=r"data folder .* cannot be used"):
        async with open_store(None, tmp_path / "file" / "data"):
            pass


@pytest.mark.servers
async def test_a_postgresql_without_our_tables_says_what_to_run(postgresql_url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="run understudy migrate"):
        async with open_store(f"{postgresql_url}?options=-csearch_path%3Dnowhere", tmp_path):
            pass


ABOUT_THE_LOGIN = ("08", "28", "3D", "42501", "53300", "57P")
RAISES = "DO $$ BEGIN RAISE EXCEPTION 'CANARY' USING ERRCODE = '%s'; END $$"


@pytest.mark.servers
@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        ("25006 25P02 25P03 40001 40P01 55P03 57014 53100 53200", StoreBusy),
        ("57P01 57P02 57P03 08006 53300 58030 XX000 28000 3D000 42501", StoreUnavailable),
        ("22021 22P02 22003 54000", StoreRefused),
        ("42P01 42703 P0001", StoreDefect),
        ("23505 23502", StoreConflict),
    ],
)
async def test_an_error_of_postgresql_is_an_outage_unless_it_concerns_the_written_content(
    postgresql_url: str, tmp_path: Path, codes: str, kind: type[StoreError]
) -> None:
    async with open_store(postgresql_url, tmp_path, migrate=True) as store:
        for code in codes.split():
            with pytest.raises(StoreError) as raised:
                async with store._db.write() as connection:
                    await connection.execute(text(RAISES % code))
            assert type(raised.value) is kind, code
            if not code.startswith(ABOUT_THE_LOGIN):
                assert "CANARY" not in str(raised.value), "the server may quote what was to be written"
            assert isinstance(raised.value, StoreOutage) == (kind in (StoreBusy, StoreUnavailable))


async def test_what_a_driver_cannot_write_is_refused(store: Store) -> None:
    with pytest.raises(StoreRefused):
        async with store._db.write() as connection:
            await connection.execute(text("SELECT :what"), {"what": object()})


async def test_a_statement_that_the_database_does_not_know_is_a_defect(store: Store) -> None:
    with pytest.raises(StoreDefect):
        async with store._db.write() as connection:
            await connection.execute(text("SELECT * FROM no_such_table"))


@pytest.mark.servers
async def test_a_process_stopped_within_a_transaction_does_not_hold_its_locks_forever(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "POSTGRESQL_IDLE_S", 1)
    async with open_store(postgresql_url, tmp_path, migrate=True) as stopped:
        worker_id = await new_worker(stopped, lease_s=60)
        async with open_store(postgresql_url, tmp_path) as other:
            with pytest.raises(StoreUnavailable):
                async with stopped._db.write() as connection:
                    await connection.execute(text("SELECT 1 FROM worker WHERE id = :id FOR UPDATE"), {"id": worker_id})
                    async with asyncio.timeout(10):
                        assert await other.workers.beat(worker_id, 60)
                    await connection.execute(text("SELECT 1"))
            await other.workers.remove(worker_id)
