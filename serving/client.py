"""Asks the server: pictures in, pictures out, over Triton's gRPC; waiting, async, or piece by piece.

    python -m serving.client images/img1.jpg dog.png
    python -m serving.client --function text2image --set prompt="a dog" --set steps=4 --progress dog.png

In Python: `Client(url).ask("cat2dog", {"image": data, "format": "jpeg"})["dog"]`. It needs
`tritonclient[grpc]`, numpy and `client_tensors.py`, and nothing else of this project.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np

from serving.client_tensors import (
    FAILED,
    TIMED_OUT,
    ServerRefused,
    Value,
    dogs_of,
    has_outputs,
    inputs_of,
    is_final,
    outputs_of,
    parameters,
    pixels_of,
    refused,
)

__all__ = ["AsyncClient", "Client", "Progress", "ServerRefused", "Value"]

# Called with each answer of a stream, and which it is, from 1.
Progress = Callable[[int, dict[str, Value]], None]

# gRPC's own limits on one message are 4 MB; a picture may be larger.
_CHANNEL = [("grpc.max_send_message_length", 1 << 30), ("grpc.max_receive_message_length", 1 << 30)]


class Client:
    """A connection to Triton's gRPC port, for any number of threads.

    `timeout` bounds the seconds until an answer, in a stream until the next one.
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

    def ask(
        self, function: str, values: Mapping[str, Value], id: str = "", progress: Progress | None = None
    ) -> dict[str, Value]:
        """The function's outputs. Raises ServerRefused.

        With `progress`, a stream function is asked for all its answers: each is told, the last returned.
        """
        if progress is not None:
            return self._last(function, values, id, progress)
        try:
            inputs = inputs_of(self._triton, values, self._types_of(function))
            result = self._client.infer(function, inputs, client_timeout=self._timeout, parameters=parameters(id))
        except self._triton.InferenceServerException as fault:
            raise refused(fault) from fault
        return outputs_of(result)

    def run(self, network: str, images: np.ndarray, id: str = "") -> np.ndarray:
        """uint8 `[B,R,R,3]` through a network that is served as it is (`cat2dog_256`). Raises ServerRefused."""
        try:
            given = pixels_of(self._triton, images)
            result = self._client.infer(network, given, client_timeout=self._timeout, parameters=parameters(id))
        except self._triton.InferenceServerException as fault:
            raise refused(fault) from fault
        return dogs_of(result)

    def stream(self, function: str, values: Mapping[str, Value], id: str = "") -> Iterator[dict[str, Value]]:
        """Each answer of a stream function (`text2image_stream`) as it comes. Raises ServerRefused, also midway."""
        try:
            inputs = inputs_of(self._triton, values, self._types_of(function), batched=False)
        except self._triton.InferenceServerException as fault:
            raise refused(fault) from fault
        answers: queue.Queue[Any] = queue.Queue()
        # Triton's client has one stream at a time, so that each gets a client of its own.
        own = self._triton.InferenceServerClient(self._url, channel_args=_CHANNEL)
        try:
            own.start_stream(lambda result, error: answers.put((result, error)))
            own.async_stream_infer(function, inputs, enable_empty_final_response=True, parameters=parameters(id))
            while True:
                try:
                    result, error = answers.get(timeout=self._timeout)
                except queue.Empty:
                    raise ServerRefused(TIMED_OUT, f"nothing came from the server for {self._timeout:g} s") from None
                if error is not None:
                    raise refused(error)
                if has_outputs(result):
                    yield outputs_of(result)
                if is_final(result):
                    return
        finally:
            own.stop_stream(cancel_requests=True)
            own.close()

    def _last(self, function: str, values: Mapping[str, Value], id: str, progress: Progress) -> dict[str, Value]:
        last: dict[str, Value] | None = None
        for number, last in enumerate(self.stream(f"{function}_stream", values, id), 1):
            progress(number, last)
        if last is None:
            raise ServerRefused(FAILED, "the stream had no answer")
        return last

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
        import grpc
        import tritonclient.grpc as triton
        import tritonclient.grpc.aio as aio

        self._timeout = timeout
        self._triton = triton
        self._lost = grpc.RpcError
        self._client = aio.InferenceServerClient(url, channel_args=_CHANNEL)
        self._types: dict[str, dict[str, str]] = {}

    async def is_ready(self, function: str = "cat2dog") -> bool:
        """As `Client.is_ready`."""
        try:
            return bool(await self._client.is_server_ready() and await self._client.is_model_ready(function))
        except self._triton.InferenceServerException:
            return False

    async def ask(
        self,
        function: str,
        values: Mapping[str, Value],
        id: str = "",
        progress: Progress | None = None,
        more: Mapping[str, str] | None = None,
    ) -> dict[str, Value]:
        """As `Client.ask`; `more` are further parameters of the request. Cancelling it tells the server."""
        if progress is not None:
            return await self._last(function, values, id, progress)
        try:
            inputs = inputs_of(self._triton, values, await self._types_of(function))
            result = await self._client.infer(
                function, inputs, client_timeout=self._timeout, parameters=parameters(id, more)
            )
        except self._triton.InferenceServerException as fault:
            raise refused(fault) from fault
        return outputs_of(result)

    async def run(self, network: str, images: np.ndarray, id: str = "") -> np.ndarray:
        """As `Client.run`."""
        try:
            given = pixels_of(self._triton, images)
            result = await self._client.infer(network, given, client_timeout=self._timeout, parameters=parameters(id))
        except self._triton.InferenceServerException as fault:
            raise refused(fault) from fault
        return dogs_of(result)

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
            "parameters": parameters(id),
        }

        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield request

        call = self._client.stream_infer(requests())
        try:
            while True:
                try:
                    result, error = await asyncio.wait_for(anext(call), self._timeout)
                except StopAsyncIteration:
                    return
                except asyncio.TimeoutError:
                    raise ServerRefused(TIMED_OUT, f"nothing came from the server for {self._timeout:g} s") from None
                if error is not None:
                    raise refused(error)
                if has_outputs(result):
                    yield outputs_of(result)
                if is_final(result):
                    return
        except (self._triton.InferenceServerException, self._lost) as fault:
            raise refused(fault) from fault
        finally:
            call.cancel()

    async def _last(self, function: str, values: Mapping[str, Value], id: str, progress: Progress) -> dict[str, Value]:
        number, last = 0, None
        async for last in self.stream(f"{function}_stream", values, id):
            number += 1
            progress(number, last)
        if last is None:
            raise ServerRefused(FAILED, "the stream had no answer")
        return last

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


if __name__ == "__main__":
    import sys

    from serving.client_command import main

    sys.exit(main())
