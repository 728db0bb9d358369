"""`cat2dog verify`: are these engines what was built, and signed by whom?"""

from __future__ import annotations

import argparse

from cli import console, options
from runtime.errors import EngineMismatch

HELP = "check that engines are what was built and, with --signed-by, that someone you trust signed them"
EXAMPLE = "cat2dog verify build/engines/*/tiny-128_*.engine --signed-by release.pem.pub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument("engines", nargs="+", type=options.some_path, metavar="FILE.engine", help="what to check")
    options.signed_by(parser)
    options.json_output(parser)


def run(args: argparse.Namespace) -> int:
    """Check one after the other; the first that fails ends it."""
    import os

    from runtime.engine_file import engine_manifest
    from runtime.files import sha256_file
    from runtime.signing import VARIABLE, verify

    for engine in args.engines:
        manifest = engine_manifest(engine)
        if sha256_file(engine) != manifest.sha256:
            raise EngineMismatch(f"engine {engine} was altered: its hash is not that of its manifest")
        keys = os.environ.get(VARIABLE)
        by = verify(engine, manifest, keys) if keys is not None else None
        if args.json:
            console.print_json({"engine": str(engine), "sha256": manifest.sha256, "signed_by": by})
        else:
            print(f"{engine}: as it was built{f', signed by {by}' if by else ''}")
    return 0
