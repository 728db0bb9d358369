"""A server of `toys.py`, as a process: `python -m tests.serving.toy_server` with `serving.arguments`' options."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time

from serving.arguments import add_arguments, settings_of
from serving.host import Host, one_log, stopped_by_signals
from serving.log import JsonLog
from tests.serving.toys import Count, Shout


class SlowToWarm(Shout):
    """Takes as long as the environment says."""

    def warm_up(self) -> None:
        time.sleep(float(os.environ.get("TOY_WARM_SECONDS", "0")))
        super().warm_up()


def main() -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    settings = settings_of(parser.parse_args())
    log = JsonLog()
    with contextlib.ExitStack() as stack:
        stack.enter_context(one_log(log))
        host = Host([SlowToWarm(), Count()], settings, log)
        stack.callback(host.close)
        stack.enter_context(stopped_by_signals(host))
        host.start()
        return host.wait()


if __name__ == "__main__":
    sys.exit(main())
