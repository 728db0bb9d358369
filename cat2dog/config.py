"""The shape of a cat2dog network: one frozen dataclass, its JSON, and the table of named checkpoints. No torch here."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.files import sha256_text

NORMS = ("layernorm", "rmsnorm")
MLPS = ("gelu", "swiglu")

# Configs come from strangers: every size is bounded here, before anything is allocated from it.
_MAX_CONFIG_BYTES = 1 << 20
_MAX_TOKENS = 1 << 16
_MAX_PARAMETERS = 20_000_000_000
_INTEGER_BOUNDS = {
    "resolution": (8, 8192),
    "patch": (1, 128),
    "width": (8, 16384),
    "depth": (1, 256),
    "heads": (1, 512),
}
_FLOAT_BOUNDS = {"rope_base": (1.0, 1e9), "mlp_ratio": (0.125, 16.0), "norm_eps": (1e-12, 0.1)}


@dataclass(frozen=True)
class Config:
    """Every switch of the network; made only if the network can exist, else InputError with the nearest good value.

    resolution, patch: side in pixels of the square image, and of one patch of it (one token each).
    width, depth, heads: channels of the residual stream, number of blocks, attention heads.
    norm: `layernorm` (gain and offset) or `rmsnorm` (gain). norm_eps is added to the variance or mean square.
    qk_norm: RMSNorm with a learned gain over each head's queries and keys.
    rope: 2-D axial rotary position embedding with base `rope_base`; without it a learned table is added to the tokens.
    mlp: `gelu` (up, GELU, down) or `swiglu` (down(silu(gate) * up)), `hidden` channels inside.
    bias: whether the linear layers have one.
    """

    resolution: int
    patch: int
    width: int
    depth: int
    heads: int
    norm: str = "layernorm"
    norm_eps: float = 1e-6
    qk_norm: bool = True
    rope: bool = True
    rope_base: float = 100.0
    mlp: str = "gelu"
    mlp_ratio: float = 4.0
    bias: bool = True

    def __post_init__(self) -> None:
        for name, (low, high) in _INTEGER_BOUNDS.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise InputError(f"{name} is {_shown(value)}; expected a whole number from {low} to {high}")
        for name, bounds in _FLOAT_BOUNDS.items():
            value = getattr(self, name)
            if type(value) not in (int, float) or not bounds[0] <= value <= bounds[1]:  # NaN fails the comparison
                raise InputError(f"{name} is {_shown(value)}; expected a number from {bounds[0]:g} to {bounds[1]:g}")
            object.__setattr__(self, name, float(value))
        for name in ("qk_norm", "rope", "bias"):
            if type(getattr(self, name)) is not bool:
                raise InputError(f"{name} is {_shown(getattr(self, name))}; expected true or false")
        for name, choices in (("norm", NORMS), ("mlp", MLPS)):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is {_shown(getattr(self, name))}; expected {' or '.join(map(repr, choices))}")
        if self.resolution % self.patch:
            good = max(1, round(self.resolution / self.patch)) * self.patch
            raise InputError(
                f"resolution {self.resolution} is not a multiple of patch {self.patch}; the nearest that is: {good}"
            )
        if self.tokens > _MAX_TOKENS:
            raise InputError(
                f"resolution {self.resolution} with patch {self.patch} makes {self.tokens} tokens; "
                f"expected at most {_MAX_TOKENS}: take a larger patch"
            )
        # RoPE turns pairs of channels, half of them by the row and half by the column.
        step = 4 if self.rope else 1
        if self.width % (self.heads * step):
            fitting = [h for h in range(1, self.width + 1) if self.width % (h * step) == 0]
            nearest = min(fitting, key=lambda h: abs(h - self.heads), default=None)
            advice = "widen it" if nearest is None else f"the nearest that does: {nearest}"
            what = f"into heads of a multiple of {step} channels, as RoPE needs" if step > 1 else "evenly"
            raise InputError(f"heads {self.heads} does not divide width {self.width} {what}; {advice}")
        if parameter_count(self) > _MAX_PARAMETERS:
            raise InputError(
                f"width {self.width} and depth {self.depth} make {parameter_count(self):,} parameters; "
                f"expected at most {_MAX_PARAMETERS:,}"
            )

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.resolution // self.patch

    @property
    def tokens(self) -> int:
        """Patches in the image."""
        return self.grid**2

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    @property
    def hidden(self) -> int:
        """Channels inside the MLP: mlp_ratio times width, to the nearest multiple of 8 (tensor cores want that)."""
        return max(8, 8 * round(self.mlp_ratio * self.width / 8))

    @property
    def patch_channels(self) -> int:
        """Numbers in one patch: rows, columns, RGB."""
        return 3 * self.patch**2

    def to_json(self) -> str:
        """Text of `config.json`: every switch, one a line; `Config.from_json` reads it back."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Read `to_json`'s text. Switches with a default may be left out; InputError on anything else than a config."""
        try:
            given: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f'config is not JSON ({error}); expected an object such as {{"width": 1280, ...}}'
            ) from None
        if not isinstance(given, dict):
            raise InputError(
                f'config is a JSON {type(given).__name__}; expected an object such as {{"width": 1280, ...}}'
            )
        known = [field.name for field in fields(cls)]
        for key in given:
            if key not in known:
                near = _nearest(key, known)
                raise InputError(f"config has the unknown key {_shown(key)}; did you mean {near!r}?")
        missing = [name for name in known[: len(_INTEGER_BOUNDS)] if name not in given]
        if missing:
            raise InputError(f"config lacks {', '.join(missing)}; expected at least {', '.join(_INTEGER_BOUNDS)}")
        return cls(**given)

    def sha256(self) -> str:
        """Hex SHA-256 of the config, independent of how its file is laid out."""
        return sha256_text(json.dumps(asdict(self), sort_keys=True))


