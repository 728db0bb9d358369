"""Asks the server: pictures in, pictures out, over Triton's gRPC; waiting, async, or piece by piece.

    python -m serving.client images/img1.jpg dog.png
    python -m serving.client --function text2image --set prompt="a dog" --set steps=4 --progress dog.png

In Python: `Client(url).ask("cat2dog", {"image": data, "format": "jpeg"})["dog"]`. It needs
`tritonclient[grpc]` and numpy, and nothing else of this project.
"""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Iterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np

Value = bytes | str | int | float | bool

_OK = 200
_BUSY = 503
_TIMED_OUT = 504
# gRPC's own limits on one message are 4 MB; a picture may be larger.
_CHANNEL = [("grpc.max_send_message_length", 1 << 30), ("grpc.max_receive_message_length", 1 << 30)]


class ServerRefused(Exception):
    """The server's answer is no: `status` with HTTP's meaning, `reason` one line of what to do."""

    def __init__(self, status: int, reason: str):
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason

    @property
    def is_busy(self) -> bool:
        """Whether trying again later may help."""
        return self.status in (_BUSY, _TIMED_OUT)


class Client:
    """A connection to Triton's gRPC port. Threads may share it, but for `stream`, which takes it alone.

    `timeout` bounds the seconds of each request.
    """

    def __init__(self, url: str = "127.0.0.1:8001", timeout: float = 60.0):
        import tritonclient.grpc as triton

        self._url = url
        self._timeout = timeout
        self._triton = triton
        self._client = triton.InferenceServerClient(url, channel_args=_CHANNEL)
        self._types: dict[str, dict[str, str]] = {}

    def is_ready(self, function: str = "cat2dog") -> bool:
        """Whether the server is there, and the function loaded and warm."""
        try:
            return bool(self._client.is_server_ready() and self._client.is_model_ready(function))
        except self._triton.InferenceServerException:
            return False

    def ask(self, function: str, values: Mapping[str, Value], id: str = "") -> dict[str, Value]:
        """The function's outputs. Raises ServerRefused."""
        try:
            inputs = inputs_of(self._triton, values, self._types_of(function))
            result = self._client.infer(function, inputs, client_timeout=self._timeout, parameters=_parameters(id))
        except self._triton.InferenceServerException as fault:
            raise refused(fault) from fault
        return outputs_of(result)

    def stream(self, function: str, values: Mapping[str, Value], id: str = "") -> Iterator[dict[str, Value]]:
        """Each answer of a stream function (`text2image_stream`) as it comes. Raises ServerRefused, also midway."""
        try:
            inputs = inputs_of(self._triton, values, self._types_of(function), batched=False)
        except self._triton.InferenceServerException as fault:
            raise refused(fault) from fault
        answers: queue.Queue[Any] = queue.Queue()
        self._client.start_stream(lambda result, error: answers.put((result, error)))
        try:
            self._client.async_stream_infer(
                function,
                inputs,
                enable_empty_final_response=True,
                parameters=_parameters(id),
            )
            while True:
                try:
                    result, error = answers.get(timeout=self._timeout)
                except queue.Empty:
                    raise ServerRefused(_TIMED_OUT, f"nothing came from the server for {self._timeout:g} s") from None
                if error is not None:
                    raise refused(error)
                if _has_outputs(result):
                    yield outputs_of(result)
                if _is_final(result):
                    return
        finally:
            self._client.stop_stream(cancel_requests=True)

    def _types_of(self, function: str) -> dict[str, str]:
        if function not in self._types:
            metadata = self._client.get_model_metadata(function, client_timeout=self._timeout)
            self._types[function] = {each.name: each.datatype for each in metadata.inputs}
        return self._types[function]

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """As `Client`, for asyncio."""

    def __init__(self, url: str = "127.0.0.1:8001", timeout: float = 60.0):
        import tritonclient.grpc as triton
        import tritonclient.grpc.aio as aio

        self._timeout = timeout
        self._triton = triton
        self._client = aio.InferenceServerClient(url, channel_args=_CHANNEL)
        self._types: dict[str, dict[str, str]] = {}

    async def is_ready(self, function: str = "cat2dog") -> bool:
        """As `Client.is_ready`."""
        try:
            return bool(await self._client.is_server_ready() and await self._client.is_model_ready(function))
        except self._triton.InferenceServerException:
            return False

    async def ask(self, function: str, values: Mapping[str, Value], id: str = "") -> dict[str, Value]:
        """As `Client.ask`."""
        try:
            inputs = inputs_of(self._triton, values, await self._types_of(function))
            result = await self._client.infer(
                function, inputs, client_timeout=self._timeout, parameters=_parameters(id)
            )
        except self._triton.InferenceServerException as fault:
            raise refused(fault) from fault
        return outputs_of(result)

    async def stream(self, function: str, values: Mapping[str, Value], id: str = "") -> AsyncIterator[dict[str, Value]]:
        """As `Client.stream`; several streams may be read at once."""
        try:
            inputs = inputs_of(self._triton, values, await self._types_of(function), batched=False)
        except self._triton.InferenceServerException as fault:
            raise refused(fault) from fault
        request = {
            "model_name": function,
            "inputs": inputs,
            "enable_empty_final_response": True,
            "parameters": _parameters(id),
        }

        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield request

        call = self._client.stream_infer(requests(), stream_timeout=self._timeout)
        try:
            async for result, error in call:
                if error is not None:
                    raise refused(error)
                if _has_outputs(result):
                    yield outputs_of(result)
                if _is_final(result):
                    return
        except self._triton.InferenceServerException as fault:
            raise refused(fault) from fault
        finally:
            call.cancel()

    async def _types_of(self, function: str) -> dict[str, str]:
        if function not in self._types:
            metadata = await self._client.get_model_metadata(function, client_timeout=self._timeout)
            self._types[function] = {each.name: each.datatype for each in metadata.inputs}
        return self._types[function]

    async def close(self) -> None:
        await self._client.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


