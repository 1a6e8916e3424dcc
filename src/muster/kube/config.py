"""How to reach a cluster: from a kubeconfig or from inside a pod.

lightkube reads the files; the TLS context and the credentials are made here, because its own ones belong to another
HTTP library, know neither ``client.authentication.k8s.io/v1`` plugins nor their expiry, and read one file only.
"""

from __future__ import annotations

import os
import ssl
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, SERVICE_ACCOUNT, KubeConfig, SingleConfig
from lightkube.config.models import Cluster, User
from lightkube.core.exceptions import ConfigError

from muster.kube.clock import Clock, SystemClock
from muster.kube.credentials import (
    AccessError,
    Credentials,
    ExecPlugin,
    FixedHeader,
    TokenFile,
    load_client_certificate,
)

_FILES = {
    "clusters": ("cluster", ("certificate-authority",)),
    "users": ("user", ("client-certificate", "client-key", "tokenFile")),
    "contexts": ("context", ()),
}


@dataclass(frozen=True)
class ClusterAccess:
    """Everything a client needs to talk to one cluster."""

    server: str
    """URL without a trailing slash."""
    source: str
    """Where this comes from, for people: ``context dev of /home/me/.kube/config``."""
    namespace: str = "default"
    tls: ssl.SSLContext | None = None
    """``None`` for plain HTTP."""
    tls_server_name: str = ""
    """Name to verify the certificate against, when it is not the one in ``server``."""
    proxy: str = ""
    credentials: Credentials = FixedHeader()  # noqa: RUF009  (immutable)


def load_access(
    kubeconfig: str | Path | None = None,
    context: str | None = None,
    *,
    clock: Clock | None = None,
    environment: Mapping[str, str] = os.environ,
    service_account: str | Path = SERVICE_ACCOUNT,
) -> ClusterAccess:
    """The cluster meant by, in this order: ``kubeconfig``, ``KUBECONFIG``, the pod we run in, ``~/.kube/config``.

    ``KUBECONFIG`` may name several files, merged as kubectl does: the first to define a name wins.
    Raises ``AccessError`` that names the file, the context, and the contexts there are.
    """
    clock = clock or SystemClock()
    if kubeconfig:
        return _from_kubeconfig([Path(kubeconfig)], context, clock)
    if listed := [Path(part) for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part]:
        existing = [path for path in listed if path.expanduser().is_file()]
        return _from_kubeconfig(existing or listed, context, clock)
    if environment.get("KUBERNETES_SERVICE_HOST") and Path(service_account, "token").is_file() and context is None:
        return _from_pod(Path(service_account), environment, clock)
    default = Path(DEFAULT_KUBECONFIG).expanduser()
    if not default.is_file():
        raise AccessError(
            f"no cluster to talk to: no kubeconfig was named, KUBECONFIG is not set, this is not a pod with a service "
            f"account, and {default} does not exist"
        )
    return _from_kubeconfig([default], context, clock)


def _from_pod(account: Path, environment: Mapping[str, str], clock: Clock) -> ClusterAccess:
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    source = f"service account in {account}"
    namespace = account / "namespace"
    return ClusterAccess(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        source=source,
        namespace=namespace.read_text().strip() if namespace.is_file() else "default",
        tls=_verifying(Cluster(certificate_auth=str(account / "ca.crt")), source),
        credentials=TokenFile(account / "token", clock),
    )


def _from_kubeconfig(paths: list[Path], context: str | None, clock: Clock) -> ClusterAccess:
    merged = _merge([_read(path.expanduser()) for path in paths])
    where = os.pathsep.join(str(path) for path in paths)
    try:
        config = KubeConfig.from_dict(merged)
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise AccessError(f"kubeconfig {where}: {error}") from None
    chosen = _choose(config, context, where)
    source = f"context {chosen.context_name} of {where}"
    cluster, user = chosen.cluster, chosen.user or User()
    # lightkube's models do not hold these
    cluster_entry = _entry(merged, "clusters", chosen.context.cluster)
    user_entry = _entry(merged, "users", chosen.context.user)
    server = cluster.server.rstrip("/")
    tls = _verifying(cluster, source) if server.startswith("https://") else None
    if tls is not None:
        _present_certificate(tls, user, source)
    return ClusterAccess(
        server=server,
        source=source,
        namespace=chosen.namespace,
        tls=tls,
        tls_server_name=str(cluster_entry.get("tls-server-name", "")),
        proxy=str(cluster_entry.get("proxy-url", "")),
        credentials=_credentials(user, user_entry, cluster, tls, source, clock),
    )


