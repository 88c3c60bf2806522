"""One frozen Settings: stores, providers, chains, limits. Parsed from a TOML file and the environment.

`load_settings` is the way in; what it refuses is a `SettingsError`, one sentence for people.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    IPvAnyNetwork,
    Tag,
    ValidationError,
)

from understudy.models.config.errors import SettingsError, explain, problem
from understudy.models.config.presets import AZURE_ENDPOINT, PRESETS
from understudy.models.config.service_urls import CANONICAL, BadAddress
from understudy.models.failure import FailureClass
from understudy.models.routing.chain import Acceptance, Order, Tags, When
from understudy.models.routing.data_rules import parse_tags
from understudy.models.tenants import StoreContent

__all__ = ["Settings", "SettingsError", "load_settings"]

CONFIG_NAME = "understudy.toml"

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
REFERENCE = re.compile(r"env\.[A-Za-z_][A-Za-z0-9_]*|file\.\S.*|cmd\.\S.*")
NOT_A_REFERENCE = (
    "must say where the secret is, not be it: write env.NAME, file./path or cmd.program; "
    "if a real key stood here, replace it"
)


STEP, SIDES = "[step]", "[sides]"
"""What an entry of a chain's steps may be. Pydantic writes these words into an error's place; ours leave them out."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


def _is_reference(value: str) -> str:
    if not REFERENCE.fullmatch(value):
        raise ValueError(NOT_A_REFERENCE)
    return value


def _named_key(value: object) -> object:
    """A key given as a reference alone is named after where it comes from."""
    if not isinstance(value, str):
        return value
    kind, _, place = _is_reference(value).partition(".")
    name = {"env": place, "file": Path(place).name, "cmd": Path(place.split()[0]).name}[kind]
    return {"name": name, "value": value}


def _step(value: object) -> object:
    return {"model": value} if isinstance(value, str) else value


def _kind_of_entry(value: object) -> str:
    return SIDES if isinstance(value, list | tuple) else STEP


TagTable = Annotated[Tags, BeforeValidator(parse_tags, json_schema_input_type=dict[str, bool | str | tuple[str, ...]])]
"""Tags as people write them: texts, booleans, lists of texts."""


class ApiKey(Section):
    """One credential. A plain string stands for `{ value = "…" }`, named after the variable, file or program."""

    name: str = Field(pattern=NAME)
    """What results, logs and `--key` call it. It is not secret."""
    value: Annotated[str, AfterValidator(_is_reference)]
    """Where the secret is, never the secret: `env.NAME`, `file./path` or `cmd.program arguments`."""
    weight: float = Field(default=1.0, gt=0)
    """Its share of the calls, relative to the provider's other keys: 2 gets twice as many as 1."""
    account: str | None = Field(default=None, pattern=NAME)
    """Keys of one account at the provider: they share its limits. Absent: the key is an account of its own."""


class Limits(Section):
    """They hold for each account and model, over all workers on all machines."""

    requests_per_minute: int | None = Field(default=None, gt=0)
    """Calls per minute. Absent: no limit until the provider refuses, then the rate that it took, and 1% more each
    second."""
    tokens_per_minute: int | None = Field(default=None, gt=0)
    """Input and output tokens per minute. Absent: no limit of our own."""
    requests_per_day: int | None = Field(default=None, gt=0)
    """Calls per UTC day; when they are used up, the next call starts at midnight UTC. Absent: no limit of our own."""
    tokens_per_day: int | None = Field(default=None, gt=0)
    """Input and output tokens per UTC day. Absent: no limit of our own."""
    max_in_flight: int | None = Field(default=None, gt=0)
    """Calls at the same time, over all workers. Absent: no limit but the workers' own `max_concurrency`."""


class LimitOverride(Limits):
    """Limits for one model, one account, or one model of one account. Of several that fit, the one that names more
    wins, the account before the model; what it leaves out comes from the others and from the provider."""

    model: str | None = None
    """The provider's name of the model; absent: all models."""
    account: str | None = None
    """The account; absent: all accounts."""


class Price(Section):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    """Input tokens."""
    output: float = Field(ge=0)
    """Output tokens, reasoning included."""
    cached_input: float | None = Field(default=None, ge=0)
    """Input tokens read from the provider's cache; absent: as input."""


