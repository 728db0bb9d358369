"""PyTriton's own half of each function, which runs inside Triton, with more patience than it has of itself.

Of a function with several instances the first starts a process that all share; the others wait one second for it, and
then the whole server does not start. On a busy machine that is too short.
"""

from __future__ import annotations

from pytriton.models.model import Model

_FILE = "communication.py"
_SHORT = b"def get_config_from_handshake_server(socket_path: pathlib.Path, timeout_s: float = 1.0)"
_LONG = _SHORT.replace(b"1.0", b"30.0")


def with_patience() -> None:
    """From now on, for all models of this process. Twice does no harm."""
    if getattr(Model, "_cat2dog_patient", False):
        return
    own = Model.get_proxy_model_files

    def files(model: Model) -> dict[str, bytes]:
        return {name: patient(name, content) for name, content in own(model).items()}

    Model.get_proxy_model_files = files
    Model._cat2dog_patient = True


def patient(name: str, content: bytes) -> bytes:
    """A file of the half in Triton; unchanged where it is not as PyTriton 0.7 has it."""
    return content.replace(_SHORT, _LONG) if name.endswith(_FILE) else content
