"""Asks the classes of a real Spark, in a JVM of its own, what its pods look like."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.spark.configurations import Case

FEATURES = "org.apache.spark.deploy.k8s.features"
NEEDED = {
    "spark.kubernetes.container.image": "spark",
    "spark.kubernetes.driver.pod.name": "app-driver",
    "spark.master": "k8s://https://127.0.0.1:1",
}
"""What Spark wants to be told before it makes pods; none of it bears on their sizes."""


class RealSpark:
    """A JVM with Spark's jars, and the few of its classes that make pods."""

    def __init__(self, jvm: Any, java: Any) -> None:
        self._jvm = jvm
        self._java = java

    def answer(self, case: Case) -> dict[str, Any]:
        """The whole way of a submission: driver pod, the driver's ``spark.properties``, executor pods, counts.

        Where Spark refuses, the value is ``{"refused": <exception class>}``.
        """
        conf = self._conf(case.conf | NEEDED)
        try:
            driver_conf = self._driver_conf(conf, case.language)
            step = self._class(f"{FEATURES}.BasicDriverFeatureStep")(driver_conf)
            driver = _container(step.configurePod(self._pod()))
            added = _scala_map(step.getAdditionalPodSystemProperties())
            command = self._class(f"{FEATURES}.DriverCommandFeatureStep")(driver_conf)
            added |= _scala_map(command.getAdditionalPodSystemProperties())
        except Exception as error:
            return {"conf": case.conf, "driver": {"refused": _refusal(error)}}
        # The driver's own name for itself; what executors connect to, not what they ask for.
        for key, value in (added | {"spark.driver.host": "127.0.0.1"}).items():
            conf.set(key, value)
        return {
            "properties": self._properties_text(conf),
            "driver": driver,
            "executor": self._asked(lambda: self._executor(conf, self._default_profile(conf))),
            "profile": case.profile and self._asked(lambda: self._executor(conf, self._profile(case.profile or {}))),
            "initial": self._asked(lambda: self._initial(conf)),
            "ceiling": self._asked(lambda: self._ceiling(conf)),
        }

    def load_properties(self, text: str) -> dict[str, str] | None:
        """``java.util.Properties.load(Reader)``; ``None`` when it refuses."""
        properties = self._jvm.java.util.Properties()
        try:
            properties.load(self._jvm.java.io.StringReader(text))
        except Exception as error:
            assert _refusal(error) == "IllegalArgumentException"
            return None
        return {key: properties.getProperty(key) for key in properties.stringPropertyNames()}

    def load_properties_file(self, path: Path) -> dict[str, str] | None:
        """The driver's own way to its ``spark.properties``, ``Utils.getPropertiesFromFile``; ``None`` if it refuses."""
        try:
            return _scala_map(self._module("org.apache.spark.util.Utils$").getPropertiesFromFile(str(path)))
        except Exception as error:
            assert _refusal(error) == "IllegalArgumentException"
            return None

    def config_entries(self, prefixes: tuple[str, ...]) -> dict[str, str]:
        """Keys of Spark's own registry that start so, with their defaults."""
        for name in ("org.apache.spark.internal.config.package$", "org.apache.spark.internal.config.Python$"):
            self._module(name)
        self._module("org.apache.spark.deploy.k8s.Config$")
        known = self._module("org.apache.spark.internal.config.ConfigEntry$").knownConfigs()
        return {key: known[key].defaultValueString() for key in sorted(map(str, known)) if key.startswith(prefixes)}

    def _conf(self, values: Mapping[str, str]) -> Any:
        conf = self._class("org.apache.spark.SparkConf")(False)
        for key, value in values.items():
            conf.set(key, value)
        return conf

    def _driver_conf(self, conf: Any, language: str) -> Any:
        resource = {
            "java": lambda: self._class("org.apache.spark.deploy.k8s.submit.JavaMainAppResource")(self._none()),
            "python": lambda: self._class("org.apache.spark.deploy.k8s.submit.PythonMainAppResource")("local:///a.py"),
            "r": lambda: self._class("org.apache.spark.deploy.k8s.submit.RMainAppResource")("local:///a.R"),
        }[language]()
        arguments = self._java.new_array(self._jvm.java.lang.String, 0)
        values = [conf, "spark-0", resource, "Main", arguments, self._none()]
        constructors = self._jvm.java.lang.Class.forName(
            "org.apache.spark.deploy.k8s.KubernetesDriverConf"
        ).getConstructors()
        if max(constructor.getParameterCount() for constructor in constructors) == 7:  # Spark 4: a clock
            values.append(self._class("org.apache.spark.util.SystemClock")())
        return self._class("org.apache.spark.deploy.k8s.KubernetesDriverConf")(*values)

    def _executor(self, conf: Any, profile: Any) -> dict[str, Any]:
        executor_conf = self._class("org.apache.spark.deploy.k8s.KubernetesExecutorConf")(
            conf, "spark-0", "1", self._none(), profile.id()
        )
        entry = self._module("org.apache.spark.internal.config.package$").AUTH_SECRET_FILE_EXECUTOR()
        security = self._class("org.apache.spark.SecurityManager")(conf, self._none(), entry)
        step = self._class(f"{FEATURES}.BasicExecutorFeatureStep")(executor_conf, security, profile)
        return _container(step.configurePod(self._pod()))

    def _default_profile(self, conf: Any) -> Any:
        profiles = self._module("org.apache.spark.resource.ResourceProfile$")
        profiles.clearDefaultProfile()
        return profiles.getOrCreateDefaultProfile(conf)

    def _profile(self, asked: Mapping[str, Any]) -> Any:
        requests = self._class("org.apache.spark.resource.ExecutorResourceRequests")()
        for method in ("cores", "memory", "memoryOverhead", "offHeapMemory", "pysparkMemory"):
            if method in asked:
                getattr(requests, method)(asked[method] if method == "cores" else f"{asked[method]}m")
        if "gpu" in asked:
            requests.resource("gpu", asked["gpu"], "", "nvidia.com")
        return self._class("org.apache.spark.resource.ResourceProfileBuilder")().require(requests).build()

    def _initial(self, conf: Any) -> int:
        backend = self._module("org.apache.spark.scheduler.cluster.SchedulerBackendUtils$")
        return int(backend.getInitialTargetExecutorNumber(conf, backend.DEFAULT_NUMBER_EXECUTORS()))

    def _ceiling(self, conf: Any) -> int | None:
        """``maxExecutors`` with dynamic allocation, ``None`` without."""
        if not self._module("org.apache.spark.util.Utils$").isDynamicAllocationEnabled(conf):
            return None
        entry = self._module("org.apache.spark.internal.config.package$").DYN_ALLOCATION_MAX_EXECUTORS()
        return int(conf.get(entry))

    def _properties_text(self, conf: Any) -> str:
        properties = self._jvm.java.util.Properties()
        for pair in conf.getAll():
            properties.setProperty(pair._1(), pair._2())
        writer = self._jvm.java.io.StringWriter()
        properties.store(writer, "Java properties built from Kubernetes config map with name: spark-drv")
        lines = str(writer.toString()).splitlines()
        return "\n".join(line for line in lines if not line.startswith("#")) + "\n"

    def _asked(self, question: Any) -> Any:
        try:
            return question()
        except Exception as error:
            return {"refused": _refusal(error)}

    def _class(self, name: str) -> Any:
        found = self._jvm
        for part in name.split("."):
            found = getattr(found, part)
        return found

    def _module(self, name: str) -> Any:
        return self._jvm.java.lang.Class.forName(name).getField("MODULE$").get(None)

    def _none(self) -> Any:
        return self._jvm.scala.Option.empty()

    def _pod(self) -> Any:
        return self._module("org.apache.spark.deploy.k8s.SparkPod$").initialPod()


