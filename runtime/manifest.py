"""What is known about an engine: `X.json` beside `X.engine`.

A manifest may come from anywhere, so it is read strictly: bounded in size, every field of its type, none missing, none
more. What is wrong with one is an EngineMismatch, since an engine without a sound manifest is not used. The first field
of the file is its seal, the SHA-256 of all that follows: a flipped bit anywhere is seen, also one that leaves sound
JSON. (It is against accidents; `runtime.signing` is against people.)
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from runtime import files
from runtime.errors import EngineMismatch

SCHEMA = 2  # 2: the file has a seal
MAX_BYTES = 1 << 20

PRECISIONS = ("fp32", "fp16", "bf16")
ATTENTION_FORMS = ("plugin", "native", "decomposed", "auto", "none")
LINEAR_FORMS = ("plugin", "tensorrt")
GATE_STATES = ("passed", "failed", "pending")
TENSOR_MODES = ("input", "output")

_HEX = re.compile(r"[0-9a-f]{64}")
_CAPABILITY = re.compile(r"[0-9]{1,2}\.[0-9]")
# No folder, no hidden or temporary file, nothing a shell or terminal takes amiss.
_ENGINE_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,245}\.engine")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SEALED = re.compile(r'\{\n  "seal": "([0-9a-f]{64})",\n')
_LONGEST_TEXT = 4096
_LONGEST_LIST = 10_000

T = TypeVar("T")


@dataclass(frozen=True)
class EngineKey:
    """Everything that changes the plan, in plain words.

    `batch` is (min, opt, max). `gpu` and `compute_capability` are None and `targets` lists compute capabilities for a
    plan built ahead of time; otherwise `targets` is empty. `kernels` are hashes of the kernel images inside.
    `options` are builder options: names to texts, numbers or booleans.
    """

    checkpoint: str
    onnx_sha256: str
    weights_sha256: str
    precision: str
    attention: str
    flavor: str
    flavor_version: str
    batch: tuple[int, int, int] = (1, 1, 1)
    gpu: str | None = None
    compute_capability: str | None = None
    targets: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    options: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)

    @property
    def key8(self) -> str:
        """First 8 hex digits of the SHA-256 of the key as canonical JSON (sorted names, no spaces, ASCII)."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return files.sha256_text(canonical)[:8]


