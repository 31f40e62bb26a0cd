"""``triton-router manifests``: write what splits traffic between two releases outside of Triton, and change weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from triton_router import __version__
from triton_router.cli import output
from triton_router.cli.command import Subparsers, add_parser
from triton_router.errors import InvalidInputError

if TYPE_CHECKING:
    import argparse

    from triton_router.kubernetes.nginx_conf import PlainSplit
    from triton_router.kubernetes.release import Release

_MESHES = ("nginx", "istio", "gateway-api")
"""As in kubernetes.rendering, which is not imported before a command runs."""

_DESCRIPTION = """\
Write a stable deployment (3 pods) and a canary (1 pod) of a Triton with the router, and what splits the traffic
between them: stable.yaml, canary.yaml and traffic.yaml. Both mount the model repository of their version from one
claim. With --plain it is an nginx.conf instead, which splits one model's requests between two of its versions.

Between the versions of a model inside one Triton, 'triton-router canary' does the same for HTTP and gRPC, stays with
callers, watches the canary and rolls it back by itself."""

_EXAMPLES = """\
  triton-router manifests canary --mesh gateway-api --image registry.example.com/triton-router:1.2.0 --out k8s
  triton-router manifests canary --set-weight 25 k8s && kubectl apply -f k8s
  triton-router manifests canary --mesh nginx --canary-image registry.example.com/triton-router:1.3.0
  triton-router manifests canary --mesh nginx --plain --model minilm --canary-version 3 --out proxy"""


def register(subparsers: Subparsers) -> None:
    """Add the parser of this command."""
    parser = add_parser(
        subparsers,
        "manifests",
        summary="write Kubernetes manifests, or an nginx.conf, for a canary",
        examples=_EXAMPLES,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    canary = add_parser(
        actions,
        "canary",
        summary="a stable and a canary release, and the weights between them",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    canary.add_argument("--mesh", choices=_MESHES, help="what splits the traffic")
    canary.add_argument("--out", type=Path, metavar="DIR", help="write files there instead of printing them")
    canary.add_argument("--force", action="store_true", help="replace files that are there and say something else")
    canary.add_argument("--json", action="store_true", help="with --out or --set-weight: JSON of what was done")
    _add_release(canary)
    _add_plain(canary)
    change = canary.add_argument_group("changing the weight")
    change.add_argument("--set-weight", type=int, metavar="N", help="percent for the canary, in files that exist")
    change.add_argument("paths", nargs="*", type=Path, metavar="FILE|DIR", help="which files")
    canary.set_defaults(func=run)


def _add_release(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the release")
    group.add_argument("--name", default="triton", help="begins all names (default: %(default)s)")
    group.add_argument("--namespace", default="", metavar="NS", help="default: where kubectl points to")
    group.add_argument("--image", default=f"triton-router:{__version__}", help="default: %(default)s, yours to build")
    group.add_argument("--canary-image", metavar="IMAGE", help="where the canary has another one")
    group.add_argument("--stable-version", metavar="V", help="directory on the claim (default: v1; with --plain: 1)")
    group.add_argument("--canary-version", metavar="V", help="directory on the claim (default: v2; with --plain: 2)")
    group.add_argument("--stable-replicas", type=int, default=3, metavar="N", help="default: %(default)s")
    group.add_argument("--canary-replicas", type=int, default=1, metavar="N", help="default: %(default)s")
    group.add_argument("--claim", default="models", help="claim with the model repositories (default: %(default)s)")
    group.add_argument("--gpus", type=int, default=0, metavar="N", help="NVIDIA GPUs of each pod (default: 0)")
    group = parser.add_argument_group("the traffic")
    group.add_argument("--weight", type=int, default=10, metavar="N", help="percent for the canary (default: 10)")
    group.add_argument("--host", help="host name; gRPC gets grpc.HOST (default: NAME.example.com)")
    group.add_argument("--header", help="'always' in it asks for the canary, 'never' for stable (default: x-canary)")
    group.add_argument("--gateway", default="gateway", metavar="[NS/]NAME", help="that of istio or gateway-api")
    group.add_argument("--tls-secret", default="", metavar="SECRET", help="nginx: certificate; gRPC needs one")


def _add_plain(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("nginx without Kubernetes")
    group.add_argument("--plain", action="store_true", help="write an nginx.conf for two versions in one Triton")
    group.add_argument("--model", help="the model whose requests are split")
    group.add_argument("--server", default="127.0.0.1:8000", help="Triton's HTTP address (default: %(default)s)")
    group.add_argument("--listen", default="127.0.0.1:8080", help="where nginx listens (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Change weights, or write or print a release."""
    from triton_router.cli.manifest_files import change_weights, write_new

    if args.set_weight is not None:
        return _report_weights(change_weights(args.paths, args.set_weight), args)
    texts = _texts(args)
    if args.out is None:
        print("".join(texts.values()), end="")
        return 0
    written = write_new(args.out, texts, force=args.force)
    if args.json:
        output.print_json({"directory": str(args.out), "files": dict(zip(texts, written, strict=True))})
        return 0
    output.print_table(["file", "done"], [[args.out / name, done] for name, done in zip(texts, written, strict=True)])
    output.hint(
        f"start it with: nginx -p {args.out} -c nginx.conf -e error.log"
        if args.plain
        else f"look at it with: kubectl diff -f {args.out}; then: kubectl apply -f {args.out}"
    )
    return 0


