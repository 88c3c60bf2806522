"""Secrets: read where the reference points, with the current value, and never shown."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from understudy.models.config.provider_settings import ApiKey
from understudy.models.config.secrets import SecretMissing, Secrets, fingerprint, masked


def key(value: str) -> ApiKey:
    return ApiKey(name="main", value=value)


async def test_a_variable_is_looked_up_again_each_time() -> None:
    environ = {"KEY": "one\n"}
    secrets = Secrets(environ)
    assert await secrets.resolve("openai", key("env.KEY")) == "one"
    environ["KEY"] = "two"
    assert await secrets.resolve("openai", key("env.KEY")) == "two"


async def test_a_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("one\n")
    secrets = Secrets({})
    assert await secrets.resolve("openai", key(f"file.{file}")) == "one"
    replacement = tmp_path / "new"
    replacement.write_text("two\n")
    os.utime(replacement, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    replacement.replace(file)
    assert await secrets.resolve("openai", key(f"file.{file}")) == "two"


async def test_a_program_is_run_once_and_again_when_its_answer_is_old(tmp_path: Path) -> None:
    now = [0.0]
    counter = tmp_path / "runs"
    program = tmp_path / "token.py"
    program.write_text(
        f"open({str(counter)!r}, 'a').write('x'); print('token-' + str(len(open({str(counter)!r}).read())))"
    )
    secrets = Secrets({}, clock=lambda: now[0], command_ttl_s=60)
    reference = key(f"cmd.{sys.executable} '{program}'")
    together = await asyncio.gather(*(secrets.resolve("openai", reference) for _ in range(5)))
    assert together == ["token-1"] * 5
    now[0] = 61
    assert await secrets.resolve("openai", reference) == "token-2"


async def test_a_program_is_run_without_a_shell(tmp_path: Path) -> None:
    value = await Secrets({}).resolve("openai", key("cmd./bin/echo $HOME;date".replace(";", "';'")))
    assert value == "$HOME;date"


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("env.NOT_THERE", "env.NOT_THERE is not set"),
        ("env.BLANK", "is not set"),
        ("env.TWO_LINES", "characters that no key has"),
        ("file./not/there", "file./not/there cannot be read (No such file or directory)"),
        ("file./tmp", "cannot be read (Is a directory)"),
        ("cmd./not/there --token hush", "cmd./not/there cannot be run"),
        ("cmd./bin/echo 'hush", "cannot be run (unbalanced quotes)"),
        ("cmd./bin/cat /not/hush", "cmd./bin/cat failed with exit code 1"),
        ("cmd./bin/true", "cmd./bin/true is empty"),
        ("cmd./bin/sleep 30", "did not finish within 0.2 s"),
    ],
)
async def test_a_reference_that_leads_nowhere_is_named_with_provider_and_key(reference: str, reason: str) -> None:
    secrets = Secrets({"BLANK": " ", "TWO_LINES": "hush\r\nX-Evil: 1"}, command_timeout_s=0.2)
    with pytest.raises(SecretMissing) as missing:
        await secrets.resolve("openai", key(reference))
    said = str(missing.value)
    assert said.startswith("key 'main' of provider 'openai' has no value: ")
    assert reason in said
    assert "hush" not in said
    assert missing.value.__cause__ is None


async def test_after_a_failure_the_next_caller_tries_again(tmp_path: Path) -> None:
    secrets = Secrets({})
    reference = key(f"cmd./bin/cat {tmp_path}/late")
    with pytest.raises(SecretMissing):
        await secrets.resolve("openai", reference)
    (tmp_path / "late").write_text("here")
    assert await secrets.resolve("openai", reference) == "here"


def test_a_fingerprint_tells_secrets_apart_and_gives_nothing_away() -> None:
    assert fingerprint("sk-one") == fingerprint("sk-one") != fingerprint("sk-two")
    assert "sk" not in fingerprint("sk-one")


def test_a_masked_secret_shows_its_end_only_when_it_is_long() -> None:
    assert masked("sk-0123456789abcdef") == "…cdef"
    assert masked("short") == "…"
