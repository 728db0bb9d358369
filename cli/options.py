"""Options that several subcommands share, and what they mean."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from runtime.errors import InputError

PRECISIONS = ("fp32", "fp16", "bf16")
BUILD_VARIABLE = "CAT2DOG_BUILD"
DEFAULT_BUILD_FOLDER = "build"


def model(parser: argparse._ActionsContainer, help: str = "checkpoint folder, for example models/500m-256") -> None:
    """`--model`."""
    parser.add_argument("--model", type=some_path, metavar="FOLDER", help=help)


def model_or_recipe(parser: argparse.ArgumentParser) -> None:
    """`--model` or `--recipe`, one of them."""
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument(
        "--model", type=some_path, metavar="FOLDER", help="checkpoint folder, for example models/500m-256"
    )
    group.add_argument(
        "--recipe", metavar="PACKAGE.MODULE:FACTORY", help="a recipe of your own, instead of a checkpoint"
    )


def precision(parser: argparse.ArgumentParser) -> None:
    """`--precision`."""
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="fp16", help="of weights and activations (default: fp16)"
    )


def policy(parser: argparse.ArgumentParser) -> None:
    """`--policy`: FP32 islands of one's own."""
    parser.add_argument(
        "--policy",
        type=some_path,
        metavar="FILE.json",
        help="FP32 islands in place of export/policy.py's, as `cat2dog accuracy --search` writes them",
    )


def several(parser: argparse.ArgumentParser, name: str, metavar: str, about: str) -> None:
    """An option that takes one path each time it is given."""
    parser.add_argument(name, type=some_path, action="append", default=[], metavar=metavar, help=about)


def build_folder(parser: argparse.ArgumentParser) -> None:
    """`--build-dir`: where ONNX files, references and engines are kept."""
    parser.add_argument(
        "--build-dir",
        type=some_path,
        metavar="FOLDER",
        default=Path(os.environ.get(BUILD_VARIABLE) or DEFAULT_BUILD_FOLDER),
        help=f"where ONNX files, references and engines are kept (default: ${BUILD_VARIABLE} or build)",
    )


def store(parser: argparse.ArgumentParser) -> None:
    """`--store`: the engine store that machines share."""
    parser.add_argument(
        "--store",
        metavar="URL",
        default=os.environ.get("CAT2DOG_STORE") or None,
        help="engine store shared by machines, a folder or s3://bucket/prefix: one machine of a GPU type builds, the"
        " others fetch (default: $CAT2DOG_STORE, else none)",
    )


def json_output(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")


def opset(parser: argparse.ArgumentParser) -> None:
    """`--opset`."""
    parser.add_argument(
        "--opset", type=int, default=17, help="ONNX opset, 17 to 23 (default: 17, which TensorRT 8.6 reads)"
    )


class _SignedBy(argparse.Action):
    """Set the variable that the runtime reads, for this process and for those that it starts."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        from runtime.signing import VARIABLE

        os.environ[VARIABLE] = os.path.abspath(values)


def signed_by(parser: argparse.ArgumentParser) -> None:
    """`--signed-by`: only signed engines."""
    parser.add_argument(
        "--signed-by",
        type=some_path,
        action=_SignedBy,
        default=argparse.SUPPRESS,
        metavar="KEY.pub",
        help="load only engines signed by this key, or by one in this folder (default: $CAT2DOG_SIGNED_BY, else any)",
    )


def check_build_folder(folder: Path) -> None:
    """Raise InputError unless `folder` is, or can be made, a folder to write into."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"nothing can be kept in {folder}: give a --build-dir you may write to")


def some_path(text: str) -> Path:
    """A path argument; an empty one (an unset variable, most often) is not the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)
