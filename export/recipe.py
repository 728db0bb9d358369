"""What makes a model buildable: the recipe protocol, a ready-made recipe for any module, and loading by name."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from runtime.errors import InputError
from runtime.runner import TensorSpec

if TYPE_CHECKING:
    import torch

Feed = Mapping[str, np.ndarray]


@runtime_checkable
class Recipe(Protocol):
    """A model with all the toolchain needs to know of it. A class satisfies it by having these; nothing is imported.

    `inputs` and `outputs` name every tensor; a dimension of -1 is the batch. `module()` is in eval mode with FP32
    weights and takes the inputs in order. `judge` is a metric of `runtime.judge` and the threshold an engine must
    reach against `reference`. `identity()` names, in plain words, everything the ONNX file depends on: two equal
    identities export the same graph. A recipe may also have `words(outputs)`, a line of text for each sample's answer,
    and `picture(path, index)`, its own way from a picture file to one sample.
    """

    name: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    judge: tuple[str, float]

    def module(self) -> torch.nn.Module:
        """The module whose forward takes `inputs` and returns `outputs`, in order."""
        ...

    def validation(self, limit: int | None = None) -> dict[str, np.ndarray]:
        """Inputs to judge an engine by, batch first: at most `limit` samples."""
        ...

    def reference(self, feed: Feed) -> dict[str, np.ndarray]:
        """What the FP32 PyTorch model answers to `feed`."""
        ...

    def flops(self) -> int:
        """Floating-point operations of one sample."""
        ...

    def identity(self) -> dict[str, str]:
        """Everything the exported graph depends on, in plain words."""
        ...


@dataclass
class ModuleRecipe:
    """A recipe around any `torch.nn.Module`, for those who do not want to write a class.

    `build` makes the module with its weights; `sample(count, generator)` draws `count` validation samples (default:
    standard normal for floats, any byte for uint8). Floating-point operations are counted by torch's own counter.
    `words(outputs)` says a line of each sample's answer, and `picture(path, index)` reads a picture file as the sample
    at `index` of the one input, both for `cat2dog run`.

    >>> def factory():
    ...     return ModuleRecipe("tinynet", TinyNet, [TensorSpec("x", "float32", (-1, 3, 64, 64))],
    ...                         [TensorSpec("logits", "float32", (-1, 10))], judge=("cosine", 0.999))
    """

    name: str
    build: Callable[[], torch.nn.Module]
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    judge: tuple[str, float] = ("cosine", 0.999)
    sample: Callable[[int, np.random.Generator], dict[str, np.ndarray]] | None = None
    words: Callable[[Feed], list[str]] | None = None
    picture: Callable[[Path, int], np.ndarray] | None = None
    samples: int = 4
    seed: int = 0
    about: dict[str, str] = field(default_factory=dict)
    _module: torch.nn.Module | None = field(default=None, repr=False)
    # PyTorch's seed is one for all threads: two that build at once would draw each other's numbers.
    _building: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def module(self) -> torch.nn.Module:
        """The module in eval mode, made once, from a fixed seed."""
        import torch

        with self._building:
            if self._module is None:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(self.seed)
                    with _users_code(f"recipe '{self.name}'"):
                        self._module = self.build().eval()
            return self._module

    def validation(self, limit: int | None = None) -> dict[str, np.ndarray]:
        """`samples` seeded inputs, or `limit` if that is fewer."""
        count = self.samples if limit is None else min(limit, self.samples)
        generator = np.random.default_rng(self.seed)
        if self.sample:
            return self.sample(count, generator)
        return {spec.name: random_tensor(spec, count, generator) for spec in self.inputs}

    def reference(self, feed: Feed) -> dict[str, np.ndarray]:
        """The FP32 module's answer, one sample at a time so that memory stays that of one."""
        import torch

        module = self.module()
        rows = []
        with torch.inference_mode():
            for row in range(len(next(iter(feed.values())))):
                answer = module(
                    *(torch.from_numpy(np.ascontiguousarray(feed[s.name][row : row + 1])) for s in self.inputs)
                )
                rows.append([t.numpy() for t in (answer if isinstance(answer, (tuple, list)) else (answer,))])
        return {spec.name: np.concatenate([row[i] for row in rows]) for i, spec in enumerate(self.outputs)}

    def flops(self) -> int:
        """Counted by `torch.utils.flop_counter` over one sample."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        feed = self.validation(1)
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            self.module()(*(torch.from_numpy(feed[spec.name]) for spec in self.inputs))
        return int(counter.get_total_flops())

    def identity(self) -> dict[str, str]:
        """Weights and buffers by content, the module by its printed structure and by the source of its classes."""
        import hashlib

        module = self.module()
        digest = hashlib.sha256()
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch_uint8()).numpy().data)
        return {
            "recipe": self.name,
            "module": f"{type(module).__module__}.{type(module).__qualname__}",
            "structure_sha256": hashlib.sha256(repr(module).encode()).hexdigest(),
            "code_sha256": _code_sha256([self.build, *{type(part) for part in module.modules()}]),
            "weights_sha256": digest.hexdigest(),
            **self.about,
        }


def _code_sha256(objects: Sequence[Any]) -> str:
    """Content hash of the files that define these functions and classes; torch's own go by its version instead."""
    import hashlib

    sources = set()
    for each in objects:
        with contextlib.suppress(TypeError, OSError):  # built in, or typed at a prompt: no file to hash
            file = inspect.getsourcefile(each)
            if file and not (getattr(each, "__module__", None) or "").startswith("torch."):
                sources.add(Path(file).read_bytes())
    return hashlib.sha256(b"\0".join(sorted(sources))).hexdigest()


