"""Which picture goes where: input files paired with output files, all checked before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import InputError
from runtime.images import OUTPUT_SUFFIXES, check_output, find_images


@dataclass(frozen=True)
class Picture:
    """One input file and the file its dog is written to."""

    source: Path
    target: Path


def pair(inputs: Sequence[Path], output: Path | None) -> list[Picture]:
    """Files and folders paired with outputs: one file to `output`, several into the folder `output`, as PNG.

    Without `output` it is `out.png` for one picture and the folder `out` for several. Raises InputError for missing
    inputs, two inputs with one output, and outputs that cannot be written; nothing is left behind.
    """
    sources = find_images(inputs)
    single = len(sources) == 1 and not inputs[0].is_dir()
    if single and (output is None or (output.suffix.lower() in OUTPUT_SUFFIXES and not output.is_dir())):
        return [Picture(sources[0], check_output(_not_a_source(output or Path("out.png"), sources)))]
    if output is not None and not output.is_dir() and output.suffix:
        if single:
            check_output(output)  # names the formats that could be written
        raise InputError(f"{len(sources)} pictures cannot be written to one file {output}; give a folder as --output")
    folder = output or Path("out")
    taken: dict[Path, Path] = {}
    for source in sources:
        target = folder / f"{source.stem}.png"
        if target in taken:
            raise InputError(f"{taken[target]} and {source} would both be written to {target}; run them one at a time")
        taken[_not_a_source(target, sources)] = source
    check_output(next(iter(taken)))
    return [Picture(source, target) for target, source in taken.items()]


def _not_a_source(target: Path, sources: Sequence[Path]) -> Path:
    if target.exists() and any(target.samefile(source) for source in sources):
        raise InputError(f"the dog would be written over the cat {target}: give another --output")
    return target
