"""`python -m soak.fuzz TARGET --seconds 60 --corpus FOLDER`: one parser under atheris. `make fuzz` runs them all.

What makes a parser raise anything else than a refusal ends the run with exit code 77, and lies in the folder as
`crash-…`. Needs atheris, in an environment of its own: it wants its own Python and rewrites what is imported.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from importlib.metadata import version
from pathlib import Path

_REPORT_EVERY = 500


def main() -> None:
    """Fuzz until the time is up; then write `TARGET.json` with the counts, and exit."""
    parser = argparse.ArgumentParser(prog="python -m soak.fuzz", description="Fuzz one parser under coverage.")
    parser.add_argument("target", nargs="?")
    parser.add_argument("--list", action="store_true", help="print the names of all targets")
    parser.add_argument("--seconds", type=int, default=60, help="of CPU time, about (default: 60)")
    parser.add_argument("--corpus", type=Path, help="where inputs that reach new code are kept")
    args = parser.parse_args()
    if args.list:
        from soak.fuzz.targets import targets

        print(*targets(), sep="\n")
        return
    if args.target is None or args.corpus is None:
        parser.error("give a target and --corpus FOLDER, or --list")

    import atheris

    with atheris.instrument_imports(include=_watched()):
        from soak.fuzz.targets import targets, try_one

        target = targets()[args.target]
    args.corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (args.corpus / f"seed{number}").write_bytes(seed)
    taken = {"inputs": 0, "taken": 0}

    def one(data: bytes) -> None:
        taken["inputs"] += 1
        if taken["inputs"] % _REPORT_EVERY == 0:
            report()  # libFuzzer ends the process without a word to Python
        taken["taken"] += try_one(target, data)

    def report() -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = round(usage.ru_utime + usage.ru_stime, 1)
        facts = {"target": target.name, "cpu_seconds": cpu, **taken, "atheris": version("atheris")}
        args.corpus.with_suffix(".json").write_text(json.dumps(facts) + "\n")

    report()
    options = [f"-max_total_time={args.seconds}", "-max_len=8192", "-rss_limit_mb=1500", "-timeout=10"]
    options += [f"-artifact_prefix={args.corpus.parent}/crash-{target.name}-", "-print_final_stats=1", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, str(args.corpus)], one)
    atheris.Fuzz()


def _watched() -> list[str]:
    # Instrumented at import, so named before the targets are imported: our rooms, and what they lean on for parsing.
    return ["runtime", "cat2dog", "export", "engines", "serving", "zoo", "onnx_ir", "PIL"]


if __name__ == "__main__":
    main()
