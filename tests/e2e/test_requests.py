"""Who asks, for what, and what the provider gets of it."""

import gzip
import json

import harness
import pytest
from harness import Simulator
from harness_client import chat_body, gemini_body
from provider_simulator import Answer

SPELLINGS = ["authorization", "x-api-key", "x-goog-api-key", "api-key", "xi-api-key"]
NATIVE = [
    ("google-ai-studio", "/api/google-ai-studio/v1beta/models/{model}:generateContent", "x-goog-api-key"),
    ("openai", "/api/openai/chat/completions", "authorization"),
    ("openai", "/api/openai/v1/chat/completions", "authorization"),
    ("anthropic", "/api/anthropic/v1/messages", "x-api-key"),
]


def native_body(slug, model):
    return gemini_body() if slug == "google-ai-studio" else chat_body(model, max_tokens=8)


@pytest.fixture(scope="module", params=["direct", "gateway"])
def either(request, tmp_path_factory):
    """An Envoy that goes straight to the providers, and one through AI Gateway."""
    with Simulator(gateway_token="gateway-token-1234") as simulator:
        for slug in ("google-ai-studio", "openai", "anthropic"):
            simulator.key(slug)
            simulator.key(slug)
        log = tmp_path_factory.mktemp(request.param) / "envoy.log"
        gateway = request.param == "gateway"
        env = {"AI_GATEWAY_TOKEN": "gateway-token-1234"} if gateway else {}
        balancer = harness.start(simulator, log, gateway=gateway, env=env)
        yield balancer
        harness.stop(balancer)


@pytest.mark.parametrize(("slug", "path", "header"), NATIVE)
def test_native_requests(either, slug, path, header, model):
    either.simulator.clear()
    answer = either.client.post(path.format(model=model), json=native_body(slug, model))
    assert answer.status_code == 200, answer.text
    [request] = either.simulator.requests
    assert (request.slug, request.model) == (slug, model)
    assert request.json() == native_body(slug, model)
    assert request.key in either.simulator.keys
    assert request.header(header)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/compat/chat/completions"])
@pytest.mark.parametrize("slug", ["google-ai-studio", "openai", "anthropic"])
def test_openai_shaped_requests(either, path, slug, model):
    answer = either.client.chat(f"{slug}/{model}", path=path)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]
    assert answer.headers["x-one-balance-attempts"] == "1"


