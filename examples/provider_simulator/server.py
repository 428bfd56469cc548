"""The HTTP side: one port on loopback, a prefix per provider, and AI Gateway's layout.

```text
/{slug}/{native path}                           a provider; the slug stands for its base URL
/v1/{account}/{gateway}/{slug}/{native path}    the same through Cloudflare AI Gateway
/v1/{account}/{gateway}/compat/{path}           AI Gateway's OpenAI endpoint, model `slug/model`
```

aiohttp's low-level server is used, not its application: paths arrive as they were written.
"""

import asyncio
import json
import queue
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiohttp import WSMsgType, web

from . import answers
from .answers import Answer, Pause
from .keys import Behaviour, Key, Quota, new_secret
from .script import Rule, Script, Stream

GOOGLE, ANTHROPIC = "google-ai-studio", "anthropic"
KEY_HEADERS = {
    GOOGLE: "x-goog-api-key",
    ANTHROPIC: "x-api-key",
    "azure-openai": "api-key",
    "elevenlabs": "xi-api-key",
}
"""Where a key belongs on native paths; everywhere else it is a Bearer token."""
# What the slug stands for on AI Gateway, and so below the prefix here, includes the version.
BASE_PATHS = {"openai": "/v1", "groq": "/openai/v1", "openrouter": "/api/v1", "grok": "/v1", "cerebras": "/v1"}
MODELS = {GOOGLE: ["gemini-2.0-flash", "gemini-2.5-flash"], ANTHROPIC: ["claude-sonnet-4-5"]}
TOKENS_PER_BYTE = 0.25
"""What a request costs of a tokens-per-minute quota, by its body's length."""


@dataclass
class Request:
    """A request as it arrived, and what became of it."""

    number: int
    """1 is the simulator's first."""
    at: float
    method: str
    target: str
    """Raw path with its query."""
    headers: list[tuple[bytes, bytes]]
    body: bytes
    slug: str = ""
    path: str = ""
    """The native path: without the prefix and the query."""
    api: str = "openai"
    """Shape of the answer: openai, gemini or anthropic."""
    through_gateway: bool = False
    model: str = ""
    credential: str | None = None
    """What stood where this provider's key belongs."""
    key: Key | None = None
    status: int | None = None
    """What was answered; None for a reset or while there is no answer."""
    messages: list[bytes] = field(default_factory=list)
    """What came over a WebSocket."""

    def header(self, name: str) -> str | None:
        found = self.header_values(name)
        return found[0].decode("latin-1") if found else None

    def header_values(self, name: str) -> list[bytes]:
        return [value for other, value in self.headers if other.lower() == name.lower().encode()]

    def json(self) -> Any:
        return json.loads(self.body)

    def mentions(self, text: str) -> bool:
        """Whether the text stands anywhere in the request: for "no trace of the AUTH_KEY"."""
        pairs = b"\n".join(name + b": " + value for name, value in self.headers)
        return text.encode() in b"\n".join([self.target.encode("utf-8", "surrogateescape"), pairs, self.body])


