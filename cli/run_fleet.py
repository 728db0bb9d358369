"""`cat2dog run` through a folder or object-store prefix: resumable, in this process or on Ray's actors (`--ray`)."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from cli import compose, console, options
from runtime.errors import InputError, ToolchainError
from runtime.place import Folder, Place, is_url, open_place

if TYPE_CHECKING:
    from fleet.drive import Summary
    from fleet.task import Identity, Task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `cat2dog run` that this room answers to."""
    parser.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="run a folder or URL on Ray Data actors: of the cluster at ADDRESS (auto, ray://host:10001), else of one"
        " started here; resumes as --resume does",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="actors for --ray (default: one a GPU or core)")
    parser.add_argument(
        "--no-wait",
        action="store_true",
        help="with --store: while another machine builds the engine, run ONNX Runtime instead of waiting",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="leave out what is done in --output already, retry once what fails, list it in failed.json (always so with"
        " --ray, for URLs such as s3://bucket/cats, and where such a run has begun in --output)",
    )


def wanted(args: argparse.Namespace) -> bool:
    """Whether the arguments ask for a resumable run."""
    given = [*(args.input_image or ()), *([args.output] if args.output else [])]
    if args.ray or args.resume or args.workers is not None or any(is_url(each) for each in given):
        return True
    if args.output is None or len(given) != 2 or not (Path(given[0]).is_dir() and Path(args.output).is_dir()):
        return False
    from fleet.task import RUN_FILE

    return Path(args.output, RUN_FILE).is_file()


def run(args: argparse.Namespace) -> int:
    """Do what is left; failed pictures are named, in `failed.json` and here."""
    source, output = _places(args)
    if args.workers is not None and (args.workers < 1 or not args.ray):
        raise InputError(f"--workers {args.workers} was given; expected a positive number, with --ray")
    if args.psnr:
        raise InputError("--psnr compares pictures of one process: leave it out with --ray, --resume and URLs")
    if args.model is None and args.engine is None:
        raise InputError("give --model FOLDER (for example --model models/tiny-128) or --engine FILE.engine")
    if args.runner == "pytorch":
        raise InputError("--runner pytorch is the reference, for few pictures: leave it out with --ray and --resume")
    with contextlib.ExitStack() as stack:
        update = stack.enter_context(console.progress("run"))
        if isinstance(output, Folder):  # an object store has no locks; two runs there do the same work twice
            stack.enter_context(_alone(output))
        network, identity = _network(args, update)
        from fleet.task import open_task

        task = open_task(source, output, identity)
        summary = _drive(args, task, network, update)
    return _report(args, task, summary)


def _places(args: argparse.Namespace) -> tuple[Place, Place]:
    if len(args.input_image or ()) != 1 or args.output is None:
        raise InputError("--ray, --resume and URLs want one folder or URL as --input-image, and one as --output")
    given, target = args.input_image[0], args.output
    if not is_url(given) and not Path(given).is_dir():
        raise InputError(f"{given} is no folder: --ray and --resume are for folders and URLs such as s3://bucket/cats")
    if not is_url(target) and Path(target).exists() and not Path(target).is_dir():
        raise InputError(f"output {target} is no folder: give a folder or URL as --output")
    if str(given).rstrip("/") == str(target).rstrip("/") or (
        not is_url(given) and not is_url(target) and Path(given).resolve() == Path(target).resolve()
    ):
        raise InputError(f"the dogs would be written over the cats in {given}: give another --output")
    return open_place(given), open_place(target)


@contextlib.contextmanager
def _alone(output: Folder):  # type: ignore[no-untyped-def]
    import filelock

    from fleet.task import RUN_FILE
    from runtime.files import remove_leftovers

    try:
        output.root.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(output.root / f".{RUN_FILE}.lock")
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise ToolchainError(f"another run writes into {output.url}: wait for it, or give another --output") from error
    except OSError as error:
        raise InputError(f"output {output.url} cannot be written: {error.strerror}; give another --output") from error
    try:
        yield
        remove_leftovers(output.root)  # of workers that were killed
    finally:
        lock.release()


def _network(args: argparse.Namespace, update: console.Update) -> tuple[Path, Identity]:
    """The file that draws, and whose it is."""
    from cli.runners import network_file
    from fleet.task import Identity
    from runtime.engine_file import engine_manifest
    from runtime.files import sha256_file, sha256_text

    recipe = compose.recipe_of(args, update) if args.model else None
    path = network_file(args, recipe, update)
    if path.suffix == ".engine":
        key = engine_manifest(path).key
        return path, Identity(key.checkpoint, key.precision, key.onnx_sha256, key.weights_sha256)
    assert recipe is not None
    data = path.with_name(f"{path.name}.data")
    weights = sha256_file(data) if data.exists() else sha256_text("")
    return path, Identity(recipe.name, args.precision, sha256_file(path), weights)


def _drive(args: argparse.Namespace, task: Task, network: Path, update: console.Update) -> Summary:
    from fleet.drive import drive
    from fleet.in_process import in_process
    from fleet.opening import open_network

    if not task.todo:
        return drive(task, lambda pairs, company: iter(()), update)
    provider = args.provider or "cpu"
    if not args.ray:
        update("loading", None)
        with in_process(lambda: open_network(network, provider), task.source, task.output) as execute:
            return drive(task, execute, update)
    from fleet.on_ray import RayPool
    from fleet.opening import FromStore, Shipped
    from runtime.engine_file import engine_manifest

    update("starting Ray's workers", None)
    gpu = network.suffix == ".engine" or provider == "cuda"
    with RayPool(args.ray, args.workers, gpu) as pool:
        opening: Shipped | FromStore = pool.ship(network, provider, threads=1)
        if args.store and network.suffix == ".engine":  # then each machine takes the one of its own GPU
            opening = FromStore(args.store, engine_manifest(network).key)
        return drive(task, pool.executor(opening, task.source, task.output), update)


def _report(args: argparse.Namespace, task: Task, summary: Summary) -> int:
    from fleet.task import FAILED_FILE

    if args.json:
        failed = {name: vars(each) for name, each in task.given_up.items()}
        console.print_json({**vars(summary), "output": task.output.url, "failures": failed})
    else:
        rate = summary.done / summary.seconds if summary.seconds else 0.0
        print(
            f"{task.output.url}: {summary.done} pictures in {summary.seconds:.1f} s ({rate:.1f} a second), "
            f"{summary.done_before} done before, {summary.failed} failed"
        )
    if summary.failed:
        name, failure = next(iter(sorted(task.given_up.items())))
        raise InputError(
            f"{summary.failed} of {summary.pictures} pictures failed twice, such as {name} ({failure.reason}); all are "
            f"in {task.output.url}/{FAILED_FILE}: delete it, to try them again"
        )
    return 0


def place_argument(text: str) -> Path | str:
    """A path, or a URL as it is (a Path would take a slash from it)."""
    return text if is_url(text) else options.some_path(text)
