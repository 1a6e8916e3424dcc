"""Seeded configurations of Spark applications, good and bad ones: what the real Spark is asked about."""

from __future__ import annotations

import random
from typing import Any

import msgspec

SEED = 20261122
COUNT = 240


class Case(msgspec.Struct, frozen=True):
    name: str
    conf: dict[str, str]
    language: str = "java"
    """``java``, ``python`` or ``r``: what the main resource is."""
    profile: dict[str, Any] | None = None
    """Requests of a second resource profile: cores, gpu; memory, … in MiB."""


NOTABLE = [
    Case("nothing said", {}),
    Case("python, nothing said", {}, "python"),
    Case("r, nothing said", {}, "r"),
    Case("python with its own factor", {"spark.kubernetes.memoryOverheadFactor": "0.15"}, "python"),
    Case(
        "the executor's factor wins",
        {
            "spark.kubernetes.memoryOverheadFactor": "0.2",
            "spark.executor.memoryOverheadFactor": "0.3",
            "spark.executor.memory": "8g",
        },
    ),
    Case(
        "the driver's factor wins",
        {
            "spark.kubernetes.memoryOverheadFactor": "0.2",
            "spark.driver.memoryOverheadFactor": "0.3",
            "spark.driver.memory": "8g",
        },
        "python",
    ),
    Case(
        "overhead under its YARN name",
        {"spark.yarn.executor.memoryOverhead": "2048", "spark.yarn.driver.memoryOverhead": "1024"},
    ),
    Case(
        "both names of overhead", {"spark.yarn.executor.memoryOverhead": "2048", "spark.executor.memoryOverhead": "1g"}
    ),
    Case("minimum raised", {"spark.executor.minMemoryOverhead": "1g", "spark.driver.minMemoryOverhead": "2g"}),
    Case("minimum of nothing", {"spark.executor.minMemoryOverhead": "0", "spark.driver.minMemoryOverhead": "0"}),
    Case("off-heap without being enabled", {"spark.memory.offHeap.size": "4g"}),
    Case("off-heap under its old name", {"spark.memory.offHeap.size": "4g", "spark.unsafe.offHeap": "true"}),
    Case("off-heap in odd bytes", {"spark.memory.offHeap.size": "1500000k", "spark.memory.offHeap.enabled": "TRUE"}),
    Case("off-heap enabled without a size", {"spark.memory.offHeap.enabled": "true"}),
    Case("off-heap of less than a MiB", {"spark.memory.offHeap.enabled": "true", "spark.memory.offHeap.size": "1000k"}),
    Case("pyspark memory of a jvm application", {"spark.executor.pyspark.memory": "1g"}),
    Case("pyspark memory", {"spark.executor.pyspark.memory": "1g", "spark.executor.memory": "8g"}, "python"),
    Case("pyspark memory of r", {"spark.executor.pyspark.memory": "1g"}, "r"),
    Case(
        "profile with a heap alone",
        {"spark.executor.memory": "1g", "spark.executor.memoryOverheadFactor": "0.5"},
        profile={"memory": 16384},
    ),
    Case(
        "profile ignores request.cores",
        {
            "spark.kubernetes.executor.request.cores": "3500m",
            "spark.kubernetes.executor.limit.cores": "4",
            "spark.executor.cores": "4",
        },
        profile={"cores": 2},
    ),
    Case("profile with off-heap while disabled", {}, profile={"offHeapMemory": 2048}),
    Case(
        "profile of nothing but a gpu",
        {"spark.executor.resource.gpu.amount": "2", "spark.executor.resource.gpu.vendor": "amd.com"},
        profile={"gpu": 1},
    ),
    Case(
        "two devices",
        {
            "spark.executor.resource.gpu.amount": "1",
            "spark.executor.resource.gpu.vendor": "nvidia.com",
            "spark.executor.resource.fpga.amount": "3",
            "spark.executor.resource.fpga.vendor": "xilinx.com",
        },
    ),
    Case("device without a vendor", {"spark.executor.resource.gpu.amount": "1"}),
    Case("driver device without a vendor", {"spark.driver.resource.gpu.amount": "1"}),
    Case(
        "no device after all",
        {
            "spark.executor.resource.gpu.amount": "0",
            "spark.executor.resource.gpu.vendor": "nvidia.com",
            "spark.driver.resource.gpu.amount": "0",
        },
    ),
    Case("device without an amount", {"spark.executor.resource.gpu.vendor": "nvidia.com"}),
    Case(
        "reference to another property",
        {"spark.executor.memory": "${spark.driver.memory}", "spark.driver.memory": "3g"},
    ),
    Case(
        "reference within a reference",
        {"spark.executor.memory": "${spark.mine}", "spark.mine": "${spark.other}g", "spark.other": "5"},
    ),
    Case("reference to nothing", {"spark.executor.memory": "${spark.absent}"}),
    Case("bare numbers are mebibytes", {"spark.executor.memory": "2048", "spark.driver.memory": "3000"}),
    Case("capital units", {"spark.executor.memory": "2G", "spark.driver.memory": "3000MB"}),
    Case("binary units", {"spark.executor.memory": "2Gi", "spark.driver.memory": "2GiB"}),
    Case("binary units of executors", {"spark.executor.memory": "2Gi"}),
    Case("kibibytes are cut", {"spark.executor.memory": "2000000k", "spark.driver.memory": "1999999kb"}),
    Case("bytes", {"spark.executor.memory": "2147483648b"}),
    Case("terabytes", {"spark.executor.memory": "2t"}),
    Case("fractional gigabytes", {"spark.executor.memory": "1.5g"}),
    Case("unit with a blank", {"spark.executor.memory": "4 g"}),
    Case("unknown unit", {"spark.executor.memory": "4x"}),
    Case("empty memory", {"spark.executor.memory": ""}),
    Case("too many digits", {"spark.executor.memory": "99999999999999999999g"}),
    Case("fractional cores", {"spark.executor.cores": "1.5"}),
    Case("cores with a plus", {"spark.executor.cores": "+3", "spark.executor.instances": " 4 "}),
    Case("cores beyond 32 bits", {"spark.executor.cores": "2147483648"}),
    Case("factor of zero", {"spark.executor.memoryOverheadFactor": "0"}),
    Case("negative factor", {"spark.executor.memoryOverheadFactor": "-0.1"}),
    Case(
        "factor in scientific notation",
        {"spark.executor.memoryOverheadFactor": "2.5e-1", "spark.executor.memory": "10g"},
    ),
    Case("factor with java's suffix", {"spark.executor.memoryOverheadFactor": ".25f", "spark.executor.memory": "10g"}),
    Case("factor that is no number", {"spark.executor.memoryOverheadFactor": "10%"}),
    Case("enormous factor", {"spark.executor.memoryOverheadFactor": "1e9"}),
    Case(
        "node selectors",
        {
            "spark.kubernetes.executor.node.selector.disk": "ssd",
            "spark.kubernetes.driver.node.selector.disk": "none",
            "spark.kubernetes.node.selector.disk": "any",
            "spark.kubernetes.node.selector.example.com/pool": "etl",
        },
    ),
    Case("static with instances", {"spark.executor.instances": "7"}),
    Case("instances that are no number", {"spark.executor.instances": "many"}),
    Case("fractional instances", {"spark.executor.instances": "2.0"}),
    Case("dynamic, nothing else said", {"spark.dynamicAllocation.enabled": "true"}),
    Case("dynamic, minimum", {"spark.dynamicAllocation.enabled": "true", "spark.dynamicAllocation.minExecutors": "3"}),
    Case(
        "dynamic, initial below minimum",
        {
            "spark.dynamicAllocation.enabled": "true",
            "spark.dynamicAllocation.minExecutors": "3",
            "spark.dynamicAllocation.initialExecutors": "2",
        },
    ),
    Case(
        "dynamic, instances above initial",
        {
            "spark.dynamicAllocation.enabled": "true",
            "spark.executor.instances": "9",
            "spark.dynamicAllocation.initialExecutors": "2",
        },
    ),
    Case(
        "dynamic, initial above maximum",
        {
            "spark.dynamicAllocation.enabled": "true",
            "spark.dynamicAllocation.initialExecutors": "9",
            "spark.dynamicAllocation.maxExecutors": "4",
        },
    ),
    Case(
        "dynamic written otherwise",
        {"spark.dynamicAllocation.enabled": " True ", "spark.dynamicAllocation.minExecutors": "3"},
    ),
    Case("dynamic that is no boolean", {"spark.dynamicAllocation.enabled": "yes"}),
]


