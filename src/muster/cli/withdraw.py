"""``muster withdraw``: before an uninstall, so that nothing waits for a Muster that is gone."""

from __future__ import annotations

import argparse

from muster.cli.arguments import Failure, SubParsers, add_cluster_options, add_command, factor


def add_parser(commands: SubParsers) -> None:
    parser = add_command(
        commands,
        "withdraw",
        _run,
        "Prepare an uninstall: delete the webhook, and hand every waiting Spark pod to ordinary scheduling. "
        "Applying the manifests or upgrading the chart brings the webhook back.",
        "muster withdraw --dry-run",
        "muster withdraw",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument(
        "--timeout", type=factor, default=120.0, metavar="SECONDS", help="give up after (default: %(default)g)"
    )
    add_cluster_options(parser)


def _run(arguments: argparse.Namespace) -> int:
    import asyncio

    from muster.cli.arguments import cluster_access
    from muster.control.withdrawal import Withdrawal, withdraw
    from muster.kube.client import Client

    async def run() -> Withdrawal:
        async with Client(cluster_access(arguments)) as client:
            return await withdraw(client, timeout=arguments.timeout, dry_run=arguments.dry_run, notice=_say)

    withdrawal = asyncio.run(run())
    if arguments.dry_run:
        webhook = "delete the webhook" if withdrawal.webhook else "find no webhook"
        print(f"would {webhook} and release {withdrawal.released} waiting pods")
        return 0
    if withdrawal.left:
        raise Failure(
            f"{withdrawal.left} pods still wait behind Muster's gate after {arguments.timeout:g} s; "
            f"{withdrawal.released} were released. What hindered it is told above; it can be run again"
        )
    print(f"withdrawn: {withdrawal.released} waiting pods released; Muster can be uninstalled")
    return 0


def _say(what: str) -> None:
    print(what, flush=True)