def test_embeddings(either, model):
    answer = either.client.post("/v1/embeddings", json={"model": f"openai/{model}", "input": "x"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"]


@pytest.mark.parametrize("stream", ["sse", "array"])
def test_native_gemini_streams(either, stream, model):
    query = "?alt=sse" if stream == "sse" else ""
    path = f"/api/google-ai-studio/v1beta/models/{model}:streamGenerateContent{query}"
    with either.client.stream(path, json=gemini_body()) as arriving:
        assert arriving.status == 200
        chunks = arriving.json_events() if stream == "sse" else json.loads(arriving.rest())
        assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"


@pytest.mark.parametrize("spelling", [*SPELLINGS, "query", "lower-case bearer", "several"])
def test_each_spelling_of_the_credential_and_no_trace_of_it(shared, spelling, model):
    path, auth, headers = f"/api/openai/chat/completions?x=1&model={model}", None, []
    key = shared.client.auth_key
    if spelling == "query":
        path += f"&key={key}&%6bey={key}"
    elif spelling == "lower-case bearer":
        headers = [("authorization", f"bearer {key}")]
    elif spelling == "several":
        headers = [(name, key) for name in SPELLINGS[1:]] + [("authorization", "Bearer something-else")]
    else:
        auth = spelling
    private = ["cookie", "origin", "referer", "x-forwarded-for", "forwarded", "cf-connecting-ip", "x-real-ip", "via"]
    private += ["traceparent", "x-b3-traceid", "client-ip", "x-original-forwarded-for", "x-http-method-override"]
    headers += [(name, f"private {key}") for name in private]
    answer = shared.client.post(path, auth=auth, headers=headers, json=chat_body(model))
    assert answer.status_code == 200, answer.text
    [request] = shared.simulator.wait_for(1, model=model)
    assert not request.mentions(key)
    assert not request.mentions("private")
    names = {name.decode().lower() for name, _ in request.headers}
    assert not {name for name in names if name.startswith(("x-one-balance", "x-envoy", "x-forwarded", "x-request-id"))}
    assert request.target == f"/openai/v1/chat/completions?x=1&model={model}"
    assert answer.headers["x-one-balance-key-id"] not in (key, request.key.secret)


@pytest.mark.parametrize(
    ("definition", "path", "model", "status", "code"),
    [
        (None, "/v1/chat/completions", "openai/gpt-4o", 401, "missing_auth_key"),
        ("wrong-key-1234", "/v1/chat/completions", "openai/gpt-4o", 401, "invalid_auth_key"),
        ("old-key-12345", "/v1/chat/completions", "openai/gpt-4o", 401, "expired_auth_key"),
        ("tight-key-123", "/v1/chat/completions", "openai/gpt-4o", 200, None),
        ("tight-key-123", "/v1/chat/completions", "openai/o3", 403, "model_not_allowed"),
        ("tight-key-123", "/v1/chat/completions", "anthropic/claude", 403, "provider_not_allowed"),
        ("tight-key-123", "/api/openai/responses", "o3", 403, "model_not_allowed"),
        ("tight-key-123", "/api/openai/responses", "gpt-4o", 200, None),
        ("later-key-1234", "/api/anthropic/v1/messages", "claude", 200, None),
    ],
)
def test_who_may_do_what(rights, definition, path, model, status, code):
    headers = {"authorization": f"Bearer {definition}"} if definition else {}
    answer = rights.client.post(path, auth=None, headers=headers, json=chat_body(model))
    assert answer.status_code == status, answer.text
    if code:
        assert answer.json()["error"]["code"] == code
        assert answer.json()["error"]["message"]


@pytest.fixture(scope="module")
def rights(tmp_path_factory):
    with Simulator() as simulator:
        for slug in ("openai", "anthropic"):
            simulator.key(slug)
        keys = (
            "open-key-1234;tight-key-123=openai,gpt-4o&google-ai-studio;old-key-12345(1000);later-key-1234(99999999999)"
        )
        balancer = harness.start(simulator, tmp_path_factory.mktemp("rights") / "envoy.log", env={"AUTH_KEY": keys})
        yield balancer
        harness.stop(balancer)


def test_errors_have_the_shape_of_the_clients_api(shared):
    client = shared.client
    openai = client.post("/v1/chat/completions", auth=None, json={}).json()
    assert openai["error"]["type"] == "authentication_error"
    assert openai["error"]["message"]
    gemini = client.post("/api/google-ai-studio/v1/models/m:generateContent", auth=None, json={}).json()
    assert gemini["error"]["status"] == "UNAUTHENTICATED"
    assert gemini["error"]["code"] == 401
    anthropic = client.post("/api/anthropic/v1/messages", auth=None, json={}).json()
    assert anthropic["type"] == "error"
    assert anthropic["error"]["type"] == "authentication_error"


def test_native_bodies_go_up_byte_for_byte(shared, model):
    audio = bytes(range(256)) * 64
    for path, content_type in [
        (f"/api/google-ai-studio/v1beta/models/{model}:generateContent", "application/octet-stream"),
        ("/api/openai/audio/odd", "audio/wav"),
    ]:
        answer = shared.client.post(path, content=audio, headers={"content-type": content_type, "x-mark": model})
        assert answer.status_code == 200, answer.text
        request = next(request for request in shared.simulator.requests if request.header("x-mark") == model)
        assert request.body == audio
        shared.simulator.clear()


def test_odd_json_is_left_as_it_is(shared, pool):
    body = (
        b'{ "model" :\t"%s", "x": 1.0e+2, "\\u0061": "\\ud83d\\ude00", "messages": [ ] }' % pool.compat_model.encode()
    )
    answer = shared.client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    [request] = shared.simulator.wait_for(1, model=pool.model)
    assert request.body == body.replace(pool.compat_model.encode(), pool.model.encode())


def test_the_model_in_a_form(shared, rights):
    files = {"file": ("a.wav", b"RIFF\x00", "audio/wav")}
    answer = shared.client.post("/api/openai/audio/transcriptions", files=files, data={"model": "whisper-1"})
    assert answer.status_code == 200, answer.text
    tight = [("authorization", "Bearer tight-key-123")]
    answer = rights.client.post(
        "/api/openai/audio/transcriptions", auth=None, headers=tight, files=files, data={"model": "whisper-1"}
    )
    assert answer.json()["error"]["code"] == "model_not_allowed"


def test_a_websocket_gets_a_pooled_key(shared, model):
    assert shared.client.websocket(f"/api/openai/realtime?model={model}", ["a", "b"]) == ["a", "b"]
    [request] = shared.simulator.wait_for(1, model=model)
    assert request.key in shared.simulator.keys
    assert not request.mentions(shared.client.auth_key)


def test_small_questions(shared):
    client = shared.client
    assert client.get("/healthz", auth=None).status_code == 200
    assert client.request("OPTIONS", "/v1/chat/completions", auth=None).status_code == 204
    assert client.get("/api/openai/models").json()["data"]
    head = client.request("HEAD", "/api/openai/models")
    assert head.status_code == 200
    assert head.content == b""
    assert client.get("/").json()["error"]["code"] == "unknown_path"
    assert client.post("/api/nobody/x", json={}).json()["error"]["code"] == "unknown_provider"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"model": "openai/m"', "invalid_json"),
        (b'{"model": "openai/m", "messages": [}', "invalid_json"),
        (b"", "invalid_json"),
        (b'[{"model": "openai/m"}]', "invalid_json"),
        (b'{"model": "\xff"}', "invalid_json"),
        (b'{"model": "openai/m", "model": "openai/n"}', "duplicate_field"),
        (b'{"model": "openai/m", "x": {}, "mod\\u0065l": "openai/n"}', "duplicate_field"),
        (b'{"model": "m"}', "invalid_model"),
    ],
)
def test_bodies_that_cannot_be_served(shared, body, code):
    answer = shared.client.raw_request("POST", "/v1/chat/completions", [(b"content-type", b"application/json")], body)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, code)