class ModelFeatures(Section):
    """What a model can do. What is absent is taken from what is sure of well-known models at their makers; what
    nobody knows is tried."""

    tools: bool | None = None
    """Whether it can use tools."""
    json_schema: bool | None = None
    """Whether it keeps to a `response_format` of the type `json_schema`."""
    images: bool | None = None
    """Whether it reads images."""
    audio: bool | None = None
    """Whether it hears or speaks audio."""
    files: bool | None = None
    """Whether it reads files."""
    context_window: int | None = Field(default=None, gt=0)
    """Tokens of input and output together. A request whose estimated input is up to a fifth too long is still tried."""
    max_output_tokens: int | None = Field(default=None, gt=0)
    """The most tokens of one answer that may be asked for."""


class Provider(Limits):
    """One account or several at one provider. NAME is the first part of `provider/model`. Limits hold for each
    account and model, over all workers on all machines."""

    kind: Literal["openai", "anthropic", "gemini", "bedrock"] | None = None
    """The protocol it speaks. Absent: the preset's, or `openai`."""
    preset: str | None = None
    """The provider of the catalog whose address, protocol and dialect it has. Absent: the one of the same name."""
    base_url: str | None = Field(default=None, pattern=r"^https?://")
    """Where it listens; for the OpenAI protocol with the version, such as `http://127.0.0.1:11434/v1`."""
    api_keys: tuple[Annotated[ApiKey, BeforeValidator(_named_key, json_schema_input_type=str | ApiKey)], ...] = ()
    """The credentials. Absent: the variable of the preset, if it is set."""
    timeout_s: float = Field(default=600.0, gt=0)
    """Seconds that one call may take in total, from sending to the last byte. An answer that has begun is given up as
    a timeout before that, when it brings less than 3,000 bytes in 30 seconds and does not end."""
    headers: dict[str, str] = {}
    """HTTP headers sent with every call. Not a place for secrets, which belong in `api_keys`."""
    options: dict[str, str] = {}
    """`region` (Bedrock), `api_version` (Azure with a base URL that does not end in /v1), `organization` and `project`
    (OpenAI)."""
    models: tuple[str, ...] = ()
    """Model names that mean this provider when a request writes them without `provider/`."""
    limits: tuple[LimitOverride, ...] = ()
    """Limits for single models and accounts, in place of the provider's own."""
    prices: dict[str, Price] = {}
    """Prices by model, for models that the built-in price list lacks or that cost you something else."""
    budget_usd_per_day: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """US dollars that its calls may cost in a day (UTC). Then its steps are passed over until the next day, or until
    `understudy resume provider:NAME`. Absent: no budget."""
    budget_usd_per_month: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """The same for a calendar month (UTC)."""
    tags: TagTable = {}
    """What data rules ask for, such as `{ region = "eu", zdr = true }`: texts, true or false, lists of texts. Of
    several values it may use any."""
    features: dict[str, ModelFeatures] = {}
    """What its models can do, by model."""


