"""`make verify`: passes where all is well, and says what is wrong where it is not."""

import os
import socketserver
import subprocess
import threading

import harness
import pytest
from provider_simulator import Answer, Behaviour

MAKE = ["make", "--no-print-directory", "verify"]


def verify(url: str, auth_key: str, model: str = "") -> tuple[int, dict[str, str], str]:
    """Exit status, what each check came to, and everything that was printed."""
    variables = [
        f"{name}={value}" for name, value in {"URL": url, "AUTH_KEY": auth_key, "MODEL": model}.items() if value
    ]
    env = {name: value for name, value in os.environ.items() if name not in ("URL", "AUTH_KEY", "MODEL")}
    done = subprocess.run(
        [*MAKE, *variables], cwd=harness.ROOT, env={**env, "NO_PROXY": "*"}, capture_output=True, text=True, timeout=60
    )
    lines = [line for line in done.stdout.splitlines() if line[:4] in ("pass", "FAIL")]
    return done.returncode, {line[6:24].strip(): line[:4] for line in lines}, done.stdout + done.stderr


def of(balancer, model: str = "", auth_key: str | None = None):
    status, outcome, text = verify(f"http://127.0.0.1:{balancer.port}", auth_key or balancer.auth_key, model)
    assert not [secret for secret in balancer.secrets if secret in text]
    assert (auth_key or balancer.auth_key) not in text
    return status, outcome, text


@pytest.mark.parametrize("slug", ["openai", "google-ai-studio", "anthropic"])
def test_all_is_well(shared, slug):
    status, outcome, text = of(shared.balancer, f"{slug}/gpt-4o")
    assert (status, set(outcome.values())) == (0, {"pass"}), text
    assert "8 passed, 0 failed" in text


def test_it_finds_a_model_that_has_keys(start, simulator):
    for _ in range(3):
        simulator.key("anthropic")
    status, _, text = of(start())
    assert status == 0, text
    assert "model anthropic/" in text


def test_a_listed_model(start, simulator):
    simulator.key("openai")
    simulator.key("openai")
    status, _, text = of(start(plugin={"models": ["openai/special"]}))
    assert status == 0, text
    assert "model openai/special" in text


def test_the_wrong_key(shared):
    status, outcome, text = of(shared.balancer, "openai/gpt-4o", "not-the-right-key")
    assert status != 0
    assert [outcome[name] for name in ("health", "wrong key refused", "AUTH_KEY accepted", "OpenAI format")] == [
        "pass",
        "pass",
        "FAIL",
        "FAIL",
    ]
    assert "this AUTH_KEY is none of the deployment's" in text


@pytest.mark.parametrize(
    ("prepare", "failing", "hint"),
    [
        (lambda simulator: simulator.key("openai"), ["keys rotate"], "the pool has one key"),
        (lambda simulator: simulator.key("anthropic"), ["OpenAI format", "native format"], "the pool has no key"),
        (
            lambda simulator: simulator.key("openai", Behaviour.INVALID),
            ["OpenAI format", "streaming"],
            "the provider refused every key",
        ),
        (
            lambda simulator: (
                simulator.key("openai"),
                simulator.script(Answer(404, body={"error": {"message": "no such model"}}), times=None),
            ),
            ["OpenAI format"],
            "the model's name is wrong",
        ),
    ],
    ids=["one key", "no key", "a bad key", "a wrong model"],
)
def test_what_is_wrong(start, simulator, prepare, failing, hint):
    prepare(simulator)
    status, outcome, text = of(start(), "openai/gpt-4o")
    assert status != 0
    assert all(outcome[name] == "FAIL" for name in failing), text
    assert outcome["AUTH_KEY accepted"] == "pass"
    assert hint in text


def beside(answer: bytes, model: str = "") -> tuple[int, dict[str, str], str]:
    """What is said of something else that answers everything with these bytes."""

    class Other(socketserver.StreamRequestHandler):
        def handle(self):
            while self.rfile.readline().strip():
                pass
            self.wfile.write(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            return verify(f"http://127.0.0.1:{server.server_address[1]}", "some-auth-key-1", model)
        finally:
            server.shutdown()


def test_something_else_is_there():
    status, outcome, text = beside(b"HTTP/1.0 200 OK\r\n\r\nhello")
    assert status != 0
    assert outcome["no key refused"] == outcome["wrong key refused"] == "FAIL"
    assert "whoever finds this URL can use the pool" in text


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (b"HTTP/1.1 301 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", "is URL right (https://"),
        (b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n", "nginx: proxy_http_version 1.1"),
        (b"HTTP/1.1 418 Teapot\r\ncontent-length: 0\r\n\r\n", "see the access log"),
    ],
)
def test_what_is_before_envoy(answer, hint):
    status, outcome, text = beside(answer, "openai/gpt-4o")
    assert (status != 0, set(outcome.values())) == (True, {"FAIL"})
    assert hint in text
    assert "Traceback" not in text


@pytest.mark.parametrize("answer", [b"", b"\x15\x03\x01\x00\x02\x02\x46some-auth-key-1"])
def test_no_http_is_there(answer):
    status, outcome, text = beside(answer)
    assert (status != 0, outcome) == (True, {"health": "FAIL"})
    assert "is it running" in text
    assert not [word for word in ("Traceback", "some-auth-key-1") if word in text]


def test_nothing_is_there():
    status, outcome, text = verify("http://127.0.0.1:1", "some-auth-key-1")
    assert (status != 0, outcome) == (True, {"health": "FAIL"}), "and it is said once"
    assert "is it running" in text


def test_what_it_needs_to_be_told():
    status, outcome, text = verify("", "some-auth-key-1")
    assert (status != 0, outcome) == (True, {})
    assert "make verify URL=https://... AUTH_KEY=..." in text
    for model in ("gpt-4o", "/gpt-4o", "openai/"):
        status, outcome, text = verify("http://127.0.0.1:1", "some-auth-key-1", model)
        assert (status != 0, outcome) == (True, {})
        assert "MODEL is provider/model" in text
