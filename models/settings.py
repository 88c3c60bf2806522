"""One frozen Settings: stores, providers, chains, limits. Parsed from a TOML file and the environment."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from models.failure import FailureClass


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ApiKey(Section):
    """One credential: `value` is a reference (`env.NAME`, `file./path`, `cmd.program args`), never the secret."""

    name: str
    value: str
    weight: float = Field(default=1.0, gt=0)
    account: str | None = None  # keys that share an account share its budget; None: an account of its own


class Limits(Section):
    """Per account and model. None means unknown."""

    requests_per_minute: int | None = Field(default=None, gt=0)
    tokens_per_minute: int | None = Field(default=None, gt=0)
    max_in_flight: int | None = Field(default=None, gt=0)


class LimitOverride(Limits):
    """`[[providers.X.limits]]`: for one model, one account, or one model of one account."""

    model: str | None = None
    account: str | None = None


class Price(Section):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(default=None, ge=0)


class Provider(Limits):
    kind: Literal["openai", "anthropic", "gemini", "bedrock"] | None = None  # None: from the preset
    preset: str | None = None  # name in the catalog; None: the provider's own name if the catalog has it
    base_url: str | None = None
    api_keys: tuple[ApiKey, ...] = ()
    timeout_s: float = Field(default=600.0, gt=0)  # total, from sending to the last byte
    headers: dict[str, str] = {}
    options: dict[str, str] = {}  # protocol specifics, e.g. Azure's api_version
    models: tuple[str, ...] = ()  # bare model names that this provider answers to
    limits: tuple[LimitOverride, ...] = ()
    prices: dict[str, Price] = {}


class StepConfig(Section):
    """`model` is "provider/model"; the rest override the request's parameters."""

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)

    model: str


class ChainConfig(Section):
    steps: tuple[str | StepConfig, ...] = Field(min_length=1)
    patience_s: float | None = Field(default=None, ge=0)
    spill: bool = False
    fallback_on: frozenset[FailureClass] | None = None


class WorkerSettings(Section):
    max_concurrency: int = Field(default=100, gt=0, le=10_000)
    grace_s: float = Field(default=30.0, ge=0)
    lease_s: float = Field(default=15.0, gt=0)


class Settings(Section):
    """Everything that can be set. Found by `load_settings`, passed down, never global."""

    data: Path = Path(".understudy")
    redis_url: str | None = None  # None: an embedded server in the data folder
    database_url: str | None = None  # None: SQLite in the data folder
    providers: dict[str, Provider] = {}
    chains: dict[str, ChainConfig] = {}
    worker: WorkerSettings = WorkerSettings()
    deadline_s: float = Field(default=86_400.0, gt=0)  # of jobs that name none
