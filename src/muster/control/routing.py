"""Which queue a driver's application goes to: from the pod to what the rules look at. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from muster.control.identity import groups_of, user_of
from muster.kube import objects as k
from muster.queueing.rules import Rule, Submission, queue_of
from muster.scheduling.model import Application, ApplicationKey

LONGEST_NAME = 253
"""Of a queue, as of every object. A longer one is cut, so that a ``Gang`` can hold it; no queue has it."""


def submission_of(driver: k.Pod) -> Submission:
    """What is known of a driver and of who created it."""
    meta = driver.metadata
    return Submission(
        namespace=meta.namespace,
        service_account=driver.spec.service_account_name,
        user=user_of(meta.annotations),
        groups=groups_of(meta.annotations),
        labels=meta.labels,
        annotations=meta.annotations,
    )


def routed(submission: Submission, rules: Sequence[Rule]) -> str:
    """The name of its queue, whether there is one of that name or not."""
    return queue_of(submission, rules)[:LONGEST_NAME]


class Routes:
    """The applications that wait, so that new rules hold for them too. One that has started stays in its queue."""

    def __init__(self) -> None:
        self._submissions: dict[ApplicationKey, Submission] = {}
        self._waiting: dict[ApplicationKey, Application] = {}

    def seen(self, key: ApplicationKey, driver: k.Pod) -> None:
        """The driver of an application that is about to be found."""
        self._submissions[key] = submission_of(driver)

    def found(self, application: Application, rules: Sequence[Rule]) -> Application:
        """The application in its queue; remembered while it waits."""
        submission = self._submissions.get(application.key)
        if submission is None:
            return application
        self._waiting[application.key] = application = _sent(application, submission, rules)
        return application

    def settled(self, key: ApplicationKey) -> None:
        """It has started, or there is nothing to wait for."""
        self._submissions.pop(key, None)
        self._waiting.pop(key, None)

    def rerouted(self, rules: Sequence[Rule]) -> list[Application]:
        """Those that go to another queue by these rules, in their new one."""
        moved = []
        for key, application in self._waiting.items():
            now = _sent(application, self._submissions[key], rules)
            if now != application:
                moved.append(now)
        self._waiting.update({application.key: application for application in moved})
        return moved


def _sent(application: Application, submission: Submission, rules: Sequence[Rule]) -> Application:
    known = msgspec.structs.replace(submission, user=application.user, groups=application.groups)
    return msgspec.structs.replace(application, queue=routed(known, rules))
