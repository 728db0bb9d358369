"""A server of `toys.py`, as a process: `python -m tests.serving.toy_server` with `serving.arguments`' options."""

from __future__ import annotations

import argparse
import os
import sys
import time

from serving import start
from serving.arguments import add_arguments
from tests.serving.toys import Count, Shout


class SlowToWarm(Shout):
    """Takes as long as the environment says."""

    def warm_up(self) -> None:
        time.sleep(float(os.environ.get("TOY_WARM_SECONDS", "0")))
        super().warm_up()


def main() -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return start.run(lambda stack, log: [SlowToWarm(), Count()], parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
