"""Import of other people's weights: `.pt` (tensors only, never code) or `.safetensors`, with a map of names."""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cat2dog.checkpoint import save
from cat2dog.config import Config
from cat2dog.folder import refuse_existing
from cat2dog.model import parameter_shapes
from cat2dog.safetensors_file import read_entries
from cat2dog.tensors import map_tensors
from runtime.errors import InputError

_NESTED = ("state_dict", "model_state_dict", "model", "module", "ema")
_PREFIXES = ("module.", "_orig_mod.")
_MAX_MAP_BYTES = 1 << 24
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def convert(
    weights: str | os.PathLike[str],
    config: Config,
    folder: str | os.PathLike[str],
    key_map: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Make the checkpoint `folder` from the weights at `weights`, renamed by `key_map`.

    key_map: {"their.name": "our.name"}; `{i}` in both stands for any whole number, the same in both, so that
    {"layers.{i}.attn.qkv.weight": "blocks.{i}.attention.qkv.weight"} names every block's. Several placeholders may be
    used ({i}, {j}). Names that the map does not mention are kept.
    Raises InputError: one line if the file is not weights (a pickle with code is refused, never run), and one that
    lists every missing, extra and wrong-shaped key if they do not fit. Nothing is left behind then.
    """
    refuse_existing(folder, overwrite)
    theirs = _read(Path(weights))
    ours = rename(theirs, key_map or {})
    wanted = parameter_shapes(config)
    _check(Path(weights), ours, wanted)
    save(folder, config, ((name, ours[name]) for name in wanted), overwrite=overwrite)


def load_key_map(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read a key map from a JSON file; InputError if it is not an object of strings."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_MAP_BYTES + 1)
        given: Any = json.loads(data)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; expected a JSON key map") from None
    except (ValueError, RecursionError):
        raise InputError(f'{path} is not a JSON key map; expected {{"their.name": "our.name", ...}}') from None
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise InputError(f'{path} is not a key map; expected {{"their.name": "our.name", ...}}')
    return given


def rename(tensors: Mapping[str, Tensor], key_map: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors under our names; InputError if the map is unsound or gives two tensors one name."""
    exact = {theirs: ours for theirs, ours in key_map.items() if "{" not in theirs}
    patterns = [(theirs, _pattern(theirs, ours), ours) for theirs, ours in key_map.items() if "{" in theirs]
    renamed: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    for theirs, tensor in tensors.items():
        name = exact.get(theirs, theirs)
        if theirs not in exact:
            for _, pattern, ours in patterns:
                if match := pattern.fullmatch(theirs):
                    name = re.sub(r"\{(\w+)\}", lambda found, m=match: m[found[1]], ours)  # type: ignore[misc]
                    break
        if name in renamed:
            raise InputError(f"the key map names both {sources[name]!r} and {theirs!r} {name!r}; expected one of them")
        renamed[name], sources[name] = tensor, theirs
    return renamed


def _pattern(theirs: str, ours: str) -> re.Pattern[str]:
    places = re.findall(r"\{([A-Za-z_]\w*)\}", theirs)
    unknown = set(re.findall(r"\{(\w*)\}", ours)) - set(places)
    if unknown or not places or len(set(places)) != len(places):
        raise InputError(
            f"the key map's {theirs!r}: {ours!r} is unsound; expected each placeholder such as {{i}} once on the left"
        )
    parts = re.split(r"\{([A-Za-z_]\w*)\}", theirs)
    return re.compile("".join(f"(?P<{part}>[0-9]+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)))


def _read(path: Path) -> dict[str, Tensor]:
    if path.is_dir() or not path.exists():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}; expected weights, .pt or .safetensors")
    if path.suffix == ".safetensors":
        return _without_prefixes(map_tensors(path, read_entries(path)))
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; expected weights, .pt or .safetensors")
    return _without_prefixes(_state_dict(path, _load_pt(path)))


def _load_pt(path: Path) -> Any:
    """What torch.save wrote, tensors and plain containers only; the tensors are mapped where the format allows it."""
    with open(path, "rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    if is_zip:
        _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: what cannot be read raises
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        # Torch's own words come last, after advice that speaks of globals whatever went wrong.
        if re.search(
            r"\b(global|class|instantiate|reduce)\b", str(error).rpartition("WeightsUnpickler error:")[2], re.I
        ):
            raise InputError(
                f"{path} holds code or objects besides tensors, which is never run; expected a state_dict: "
                "save model.state_dict() instead"
            ) from None
        raise InputError(f"{path} is not weights that torch.save wrote; expected .pt or .safetensors") from None
    except (
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OSError,
        MemoryError,
        OverflowError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"{path} cannot be read as .pt weights ({reason}); copy or save it again") from None


def _check_archive(path: Path) -> None:
    """Raise InputError for an archive that is compressed: what lies there is mapped, and taken as numbers."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = next((each for each in archive.infolist() if each.compress_type != zipfile.ZIP_STORED), None)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path} cannot be read as .pt weights ({reason}); copy or save it again") from None
    if packed is not None:
        raise InputError(f"{path} is a compressed archive, as torch.save writes none; save the weights again")


def _state_dict(path: Path, loaded: Any) -> dict[str, Tensor]:
    """The mapping of names to tensors, also where a trainer put it inside another."""
    for _ in range(4):
        if not isinstance(loaded, dict):
            break
        if loaded and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in loaded.items()):
            return loaded
        inner = next((loaded[key] for key in _NESTED if isinstance(loaded.get(key), dict)), None)
        if inner is None:
            break
        loaded = inner
    raise InputError(
        f"{path} holds no state_dict, alone or under {', '.join(_NESTED)}; expected a mapping of names to tensors"
    )


def _without_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what DataParallel and torch.compile put before every name."""
    names = list(tensors)
    while prefix := next((p for p in _PREFIXES if names and all(name.startswith(p) for name in names)), None):
        names = [name[len(prefix) :] for name in names]
    return dict(zip(names, tensors.values(), strict=True))


def _check(path: Path, ours: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
    missing = [f"  missing: {name} {list(shape)}" for name, shape in wanted.items() if name not in ours]
    extra = [f"  extra: {name} {list(tensor.shape)}" for name, tensor in ours.items() if name not in wanted]
    wrong = [
        f"  wrong shape: {name} {list(ours[name].shape)}, expected {list(shape)}"
        for name, shape in wanted.items()
        if name in ours and tuple(ours[name].shape) != shape
    ]
    types = [
        f"  wrong type: {name} {str(ours[name].dtype).removeprefix('torch.')}, expected floating point"
        for name in wanted
        if name in ours and (ours[name].dtype not in _FLOATS or ours[name].layout != torch.strided)
    ]
    if problems := missing + extra + wrong + types:
        raise InputError(
            f"{path} does not fit the config: {len(missing)} missing, {len(extra)} extra, {len(wrong)} of wrong shape, "
            f"{len(types)} of wrong type; mend the key map or the config\n" + "\n".join(problems)
        )
    if unsound := [name for name in wanted if not torch.isfinite(ours[name]).all()]:
        raise InputError(f"{path}: {len(unsound)} tensors hold NaN or infinite values, the first is {unsound[0]}")
