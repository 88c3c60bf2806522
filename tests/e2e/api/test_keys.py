"""Keys from the command line, and the server that requires them."""

import json
import re
import signal
from pathlib import Path

import httpx
import pytest
from commands import Done, type_command
from stage_hands import Scene, until

from understudy.models.tenants import NO_LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["alone"], indirect=True)
def test_the_first_key_closes_a_server_that_was_open_to_its_machine(scene: Scene) -> None:
    process, url = scene.serve()
    assert "No API key exists" in process.said
    assert httpx.get(f"{url}/v1/keys").status_code == 200
    assert httpx.get(f"{url}/v1/keys", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 401
    assert httpx.post(f"{url}/v1/keys", headers={"Origin": "https://evil.example"}).status_code == 401

    made = scene.type("keys", "create", "--name", "pipeline", "--scope", "admin")
    assert (made.returncode, made.stdout.count("\n")) == (0, 1)
    key = made.stdout.strip()
    assert key not in made.stderr
    until(lambda: httpx.get(f"{url}/v1/keys").status_code == 401, "everybody needs a key", 10)
    headers = {"Authorization": f"Bearer {key}"}
    assert [each["name"] for each in httpx.get(f"{url}/v1/keys", headers=headers).json()["data"]] == ["pipeline"]

    spare = json.loads(scene.type("keys", "create", "--name", "spare", "--json").stdout)
    assert spare["scopes"] == ["submit"]
    assert httpx.get(f"{url}/v1/keys", headers={"Authorization": f"Bearer {spare['key']}"}).status_code == 403

    assert scene.type("keys", "revoke", spare["id"]).returncode == 0
    assert scene.type("keys", "revoke", "nobody").returncode == 2
    bare = {"Authorization": f"Bearer {spare['key']}"}
    until(lambda: httpx.get(f"{url}/v1/keys", headers=bare).status_code == 401, "the key is refused", 10)
    listed = [json.loads(line) for line in scene.type("keys", "list", "--json").stdout.splitlines()]
    assert {each["name"]: each["state"] for each in listed} == {"pipeline": "active", "spare": "revoked"}
    secrets = [each.rpartition("_")[2].encode() for each in (key, spare["key"])]
    kept = [path for path in scene.folder.rglob("*") if path.is_file() and not path.is_socket()]
    assert not [path for path in kept for secret in secrets if secret in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["alone"], indirect=True)
def test_a_server_on_all_addresses_makes_a_first_key_and_shows_it_once(scene: Scene) -> None:
    process, url = scene.serve("up", "--host", "0.0.0.0")
    assert re.search(r" WARNING \S+ The HTTP API listens on 0.0.0.0, but no API key existed", process.said)
    (key,) = [word for word in process.said.split() if word.startswith("us_")]
    url = url.replace("0.0.0.0", "127.0.0.1")
    assert httpx.get(f"{url}/v1/keys").status_code == 401
    listed = httpx.get(f"{url}/v1/keys", headers={"Authorization": f"Bearer {key}"}).json()["data"]
    assert [(each["name"], each["scopes"]) for each in listed] == [("first", ["admin"])]
    process.send(signal.SIGTERM)
    assert process.exit_code() == 0, process.said

    again, _ = scene.serve("up", "--host", "0.0.0.0")
    assert "us_" not in again.said and "WARNING" not in again.said


def test_what_a_tenant_may_use_and_store_is_set_by_names_and_sizes_that_are_checked(tmp_path: Path) -> None:
    config = tmp_path / "understudy.toml"
    config.write_text(
        '[providers.one]\nbase_url = "http://127.0.0.1:9/v1"\nmodels = ["m"]\n[chains.fast]\nsteps = ["one/m"]\n'
    )

    def understudy(*words: str) -> Done:
        options = ("--data", tmp_path, "--config", config)
        return type_command("tenants", *words, *options, folder=tmp_path, environment={})

    for wrong, said in (
        (("--allow", "fsat"), "did you mean the chain 'fast'"),
        (("--allow", "fast", "--allow", "two/m"), "provider 'two' is not configured here"),
        (("--stored-bytes", "50 apples"), "such as 50GB"),
        (("--open-batches", "-1"), "write a positive number"),
    ):
        done = understudy("set", "acme", *wrong)
        assert (done.returncode, said in done.stderr) == (2, True), done.said
    assert understudy("list", "--json").stdout == "", "nothing was changed"

    assert understudy("set", "acme", "--allow", "fast", "--allow", "m", "--stored-bytes", "1.5 GB").returncode == 0
    assert understudy("set", "acme", "--open-batches", "none").returncode == 0
    seen = json.loads(understudy("show", "acme", "--json").stdout)
    assert (seen["allow"], seen["stored_bytes"], seen["open_batches"]) == (["fast", "one/m"], 1_500_000_000, NO_LIMIT)
    shown = understudy("show", "acme").stdout
    assert "fast one/m" in shown and "1,500,000,000" in shown
    assert understudy("set", "acme", "--allow", "none", "--stored-bytes", "default").returncode == 0
    seen = json.loads(understudy("show", "acme", "--json").stdout)
    assert (seen["allow"], seen["stored_bytes"]) == (None, None)


def test_tenants_have_limits_and_show_what_they_used(tmp_path: Path) -> None:
    def understudy(*words: str) -> Done:
        return type_command("tenants", *words, "--data", tmp_path, folder=tmp_path, environment={})

    assert understudy("set", "acme", "--queued-jobs", "10", "--usd-per-month", "2.5").returncode == 0
    assert understudy("set", "acme", "--queued-jobs", "none", "--jobs-per-minute", "7").returncode == 0
    (line,) = understudy("list", "--json").stdout.splitlines()
    assert json.loads(line) == {
        "name": "acme",
        "jobs_per_minute": 7,
        "queued_jobs": None,
        "usd_per_month": 2.5,
        "weight": 1.0,
        "store_content": None,
        "require": {},
        "forbid": {},
        "allow": None,
        "stored_bytes": None,
        "open_batches": None,
    }
    assert understudy("set", "acme", "--require", "region=EU,ch", "--require", "zdr", "--forbid", "x=y").returncode == 0
    assert understudy("set", "acme", "--forbid", "none", "--weight", "2.5").returncode == 0
    (line,) = understudy("list", "--json").stdout.splitlines()
    ruled = json.loads(line)
    assert (ruled["require"], ruled["forbid"]) == ({"region": ["ch", "eu"], "zdr": ["true"]}, {})
    assert (ruled["jobs_per_minute"], ruled["weight"]) == (7, 2.5)
    shown = json.loads(understudy("show", "acme", "--json").stdout)
    assert (shown["queued_now"], shown["usd_this_month"]) == (0, 0.0)
    for wrong in (
        ("set", "acme"),
        ("set", "acme", "--queued-jobs", "-1"),
        ("set", "a b", "--queued-jobs", "1"),
        ("set", "acme", "--require", "region="),
        ("set", "acme", "--weight", "0"),
    ):
        assert understudy(*wrong).returncode == 2
