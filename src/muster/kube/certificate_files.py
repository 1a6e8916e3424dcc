"""The webhook's certificate in files that somebody else keeps, such as a mounted Secret of cert-manager."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from muster.kube.certificates import KeyPair, load_pair, serving_context
from muster.kube.credentials import AccessError


class CertificateFiles:
    """The same use as ``ServingCertificates``; whoever replaces the files is followed at the next ``check``."""

    def __init__(self, certificate: Path, key: Path, authority: Path | None = None) -> None:
        """``authority``: what to register as ``caBundle``; ``None`` leaves that to others."""
        self._certificate = certificate
        self._key = key
        self._authority = authority
        self._loaded: KeyPair | None = None
        self._context = serving_context()
        self.ca_pem = b""
        self.expires = 0.0
        """Unix time at which what is served ends."""

    async def ready(self) -> ssl.SSLContext:
        """The context to serve with. Raises ``AccessError`` when the files are missing or do not fit each other."""
        await self.check()
        return self._context

    async def check(self) -> None:
        """Raises ``AccessError`` as ``ready``: what was served before then still is."""
        pair = KeyPair(await _content(self._certificate), await _content(self._key))
        if pair != self._loaded:
            self.expires = load_pair(self._context, pair, f"{self._certificate} and {self._key}")
            self._loaded = pair
        if self._authority is not None:
            self.ca_pem = await _content(self._authority)


async def _content(path: Path) -> bytes:
    try:
        return await asyncio.to_thread(path.read_bytes)
    except OSError as error:
        raise AccessError(f"{path} cannot be read: {error.strerror}") from None
