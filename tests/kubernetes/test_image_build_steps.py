"""What the Dockerfile's build stage runs, run here without Docker: the result needs no network and writes nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


def build_stage() -> list[tuple[str, str]]:
    """The COPY and RUN instructions of the stage ``build``, in order."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    [stage] = [each for each in text.split("\nFROM ") if each.partition("\n")[0].endswith(" AS build")]
    return [(word, rest) for word, rest in re.findall(r"^(COPY|RUN) (.*)$", stage, re.MULTILINE)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stands for the image's root."""
    root = tmp_path_factory.mktemp("image")
    source = root / "src"
    source.mkdir()
    python = root / "bin"
    python.mkdir()
    (python / "python").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    environment = {"PATH": f"{python}:/usr/bin:/bin", "HOME": str(root), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    for word, rest in build_stage():
        if word == "COPY":
            *names, _ = rest.split()
            for name in names:
                copy(ROOT / name, source / name)
        else:
            command = rest.replace("/opt/", f"{root}/opt/")
            subprocess.run(["sh", "-ec", command], cwd=source, env=environment, check=True, timeout=500)
    return root


def copy(origin: Path, target: Path) -> None:
    if origin.is_dir():
        shutil.copytree(origin, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(origin, target)


def run(image: Path, *arguments: str, program: str = "muster") -> subprocess.CompletedProcess[str]:
    """As in the pod: a home and a working directory that cannot be written to, and no environment."""
    folder = image / "empty"
    folder.mkdir(mode=0o555, exist_ok=True)
    environment = {"PATH": f"{image}/opt/muster/bin", "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [program, *arguments],
        executable=image / "opt" / "muster" / "bin" / program,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert list(folder.iterdir()) == []
    return done


def test_the_installed_command_works_where_nothing_can_be_written(image: Path) -> None:
    before = contents(image)
    done = run(image, "version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{version('spark-muster')}\n", "")
    made = run(image, "manifests")
    assert made.returncode == 0
    assert {"Deployment", "CustomResourceDefinition"} <= {one["kind"] for one in yaml.safe_load_all(made.stdout)}
    assert contents(image) == before


@pytest.mark.parametrize("program", ["spark-scheduler", "spark-scheduler-conversion-webhook"])
def test_the_archived_schedulers_commands_are_there(image: Path, program: str) -> None:
    done = run(image, "server", program=program)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{program}: error: var/conf/install.yml")


def test_without_a_cluster_the_service_says_so_in_one_line(image: Path) -> None:
    done = run(image, "serve")
    assert done.returncode == 1
    assert "no cluster to talk to" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_of_the_build_is_in_the_image(image: Path) -> None:
    packages = {path.name for path in next((image / "opt" / "muster" / "lib").iterdir()).glob("site-packages/*")}
    assert "muster" in packages
    assert not packages & {"pip", "setuptools", "hatchling", "pytest"}


def contents(image: Path) -> set[str]:
    return {str(path.relative_to(image)) for path in image.rglob("*")} | {"empty"}
