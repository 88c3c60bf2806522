"""What is reported about a configuration file that was only found in the working folder, before any call."""

from pathlib import Path

import pytest
from commands import type_command

from understudy.models.config.settings import load_settings
from understudy.producer.found_config import warnings_about

KEYS = {
    "OPENAI_API_KEY": "sk-1",
    "GROQ_API_KEY": "gsk-1",
    "AZURE_OPENAI_API_KEY": "az-1",
    "AWS_BEARER_TOKEN_BEDROCK": "br-1",
    "GITHUB_TOKEN": "gh-1",
    "MY_KEY": "mine",
}
AZURE = {"AZURE_OPENAI_ENDPOINT": "https://gateway.corp.example"}


def sentences(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **more: str) -> list[str]:
    monkeypatch.chdir(folder)
    (folder / "understudy.toml").write_text(text)
    environ = KEYS | more
    settings = load_settings(None, environ)
    assert warnings_about(settings, folder / "understudy.toml", environ) == [], "a file that was named was chosen"
    return warnings_about(settings, None, environ)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[providers.openai]\nbase_url = "https://evil.example/v1"', ["OPENAI_API_KEY", "https://evil.example ("]),
        ('[providers.openai]\nbase_url = "http://127.0.0.1:9/v1"', ["OPENAI_API_KEY", "http://127.0.0.1:9 ("]),
        ('[providers.openai]\nbase_url = "http://api.openai.com/v1"', ["OPENAI_API_KEY", "http://api.openai.com"]),
        ('[providers.openai]\nbase_url = "https://api.openai.com.evil.example/v1"', ["api.openai.com.evil.example"]),
        ('[providers.openai]\nbase_url = "https://api.openai.com@evil.example/v1"', ["to https://evil.example ("]),
        ('[providers.x]\npreset = "groq"\nbase_url = "https://evil.example"', ["GROQ_API_KEY", "evil.example", "x"]),
        ('[providers.x]\nbase_url = "https://e.example"\napi_keys = ["env.OPENAI_API_KEY"]', ["api.openai.com"]),
        ('[providers.groq]\napi_keys = ["env.OPENAI_API_KEY"]', ["OPENAI_API_KEY", "https://api.groq.com"]),
        (
            '[providers.bedrock]\noptions = { region = "evil.example/#" }',
            ["AWS_BEARER", "bedrock-runtime.evil.example"],
        ),
        ('[providers.azure]\nbase_url = "https://evil.example/openai/v1"', ["AZURE_OPENAI_API_KEY", "evil.example"]),
        ('[providers.x]\nbase_url = "https://e.example"\napi_keys = ["env.GITHUB_TOKEN"]', ["GITHUB_TOKEN to"]),
        (
            '[providers.x]\nbase_url = "https://e.example"\napi_keys = ["file.~/.ssh/id_rsa"]',
            ["the contents of ~/.ssh/id_rsa"],
        ),
        (
            '[providers.x]\nbase_url = "https://e.example"\napi_keys = ["file.../../key"]',
            ["the contents of ../../key to"],
        ),
        ('[providers.x]\nbase_url = "https://e.example"\napi_keys = ["cmd.sh -c secret"]', ["runs a program", ": sh"]),
        ('[providers.openai]\napi_keys = ["cmd.op read"]', ["runs a program", "provider openai: op"]),
    ],
)
def test_it_is_told_where_keys_go_and_what_is_run(
    text: str, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sentence,) = sentences(text, tmp_path, monkeypatch)
    assert sentence.startswith("WARNING: understudy.toml in this folder ")
    assert all(words in sentence for words in said), sentence
    assert "secret" not in sentence and not any(value in sentence for value in KEYS.values())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[providers.openai]\ntimeout_s = 9",
        '[providers.mine]\nbase_url = "https://llm.example.com/v1"\napi_keys = ["env.MY_KEY", "file.key.txt"]',
        '[providers.near]\npreset = "ollama"\nbase_url = "http://127.0.0.1:11434/v1"',
        '[providers.two]\npreset = "openai"\napi_keys = ["env.OPENAI_API_KEY", "file./run/secrets/openai"]',
        '[providers.azure]\nbase_url = "https://corp.openai.azure.com/openai/v1"',
        '[providers.bedrock]\noptions = { region = "eu-central-1" }',
        '[providers.bedrock]\nbase_url = "https://vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com"',
    ],
)
def test_a_file_that_sends_each_key_where_it_belongs_is_not_spoken_of(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sentences(text, tmp_path, monkeypatch) == []


def test_an_address_that_the_user_set_is_not_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sentences("[providers.azure]\ntimeout_s = 9", tmp_path, monkeypatch, **AZURE) == []


def test_the_warning_comes_before_a_program_is_run_and_not_from_commands_that_make_no_call(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "understudy.toml").write_text(
        '[providers.x]\nbase_url = "http://127.0.0.1:9/v1"\napi_keys = ["cmd.touch was-run"]\n'
    )
    words = ["run", "in.jsonl", "-o", "out.jsonl", "--model", "x/m"]
    for quiet in ([*words, "--dry-run"], ["submit", "in.jsonl", "--model", "x/m"], ["status"], ["providers"]):
        assert "WARNING" not in type_command(*quiet, folder=tmp_path, environment={}).said, quiet
    assert not (tmp_path / "was-run").exists()
    checked = type_command("check", folder=tmp_path, environment={})
    assert checked.stderr.startswith("WARNING: understudy.toml in this folder runs a program"), checked.said
