"""The archived scheduler's packers, word for word with loops: slow, and what the vectorised ones are held against."""

from __future__ import annotations

from dataclasses import dataclass

Vector = list[int]
MAX = 2**63 - 1


@dataclass
class Nodes:
    available: list[Vector]
    schedulable: list[Vector]
    zones: list[int]


Placement = tuple[int, list[int]]
"""The driver's node (-1: none) and one node per executor, in order."""


def exceeds(wanted: Vector, available: Vector) -> bool:
    return any(w > a for w, a in zip(wanted, available, strict=True))


def plus(*vectors: Vector) -> Vector:
    return [sum(amounts) for amounts in zip(*vectors, strict=True)]


def capacity(available: Vector, charged: Vector, required: Vector) -> int:
    result = MAX
    for a, c, r in zip(available, charged, required, strict=True):
        if c > a:
            return 0
        if r > 0:
            result = min(result, (a - c) // r)
    return result


def tightly(
    nodes: Nodes, charged: dict[int, Vector], executor: Vector, count: int, order: list[int]
) -> list[int] | None:
    placed: list[int] = []
    for node in order:
        while len(placed) < count and not exceeds(plus(charged.get(node, [0, 0, 0]), executor), nodes.available[node]):
            charged[node] = plus(charged.get(node, [0, 0, 0]), executor)
            placed.append(node)
    return placed if len(placed) == count else None


def evenly(
    nodes: Nodes, charged: dict[int, Vector], executor: Vector, count: int, order: list[int]
) -> list[int] | None:
    placed: list[int] = []
    left = list(order)
    while left and len(placed) < count:
        staying = []
        for node in left:
            if len(placed) == count:
                break
            wanted = plus(charged.get(node, [0, 0, 0]), executor)
            if not exceeds(wanted, nodes.available[node]):
                charged[node] = wanted
                placed.append(node)
                staying.append(node)
        left = staying
    return placed if len(placed) == count else None


def least_fragments(
    nodes: Nodes, charged: dict[int, Vector], executor: Vector, count: int, order: list[int]
) -> list[int] | None:
    sizes = [(capacity(nodes.available[n], charged.get(n, [0, 0, 0]), executor), n) for n in order]
    sizes = sorted((pair for pair in sizes if pair[0] > 0), key=lambda pair: pair[0])
    if not sizes:
        return None
    largest = sizes[-1][0]
    if count < largest:
        total = (count + largest + 2**63) % 2**64 - 2**63
        target = total // 2 if total >= 0 else -(-total // 2)
        placed = fill([pair for pair in sizes if pair[0] < target], count)
        if placed is not None:
            return placed
    return fill(sizes, count)


def fill(sizes: list[tuple[int, int]], count: int) -> list[int] | None:
    placed: list[int] = []
    while sizes:
        for size, node in sizes:
            if size >= count:
                return placed + [node] * count
        largest = sizes[-1][0]
        used = set()
        for size, node in sizes:
            if size == largest and count >= size:
                placed += [node] * size
                count -= size
                used.add(node)
        if count == 0:
            return placed
        sizes = [pair for pair in sizes if pair[1] not in used]
    return None


STRATEGIES = {"tightly": tightly, "evenly": evenly, "least": least_fragments}


def pack(
    strategy: str,
    nodes: Nodes,
    driver: Vector | None,
    executor: Vector,
    count: int,
    drivers: list[int],
    executors: list[int],
) -> Placement | None:
    for node in drivers if driver is not None else [-1]:
        charged: dict[int, Vector] = {}
        if driver is not None:
            if exceeds(driver, nodes.available[node]):
                continue
            charged[node] = list(driver)
        placed = [] if count == 0 else STRATEGIES[strategy](nodes, charged, executor, count, executors)
        if placed is not None:
            return node, placed
    return None


def pack_by_zone(
    strategy: str,
    nodes: Nodes,
    driver: Vector | None,
    executor: Vector,
    count: int,
    drivers: list[int],
    executors: list[int],
) -> Placement | None:
    best, best_efficiency = None, 0.0 if driver is not None else -1.0
    for zone in dict.fromkeys(nodes.zones[node] for node in (drivers if driver is not None else executors)):
        mine = [node for node in executors if nodes.zones[node] == zone]
        if not mine:
            continue
        hosts = [node for node in drivers if nodes.zones[node] == zone]
        placement = pack(strategy, nodes, driver, executor, count, hosts, mine)
        if placement is None:
            continue
        listed = ([placement[0]] if driver is not None else []) + placement[1]
        charged: dict[int, Vector] = {}
        if driver is not None:
            charged[placement[0]] = list(driver)
        for node in placement[1] if strategy != "least" or driver is None else []:
            charged[node] = plus(charged.get(node, [0, 0, 0]), executor)
        total = 0.0
        for node in listed:
            total += largest_share(nodes.available[node], nodes.schedulable[node], charged.get(node, [0, 0, 0]))
        efficiency = total / max(len(listed), 1)
        if efficiency > best_efficiency:
            best, best_efficiency = placement, efficiency
    return best


def largest_share(available: Vector, schedulable: Vector, charged: Vector) -> float:
    shares = []
    for dimension, unit in enumerate((1000, 1, 1)):
        used = schedulable[dimension] - available[dimension] + charged[dimension]
        whole_used = -(-used // unit) if used >= 0 else used // unit
        whole = -(-schedulable[dimension] // unit)
        shares.append(0.0 if dimension == 2 and schedulable[2] == 0 else whole_used / (whole or 1))
    return max(shares)
