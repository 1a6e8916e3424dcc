"""Whether an application would fit a cluster on which nothing else of ours runs, for the unschedulable marker. Pure."""

from __future__ import annotations

from muster.cluster.nodes import NodeTable
from muster.packing import Gang, Packer
from muster.scheduling.model import Application


def exceeds(application: Application, table: NodeTable, packer: Packer) -> bool:
    """Packed on all nodes that match the driver's selector and affinity, Ready or not, less what other pods hold."""
    driver, executor = application.driver, application.executor
    assert driver is not None, "in this mode every application has a driver pod"
    order = table.order(table.matching(driver.constraints), None)
    question = Gang(
        available=table.schedulable,
        schedulable=table.schedulable,
        driver=table.vector(driver.requests),
        executor=table.vector(executor.requests),
        count=application.minimum,
        driver_order=order,
        executor_order=order,
        zones=table.zones,
    )
    return packer.pack(question) is None
