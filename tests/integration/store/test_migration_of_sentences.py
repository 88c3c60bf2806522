"""A ledger of the previous version, whose sentences revisions 0018 and 0019 read for the last time."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Connection, create_engine, make_url, text

from understudy.models.jobs.wait_reasons import Waiting, from_json, put_back_at, put_back_for
from understudy.models.store.database.migrate import configuration, upgrade

SCHEMA = "version_before"


@pytest.fixture
def before(ledger_url: str | None, tmp_path: Path) -> Iterator[Connection]:
    """The tables as they were at 0017."""
    if ledger_url is None:
        engine = create_engine(f"sqlite:///{tmp_path / 'before.db'}")
    else:
        url = make_url(ledger_url).set(drivername="postgresql+psycopg")
        engine = create_engine(url, connect_args={"options": f"-c search_path={SCHEMA}"})
    with engine.begin() as connection:
        if ledger_url is not None:
            connection.execute(text(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"))
            connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        command.upgrade(configuration(connection), "0017")
        yield connection
    engine.dispose()


def test_the_kind_of_a_pause_is_read_from_how_its_sentence_begins(before: Connection) -> None:
    sentences = {
        "spent": ("its budget of 1.00 USD is reached: 0.99 is spent", "budget"),
        "canary": ("the first 10 jobs all failed: bad_request at lead/large", "canary"),
        "failing": ("the last 1,000 calls all failed: bad_request at lead/large", "failing"),
        "by-hand": ("the first 10 look odd", "owner"),
        "moving": (None, None),
    }
    for name, (paused, _) in sentences.items():
        before.execute(BATCH, {"id": name, "paused": paused})
    upgrade(before)
    found = before.execute(text("SELECT id, paused, pause_kind FROM batch"))
    assert {row.id: (row.paused, row.pause_kind) for row in found} == sentences


def test_how_a_job_failed_is_read_from_its_error(before: Connection) -> None:
    extra_fields = '"extra_fields": {"failure": "overloaded", "step": "lead/large"}'
    documents = {
        "a-ours": (
            None,
            '{"code": "bad_request", "extra_fields": {"step": "lead/large"}}',
            "bad_request",
            "lead/large",
        ),
        "b-crash": (None, '{"code": "crashed", "message": "no"}', "crashed", None),
        "c-theirs": (f'{{"error": {{"code": "connect"}}, {extra_fields}}}', None, "overloaded", "lead/large"),
        "d-forgotten": (None, None, "unknown", None),
        "e-odd": ('["overloaded"]', None, "unknown", None),
        "f-odder": (None, '{"code": ["quota"], "extra_fields": {"step": 7}}', "unknown", None),
    }
    for job_id, (body, error, *_) in documents.items():
        before.execute(JOB, {"id": job_id, "state": "failed"})
        before.execute(RESULT, {"job_id": job_id, "body": body, "error": error})
    before.execute(JOB, {"id": "fine", "state": "succeeded"})
    before.execute(RESULT, {"job_id": "fine", "body": f"{{{extra_fields}}}", "error": None})
    upgrade(before)
    found = {row.job_id: (row.failure, row.step) for row in before.execute(text("SELECT * FROM result"))}
    assert found == {"fine": (None, None)} | {job_id: tuple(row[2:]) for job_id, row in documents.items()}


def test_what_a_job_waits_for_is_read_from_its_sentence(before: Connection) -> None:
    sentences: dict[str, tuple[str | None, Waiting | None]] = {
        "a-place": (
            "cooling at openai/gpt:free (account openai:main)",
            put_back_at("cooling", "openai", "gpt:free", "openai:main"),
        ),
        "b-short": ("rate_limit at lead/large", put_back_at("rate_limit", "lead", "large", None)),
        "c-plain": (
            "quota at openai (key main): “no” at all/now",
            put_back_for("quota at openai (key main): “no” at all/now"),
        ),
        "d-never": (None, None),
    }
    for job_id, (sentence, _) in sentences.items():
        before.execute(JOB, {"id": job_id, "state": "queued"})
        before.execute(text("UPDATE job SET wait_reason = :said WHERE id = :id"), {"id": job_id, "said": sentence})
    upgrade(before)
    found = {row.id: from_json(row.waiting) for row in before.execute(text("SELECT id, waiting FROM job"))}
    assert found == {job_id: waiting for job_id, (_, waiting) in sentences.items()}


BATCH = text(
    "INSERT INTO batch (id, tenant, state, priority, endpoint, source, note, total, paused, created_at, expires_at,"
    " completion_window, canary_passed) VALUES"
    " (:id, 'default', 'in_progress', 9, '/v1/chat/completions', 'in.jsonl', '{}', 1, :paused, 1, 2, '24h', false)"
)

JOB = text(
    "INSERT INTO job (id, batch_id, tenant, custom_id, line, chain_id, priority, state, not_before, expires_at, tokens,"
    " claim_no, attempts, crashes, cancel_requested, created_at) VALUES"
    " (:id, '', 'default', :id, 0, 'chn', 9, :state, 0, 2, 1, 1, 1, 0, false, 1)"
)
RESULT = text(
    "INSERT INTO result (job_id, batch_id, body, error, fallback_index, input_tokens, output_tokens, cost_usd,"
    " unpriced, latency_ms, created_at) VALUES (:job_id, '', :body, :error, 0, 0, 0, 0, false, 0, 1)"
)
