"""`cat2dog sign`: vouch for engines, which run as code on the GPU of whoever loads them."""

from __future__ import annotations

import argparse

from cli import console, options
from runtime.errors import InputError

HELP = "sign engines, so that other machines can refuse those that nobody they trust has signed"
EXAMPLE = "cat2dog sign build/engines/*/tiny-128_*.engine --key release.pem"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument("engines", nargs="*", type=options.some_path, metavar="FILE.engine", help="what to sign")
    parser.add_argument("--key", type=options.some_path, metavar="FILE.pem", help="the private key")
    parser.add_argument(
        "--new-key", type=options.some_path, metavar="FILE.pem", help="make a private key, and FILE.pem.pub for others"
    )
    options.json_output(parser)


def run(args: argparse.Namespace) -> int:
    """Make a key, or sign."""
    from runtime.engine_file import engine_manifest
    from runtime.signing import new_key, sign

    if bool(args.new_key) == bool(args.key) or (args.key and not args.engines) or (args.new_key and args.engines):
        raise InputError("give engines and --key FILE.pem, or --new-key FILE.pem alone")
    if args.new_key:
        made = {"private_key": str(args.new_key), "public_key": str(new_key(args.new_key))}
        _tell(args, made, f"{args.new_key}: keep it to yourself; {made['public_key']}: give it to who runs engines")
        return 0
    for engine in args.engines:
        engine_manifest(engine)
        signature = sign(engine, args.key)
        _tell(args, {"engine": str(engine), "signature": str(signature)}, f"{engine}: signed, {signature.name}")
    return 0


def _tell(args: argparse.Namespace, facts: dict[str, str], text: str) -> None:
    if args.json:
        console.print_json(facts)
    else:
        print(text)
