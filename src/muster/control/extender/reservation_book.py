"""Which reservation objects there should be: one per gang whose driver was answered, in step with what it holds."""

from __future__ import annotations

import msgspec

from muster.control.extender import pods, reconcile
from muster.control.extender.known import KnownApplication
from muster.control.extender.projection import Picture, in_rounds, node_by_node
from muster.control.extender.reservations import ResourceReservation, new_reservation
from muster.control.extender.stores import Store
from muster.kube.objects import Pod
from muster.packing import Packer
from muster.scheduling.model import Holding
from muster.scheduling.scheduler import Scheduler


class Written(msgspec.Struct, frozen=True):
    """What a look at an application's reservation came to."""

    created: ResourceReservation | None = None
    """When it was made now."""
    first_bind: ResourceReservation | None = None
    """When the executor that was asked about took a slot that none had before."""


_NOTHING = Written()


class ReservationBook:
    """Keeps ``store`` in step with ``scheduler``, in time that depends on what changed alone.

    ``packer``: in whose order the slots of a new reservation are. ``validate``: compare with a picture that is made
    anew, each time.
    """

    def __init__(
        self, store: Store[ResourceReservation], scheduler: Scheduler, packer: Packer, *, validate: bool = False
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._in_order = in_rounds if packer.name == "distribute-evenly" else node_by_node
        self._validate = validate

    def of(self, namespace: str, app_id: str, driver: Pod) -> ResourceReservation | None:
        """The reservation of this very driver."""
        found = self._store.get(namespace, app_id)
        return found if found is not None and reconcile.belongs_to(found, driver) else None

    def write(self, application: KnownApplication, *, answered: bool = False, asked: str = "") -> Written:
        """Bring the application's reservation in line.

        Nothing is written for drivers that nobody has asked about, unless they run; ``answered``: somebody has just
        now. ``asked``: the executor that was answered.
        """
        driver, read, sized = application.driver, application.read, application.sized
        if driver is None or read is None or sized is None:
            return _NOTHING
        previous = self._store.get(application.namespace, application.app_id)
        if previous is not None and not reconcile.belongs_to(previous, driver):
            self._store.delete(application.namespace, application.app_id)
            previous = None
        if previous is None and not answered and not driver.spec.node_name:
            return _NOTHING
        changes = self._scheduler.changes(application.key)
        if changes is None:
            return _NOTHING
        base, picture = previous, application.picture
        if base is None or picture is None or not picture.is_on(base):
            changes = changes if changes.whole else self._whole(application)
            base = base if base is not None else self._new(application, driver, read, sized.minimum, changes)
            picture = application.picture = Picture(base)
        picture.follow(changes, sized.minimum, read.executor, ended=application.ended, asked=asked)
        changed = base if picture.is_on(base) else picture.on(base)
        if self._validate:
            self._compare(changed, application, sized.minimum, read)
        if previous is None:
            self._store.create(changed)
            return Written(created=changed)
        if changed is previous:
            return _NOTHING
        self._store.update(changed)
        slot = picture.slot_of(asked)
        return Written(first_bind=changed if slot is not None and not previous.status.pods.get(slot) else None)

    def _whole(self, application: KnownApplication) -> Holding:
        holding = self._scheduler.holding(application.key)
        assert holding is not None, "it holds something, since changes of that were told"
        return holding

    def _new(
        self, application: KnownApplication, driver: Pod, read: pods.Application, minimum: int, holding: Holding
    ) -> ResourceReservation:
        filled = minimum - sum(slot.count for slot in holding.unfilled) - holding.owed
        nodes = [node for _, node in holding.executors][:filled] + self._in_order(holding.unfilled)
        return new_reservation(driver, application.app_id, holding.driver_node, nodes, read.driver, read.executor)

    def _compare(
        self, written: ResourceReservation, application: KnownApplication, minimum: int, read: pods.Application
    ) -> None:
        anew = Picture(written)
        anew.follow(self._whole(application), minimum, read.executor, ended=application.ended)
        assert anew.on(written) == written, f"the reservation of {application.key} is not what is held"
        assert anew.soft == application.soft, f"executors above the minimum of {application.key}"
