"""Secrets: resolves a reference in the configuration to its current value.

    SecretMissing   the reference has no value; the message names provider, key and reference, never a value

Variables and files are read every time, a program is run again when its output is older than `command_ttl_s`.
"""

import asyncio
import hashlib
import os
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from understudy.models.config.provider_settings import ApiKey

COMMAND_TTL_S = 300.0
COMMAND_TIMEOUT_S = 10.0
MAX_SECRET_BYTES = 64 * 1024


class SecretMissing(Exception):
    """A key has no usable value at the moment. One readable sentence."""

    def __init__(self, provider: str, key: ApiKey, reason: str) -> None:
        super().__init__(f"key '{key.name}' of provider '{provider}' has no value: {shown(key.value)} {reason}")
        self.provider = provider
        self.key = key.name


def shown(reference: str) -> str:
    """A reference without a program's arguments, one of which may be a secret."""
    kind, _, place = reference.partition(".")
    return f"cmd.{place.split()[0]}" if kind == "cmd" else reference


def fingerprint(value: str) -> str:
    """A short hash that distinguishes a rotated secret from the old one and reveals neither."""
    return hashlib.sha256(b"understudy secret\0" + value.encode()).hexdigest()[:16]


def masked(value: str) -> str:
    """The last four characters of a key, to recognise it by, if it is long enough to spare them."""
    return f"…{value[-4:]}" if len(value) >= 16 else "…"


class _Unusable(Exception):
    """Why a reference has no value, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class _CommandSecret:
    until: float
    value: str | _Unusable


class Secrets:
    """Resolves references. One per process; safe for concurrent callers."""

    def __init__(
        self,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
        command_ttl_s: float = COMMAND_TTL_S,
        command_timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> None:
        self._environ = environ
        self._clock = clock
        self._command_ttl_s = command_ttl_s
        self._command_timeout_s = command_timeout_s
        self._commands: dict[str, _CommandSecret] = {}
        self._running: dict[str, asyncio.Lock] = {}

    async def resolve(self, provider: str, key: ApiKey) -> str:
        """The secret behind a key. Raises SecretMissing."""
        kind, _, place = key.value.partition(".")
        try:
            if kind == "env":
                return _clean(self._environ.get(place, ""), "is not set; export it")
            if kind == "file":
                return _from_file(place)
            return await self._from_command(place)
        except _Unusable as error:
            raise SecretMissing(provider, key, str(error)) from None

    async def _from_command(self, command: str) -> str:
        asked_at = self._clock()
        async with self._running.setdefault(command, asyncio.Lock()):
            known = self._commands.get(command)
            if known is None or asked_at >= known.until:
                known = await self._run_again(command)
                self._commands[command] = known
            if isinstance(known.value, _Unusable):
                raise _Unusable(str(known.value))
            return known.value

    async def _run_again(self, command: str) -> _CommandSecret:
        """All callers waiting for a failed run share its error; later callers start a new run."""
        try:
            value = await self._run(command)
        except _Unusable as failed:
            return _CommandSecret(self._clock(), failed)
        return _CommandSecret(self._clock() + self._command_ttl_s, value)

    async def _run(self, command: str) -> str:
        """Runs without a shell. Standard error is dropped: it may contain what does not belong in a log."""
        try:
            process = await asyncio.create_subprocess_exec(
                *shlex.split(command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=dict(self._environ),
            )
        except OSError as error:
            raise _Unusable(f"cannot be run ({error.strerror})") from None
        except ValueError:
            raise _Unusable("cannot be run (unbalanced quotes)") from None
        try:
            async with asyncio.timeout(self._command_timeout_s):
                output, _ = await process.communicate()
        except TimeoutError:
            raise _Unusable(f"did not finish within {self._command_timeout_s:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise _Unusable(f"failed with exit code {process.returncode}")
        return _decoded(output)


def _from_file(place: str) -> str:
    try:
        with Path(place).expanduser().open("rb") as file:
            return _decoded(file.read(MAX_SECRET_BYTES + 1))
    except OSError as error:
        raise _Unusable(f"cannot be read ({error.strerror})") from None


def _decoded(content: bytes) -> str:
    if len(content) > MAX_SECRET_BYTES:
        raise _Unusable("printed more than a secret can contain")
    try:
        return _clean(content.decode(), "is empty")
    except UnicodeDecodeError:
        raise _Unusable("did not print UTF-8 text") from None


def _clean(value: str, if_empty: str) -> str:
    """Strip the newline left by editors and `echo`; a space or control character inside could forge a header."""
    value = value.strip()
    if not value:
        raise _Unusable(if_empty)
    if not value.isascii() or not value.isprintable() or " " in value:
        raise _Unusable("contains spaces or characters that no key has")
    return value