def generated(seed: int = SEED, count: int = COUNT) -> list[Case]:
    """The notable ones, and ``count`` drawn at random."""
    draw = random.Random(seed)
    return [*NOTABLE, *(_drawn(draw, f"drawn {number}") for number in range(count))]


def _drawn(draw: random.Random, name: str) -> Case:
    conf: dict[str, str] = {}

    def maybe(key: str, probability: float, value: str) -> None:
        if draw.random() < probability:
            conf[key] = value

    for role in ("driver", "executor"):
        maybe(f"spark.{role}.memory", 0.8, _size(draw, 1, 200_000))
        maybe(f"spark.{role}.memoryOverhead", 0.25, _size(draw, 0, 20_000))
        maybe(f"spark.{role}.memoryOverheadFactor", 0.35, _factor(draw))
        maybe(f"spark.{role}.minMemoryOverhead", 0.25, _size(draw, 0, 3000))
        maybe(f"spark.{role}.cores", 0.6, str(draw.randint(1, 64)))
        maybe(f"spark.kubernetes.{role}.request.cores", 0.3, _cores(draw))
        maybe(f"spark.kubernetes.{role}.limit.cores", 0.3, _cores(draw))
        for device, vendor in (("gpu", "nvidia.com"), ("fpga", "xilinx.com")):
            if draw.random() < 0.15:
                conf[f"spark.{role}.resource.{device}.amount"] = str(draw.randint(0, 8))
                conf[f"spark.{role}.resource.{device}.vendor"] = vendor
    maybe("spark.kubernetes.memoryOverheadFactor", 0.35, _factor(draw))
    maybe("spark.memory.offHeap.enabled", 0.4, draw.choice(["true", "true", "false"]))
    maybe("spark.memory.offHeap.size", 0.7, draw.choice([_size(draw, 1, 30_000), str(draw.randint(1, 2**36))]))
    maybe("spark.executor.pyspark.memory", 0.35, _size(draw, 0, 8000))
    maybe("spark.yarn.executor.memoryOverhead", 0.1, str(draw.randint(100, 9000)))
    maybe("spark.executor.instances", 0.5, str(draw.randint(0, 400)))
    maybe("spark.dynamicAllocation.enabled", 0.5, draw.choice(["true", "true", "false"]))
    maybe("spark.dynamicAllocation.minExecutors", 0.4, str(draw.randint(0, 100)))
    maybe("spark.dynamicAllocation.initialExecutors", 0.4, str(draw.randint(0, 200)))
    maybe("spark.dynamicAllocation.maxExecutors", 0.3, str(draw.choice([draw.randint(50, 900), 2**31 - 1])))
    return Case(name, conf, draw.choice(["java", "java", "python", "r"]), _profile(draw))


