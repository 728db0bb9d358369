"""Where engines lie and how an existing one is recognised."""

from __future__ import annotations

import re
from pathlib import Path

from runtime.engine_file import check_engine
from runtime.errors import AccuracyError, EngineMismatch, InputError
from runtime.flavors import Flavor
from runtime.manifest import EngineKey, Manifest

DEFAULT_ROOT = Path("build/engines")


def engine_folder(root: Path, key: EngineKey) -> Path:
    """`{gpu}_sm{cc}_{flavor}{version}`, or `aot-sm80-86_{flavor}{version}` for a plan built ahead of time."""
    made_by = f"{key.flavor}{short_version(key.flavor_version)}"
    if key.targets:
        return root / f"aot-sm{'-'.join(target.replace('.', '') for target in key.targets)}_{made_by}"
    capability = (key.compute_capability or "").replace(".", "")
    return root / f"{_slug(key.gpu or 'gpu')}_sm{capability}_{made_by}"


def engine_path(root: Path, key: EngineKey) -> Path:
    """`{checkpoint}_{precision}_{form}_b{min}-{max}_{key8}.engine` in its folder."""
    name = f"{key.checkpoint}_{key.precision}_{key.attention}_b{key.batch[0]}-{key.batch[2]}_{key.key8}.engine"
    return engine_folder(root, key) / name


def short_version(version: str) -> str:
    """`1.7.1` of `1.7.1.116`."""
    return ".".join(version.split(".")[:3])


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")


def find_engine(path: Path, flavor: Flavor, verify_hash: bool = False) -> Manifest | None:
    """The manifest of the sound engine at `path`, or None where it has to be built.

    Raises AccuracyError where it is sound and the gate refused it: building it again would not help.
    """
    try:
        return check_engine(path, flavor, None, verify_hash=verify_hash)
    except AccuracyError:
        raise
    except (EngineMismatch, InputError):
        return None


def list_engines(root: Path) -> list[Path]:
    """Every engine file under `root`, sorted; temporary files left out."""
    return sorted(path for path in root.glob("*/*.engine") if not path.name.startswith("."))
