"""``muster manifests``: everything to install Muster with, for ``kubectl apply -f -``."""

from __future__ import annotations

import argparse
from pathlib import Path

from muster.cli.arguments import SubParsers, add_command, count

DEFAULT_NAMESPACE = "muster-system"
EXTENDER_NAMESPACE = "spark"


def add_parser(commands: SubParsers) -> None:
    parser = add_command(
        commands,
        "manifests",
        _run,
        "Print the Kubernetes manifests that install Muster: custom resources, roles, service, deployment, webhook.",
        "muster manifests | kubectl apply -f -",
        "muster manifests --namespace platform --image registry.example.com/spark-muster:0.1.0 --replicas 3",
        "muster manifests --config muster.yaml --network-policy --priority-classes",
        "muster manifests --extender --config install.yml --namespace spark",
    )
    parser.add_argument(
        "-n",
        "--namespace",
        metavar="NAME",
        help=f"Muster's own (default: {DEFAULT_NAMESPACE}, with --extender {EXTENDER_NAMESPACE})",
    )
    parser.add_argument("--image", metavar="IMAGE", help="container image (default: spark-muster of this version)")
    parser.add_argument("--replicas", type=count, default=2, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="muster.yaml; addresses and ports are set to fit")
    parser.add_argument(
        "--extender",
        action="store_true",
        help="in place of palantir/k8s-spark-scheduler, beside a kube-scheduler; --config is its install.yml",
    )
    parser.add_argument(
        "--kube-scheduler-image", metavar="IMAGE", help="with --extender: of the cluster's version of Kubernetes"
    )
    parser.add_argument("--network-policy", action="store_true", help="limit who may talk to Muster, and it to whom")
    parser.add_argument(
        "--priority-classes", action="store_true", help="with the priority classes spark-driver and spark-executor"
    )


def _run(arguments: argparse.Namespace) -> int:
    from muster.control.config import read
    from muster.kube.manifests import InstallOptions, render

    if arguments.extender:
        return _print_extender(arguments)
    options = InstallOptions(
        namespace=arguments.namespace or DEFAULT_NAMESPACE,
        replicas=arguments.replicas,
        config=read(arguments.config) if arguments.config else {},
        network_policy=arguments.network_policy,
        priority_classes=arguments.priority_classes,
        **({"image": arguments.image} if arguments.image else {}),
    )
    print(render(options), end="")
    return 0


def _print_extender(arguments: argparse.Namespace) -> int:
    import msgspec

    from muster.control.documents import ConfigError, read_document
    from muster.control.extender.configuration import parse
    from muster.control.extender.manifests import ExtenderOptions, extender_manifests, install_document
    from muster.kube.manifests import to_yaml

    if arguments.network_policy or arguments.priority_classes:
        raise ConfigError("--network-policy and --priority-classes are not for --extender")
    options = ExtenderOptions(namespace=arguments.namespace or EXTENDER_NAMESPACE, replicas=arguments.replicas)
    given = {"image": arguments.image, "kube_scheduler_image": arguments.kube_scheduler_image}
    given["install"] = read_document(arguments.config) if arguments.config else None
    options = msgspec.structs.replace(options, **{name: value for name, value in given.items() if value})
    parse(install_document(options), str(arguments.config or "install.yml"))
    print(to_yaml(extender_manifests(options)), end="")
    return 0
