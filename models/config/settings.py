"""The frozen `Settings` tree: stores, providers, chains, limits. Read from a TOML file and the environment.

`load_settings` is the entry point; a rejected configuration raises `SettingsError` with one readable sentence.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, IPvAnyNetwork, Tag, ValidationError

from understudy.models.config.errors import STEP, VARIANTS, SettingsError, explain, problem
from understudy.models.config.presets import AZURE_ENDPOINT, PRESETS
from understudy.models.config.provider_settings import NAME, Provider, Section
from understudy.models.config.service_urls import CANONICAL, BadAddress
from understudy.models.routing.chain import When
from understudy.models.routing.policy import ChainPolicy
from understudy.models.tenants import StoreContent

__all__ = ["Settings", "SettingsError", "load_settings"]

CONFIG_NAME = "understudy.toml"


class StepConfig(Section):
    """One step of a chain. A plain string is short for `{ model = "…" }`. Any other key overrides that parameter of
    the request, such as `max_tokens`. A list of steps in place of a step is a weighted step: each job uses one of
    them, always the same one."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(min_length=1)
    """`provider/model`; a bare model name is not accepted here."""
    when: When | None = None
    """The requests that this step serves; all others skip it. Default: all."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """In a weighted step: its share of the jobs relative to the other steps."""

    @property
    def params(self) -> dict[str, Any]:
        """The request parameters that it overrides."""
        return dict(self.model_extra or {})


def _step(value: object) -> object:
    return {"model": value} if isinstance(value, str) else value


AStep = Annotated[StepConfig, BeforeValidator(_step, json_schema_input_type=str | StepConfig)]
Entry = Annotated[
    Annotated[AStep, Tag(STEP)] | Annotated[tuple[AStep, ...], Field(min_length=1), Tag(VARIANTS)],
    Discriminator(lambda value: VARIANTS if isinstance(value, list | tuple) else STEP),
]


class ChainConfig(ChainPolicy):
    """The models that a request may use, in order of preference. A request names the chain as its `model`."""

    steps: tuple[Entry, ...] = Field(min_length=1)
    """The steps: `provider/model`, a table with parameters, or a list of weighted steps (A/B)."""
    same_model_family: bool | None = None
    """Whether every step must belong to the model family of the first: the same model, whichever provider serves it.
    Default: `true` for embeddings, because vectors of different models cannot be compared; `false` for completions."""

    @property
    def places(self) -> tuple[tuple[StepConfig, ...], ...]:
        """For each step its variants, of which a job uses one."""
        return tuple(entry if isinstance(entry, tuple) else (entry,) for entry in self.steps)

    @property
    def all_steps(self) -> tuple[StepConfig, ...]:
        return tuple(step for variants in self.places for step in variants)


class WorkerSettings(Section):
    """Settings of each worker process. Command-line options take precedence."""

    max_concurrency: int = Field(default=100, gt=0, le=10_000)
    """Concurrent provider calls per process (`--max-concurrency`)."""
    urgent_slots: int | None = Field(default=None, ge=0, le=10_000)
    """Slots reserved for interactive and normal jobs, so that they start at once despite bulk jobs. Default: 5% of
    the slots, at least 1; 0 below five slots."""
    grace_s: float = Field(default=30.0, ge=0)
    """Seconds that calls in flight may still take when the worker is asked to stop (`--grace`); unfinished jobs
    return to the queue."""
    lease_s: float = Field(default=15.0, gt=0)
    """Seconds of silence after which a worker is considered dead and its jobs are run again by others. Must be the
    same on all machines."""


class ApiSettings(Section):
    """The HTTP API. Command-line options take precedence."""

    host: str = "127.0.0.1"
    """The address to listen on (`--host`). Anything other than loopback requires API keys; if none exists, the first
    one is created."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """The port to listen on (`--port`)."""
    public_url: str | None = Field(default=None, pattern=r"^https?://[^/]+$")
    """The URL that callers use, such as `https://llm.example.com`: used in links; setting it requires API keys.
    Default: taken from the request."""
    max_body_bytes: int = Field(default=16 * 1024 * 1024, gt=0)
    """Maximum size of a JSON body, in bytes."""
    max_file_bytes: int = Field(default=2 * 1024 * 1024 * 1024, gt=0)
    """Maximum size of an uploaded file, in bytes."""
    max_batch_lines: int = Field(default=1_000_000, gt=0)
    """Maximum number of lines of a batch."""
    hold_s: float = Field(default=600, gt=0)
    """Maximum seconds that `/v1/chat/completions` waits for an answer. Then it responds 504 and the job is
    cancelled."""
    max_queued_jobs: int = Field(default=5_000_000, gt=0)
    """Maximum number of queued jobs over all tenants; beyond it, submissions are rejected with 429 until there is
    room."""
    tenant_stored_bytes: int | None = Field(default=None, gt=0)
    """Maximum bytes stored per tenant: uploads, prompts, answers and rows. Override for one tenant with `understudy
    tenants set NAME --stored-bytes 50GB`. Default: unlimited while no API key exists; then a quarter of the disk
    that holds the data folder, or 1 TB if ledger and files are stored elsewhere."""
    tenant_open_batches: int | None = Field(default=None, gt=0)
    """Maximum unfinished batches per tenant. Default: unlimited while no API key exists; then 1,000."""
    unused_uploads_kept_s: float = Field(default=2_592_000.0, gt=0)
    """Seconds to keep an upload that no batch uses and that has no `expires_after`. The default is 30 days."""
    min_free_bytes: int | None = Field(default=None, ge=0)
    """Minimum free bytes on the disk that holds the data folder; below it, uploads and batches are rejected with 429
    so that accepted work can finish. Default: 5% of the disk, at most 1 GB."""


class BatchSettings(Section):
    """When a batch pauses by itself because its jobs fail; `understudy resume` continues it."""

    canary_lines: int = Field(default=10, ge=0, le=1_000)
    """Size N of the canary. Until a job of the batch succeeds, at most N run at a time; if the first N to finish all
    fail in the same way, the batch pauses. 0 disables it."""
    bad_requests_in_a_row: int = Field(default=100, ge=0, le=10_000)
    """A batch pauses when this many consecutive calls were rejected as bad requests. 0 disables it."""


class WebhookSettings(Section):
    """Allowed webhook targets. Public addresses on the usual ports need no entry."""

    allow_networks: tuple[IPvAnyNetwork, ...] = ()
    """Private networks that may be called, such as `10.1.0.0/16` or `127.0.0.0/8`."""
    allow_ports: tuple[int, ...] = (80, 443, 8080, 8443)
    """Ports that may be called; within `allow_networks` every port is allowed."""
    max_in_flight: int = Field(default=4, gt=0)
    """Concurrent deliveries per receiver, so that a slow one delays no other."""


class LogSettings(Section):
    """What `up`, `api` and `worker` write to standard error, one line per event. The variables UNDERSTUDY_LOG_FORMAT
    and UNDERSTUDY_LOG_LEVEL override the file; command-line options override both."""

    format: Literal["text", "json"] = "text"
    """The format of a line (`--log-format`)."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The minimum level to write (`--log-level`): `info` includes every request, start and end; `debug` adds health
    check requests. Libraries log only warnings and errors."""


class Settings(Section):
    """Stores, retention and the default deadline."""

    data: Path = Path(".understudy")
    """Folder of the embedded queue and ledger. The option `--data` takes precedence."""
    redis_url: str | None = None
    """Redis or Valkey, `redis://` or `rediss://`. Default: an embedded server in the data folder. The variable
    REDIS_URL takes precedence."""
    database_url: str | None = None
    """PostgreSQL, `postgresql://user:password@host/database`. Default: SQLite in the data folder. The variable
    DATABASE_URL takes precedence."""
    providers: dict[Annotated[str, Field(pattern=NAME)], Provider] = Field(default={})
    """The providers, by name. Catalog providers need no entry when their key variable is set."""
    chains: dict[Annotated[str, Field(pattern=NAME)], ChainConfig] = Field(default={})
    """Chains, by name. A request's `model` may name one; `default` serves requests without a model."""
    worker: WorkerSettings = WorkerSettings()
    """Settings of each worker process."""
    api: ApiSettings = ApiSettings()
    """The HTTP API."""
    batches: BatchSettings = BatchSettings()
    """When a batch pauses by itself because its jobs fail."""
    webhooks: WebhookSettings = WebhookSettings()
    """Allowed webhook targets."""
    logging: LogSettings = LogSettings()
    """What is logged, and in which format."""
    health_file: Path | None = None
    """A file that `up`, `api`, `worker` and `run` touch every second while they work and that `understudy health`
    reads. The variable UNDERSTUDY_HEALTH_FILE takes precedence. Default: none."""
    files_url: str | None = None
    """Where uploaded files are stored: `s3://bucket/prefix`, `gs://…`, `az://…`, with the cloud's usual variables.
    Default: in the data folder, which all API processes must then share."""
    store_content: StoreContent = "always"
    """How long prompts and answers are kept: `always` (until pruned or deleted) or `until_delivered` (one hour after
    the owner received the answers). Override for one tenant with `understudy tenants set NAME --store-content
    always`."""
    deadline_s: float = Field(default=86_400.0, gt=0)
    """Seconds from acceptance after which a job without its own deadline expires and is no longer started."""


