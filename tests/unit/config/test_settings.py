"""The configuration: what is found, what is filled in, and what is refused with which message."""

from pathlib import Path

import pytest

from understudy.models.config.catalog import UnknownProvider, resolve_provider, window
from understudy.models.config.docs import DOCS, PAGE_NAME, SCHEMA_NAME, page, schema
from understudy.models.config.presets import PRESETS, family_of
from understudy.models.config.settings import Settings, SettingsError, load_settings

KEY = {"OPENAI_API_KEY": "sk-1"}
FILE = "understudy.toml"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str, environ: dict[str, str] | None = None) -> Settings:
    Path(FILE).write_text(text)
    return load_settings(None, KEY if environ is None else environ)


def refusal(text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as refused:
        load(text, environ)
    assert refused.value.__cause__ is None
    return str(refused.value)


def test_nothing_is_required() -> None:
    settings = load_settings(None, {})
    assert settings == Settings()
    assert settings.redis_url is None


@pytest.mark.parametrize(
    ("name", "variable"),
    [(name, preset.env) for name, preset in PRESETS.items() if preset.env and preset.base_url],
)
def test_a_key_in_the_environment_is_a_provider(name: str, variable: str) -> None:
    settings = load_settings(None, {variable: "secret", "SOMETHING": "else"})
    assert list(settings.providers) == [name]
    assert settings.providers[name].api_keys[0].value == f"env.{variable}"
    assert "secret" not in repr(settings)
    assert resolve_provider(settings, name).base_url.startswith("https://")


def test_an_empty_variable_is_not_a_key() -> None:
    assert load_settings(None, {"OPENAI_API_KEY": ""}).providers == {}


def test_a_preset_in_the_file_takes_its_key_from_the_environment_unless_it_names_its_own() -> None:
    settings = load("[providers.openai]\nmax_in_flight = 3\n")
    assert settings.providers["openai"].max_in_flight == 3
    assert settings.providers["openai"].api_keys[0].value == "env.OPENAI_API_KEY"
    own = load('[providers.openai]\napi_keys = [{ name = "main", value = "file./run/key" }]\n')
    assert [key.value for key in own.providers["openai"].api_keys] == ["file./run/key"]


def test_a_second_account_of_a_preset_has_a_name_of_its_own() -> None:
    settings = load('[providers.backup]\npreset = "openai"\napi_keys = ["env.OTHER"]\n')
    backup = resolve_provider(settings, "backup")
    assert (backup.preset, backup.kind, backup.base_url) == ("openai", "openai", "https://api.openai.com/v1")
    assert backup.api_keys[0].name == "OTHER"


def test_plain_strings_name_keys_after_where_they_come_from() -> None:
    keys = '["env.ONE", "file./run/secrets/two", "cmd./usr/bin/pass show three"]'
    settings = load(f"[providers.openai]\napi_keys = {keys}\n")
    assert [key.name for key in settings.providers["openai"].api_keys] == ["ONE", "two", "pass"]


def test_stores_come_from_the_environment_before_the_file() -> None:
    environ = {"REDIS_URL": "redis://a/0", "DATABASE_URL": "postgresql://b/c"}
    settings = load('redis_url = "redis://z/0"\n', environ)
    assert (settings.redis_url, settings.database_url) == ("redis://a/0", "postgresql://b/c")
    assert load('redis_url = "redis://z/0"\n', {}).redis_url == "redis://z/0"


def test_data_from_the_command_line_wins(tmp_path: Path) -> None:
    Path(FILE).write_text('data = "elsewhere"\n')
    assert load_settings(None, {}).data == Path("elsewhere")
    assert load_settings(None, {}, data=tmp_path).data == tmp_path


def test_steps_are_strings_or_tables_with_overrides() -> None:
    settings = load('[chains.default]\nsteps = ["openai/a", { model = "openai/b", max_tokens = 8 }]\n')
    first, second = settings.chains["default"].steps
    assert (first.model, first.params) == ("openai/a", {})
    assert (second.model, second.params) == ("openai/b", {"max_tokens": 8})


def test_bedrock_takes_its_region_from_options_then_environment_then_a_default() -> None:
    token = {"AWS_BEARER_TOKEN_BEDROCK": "t"}
    url = "https://bedrock-runtime.{}.amazonaws.com"
    assert resolve_provider(load("", token), "bedrock").base_url == url.format("us-east-1")
    there = token | {"AWS_REGION": "eu-west-1"}
    assert resolve_provider(load("", there), "bedrock").base_url == url.format("eu-west-1")
    text = '[providers.bedrock]\noptions = { region = "eu-north-1" }\n'
    assert resolve_provider(load(text, there), "bedrock").base_url == url.format("eu-north-1")


def test_azure_is_there_when_its_endpoint_is_known() -> None:
    assert load("", {"AZURE_OPENAI_API_KEY": "k"}).providers == {}
    settings = load("", {"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_ENDPOINT": "https://me.openai.azure.com/"})
    azure = resolve_provider(settings, "azure")
    assert (azure.base_url, azure.preset) == ("https://me.openai.azure.com/openai/v1", "azure")


def test_a_local_server_needs_no_key() -> None:
    ollama = resolve_provider(load("[providers.ollama]\n"), "ollama")
    assert (ollama.needs_key, ollama.base_url) == (False, "http://127.0.0.1:11434/v1")
    assert resolve_provider(load(""), "openai").needs_key


def test_a_provider_that_is_not_configured_is_named_with_its_neighbour() -> None:
    with pytest.raises(UnknownProvider, match="unknown provider 'opnai'; did you mean 'openai'"):
        resolve_provider(load(""), "opnai")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[providers.openai]\nbaseurl = 'x'",
            "line 2: providers.openai.baseurl is not a setting; did you mean 'base_url'?",
        ),
        ("[workers]\n", "line 1: workers is not a setting; did you mean 'worker'?"),
        (
            "[[providers.openai.limits]]\nmodel='a'\n[[providers.openai.limits]]\nmodell='b'",
            "line 4: providers.openai.limits[1].modell is not a setting; did you mean 'model'?",
        ),
        (
            "[providers.openai]\napi_keys=[{name='a', value='env.B', wieght=2}]",
            "line 2: providers.openai.api_keys[0].wieght is not a setting; did you mean 'weight'?",
        ),
        ("[providers.openai.prices.m]\ninput = 1", "line 1: providers.openai.prices.m.output is missing"),
        (
            "[providers.openai.prices.m]\ninput = 1\noutput = 'x'\n[providers.openai]\nmax_in_flight = 2",
            "line 3: providers.openai.prices.m.output",
        ),
        ("[providers.openai]\ntimeout_s = -1", "line 2: providers.openai.timeout_s should be greater than 0"),
        ("[providers.openai]\nkind = 'opnai'", "providers.openai.kind should be 'openai', 'anthropic'"),
        ("[providers.openai]\nbase_url = 'api.x/v1'", "base_url must begin with http:// or https://"),
        ("[providers.'a/b']\nkind = 'openai'", "must consist of letters"),
        ("[providers.mine]\nkind = 'openai'", "line 1: providers.mine needs a base_url"),
        ("[providers.azure]\napi_keys = ['env.A']", "providers.azure needs a base_url"),
        ("[providers.mine]\npreset = 'opnai'\nbase_url='http://x'", "is not in the catalog; did you mean 'openai'?"),
        ("[providers.openai]\napi_keys = ['env.A', 'env.A']", "line 2: providers.openai.api_keys has 2 keys named 'A'"),
        (
            "[providers.openai]\napi_keys = [{name='a', value='env.A', account='main'}]\n"
            "[[providers.openai.limits]]\naccount = 'mian'",
            "line 4: providers.openai.limits[0].account is not an account of its keys; did you mean 'main'?",
        ),
        (
            "[chains.default]\nsteps = ['opnai/x']",
            "line 2: chains.default.steps[0] names provider 'opnai', which is unknown",
        ),
        (
            "[chains.default]\nsteps = ['openai/x', 'groq/x']",
            "steps[1] names provider 'groq', which is not configured; set GROQ",
        ),
        ("[chains.default]\nsteps = ['gpt-4o']", "chains.default.steps[0] must be 'provider/model'"),
        ("[chains.default]\nsteps = [{ max_tokens = 3 }]", "chains.default.steps[0].model is missing"),
        ("[chains.default]\nsteps = [{ model = 'openai/x', stream = true }]", "steps[0] cannot override 'stream'"),
        ("[chains.default]\nsteps = []", "chains.default.steps"),
        ("[chains.default]\nsteps = ['openai/x']\nfallback_on = ['nope']", "line 3: chains.default.fallback_on"),
        (
            "[chains.default]\nsteps = [[{ model = 'openai/x', weight = 0 }, 'openai/y']]",
            "line 2: chains.default.steps[0][0].weight should be greater than 0",
        ),
        ("[chains.default]\nsteps = [['openai/x', 'opnai/y']]", "steps[0] names provider 'opnai', which is unknown"),
        ("[chains.default]\nsteps = [[]]", "chains.default.steps[0]"),
        (
            "[chains.default]\nsteps = [{ model = 'openai/x', weight = 2 }]",
            "chains.default.steps[0] has a weight outside a list",
        ),
        (
            "[chains.default]\nsteps = [{ model = 'openai/x', when = { max_input = 3 } }]",
            "steps[0].when.max_input is not a setting; did you mean 'max_input_tokens'?",
        ),
        ("[chains.default]\nsteps = ['openai/x']\norder = 'best'", "line 3: chains.default.order"),
        (
            "[chains.default]\nsteps = ['openai/x']\norder = 'cheapest'\nmax_fallback_share = 0.1",
            "line 4: chains.default.max_fallback_share requires 'order' = 'chain'",
        ),
        (
            "[chains.default]\nsteps = ['openai/x']\nrequire = { region = '' }",
            "line 3: chains.default.require must set 'region' to a text",
        ),
        ("[providers.openai]\ntags = 'eu'", "line 2: providers.openai.tags must be a table of tags"),
        (
            '[providers.openai.features."gpt-9"]\nwindow = 3',
            "providers.openai.features.gpt-9.window is not a setting; did you mean 'context_window'?",
        ),
        ("providers = 3", "line 1: providers should be a valid table"),
        ("[providers]\nopenai = 3", "line 2: providers.openai should be a valid table"),
        ("[providers.openai\n", "is not valid TOML"),
    ],
)
def test_a_mistake_is_named_by_file_line_and_field(text: str, sentence: str) -> None:
    said = refusal(text)
    assert sentence in said
    assert said.startswith(FILE)
    assert "\n" not in said


