"""A PySpark job whose tasks only wait, so that dynamic allocation grows: ``growing.py TASKS SECONDS_PER_TASK``."""

import sys
import time

from pyspark import SparkContext


def main() -> None:
    tasks, seconds = int(sys.argv[1]), float(sys.argv[2])
    context = SparkContext.getOrCreate()

    def wait(number: int) -> int:
        time.sleep(seconds)
        return number

    total = context.parallelize(range(tasks), tasks).map(wait).sum()
    sys.stdout.write(f"{tasks} tasks ended; the sum of their numbers is {total}\n")
    context.stop()


if __name__ == "__main__":
    main()