class StepConfig(Section):
    """One step of a chain. A plain string stands for `{ model = "…" }`. Any other key is a parameter of the request,
    such as `max_tokens`, in place of the request's own. A list of steps in the place of one is a weighted step: each
    job asks one of them, the same job always the same one."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(min_length=1)
    """`provider/model`; a bare model name is not enough here."""
    when: When | None = None
    """The requests that it is for; all others skip it. Absent: all."""
    weight: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """In a list of steps: its share of the jobs, relative to the others; absent: 1."""

    @property
    def share(self) -> float:
        return 1.0 if self.weight is None else self.weight

    @property
    def params(self) -> dict[str, Any]:
        """What it overrides."""
        return dict(self.model_extra or {})


AStep = Annotated[StepConfig, BeforeValidator(_step, json_schema_input_type=str | StepConfig)]
Entry = Annotated[
    Annotated[AStep, Tag(STEP)] | Annotated[tuple[AStep, ...], Field(min_length=1), Tag(SIDES)],
    Discriminator(_kind_of_entry),
]


class ChainConfig(Section):
    """The models that a request may use, in this order. A request names the chain as its `model`."""

    steps: tuple[Entry, ...] = Field(min_length=1)
    """The steps: `provider/model` each, or a table with parameters, or a list of steps with weights (A/B)."""
    order: Order = "chain"
    """In which order the steps that can serve a request are asked: as they stand here, by price for the job's estimated
    tokens (unknown prices last), or by measured latency (unmeasured steps first)."""
    require: TagTable = {}
    """Tags that a provider must have, with no other values: `{ region = ["eu", "ch"], zdr = true }`. A provider without
    the tag is not asked."""
    forbid: TagTable = {}
    """Tags that a provider must not have: `{ region = "us" }`. A provider without the tag has not said, and is not
    asked either."""
    patience_s: float | None = Field(default=None, ge=0)
    """Seconds that a step is waited for which refuses, or takes no more than the rate that its refusals taught; after
    that later steps are asked as well, and 0 goes on at once. Configured and told limits do not count (see `spill`).
    Absent: 0 for interactive jobs, 10 for single ones, 30 for batches."""
    spill: bool = False
    """Also pass over a step that is merely at its configured or learned limit, instead of waiting for it."""
    fallback_on: frozenset[FailureClass] | None = None
    """The failure classes (see below) that move a job to its next step; after others no later step is asked.
    Absent: all but `bad_request` and `content_filter`."""
    accept: tuple[Acceptance, ...] = ()
    """What an answer must be to count as one: `not_empty`, `not_truncated` (by the limit of output tokens),
    `not_refused`, `json_schema` (as its `response_format` asks). One that is not is a failure of class
    `bad_response`, and the next step is asked."""
    hedge_after_s: float | None = Field(default=None, gt=0)
    """When a call has taken so many seconds, the next step that may start at once is asked beside it, and the first
    good answer counts. For interactive jobs, and for the last jobs of a batch (`hedge_last`). Absent: never."""
    hedge_last: float = Field(default=0.0, ge=0, le=1)
    """Hedge a batch's jobs when at most this share of them has not ended, such as 0.01."""
    max_fallback_share: float | None = Field(default=None, ge=0, le=1)
    """Of a batch's jobs, this share at most may be answered by another step than the first; the others wait for it.
    Absent: any."""
    same_model_family: bool | None = None
    """Every step must be of the first one's model family: the same model, whoever serves it. Absent: `true` for
    embeddings, since vectors of different models cannot be compared, and `false` for completions."""


class WorkerSettings(Section):
    """How each worker process works. Options of the command line win."""

    max_concurrency: int = Field(default=100, gt=0, le=10_000)
    """Provider calls in flight in one process (`--max-concurrency`)."""
    urgent_slots: int | None = Field(default=None, ge=0, le=10_000)
    """So many of them are kept free of bulk jobs, so that an interactive or normal one starts at once. Absent: a
    twentieth, at least one, and none of fewer than five."""
    grace_s: float = Field(default=30.0, ge=0)
    """Seconds that calls in flight may take when the worker is told to stop (`--grace`); the rest is given back."""
    lease_s: float = Field(default=15.0, gt=0)
    """A worker that was silent for so long is taken for dead: others run its jobs again. Equal on all machines."""