class Simulator:
    """The server, in a thread of its own; a context manager.

    `tls` is a server context; `on_request` is called with each request that has been answered.
    """

    def __init__(
        self,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        gateway_token: str | None = None,
        on_request: Callable[[Request], None] = lambda request: None,
    ) -> None:
        self.port = port
        self.keys: list[Key] = []
        self.requests: list[Request] = []
        self._script = Script()
        self.gateway_token = gateway_token
        self.newline: str | None = None
        """Line ends of event streams; None is each provider's own."""
        self._tls = tls
        self._on_request = on_request
        self._changed = threading.Condition()
        self._started = threading.Event()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="provider-simulator", daemon=True)

    # What a test says and asks.

    def key(
        self,
        slug: str,
        behaviour: Behaviour = Behaviour.GOOD,
        quota: Quota | None = None,
        label: str = "",
        secret: str | None = None,
    ) -> Key:
        """A new key of a provider."""
        number = 1 + sum(key.slug == slug for key in self.keys)
        key = Key(slug, secret or new_secret(slug), label or f"key {number}", behaviour, quota or Quota())
        self.keys.append(key)
        return key

    def script(
        self,
        answer: Answer | Callable[[Request], Answer | None],
        *,
        key: Key | str | None = None,
        number: int | None = None,
        model: str | None = None,
        when: Callable[[Request], bool] | None = None,
        times: int | None = 1,
    ) -> None:
        """The next `times` (None: all) requests that fit get this answer, in the order of the calls.

        `number` is the request's own, `model` its bare name. A function may return None: as if
        nothing had been scripted.
        """
        secret = key.secret if isinstance(key, Key) else key
        self._script.add(Rule(answer, secret, number, model, when, times))

    def url(self, slug: str = "") -> str:
        """The base URL of a provider, or of AI Gateway."""
        scheme, host = ("https", "localhost") if self._tls else ("http", "127.0.0.1")
        path = f"/{slug}{BASE_PATHS.get(slug, '')}" if slug else ""
        return f"{scheme}://{host}:{self.port}{path}"

    def base_urls(self, *more: str, gateway: bool = False) -> str:
        """A PROVIDER_BASE_URLS for the providers that have keys and `more`; or for AI Gateway."""
        if gateway:
            return f"ai-gateway={self.url()}"
        slugs = dict.fromkeys([*(key.slug for key in self.keys), *more])
        return ";".join(f"{slug}={self.url(slug)}" for slug in slugs)

    def provider_keys(self) -> str:
        """A PROVIDER_KEYS with all keys, in the order in which they were made."""
        slugs = dict.fromkeys(key.slug for key in self.keys)
        by_slug = {slug: [key.secret for key in self.keys if key.slug == slug] for slug in slugs}
        return ";".join(f"{slug}={','.join(keys)}" for slug, keys in by_slug.items())

    def clear(self) -> None:
        """Forgets requests and scripts; keys stay."""
        self._script.clear()
        with self._changed:
            self.requests = []

    def wait_for(self, count: int, timeout: float = 5.0, model: str | None = None) -> list[Request]:
        """The requests (of a model), once there are `count`; AssertionError if they do not come."""

        def fitting() -> list[Request]:
            return [request for request in self.requests if model is None or request.model == model]

        with self._changed:
            came = self._changed.wait_for(lambda: len(fitting()) >= count, timeout)
            assert came, f"{len(fitting())} of {count} requests came in {timeout} s"
            return fitting()

    # The server.

    def start(self) -> "Simulator":
        self._thread.start()
        self._started.wait()
        if self._failure:
            raise self._failure
        return self

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(5)

    __enter__ = start

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = web.Server(self._handle, auto_decompress=False, max_line_size=65_536, max_field_size=65_536)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=self._tls).start()
            self.port = runner.addresses[0][1]
        except OSError as error:
            self._failure = error
            self._stop.set()
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        body = await http.content.read()
        request = self._record(http, body)
        answer = self._script.answer(request) or self._answer(request)
        try:
            if answer is None:
                return await self._echo_websocket(http, request)
            return await self._send(http, request, answer)
        finally:
            self._on_request(request)

    def _record(self, http: web.BaseRequest, body: bytes) -> Request:
        with self._changed:
            headers = [(bytes(name), bytes(value)) for name, value in http.raw_headers]
            request = Request(len(self.requests) + 1, time.time(), http.method, http.raw_path, headers, body)
            _understand(request)
            request.key = next((key for key in self.keys if key.secret == request.credential), None)
            if request.key and request.key.slug != request.slug:
                request.key = None
            self.requests.append(request)
            self._changed.notify_all()
        return request

    def _answer(self, request: Request) -> Answer | None:
        """What the provider says; None for a WebSocket."""
        token = f"Bearer {self.gateway_token}" if self.gateway_token is not None else None
        if request.through_gateway and token and request.header("cf-aig-authorization") != token:
            return answers.gateway_unauthorized()
        if request.slug == GOOGLE and len(_credentials(request)) > 1:
            return answers.google_two_credentials(request.api)
        key = request.key
        if key is None or key.behaviour is Behaviour.INVALID:
            return answers.invalid(request.slug, request.api)
        if key.behaviour is Behaviour.REVOKED:
            return answers.revoked(request.slug, request.api)
        if key.behaviour is not Behaviour.GOOD:
            return answers.spent_for_good(key.behaviour, request.slug, request.api, request.model)
        spent = key.take(request.model, max(1, int(len(request.body) * TOKENS_PER_BYTE)))
        if spent:
            return answers.spent(request.slug, request.api, request.model, spent, key.quota.stated)
        if request.header("upgrade") == "websocket":
            return None
        return self._good_answer(request)

    def _good_answer(self, request: Request) -> Answer:
        path, api, model = request.path, request.api, request.model
        known = MODELS.get(request.slug, ["gpt-4o-mini"])
        if path.rstrip("/").endswith("/models"):
            return answers.gemini_models(known) if api == "gemini" else answers.openai_models(known)
        if api == "gemini":
            verb = path.rpartition(":")[2]
            newline = self.newline or "\r\n"
            if verb in ("generateContent", "streamGenerateContent"):
                sse = "sse" in parse_qs(urlsplit(request.target).query).get("alt", [])
                return answers.gemini_generate(model, _fields(request), verb.startswith("stream"), sse, newline)
            return answers.gemini_other(verb, _fields(request)) or answers.not_found(api)
        newline = self.newline or "\n"
        if api == "anthropic":
            return answers.anthropic_messages(model, _fields(request), newline)
        if path.endswith("/chat/completions"):
            return answers.openai_chat(model, _fields(request), newline)
        if path.endswith("/embeddings"):
            return answers.openai_embeddings(model, _fields(request))
        # Any other path: the body comes back as it was.
        content_type = request.header("content-type") or "application/octet-stream"
        return Answer(headers=[("content-type", content_type)], body=request.body)

    async def _send(self, http: web.BaseRequest, request: Request, answer: Answer) -> web.StreamResponse:
        if answer.delay:
            await asyncio.sleep(answer.delay)
        if answer.reset:
            return _reset(http)
        if answer.raw is not None:
            http.transport.write(answer.raw)
            http.transport.close()
            return web.Response()
        request.status = answer.status
        response = web.StreamResponse(status=answer.status)
        for name, value in answer.headers:
            response.headers.add(name, value)
        response.headers.setdefault("content-type", answer.content_type())
        try:
            if answer.chunks is None:
                await _send_body(http, response, answer)
            else:
                await _send_chunks(http, response, answer.chunks)
        except ConnectionError:
            return _reset(http)
        return response

    async def _echo_websocket(self, http: web.BaseRequest, request: Request) -> web.StreamResponse:
        request.status = 101
        websocket = web.WebSocketResponse(protocols=["realtime"])
        await websocket.prepare(http)
        async for message in websocket:
            if message.type is WSMsgType.TEXT:
                request.messages.append(message.data.encode())
                await websocket.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                request.messages.append(message.data)
                await websocket.send_bytes(message.data)
        return websocket


