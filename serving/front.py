"""Plain HTTP before Triton: a picture's bytes in, bytes out, real status codes; the web page; health and metrics.

    POST /v1/cat2dog?format=jpeg&quality=90     the picture is the body, other fields stand in the query
    POST /v1/text2image                         or all fields as one JSON object, bytes as base64
    GET  / /healthz /readyz /metrics

A body is read only as far as the function's limits go. What is wrong is told as JSON: status, reason, id. A client that
goes away takes its request with it, where Triton has not handed it on yet.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import ClientError, web

from runtime.errors import ToolchainError
from serving.arrivals import Arrivals
from serving.client import AsyncClient, ServerRefused
from serving.function import BAD_INPUT, BUSY, FAILED, LEFT, TOO_LARGE, Field, Function, Refusal, StreamFunction, Value
from serving.log import JsonLog
from serving.rows import request_id
from serving.settings import Settings
from serving.tally import Tally

PAGE = Path(__file__).with_name("page.html")
_NOT_FOUND, _TOO_SLOW = 404, 408
_LONGEST_ANSWER_SECONDS = 600.0
_TEXT_BYTES = 1 << 20
_CHUNK = 1 << 16
# Names, numbers and punctuation of a JSON object, beside its texts and bytes.
_JSON_ROOM = 4096
_SIGNATURES = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"RIFF", "image/webp"))


class Front:
    """Serves from a thread of its own, from `start` to `close`."""

    def __init__(
        self,
        functions: Sequence[Function | StreamFunction],
        settings: Settings,
        log: JsonLog,
        tally: Tally,
        arrivals: Arrivals,
    ):
        self._functions = {each.name: each for each in functions}
        self._settings = settings
        self._log = log
        self._tally = tally
        self._arrivals = arrivals
        self._page = PAGE.read_bytes()
        self._under_way = 0
        self._given_up: set[asyncio.Future[dict[str, Value]]] = set()
        self._stopping = False
        self._closing = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="front", daemon=True)
        self._runner: web.AppRunner | None = None
        self._client: AsyncClient | None = None

    def start(self) -> None:
        """Listen. Raises ToolchainError where the port was taken meanwhile."""
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        except OSError as error:
            raise ToolchainError(f"cannot listen on port {self._settings.page}: {error.strerror}") from error

    def stop(self) -> None:
        """Refuse what comes from now on."""
        self._stopping = True

    def close(self) -> None:
        """Answer what is under way, as long as the settings allow, then close every connection."""
        if not self._thread.is_alive():
            return
        self.stop()
        until = time.monotonic() + self._settings.stop
        while self._under_way and time.monotonic() < until:
            time.sleep(0.02)
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        here = self._settings
        self._client = AsyncClient(f"{_bracketed(here.host)}:{here.grpc}", _LONGEST_ANSWER_SECONDS + here.timeout)
        app = web.Application()
        app.router.add_get("/", self._get_page)
        app.router.add_get("/healthz", self._get_health)
        app.router.add_get("/readyz", self._get_ready)
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_post("/v1/{function}", self._post)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, here.host, here.page).start()

    async def _close(self) -> None:
        self._closing = True
        if self._runner is not None:
            await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()

    async def _get_page(self, request: web.Request) -> web.Response:
        # Only what is in the page itself runs there, and pictures that it made itself are shown.
        policy = "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob: data:"
        headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
        return web.Response(body=self._page, content_type="text/html", charset="utf-8", headers=headers)

    async def _get_health(self, request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _get_ready(self, request: web.Request) -> web.Response:
        assert self._client is not None
        ready = not self._stopping and all([await self._client.is_ready(name) for name in self._functions])
        return web.Response(text="ready\n" if ready else "not ready\n", status=200 if ready else BUSY)

    async def _get_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._tally.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _post(self, request: web.Request) -> web.StreamResponse:
        began = time.monotonic()
        id = request_id({"id": request.headers.get("X-Request-Id")})
        self._count(1)
        name = request.match_info["function"]
        facts: dict[str, Any] = {"function": name[:64], "id": id}
        try:
            function = self._function(name)
            values = await _values(request, function.inputs, self._settings.timeout)
            facts["bytes_in"] = sum(len(value) for value in values.values() if isinstance(value, bytes))
            facts["body_ms"] = (time.monotonic() - began) * 1000
            facts["status"], answer = 200, await self._answer(function, values, id)
            facts["bytes_out"] = len(answer.body) if isinstance(answer.body, bytes) else None
        except (Refusal, ServerRefused) as refusal:
            facts["status"], answer = refusal.status, _refused(refusal.status, refusal.reason, id)
        except (asyncio.CancelledError, OSError, ClientError):
            facts["status"] = BUSY if self._closing else LEFT
            if name in self._functions and not self._closing:
                self._tally.left(name)
            raise
        finally:
            self._count(-1)
            self._log("http", **facts, total_ms=(time.monotonic() - began) * 1000)
        answer.headers["X-Request-Id"] = id
        return answer

    def _forget(self, asked: asyncio.Future[dict[str, Value]]) -> None:
        """Nobody wants to know any more what came of it."""
        self._given_up.discard(asked)
        if not asked.cancelled():
            asked.exception()

    def _count(self, more: int) -> None:
        self._under_way += more
        self._tally.under_way.set(self._under_way)

    def _function(self, name: str) -> Function | StreamFunction:
        if self._stopping:
            raise Refusal(BUSY, "the server is stopping; try again later")
        if name not in self._functions:
            raise Refusal(_NOT_FOUND, f"there is no function '{name[:64]}'; expected {', '.join(self._functions)}")
        return self._functions[name]

    async def _answer(self, function: Function | StreamFunction, values: Mapping[str, Value], id: str) -> web.Response:
        assert self._client is not None
        with self._arrivals.noted() as arrival:
            asked = asyncio.ensure_future(self._client.ask(function.name, values, id, more=arrival))
            try:
                outputs = await asyncio.shield(asked)
            except asyncio.CancelledError:
                self._given_up.add(asked)
                asked.add_done_callback(self._forget)
                # To cancel what is being worked on would make Triton's Python backend idle for half a second.
                if not self._arrivals.is_taken(arrival):
                    asked.cancel()
                raise
        named = {each.name: outputs[each.name] for each in function.outputs}
        body = next((named[each.name] for each in function.outputs if each.kind == "bytes"), None)
        if not isinstance(body, bytes):
            return web.json_response({name: _json(value) for name, value in named.items()})
        kind = next((kind for start, kind in _SIGNATURES if body.startswith(start)), "application/octet-stream")
        return web.Response(body=body, content_type=kind, headers={"X-Content-Type-Options": "nosniff"})


async def _values(request: web.Request, fields: Sequence[Field], seconds: float) -> dict[str, Value]:
    """Fields out of query and body. Raises Refusal for what is no value of its field, too large, or too slow."""
    most = sum(int(each.most or _TEXT_BYTES) for each in fields if each.kind in ("bytes", "text"))
    is_json = request.content_type == "application/json"
    try:
        body = await asyncio.wait_for(_body(request, 2 * most + _JSON_ROOM if is_json else most), seconds)
    except asyncio.TimeoutError as error:
        raise Refusal(_TOO_SLOW, f"the body did not come within {seconds:g} s") from error
    kinds = {each.name: each for each in fields}
    values: dict[str, Value] = {name: _parsed(kinds.get(name), name, text) for name, text in request.query.items()}
    if is_json:
        return _fit({**values, **_from_json(body, kinds)})
    _fit(values)
    first = next((each for each in fields if each.kind == "bytes"), None)
    if first is not None and (body or not first.optional):
        return {**values, first.name: body}
    if body:
        raise Refusal(BAD_INPUT, "this function takes no bytes: send its fields as application/json, or in the query")
    return values


async def _body(request: web.Request, most: int) -> bytes:
    """At most so many bytes: neither what a header promises nor what comes is believed."""
    if (request.content_length or 0) > most:
        raise Refusal(TOO_LARGE, f"the body has {request.content_length} bytes; at most {most} are taken")
    pieces, size = [], 0
    while piece := await request.content.read(_CHUNK):
        size += len(piece)
        if size > most:
            raise Refusal(TOO_LARGE, f"the body has more than {most} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _fit(values: dict[str, Value]) -> dict[str, Value]:
    """The values, which Triton's types can hold. Raises Refusal: JSON has numbers of any size, and broken Unicode."""
    for name, value in values.items():
        try:
            name.encode()
            if isinstance(value, str):
                value.encode()
        except UnicodeEncodeError as error:
            raise Refusal(BAD_INPUT, f"{name[:40]!r} is not Unicode (character {error.start}); send UTF-8") from error
        if type(value) is int and not -(1 << 31) <= value < 1 << 31:
            raise Refusal(BAD_INPUT, f"{name[:40]!r} is no number of 32 bits")
    return values


