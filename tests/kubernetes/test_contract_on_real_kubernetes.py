"""The contract suite of the embedded API server, unchanged, against the real one: where they differ, ours is wrong."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from muster.devcluster.control_plane import ControlPlane

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

SUITE = Path(__file__).parents[1] / "contract"


async def test_the_contract_suite_holds_for_the_real_api_server(tmp_path: Path) -> None:
    async with ControlPlane(tmp_path, scheduler=False) as plane:  # the suite binds pods itself
        environment = os.environ | {"MUSTER_CONTRACT_KUBECONFIG": str(plane.kubeconfig)}
        suite = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(SUITE)),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await suite.communicate()
        text = output.decode()
        assert suite.returncode == 0, text[-6000:]
        assert " passed" in text.splitlines()[-1]
