"""Who we are to the API server: the ``Authorization`` header, kept fresh. No secret appears in a repr or an error."""

from __future__ import annotations

import asyncio
import os
import ssl
import tempfile
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from muster.kube.clock import Clock
from muster.kube.timestamps import parse_time

TOKEN_FILE_SECONDS = 60.0
"""How long a token read from a file is used before the file is read again (client-go ``NewCachedFileTokenSource``)."""

REFRESH_SECONDS = 60.0
"""An exec plugin is asked again this long before its credential expires."""

EXEC_TIMEOUT_SECONDS = 60.0

EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


class AccessError(Exception):
    """The configuration for reaching a cluster is missing or wrong; the text is meant for people."""


class Credentials(Protocol):
    async def authorization(self) -> str | None:
        """The header's value, or ``None`` when the connection itself authenticates. Raises ``AccessError``."""
        ...

    def rejected(self) -> None:
        """The server answered 401: what was cached is not to be used again."""
        ...


class FixedHeader:
    """No header, a bearer token or a user name with password, as written in the kubeconfig."""

    def __init__(self, value: str | None = None) -> None:
        self._value = value

    @classmethod
    def bearer(cls, token: str) -> FixedHeader:
        return cls(f"Bearer {token}")

    @classmethod
    def basic(cls, username: str, password: str) -> FixedHeader:
        return cls("Basic " + b64encode(f"{username}:{password}".encode()).decode())

    async def authorization(self) -> str | None:
        return self._value

    def rejected(self) -> None:
        pass


class TokenFile:
    """A bearer token in a file that somebody else renews (service account tokens live an hour)."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._value: str | None = None
        self._read_at = 0.0

    async def authorization(self) -> str | None:
        now = self._clock.monotonic()
        if self._value is None or now - self._read_at >= TOKEN_FILE_SECONDS:
            self._value = f"Bearer {self._read()}"
            self._read_at = now
        return self._value

    def rejected(self) -> None:
        self._value = None

    def _read(self) -> str:
        try:
            token = self._path.read_text().strip()
        except OSError as error:
            raise AccessError(f"token file {self._path} cannot be read: {error.strerror}") from None
        if not token:
            raise AccessError(f"token file {self._path} is empty")
        return token


class _ExecStatus(msgspec.Struct, rename="camel"):
    token: str = ""
    client_certificate_data: str = ""
    client_key_data: str = ""
    expiration_timestamp: str = ""


class _ExecCredential(msgspec.Struct, rename="camel"):
    api_version: str
    status: _ExecStatus


class ExecPlugin:
    """A program that prints an ``ExecCredential`` (client-go credential plugins, KEP-541), as clouds use them."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        api_version: str,
        environment: Mapping[str, str],
        clock: Clock,
        cluster: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        install_hint: str = "",
    ) -> None:
        """``cluster`` is told to the plugin when it asks for it; ``tls`` receives the client certificates it gives."""
        if api_version not in EXEC_VERSIONS:
            raise AccessError(
                f"exec plugin {command[0]}: apiVersion {api_version} is not supported, expected one of "
                + ", ".join(EXEC_VERSIONS)
            )
        self._command = list(command)
        self._api_version = api_version
        self._environment = dict(environment)
        self._cluster = cluster
        self._clock = clock
        self._tls = tls
        self._install_hint = install_hint
        self._lock = asyncio.Lock()
        self._fresh = False
        self._value: str | None = None
        self._expires: float | None = None

    async def authorization(self) -> str | None:
        async with self._lock:  # many calls may find it stale at once; the plugin may ask a person or a slow service
            if not self._fresh or (self._expires is not None and self._clock.time() >= self._expires - REFRESH_SECONDS):
                self._accept(await self._run())
        return self._value

    def rejected(self) -> None:
        self._fresh = False

    def _accept(self, output: bytes) -> None:
        name = self._command[0]
        try:
            credential = msgspec.json.decode(output, type=_ExecCredential)
            expires = credential.status.expiration_timestamp
            self._expires = parse_time(expires) if expires else None
        except (msgspec.MsgspecError, ValueError):
            raise AccessError(f"exec plugin {name} did not print an ExecCredential with a status as JSON") from None
        if credential.api_version != self._api_version:
            raise AccessError(
                f"exec plugin {name} answered with apiVersion {credential.api_version}, expected {self._api_version}"
            )
        status = credential.status
        if not status.token and not status.client_certificate_data:
            raise AccessError(f"exec plugin {name} gave neither a token nor a client certificate")
        if status.client_certificate_data and self._tls is not None:
            load_client_certificate(
                self._tls,
                status.client_certificate_data.encode(),
                status.client_key_data.encode(),
                f"exec plugin {name}",
            )
        self._value = f"Bearer {status.token}" if status.token else None
        self._fresh = True

    async def _run(self) -> bytes:
        name = self._command[0]
        spec: dict[str, object] = {"interactive": False}
        if self._cluster is not None:
            spec["cluster"] = self._cluster
        info = {"apiVersion": self._api_version, "kind": "ExecCredential", "spec": spec}
        environment = {
            **os.environ,
            **self._environment,
            "KUBERNETES_EXEC_INFO": msgspec.json.encode(info).decode(),
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            hint = f"; {self._install_hint.strip()}" if self._install_hint else ""
            raise AccessError(f"exec plugin {name} cannot be run: {error.strerror}{hint}") from None
        try:
            async with asyncio.timeout(EXEC_TIMEOUT_SECONDS):
                output, complaint = await process.communicate()
        except TimeoutError:
            raise AccessError(f"exec plugin {name} gave no answer in {EXEC_TIMEOUT_SECONDS:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            said = complaint.decode("utf-8", "replace").strip()[-300:]
            raise AccessError(f"exec plugin {name} failed with exit code {process.returncode}: {said}")
        return output


def load_client_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes, source: str) -> None:
    """Load a PEM pair into ``context``. OpenSSL reads files only, so they exist for a moment, for us alone."""
    with tempfile.TemporaryDirectory(prefix="muster-") as folder:  # created with mode 0700
        certificate_file, key_file = Path(folder, "tls.crt"), Path(folder, "tls.key")
        certificate_file.write_bytes(certificate)
        key_file.write_bytes(key)
        try:
            context.load_cert_chain(certificate_file, key_file)
        except (ssl.SSLError, OSError):
            raise AccessError(f"{source}: certificate and key are not a matching pair of PEM texts") from None
