"""Ahead-of-time compilation: a kernel's source and constants to a cubin, on a machine that needs no GPU.

One pinned version of each compiler makes what is tuned and what ships the same bytes. Results are kept in a folder,
each under a name that is a hash of everything that decides them, so that a machine without the compilers (a GPU machine
with another Python, say) can use what another one compiled. How this file calls a compiler is not hashed: who changes
that writes it into `compiler` of the recipe.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import InputError, MissingExtra, ToolchainError
from runtime.files import sha256_file, sha256_text, write_bytes, write_text

FOLDER_VARIABLE = "CAT2DOG_KERNELS"
DEFAULT_FOLDER = Path("build/kernels")
TRITON = "3.7.1"
NVRTC = "13.0.88"
_HERE = Path(__file__).resolve().parent
_MOST_BYTES = 64 << 20
# What stands before every CUDA C++ file.
_COMMON = "half.cuh"

Constants = Mapping[str, int | float | bool]


@dataclass(frozen=True)
class Compiled:
    """A cubin with what a launch of its kernel `name` needs: dynamic `shared` bytes and `threads` a block."""

    data: bytes
    name: str
    shared: int
    threads: int


def folder() -> Path:
    """Where compiled kernels are kept: $CAT2DOG_KERNELS, or build/kernels."""
    return Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)


def compiler_versions() -> dict[str, str]:
    """The pinned compilers, which may or may not be installed here."""
    return {"triton": TRITON, "nvrtc": NVRTC}


def triton_kernel(
    function: str, signature: Mapping[str, str], constants: Constants, target: str, warps: int
) -> Compiled:
    """`function` of attention_triton.py for compute capability `target` ("9.0").

    `signature` names the types of all arguments that are no constants, in Triton's words. Raises InputError without the
    compiler, ToolchainError where it fails.
    """
    recipe = {
        "source": _source("attention_triton.py"),
        "function": function,
        "signature": dict(signature),
        "constants": dict(constants),
        "target": target,
        "warps": warps,
        "compiler": f"triton {TRITON}",
    }
    return _kept(recipe, lambda: _compile_triton(function, signature, constants, target, warps))


def cuda_kernel(
    source: str, prelude: str, names: Sequence[str], constants: Constants, target: str, shared: int, threads: int
) -> list[Compiled]:
    """The kernels `names` of one CUDA C++ file of this folder for compute capability `target` ("9.0").

    From 9.0 on with the instructions of that architecture alone (sm_90a).
    """
    architecture = _architecture(target)
    recipe = {
        "source": _source(source),
        "common": _source(_COMMON),
        "prelude": sha256_text(prelude),
        "constants": dict(constants),
        "target": architecture,
        "compiler": f"nvrtc {NVRTC}",
    }
    text = "".join([(_HERE / _COMMON).read_text("utf-8"), prelude, (_HERE / source).read_text("utf-8")])
    one = _kept(
        recipe, lambda: Compiled(_compile_cuda(source, text, constants, architecture), names[0], shared, threads)
    )
    return [Compiled(one.data, name, shared, threads) for name in names]


def has_kept(target: str) -> bool:
    """Whether an image is kept that the sources and compilers of today would make for this compute capability.

    What older ones made is never asked for again.
    """
    compilers = {f"{name} {version}" for name, version in compiler_versions().items()}
    sources = {_source(path.name) for path in (*_HERE.glob("*.cu"), _HERE / "attention_triton.py")}
    common = _source(_COMMON)
    for path in folder().glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):  # damaged: not kept
            recipe = json.loads(path.read_text("utf-8"))["recipe"]
            today = recipe["compiler"] in compilers and recipe["source"] in sources
            today = today and recipe.get("common", common) == common
            if today and recipe["target"] in (target, _architecture(target)) and path.with_suffix(".cubin").is_file():
                return True
    return False


def _architecture(target: str) -> str:
    return f"sm_{target.replace('.', '')}{'a' if is_exact(target) else ''}"


def is_exact(target: str) -> bool:
    """Whether images for `target` run on that compute capability alone; those for 8.x run on later ones too."""
    return not target.startswith("8.")


@functools.cache
def _source(name: str) -> str:
    return sha256_file(_HERE / name)


def _kept(recipe: Mapping[str, Any], make: Any) -> Compiled:
    path = folder() / f"{sha256_text(json.dumps(recipe, sort_keys=True))[:32]}.cubin"
    kept = _read(path)
    if kept is not None:
        return kept
    compiled = make()
    facts = {"name": compiled.name, "shared": compiled.shared, "threads": compiled.threads}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, memoryview(compiled.data))
        # Last: a cubin without it counts as absent.
        write_text(path.with_suffix(".json"), json.dumps({**facts, "sha256": _sha256(compiled.data), "recipe": recipe}))
    except OSError as error:
        raise ToolchainError(f"cannot write {path}: {error.strerror or error}") from error
    return compiled


def _read(path: Path) -> Compiled | None:
    """What is kept, or None where it is absent or damaged: it is compiled again then."""
    try:
        facts = json.loads(path.with_suffix(".json").read_text("utf-8"))
        if path.stat().st_size > _MOST_BYTES:
            return None
        data = path.read_bytes()
        if _sha256(data) != facts["sha256"]:
            return None
        return Compiled(data, str(facts["name"]), int(facts["shared"]), int(facts["threads"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def why_not(*compilers: str) -> str:
    """Why these compilers cannot be used here, or ""."""
    for package, pinned in (("triton", TRITON), ("nvidia-cuda-nvrtc", NVRTC)):
        if compilers and package.rsplit("-", 1)[-1] not in compilers:
            continue
        try:
            have = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return f"{package} {pinned} is not installed: pip install {package}=={pinned}"
        if have != pinned:
            return f"{package} {have} is installed, kernels are compiled with {pinned}: pip install {package}=={pinned}"
    return ""


def _need(compiler: str) -> None:
    reason = why_not(compiler)
    if reason:
        raise InputError(f"this kernel has to be compiled and {reason}")


def _compile_triton(
    function: str, signature: Mapping[str, str], constants: Constants, target: str, warps: int
) -> Compiled:
    _need("triton")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from engines.kernels import attention_triton

    kernel = getattr(attention_triton, function)
    names = kernel.arg_names
    types = {name: signature.get(name, "constexpr") for name in names}
    # TensorRT's tensors and workspace lie on 256-byte boundaries; 16 is what the widest load asks for.
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if types[name].startswith("*")}
    source = ASTSource(kernel, types, {(names.index(name),): value for name, value in constants.items()}, aligned)
    capability = int(target.replace(".", ""))
    knobs = triton.knobs
    with tempfile.TemporaryDirectory(prefix="cat2dog-triton-") as scratch, knobs.cache.scope():
        with knobs.compilation.scope():
            knobs.cache.dir = scratch
            # Line numbers carry the path of this checkout into the cubin; the same source must give the same bytes.
            knobs.compilation.disable_line_info = True
            try:
                made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
            except Exception as error:
                reason = " ".join(str(error).split())[-300:]
                raise ToolchainError(f"Triton {TRITON} cannot compile {function} for {target}: {reason}") from error
    scratch_bytes = made.metadata.global_scratch_size + made.metadata.profile_scratch_size
    if scratch_bytes:
        raise ToolchainError(f"{function} for {target} asks for {scratch_bytes} bytes of scratch; none is given")
    return Compiled(made.asm["cubin"], made.metadata.name, made.metadata.shared, made.metadata.num_warps * 32)


def _compile_cuda(name: str, text: str, constants: Constants, architecture: str) -> bytes:
    _need("nvrtc")
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise MissingExtra("cuda-bindings", "compiling CUDA C++", "cuda-bindings") from error

    def call(result: tuple[Any, ...]) -> Any:
        if int(result[0]) != 0:
            raise ToolchainError(f"NVRTC {NVRTC} failed at {name}: {result[0].name}{_log(nvrtc, program)}")
        return result[1] if len(result) > 1 else None

    program = None
    program = call(nvrtc.nvrtcCreateProgram(text.encode(), name.encode(), 0, [], []))
    try:
        options = [
            f"-arch={architecture}",
            "-std=c++17",
            *(f"-D{key}={int(value)}" for key, value in constants.items()),
        ]
        call(nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options]))
        data = bytes(call(nvrtc.nvrtcGetCUBINSize(program)))
        call(nvrtc.nvrtcGetCUBIN(program, data))
        return data
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _log(nvrtc: Any, program: Any) -> str:
    if program is None:
        return ""
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = bytes(size)
    nvrtc.nvrtcGetProgramLog(program, log)
    errors = [line for line in log.decode(errors="replace").splitlines() if "error" in line]
    return f": {errors[0][:300]}" if errors else ""