@contextmanager
def started(home: Path) -> Iterator[RealSpark]:
    """A JVM on ``java`` of the PATH; it ends with the block."""
    client = next((home / "python" / "lib").glob("py4j-*-src.zip"))
    jar = next((home / "jars").glob("py4j-*.jar"))
    sys.path.insert(0, str(client))
    try:
        py4j = import_module("py4j.java_gateway")
    finally:
        sys.path.remove(str(client))
    port, token, process = py4j.launch_gateway(
        jarpath=str(jar),
        classpath=f"{home / 'jars'}/*",
        die_on_exit=True,
        enable_auth=True,
        redirect_stderr=subprocess.DEVNULL,
        return_proc=True,
    )
    parameters = py4j.GatewayParameters(port=port, auth_token=token)
    gateway = py4j.JavaGateway(gateway_parameters=parameters)
    try:
        yield RealSpark(gateway.jvm, gateway)
    finally:
        gateway.shutdown()
        process.stdin.close()
        process.wait(timeout=30)


def _container(pod: Any) -> dict[str, Any]:
    resources = pod.container().getResources()
    selector = dict(pod.pod().getSpec().getNodeSelector() or {})
    return ({"nodeSelector": selector} if selector else {}) | {
        "requests": {key: str(value) for key, value in (resources.getRequests() or {}).items()},
        "limits": {key: str(value) for key, value in (resources.getLimits() or {}).items()},
    }


def _scala_map(values: Any) -> dict[str, str]:
    pairs = values.iterator()
    found = {}
    while pairs.hasNext():
        pair = pairs.next()
        found[pair._1()] = pair._2()
    return found


def _refusal(error: Exception) -> str:
    cause = getattr(error, "java_exception", None)
    if cause is None:
        raise error
    return str(cause.getClass().getSimpleName())
