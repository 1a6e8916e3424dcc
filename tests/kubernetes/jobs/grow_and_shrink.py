"""Sums by a shuffle in tasks that take their time, then idles until it is told that executors have been given back.

``grow_and_shrink.py TASKS SECONDS_PER_TASK FILE``: ends with 0 as soon as FILE exists, with 1 if it never does.
"""

import operator
import sys
import time
from pathlib import Path

from pyspark import SparkContext

PATIENCE_SECONDS = 120


def main() -> int:
    tasks, seconds, file = int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
    context = SparkContext.getOrCreate()

    def slow(number: int) -> tuple[int, int]:
        time.sleep(seconds)
        return number % 3, number

    sums = context.parallelize(range(tasks), tasks).map(slow).reduceByKey(operator.add, 3).collectAsMap()
    print(f"sums by remainder: {dict(sorted(sums.items()))}", flush=True)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            print(f"{file} never appeared", flush=True)
            return 1
        time.sleep(0.1)
    context.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
