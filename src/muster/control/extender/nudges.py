"""Pods that were refused, and may be placed by now: kube-scheduler is made to ask about them again.

kube-scheduler tries a refused pod again after the next event in the cluster, or after five minutes. It may have asked
because of an event that had not reached us yet, and some of what lets a pod go is no event at all (age, a gang that
gave its room back). Then nobody asks, though there is room. So in a quiet moment the pod is touched, once. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from muster.control.extender.known import PodId

QUIET = 3.0
"""Seconds without any call, after which nobody is about to ask: where there is traffic there are events, too."""


class Nudges:
    """``nudge`` is called with a pod that should be asked about again."""

    def __init__(self, nudge: Callable[[PodId], None]) -> None:
        self._nudge = nudge
        self._refused: dict[PodId, int] = {}
        """Refused pods, with the count of changes in the cluster by then."""

    def __len__(self) -> int:
        return len(self._refused)

    def answered(self, pod_id: PodId, placed: bool, changes: int) -> None:
        """A call about this pod was answered; ``changes``: how much has happened in the cluster so far."""
        if placed:
            self._refused.pop(pod_id, None)
        else:
            self._refused[pod_id] = changes

    def forget(self, pod_id: PodId) -> None:
        self._refused.pop(pod_id, None)

    def look(self, since_last_call: float, changes: int, may_go: Callable[[PodId], bool | None]) -> None:
        """Time has passed. ``may_go``: whether a pod has its place by now; ``None`` where only asking tells."""
        if since_last_call < QUIET:
            return
        for pod_id, then in list(self._refused.items()):
            goes = may_go(pod_id)
            if goes or (goes is None and changes != then):
                del self._refused[pod_id]
                self._nudge(pod_id)