def _from_json(body: bytes, kinds: Mapping[str, Field]) -> dict[str, Value]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(BAD_INPUT, f"the body is no JSON: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict):
        raise Refusal(BAD_INPUT, "the body is JSON, but no object of fields")
    values: dict[str, Value] = {}
    for name, value in content.items():
        field = kinds.get(name)
        if not isinstance(value, (str, int, float, bool)):
            raise Refusal(BAD_INPUT, f"{repr(name[:40])[1:-1]} is neither a text, a number nor true or false")
        if field is not None and field.kind == "bytes":
            try:
                values[name] = base64.b64decode(str(value), validate=True)
            except (binascii.Error, ValueError) as error:
                raise Refusal(BAD_INPUT, f"{name} is not base64: {error}") from error
        else:
            values[name] = value
    return values


def _parsed(field: Field | None, name: str, text: str) -> Value:
    if field is None:
        return text  # the function's own check says that there is no such field
    try:
        if field.kind == "bool":
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return {"int32": int, "float32": float}.get(field.kind, str)(text)
    except (ValueError, KeyError) as error:
        raise Refusal(BAD_INPUT, f"{name} is {text[:40]!r}; expected {field.kind}") from error


def _refused(status: int, reason: str, id: str) -> web.Response:
    headers = {"Retry-After": "1"} if status == BUSY else None
    known = status if 400 <= status <= 599 else FAILED
    return web.json_response({"status": known, "reason": reason, "id": id}, status=known, headers=headers)


def _json(value: Value) -> Value:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else {"0.0.0.0": "127.0.0.1"}.get(host, host)
