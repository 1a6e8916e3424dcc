"""``muster devcluster``: an embedded cluster in the foreground."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from muster.cli.arguments import Failure, SubParsers, add_command, count, factor

if TYPE_CHECKING:
    from muster.devcluster.node_pool import NodePool


def add_parser(commands: SubParsers) -> None:
    parser = add_command(
        commands,
        "devcluster",
        _run,
        "Run an embedded cluster until Ctrl-C: a Kubernetes API over TLS, virtual nodes, and real ones for real Spark.",
        "muster devcluster --nodes 20 --with-muster",
        "muster devcluster --pools small=20x4,16;large=2x24,96 --kubeconfig dev.yaml",
        "muster devcluster --process-kubelet --port 6443",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--nodes",
        type=count,
        default=3,
        metavar="N",
        help="virtual nodes of 16 cores and 64 GiB (default: %(default)s)",
    )
    size.add_argument("--pools", metavar="POOLS", help="[NAME=]COUNTxCORES,GIB, several separated by ;")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="of the API server (default: any free one)")
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        default=Path("devcluster.kubeconfig"),
        metavar="FILE",
        help="where to write the kubeconfig (default: %(default)s)",
    )
    parser.add_argument("--speed", type=factor, default=1.0, metavar="X", help="virtual seconds in a second")
    parser.add_argument("--process-kubelet", action="store_true", help="add a node whose pods are local processes")
    parser.add_argument("--with-muster", action="store_true", help="install Muster and run muster serve beside it")


def _run(arguments: argparse.Namespace) -> int:
    from muster.cli.embedded import interruptible, quieten_logs
    from muster.devcluster.node_pool import NodePool, parse_node_pools

    try:
        pools = parse_node_pools(arguments.pools) if arguments.pools else (NodePool(count=arguments.nodes),)
    except ValueError as error:
        raise Failure(f"--pools: {error}") from None
    if not is_ours(arguments.kubeconfig):
        raise Failure(f"--kubeconfig {arguments.kubeconfig}: holds other clusters; name a file that may be overwritten")
    quieten_logs()
    try:
        interruptible(_cluster(arguments, pools))
    except KeyboardInterrupt:
        print("The cluster has ended.", file=sys.stderr)
    return 0


def is_ours(kubeconfig: Path) -> bool:
    """Whether the file may be overwritten and removed: absent, empty, or left by an earlier embedded cluster."""
    import yaml

    try:
        content = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        return content is None or [cluster["name"] for cluster in content["clusters"]] == ["muster"]
    except FileNotFoundError:
        return True
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        return False


async def _cluster(arguments: argparse.Namespace, pools: tuple[NodePool, ...]) -> None:
    """Runs until cancelled."""
    import asyncio
    from contextlib import AsyncExitStack

    from muster.cli.embedded import SYSTEM_NAMESPACE, ServiceProcess, install
    from muster.devcluster.cluster import DevCluster

    kubeconfig: Path = arguments.kubeconfig.absolute()
    async with AsyncExitStack() as stack:
        cluster = DevCluster(
            pools,
            speed=arguments.speed,
            processes=arguments.process_kubelet,
            namespaces=("default", SYSTEM_NAMESPACE),
            port=arguments.port,
        )
        await stack.enter_async_context(cluster)
        cluster.api.write_kubeconfig(kubeconfig)
        stack.callback(kubeconfig.unlink, missing_ok=True)
        print(f"The cluster is up: {cluster.api.url}\n\n  export KUBECONFIG={kubeconfig}\n  kubectl get nodes")
        if arguments.with_muster:
            await install(cluster.client)
            service = await stack.enter_async_context(ServiceProcess(cluster.folder, kubeconfig))
            print(f"  muster gangs -A\n  muster why APP --server http://127.0.0.1:{service.management_port}")
        print("\nCtrl-C ends it.", file=sys.stderr, flush=True)
        await asyncio.get_running_loop().create_future()