def _read(path: Path) -> dict[str, Any]:
    """One file with its relative paths made absolute: they are relative to the file that holds them."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise AccessError(f"kubeconfig {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        # the parser's own message would quote the file, which holds secrets
        raise AccessError(f"kubeconfig {path} is not YAML") from None
    if not isinstance(content, dict):
        raise AccessError(f"kubeconfig {path} is not a kubeconfig: expected a mapping with clusters, contexts, users")
    for section, (key, path_fields) in _FILES.items():
        for entry in content.get(section) or ():
            body = entry.get(key) if isinstance(entry, dict) else None
            if not isinstance(body, dict) or "name" not in entry:
                raise AccessError(f"kubeconfig {path}: every entry of {section} needs a name and a {key}")
            for field in path_fields:
                if body.get(field):
                    body[field] = str(path.parent / body[field])
            command = (body.get("exec") or {}).get("command", "") if section == "users" else ""
            if os.sep in command:
                body["exec"]["command"] = str(path.parent / command)
    return content


def _merge(files: list[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {"current-context": None}
    for section in _FILES:
        entries: dict[str, Any] = {}
        for file in files:
            for entry in file.get(section) or ():
                entries.setdefault(entry["name"], entry)
        merged[section] = list(entries.values())
    for file in files:
        merged["current-context"] = merged["current-context"] or file.get("current-context") or None
    return merged


def _choose(config: KubeConfig, context: str | None, where: str) -> SingleConfig:
    there_are = ", ".join(sorted(config.contexts)) or "none"
    name = context or config.current_context
    if name is None:
        raise AccessError(f"kubeconfig {where} has no current-context; name one of its contexts: {there_are}")
    if name not in config.contexts:
        raise AccessError(f"kubeconfig {where} has no context {name}; there are: {there_are}")
    wanted = config.contexts[name]
    for kind, wanted_name, known in (("cluster", wanted.cluster, config.clusters), ("user", wanted.user, config.users)):
        if wanted_name and wanted_name not in known:
            raise AccessError(
                f"kubeconfig {where}: context {name} names the {kind} {wanted_name}, which is not defined; "
                f"there are: {', '.join(sorted(known)) or 'none'}"
            )
    try:
        chosen = config.get(name)
    except ConfigError as error:
        raise AccessError(f"kubeconfig {where}: {error}") from None
    assert chosen is not None  # only without a name
    return chosen


def _entry(merged: dict[str, Any], section: str, name: str | None) -> dict[str, Any]:
    found = next((entry for entry in merged[section] if entry["name"] == name), None)
    return dict(found[_FILES[section][0]]) if found else {}


def _verifying(cluster: Cluster, source: str) -> ssl.SSLContext:
    try:
        if cluster.certificate_auth_data:
            context = ssl.create_default_context(cadata=b64decode(cluster.certificate_auth_data).decode())
        else:
            context = ssl.create_default_context(cafile=cluster.certificate_auth)
    except (OSError, ValueError):
        what = "certificate-authority-data" if cluster.certificate_auth_data else f"{cluster.certificate_auth}"
        raise AccessError(f"{source}: {what} is not a readable PEM certificate") from None
    # Python 3.13 turned this on; the certificates of many clusters lack extensions that it wants and Go does not
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cluster.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _present_certificate(context: ssl.SSLContext, user: User, source: str) -> None:
    certificate = _bytes(user.client_cert_data, user.client_cert, "client-certificate", source)
    key = _bytes(user.client_key_data, user.client_key, "client-key", source)
    if certificate and key:
        load_client_certificate(context, certificate, key, source)
    elif certificate or key:
        raise AccessError(f"{source}: client-certificate and client-key belong together, one is missing")


def _bytes(data: str | None, path: str | None, what: str, source: str) -> bytes:
    try:
        return b64decode(data, validate=True) if data else Path(path).read_bytes() if path else b""
    except ValueError:
        raise AccessError(f"{source}: {what}-data is not base64") from None
    except OSError as error:
        raise AccessError(f"{source}: {what} {path} cannot be read: {error.strerror}") from None


def _credentials(
    user: User, entry: dict[str, Any], cluster: Cluster, tls: ssl.SSLContext | None, source: str, clock: Clock
) -> Credentials:
    """Precedence as in client-go: token file, token, plugin, password."""
    if user.token_file:
        return TokenFile(Path(user.token_file), clock)
    if user.token:
        return FixedHeader.bearer(user.token)
    if user.exec:
        told = {"server": cluster.server, "certificate-authority-data": cluster.certificate_auth_data or ""}
        return ExecPlugin(
            [user.exec.command, *(user.exec.args or ())],
            api_version=user.exec.apiVersion,
            environment={variable.name: variable.value for variable in user.exec.env or ()},
            cluster=told if entry["exec"].get("provideClusterInfo") else None,
            tls=tls,
            install_hint=user.exec.installHint or "",
            clock=clock,
        )
    if user.username and user.password:
        return FixedHeader.basic(user.username, user.password)
    if user.auth_provider:
        raise AccessError(f"{source}: auth-provider was removed in Kubernetes 1.26; use an exec plugin")
    return FixedHeader()