@dataclass(frozen=True)
class Gate:
    """What the accuracy gate found: the score of each validation sample `against` the reference.

    `metric` is one of `runtime.judge`; for images it is PSNR in dB, inf where equal. `proxy_scores` are those of the
    lowered ONNX in ONNX Runtime, where the plan itself could not be run.
    """

    state: str
    metric: str
    threshold: float
    against: str
    scores: tuple[float, ...] = ()
    proxy_scores: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Build:
    """How the plan came to be: seconds, peak memory in bytes, ISO date, the command that rebuilds it, versions used.

    `notes` are what the user should know of it: where the builder could not do what it was asked to.
    """

    seconds: float
    peak_memory_bytes: int
    date: str
    command: str
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineTensor:
    """One input or output of the plan; -1 in `shape` is dynamic."""

    name: str
    mode: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class AttentionChoice:
    """Which form an attention node took and why, with the milliseconds of each form where they were measured."""

    node: str
    form: str
    why: str = ""
    milliseconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LinearChoice:
    """Whether a linear layer is a fused kernel of ours or TensorRT's own, and why, with the milliseconds of either."""

    node: str
    form: str
    why: str = ""
    milliseconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The manifest of one engine; `engine` is its file name, `size` and `sha256` those of the plan's bytes."""

    engine: str
    sha256: str
    size: int
    key: EngineKey
    gate: Gate
    build: Build
    tensors: tuple[EngineTensor, ...] = ()
    attention: tuple[AttentionChoice, ...] = ()
    linear: tuple[LinearChoice, ...] = ()

    def to_json(self) -> str:
        """As stored: schema number first, two spaces of indent; an infinite score is the text "inf" or "-inf"."""
        fields = {"schema": SCHEMA, "engine": self.engine, "sha256": self.sha256, "size": self.size}
        content = {**fields, "key8": self.key.key8, **{k: v for k, v in asdict(self).items() if k not in fields}}
        return json.dumps(_without_infinity(content), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Strictly parsed. Raises ValueError, in one line, for anything `to_json` would not have written."""
        if len(text) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        try:
            content = json.loads(text, object_pairs_hook=_once_each, parse_constant=_no_constant)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        return _manifest(_Fields(content, "manifest"))


def manifest_path(engine: str | os.PathLike[str]) -> Path:
    """`X.json` beside `X.engine`."""
    return Path(engine).with_suffix(".json")


def write_manifest(engine: str | os.PathLike[str], manifest: Manifest) -> Path:
    """Write the manifest of `engine` beside it, whole or not at all. Raises ValueError for one that is not sound."""
    text = manifest.to_json()
    Manifest.from_json(text)
    path = manifest_path(engine)
    files.write_text(path, sealed(text))
    return path


def sealed(text: str) -> str:
    """The text of a manifest (`to_json`) as it is stored, with the seal before the other fields."""
    rest = text.removeprefix("{\n")
    return f'{{\n  "seal": "{files.sha256_text(rest)}",\n{rest}'


def _unsealed(text: str) -> str:
    match = _SEALED.match(text)
    if match is None:
        raise ValueError("it has no seal, as older versions wrote it")
    rest = text[match.end() :]
    if files.sha256_text(rest) != match[1]:
        raise ValueError("it was altered: its seal is of another text")
    return "{\n" + rest


def parse_manifest(data: bytes) -> Manifest:
    """The manifest that a manifest's file holds. Raises ValueError for one that is damaged."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    return Manifest.from_json(_unsealed(data.decode()))


def read_manifest(engine: str | os.PathLike[str]) -> Manifest:
    """The manifest beside `engine`. Raises EngineMismatch where it is missing or damaged."""
    path = manifest_path(engine)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        return parse_manifest(data)
    except FileNotFoundError as error:
        raise EngineMismatch(f"{engine} has no manifest {path.name} beside it; {rebuild_advice(engine)}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else _short(error)
        raise EngineMismatch(f"manifest {path} is damaged: {reason}; {rebuild_advice(engine)}") from error


def rebuild_advice(engine: str | os.PathLike[str], manifest: Manifest | None = None) -> str:
    """ "build it again: `…`": the manifest's own command, else one guessed from the file name."""
    if manifest is not None and manifest.build.command:
        return f"build it again: `{manifest.build.command}`"
    match = re.fullmatch(rf"([A-Za-z0-9.-]+)_({'|'.join(PRECISIONS)})_.*\.engine", Path(engine).name)
    if match is None:
        return "build it again with `cat2dog build`"
    return f"build it again: `cat2dog build --model models/{match[1]} --precision {match[2]}`"


class _Fields:
    """A JSON object whose fields are taken one by one, each checked; `done` refuses what is left."""

    def __init__(self, content: object, where: str):
        if not isinstance(content, dict):
            raise ValueError(f"{where} is {_kind(content)}, expected an object")
        self._content = dict(content)
        self._where = where

    def take(self, name: str, read: Callable[[object, str], T]) -> T:
        if name not in self._content:
            raise ValueError(f"{self._where} lacks '{name}'")
        return read(self._content.pop(name), f"{self._where}.{name}")

    def take_if_there(self, name: str, read: Callable[[object, str], T], otherwise: T) -> T:
        return self.take(name, read) if name in self._content else otherwise

    def done(self) -> None:
        for name in self._content:
            raise ValueError(f"{self._where} has an unknown field {_short(repr(name))}")


def _manifest(fields: _Fields) -> Manifest:
    schema = fields.take("schema", _integer)
    if schema != SCHEMA:
        raise ValueError(f"its schema is {schema}, this version reads {SCHEMA}")
    key8 = fields.take("key8", _text)
    manifest = Manifest(
        engine=fields.take("engine", _matching(_ENGINE_NAME, "a plain file name ending in .engine")),
        sha256=fields.take("sha256", _sha256),
        size=fields.take("size", _integer),
        key=fields.take("key", _key),
        gate=fields.take("gate", _gate),
        build=fields.take("build", _build),
        tensors=fields.take("tensors", _list(_tensor)),
        attention=fields.take("attention", _list(_attention)),
        # Manifests of before there was a choice lack it.
        linear=fields.take_if_there("linear", _list(_linear), ()),
    )
    fields.done()
    if key8 != manifest.key.key8:
        raise ValueError(f"its key8 is {_short(repr(key8))}, but its key gives '{manifest.key.key8}'")
    return manifest


def _key(value: object, where: str) -> EngineKey:
    fields = _Fields(value, where)
    key = EngineKey(
        checkpoint=fields.take("checkpoint", _text),
        onnx_sha256=fields.take("onnx_sha256", _sha256),
        weights_sha256=fields.take("weights_sha256", _sha256),
        precision=fields.take("precision", _one_of(PRECISIONS)),
        attention=fields.take("attention", _one_of(ATTENTION_FORMS)),
        flavor=fields.take("flavor", _text),
        flavor_version=fields.take("flavor_version", _text),
        batch=fields.take("batch", _batch),
        gpu=fields.take("gpu", _or_none(_text)),
        compute_capability=fields.take("compute_capability", _or_none(_capability)),
        targets=fields.take("targets", _list(_capability)),
        kernels=fields.take("kernels", _list(_text)),
        options=fields.take("options", _mapping(_scalar)),
    )
    fields.done()
    if not key.targets and (key.gpu is None or key.compute_capability is None):
        raise ValueError(f"{where} names neither targets nor a gpu with its compute_capability")
    return key


def _gate(value: object, where: str) -> Gate:
    fields = _Fields(value, where)
    gate = Gate(
        state=fields.take("state", _one_of(GATE_STATES)),
        metric=fields.take("metric", _text),
        threshold=fields.take("threshold", _number),
        against=fields.take("against", _text),
        scores=fields.take("scores", _list(_score)),
        proxy_scores=fields.take("proxy_scores", _list(_score)),
        note=fields.take("note", _text),
    )
    fields.done()
    return gate


def _build(value: object, where: str) -> Build:
    fields = _Fields(value, where)
    build = Build(
        seconds=fields.take("seconds", _number),
        peak_memory_bytes=fields.take("peak_memory_bytes", _integer),
        date=fields.take("date", _text),
        command=fields.take("command", _text),
        versions=fields.take("versions", _mapping(_text)),
        notes=fields.take("notes", _list(_text)),
    )
    fields.done()
    return build


def _tensor(value: object, where: str) -> EngineTensor:
    fields = _Fields(value, where)
    tensor = EngineTensor(
        name=fields.take("name", _text),
        mode=fields.take("mode", _one_of(TENSOR_MODES)),
        dtype=fields.take("dtype", _text),
        shape=fields.take("shape", _list(_dimension)),
    )
    fields.done()
    return tensor


def _attention(value: object, where: str) -> AttentionChoice:
    return AttentionChoice(**_choice(value, where, ATTENTION_FORMS))


def _linear(value: object, where: str) -> LinearChoice:
    return LinearChoice(**_choice(value, where, LINEAR_FORMS))


def _choice(value: object, where: str, forms: tuple[str, ...]) -> dict[str, Any]:
    """The fields that say which of `forms` a node took."""
    fields = _Fields(value, where)
    choice = {
        "node": fields.take("node", _text),
        "form": fields.take("form", _one_of(forms)),
        "why": fields.take("why", _text),
        "milliseconds": fields.take("milliseconds", _mapping(_number)),
    }
    fields.done()
    return choice


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} is {_kind(value)}, expected a text")
    if len(value) > _LONGEST_TEXT:
        raise ValueError(f"{where} has {len(value)} characters, expected at most {_LONGEST_TEXT}")
    if _CONTROL.search(value):
        raise ValueError(f"{where} has a control character")
    # A lone surrogate parses as JSON but can be neither printed nor hashed.
    if not value.isascii() and value.encode(errors="replace").decode() != value:
        raise ValueError(f"{where} is not valid Unicode")
    return value


def _integer(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{where} is {_kind(value)}, expected a whole number")
    if not 0 <= value < 1 << 63:
        raise ValueError(f"{where} is out of range, expected 0 to 2**63-1")
    return value


def _dimension(value: object, where: str) -> int:
    return -1 if value == -1 and isinstance(value, int) else _integer(value, where)


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where} is {_kind(value)}, expected a number")
    if not abs(value) < 1e300:
        raise ValueError(f"{where} is out of range, expected a finite number")
    return float(value)


def _score(value: object, where: str) -> float:
    infinite = {"inf": math.inf, "-inf": -math.inf}
    return infinite[value] if isinstance(value, str) and value in infinite else _number(value, where)


def _scalar(value: object, where: str) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, where)
    number = _number(value, where)
    return value if isinstance(value, int) else number