def test_a_mistake_in_a_price_is_described_in_words_of_the_file() -> None:
    said = refusal("[providers.openai.prices]\nm = 3")
    assert said.endswith("line 2: providers.openai.prices.m should be a valid table")


@pytest.mark.parametrize(
    "text",
    [
        "[providers.openai]\napi_keys = ['sk-hush-hush']",
        "[providers.openai]\napi_keys = [{ name = 'a', value = 'sk-hush-hush' }]",
        "[providers.openai]\napi_keys = 'sk-hush-hush'",
        "[providers.openai]\napi_keys = [{ name = 'a', value = ['sk-hush-hush'] }]",
        "[providers.openai]\napi_keys = [{ name = 'sk hush-hush', value = 'env.A' }]",
        "redis_url = ['sk-hush-hush']",
        "[providers.openai]\napi_keys = [sk-hush-hush]",
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(text: str) -> None:
    assert "hush" not in refusal(text)


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such file"):
        load_settings(tmp_path / "none.toml", {})


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    Path(FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load_settings(None, {})


def test_the_page_and_the_schema_are_current() -> None:
    remedy = "run: python -m understudy.models.config.docs"
    assert (DOCS / PAGE_NAME).read_text(encoding="utf-8") == page(), remedy
    assert (DOCS / SCHEMA_NAME).read_text(encoding="utf-8") == schema(), remedy


def test_every_setting_has_its_sentence() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []


def test_families_lead_to_their_makers() -> None:
    assert family_of("GPT-4o") == "openai"
    assert family_of("claude-opus-4-6") == "anthropic"
    assert family_of("llama3") is None


def test_windows_are_known_for_known_models_and_none_for_others() -> None:
    assert window("gpt-4o-mini") == 128_000
    assert window("anthropic/claude-sonnet-4-5") == window("claude-sonnet-4-5")
    assert window("nobody/has-heard-of-this") is None
