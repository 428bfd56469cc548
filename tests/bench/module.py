"""`make bench-core`: instructions per request of the built module, counted by wasmtime.

The module is the one that ships, with its SDK and its allocator; the host's side is played here, in as
much of the ABI as a request takes. The counts are the same from run to run, so that commits compare,
and they are WebAssembly's instructions: how many of the machine's those become is V8's affair. The last
run's numbers are in target/bench/module.json; a run prints its change against them.
"""

import json
import struct
import sys
from pathlib import Path

import wasmtime

sys.path.insert(0, str(Path(__file__).parent))
from bench import AUTH_KEY, BUILT, CHAT, GENERATE, ROOT, chat, gemini, settings

MODULE = ROOT / "target" / "one_balance.wasm"
OK, NOT_FOUND, CAS_MISMATCH = 0, 1, 8
REQUEST, RESPONSE = 0, 2
REQUEST_BODY, RESPONSE_BODY, CONFIGURATION = 0, 1, 7
DOWNSTREAM, UPSTREAM = 1, 2
WARM = 5
"""Requests before the one that counts: the first ones learn and fill."""

GEMINI_ANSWER = {
    "candidates": [{"content": {"parts": [{"text": "Hello there."}], "role": "model"}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 12, "candidatesTokenCount": 9, "totalTokenCount": 21},
}
OPENAI_ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 9, "total_tokens": 21},
}
CHUNK = {"candidates": [{"content": {"parts": [{"text": "Hello there. "}], "role": "model"}}]}
NATIVE = f"/api/google-ai-studio/{GENERATE}"


def whole(answer: dict) -> list[bytes]:
    return [json.dumps(answer).encode()]


def streamed(count: int) -> list[bytes]:
    return [f"data: {json.dumps(event)}\r\n\r\n".encode() for event in [*[CHUNK] * count, GEMINI_ANSWER]]


KINDS = {
    "native, 1 KB": (NATIVE, gemini(1024), whole(GEMINI_ANSWER)),
    "compat, 1 KB": (CHAT, chat("plain/m", 1024), whole(OPENAI_ANSWER)),
    "compat, 64 KB": (CHAT, chat("plain/m", 65_536), whole(OPENAI_ANSWER)),
    "compat, 1 MB": (CHAT, chat("plain/m", 1_048_576), whole(OPENAI_ANSWER)),
    "OpenAI to Gemini": (CHAT, chat("google-ai-studio/gemini-2.0-flash", 1024), whole(GEMINI_ANSWER)),
    "the same, 200 chunks": (CHAT, chat("google-ai-studio/gemini-2.0-flash", 1024, stream=True), streamed(200)),
}