def _understand(request: Request) -> None:
    """Finds provider, native path, dialect, model and credential."""
    path = urlsplit(request.target).path
    parts = path.split("/")
    if parts[1:2] == ["v1"] and len(parts) > 4:
        request.through_gateway = True
        parts = ["", *parts[4:]]
    request.slug, request.path = parts[1], "/" + "/".join(parts[2:])
    compat = request.slug == "compat"
    request.model = str(_fields(request).get("model", ""))
    if compat:
        request.slug, _, request.model = request.model.partition("/")
    elif "/models/" in request.path:
        request.model = request.path.rpartition("/models/")[2].partition(":")[0]
    elif not request.model:
        request.model = parse_qs(urlsplit(request.target).query).get("model", [""])[0]
    native = not compat and "/openai/" not in request.path and not request.path.endswith("/chat/completions")
    if native and request.slug == GOOGLE:
        request.api = "gemini"
    if native and request.slug == ANTHROPIC:
        request.api = "anthropic"
    bearer = not native and request.slug in (GOOGLE, ANTHROPIC)
    request.credential = _credential(request, "authorization" if compat or bearer else KEY_HEADERS.get(request.slug))


def _credential(request: Request, header: str | None) -> str | None:
    value = request.header(header or "authorization")
    if value is None or header not in (None, "authorization"):
        return value
    scheme, _, token = value.partition(" ")
    return token if scheme.lower() == "bearer" else None


def _credentials(request: Request) -> list[bytes]:
    names = ("authorization", "x-goog-api-key")
    in_query = parse_qs(urlsplit(request.target).query).get("key", [])
    return [value for name in names for value in request.header_values(name)] + [key.encode() for key in in_query]


def _fields(request: Request) -> dict:
    try:
        fields = json.loads(request.body)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


async def _send_body(http: web.BaseRequest, response: web.StreamResponse, answer: Answer) -> None:
    payload = answer.payload()
    response.content_length = len(payload)
    await response.prepare(http)
    await response.write(payload[: answer.cut_after])
    if answer.cut_after is not None:
        # Let what was sent arrive: a reset overtakes it.
        await asyncio.sleep(0.05)
        raise ConnectionError
    await response.write_eof()


async def _send_chunks(http: web.BaseRequest, response: web.StreamResponse, chunks: Any) -> None:
    response.enable_chunked_encoding()
    await response.prepare(http)
    if isinstance(chunks, Stream):
        await _send_stream(http, response, chunks)
    else:
        for chunk in chunks:
            if isinstance(chunk, Pause):
                await asyncio.sleep(chunk.seconds)
            else:
                await response.write(chunk)
    await response.write_eof()


async def _send_stream(http: web.BaseRequest, response: web.StreamResponse, stream: Stream) -> None:
    stream.started.set()
    try:
        while True:
            try:
                piece = stream.take()
            except queue.Empty:
                await asyncio.sleep(0.002)
                if http.transport is None or http.transport.is_closing():
                    raise ConnectionError from None
                continue
            if piece is None:
                return
            await response.write(piece)
    except (ConnectionError, asyncio.CancelledError):
        stream.gone.set()
        raise


def _reset(http: web.BaseRequest) -> web.StreamResponse:
    """Ends the connection with a TCP reset."""
    transport = http.transport
    if transport is not None:
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()