class ApiSettings(Section):
    """The HTTP API. Options of the command line win."""

    host: str = "127.0.0.1"
    """Where it listens (`--host`). Beyond this machine everybody needs an API key; without any, a first one is made."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """Its port (`--port`)."""
    public_url: str | None = Field(default=None, pattern=r"^https?://[^/]+$")
    """How callers reach it, such as `https://llm.example.com`: used in links, and everybody needs an API key. Absent:
    as the request came."""
    max_body_bytes: int = Field(default=16 * 1024 * 1024, gt=0)
    """The longest JSON body, in bytes."""
    max_file_bytes: int = Field(default=2 * 1024 * 1024 * 1024, gt=0)
    """The longest uploaded file, in bytes."""
    max_batch_lines: int = Field(default=1_000_000, gt=0)
    """The most lines of one batch."""
    hold_s: float = Field(default=600, gt=0)
    """The longest that `/v1/chat/completions` holds a connection, in seconds. Then it answers 504 and the job is
    cancelled."""
    max_queued_jobs: int = Field(default=5_000_000, gt=0)
    """When so many jobs wait, over all tenants, more are refused with 429 until there is room."""
    tenant_stored_bytes: int | None = Field(default=None, gt=0)
    """The most bytes that are stored for a tenant: uploads, prompts, answers and rows. One may have its own
    (`understudy tenants set NAME --stored-bytes 50GB`). Absent: while no API key exists any, then a quarter of the disk
    with the data folder, or 1 TB where ledger and files are elsewhere."""
    tenant_open_batches: int | None = Field(default=None, gt=0)
    """The most batches of a tenant that have not ended. Absent: while no API key exists any, then 1,000."""
    unused_uploads_kept_s: float = Field(default=2_592_000.0, gt=0)
    """Seconds for which an upload is kept from which no batch was made, and that has no `expires_after`: 30 days."""
    min_free_bytes: int | None = Field(default=None, ge=0)
    """When less of the disk with the data folder is free, uploads and batches are refused with 429, so that what was
    accepted can end. Absent: a twentieth of the disk, at most 1 GB."""


class BatchSettings(Section):
    """When a batch pauses by itself because its jobs fail; `understudy resume` lets it go on."""

    canary_lines: int = Field(default=10, ge=0, le=1_000)
    """Until one job of a batch succeeded, no more than so many of it are under way; when the first so many to end all
    failed in the same way, the batch pauses. 0: never."""
    bad_requests_in_a_row: int = Field(default=100, ge=0, le=10_000)
    """A batch whose latest so many calls were all refused as bad requests pauses. 0: never."""


class WebhookSettings(Section):
    """Where webhooks may go. Public addresses on the usual ports need no entry."""

    allow_networks: tuple[IPvAnyNetwork, ...] = ()
    """Networks that may be called although they are private, such as `10.1.0.0/16` or `127.0.0.0/8`."""
    allow_ports: tuple[int, ...] = (80, 443, 8080, 8443)
    """The ports that may be called; in `allow_networks`, every port may."""
    max_in_flight: int = Field(default=4, gt=0)
    """Deliveries under way at the same time to one receiver: a slow one delays no other."""


class LogSettings(Section):
    """What `up`, `api` and `worker` write to standard error, a line for each event. The variables UNDERSTUDY_LOG_FORMAT
    and UNDERSTUDY_LOG_LEVEL win over the file, options of the command line over both."""

    format: Literal["text", "json"] = "text"
    """How a line is written (`--log-format`)."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is written (`--log-level`): `info` has each request and each start and end, `debug` also
    the requests of health checks. Of libraries only warnings and errors are written."""


class Settings(Section):
    """Where things are kept, and for how long a job is worth doing."""

    data: Path = Path(".understudy")
    """Folder of the embedded queue and ledger. The option `--data` wins over it."""
    redis_url: str | None = None
    """Redis or Valkey, `redis://` or `rediss://`. Absent: an embedded server in the data folder. The variable REDIS_URL
    wins over it."""
    database_url: str | None = None
    """PostgreSQL, `postgresql://user:password@host/database`. Absent: SQLite in the data folder. The variable
    DATABASE_URL wins over it."""
    providers: dict[Annotated[str, Field(pattern=NAME)], Provider] = {}
    """The providers, by name. Those of the catalog are there without an entry when their key variable is set."""
    chains: dict[Annotated[str, Field(pattern=NAME)], ChainConfig] = {}
    """Chains, by name. A request's `model` may name one; `default` serves requests that name no model."""
    worker: WorkerSettings = WorkerSettings()
    """How each worker process works."""
    api: ApiSettings = ApiSettings()
    """The HTTP API."""
    batches: BatchSettings = BatchSettings()
    """When a batch pauses by itself because its jobs fail."""
    webhooks: WebhookSettings = WebhookSettings()
    """Where webhooks may go."""
    logging: LogSettings = LogSettings()
    """What is logged, and how."""
    health_file: Path | None = None
    """A file that `up`, `api`, `worker` and `run` write every second while they work, and that `understudy health`
    reads. The variable UNDERSTUDY_HEALTH_FILE wins over it. Absent: none."""
    files_url: str | None = None
    """Where uploaded files are kept: `s3://bucket/prefix`, `gs://…`, `az://…` with the cloud's usual variables. Absent:
    in the data folder, which all API processes must then share."""
    store_content: StoreContent = "always"
    """For how long prompts and answers are kept: `always` until they are pruned or deleted, or `until_delivered`: an
    hour after their owner has the answers. A tenant may have its own
    (`understudy tenants set NAME --store-content always`)."""
    deadline_s: float = Field(default=86_400.0, gt=0)
    """Seconds from acceptance until a job that was given no deadline of its own expires: it starts no more."""