def load_settings(config: Path | None, environ: Mapping[str, str], data: Path | None = None) -> Settings:
    """Load the settings of this process. Raises SettingsError.

    `config` None: `understudy.toml` in the working folder, if it exists. `data` and the variables REDIS_URL and
    DATABASE_URL override the file. A provider whose key variable is set needs no entry in the file.
    """
    path = config or Path(CONFIG_NAME)
    text = _read(path, required=config is not None)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # the message may quote the offending character, never a value
        raise SettingsError(f"{path}: is not valid TOML: {error}") from None
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
            raise SettingsError(f"{path}: no such file; create it or omit --config") from None
        return ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{path}: cannot be read: {reason}") from None


AROUND = " \t\r\n\"'"
"""What env files may leave around a value."""


def _take_addresses(document: dict[str, Any], environ: Mapping[str, str], path: Path, text: str) -> None:
    """Take the stores' addresses from variables, else from the file, and canonicalize them. Raises SettingsError."""
    for field, canonical in CANONICAL.items():
        variable = field.upper()
        given = environ.get(variable, "").strip(AROUND) or document.get(field)
        if not isinstance(given, str):
            continue  # validation reports it
        try:
            document[field] = canonical(given)
        except BadAddress as error:
            if environ.get(variable):
                raise SettingsError(f"{variable} {error}") from None
            raise SettingsError.at(path, text, (field,), str(error)) from None


LOG_VARIABLES = {"format": "UNDERSTUDY_LOG_FORMAT", "level": "UNDERSTUDY_LOG_LEVEL"}
HEALTH_VARIABLE = "UNDERSTUDY_HEALTH_FILE"


def _add_variables(document: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Apply our own service variables (UNDERSTUDY_…). Raises SettingsError."""
    if environ.get(HEALTH_VARIABLE):
        document["health_file"] = environ[HEALTH_VARIABLE]
    section = document.setdefault("logging", {})
    for field, variable in LOG_VARIABLES.items():
        value = environ.get(variable, "").strip(AROUND).lower()
        choices = get_args(LogSettings.model_fields[field].annotation)
        if value and value not in choices:
            raise SettingsError(f"{variable} must be one of {', '.join(choices)}")
        if value and isinstance(section, dict):  # else validation reports it
            section[field] = value


def _add_environment(document: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Add providers, keys and regions from the environment where the file does not set them."""
    providers = document.setdefault("providers", {})
    if not isinstance(providers, dict):
        return  # validation reports it
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
