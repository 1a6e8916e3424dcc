"""What the archived scheduler reads of a pod: application, instance group, sizes, and what counts as over. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from muster.cluster import quantity
from muster.cluster.resources import CPU, GPU, MEMORY
from muster.kube.objects import Pod, PodSpec
from muster.spark import names
from muster.spark.annotations import read_archived_sizes
from muster.spark.gang import ApplicationSizes

DEFAULT_INSTANCE_GROUP_LABEL = "resource_channel"

Quantities = dict[str, str]
"""Canonical Kubernetes quantities of cpu, memory and nvidia.com/gpu; all three are always there."""


class Application(msgspec.Struct, frozen=True):
    """What a driver's annotations say, for the scheduler (``sizes``) and as it is written into custom resources."""

    sizes: ApplicationSizes
    driver: Quantities
    executor: Quantities


def application_of(pod: Pod) -> Application:
    """The application of a driver pod.

    Raises:
        InvalidSizeError: in the archived scheduler's words, which the extender's answer repeats after
            ``failed to get spark resources: ``.
    """
    annotations = pod.metadata.annotations
    return Application(
        sizes=read_archived_sizes(annotations),
        driver=_quantities(
            annotations, names.ARCHIVED_DRIVER_CPU, names.ARCHIVED_DRIVER_MEMORY, names.ARCHIVED_DRIVER_GPU
        ),
        executor=_quantities(
            annotations, names.ARCHIVED_EXECUTOR_CPU, names.ARCHIVED_EXECUTOR_MEMORY, names.ARCHIVED_EXECUTOR_GPU
        ),
    )


def application_id(pod: Pod) -> str:
    """The label ``spark-app-id``, which the user sets, else Spark's own ``spark-app-selector``; "" for neither."""
    labels = pod.metadata.labels
    return labels.get(names.ARCHIVED_APP_ID_LABEL, "") or labels.get(names.SPARK_APP_SELECTOR_LABEL, "")


def instance_group(spec: PodSpec, label: str = DEFAULT_INSTANCE_GROUP_LABEL) -> str | None:
    """The group of nodes a pod is meant for, ``None`` when it names none.

    The first expression of its required node affinity, over all terms, with this key and exactly one value, whatever
    the operator (the archived scheduler did not look at it); else its node selector.
    """
    affinity = spec.affinity.node_affinity if spec.affinity else None
    for term in affinity.required.node_selector_terms if affinity and affinity.required else ():
        for expression in term.match_expressions:
            if expression.key == label and len(expression.values) == 1:
                return expression.values[0]
    return spec.node_selector.get(label)


def is_terminated(pod: Pod) -> bool:
    """Whether its slot is free for another: ended, or every container has.

    The archived scheduler asked the containers alone, so an evicted executor (phase ``Failed``, no container statuses)
    kept its slot until somebody deleted it.
    """
    statuses = pod.status.container_statuses
    return pod.status.phase in ("Succeeded", "Failed") or (
        bool(statuses) and all(status.state.terminated is not None for status in statuses)
    )


def is_scheduled(pod: Pod) -> bool:
    """Whether kube-scheduler says so (condition ``PodScheduled``); a node name may be there earlier."""
    return scheduled_at(pod) is not None


def scheduled_at(pod: Pod) -> str | None:
    """When the condition ``PodScheduled`` became true, an RFC 3339 time; "" when that is not said."""
    return condition_time(pod, "PodScheduled")


def condition_time(pod: Pod, kind: str) -> str | None:
    """When this condition became true; ``None`` while it is not."""
    for condition in pod.status.conditions:
        if condition.type == kind and condition.status == "True":
            return condition.last_transition_time or ""
    return None


def _quantities(annotations: Mapping[str, str], cpu: str, memory: str, gpu: str) -> Quantities:
    """Go writes a quantity in the canonical form of the notation it was read in: ``1024Mi`` is ``1Gi``, not ``1G``."""
    texts = {CPU: annotations[cpu], MEMORY: annotations[memory], GPU: annotations.get(gpu, "0")}
    return {name: str(quantity.parse(text)) for name, text in texts.items()}
