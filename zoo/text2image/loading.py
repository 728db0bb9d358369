"""A folder, or a name on the Hugging Face hub, to a diffusers pipeline: safetensors only, no code of its own."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.errors import InputError, MissingExtra
from zoo.text2image.folder import components

DTYPES = ("auto", "float32", "float16", "bfloat16")
DEVICES = ("auto", "cpu", "cuda")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")


def open_pipeline(source: str, device: str = "auto", dtype: str = "auto", allow_download: bool = False) -> Any:
    """The text-to-image pipeline in the folder `source`, on `device`, in eval mode.

    `auto` takes a GPU where there is one, and then FP16 for a UNet, BF16 for a transformer; FP32 on a CPU. A name on
    the hub is looked up in the local cache, and downloaded only with `allow_download`. Raises InputError for what is no
    such pipeline or unsafe to load, MissingExtra without diffusers.
    """
    import torch

    diffusers = quiet_diffusers()
    folder = _folder_of(source, allow_download)
    have = components(folder)
    where = place(device)
    with loading(source):
        kind = _text_to_image(diffusers, source, folder)
        expected, _ = kind._get_signature_keys(kind)
        pipeline = kind.from_pretrained(
            str(folder),
            dtype=getattr(torch, _dtype(dtype, where, "transformer" in have)),
            # What the folder leaves out (SD3 without its T5) is left out; the pipeline says what it cannot do without.
            **{name: None for name in expected if name not in have},
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(where)


def place(device: str) -> str:
    """`cpu` or `cuda`. Raises InputError for another, or a GPU that is not there."""
    import torch

    if device not in DEVICES:
        raise InputError(f"device '{device}' is not one of {', '.join(DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("PyTorch finds no CUDA GPU here; give --device cpu")
    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def quiet_diffusers() -> Any:
    """The package diffusers, with its and transformers' notes and bars off stderr. Raises MissingExtra."""
    try:
        import diffusers
        import transformers
    except ImportError as error:
        raise MissingExtra("diffusers", "text to image", "'cat2dog[text2image]'") from error
    for package in (diffusers, transformers):
        package.utils.logging.set_verbosity_error()
        package.utils.logging.disable_progress_bar()
    return diffusers


@contextlib.contextmanager
def loading(source: object) -> Iterator[None]:
    """Whatever the libraries raise at a damaged folder, as one line."""
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemError) as error:  # two libraries' and their parsers' own kinds
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{source} cannot be loaded: {reason}") from error


def _folder_of(source: str, allow_download: bool) -> Path:
    folder = Path(source)
    if source and folder.is_dir():
        return folder
    if not _HUB_NAME.fullmatch(source) or folder.exists():
        raise InputError(f"'{source}' is no folder; expected a diffusers pipeline's folder, or OWNER/NAME on the hub")
    from diffusers import DiffusionPipeline

    with loading(
        source if allow_download else f"'{source}', which is not in the local cache (--allow-download gets it),"
    ):
        return Path(
            DiffusionPipeline.download(
                source, local_files_only=not allow_download, use_safetensors=True, trust_remote_code=False
            )
        )


def _text_to_image(diffusers: Any, source: str, folder: Path) -> Any:
    """The class that makes pictures of texts with what the folder holds, whatever pipeline it was saved from."""
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING, _get_task_class

    name = diffusers.DiffusionPipeline.load_config(str(folder), local_files_only=True)["_class_name"]
    try:
        return _get_task_class(AUTO_TEXT2IMAGE_PIPELINES_MAPPING, name)
    except ValueError as error:
        raise InputError(f"{source} is a {name}, of which diffusers knows no text-to-image form") from error


def _dtype(dtype: str, where: str, is_transformer: bool) -> str:
    if dtype not in DTYPES:
        raise InputError(f"dtype '{dtype}' is not one of {', '.join(DTYPES)}")
    if dtype != "auto":
        return dtype
    return "float32" if where == "cpu" else "bfloat16" if is_transformer else "float16"
