"""The status of pods as a kubelet writes it. Pure; times are RFC 3339 texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from muster.cluster.resources import Resources
from muster.kube import objects as k

Object = dict[str, Any]

SIGTERM_EXIT_CODE = 143
SIGKILL_EXIT_CODE = 137


class ContainerEnd(msgspec.Struct, frozen=True):
    exit_code: int
    finished: str
    message: str = ""


def waiting(pod_containers: Iterable[tuple[str, str]], reason: str, message: str, host_ip: str) -> Object:
    """Pending while its volumes or its process are made."""
    state = {"waiting": {"reason": reason} | ({"message": message} if message else {})}
    return {
        "phase": "Pending",
        "hostIP": host_ip,
        "conditions": [_condition("PodScheduled", True)],
        "containerStatuses": [_container(name, image, state, ready=False) for name, image in pod_containers],
    }


def running(pod_containers: Iterable[tuple[str, str]], pod_ip: str, host_ip: str, started: str) -> Object:
    """Running and Ready."""
    state = {"running": {"startedAt": started}}
    return {
        "phase": "Running",
        "podIP": pod_ip,
        "podIPs": [{"ip": pod_ip}],
        "hostIP": host_ip,
        "startTime": started,
        "conditions": [
            _condition("PodScheduled", True),
            _condition("Initialized", True, started),
            _condition("ContainersReady", True, started),
            _condition("Ready", True, started),
        ],
        "containerStatuses": [_container(name, image, state, ready=True) for name, image in pod_containers],
    }


def ended(pod_containers: Iterable[tuple[str, str]], ends: dict[str, ContainerEnd], started: str) -> Object:
    """Succeeded when every container ended with 0, else Failed."""
    statuses = []
    for name, image in pod_containers:
        end = ends[name]
        terminated: Object = {
            "exitCode": end.exit_code,
            "reason": "Completed" if end.exit_code == 0 else "Error",
            "startedAt": started,
            "finishedAt": end.finished,
        }
        if end.message:
            terminated["message"] = end.message
        statuses.append(_container(name, image, {"terminated": terminated}, ready=False))
    succeeded = all(end.exit_code == 0 for end in ends.values())
    reason = "PodCompleted" if succeeded else "PodFailed"
    finished = max((end.finished for end in ends.values()), default=started)
    return {
        "phase": "Succeeded" if succeeded else "Failed",
        "conditions": [
            _condition("ContainersReady", False, finished, reason),
            _condition("Ready", False, finished, reason),
        ],
        "containerStatuses": statuses,
    }


def rejected(reason: str, message: str, at: str) -> Object:
    """Refused at the node's door (kubelet ``rejectPod``): no container ever existed."""
    return {"phase": "Failed", "reason": reason, "message": f"Pod was rejected: {message}", "startTime": at}


def containers_of(pod: k.Pod) -> list[tuple[str, str]]:
    """Names of the containers; slim pods do not know the images."""
    return [(container.name, "") for container in pod.spec.containers or ()]


def requests_of(pod: k.Pod) -> Resources:
    """What the pod takes from its node, itself (1 of ``pods``) included (kubelet and kube-scheduler ``PodRequests``).

    Pod-level resources and in-place resize are left out: nothing in this cluster makes them.
    """
    total, initial = Resources(), Resources()
    for container in pod.spec.containers or ():
        total += Resources.parse(container.resources.requests)
    for container in pod.spec.init_containers:
        asked = Resources.parse(container.resources.requests)
        if container.restart_policy == "Always":
            total += asked
            initial += asked
        else:
            total = total.largest(initial + asked)
    return total + Resources.parse(pod.spec.overhead) + Resources.of(pods=1)


def _condition(kind: str, holds: bool, since: str = "", reason: str = "") -> Object:
    """Without ``since`` the time that is already there is kept (strategic merge by type)."""
    condition: Object = {"type": kind, "status": "True" if holds else "False"}
    if since:
        condition["lastTransitionTime"] = since
    if reason:
        condition["reason"] = reason
    return condition


def _container(name: str, image: str, state: Object, ready: bool) -> Object:
    return {
        "name": name,
        "image": image,
        "imageID": "",
        "ready": ready,
        "started": ready,
        "restartCount": 0,
        "state": state,
    }
