"""From a container to a process of this machine: paths, environment, command. Pure.

No namespaces and no root: every ``mountPath`` in arguments, environment and mounted ``spark.properties`` becomes the
folder that stands for it, ``/opt/spark`` the unpacked distribution, and each pod listens on its own loopback address.
The commands are those of the official images' ``entrypoint.sh`` (apache/spark-docker).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from muster.devcluster.virtual_application import minor
from muster.devcluster.volumes import SERVICE_ACCOUNT_PATH, Sources, field
from muster.spark.names import (
    ENV_APPLICATION_ID,
    ENV_CONF_DIR,
    ENV_DRIVER_BIND_ADDRESS,
    ENV_DRIVER_URL,
    ENV_EXECUTOR_CORES,
    ENV_EXECUTOR_ID,
    ENV_EXECUTOR_MEMORY,
    ENV_EXECUTOR_POD_IP,
    ENV_EXECUTOR_POD_NAME,
    ENV_JAVA_OPT_PREFIX,
    ENV_RESOURCE_PROFILE_ID,
    SPARK_ROLE_DRIVER,
    SPARK_ROLE_EXECUTOR,
    SPARK_VERSION_LABEL,
)

Object = Mapping[str, Any]

IMAGE_SPARK_HOME = "/opt/spark"
IMAGE_WORK_DIR = "/opt/spark/work-dir"

EXECUTOR_BACKEND = "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"
PROPERTIES_SUFFIXES = (".properties", ".conf")
"""Mounted files in which Spark reads paths."""
DECOMMISSION_SCRIPT = "/opt/decom.sh"


class PodFolder(msgspec.Struct, frozen=True):
    """Where a pod lives on this machine."""

    root: Path

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def work(self) -> Path:
        return self.root / "work-dir"

    @property
    def hosts(self) -> Path:
        return self.root / "etc-hosts"

    def volume(self, name: str) -> Path:
        return self.root / "volumes" / name


class Machine(msgspec.Struct, frozen=True):
    """What all pods of a process kubelet share."""

    spark_home: Path
    java: str
    """Path of the ``java`` command."""
    api_server: str
    """URL of the API server as pods may dial it."""
    environment: dict[str, str]
    """The variables that a process needs of this machine: ``PATH``, ``HOME``, ``LANG``, ``JAVA_HOME``."""
    java_options: tuple[str, ...] = ()
    """JVM options for every pod, which Spark never sees."""


class ProcessPlan(msgspec.Struct, frozen=True):
    """What to start for a container."""

    command: tuple[str, ...]
    environment: dict[str, str]
    folder: Path


def path_map(pod: Object, container: Object, folder: PodFolder, machine: Machine) -> dict[str, str]:
    """Path in the image → path on this machine."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or ()}
    paths = {
        IMAGE_SPARK_HOME: str(machine.spark_home),
        IMAGE_WORK_DIR: str(folder.work),
    }
    for mount in container.get("volumeMounts") or ():
        host_path = (volumes[mount["name"]].get("hostPath") or {}).get("path")
        paths[mount["mountPath"].rstrip("/")] = host_path or str(folder.volume(mount["name"]))
    return paths


def rewriter(paths: Mapping[str, str]) -> Callable[[str], str]:
    """A function that replaces whole paths and their prefixes in a text, the longest first, each place once."""
    longest_first = sorted(paths, key=len, reverse=True)
    pattern = re.compile(r"(?<![\w.-])(" + "|".join(map(re.escape, longest_first)) + r")(?![\w.-])")
    return lambda text: pattern.sub(lambda match: paths[match.group(1)], text)


def environment_of(container: Object, pod: Object, sources: Sources) -> dict[str, str]:
    """The container's environment with its references resolved and ``$(NAME)`` expanded, as the kubelet does."""
    environment: dict[str, str] = {}
    for entry in container.get("envFrom") or ():
        for name, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if reference := entry.get(name):
                data = sources.objects[kind, reference["name"]] or {}
                prefix = entry.get("prefix", "")
                environment |= {prefix + key: value.decode() for key, value in data.items()}
    for entry in container.get("env") or ():
        value = _value(entry, pod, sources)
        if value is not None:
            environment[entry["name"]] = expand(value, environment)
    return environment


def expand(text: str, environment: Mapping[str, str]) -> str:
    """``$(NAME)`` by the variable's value, ``$$`` by ``$``; unknown names stay (``third_party/forked/expansion``)."""

    def replacement(match: re.Match[str]) -> str:
        if match.group() == "$$":
            return "$"
        return environment.get(match.group(1), match.group())

    return re.sub(r"\$\$|\$\(([^)]*)\)", replacement, text)


