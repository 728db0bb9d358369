"""PyTriton's own half of each function, which runs inside Triton, changed in two places while it is handed over.

Of a function with several instances the first starts a process that all share; the others wait one second for it, and
then the whole server does not start: on a busy machine that is too short. And nobody tells a stream function that its
client has left: it goes on for nobody, and a stop waits for it. So a file is made then, whose name is a parameter.
"""

from __future__ import annotations

from pytriton.models.model import Model

# By file: what PyTriton 0.7 has, and what stands there instead.
_CHANGES: dict[str, tuple[tuple[str, str], ...]] = {
    "communication.py": (
        (
            "def get_config_from_handshake_server(socket_path: pathlib.Path, timeout_s: float = 1.0)",
            "def get_config_from_handshake_server(socket_path: pathlib.Path, timeout_s: float = 30.0)",
        ),
    ),
    "model.py": (
        (
            "            parameters=json.loads(triton_request.parameters()),\n",
            "            parameters=_with_mark(triton_request, self._model_config),\n",
        ),
        (
            "class TritonRequestsServer:\n",
            """_MARKS = {}


def _with_mark(request, config):
    parameters = json.loads(request.parameters())
    if config.get("model_transaction_policy", {}).get("decoupled", False):
        folder = pathlib.Path(config["parameters"]["workspace-path"]["string_value"])
        _MARKS[id(request)] = parameters["left"] = (folder / f"{os.urandom(8).hex()}.left").as_posix()
    return parameters


async def _watch(requests, senders):
    loop = asyncio.get_running_loop()
    for request, sender in zip(requests, senders):
        mark = _MARKS.pop(id(request), None)
        while mark is not None and not await loop.run_in_executor(None, sender.is_cancelled):
            await asyncio.sleep(0.2)
        if mark is not None:
            pathlib.Path(mark).touch()


class TritonRequestsServer:
""",
        ),
        (
            "        triton_senders = [request.get_response_sender() for request in triton_requests]\n",
            "        triton_senders = [request.get_response_sender() for request in triton_requests]\n"
            "        watching = loop.create_task(_watch(triton_requests, triton_senders))\n",
        ),
        (
            "                if eos:\n                    triton_flags =",
            "                if eos:\n                    watching.cancel()\n                    triton_flags =",
        ),
    ),
}


def with_changes() -> None:
    """From now on, for all models of this process. Twice does no harm."""
    if getattr(Model, "_cat2dog_changed", False):
        return
    own = Model.get_proxy_model_files

    def files(model: Model) -> dict[str, bytes]:
        return {name: changed(name, content) for name, content in own(model).items()}

    Model.get_proxy_model_files = files
    Model._cat2dog_changed = True


def changed(name: str, content: bytes) -> bytes:
    """A file of the half in Triton; as it is where it is not PyTriton 0.7's."""
    changes = _CHANGES.get(name.rpartition("/")[2], ())
    text = content.decode()
    if not all(text.count(before) == 1 for before, _ in changes):
        return content
    for before, after in changes:
        text = text.replace(before, after)
    return text.encode()