class Host:
    """A worker with both places of the filter. Its clock stands, and its dice always fall alike."""

    def __init__(self, configuration: bytes) -> None:
        fuel = wasmtime.Config()
        fuel.consume_fuel = True
        engine = wasmtime.Engine(fuel)
        module = wasmtime.Module(engine, MODULE.read_bytes())
        self.store = wasmtime.Store(engine)
        self.store.set_fuel(2**62)
        linker = wasmtime.Linker(engine)
        for imported in module.imports:
            call = getattr(self, imported.name, lambda *_: OK)
            linker.define_func(imported.module, imported.name, imported.type, call)
        exports = linker.instantiate(self.store, module).exports(self.store)
        self.call = lambda name, *args: exports[name](self.store, *args)
        self.memory = exports["memory"]
        self.shared: dict[bytes, tuple[bytes, int]] = {}
        self.properties: dict[bytes, bytes] = {}
        self.maps: dict[int, dict[bytes, bytes]] = {}
        self.buffers = {CONFIGURATION: configuration}
        self.call("_initialize")
        for context, name in ((DOWNSTREAM, b"downstream"), (UPSTREAM, b"upstream")):
            self.properties[b"plugin_root_id"] = name
            self.call("proxy_on_context_create", context, 0)
            self.call("proxy_on_vm_start", context, 0)
            self.call("proxy_on_configure", context, len(configuration))
        self.streams = UPSTREAM

    def request(self, path: str, body: bytes, pieces: list[bytes]) -> bytes:
        """One exchange; what the client gets."""
        downstream, upstream = self.streams + 1, self.streams + 2
        self.streams = upstream
        headers = {
            ":authority": "one-balance",
            ":path": path,
            ":method": "POST",
            ":scheme": "http",
            "authorization": f"Bearer {AUTH_KEY}",
            "content-type": "application/json",
            "content-length": str(len(body)),
            "user-agent": "OpenAI/Python 3.0.0",
            "x-forwarded-proto": "http",
        }
        kind = "text/event-stream" if len(pieces) > 1 else "application/json"
        answer = {
            ":status": "200",
            "content-type": kind,
            "date": "Tue, 24 Nov 2026 12:00:00 GMT",
            "server": "scaffolding",
        }
        self.maps = {REQUEST: encoded(headers), RESPONSE: encoded(answer)}
        self.buffers |= {REQUEST_BODY: body, RESPONSE_BODY: b""}
        self.call("proxy_on_context_create", downstream, DOWNSTREAM)
        self.call("proxy_on_request_headers", downstream, len(headers), 0)
        self.call("proxy_on_request_body", downstream, len(body), 1)
        self.call("proxy_on_context_create", upstream, UPSTREAM)
        self.call("proxy_on_request_headers", upstream, len(headers), 0)
        self.call("proxy_on_request_body", upstream, len(self.buffers[REQUEST_BODY]), 1)
        waits = self.call("proxy_on_response_headers", upstream, len(answer), 0)
        if not waits:
            self.call("proxy_on_response_headers", downstream, len(answer), 0)
        received = b""
        for piece in [*pieces, b""]:
            self.buffers[RESPONSE_BODY] += piece
            if self.call("proxy_on_response_body", upstream, len(self.buffers[RESPONSE_BODY]), not piece):
                continue
            if waits:
                self.call("proxy_on_response_headers", downstream, len(answer), 0)
                waits = 0
            self.call("proxy_on_response_body", downstream, len(self.buffers[RESPONSE_BODY]), not piece)
            received += self.buffers[RESPONSE_BODY]
            self.buffers[RESPONSE_BODY] = b""
        self.call("proxy_on_delete", upstream)
        self.call("proxy_on_log", downstream)
        self.call("proxy_on_delete", downstream)
        return received

    # What the module calls.

    def read(self, start: int, size: int) -> bytes:
        return bytes(self.memory.read(self.store, start, start + size))

    def number(self, place: int, number: int, form: str = "<I") -> int:
        self.memory.write(self.store, struct.pack(form, number), place)
        return OK

    def give(self, data: bytes | None, place: int, size: int) -> int:
        if data is None:
            return NOT_FOUND
        start = self.call("proxy_on_memory_allocate", len(data))
        self.memory.write(self.store, data, start)
        self.number(place, start)
        return self.number(size, len(data))

    def random_get(self, start: int, size: int) -> int:
        self.memory.write(self.store, bytes([7] * size), start)
        return OK

    def environ_sizes_get(self, count: int, size: int) -> int:
        self.number(count, 0)
        return self.number(size, 0)

    def proxy_get_current_time_nanoseconds(self, place: int) -> int:
        return self.number(place, 1_795_521_600 * 10**9, "<Q")

    def proxy_get_shared_data(self, name: int, size: int, place: int, place_size: int, cas: int) -> int:
        value, version = self.shared.get(self.read(name, size), (None, 0))
        self.number(cas, version)
        return self.give(value, place, place_size)

    def proxy_set_shared_data(self, name: int, size: int, value: int, value_size: int, cas: int) -> int:
        name = self.read(name, size)
        _, version = self.shared.get(name, (b"", 0))
        if cas not in (0, version):
            return CAS_MISMATCH
        self.shared[name] = (self.read(value, value_size), version + 1)
        return OK

    def proxy_get_property(self, path: int, size: int, place: int, place_size: int) -> int:
        return self.give(self.properties.get(self.read(path, size)), place, place_size)

    def proxy_set_property(self, path: int, size: int, value: int, value_size: int) -> int:
        self.properties[self.read(path, size)] = self.read(value, value_size)
        return OK

    def proxy_get_header_map_pairs(self, which: int, place: int, size: int) -> int:
        pairs = self.maps[which].items()
        sizes = b"".join(struct.pack("<II", len(name), len(value)) for name, value in pairs)
        texts = b"".join(name + b"\0" + value + b"\0" for name, value in pairs)
        return self.give(struct.pack("<I", len(pairs)) + sizes + texts, place, size)

    def proxy_replace_header_map_value(self, which: int, name: int, size: int, value: int, value_size: int) -> int:
        self.maps[which][self.read(name, size)] = self.read(value, value_size)
        return OK

    def proxy_remove_header_map_value(self, which: int, name: int, size: int) -> int:
        self.maps[which].pop(self.read(name, size), None)
        return OK

    def proxy_get_buffer_bytes(self, which: int, start: int, most: int, place: int, size: int) -> int:
        return self.give(self.buffers[which][start : start + most], place, size)

    def proxy_set_buffer_bytes(self, which: int, start: int, size: int, data: int, data_size: int) -> int:
        buffer = self.buffers[which]
        self.buffers[which] = buffer[:start] + self.read(data, data_size) + buffer[start + size :]
        return OK

    def proxy_send_local_response(self, status: int, *_: int) -> int:
        raise SystemExit(f"bench-core: the module refused the request with {status}")


def encoded(headers: dict[str, str]) -> dict[bytes, bytes]:
    return {name.encode(): value.encode() for name, value in headers.items()}


def instructions(path: str, body: bytes, pieces: list[bytes]) -> int:
    host = Host(json.dumps(settings(9, 10)).encode())
    for _ in range(WARM):
        host.request(path, body, pieces)
    before = host.store.get_fuel()
    answer = host.request(path, body, pieces)
    if b"Hello" not in answer:
        raise SystemExit(f"bench-core: not the answer that was meant: {answer[:200]}")
    return before - host.store.get_fuel()


def main() -> int:
    file = BUILT / "module.json"
    last = json.loads(file.read_text()) if file.exists() else {}
    now = {}
    for kind, exchange in KINDS.items():
        now[kind] = instructions(*exchange)
        change = f"{now[kind] / last[kind] - 1:+.1%}" if last.get(kind) else ""
        print(f"{kind:<24}{now[kind]:>12,} instructions per request  {change}", flush=True)
    print(f"{'size':<24}{MODULE.stat().st_size:>12,} bytes")
    BUILT.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(now, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
