"""Warnings about what a configuration file found in the working folder does with keys and programs.

Users of a folder from someone else, such as a cloned repository, may not have read its `understudy.toml`. Before the
first call, they are warned if the file sends a key of one provider to another, sends files of the user, or runs
programs. A file given with --config was chosen deliberately.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from understudy.models.config.catalog import UnknownProvider, resolve_provider
from understudy.models.config.presets import AZURE_ENDPOINT, PRESETS, Preset
from understudy.models.config.provider_settings import ApiKey
from understudy.models.config.secrets import shown
from understudy.models.config.settings import CONFIG_NAME, Settings

OF_OTHERS = (
    "AWS_",
    "DOCKER_",
    "GH_",
    "GITHUB_",
    "GITLAB_",
    "NPM_",
    "PG",
    "SSH_",
    "VAULT_",
    "DATABASE_URL",
    "REDIS_URL",
)
"""Prefixes of environment variables that hold secrets of other services."""

OWN_HOSTS: Mapping[str, str] = {
    "AZURE_OPENAI_API_KEY": r"[a-z0-9-]+\.(?:openai|cognitiveservices|services\.ai)\.azure\.(?:com|us|cn)",
    "AWS_BEARER_TOKEN_BEDROCK": r"(?:.+\.)?bedrock-runtime(?:-fips)?\.[a-z0-9-]+\.(?:vpce\.)?amazonaws\.com",
}
"""Hosts of providers with more than one address, by the variable of their key."""


def warnings_about(settings: Settings, config: Path | None, environ: Mapping[str, str]) -> list[str]:
    """Warnings as sentences; none for a file given with --config, or one without such settings."""
    if config is not None or not Path(CONFIG_NAME).exists():
        return []
    return [f"WARNING: {CONFIG_NAME} in this folder {what}" for what in dict.fromkeys(_found(settings, environ))]


def _found(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    for name, provider in settings.providers.items():
        try:
            address = resolve_provider(settings, name).base_url
        except UnknownProvider:  # nothing can be sent to it
            address = ""
        from_environment = f"{environ.get(AZURE_ENDPOINT, '').rstrip('/')}/openai/v1" == address
        for key in provider.api_keys:
            kind, _, place = key.value.partition(".")
            if kind == "cmd":
                yield f"runs a program to get a key of provider {name}: {shown(key.value).removeprefix('cmd.')}"
            elif address and not from_environment and _is_anothers(key, kind, place, address):
                yield f"sends {_named(kind, place)} to {_origin(address)} (provider {name})"


def _is_anothers(key: ApiKey, kind: str, place: str, address: str) -> bool:
    """Whether a secret belongs to someone other than the receiver."""
    if kind == "file":
        path = Path(place)
        return (path.is_absolute() or place.startswith("~") or ".." in path.parts) and not _is_well_known(address)
    owners = [preset for preset in PRESETS.values() if preset.env == place]
    if owners:
        return not any(_owns(preset, address) for preset in owners)
    return place.startswith(OF_OTHERS)


def _is_well_known(address: str) -> bool:
    return any(_owns(preset, address) for preset in PRESETS.values() if preset.env)


def _owns(preset: Preset, address: str) -> bool:
    """Whether an address is the provider's own, over HTTPS."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme != "https":
        return False
    pattern = OWN_HOSTS.get(preset.env or "")
    if pattern is not None:
        return re.fullmatch(pattern, host) is not None
    return preset.base_url is not None and host == urlsplit(preset.base_url).hostname


def _named(kind: str, place: str) -> str:
    if kind == "file":
        return f"the contents of {place}"
    owners = [preset.base_url for preset in PRESETS.values() if preset.env == place and preset.base_url]
    return f"{place}, a key for {_origin(owners[0])}," if owners else place


def _origin(address: str) -> str:
    """Scheme and host, without user and password."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
