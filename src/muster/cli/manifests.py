"""``muster manifests``: everything to install Muster with, for ``kubectl apply -f -``."""

from __future__ import annotations

import argparse
from pathlib import Path

from muster.cli.arguments import SubParsers, add_command, count

DEFAULT_NAMESPACE = "muster-system"


def add_parser(commands: SubParsers) -> None:
    parser = add_command(
        commands,
        "manifests",
        _run,
        "Print the Kubernetes manifests that install Muster: custom resources, roles, service, deployment, webhook.",
        "muster manifests | kubectl apply -f -",
        "muster manifests --namespace platform --image registry.example.com/spark-muster:0.1.0 --replicas 3",
        "muster manifests --config muster.yaml --network-policy --priority-classes",
    )
    parser.add_argument(
        "-n", "--namespace", default=DEFAULT_NAMESPACE, metavar="NAME", help="Muster's own (default: %(default)s)"
    )
    parser.add_argument("--image", metavar="IMAGE", help="container image (default: spark-muster of this version)")
    parser.add_argument("--replicas", type=count, default=2, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="muster.yaml; addresses and ports are set to fit")
    parser.add_argument("--network-policy", action="store_true", help="limit who may talk to Muster, and it to whom")
    parser.add_argument(
        "--priority-classes", action="store_true", help="with the priority classes spark-driver and spark-executor"
    )


def _run(arguments: argparse.Namespace) -> int:
    from muster.control.config import read
    from muster.kube.manifests import InstallOptions, render

    options = InstallOptions(
        namespace=arguments.namespace,
        replicas=arguments.replicas,
        config=read(arguments.config) if arguments.config else {},
        network_policy=arguments.network_policy,
        priority_classes=arguments.priority_classes,
        **({"image": arguments.image} if arguments.image else {}),
    )
    print(render(options), end="")
    return 0
