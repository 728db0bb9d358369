"""`cat2dog store`: what the engine store holds, and its garbage."""

from __future__ import annotations

import argparse

from cli import console, options
from runtime.errors import InputError

HELP = "list the engines of the store that machines share, check them, or delete plans that nothing names"
EXAMPLE = "cat2dog store list --store s3://bucket/engines"
_DAY = 24 * 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument(
        "action",
        choices=("list", "drop", "collect"),
        help="list: the engines; drop: forget those of --checkpoint or --before; collect: delete plans of no engine",
    )
    parser.add_argument("--checkpoint", metavar="NAME", help="engines of this checkpoint alone")
    parser.add_argument("--before", metavar="DATE", help="engines built before this day (2026-01-31) alone")
    parser.add_argument(
        "--grace-days",
        type=float,
        default=1.0,
        metavar="DAYS",
        help="collect: how old a plan must be (default: 1; a younger one may get its manifest yet)",
    )
    options.store(parser)
    options.json_output(parser)


def run(args: argparse.Namespace) -> int:
    """Do the action; what was listed or deleted is printed."""
    from engines.remote_store import RemoteStore, manifest_name
    from runtime.manifest import Manifest

    if not args.store:
        raise InputError("give --store URL, or set CAT2DOG_STORE")
    store = RemoteStore(args.store)

    def chosen(manifest: Manifest) -> bool:
        return (args.checkpoint in (None, manifest.key.checkpoint)) and (
            args.before is None or manifest.build.date < args.before
        )

    if args.action == "collect":
        if args.grace_days < 0:
            raise InputError(f"--grace-days {args.grace_days:g} was given; expected 0 or more")
        return _print(args, "deleted", store.collect(args.grace_days * _DAY))
    if args.action == "drop":
        if args.checkpoint is None and args.before is None:
            raise InputError("drop what? give --checkpoint NAME or --before DATE")
        return _print(args, "dropped", store.drop(chosen))
    found = sorted(filter(chosen, store.manifests()), key=lambda each: manifest_name(each.key))
    rows = [
        (manifest_name(each.key), each.key.gpu or ", ".join(each.key.targets), each.size / 1e6, each.gate.state,
         each.build.date) for each in found
    ]  # fmt: skip
    if args.json:
        console.print_json(
            [{"name": row[0], "gpu": row[1], "mb": row[2], "gate": row[3], "date": row[4]} for row in rows]
        )
    else:
        console.table(store.url, ("engine", "GPU", "MB", "gate", "built"), rows)
    return 0


def _print(args: argparse.Namespace, word: str, names: list[str]) -> int:
    if args.json:
        console.print_json({word: names})
    else:
        print("\n".join(f"{word} {name}" for name in names) or f"nothing {word}")
    return 0