def _texts(args: argparse.Namespace) -> dict[str, str]:
    from triton_router.kubernetes.nginx_conf import nginx_conf
    from triton_router.kubernetes.rendering import files

    if args.paths:
        raise InvalidInputError(
            f"{args.paths[0]} is given, but not what to change", hint="add --set-weight N, or give a directory by --out"
        )
    if args.mesh is None:
        raise InvalidInputError("nothing says what splits the traffic", hint="add --mesh nginx, istio or gateway-api")
    if args.plain:
        return {"nginx.conf": nginx_conf(_plain_split(args))}
    if args.model:
        raise InvalidInputError(
            "--model is for --plain: a release is of all models of its repository",
            hint="leave --model out, or add --plain",
        )
    release = _release(args)
    if release.is_crowded:
        pods = release.canary.replicas + release.stable.replicas
        output.note(f"warning: {release.canary.replicas} of {pods} pods would take {release.weight}% of the traffic")
        output.hint("raise --canary-replicas with --weight")
    return files(release, args.mesh)


def _release(args: argparse.Namespace) -> Release:
    from triton_router.kubernetes import names
    from triton_router.kubernetes.release import DEFAULT_HEADER, Release, Track

    stable = args.stable_version or "v1"
    return Release(
        name=names.base_name(args.name),
        stable=Track("stable", stable, args.image, args.stable_replicas),
        canary=Track("canary", args.canary_version or "v2", args.canary_image or args.image, args.canary_replicas),
        weight=args.weight,
        host=args.host or f"{args.name}.example.com",
        header=names.header(args.header or DEFAULT_HEADER),
        namespace=args.namespace,
        gateway=args.gateway,
        tls_secret=args.tls_secret,
        claim=args.claim,
        gpus=args.gpus,
    )


def _plain_split(args: argparse.Namespace) -> PlainSplit:
    from triton_router.kubernetes import names
    from triton_router.kubernetes.nginx_conf import PlainSplit
    from triton_router.kubernetes.release import DEFAULT_HEADER

    if args.mesh != "nginx" or not args.model:
        raise InvalidInputError(
            "--plain is an nginx.conf for one model", hint="give both --mesh nginx and --model, the model's name"
        )
    return PlainSplit(
        model=args.model,
        stable=names.model_version("--stable-version", args.stable_version or "1"),
        canary=names.model_version("--canary-version", args.canary_version or "2"),
        weight=args.weight,
        server=args.server,
        listen=args.listen,
        header=args.header or DEFAULT_HEADER,
    )


def _report_weights(changed: dict[Path, list[tuple[str, str, int]]], args: argparse.Namespace) -> int:
    rows = [(path, kind, name, before) for path, found in changed.items() for kind, name, before in found]
    if args.json:
        changes = [
            {"file": str(path), "kind": kind, "name": name, "before": before} for path, kind, name, before in rows
        ]
        output.print_json({"weight": args.set_weight, "changes": changes})
        return 0
    headers = ["file", "kind", "name", "before", "now"]
    output.print_table(headers, [[*row, args.set_weight] for row in rows])
    return 0
