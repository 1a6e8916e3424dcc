"""A PySpark job that shuffles, writes ``<folder>/shuffled``, waits for ``<folder>/go``, and reads its shuffle again."""

import sys
import time
from pathlib import Path

from pyspark import SparkContext


def keyed(number: int) -> tuple[int, int]:
    time.sleep(1.5)  # so that dynamic allocation grows, and every executor gets a task
    return number % 4, number


def main() -> None:
    folder = Path(sys.argv[1])
    context = SparkContext.getOrCreate()
    groups = context.parallelize(range(32), 32).map(keyed).groupByKey(4)
    groups.count()
    (folder / "shuffled").touch()
    deadline = time.monotonic() + 300
    while not (folder / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    total = groups.flatMap(lambda group: list(group[1])).sum()
    (folder / "total").write_text(str(total))
    context.stop()


if __name__ == "__main__":
    main()