def inputs_of(triton: Any, values: Mapping[str, Value], types: Mapping[str, str], batched: bool = True) -> list[Any]:
    """Triton's inputs, each of one value, of the type that the server names; of the value's own where it has none."""
    inputs = []
    for name, value in values.items():
        array, datatype = _array(float(value) if types.get(name) == "FP32" and type(value) is int else value)
        tensor = triton.InferInput(name, [1, 1] if batched else [1], datatype)
        tensor.set_data_from_numpy(array.reshape(tensor.shape()))
        inputs.append(tensor)
    return inputs


def outputs_of(result: Any) -> dict[str, Value]:
    """The outputs of one answer. Raises ServerRefused where its status is not 200."""
    names = [output.name for output in result.get_response().outputs]
    outputs = {name: result.as_numpy(name).reshape(-1)[0] for name in names}
    status = int(outputs.pop("status", _OK))
    reason = outputs.pop("reason", b"")
    if status != _OK:
        raise ServerRefused(status, reason.decode("utf-8", "replace"))
    return {name: value if isinstance(value, (bytes, str)) else value.item() for name, value in outputs.items()}


def refused(error: Exception) -> ServerRefused:
    """What Triton itself refused (its queue is full, its time is up, it stops) with the status that HTTP gives it."""
    code = str(getattr(error, "status", lambda: "")() or "").rpartition(".")[2]
    known = {"UNAVAILABLE": _BUSY, "DEADLINE_EXCEEDED": _TIMED_OUT, "INVALID_ARGUMENT": 400, "NOT_FOUND": 404}
    message = getattr(error, "message", lambda: str(error))() or str(error)
    return ServerRefused(known.get(code, 500), " ".join(str(message).split()))


def _parameters(id: str) -> dict[str, str] | None:
    return {"id": id} if id else None


def _array(value: Value) -> tuple[np.ndarray, str]:
    if isinstance(value, bool):
        return np.array([value], np.bool_), "BOOL"
    if isinstance(value, int):
        return np.array([value], np.int32), "INT32"
    if isinstance(value, float):
        return np.array([value], np.float32), "FP32"
    array = np.empty(1, object)  # numpy's own byte strings lose zeros at their end
    array[0] = value.encode() if isinstance(value, str) else value
    return array, "BYTES"


def _has_outputs(result: Any) -> bool:
    return len(result.get_response().outputs) > 0


def _is_final(result: Any) -> bool:
    parameter = result.get_response().parameters.get("triton_final_response")
    return bool(parameter and parameter.bool_param)


if __name__ == "__main__":
    import sys

    from serving.client_command import main

    sys.exit(main())