def _profile(draw: random.Random) -> dict[str, Any] | None:
    if draw.random() < 0.4:
        return None
    asked = {
        "cores": draw.randint(1, 32),
        "gpu": draw.randint(1, 8),
        "memory": draw.randint(512, 64_000),
        "memoryOverhead": draw.randint(1, 9000),
        "offHeapMemory": draw.randint(1, 9000),
        "pysparkMemory": draw.randint(1, 9000),
    }
    kept = {key: value for key, value in asked.items() if draw.random() < 0.5}
    return kept or {"cores": asked["cores"]}


def _size(draw: random.Random, low: int, high: int) -> str:
    """A size between ``low`` and ``high`` MiB in one of Spark's notations."""
    mebibytes = draw.randint(low, high)
    return draw.choice(
        [
            f"{mebibytes}m",
            f"{mebibytes}",
            f"{mebibytes}M",
            f"{mebibytes}mb",
            f"{mebibytes * 1024 + draw.randint(0, 1023)}k",
            f"{max(1, mebibytes // 1024)}g",
            f"{max(1, mebibytes // 1024)}GB",
        ]
    )


def _factor(draw: random.Random) -> str:
    return draw.choice(
        ["0.05", "0.1", "0.2", "0.3", "0.4", "0.55", "0.7", "1.0", "1e-2", f"{draw.random() + 0.001:.6f}"]
    )


def _cores(draw: random.Random) -> str:
    return draw.choice([f"{draw.randint(1, 64)}", f"{draw.randint(1, 64_000)}m", f"{draw.randint(1, 160) / 10}"])
