"""``muster manifests``: everything to install Muster with, for ``kubectl apply -f -``."""

from __future__ import annotations

import argparse

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
    )
    parser.add_argument(
        "-n", "--namespace", default=DEFAULT_NAMESPACE, metavar="NAME", help="Muster's own (default: %(default)s)"
    )
    parser.add_argument("--image", metavar="IMAGE", help="container image (default: spark-muster of this version)")
    parser.add_argument("--replicas", type=count, default=2, metavar="N", help="(default: %(default)s)")


def _run(arguments: argparse.Namespace) -> int:
    from muster.kube.manifests import InstallOptions, render

    options = {"image": arguments.image} if arguments.image else {}
    print(render(InstallOptions(namespace=arguments.namespace, replicas=arguments.replicas, **options)), end="")
    return 0
