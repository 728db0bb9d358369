"""How latents are adjusted while a picture is denoised: numbers alone, no torch. `latents.py` does it."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.errors import InputError


@dataclass(frozen=True)
class Adjustment:
    """What is done to the latents after each of the first `until` (share of all) steps.

    `centre`, 0 to 1, is the share of each channel's mean that is taken away: a channel that is off centre as a whole is
    a colour cast or a picture too dark or bright. `clamp`, in standard deviations (0: none), is where outliers of a
    channel begin to be pulled in: they become burnt or smeared spots. `contrast`, 1 to change nothing, scales what is
    around a channel's mean. Raises InputError for a value out of its bounds.
    """

    centre: float = 0.0
    clamp: float = 0.0
    contrast: float = 1.0
    until: float = 0.5

    def __post_init__(self) -> None:
        for name, least, most in (("centre", 0, 1), ("clamp", 0, 20), ("contrast", 0.1, 4), ("until", 0, 1)):
            value = getattr(self, name)
            if not least <= value <= most:  # also true of NaN
                raise InputError(f"{name} {value:g} was given; expected {least:g} to {most:g}")

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return (self.centre > 0 or self.clamp > 0 or self.contrast != 1) and self.until > 0


NONE = Adjustment()