def torch_uint8() -> torch.dtype:
    """`torch.uint8`, imported late."""
    import torch

    return torch.uint8


def random_tensor(spec: TensorSpec, batch: int, generator: np.random.Generator) -> np.ndarray:
    """A random array for `spec` with its -1 dimensions set to `batch`: bytes, small integers or standard normals."""
    shape = tuple(batch if size == -1 else size for size in spec.shape)
    dtype = np.dtype(spec.dtype)
    if dtype == np.uint8:
        return generator.integers(0, 256, shape, dtype=np.uint8)
    if np.issubdtype(dtype, np.integer):
        return generator.integers(0, 2, shape).astype(dtype)
    if dtype == np.bool_:
        return generator.integers(0, 2, shape).astype(bool)
    return generator.standard_normal(shape, dtype=np.float32).astype(dtype)


@contextlib.contextmanager
def _users_code(what: str, *but: type[Exception]) -> Iterator[None]:
    """What a user's own code raises is theirs to mend: one line, and the traceback with --verbose."""
    try:
        yield
    except (InputError, *but):
        raise
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")[:300]
        raise InputError(f"{what} failed with {type(error).__name__}: {first}; --verbose shows where") from error


_MEMBERS = ("name", "inputs", "outputs", "judge", "module", "validation", "reference", "flops", "identity")


def load_recipe(target: str) -> Recipe:
    """The recipe that `package.module:factory` makes; the current folder is searched too, as Python itself would.

    Raises InputError when the module or factory is missing, or what it returns is not a recipe.
    """
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise InputError(
            f"recipe '{target}' is not of the form package.module:factory, for example mypackage.models:vit"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        with _users_code(f"recipe '{target}'", ModuleNotFoundError):
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise InputError(
                f"recipe '{target}' imports '{error.name}', which is not installed: pip install it"
            ) from error
        raise InputError(f"recipe '{target}': there is no module '{module_name}' here or installed") from error
    factory: Any = getattr(module, attribute, None)
    if not callable(factory):
        near = ", ".join(name for name in vars(module) if not name.startswith("_") and callable(vars(module)[name]))
        raise InputError(
            f"recipe '{target}': '{module_name}' has no factory '{attribute}'; it has: {near[:200] or 'none'}"
        )
    with _users_code(f"recipe '{target}'"):
        recipe = factory()
    missing = [member for member in _MEMBERS if not hasattr(recipe, member)]
    if missing:
        raise InputError(f"recipe '{target}' returned a {type(recipe).__name__} that lacks {', '.join(missing)}")
    _check_specs(target, [*recipe.inputs, *recipe.outputs])
    if not isinstance(recipe.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", recipe.name):
        raise InputError(
            f"recipe '{target}' is named '{recipe.name}'; a name is letters, digits, '.', '_' and '-', at most 100"
        )
    return recipe


def _check_specs(target: str, specs: Sequence[TensorSpec]) -> None:
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise InputError(f"recipe '{target}' gives one name to several tensors: {', '.join(names)}")
    for spec in specs:
        try:
            spec.numpy_dtype  # noqa: B018  raises for a name that numpy does not know
        except TypeError as error:
            raise InputError(f"recipe '{target}': '{spec.name}' is of unknown type '{spec.dtype}'") from error
