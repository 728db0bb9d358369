"""An engine from the store that machines share: fetched, or built by one machine of its kind while the others wait."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from engines.lease import Lease, wait_for
from engines.process import Progress
from engines.remote_store import RemoteStore, lease_name
from runtime.errors import EngineMismatch
from runtime.manifest import EngineKey

# Silence after which a builder counts as dead. A live one renews four times in it.
LEASE_SECONDS = 60.0
POLL_SECONDS = 2.0


def obtain(
    store: RemoteStore,
    key: EngineKey,
    root: Path,
    build: Callable[[], Path],
    progress: Progress = lambda phase, fraction: None,
    wait: bool = True,
    lease_seconds: float = LEASE_SECONDS,
    poll_seconds: float = POLL_SECONDS,
) -> tuple[Path | None, bool]:
    """The engine of `key` under `root`, and whether this call built it; `build` makes and files it there.

    Of all that ask at once, one builds and publishes; the others wait for it and fetch, or with `wait` False get None
    at once, to run something else meanwhile. A plan in the store that is not what was built is built again and
    replaced. Raises what `build` raises, and ToolchainError where the one that was waited for failed.
    """
    owner = f"{socket.gethostname()} process {os.getpid()}"
    lease = Lease(store.place, lease_name(key), owner, lease_seconds)
    found: list[Path] = []
    unsound: set[str] = set()  # plans that were fetched in vain, which a second time would be as unsound

    def ready() -> bool:
        sha256 = ""
        try:
            manifest = store.manifest(key)
            sha256 = manifest.sha256 if manifest else ""
            path = store.bring(manifest, root) if manifest and sha256 not in unsound else None
        except EngineMismatch as error:
            unsound.add(sha256)
            progress(f"not taken from the store: {error}", None)
            return False
        if path is not None:
            found.append(path)
        return path is not None

    if not wait:
        if ready():
            return found[0], False
        lease.look()
        taken = lease.take()
        if not taken:
            return None, False
    else:
        taken = wait_for(
            lease, ready, poll_seconds, lambda holder: progress(f"waiting for {holder}, which builds it", None)
        )
    if not taken:
        return found[0], False
    with lease:
        path = build()
        progress("sharing the engine", None)
        store.publish(path)
    return path, True
