"""Clients: ordinary requests, streams in their order of arrival, raw bytes, WebSockets."""

import asyncio
import contextlib
import http.client
import json as jsons
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx

HOST = "127.0.0.1"
BEARER = "authorization"
ALWAYS = {"timeout": 30, "trust_env": False, "verify": ssl.create_default_context()}
"""One TLS context for all, which none of them needs: making it takes longer than a request."""


@dataclass
class RawAnswer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Client:
    """Speaks to one Envoy with one AUTH_KEY. Every request has a connection of its own, so that
    requests spread over the workers. Safe in threads: nor do requests share a pool of connections,
    for httpcore's may close one that another thread was given just then (`Bad file descriptor`)."""

    def __init__(self, port: int, auth_key: str) -> None:
        self.port, self.auth_key = port, auth_key

    def request(
        self,
        method: str,
        path: str,
        *,
        auth: str | None = BEARER,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        json: Any = None,
        content: Any = None,
        files: Any = None,
        data: Any = None,
    ) -> httpx.Response:
        """`auth` is the header that the AUTH_KEY goes in; None sends none."""
        body = {"json": json, "content": content, "files": files, "data": data}
        return httpx.request(method, self._url(path), headers=self._headers(auth, headers), **body, **ALWAYS)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def chat(self, model: str, *, path: str = "/v1/chat/completions", **fields: Any) -> httpx.Response:
        """An OpenAI chat; the model is `slug/model` unless the path is a provider's."""
        return self.post(path, json=chat_body(model, **fields))

    def gemini(self, model: str, verb: str = "generateContent", body: Any = None, **options: Any) -> httpx.Response:
        """A native Gemini request, with Google's header."""
        path = f"/api/google-ai-studio/v1beta/models/{model}:{verb}"
        return self.post(path, auth="x-goog-api-key", json=body or gemini_body(), **options)

    def anthropic(self, model: str, **fields: Any) -> httpx.Response:
        """A native Anthropic request, with Anthropic's header."""
        body = {"model": model, "max_tokens": 16, "messages": [{"role": "user", "content": "Hello"}], **fields}
        return self.post("/api/anthropic/v1/messages", auth="x-api-key", json=body)

    @contextlib.contextmanager
    def stream(
        self, path: str, *, json: Any, auth: str | None = BEARER, headers: Mapping[str, str] | None = None
    ) -> Iterator["Arriving"]:
        """An answer that is read while it comes."""
        sent = self._headers(auth, headers or {})
        with httpx.stream("POST", self._url(path), headers=sent, json=json, **ALWAYS) as answer:
            yield Arriving(answer)

    def parallel(self, count: int, work: Callable[[int], Any]) -> list[Any]:
        """`work(0)` to `work(count - 1)`, all at once; their results in order."""
        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(work, range(count)))

    def raw(self, data: bytes, method: str = "POST", timeout: float = 10) -> RawAnswer:
        """Sends these bytes and reads one answer. ConnectionError or http.client's if there is none."""
        with socket.create_connection((HOST, self.port), timeout) as connection:
            connection.sendall(data)
            answer = http.client.HTTPResponse(connection, method=method)
            answer.begin()
            return RawAnswer(answer.status, answer.getheaders(), answer.read())

    def raw_request(
        self, method: str, target: bytes | str, headers: Sequence[tuple[bytes, bytes]] = (), body: bytes = b""
    ) -> RawAnswer:
        """A request with any bytes in its path and headers; host, AUTH_KEY and length are added."""
        target = target.encode() if isinstance(target, str) else target
        own = [(b"host", b"localhost"), (b"authorization", b"Bearer " + self.auth_key.encode())]
        own += [(b"content-length", str(len(body)).encode())] if body else []
        lines = [method.encode() + b" " + target + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in [*own, *headers]]
        return self.raw(b"\r\n".join([*lines, b"", body]), method)

    def websocket(self, path: str, messages: Sequence[str], *, auth: str | None = BEARER) -> list[str]:
        """Upgrades, sends each message and returns what came back for each.

        Raises aiohttp.WSServerHandshakeError (with `status`) when the upgrade is refused.
        """

        async def talk() -> list[str]:
            async with aiohttp.ClientSession() as session:
                headers = self._headers(auth, {})
                async with session.ws_connect(f"http://{HOST}:{self.port}{path}", headers=headers) as connection:
                    back = []
                    for message in messages:
                        await connection.send_str(message)
                        back.append(await connection.receive_str(timeout=10))
                    return back

        return asyncio.run(talk())

    def _url(self, path: str) -> str:
        return f"http://{HOST}:{self.port}{path}"

    def _headers(self, auth: str | None, more: Any) -> list[tuple[str, str]]:
        value = f"Bearer {self.auth_key}" if auth == BEARER else self.auth_key
        pairs = list(more.items()) if isinstance(more, Mapping) else list(more)
        return [*([(auth, value)] if auth else []), *pairs]


class Arriving:
    """An answer under way."""

    def __init__(self, answer: httpx.Response) -> None:
        self.status, self.headers = answer.status_code, answer.headers
        self._chunks = answer.iter_raw()
        self._held = b""

    def chunk(self) -> bytes | None:
        """What comes next, as soon as it comes; None at the end. httpx errors when it breaks."""
        return next(self._chunks, None)

    def exactly(self, count: int) -> bytes:
        """The next so many bytes: waits for these, and for no more."""
        while len(self._held) < count:
            chunk = self.chunk()
            assert chunk is not None, f"the answer ended with {self._held!r}"
            self._held += chunk
        wanted, self._held = self._held[:count], self._held[count:]
        return wanted

    def rest(self) -> bytes:
        """Everything that is left."""
        held, self._held = self._held, b""
        return held + b"".join(self._chunks)

    def events(self) -> list[str]:
        """The data of the Server-Sent Events that are left, LF or CRLF."""
        blocks = self.rest().decode().replace("\r\n", "\n").split("\n\n")
        return [line.removeprefix("data: ") for block in blocks for line in block.split("\n") if line[:5] == "data:"]

    def json_events(self) -> list[Any]:
        return [jsons.loads(event) for event in self.events() if event != "[DONE]"]


def chat_body(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}


def gemini_body() -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
