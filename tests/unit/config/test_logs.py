"""Log lines: what each contains, and what none contains."""

import json
import logging
import subprocess
import sys
from datetime import datetime, timedelta
from typing import Any

import pytest

from understudy.models.api_keys import new_key
from understudy.models.config.settings import LogSettings, SettingsError, load_settings
from understudy.models.logs import JsonLines, TextLines, about, raised_at
from understudy.producer.api.middleware import _chosen

CANARY = "canary-5bd1"


def record(
    message: str, *args: object, name: str = "understudy.worker.job.run", error: Exception | None = None
) -> logging.LogRecord:
    raised = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord(name, logging.WARNING, "file.py", 1, message, args, raised)


def written(each: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    return TextLines().format(each), json.loads(JsonLines().format(each))


def raised() -> Exception:
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        return error


def test_a_line_has_the_time_with_its_zone_the_level_and_the_logger() -> None:
    text, fields = written(record("%d jobs wait", 3))
    time, level, name, message = text.split(" ", 3)
    for moment in (time, fields["time"]):
        assert datetime.fromisoformat(moment).utcoffset() == timedelta(0)
        assert len(moment.partition(".")[2]) == len("123+00:00")
    assert (level, name, message) == ("WARNING", "understudy.worker.job.run", "3 jobs wait")
    assert [fields[each] for each in ("level", "logger", "message")] == [level, name, message]


def test_one_event_is_one_line_whatever_it_contains() -> None:
    forged = "x\n2026-11-30T00:00:00.000+00:00 INFO worker.job.run all is well\r\n\x1b[2J\u2028"
    for line in (TextLines().format(record(forged)), JsonLines().format(record(forged))):
        assert len(line.splitlines()) == 1 and "\x1b" not in line


@pytest.mark.parametrize("name", ["understudy.worker.job.run", "uvicorn.error"])
def test_of_an_exception_its_kind_and_place_are_written_and_never_its_text(name: str) -> None:
    for line in map(str, written(record("failed", name=name, error=raised()))):
        assert "ValueError < raised" in line and "test_logs.py" in line and CANARY not in line


def test_of_what_a_library_says_only_the_first_line_is_written() -> None:
    said = f"Task exception was never retrieved\nfuture: <Task exception=ValueError('{CANARY}')>"
    for line in map(str, written(record(said, name="asyncio"))):
        assert "never retrieved" in line and CANARY not in line


@pytest.mark.parametrize("url", ["redis://:{}@queue:6379/0", "postgresql://us:a@{}/b@ledger/x", "https://{}@host/"])
def test_the_password_of_a_url_is_not_written(url: str) -> None:
    for name in ("understudy.worker.job.run", "rq.worker"):
        for line in map(str, written(record("no answer from %s now", url.format(CANARY), name=name))):
            assert CANARY not in line and "now" in line


def test_of_an_api_key_only_its_id_is_written() -> None:
    key = new_key()
    text, _ = written(record("refused %s", key.text))
    assert key.id in text and key.text.rpartition("_")[2] not in text


def test_an_exception_without_a_place_has_a_kind() -> None:
    assert raised_at(ValueError(CANARY)) == "ValueError"


PROCESS = """
import asyncio, logging, threading, warnings
from understudy.models.logs import about, configure_logs
from understudy.models.config.settings import LogSettings
configure_logs(LogSettings(format="FORMAT", level="debug"))
async def main():
    with about(job_id="job_1"):
        await asyncio.create_task(child())
    logging.getLogger("understudy.worker.a").warning("outside")
async def child():
    with about(batch_id="batch_1"):
        logging.getLogger("understudy.worker.a").debug("within")
asyncio.run(main())
logging.getLogger("sqlalchemy.engine.Engine").info("SELECT 'canary-5bd1'")
logging.getLogger("httpx").debug("GET https://host/?key=canary-5bd1")
logging.getLogger("httpx").warning("heard")
warnings.warn("old ways")
logging.getLogger("understudy.worker.a").warning("%d", "canary-5bd1")
def fails():
    raise RuntimeError("canary-5bd1")
thread = threading.Thread(target=fails)
thread.start()
thread.join()
fails()
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_all_that_a_process_logs_goes_through_the_same_form(form: str) -> None:
    command = [sys.executable, "-P", "-W", "always", "-c", PROCESS.replace("FORMAT", form)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "") and CANARY not in done.stderr, done.stderr
    lines = done.stderr.splitlines()
    if form == "json":
        fields = [json.loads(line) for line in lines]
        ids = [{name: each[name] for name in ("job_id", "batch_id") if name in each} for each in fields]
        assert ids[:2] == [{"job_id": "job_1", "batch_id": "batch_1"}, {}]
        loggers = [each["logger"] for each in fields]
        assert loggers == [
            "understudy.worker.a",
            "understudy.worker.a",
            "httpx",
            "py.warnings",
            "understudy.models.logs",
            "understudy.models.logs",
        ]
    else:
        assert len(lines) == 6 and all(datetime.fromisoformat(line.split(" ")[0]).tzinfo for line in lines)
        assert lines[0].endswith("DEBUG understudy.worker.a within [job_id=job_1 batch_id=batch_1]")
        assert lines[1].endswith("WARNING understudy.worker.a outside")


def test_about_ends_where_it_ends_also_after_an_exception() -> None:
    with pytest.raises(ValueError), about(job_id="job_1"):
        raise ValueError
    each = record("later")
    assert "job_1" not in str(written(each))


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (["5f0c7d5e-1f8a-4b51-9b2c-0a7c3a2b1c00"], True),
        (["req_1:a.b-C"], True),
        (["a" * 64], True),
        (["a" * 65], False),
        ([""], False),
        (["a b"], False),
        (["a\x1b[2J"], False),
        (["\u00e4"], False),
        (["a", "b"], False),
        ([], False),
        ([new_key().text], False),
    ],
)
def test_a_request_is_called_as_its_caller_says_if_that_is_short_and_harmless(given: list[str], taken: bool) -> None:
    headers = [(b"x-request-id", each.encode("latin-1")) for each in given]
    assert _chosen({"headers": [(b"host", b"a"), *headers]}) == (given[0] if taken else None)


def test_variables_win_over_the_file_and_are_checked(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "understudy.toml"
    file.write_text('health_file = "a"\n[logging]\nformat = "json"\nlevel = "error"\n')
    assert load_settings(None, {}).logging == LogSettings(format="json", level="error")
    variables = {"UNDERSTUDY_LOG_FORMAT": "TEXT", "UNDERSTUDY_LOG_LEVEL": "debug", "UNDERSTUDY_HEALTH_FILE": "b"}
    settings = load_settings(None, variables)
    assert settings.logging == LogSettings(format="text", level="debug") and str(settings.health_file) == "b"
    with pytest.raises(SettingsError, match="UNDERSTUDY_LOG_LEVEL must be one of debug, info"):
        load_settings(None, {"UNDERSTUDY_LOG_LEVEL": CANARY})
    file.write_text("logging = 3\n")
    with pytest.raises(SettingsError, match="line 1: logging should be a valid table"):
        load_settings(None, {"UNDERSTUDY_LOG_LEVEL": "debug"})
