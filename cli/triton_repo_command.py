"""`cat2dog triton-repo`: a model repository for native Triton Inference Server."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cli import console, options
from runtime.errors import EngineMismatch, InputError
from serving import arguments

if TYPE_CHECKING:
    from runtime.manifest import Manifest

HELP = "write a Triton model repository: engines, configurations, models for pictures, plugins, a start script"
EXAMPLE = "cat2dog triton-repo triton --model models/500m-256 --model models/500m-512"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument("out", type=options.some_path, metavar="OUT", help="folder to write; one of before is replaced")
    options.several(
        parser, "--model", "FOLDER", "checkpoint whose engines are filed already; several by giving it again"
    )
    options.several(parser, "--engine", "FILE.engine", "an engine; several of one checkpoint for several GPU types")
    options.signed_by(parser)
    parser.add_argument("--instances", type=int, default=2, metavar="N", help="of each model (default: 2)")
    parser.add_argument(
        "--gather-ms", type=float, default=0.5, metavar="MS", help="how long a batch is waited for (default: 0.5)"
    )
    parser.add_argument("--queue", type=int, default=256, metavar="N", help="requests that may wait (default: 256)")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="seconds that a request may wait (default: 10)"
    )
    parser.add_argument("--no-cuda-graph", action="store_true", help="run the engines without CUDA graphs")
    parser.add_argument("--format", choices=("png", "jpeg", "webp"), default="png", help="of the dogs (default: png)")
    parser.add_argument("--quality", type=int, metavar="N", help="of jpeg and webp, 1 to 100")
    arguments.add_limits(parser)
    options.precision(parser)
    options.build_folder(parser)
    options.store(parser)
    options.json_output(parser)


def run(args: argparse.Namespace) -> int:
    """Find the engines, write the repository."""
    from serving.model_configs import Tuning
    from serving.repository import write_repository

    tuning = Tuning(
        instances=args.instances,
        gather_ms=args.gather_ms,
        queue=args.queue,
        timeout=args.timeout,
        cuda_graphs=not args.no_cuda_graph,
        format=args.format,
        quality=args.quality,
    )
    limits = arguments.limits_of(args)
    if not args.model and not args.engine:
        raise InputError("give --model FOLDER whose engines are built, or --engine FILE.engine")
    if args.store:
        _brought(args)
    engines = [*args.engine, *(each for model in args.model for each in _filed(args, model))]
    models = write_repository(args.out, engines, tuning, limits)
    if args.json:
        console.print_json({"repository": args.out, "models": models, "engines": engines})
    else:
        print(f"{args.out}: {', '.join(models)}; start Triton with {args.out / 'start.sh'}")
    return 0


def _brought(args: argparse.Namespace) -> None:
    """File what the store has of these checkpoints for Triton, for every GPU type."""
    from engines.remote_store import RemoteStore
    from engines.store import engine_path
    from runtime.flavors import TENSORRT

    store = RemoteStore(args.store)
    names = {model.name for model in args.model}
    with console.progress("triton-repo") as update:
        for manifest in store.manifests():
            key = manifest.key
            if key.checkpoint not in names or key.precision != args.precision or _unfit(manifest, TENSORRT):
                continue
            root = Path(args.build_dir) / "engines"
            update(f"fetching {engine_path(root, key).name}", None)
            if not _is_here(engine_path(root, key), manifest):
                store.bring(manifest, root)


def _is_here(path: Path, manifest: Manifest) -> bool:
    from runtime.manifest import read_manifest

    try:
        return path.stat().st_size == manifest.size and read_manifest(path).sha256 == manifest.sha256
    except (FileNotFoundError, EngineMismatch):
        return False


def _filed(args: argparse.Namespace, model: Path) -> list[Path]:
    """The newest engine of the checkpoint for each GPU type. Raises InputError where there is none."""
    from engines.store import list_engines
    from runtime.flavors import TENSORRT
    from runtime.manifest import read_manifest

    newest: dict[str, tuple[str, Path]] = {}
    others: set[str] = set()
    for path in list_engines(Path(args.build_dir) / "engines"):
        try:
            manifest = read_manifest(path)
        except EngineMismatch:
            continue  # nobody could load it either
        if manifest.key.checkpoint != model.name or manifest.key.precision != args.precision:
            continue
        if reason := _unfit(manifest, TENSORRT):
            others.add(reason)
            continue
        capability = str(manifest.key.compute_capability)
        newest[capability] = max(newest.get(capability, ("", path)), (manifest.build.date, path))
    if not newest:
        but = f" (there is one, but {', '.join(sorted(others))})" if others else ""
        raise InputError(
            f"no {args.precision} engine of {model} for Triton is filed in {args.build_dir}/engines{but}: build it on "
            f"the GPU it is for, `cat2dog build --model {model} --precision {args.precision} --flavor tensorrt "
            "--batch 1-8`"
        )
    return [path for _, path in newest.values()]


def _unfit(manifest: Manifest, flavor: str) -> str:
    if manifest.key.flavor != flavor:
        return f"of {manifest.key.flavor}"
    if manifest.gate.state != "passed":
        return f"its gate is {manifest.gate.state}"
    return "for batches from 2 on" if manifest.key.batch[0] > 1 else ""
