"""The plugin library that launches fused kernels inside engines: where it is, and how a process takes it in.

`make plugin` builds one for each major version of TensorRT; an engine with fused attention or linear layers of ours
needs it while it is built and wherever it runs.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from runtime.errors import InputError
from runtime.manifest import Manifest

VARIABLE = "CAT2DOG_PLUGIN"


def plugin_name(flavor_version: str) -> str:
    """File name of the library for a TensorRT version ("8.6.1")."""
    return f"libcat2dog_plugin_trt{flavor_version.split('.')[0]}.so"


def find_plugin(flavor_version: str) -> Path:
    """The library for a TensorRT version: what CAT2DOG_PLUGIN names, else `build/plugin/` beside this package or here.

    Raises InputError where there is none.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_file():
            raise InputError(
                f"{VARIABLE}={named}: no such file; expected the plugin library, as `make plugin` builds it"
            )
        return Path(named).absolute()
    name = plugin_name(flavor_version)
    for root in (Path(__file__).resolve().parent.parent, Path.cwd()):
        path = root / "build" / "plugin" / name
        if path.is_file():
            return path
    raise InputError(
        f"a fused kernel needs build/plugin/{name}, which is not there: `make plugin` builds it "
        f"(or let {VARIABLE} name one)"
    )


def needs_plugin(manifest: Manifest) -> bool:
    """Whether an engine has nodes that the plugin library runs; one of the form `plugin` may have none that fitted."""
    forms = [choice.form for choice in manifest.attention] + [choice.form for choice in manifest.linear]
    return "plugin" in forms


def is_plugin(path: str | os.PathLike[str]) -> bool:
    """Whether a library is called like ours."""
    return Path(path).name.startswith("libcat2dog_plugin")


def load_plugin(path: str | os.PathLike[str]) -> None:
    """Load a plugin library into this process, after TensorRT. It stays until the process ends; twice does no harm.

    A library registers its plugins when it is loaded; ours is asked to do so again, since it could not if it was there
    before TensorRT. Raises InputError where it cannot be loaded or is for another TensorRT.
    """
    try:
        library = ctypes.CDLL(os.fspath(path), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise InputError(f"plugin library {path} cannot be loaded: {error}") from error
    register = getattr(library, "cat2dog_register", None)
    if register is not None and register() != 0:
        raise InputError(
            f"plugin library {path} is not for the TensorRT in this process; build it against the headers of that: "
            "`make plugin`"
        )
