"""What every test starts from."""

from __future__ import annotations

import contextlib
import signal

with contextlib.suppress(ImportError):  # the serving environment has no hypothesis
    from hypothesis import settings

    # A busy machine is no fault of what is tested.
    settings.register_profile("house", settings(), deadline=None)
    settings.load_profile("house")


def pytest_configure() -> None:
    """Ctrl-C reaches tests and their children also where the run was started in the background of a shell.

    Such a shell starts commands with SIGINT ignored; Python then installs no handler, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
