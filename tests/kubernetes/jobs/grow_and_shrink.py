"""Sums by a shuffle in tasks that take their time, then idles until executors are given back.

``grow_and_shrink.py TASKS SECONDS_PER_TASK EXECUTORS``: ends with 0 once no more than EXECUTORS are left, else with 1.
"""

import operator
import sys
import time

from pyspark import SparkContext

PATIENCE_SECONDS = 90


def main() -> int:
    tasks, seconds, minimum = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    context = SparkContext.getOrCreate()

    def slow(number: int) -> tuple[int, int]:
        time.sleep(seconds)
        return number % 3, number

    sums = context.parallelize(range(tasks), tasks).map(slow).reduceByKey(operator.add, 3).collectAsMap()
    print(f"sums by remainder: {dict(sorted(sums.items()))}", flush=True)
    tracker = context._jsc.sc().statusTracker()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (left := len(tracker.getExecutorInfos()) - 1) > minimum:  # the driver is one of them
        if time.monotonic() > deadline:
            print(f"{left} executors are still here", flush=True)
            return 1
        time.sleep(0.2)
    print(f"{left} executors left", flush=True)
    context.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