def test_a_compressed_body(shared, model):
    packed = {"content": gzip.compress(b"{}"), "headers": {"content-encoding": "gzip"}}
    refused = shared.client.post("/v1/chat/completions", **packed)
    assert (refused.status_code, refused.json()["error"]["code"]) == (415, "unsupported_encoding")
    assert refused.json()["error"]["type"] == "invalid_request_error"
    # Where the path names the model, the body is nobody's business.
    passed = shared.client.post(f"/api/google-ai-studio/v1beta/models/{model}:generateContent", **packed)
    [request] = shared.simulator.wait_for(1, model=model)
    assert (passed.status_code, request.body) == (200, packed["content"])


@pytest.mark.parametrize(
    "path", ["/api/openai/../anthropic/x", "/api/openai/%2e%2e/x", "/api/openai/a%2fb", "/api/openai/a%5Cb"]
)
def test_paths_that_could_be_read_in_two_ways(shared, path):
    answer = shared.client.raw_request("GET", path)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "invalid_path")


def test_odd_headers(shared, model):
    odd = [(b"x-odd", b"\xff\xfe\x80"), (b"x-api-key", b"\xff\xff")]
    many = [(b"x-number-%d" % number, b"v") for number in range(100)]
    answer = shared.client.raw_request("GET", "/api/openai/models", odd + many)
    assert answer.status == 200, answer
    request = shared.simulator.requests[-1]
    assert request.header_values("x-odd") == [b"\xff\xfe\x80"]
    assert sum(name.startswith(b"x-number-") for name, _ in request.headers) == 100


def test_a_large_body_is_retried(shared, pool):
    bad, *_ = pool.keys
    shared.simulator.script(Answer(503), key=bad, times=None)
    text = "x" * (20 << 20)
    for _ in pool.keys:
        answer = shared.client.chat(pool.compat_model, text=text)
        assert answer.status_code == 200, answer.text[:200]
        shared.simulator.wait_for(1, model=pool.model)
    requests = [request for request in shared.simulator.requests if request.model == pool.model]
    assert bad in [request.key for request in requests]
    assert all(len(request.body) > 20 << 20 for request in requests)
    shared.simulator.clear()


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_limit(shared, model, announced):
    size = (32 << 20) + 1
    content = b"x" * size if announced else (b"x" * (1 << 20) for _ in range(33))
    answer = shared.client.post(f"/api/google-ai-studio/v1/models/{model}:generateContent", content=content)
    assert answer.status_code == 413
    error = answer.json()["error"]
    assert error["status"] == "INVALID_ARGUMENT"
    assert "33554432" in error["message"]
    assert not [request for request in shared.simulator.requests if request.model == model]


def test_request_trailers(shared, pool):
    chunk = json.dumps(chat_body(pool.compat_model)).encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n"
        % shared.client.auth_key.encode()
    )
    body = b"%x\r\n%s\r\n0\r\nx-trailer: 1\r\n\r\n" % (len(chunk), chunk)
    answer = shared.client.raw(head + b"transfer-encoding: chunked\r\ntrailer: x-trailer\r\n\r\n" + body)
    assert answer.status == 200, answer


def test_set_cookie_of_a_provider_is_dropped(shared, pool):
    shared.simulator.script(Answer(200, headers=[("set-cookie", "a=b"), ("x-kept", "1")], body={}), model=pool.model)
    answer = shared.client.chat(pool.compat_model)
    assert answer.headers["x-kept"] == "1"
    assert "set-cookie" not in answer.headers
