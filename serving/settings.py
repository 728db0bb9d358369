"""How a server is set up, in one frozen object."""

from __future__ import annotations

import errno
import socket
import sys
import sysconfig
import time
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.errors import InputError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Settings:
    """Ports of 0 are chosen among the free ones; `chosen` gives the settings with real ones.

    At most `queue` requests wait for each function, the next is refused at once. One that has waited `timeout` seconds
    is refused, too. A batch is waited for `gather` seconds while it is not full. `stop` bounds the seconds that it may
    take to answer what was accepted, after SIGTERM or Ctrl-C.
    """

    host: str = LOOPBACK
    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002
    page: int = 8080
    queue: int = 64
    timeout: float = 10.0
    gather: float = 0.001
    stop: float = 30.0

    def __post_init__(self) -> None:
        for name in ("http", "grpc", "metrics", "page"):
            if not 0 <= getattr(self, name) <= 65535:
                raise InputError(f"{name} port {getattr(self, name)} was given; expected 0 (any) to 65535")
        if not 1 <= self.queue <= 100_000:
            raise InputError(f"a queue of {self.queue} was given; expected 1 to 100000 requests")
        for name, most in (("timeout", 3600.0), ("stop", 3600.0), ("gather", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                raise InputError(f"{name} {getattr(self, name):g} s was given; expected 0 to {most:g}")
        if self.timeout == 0:
            raise InputError("timeout 0 s was given: every request would be refused; give some seconds")

    def chosen(self, patience: float = 0.0) -> Settings:
        """With free ports in place of 0.

        Raises InputError where a port is still taken after `patience` seconds, or `host` is not this machine's.
        """
        until = time.monotonic() + patience
        ports: dict[str, int] = {}
        for name in ("http", "grpc", "metrics", "page"):
            ports[name] = _free_port(self.host, getattr(self, name), name, set(ports.values()), until)
        return replace(self, **ports)  # type: ignore[arg-type]


def _free_port(host: str, port: int, name: str, taken: set[int], until: float) -> int:
    if port in taken:
        raise InputError(f"port {port} was given twice; every door needs one of its own")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            found = int(probe.getsockname()[1])
    except (OSError, UnicodeError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE and time.monotonic() < until:
            time.sleep(0.2)
            return _free_port(host, port, name, taken, until)
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen on {host}:{port} ({reason}); give another --host or --{name}-port") from error
    return found if found not in taken else _free_port(host, port, name, taken, until)


def libpython_folder() -> Path:
    """Where the shared library of this Python is, which Triton's Python backend loads.

    Raises InputError where this Python has none.
    """
    folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME")
    candidates = [Path(str(folder)) / str(name), Path(sys.base_prefix) / "lib" / str(name)]
    multiarch = sysconfig.get_config_var("MULTIARCH")
    candidates += [Path(str(folder)) / str(multiarch) / str(name), Path("/usr/lib") / str(multiarch) / str(name)]
    for candidate in candidates:
        if ".so" in candidate.name and candidate.is_file():
            return candidate.parent
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise InputError(
        f"{sys.executable} has no shared libpython{version}.so, which Triton's Python backend needs: install the "
        f"package libpython{version}, or take a Python that was built with --enable-shared"
    )
