"""What the shipped configuration has switched off: CORS, and a limit for each AUTH_KEY."""

import harness
import pytest
from harness_client import chat_body

ORIGIN = "https://app.example.com"
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
CHAT = "/v1/chat/completions"
LIMITS = ("max_tokens", "tokens_per_fill")


@pytest.fixture
def switched_on(tmp_path):
    """The shipped configuration after the `sed` that its head names."""

    def switch(mark: str):
        lines = harness.run.YAML.read_text().splitlines(keepends=True)
        assert any(line.startswith(f"#{mark} ") for line in lines)
        path = tmp_path / f"{mark}.yaml"
        path.write_text("".join(line.removeprefix(f"#{mark} ") for line in lines))
        return path

    return switch


def test_cors(start, simulator, switched_on):
    simulator.key("openai")
    client = start(config=switched_on("cors")).client
    preflight = client.request("OPTIONS", CHAT, auth=None, headers={**PREFLIGHT, "origin": ORIGIN})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    allowed = {name.strip() for name in preflight.headers["access-control-allow-headers"].split(",")}
    assert {
        "authorization",
        "x-goog-api-key",
        "anthropic-version",
        "x-stainless-lang",
        "x-stainless-timeout",
    } <= allowed

    body = chat_body("openai/m")
    answer = client.post(CHAT, json=body, headers={"origin": ORIGIN})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "x-one-balance-key-id" in answer.headers["access-control-expose-headers"]
    # A page must be able to read why it was turned away, too.
    refused = client.post(CHAT, auth=None, json=body, headers={"origin": ORIGIN})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)

    other = {"origin": "https://elsewhere.example.com"}
    assert "access-control-allow-origin" not in client.post(CHAT, json=body, headers=other).headers
    preflight = client.request("OPTIONS", CHAT, auth=None, headers={**PREFLIGHT, **other})
    assert "access-control-allow-origin" not in preflight.headers


def test_cors_is_off(shared):
    preflight = shared.client.request("OPTIONS", CHAT, auth=None, headers={**PREFLIGHT, "origin": ORIGIN})
    assert not [name for name in preflight.headers if name.startswith("access-control")]


def test_a_limit_for_each_auth_key(start, simulator, switched_on):
    simulator.key("openai")
    simulator.key("google-ai-studio")
    keys = [harness.new_auth_key() for _ in range(4)]

    def fewer(config):
        """A twentieth of the shipped limits."""
        for node in harness.run.walk(config):
            if "token_bucket" in node:
                node["token_bucket"].update({name: node["token_bucket"][name] // 20 for name in LIMITS})

    # One more than what the AUTH_KEYs below may ask: who is refused uses nothing of it up.
    quota = {"providers": {"openai": {"quota": {"rpm": 37}}}}
    client = start(config=switched_on("limit"), env={"AUTH_KEY": ";".join(keys)}, plugin=quota, edit=fewer).client
    # 600 a minute for the first and 60 for each other one, by 20.
    for key, limit in zip(keys[2::-1], (3, 3, 30), strict=True):
        client.auth_key = key
        answers = [client.chat("openai/m") for _ in range(limit + 1)]
        assert [answer.status_code for answer in answers] == [200] * limit + [429]
        assert answers[-1].json()["error"]["code"] == "client_rate_limited"
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    # In the client's own API, and for no provider more.
    refused = client.gemini("m")
    assert (refused.status_code, refused.json()["error"]["status"]) == (429, "RESOURCE_EXHAUSTED")
    client.auth_key = keys[3]
    assert client.chat("openai/m").status_code == 200
    assert client.chat("openai/m").json()["error"]["code"] == "all_keys_cooling"
    # Who is not let in uses nothing up.
    assert client.post(CHAT, auth=None, json=chat_body("openai/m")).status_code == 401
