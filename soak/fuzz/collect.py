"""`python -m soak.fuzz.collect FOLDER …`: what fuzzing found, as a small corpus and one result file.

Each FOLDER holds what `python -m soak.fuzz` left: `TARGET/` and `TARGET.json`. Of each target the inputs are kept that
are taken or refused with a text of its own, the shortest of each, up to some tens; with them whatever made it crash.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from soak.fuzz.targets import Target, targets
from soak.result import measured

CORPUS = Path(__file__).resolve().parents[2] / "tests/reliability/corpus"
_MOST_INPUTS, _MOST_BYTES = 40, 4096


def outcome(target: Target, data: bytes) -> str:
    """How the parser ends, with numbers and names left out: inputs that end alike need be kept once."""
    try:
        target.parse(data)
        return "taken"
    except target.refusals as error:
        return re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "#", str(error))[:60]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the corpus and the counts."""
    parser = argparse.ArgumentParser(prog="python -m soak.fuzz.collect", description="What fuzzing found.")
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, help="result file (default: bench/results/reliability/fuzz.json)")
    args = parser.parse_args(arguments)
    known = targets()

    def work() -> dict[str, Any]:
        rows: dict[str, dict[str, Any]] = {name: {"target": name, "cpu_seconds": 0.0, "inputs": 0} for name in known}
        for folder in args.folders:
            for path in folder.glob("*.json"):
                facts = json.loads(path.read_text())
                row = rows[facts["target"]]
                row["cpu_seconds"] = round(row["cpu_seconds"] + facts["cpu_seconds"], 1)
                row["inputs"] += facts["inputs"]
                row["atheris"] = facts["atheris"]
        for name, target in known.items():
            rows[name]["kept"] = _keep(target, args.folders)
        seconds = round(sum(row["cpu_seconds"] for row in rows.values()), 1)
        inputs = sum(row["inputs"] for row in rows.values())
        return {"targets": len(rows), "cpu_seconds": seconds, "inputs": inputs, "rows": list(rows.values())}

    measured("fuzz", work, args.output)
    return 0


def _keep(target: Target, folders: Sequence[Path]) -> int:
    shortest: dict[str, bytes] = {}
    for folder in folders:
        for path in [*(folder / target.name).glob("*"), *folder.glob(f"crash-{target.name}-*")]:
            data = path.read_bytes()
            how = path.name if path.name.startswith("crash-") else outcome(target, data)
            if len(data) <= _MOST_BYTES and len(data) < len(shortest.get(how, bytes(_MOST_BYTES + 1))):
                shortest[how] = data
    kept = sorted(shortest.values(), key=len)[:_MOST_INPUTS]
    place = CORPUS / target.name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for number, data in enumerate(kept):
        (place / f"{number:02}").write_bytes(data)
    return len(kept)


if __name__ == "__main__":
    sys.exit(main())
