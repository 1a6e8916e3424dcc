"""``spark-scheduler server`` in place of the archived scheduler's, and ``muster serve --extender``."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.cli import main as muster
from muster.cli import spark_scheduler

INSTALL = "server: {cert-file: tls.crt, key-file: tls.key}\nbinpack: loosely-pack\n"


def test_it_reads_the_archived_schedulers_file_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert spark_scheduler.main(["server"]) == 1
    assert capsys.readouterr().err.startswith("spark-scheduler: error: var/conf/install.yml")

    (tmp_path / "var/conf").mkdir(parents=True)
    (tmp_path / "var/conf/install.yml").write_text(INSTALL)
    assert spark_scheduler.main(["server"]) == 1

    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("spark-scheduler: error: var/conf/install.yml: binpack = 'loosely-pack': allowed are ")


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        spark_scheduler.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("spark-muster ")


def test_serve_takes_the_same_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "install.yml").write_text(INSTALL)

    assert muster.main(["serve", "--extender", str(tmp_path / "install.yml")]) == 1

    assert "binpack = 'loosely-pack'" in capsys.readouterr().err


def test_a_service_has_one_mode(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        muster.main(["serve", "--config", "muster.yaml", "--extender", "install.yml"])
    assert ended.value.code == 2
    assert "not allowed with" in capsys.readouterr().err