def _sha256(value: object, where: str) -> str:
    return _matching(_HEX, "64 hex digits")(value, where)


def _capability(value: object, where: str) -> str:
    return _matching(_CAPABILITY, 'a compute capability such as "9.0"')(value, where)


def _batch(value: object, where: str) -> tuple[int, int, int]:
    sizes = _list(_integer)(value, where)
    if len(sizes) != 3 or not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
        raise ValueError(f"{where} is {_short(list(sizes))}, expected [min, opt, max] in rising order from 1")
    return sizes[0], sizes[1], sizes[2]


def _one_of(allowed: tuple[str, ...]) -> Callable[[object, str], str]:
    def read(value: object, where: str) -> str:
        if _text(value, where) not in allowed:
            raise ValueError(f"{where} is {_short(repr(value))}, expected one of {', '.join(allowed)}")
        return str(value)

    return read


def _matching(pattern: re.Pattern[str], expected: str) -> Callable[[object, str], str]:
    def read(value: object, where: str) -> str:
        if not pattern.fullmatch(_text(value, where)):
            raise ValueError(f"{where} is {_short(repr(value))}, expected {expected}")
        return str(value)

    return read


def _or_none(read: Callable[[object, str], T]) -> Callable[[object, str], T | None]:
    return lambda value, where: None if value is None else read(value, where)


