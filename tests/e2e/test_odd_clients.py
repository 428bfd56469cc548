"""Odd and hostile clients, and odd providers: what of either gets through. After each test, `unharmed` looks for
crashes and for secrets in Envoy's logs."""

import contextlib
import gzip
import json
import socket

import pytest
from harness import eventually
from harness_client import HOST, chat_body
from provider_simulator import Answer

SMALL = b'{"error": {"message": "slow down"}}'
RETRY = [("x-one-balance-retry", "1"), ("x-one-balance-attempts", "9")]
GZIP = [("content-encoding", "gzip")]


def head(method, target, key, *lines):
    own = [b"%s %s HTTP/1.1" % (method.encode(), target.encode()), b"host: x", b"authorization: Bearer " + key.encode()]
    return b"\r\n".join([*own, *lines, b"", b""])


@pytest.mark.parametrize(
    ("method", "lines", "body", "status"),
    [
        ("TRACE", [], b"", 405),
        ("POST", [b"upgrade: websocket", b"connection: upgrade"], b"", 405),
        ("POST", [b"transfer-encoding: chunked"], b"1;x=y\r\n{\r\n0001\r\n}\r\n000\r\nx-api-key: wrong\r\n\r\n", 200),
        ("POST", [b"transfer-encoding: chunked"], b"zz\r\n{}\r\n0\r\n\r\n", 400),
        ("POST", [b"transfer-encoding: chunked", b"content-length: 2"], b"2\r\n{}\r\n0\r\n\r\n", 400),
        ("POST", [b"content-length: 2", b"content-length: 3"], b"{}", 400),
        ("POST", [b"content-length: 2", b"expect: 100-continue"], b"{}", 100),
        ("POST", [b"content-length: 2", b"upgrade: h2c", b"connection: upgrade"], b"{}", 200),
        ("GET", [b"x-nul: \x00"], b"", 400),
        ("GET", [b"x-number-%d: 1" % number for number in range(300)], b"", 431),
    ],
)
def test_odd_requests(shared, method, lines, body, status):
    shared.simulator.clear()
    data = head(method, "/api/openai/odd", shared.client.auth_key, *lines) + body
    with socket.create_connection((HOST, shared.balancer.port), 10) as connection:
        connection.sendall(data)
        assert connection.recv(4096).startswith(b"HTTP/1.1 %d" % status)
    assert len(shared.simulator.requests) == (status == 200) or status == 100


@pytest.mark.parametrize(
    ("target", "lines", "status"),
    [
        ("/api/openai/models?key=%s", [b"x-api-key: wrong", b"api-key: wrong"], 200),
        ("/api/openai/models?key=%s&key=wrong", [], 200),
        ("/api/openai/models", [b"cookie: key=%s"], 401),
        ("/api/openai/models", [b"x_api_key: %s"], 401),
        ("/api/openai/models", [b"authorization: Basic %s"], 401),
        ("/api/openai/models", [b"connection: authorization", b"authorization: Bearer %s"], 401),
        # Envoy refuses a fragment and logs it with the path.
        ("/api/openai/models#fragment", [b"x-api-key: %s"], 400),
        ("http://evil.example/api/openai/models?key=%s", [b"x-forwarded-host: evil.example"], 200),
        ("//evil.example/api/openai/models?key=%s", [], 404),
    ],
)
def test_where_a_credential_counts_and_where_requests_go(shared, target, lines, status):
    shared.simulator.clear()
    key = shared.client.auth_key
    text = b"\r\n".join([b"GET " + target.encode() + b" HTTP/1.1", b"host: evil.example", *lines, b"", b""])
    assert shared.client.raw(text.replace(b"%s", key.encode()), "GET").status == status
    for request in shared.simulator.requests:
        assert (request.target, request.mentions(key)) == ("/openai/v1/models", False)
        assert not request.mentions("evil")
    assert len(shared.simulator.requests) == (status == 200)


def test_a_client_commands_neither_envoy_nor_the_filter(shared, pool):
    names = ["envoy-max-retries", "envoy-upstream-rq-timeout-ms", "envoy-attempt-count", "one-balance-retry"]
    headers = {f"x-{name}": "1" for name in names}
    headers |= {"x-envoy-retry-on": "5xx,retriable-4xx", "x-envoy-retriable-status-codes": "200,400"}
    shared.simulator.script(Answer(503), model=pool.model, times=2)
    shared.simulator.script(Answer(400, delay=0.1), model=pool.model)
    answer = shared.client.post("/v1/chat/completions", json=chat_body(pool.compat_model), headers=headers)
    assert (answer.status_code, answer.headers["x-one-balance-attempts"]) == (400, "3")
    for request in shared.simulator.wait_for(3, model=pool.model):
        assert not [name for name, _ in request.headers if name.startswith((b"x-envoy", b"x-one-balance"))]


