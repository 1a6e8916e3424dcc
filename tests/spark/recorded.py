"""What the real Spark has answered, kept beside the tests: one JSON document a line.

``python -m tests.spark.recorded`` asks it again and writes the files anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from muster.devcluster.distribution import PINNED_VERSIONS, ensure_spark
from tests.spark.configurations import generated
from tests.spark.property_texts import texts
from tests.spark.real_spark import RealSpark, started

DATA = Path(__file__).parent / "data"
JAVA_PROPERTIES = DATA / "java-properties.jsonl"


def sizes_file(version: str) -> Path:
    return DATA / f"spark-{version}-sizes.jsonl"


def read(path: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def ask_sizes(spark: RealSpark) -> list[dict[str, Any]]:
    return [
        {"name": case.name, "language": case.language, "asked": case.profile} | spark.answer(case)
        for case in generated()
    ]


def ask_properties(spark: RealSpark) -> list[dict[str, Any]]:
    answers = []
    with TemporaryDirectory() as folder:
        file = Path(folder, "spark.properties")
        for text in texts():
            file.write_bytes(text.encode())
            answers.append(
                {"text": text, "java": spark.load_properties(text), "spark": spark.load_properties_file(file)}
            )
    return answers


def write(path: Path, answers: Iterable[dict[str, Any]]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(answer, order="deterministic") + b"\n" for answer in answers))


def main() -> None:
    DATA.mkdir(exist_ok=True)
    for version in PINNED_VERSIONS:
        with started(ensure_spark(version, print)) as spark:
            write(sizes_file(version), ask_sizes(spark))
            write(JAVA_PROPERTIES, ask_properties(spark))


if __name__ == "__main__":
    main()