def plan(pod: Object, container: Object, folder: PodFolder, machine: Machine, sources: Sources) -> ProcessPlan:
    """The process of a container. ``pod["status"]["podIP"]`` must be set."""
    paths = path_map(pod, container, folder, machine)
    rewrite = rewriter(paths)
    declared = {name: rewrite(value) for name, value in environment_of(container, pod, sources).items()}
    address = pod["status"]["podIP"]
    arguments = tuple(rewrite(expand(argument, declared)) for argument in container.get("args") or ())
    command = tuple(rewrite(expand(word, declared)) for word in container.get("command") or ())
    role = arguments[0] if arguments and not command else ""
    environment = machine.environment | {
        "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"],
        "SPARK_HOME": str(machine.spark_home),
        "SPARK_LOCAL_IP": address,
        # A driver that imports pyspark from the environment of this very process would mix versions.
        "PYTHONPATH": declared.get("PYTHONPATH", ""),
        "PYTHONNOUSERSITE": "1",
    }
    environment |= declared
    options = [*machine.java_options]
    if _needs_hosts_file(pod, declared):
        options.append(f"-Djdk.net.hosts.file={folder.hosts}")
    if role == SPARK_ROLE_DRIVER:
        options += _driver_options(paths.get(SERVICE_ACCOUNT_PATH), machine.api_server)
    environment["JAVA_TOOL_OPTIONS"] = " ".join(filter(None, (declared.get("JAVA_TOOL_OPTIONS", ""), *options)))
    if role == SPARK_ROLE_DRIVER:
        command = driver_command(environment, arguments[1:])
    elif role == SPARK_ROLE_EXECUTOR:
        command = executor_command(environment, machine.java, str(folder.work))
    else:
        command += arguments
    working_dir = container.get("workingDir")
    return ProcessPlan(command, environment, Path(rewrite(working_dir)) if working_dir else folder.work)


def driver_command(environment: Mapping[str, str], arguments: tuple[str, ...]) -> tuple[str, ...]:
    """``entrypoint.sh driver …``."""
    bind = environment[ENV_DRIVER_BIND_ADDRESS]
    return (
        f"{environment['SPARK_HOME']}/bin/spark-submit",
        "--conf",
        f"spark.driver.bindAddress={bind}",
        "--conf",
        f"spark.executorEnv.SPARK_DRIVER_POD_IP={bind}",
        "--deploy-mode",
        "client",
        *arguments,
    )


def executor_command(environment: Mapping[str, str], java: str, work_dir: str) -> tuple[str, ...]:
    """``entrypoint.sh executor``; the JVM flags come in the order in which bash lists their variables."""
    flags = [value for name, value in sorted(environment.items()) if name.startswith(ENV_JAVA_OPT_PREFIX)]
    memory = environment[ENV_EXECUTOR_MEMORY]
    conf_dir = environment.get(ENV_CONF_DIR) or f"{environment['SPARK_HOME']}/conf"
    class_path = filter(
        None,
        (
            conf_dir,
            environment.get("SPARK_CLASSPATH"),
            f"{environment['SPARK_HOME']}/jars/*",
            environment.get("SPARK_EXTRA_CLASSPATH"),
            work_dir,
        ),
    )
    return (
        java,
        *flags,
        f"-Xms{memory}",
        f"-Xmx{memory}",
        "-cp",
        ":".join(class_path),
        EXECUTOR_BACKEND,
        "--driver-url",
        environment[ENV_DRIVER_URL],
        "--executor-id",
        environment[ENV_EXECUTOR_ID],
        "--cores",
        environment[ENV_EXECUTOR_CORES],
        "--app-id",
        environment[ENV_APPLICATION_ID],
        "--hostname",
        environment[ENV_EXECUTOR_POD_IP],
        "--resourceProfileId",
        environment[ENV_RESOURCE_PROFILE_ID],
        "--podName",
        environment[ENV_EXECUTOR_POD_NAME],
    )


def hosts_file(names: Mapping[str, str], own_name: str, own_address: str) -> str:
    """``/etc/hosts`` of a pod: itself, localhost, and the names that cluster DNS would know."""
    lines = ["127.0.0.1\tlocalhost", f"{own_address}\t{own_name}"]
    lines += [f"{address}\t{name}" for name, address in sorted(names.items())]
    return "\n".join(lines) + "\n"


def decommissions_first(container: Object) -> bool:
    """Whether the container has Spark's preStop hook: SIGPWR to the executor, then wait for it."""
    hook = (container.get("lifecycle") or {}).get("preStop") or {}
    return DECOMMISSION_SCRIPT in ((hook.get("exec") or {}).get("command") or ())


def _value(entry: Object, pod: Object, sources: Sources) -> str | None:
    source = entry.get("valueFrom")
    if source is None:
        return str(entry.get("value", ""))
    if reference := source.get("fieldRef"):
        return field(pod, reference["fieldPath"])
    for name, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if reference := source.get(name):
            data = sources.objects[kind, reference["name"]] or {}
            if reference["key"] in data:
                return data[reference["key"]].decode()
            if reference.get("optional"):
                return None
            raise KeyError(f"{kind} {reference['name']!r} has no key {reference['key']!r}")
    raise ValueError(f"environment variable {entry['name']}: {', '.join(source)} is not supported here")


def _needs_hosts_file(pod: Object, environment: Mapping[str, str]) -> bool:
    """Whether JVMs of this pod must resolve the driver's service.

    Up to 4.0 executors dial it by name, later by the driver's address. The file replaces all other name resolution of
    the JVM, so it is given to those only that need it.
    """
    if url := environment.get(ENV_DRIVER_URL):
        return ".svc:" in url
    version = (pod["metadata"].get("labels") or {}).get(SPARK_VERSION_LABEL, "")
    return bool(version) and minor(version) < (4, 1)


def _driver_options(account: str | None, api_server: str) -> list[str]:
    """What the image's fixed paths and cluster DNS would give a driver, as system properties."""
    options = [f"-Dspark.kubernetes.driver.master={api_server}"]
    if account is not None:
        mounted = "-Dspark.kubernetes.authenticate.driver.mounted"
        options.append(f"{mounted}.oauthTokenFile={account}/token")
        if api_server.startswith("https:"):
            options.append(f"{mounted}.caCertFile={account}/ca.crt")
    return options
