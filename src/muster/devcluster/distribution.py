"""Apache Spark itself: finds or installs a PyPI ``pyspark`` distribution, which holds the whole of Spark.

Where it looks, in this order:

1. ``MUSTER_SPARK_HOME_<major>_<minor>`` (``MUSTER_SPARK_HOME_4_3``): a Spark of that minor version, used as it is;
2. the cache, ``${MUSTER_CACHE:-${XDG_CACHE_HOME:-~/.cache}/muster}/spark/<version>/``;
3. pip, into that cache, with the hashes of ``requirements/spark-<major>.<minor>.txt``.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

Progress = Callable[[str], None]
"""Called with one line for people whenever the installation has got further."""

PINNED_VERSIONS = ("3.5.9", "4.3.0")
DEFAULT_VERSION = "4.3.0"

_STAGES = {
    "Collecting pyspark": "looking up Apache Spark {version}",
    "Downloading pyspark": "downloading Apache Spark {version} (about 450 MB, once)",
    "Building wheels": "unpacking Apache Spark {version}",
    "Installing collected": "installing Apache Spark {version}",
}


class SparkUnavailableError(Exception):
    """No Spark of that version was found and none could be installed; the text says why and what would help."""


def ensure_spark(version: str = DEFAULT_VERSION, progress: Progress | None = None) -> Path:
    """``SPARK_HOME`` of Spark ``version`` (one of ``PINNED_VERSIONS``), installed first when it is not there yet.

    Blocks for as long as an installation takes (minutes); of several processes that ask at once, one installs and
    the others wait. An installation that is killed leaves nothing that looks finished.
    Raises ``SparkUnavailableError``.
    """
    if version not in PINNED_VERSIONS:
        raise SparkUnavailableError(
            f"Spark {version!r} is not one of the pinned versions: {', '.join(PINNED_VERSIONS)}"
        )
    override = override_variable(version)
    if configured := os.environ.get(override):
        return _checked_override(Path(configured), version, override)
    target = spark_cache() / version
    home = target / "pyspark"
    if is_spark_home(home, version):
        return home
    report = progress or _ignore
    with _locked(target.with_name(f".{version}.lock"), lambda: report(f"waiting for another install of {version}")):
        if not is_spark_home(home, version):
            _install(version, target, report)
    return home


def find_spark(version: str = DEFAULT_VERSION) -> Path | None:
    """``SPARK_HOME`` when it is there already: never installs. Raises ``SparkUnavailableError`` for a bad override."""
    override = override_variable(version)
    if configured := os.environ.get(override):
        return _checked_override(Path(configured), version, override)
    home = spark_cache() / version / "pyspark"
    return home if is_spark_home(home, version) else None


def spark_cache() -> Path:
    """The folder that holds one subfolder per version."""
    if cache := os.environ.get("MUSTER_CACHE"):
        return Path(cache) / "spark"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "muster" / "spark"


def minor_version(version: str) -> str:
    """``4.3`` of ``4.3.0``."""
    return ".".join(version.split(".")[:2])


def override_variable(version: str) -> str:
    """The environment variable that names a Spark of this minor version: ``MUSTER_SPARK_HOME_4_3``."""
    return "MUSTER_SPARK_HOME_" + minor_version(version).replace(".", "_")


def is_spark_home(home: Path, version: str) -> bool:
    """Whether ``home`` holds spark-submit and Spark's jars of this minor version, those for Kubernetes included."""
    jars = f"spark-kubernetes_*-{minor_version(version)}.*.jar"
    return (home / "bin" / "spark-submit").is_file() and any((home / "jars").glob(jars))


def _checked_override(home: Path, version: str, variable: str) -> Path:
    if not is_spark_home(home, version):
        raise SparkUnavailableError(
            f"{variable} is {str(home)!r}, which holds no Spark {minor_version(version)} with its Kubernetes jars "
            f"(expected bin/spark-submit and jars/spark-kubernetes_*-{minor_version(version)}.*.jar)"
        )
    return home


def _install(version: str, target: Path, report: Progress) -> None:
    """Install into a temporary folder beside ``target``, then rename: ``target`` is either absent or whole."""
    for abandoned in target.parent.glob(f".installing-{version}-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".installing-{version}-", dir=target.parent) as scratch:
        site, temporary, pins = Path(scratch, "site"), Path(scratch, "tmp"), Path(scratch, "pins.txt")
        temporary.mkdir()
        pins.write_text(_pins(version), encoding="utf-8")
        report(f"installing Apache Spark {version} into {target}")
        _run_pip(version, site, temporary, pins, report)
        if not is_spark_home(site / "pyspark", version):
            raise SparkUnavailableError(f"pip installed pyspark {version}, but it holds no Spark with Kubernetes jars")
        if target.exists():
            shutil.rmtree(target)
        site.rename(target)
    report(f"Apache Spark {version} is ready")


def _run_pip(version: str, site: Path, temporary: Path, pins: Path, report: Progress) -> None:
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]
    command += ["--progress-bar", "off", "--no-compile", "--require-hashes", "--target", str(site), "-r", str(pins)]
    # Spark is unpacked twice on the way: not into a /tmp that may live in memory.
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
    errors: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as pip:
        assert pip.stdout is not None
        try:
            for line in map(str.strip, pip.stdout):
                for start, message in _STAGES.items():
                    if line.startswith(start):
                        report(message.format(version=version))
                if line.startswith("ERROR:") or "No module named pip" in line:
                    errors.append(line)
        except BaseException:
            pip.terminate()
            raise
    if pip.returncode != 0:
        reason = " ".join(errors[-3:]) or f"exit code {pip.returncode}"
        raise SparkUnavailableError(
            f"pip could not install pyspark {version}: {reason} "
            f"(or set {override_variable(version)} to a Spark {minor_version(version)} you have)"
        )


def _pins(version: str) -> str:
    """Text of ``requirements/spark-<minor>.txt``: inside the wheel, or of the checkout this file is in."""
    name = f"spark-{minor_version(version)}.txt"
    packaged = resources.files("muster.devcluster").joinpath("pins", name)
    checkout = Path(__file__).parents[3] / "requirements" / name
    for source in (packaged, checkout):
        if source.is_file():
            text = source.read_text(encoding="utf-8")
            if re.search(rf"^pyspark=={re.escape(version)}\b", text, re.MULTILINE):
                return text
    raise SparkUnavailableError(f"no pinned hashes for pyspark {version} are installed (expected {name})")


@contextmanager
def _locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock between processes; the kernel gives it back when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ignore(_message: str) -> None:
    pass
