"""The Dockerfile: what hadolint says, and that the context has what its COPY lines name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    told = subprocess.run([hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "")


def test_every_image_runs_as_an_unprivileged_number_without_a_shell() -> None:
    runtime, *images = re.split(r"^FROM ", DOCKERFILE[DOCKERFILE.index(" AS runtime\n") :], flags=re.MULTILINE)
    assert "\nUSER 65532:65532\n" in runtime  # a number: kubelets can check runAsNonRoot
    assert len(re.findall(r"^USER ", DOCKERFILE, re.MULTILINE)) == 1
    for image in images:
        assert image.startswith("runtime")
        assert '\nENTRYPOINT ["' in image
        assert not re.search(r"^(RUN|ENTRYPOINT \w|CMD \w)", image, re.MULTILINE)
    assert '\nENTRYPOINT ["muster"]\n' in images[-1], "what `docker build` makes without a target"


def test_the_build_context_is_what_is_copied() -> None:
    copied = {
        name.rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for name in line.split()[:-1]
    }
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    assert {line[1:] for line in ignore if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)
