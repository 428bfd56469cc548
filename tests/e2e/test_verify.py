"""`make verify`: passes where all is well, and says what is wrong where it is not."""

import http.server
import os
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


def test_something_else_is_there():
    class Open(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Open) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        status, outcome, text = verify(f"http://127.0.0.1:{server.server_port}", "some-auth-key-1")
        server.shutdown()
    assert status != 0
    assert outcome["no key refused"] == outcome["wrong key refused"] == "FAIL"
    assert "whoever finds this URL can use the pool" in text


def test_nothing_is_there():
    status, outcome, text = verify("http://127.0.0.1:1", "some-auth-key-1")
    assert status != 0
    assert set(outcome.values()) == {"FAIL"}
    assert "is it running" in text


def test_what_it_needs_to_be_told():
    status, outcome, text = verify("", "some-auth-key-1")
    assert (status != 0, outcome) == (True, {})
    assert "make verify URL=https://... AUTH_KEY=..." in text
