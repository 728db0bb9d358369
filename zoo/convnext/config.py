"""What a ConvNeXt is made of, and what follows from it: parameters and multiply-accumulates."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.errors import InputError
from zoo.convnext.activations import ACTIVATIONS

EXPANSION = 4
_STEM, _KERNEL = 4, 7
_MOST = {"blocks": 64, "channels": 2048, "resolution": 1024, "classes": 100_000}
_MOST_PARAMETERS = 1 << 30


@dataclass(frozen=True)
class Config:
    """Blocks and channels of each stage, pixels a side, classes, and an activation of ACTIVATIONS.

    The input size is fixed: norms have a weight for every position. Raises InputError for what cannot be built.
    """

    blocks: tuple[int, ...] = (3, 3, 9, 3)
    channels: tuple[int, ...] = (64, 96, 128, 256)
    resolution: int = 224
    classes: int = 200
    activation: str = "gelu"

    def __post_init__(self) -> None:
        if not self.blocks or len(self.blocks) != len(self.channels):
            raise InputError(f"{len(self.blocks)} stages have blocks and {len(self.channels)} channels; give as many")
        each = {"resolution": (self.resolution,), "classes": (self.classes,)}
        for name, values in {"blocks": self.blocks, "channels": self.channels, **each}.items():
            for value in values:
                if not isinstance(value, int) or not 1 <= value <= _MOST[name]:
                    raise InputError(f"{name} {value} of a ConvNeXt; expected 1 to {_MOST[name]}")
        step = _STEM * 2 ** (len(self.blocks) - 1)
        if self.resolution % step:
            raise InputError(f"resolution {self.resolution} of a ConvNeXt; expected a multiple of {step}")
        if self.activation not in ACTIVATIONS:
            raise InputError(f"activation '{self.activation}'; expected one of {', '.join(ACTIVATIONS)}")
        if (count := parameter_count(self)) > _MOST_PARAMETERS:
            raise InputError(f"a ConvNeXt of {count} parameters; expected at most {_MOST_PARAMETERS}: take fewer")

    def side(self, stage: int) -> int:
        """Positions a side in a stage."""
        return self.resolution // (_STEM * 2**stage)


def parameter_count(config: Config) -> int:
    """Trainable parameters, biases and norms included."""
    first = config.channels[0]
    total = 3 * first * _STEM**2 + first + 2 * first * config.side(0) ** 2
    for stage, (blocks, d) in enumerate(zip(config.blocks, config.channels, strict=True)):
        wide, area = EXPANSION * d, config.side(stage) ** 2
        block = wide * _KERNEL**2 + wide + 2 * wide * area + wide * wide + wide + wide * d + d
        total += blocks * block
        if stage + 1 < len(config.blocks):
            total += 2 * d * area + d * config.channels[stage + 1] * 4 + config.channels[stage + 1]
    last = config.channels[-1]
    return total + 2 * last + last * config.classes + config.classes


def macs(config: Config) -> int:
    """Multiply-accumulates of one image in convolutions and the head; norms and activations are not counted."""
    total = 3 * config.channels[0] * _STEM**2 * config.side(0) ** 2
    for stage, (blocks, d) in enumerate(zip(config.blocks, config.channels, strict=True)):
        wide, area = EXPANSION * d, config.side(stage) ** 2
        total += blocks * area * (wide * _KERNEL**2 + wide * wide + wide * d)
        if stage + 1 < len(config.blocks):
            total += 4 * d * config.channels[stage + 1] * config.side(stage + 1) ** 2
    return total + config.channels[-1] * config.classes


FULL = Config()
# For tests and demonstrations on a CPU: the same parts, 32 px.
TINY = Config(blocks=(1, 1), channels=(16, 32), resolution=32)