def _list(read: Callable[[object, str], T]) -> Callable[[object, str], tuple[T, ...]]:
    def read_all(value: object, where: str) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{where} is {_kind(value)}, expected a list")
        if len(value) > _LONGEST_LIST:
            raise ValueError(f"{where} has {len(value)} entries, expected at most {_LONGEST_LIST}")
        return tuple(read(entry, f"{where}[{index}]") for index, entry in enumerate(value))

    return read_all


def _mapping(read: Callable[[object, str], T]) -> Callable[[object, str], dict[str, T]]:
    def read_all(value: object, where: str) -> dict[str, T]:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {_kind(value)}, expected an object")
        return {
            _text(name, f"a name in {where}"): read(entry, f"{where}.{_short(name)}") for name, entry in value.items()
        }

    return read_all


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("it gives a field twice")
    return content


def _no_constant(text: str) -> None:
    raise ValueError(f"it holds {text}, which is not JSON")


def _without_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_infinity(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinity(entry) for entry in value]
    return {math.inf: "inf", -math.inf: "-inf"}.get(value, value) if isinstance(value, float) else value


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "an object")


def _short(value: object) -> str:
    text = " ".join(_CONTROL.sub("?", str(value)).split())
    return text if len(text) <= 200 else text[:200] + " …"
