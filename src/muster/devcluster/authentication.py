"""Who is calling: bearer tokens of the administrator and of service accounts."""

from __future__ import annotations

import hmac
import secrets
import time

import msgspec

from muster.devcluster.errors import unauthorized


class Identity(msgspec.Struct, frozen=True):
    """A user as admission reviews and token reviews name it."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""

    @property
    def user_info(self) -> dict[str, object]:
        info: dict[str, object] = {"username": self.name, "groups": list(self.groups)}
        return info | {"uid": self.uid} if self.uid else info


ADMIN = Identity("kubernetes-admin", ("system:masters", "system:authenticated"))
CONTROLLER = Identity("system:kube-controller-manager", ("system:authenticated",))


def service_account(namespace: str, name: str, uid: str) -> Identity:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return Identity(f"system:serviceaccount:{namespace}:{name}", groups, uid)


class Tokens:
    """The tokens this server has given out. They are opaque: only this server can tell whose one is."""

    def __init__(self, admin_token: str | None = None) -> None:
        self.admin_token = admin_token or secrets.token_urlsafe(24)
        self._issued: dict[str, tuple[Identity, float]] = {}

    def issue(self, identity: Identity, seconds: float) -> str:
        now = time.monotonic()
        self._issued = {token: entry for token, entry in self._issued.items() if entry[1] > now}
        token = secrets.token_urlsafe(32)
        self._issued[token] = (identity, now + seconds)
        return token

    def identify(self, token: str) -> Identity | None:
        if hmac.compare_digest(token.encode(), self.admin_token.encode()):
            return ADMIN
        entry = self._issued.get(token)
        return entry[0] if entry and entry[1] > time.monotonic() else None

    def authenticate(self, authorization: str | None) -> Identity:
        """The caller behind an ``Authorization`` header. Raises 401 Unauthorized."""
        scheme, _, token = (authorization or "").partition(" ")
        identity = self.identify(token.strip()) if scheme.lower() == "bearer" else None
        if identity is None:
            raise unauthorized()
        return identity