def load_settings(config: Path | None, environ: Mapping[str, str], data: Path | None = None) -> Settings:
    """The settings of this process. Raises SettingsError.

    `config` None: `understudy.toml` in the working folder, if there is one. `data` and the variables REDIS_URL and
    DATABASE_URL win over the file. A provider whose key variable is set needs no entry in the file.
    """
    path = config or Path(CONFIG_NAME)
    text = _read(path, required=config is not None)
    document = _parse(path, text)
    _take_addresses(document, environ, path, text)
    _add_environment(document, environ)
    _add_variables(document, environ)
    if data is not None:
        document["data"] = data
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        raise explain(error, Settings, path, text) from None
    found = problem(settings)
    if found is not None:
        raise SettingsError.at(path, text, *found)
    return settings


def _read(path: Path, required: bool) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if required:
            raise SettingsError(f"{path}: there is no such file; write one or leave out --config") from None
        return ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{path}: cannot be read: {reason}") from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # its message may quote the character it stumbled over, never a value
        raise SettingsError(f"{path}: is not valid TOML: {error}") from None


AROUND = " \t\r\n\"'"
"""What files of variables leave around a value."""


def _take_addresses(document: dict[str, Any], environ: Mapping[str, str], path: Path, text: str) -> None:
    """The stores, from their variables or else from the file, as their libraries take them. Raises SettingsError."""
    for field, canonical in CANONICAL.items():
        variable = field.upper()
        given = environ.get(variable, "").strip(AROUND) or document.get(field)
        if not isinstance(given, str):
            continue  # the model says what is wrong with it
        try:
            document[field] = canonical(given)
        except BadAddress as error:
            if environ.get(variable):
                raise SettingsError(f"{variable} {error}") from None
            raise SettingsError.at(path, text, (field,), str(error)) from None


LOG_VARIABLES = {"format": "UNDERSTUDY_LOG_FORMAT", "level": "UNDERSTUDY_LOG_LEVEL"}
HEALTH_VARIABLE = "UNDERSTUDY_HEALTH_FILE"


def _add_variables(document: dict[str, Any], environ: Mapping[str, str]) -> None:
    """What is set for a service by variables of ours. Raises SettingsError."""
    if environ.get(HEALTH_VARIABLE):
        document["health_file"] = environ[HEALTH_VARIABLE]
    section = document.setdefault("logging", {})
    for field, variable in LOG_VARIABLES.items():
        value = environ.get(variable, "").strip(AROUND).lower()
        choices = get_args(LogSettings.model_fields[field].annotation)
        if value and value not in choices:
            raise SettingsError(f"{variable} should be one of {', '.join(choices)}")
        if value and isinstance(section, dict):  # else the model says what is wrong with it
            section[field] = value


def _add_environment(document: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Providers, keys and regions where the file says nothing of its own."""
    providers = document.setdefault("providers", {})
    if not isinstance(providers, dict):
        return  # the model says what is wrong with it
    for name, preset in PRESETS.items():
        if preset.env and environ.get(preset.env) and (preset.base_url or environ.get(AZURE_ENDPOINT)):
            providers.setdefault(name, {})
    for name, provider in providers.items():
        if isinstance(provider, dict):
            _complete(name, provider, environ)


def _complete(name: str, provider: dict[str, Any], environ: Mapping[str, str]) -> None:
    preset_name = provider.get("preset", name)
    preset = PRESETS.get(preset_name) if isinstance(preset_name, str) else None
    if preset is None:
        return
    if "api_keys" not in provider and preset.env and environ.get(preset.env):
        provider["api_keys"] = [f"env.{preset.env}"]
    if preset_name == "azure" and "base_url" not in provider and environ.get(AZURE_ENDPOINT):
        provider["base_url"] = environ[AZURE_ENDPOINT].rstrip("/") + "/openai/v1"
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if preset.kind == "bedrock" and region and isinstance(provider.get("options", {}), dict):
        provider.setdefault("options", {}).setdefault("region", region)
