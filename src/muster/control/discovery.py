"""Finding out how large an application is: annotations, else the driver's ConfigMap, which appears after the pod."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from muster.cluster.constraints import PodConstraints, pool_of
from muster.control.facts import config_map_of, constraints_of, pod_from, pod_ref
from muster.control.identity import groups_of, user_of
from muster.control.routing import routed, submission_of
from muster.kube import kinds
from muster.kube import objects as k
from muster.kube.client import Client
from muster.kube.errors import ApiError
from muster.queueing.rules import Rule
from muster.scheduling.events import ApplicationInvalid
from muster.scheduling.model import Application, ApplicationKey, PodShape
from muster.spark import names
from muster.spark.annotations import annotation_sizes, application_sizes, archived_sizes, require_agreement
from muster.spark.errors import InvalidSizeError, SparkConfigurationError
from muster.spark.node_selectors import executor_node_selector
from muster.spark.properties import read_properties
from muster.spark.run_time import expected_run_seconds

_log = structlog.get_logger("muster.discovery")

Finding = Application | ApplicationInvalid

FIRST_LOOK = 0.2
"""Seconds: Spark creates the ConfigMap right after the pod, in about a second."""
LONGEST_LOOK = 5.0
AT_ONCE = 64
"""ConfigMaps asked for at a time; after a restart there may be thousands."""


class Discovery:
    """One task per driver whose sizes are looked for."""

    def __init__(
        self,
        client: Client,
        clock: Callable[[], float],
        *,
        timeout: float,
        pool_label: str,
        scheduler_names: frozenset[str],
        rules: Callable[[], Sequence[Rule]] = tuple,
    ) -> None:
        self._client = client
        self._clock = clock
        self._timeout = timeout
        self._pool_label = pool_label
        self._scheduler_names = scheduler_names
        self._rules = rules
        self._tasks: dict[ApplicationKey, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    def start(self, driver: k.Pod, key: ApplicationKey, found: Callable[[Finding], None]) -> None:
        """Look for the sizes of ``driver``'s application; ``found`` is called once, unless cancelled before."""
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._find(driver, key, found), name=f"sizes of {key}")

    def cancel(self, key: ApplicationKey) -> None:
        """The driver is gone."""
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        self._tasks.clear()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _find(self, driver: k.Pod, key: ApplicationKey, found: Callable[[Finding], None]) -> None:
        try:
            text = await self._configuration(driver)
            finding: Finding = application_of(driver, text, self._pool_label, self._scheduler_names, self._rules())
        except SparkConfigurationError as error:
            finding = ApplicationInvalid(self._clock(), key, pod_ref(driver), error.reason, error.message)
        self._tasks.pop(key, None)
        found(finding)

    async def _configuration(self, driver: k.Pod) -> str | None:
        """The text of ``spark.properties``; ``None`` when annotations say it all and there is no ConfigMap to read."""
        name = config_map_of(driver)
        annotated = annotation_sizes(driver.metadata.annotations) is not None
        if not name:
            if annotated:
                return None
            raise ConfigurationMissing(
                f"the driver mounts no volume {names.DRIVER_CONF_VOLUME} and has no annotations that give its sizes"
            )
        begun, wait = self._clock(), FIRST_LOOK
        while True:
            try:
                async with self._turns:
                    config_map = await self._client.get(kinds.CONFIG_MAPS, name, driver.metadata.namespace)
                return config_map.data.get(names.PROPERTIES_KEY, "")
            except ApiError as error:
                problem = f"did not appear within {self._timeout:g} s: was the submitter killed?"
                if not error.not_found:
                    _log.warning("ConfigMap not read", config_map=name, error=str(error))
                    problem = f"could not be read for {self._timeout:g} s: {error}"
                if error.transient:
                    begun = self._clock()  # who could not ask has not waited: the submitter could not write either
            if annotated:
                return None
            if self._clock() - begun >= self._timeout:
                raise ConfigurationMissing(f"ConfigMap {name} {problem}")
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, LONGEST_LOOK)


class ConfigurationMissing(SparkConfigurationError):
    """There is nothing to read sizes from."""

    reason = "ConfigMapMissing"


def application_of(
    driver: k.Pod,
    properties_text: str | None,
    pool_label: str,
    scheduler_names: frozenset[str],
    rules: Sequence[Rule] = (),
) -> Application:
    """The application of a driver pod, from its annotations and the text of its ``spark.properties``. Pure.

    Muster's own annotations override the configuration; the archived scheduler's must agree with it. The driver's size
    is that of its pod, which is the truth. Raises ``SparkConfigurationError``.
    """
    labels, annotations = driver.metadata.labels, driver.metadata.annotations
    properties: Mapping[str, str] = {}
    if properties_text is None:
        sizes = annotation_sizes(annotations)
        if sizes is None:
            raise ConfigurationMissing("neither annotations nor a spark.properties give the sizes")
    else:
        properties = read_properties(properties_text)
        version = labels.get(names.SPARK_VERSION_LABEL, "")
        sizes = application_sizes(properties, version, annotations)
        archived = archived_sizes(annotations)
        if archived is not None:
            require_agreement("the annotations spark-…", archived, "spark.properties", sizes)
    pod = pod_from(driver, scheduler_names=scheduler_names)
    return Application(
        key=pod.application,
        name=labels.get(names.SPARK_APP_NAME_LABEL) or driver.metadata.name,
        created=pod.created,
        driver=PodShape(pod.requests, pod.constraints),
        executor=PodShape(sizes.executor.requests, executor_constraints(constraints_of(driver.spec), properties)),
        minimum=sizes.minimum,
        maximum=sizes.maximum,
        driver_pod=pod_ref(driver),
        queue=routed(submission_of(driver), rules),
        pool=pool_of(pod.constraints, pool_label),
        user=user_of(annotations),
        groups=groups_of(annotations),
        priority=driver.spec.priority,
        run_seconds=_run_seconds(driver),
    )


def _run_seconds(driver: k.Pod) -> float | None:
    """An estimate that cannot be read is none: nothing depends on it but how well others are planned around it."""
    try:
        return expected_run_seconds(driver.metadata.annotations)
    except InvalidSizeError as error:
        _log.warning("run time not known", driver=driver.metadata.name, reason=error.message)
        return None


def executor_constraints(driver: PodConstraints, properties: Mapping[str, str]) -> PodConstraints:
    """Where executors may run, as far as it can be known before the first one is seen.

    Node selectors are in the configuration. Tolerations and affinity can only come from a pod template, which is
    not readable; the driver's usually is the same one, so the driver's are taken.
    """
    selector = executor_node_selector(properties) if properties else dict(driver.node_selector)
    return PodConstraints(tuple(sorted(selector.items())), driver.terms, driver.tolerations)