@pytest.mark.parametrize(
    ("slug", "stream", "provider", "status", "attempts"),
    [
        (None, False, Answer(200, headers=RETRY, body={}), 200, "1"),
        (None, False, Answer(400, headers=RETRY, body={}), 400, "1"),
        (None, False, Answer(raw=b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"), 204, "1"),
        (None, False, Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}"), 200, "2"),
        (None, False, Answer(raw=b"\x00\r\n\r\n"), 200, "2"),
        (None, False, lambda request: Answer(400, body=request.header("authorization")), 400, "1"),
        (None, False, Answer(429, headers=GZIP, body=gzip.compress(SMALL)), 200, "2"),
        (None, False, Answer(429, body=SMALL, cut_after=9), 200, "2"),
        (None, False, Answer(400, headers=GZIP, body=gzip.compress(SMALL)), 400, "1"),
        (None, False, Answer(429, headers=[("x-envoy-ratelimited", "true")], body=SMALL), 200, "2"),
        ("anthropic", False, Answer(200, body="{"), 502, "1"),
        ("anthropic", False, Answer(200, body=b"{}", cut_after=1), 200, "2"),
        ("anthropic", True, Answer(200, chunks=[b"data: {"]), 200, "1"),
        ("anthropic", True, Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), 502, "1"),
        ("anthropic", True, Answer(raw=b"HTTP/1.1 204 No Content\r\n\r\n"), 502, "1"),
        ("anthropic", True, Answer(307, headers=[("location", "https://evil.example/")], body=b"x"), 502, "1"),
        ("anthropic", True, Answer(200, headers=GZIP, body=gzip.compress(b"data: {}\n\n")), 502, "1"),
    ],
)
def test_odd_providers(shared, pool, slug, stream, provider, status, attempts):
    shared.simulator.script(provider, model=pool.model)
    answer = shared.client.chat(f"{slug or pool.slug}/{pool.model}", stream=stream)
    assert (answer.status_code, answer.headers["x-one-balance-attempts"]) == (status, attempts), answer.text
    assert not {"x-one-balance-retry", "content-encoding"} & set(answer.headers)
    assert not [key for key in pool.keys if key.secret in answer.text]
    if slug and attempts == "1":
        assert '"error"' in answer.text


def test_a_client_that_goes_away_does_not_take_the_key_with_it(start, simulator, model):
    """After a 429 that says nothing one request goes first; here its client leaves before the answer."""
    simulator.key("openai")
    client = start(plugin={"default_cooling_seconds": 1}).client
    simulator.script(Answer(429, body={}), model=model)
    assert client.chat(f"openai/{model}").status_code == 429
    simulator.script(Answer(200, delay=20, body={}), model=model)
    body = json.dumps(chat_body(f"openai/{model}")).encode()
    sent = head("POST", "/v1/chat/completions", client.auth_key, b"content-length: %d" % len(body)) + body

    def leaves_in_time() -> bool:
        with contextlib.suppress(TimeoutError):
            client.raw(sent, timeout=0.3)
        return len(simulator.requests) == 2

    eventually(leaves_in_time)
    # Else the key would be that request's for 30 s.
    eventually(lambda: client.chat(f"openai/{model}").status_code == 200, 5)


@pytest.mark.parametrize(
    ("name", "status"), [("www-authenticate", 400), ("x-debug", 200), ("location", 307), ("location", 200)]
)
def test_the_key_in_a_header(shared, pool, name, status):
    def provider(request):
        key = request.header("authorization").removeprefix("Bearer ")
        return Answer(status, headers=[(name, f"http://internal/?key={key}"), ("x-kept", "1")], body={})

    shared.simulator.script(provider, model=pool.model)
    answer = shared.client.chat(pool.compat_model)
    assert name not in answer.headers
    assert answer.status_code == (502 if status == 307 else status)
    assert ("provider_error_withheld" in answer.text) == (status == 307)
    assert not [key for key in pool.keys if key.secret in f"{answer.headers} {answer.text}"]


def test_an_error_that_breaks_off_cools_its_key(shared, pool):
    """The next request does not try the key again, although the 429's text never came."""
    shared.simulator.script(Answer(429, headers=[("retry-after", "60")], body=SMALL, cut_after=9), model=pool.model)
    first = [shared.client.chat(pool.compat_model) for _ in range(len(pool.keys) + 1)]
    assert [answer.status_code for answer in first] == [200] * len(first)
    assert [answer.headers["x-one-balance-attempts"] for answer in first] == ["2", *["1"] * len(pool.keys)]
    cooled = shared.simulator.wait_for(1, model=pool.model)[0].header("authorization")
    later = shared.simulator.wait_for(len(first) + 1, model=pool.model)[1:]
    assert cooled not in {request.header("authorization") for request in later}


@pytest.mark.parametrize(
    ("kind", "sandboxed"), [("text/html", True), ("image/svg+xml", True), ("application/json", False)]
)
def test_no_page_of_a_provider_runs_under_the_consoles_origin(shared, pool, kind, sandboxed):
    page = Answer(200, headers=[("content-type", kind), ("strict-transport-security", "max-age=1")], body=b"<script>")
    shared.simulator.script(page, model=pool.model)
    answer = shared.client.chat(pool.compat_model)
    assert (answer.status_code, answer.content) == (200, b"<script>")
    assert (answer.headers.get("content-security-policy") == "sandbox") == sandboxed
    assert (answer.headers.get("x-content-type-options") == "nosniff") == sandboxed
    assert "strict-transport-security" not in answer.headers


@pytest.mark.parametrize(
    ("limit", "sent"),
    [
        ("request_headers_timeout", b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-slow: 1\r\n"),
        ("request_timeout", None),
    ],
)
def test_a_request_that_does_not_come_is_ended(start, simulator, model, limit, sent):
    simulator.key("openai")

    def shorten(bootstrap):
        manager = bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        assert manager[limit], "the shipped configuration has it"
        manager[limit] = "0.5s"

    balancer = start(edit=shorten)
    sent = sent or head("POST", "/v1/chat/completions", balancer.auth_key, b"content-length: 100") + b"{"
    assert balancer.client.raw(sent).status == 408
    # A slow answer is not a slow request.
    simulator.script(Answer(200, body={}, delay=1), model=model)
    assert balancer.client.chat(f"openai/{model}").status_code == 200