def parameter_count(config: Config) -> int:
    """Exact number of parameters of `Cat2Dog(config)`, without making it."""
    width, bias = config.width, int(config.bias)
    norm = width * (2 if config.norm == "layernorm" else 1)
    attention = 4 * width**2 + 4 * width * bias + (2 * config.head_size if config.qk_norm else 0)
    into_hidden = 2 if config.mlp == "swiglu" else 1
    mlp = (into_hidden + 1) * width * config.hidden + (into_hidden * config.hidden + width) * bias
    embed = config.patch_channels * width + width * bias
    head = width * config.patch_channels + config.patch_channels * bias
    position = 0 if config.rope else config.tokens * width
    return embed + position + config.depth * (2 * norm + attention + mlp) + norm + head


_SIZES: dict[str, dict[str, Any]] = {
    "500m": {"width": 1280, "depth": 25, "heads": 20},
    "1b": {"width": 1792, "depth": 26, "heads": 14},
    "2b": {"width": 2304, "depth": 32, "heads": 18},
}

NAMED: dict[str, Config] = {
    "tiny-128": Config(resolution=128, patch=8, width=192, depth=7, heads=6),
    **{
        f"{size}-{resolution}": Config(resolution=resolution, patch=16, **shape)
        for size, shape in _SIZES.items()
        for resolution in (256, 512, 1024)
    },
}


def lookup(name: str) -> Config:
    """The config of a named checkpoint, such as `500m-256`; InputError naming the nearest if there is none."""
    if name not in NAMED:
        raise InputError(
            f"no checkpoint is named {_shown(name)}; did you mean {_nearest(name, NAMED)!r}? Known: {', '.join(NAMED)}"
        )
    return NAMED[name]


def nearest_name(name: str, others: Iterable[str] = ()) -> str:
    """The known checkpoint name, or one of `others`, that looks most like `name`."""
    return _nearest(name, [*others, *NAMED])


def load_config(folder: str | os.PathLike[str]) -> Config:
    """Read `folder/config.json`; InputError (one line, with the path) if it is missing or is no possible config."""
    path = Path(folder) / "config.json"
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; expected a checkpoint's config") from None
    if len(data) > _MAX_CONFIG_BYTES:
        raise InputError(f"{path} is over {_MAX_CONFIG_BYTES} bytes; expected a small JSON object")
    try:
        return Config.from_json(data.decode())
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; expected a small JSON object") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _shown(value: object) -> str:
    """`value` for a one-line message: quoted, and cut if a stranger made it long."""
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of over 60 digits"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _nearest(name: str, names: Iterable[str]) -> str:
    names = list(names)
    return max(names, key=lambda known: (difflib.SequenceMatcher(None, name[:100], known).ratio(), known))
