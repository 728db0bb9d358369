"""Train a demo checkpoint: `python -m training.train --model tiny-128 --out runs/tiny --minutes 7`.

Go on later with `--resume runs/tiny/state.safetensors`; where only the checkpoint was kept, with
`--resume runs/tiny/checkpoint --spent-minutes 7`, which loses no more than the optimiser's moments. Pairs are drawn by
worker processes while the network trains, or come from `--shards` (python -m training.shards).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path

from runtime.errors import InputError, ToolchainError
from runtime.files import write_text

# Nothing heavy up here: the drawing processes import this file again when they start.


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", default="tiny-128", help="tiny-128, small-256, another named checkpoint, or a folder"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for state, checkpoint, curve and samples")
    parser.add_argument("--minutes", type=float, default=7.0, help="how long this run trains, default 7")
    parser.add_argument("--total-minutes", type=float, help="how long all resumed runs train; default --minutes")
    parser.add_argument("--steps", type=int, help="end after this many steps in all, instead of after --minutes")
    parser.add_argument("--resume", type=Path, help="a state.safetensors, or a checkpoint folder, to go on from")
    parser.add_argument(
        "--spent-minutes", type=float, default=0.0, help="trained already, of a checkpoint to go on from"
    )
    parser.add_argument("--batch", type=int, default=256, help="pairs in one step, default 256")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate, default 0.0015")
    parser.add_argument("--shards", type=Path, help="folder of pairs drawn beforehand")
    parser.add_argument("--workers", type=int, help="drawing processes; default one a core but two; 0 with --shards")
    parser.add_argument("--capacity", type=int, default=200_000, help="most pairs kept, default 200000")
    parser.add_argument("--seed", type=int, default=0, help="of weights and choices, default 0")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--no-compile", action="store_true", help="do not torch.compile (it is only done on cuda)")
    return parser


def _plan(options: argparse.Namespace):
    import torch

    from training.loop import Plan

    if min(options.minutes, options.rate, options.batch, options.capacity) <= 0 or (options.steps or 1) < 1:
        raise InputError("--minutes, --steps, --rate, --batch and --capacity must be above 0")
    total = options.total_minutes or options.minutes
    if options.spent_minutes and not (options.resume and options.resume.is_dir()):
        raise InputError("--spent-minutes is for --resume with a checkpoint folder: a state.safetensors knows it")
    if total < options.minutes:
        raise InputError(f"--total-minutes {total:g} is less than --minutes {options.minutes:g}: give at least that")
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda was asked for, but PyTorch sees no GPU here: give --device cpu")
    workers = options.workers
    if workers is None:
        workers = 0 if options.shards else max(1, (os.cpu_count() or 2) - 2)
    return Plan(
        out=options.out,
        batch=options.batch,
        rate=options.rate,
        minutes=options.minutes,
        total_minutes=total,
        steps=options.steps,
        shards=options.shards,
        workers=workers,
        capacity=options.capacity,
        first_batch=max(options.batch, min(2048, options.capacity)) if device == "cuda" else options.batch,
        seed=options.seed,
        device=device,
        spent_minutes=options.spent_minutes,
        compiled=device == "cuda" and not options.no_compile,
    )


def main(arguments: list[str] | None = None) -> int:
    options = _arguments().parse_args(arguments)
    try:
        import torch

        from training.configs import config_of
        from training.loop import train
        from training.run_record import run_record

        plan = _plan(options)
        config = config_of(options.model)
        torch.set_float32_matmul_precision("high")
        terminal = sys.stdout.isatty()
        spoken = [0.0]

        def say(record, line: str) -> None:
            if terminal:
                print(f"\r{record.seconds:6.0f} s  {line}   ", end="", flush=True)
            elif record.seconds - spoken[0] >= 15:  # a log wants a line now and then, not a thousand
                spoken[0] = record.seconds
                print(f"{record.seconds:6.0f} s  {line}", flush=True)

        record = train(config, plan, options.resume, say)
        if terminal:
            print()
        given = sys.argv[1:] if arguments is None else arguments
        command = shlex.join(["python", "-m", "training.train", *given])
        write_text(plan.out / "run.json", json.dumps(run_record(command, record, plan.device), indent=2) + "\n")
        loss = f"{record.history[-1][1]:.4f}" if record.history else "not measured yet"
        print(
            f"{options.out}: step {record.step}, {record.seconds:.0f} s of training, "
            f"{record.pictures} pictures, loss {loss}"
        )
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\ninterrupted; go on with --resume {options.out / 'state.safetensors'}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
