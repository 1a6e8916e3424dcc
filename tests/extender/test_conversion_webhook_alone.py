"""``spark-scheduler-conversion-webhook server``: a program of its own that converts, and does nothing else."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from muster.kube.certificates import make_authority, make_serving

PROGRAM = "from muster.cli.spark_scheduler import conversion_webhook; raise SystemExit(conversion_webhook(['server']))"
REVIEW = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "ConversionReview",
    "request": {
        "uid": "one",
        "desiredAPIVersion": "sparkscheduler.palantir.com/v1beta2",
        "objects": [
            {
                "apiVersion": "sparkscheduler.palantir.com/v1beta1",
                "kind": "ResourceReservation",
                "metadata": {"name": "app", "namespace": "ns"},
                "spec": {"reservations": {"driver": {"node": "n1", "cpu": "1", "memory": "1Gi"}}},
                "status": {"pods": {"driver": "app-driver"}},
            }
        ],
    },
}


async def test_it_converts_tells_that_it_lives_and_answers_no_kube_scheduler(tmp_path: Path) -> None:
    now, life = datetime.now(UTC), timedelta(days=1)
    authority = make_authority(now, life)
    serving = make_serving(authority, ["127.0.0.1"], now, life)
    (tmp_path / "tls.crt").write_bytes(serving.certificate)
    (tmp_path / "tls.key").write_bytes(serving.key)
    server = {
        "address": "127.0.0.1",
        "port": 0,
        "context-path": "/spark-scheduler",
        "cert-file": str(tmp_path / "tls.crt"),
        "key-file": str(tmp_path / "tls.key"),
    }
    (tmp_path / "var/conf").mkdir(parents=True)
    (tmp_path / "var/conf/install.yml").write_text(yaml.safe_dump({"server": server}))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        said = json.loads(await asyncio.wait_for(process.stderr.readline(), 60))
        assert said["event"] == "serving conversions", said
        url = f"https://127.0.0.1:{said['port']}/spark-scheduler"
        tls = ssl.create_default_context(cadata=authority.certificate.decode())
        async with aiohttp.ClientSession() as http:
            async with http.post(f"{url}/convert", json=REVIEW, ssl=tls) as answer:
                response: dict[str, Any] = (await answer.json())["response"]
            async with http.get(f"{url}/status/liveness", ssl=tls) as living:
                assert living.status == 200
            async with http.post(f"{url}/predicates", json={}, ssl=tls) as refused:
                assert refused.status == 404
        assert response["result"]["status"] == "Success"
        [converted] = response["convertedObjects"]
        assert converted["spec"]["reservations"]["driver"] == {
            "node": "n1",
            "resources": {"cpu": "1", "memory": "1Gi"},
        }
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0
