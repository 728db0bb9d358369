"""Work that must be done in one thread, called from others."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


def in_this_thread(work: Callable[[Any], Any], body: Callable[[Callable[[Any], Any]], T]) -> T:
    """Run `body(call)` in a thread of its own; `call(x)`, from any thread, has this thread do `work(x)`.

    Returns what `body` returns; what `work` raises is raised by `call`, and what `body` raises here.
    """
    asked: queue.SimpleQueue[tuple[Any, Future[Any]] | None] = queue.SimpleQueue()

    def call(argument: Any) -> Any:
        answer: Future[Any] = Future()
        asked.put((argument, answer))
        return answer.result()

    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(body(call))
        except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
            result.set_exception(error)
        asked.put(None)

    thread = threading.Thread(target=run, name="handoff", daemon=True)
    thread.start()
    while (each := asked.get()) is not None:
        argument, answer = each
        try:
            answer.set_result(work(argument))
        except BaseException as error:  # noqa: BLE001 (raised again by `call`)
            answer.set_exception(error)
    thread.join()
    return result.result()
