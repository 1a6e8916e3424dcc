"""The command line from outside: help, exit codes, one-line errors, and that nothing heavy is imported for them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from muster.cli import main as entry
from muster.cli.main import build_parser, main

COMMANDS = (
    "gangs",
    "queues",
    "why",
    "history",
    "serve",
    "manifests",
    "withdraw",
    "devcluster",
    "demo",
    "bench",
    "version",
)


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs the tests may have a kubeconfig: it must not be found."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    action = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(action.choices)


def examples(parser: argparse.ArgumentParser) -> Iterator[list[str]]:
    """The command lines of muster in the help's examples, without what a shell would do with them."""
    for line in (parser.epilog or "").splitlines():
        words = line.split("|")[0].split(">")[0].split()
        if words[:1] == ["muster"]:
            yield words[1:]


def test_every_command_is_there() -> None:
    assert sorted(subcommands(build_parser())) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_that_parses(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"muster {command}" in capsys.readouterr().out
    shown = list(examples(subcommands(build_parser())[command]))
    assert shown
    for arguments in shown:
        build_parser().parse_args(arguments)


def test_help_imports_nothing_heavy() -> None:
    heavy = {"numpy", "aiohttp", "rich", "yaml", "lightkube", "asyncio", "muster.control", "muster.kube.client"}
    code = (
        "import sys; from muster.cli.main import build_parser; build_parser().format_help();"
        f"print(sorted(set(sys.modules) & {heavy!r}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.strip() == version("spark-muster")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["demo", "--nodes", "0"],
        ["demo", "--nodes", "many"],
        ["demo", "--speed", "-1"],
        ["demo", "--speed", "nan"],
        ["demo", "--output", "yaml"],
        ["manifests", "--replicas", "0"],
        ["why"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_says_what_was_wrong(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_arguments_that_do_not_go_together_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gangs", "--watch", "-o", "json"]) == 2
    assert "--watch prints a table" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["gangs"], ["why", "nightly"]], ids=" ".join)
def test_without_a_cluster_the_error_is_one_line_that_names_the_file(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith("muster: error: ")
    assert str(tmp_path / "none") in error
    assert error.count("\n") == 1


def test_a_configuration_that_is_wrong_is_one_line_that_names_the_key(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "muster.yaml"
    config.write_text("webhok: {}\n")
    assert main(["serve", "--config", str(config)]) == 1
    error = capsys.readouterr().err
    assert f"{config}: unknown key webhok" in error
    assert error.count("\n") == 1


def test_an_unexpected_error_says_how_to_see_more_and_debug_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_name: str) -> str:
        raise KeyError("lost")

    monkeypatch.setattr(entry, "version", broken)
    assert main(["version"]) == 1
    assert capsys.readouterr().err == "muster: error: internal error: KeyError: 'lost' (--debug shows where)\n"
    with pytest.raises(KeyError):
        main(["version", "--debug"])


def test_manifests_are_yaml_documents_with_the_chosen_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manifests", "--namespace", "platform", "--image", "example/muster:1", "--replicas", "3"]) == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    deployment = next(one for one in documents if one["kind"] == "Deployment")
    assert deployment["metadata"]["namespace"] == "platform"
    assert deployment["spec"]["replicas"] == 3
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "example/muster:1"
    assert {one["kind"] for one in documents} >= {"CustomResourceDefinition", "MutatingWebhookConfiguration"}


def test_manifests_take_a_configuration_a_network_policy_and_priority_classes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "muster.yaml"
    config.write_text("scheduling: {packer: distribute-evenly}\nwebhook: {timeoutSeconds: 3}\n")
    assert main(["manifests", "--config", str(config), "--network-policy", "--priority-classes"]) == 0
    documents = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(capsys.readouterr().out)}
    settings = yaml.safe_load(documents["ConfigMap", "muster"]["data"]["muster.yaml"])
    assert settings["scheduling"] == {"packer": "distribute-evenly"}
    assert documents["MutatingWebhookConfiguration", "muster"]["webhooks"][0]["timeoutSeconds"] == 3
    assert ("NetworkPolicy", "muster") in documents
    driver, executor = documents["PriorityClass", "spark-driver"], documents["PriorityClass", "spark-executor"]
    assert driver["value"] > executor["value"]


def test_a_configuration_with_a_mistake_makes_no_manifests(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "muster.yaml"
    config.write_text("scheduling: {paker: x}\n")
    assert main(["manifests", "--config", str(config)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"{config}: unknown key scheduling.paker" in printed.err


def test_as_a_kubectl_plugin_it_says_so(tmp_path: Path) -> None:
    plugin = tmp_path / "kubectl-muster"
    plugin.write_text(f"#!{sys.executable}\nimport sys\nfrom muster.cli.main import main\nsys.exit(main())\n")
    plugin.chmod(0o755)
    result = subprocess.run([plugin, "gangs"], capture_output=True, text=True, env={**os.environ}, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("kubectl muster: error: ")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m muster.cli.main manifests | head -1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
