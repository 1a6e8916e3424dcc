"""On which nodes the configuration lets Spark's pods run."""

from __future__ import annotations

from collections.abc import Mapping

from muster.spark.names import SPARK_ROLE_DRIVER, SPARK_ROLE_EXECUTOR

_COMMON = "spark.kubernetes.node.selector."


def driver_node_selector(properties: Mapping[str, str]) -> dict[str, str]:
    """The driver pod's ``nodeSelector`` (``BasicDriverFeatureStep``), but for what a pod template adds."""
    return _node_selector(properties, SPARK_ROLE_DRIVER)


def executor_node_selector(properties: Mapping[str, str]) -> dict[str, str]:
    """An executor pod's ``nodeSelector`` (``BasicExecutorFeatureStep``), but for what a pod template adds."""
    return _node_selector(properties, SPARK_ROLE_EXECUTOR)


def _node_selector(properties: Mapping[str, str], role: str) -> dict[str, str]:
    """Labels by name; the role's own win over those for both roles."""
    selector: dict[str, str] = {}
    for prefix in (_COMMON, f"spark.kubernetes.{role}.node.selector."):
        selector |= {key.removeprefix(prefix): value for key, value in properties.items() if key.startswith(prefix)}
    return selector
