"""What an operator sees, on real Envoy: metrics with their labels, the access log, the log's lines."""

import json
import re
from typing import Any

import harness
import httpx
import pytest
from harness import Balancer, eventually
from harness_client import chat_body
from provider_simulator import Answer, Behaviour, Stream

GOOGLE = "google-ai-studio"


def samples(balancer: Balancer, family: str = "") -> dict[tuple[str, ...], float]:
    """Prometheus samples of a family that are not 0, by name and label values in the order of the labels' names."""
    found = {}
    for line in balancer.envoy.get("/stats/prometheus").splitlines():
        match = re.fullmatch(rf"one_balance_({family or '[a-z_0-9]+'})\{{(.*)\}} (\S+)", line)
        if match and float(match[3]):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
            found[match[1], *(labels[name] for name in sorted(labels))] = float(match[3])
    return found


def access_log(balancer: Balancer) -> list[dict[str, Any]]:
    lines = (line for line in balancer.log().splitlines() if line.startswith("{"))
    return [entry for entry in map(json.loads, lines) if entry["path"] != "/healthz"]


def test_a_day_of_a_pool(start, simulator, model):
    """Every family, after requests that need each of them."""
    invalid = simulator.key(GOOGLE, Behaviour.REVOKED)
    simulator.key(GOOGLE, Behaviour.DAILY_SPENT)
    simulator.key(GOOGLE)
    simulator.key("openai")
    env = {"AUTH_KEY": "restricted-key-0=openai;unrestricted-key"}
    balancer = start(env=env, concurrency=4)
    restricted = balancer.client
    client = harness.Client(balancer.port, "unrestricted-key")
    for _ in range(3):
        assert client.gemini(model).status_code == 200
    assert restricted.gemini(model).status_code == 403
    assert harness.Client(balancer.port, "nobody-knows-it").gemini(model).status_code == 401
    simulator.script(Answer(400, body={"error": {"message": "no such field"}}), model="bad")
    assert client.chat("openai/bad").status_code == 400
    simulator.script(Answer(429, [("retry-after", "300")], body={"error": {"message": "slow down"}}), model="busy")
    assert client.chat("openai/busy").status_code == 429
    assert client.chat("openai/busy").json()["error"]["code"] == "all_keys_cooling"
    simulator.script(Answer(reset=True), model="down", times=None)
    assert client.chat("openai/down").status_code >= 500

    def seen():
        found = samples(balancer)
        # Each worker tells its own counts; the gauges have been taken after the last change.
        told = sum(value for key, value in found.items() if key[0] == "requests")
        return found if told == 9 and found.get(("recovery_seconds", "openai")) else None

    found = eventually(seen)
    recovery = found.pop(("recovery_seconds", "openai"))
    assert 290 < recovery <= 300
    tokens = {key: found.pop(key) for key in list(found) if key[0] == "tokens"}
    assert set(tokens) == {("tokens", direction, GOOGLE) for direction in ("in", "out")}
    unreachable = found.pop(("answers", "no_answer", "openai"))
    assert unreachable == found[("attempts", "openai")] - 2 >= 1
    del found[("attempts", "openai")]
    assert found == {
        ("requests", GOOGLE, "served"): 3,
        ("attempts", GOOGLE): 5,
        ("answers", "success", GOOGLE): 3,
        ("answers", "credential", GOOGLE): 1,
        ("answers", "quota", GOOGLE): 1,
        ("coolings", GOOGLE, "daily_quota"): 1,
        ("blocks", GOOGLE): 1,
        ("keys", GOOGLE, "ready"): 1,
        ("keys", GOOGLE, "cooling"): 1,
        ("keys", GOOGLE, "blocked"): 1,
        ("requests", "none", "provider_not_allowed"): 1,
        ("requests", "none", "invalid_auth_key"): 1,
        ("requests", "openai", "caller_error"): 1,
        ("requests", "openai", "failed"): 1,
        ("requests", "openai", "all_keys_cooling"): 1,
        ("requests", "openai", "provider_unreachable"): 1,
        ("answers", "caller", "openai"): 1,
        ("answers", "rate_limit", "openai"): 1,
        ("coolings", "openai", "rate_limit"): 1,
        ("keys", "openai", "cooling"): 1,
    }
    log = balancer.log()
    assert re.search(rf"\[warning\].* key [0-9a-f]{{16}} of {GOOGLE} blocked: ", log)
    assert re.search(rf"\[info\].* key [0-9a-f]{{16}} of {GOOGLE} cooled for {model} until \S+ \(daily_quota\): ", log)
    assert invalid.secret not in log


def test_the_access_log(start, simulator, model):
    simulator.key(GOOGLE, Behaviour.MINUTE_SPENT)
    simulator.key(GOOGLE)
    balancer = start(env={"AUTH_KEY": "first-auth-key=openai;second-auth-key"}, concurrency=1)
    client = harness.Client(balancer.port, "second-auth-key")
    served = client.chat(f"{GOOGLE}/{model}")
    assert served.status_code == 200
    with client.stream("/v1/chat/completions", json=chat_body(f"{GOOGLE}/{model}", stream=True)) as stream:
        stream.rest()
    balancer.client.chat(f"{GOOGLE}/{model}")
    client.chat("openai/x")
    client.get("/v1/nonsense")
    entries = eventually(lambda: (log := access_log(balancer)) and len(log) == 5 and log, 30)
    assert [[entry[name] for name in ("client", "provider", "model", "attempts", "outcome")] for entry in entries] == [
        ["2", GOOGLE, model, "2", "served"],
        ["2", GOOGLE, model, "1", "served"],
        [None, None, None, None, "provider_not_allowed"],
        ["2", "openai", "x", None, "no_keys"],
        [None, None, None, None, "unknown_path"],
    ]
    usage = served.json()["usage"]
    assert [entries[0]["tokens_in"], entries[0]["tokens_out"]] == [
        str(usage["prompt_tokens"]),
        str(usage["completion_tokens"]),
    ]
    assert int(entries[1]["tokens_out"]) > 0, "streamed, too"
    assert entries[0]["key_id"] == served.headers["x-one-balance-key-id"]
    assert all(isinstance(entry["duration_ms"], int) for entry in entries)


UPGRADE = (b"connection: upgrade", b"upgrade: websocket", b"sec-websocket-version: 13", b"sec-websocket-key: aGk=")
MOVED = [("location", "https://files.example/1"), ("set-cookie", "a=b")]


@pytest.mark.parametrize(
    ("slug", "answer", "status", "outcome", "lines"),
    [
        ("anthropic", Answer(200, body="{"), 502, "provider_answer_unreadable", ()),
        ("openai", Answer(302, MOVED), 302, "served", ()),
        ("openai", Answer(304), 304, "served", ()),
        ("openai", Answer(400, body={}), 400, "caller_error", ()),
        # Envoy itself hands these on, without a body.
        ("openai", Answer(302, MOVED), 302, "served", UPGRADE),
        ("openai", Answer(200, [("x-kept", "1")], body={}), 200, "served", UPGRADE),
        ("openai", Answer(426, body={}), 426, "caller_error", UPGRADE),
    ],
)
def test_what_a_request_came_to(start, simulator, slug, answer, status, outcome, lines):
    simulator.key(slug)
    balancer = start(concurrency=1)
    simulator.script(answer, times=None)
    if lines:
        headers = [tuple(line.split(b": ")) for line in lines]
        got = balancer.client.raw_request("GET", f"/api/{slug}/realtime?model=m", headers)
        assert "application/json" not in dict(got.headers).values() or status == 426
    else:
        got = balancer.client.chat(f"{slug}/m")
    assert getattr(got, "status", None) or got.status_code == status
    names = {name.lower() for name in dict(got.headers)}
    assert {name for name, _ in answer.headers} - {"set-cookie"} <= names
    assert "set-cookie" not in names
    [entry] = eventually(lambda: access_log(balancer))
    assert (entry["status"], entry["outcome"], entry["attempts"]) == (status, outcome, "1")
    found = eventually(lambda: samples(balancer, "requests|answers"))
    assert found.get(("requests", slug, outcome)) == 1
    assert ("answers", "no_answer", slug) not in found


def test_what_is_too_large_for_envoy(start, simulator):
    """With limits below the shipped ones Envoy ends what is read whole, on the way up and down."""
    simulator.key("anthropic")

    def narrow(bootstrap):
        for node in harness.run.walk(bootstrap):
            for name in ("request_body_buffer_limit", "per_connection_buffer_limit_bytes"):
                if name in node:
                    node[name] = 65536
        bootstrap["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = 65536

    balancer = start(edit=narrow, concurrency=1)
    simulator.script(Answer(200, body=b" " * (4 << 20)), times=None)
    down = balancer.client.chat("anthropic/m")
    assert (down.status_code, down.json()["error"]["code"]) == (500, "provider_answer_unreadable")
    assert "larger than what Envoy buffers" in down.json()["error"]["message"]
    up = balancer.client.chat("anthropic/m", padding="x" * (1 << 20))
    assert (up.status_code, up.json()["error"]["code"]) == (413, "body_too_large")
    log = eventually(lambda: (entries := access_log(balancer))[1:] and entries)
    assert [entry["outcome"] for entry in log] == ["provider_answer_unreadable", "body_too_large"]
    expected = {("requests", "anthropic", "provider_answer_unreadable"): 1, ("requests", "none", "body_too_large"): 1}
    eventually(lambda: samples(balancer, "requests") == expected)


def test_tokens_can_be_left_uncounted(start, simulator, model):
    simulator.key("openai")
    balancer = start(plugin={"token_metrics": False}, concurrency=1)
    assert balancer.client.chat(f"openai/{model}").status_code == 200
    eventually(lambda: samples(balancer, "requests"))
    assert samples(balancer, "tokens") == {}
    assert eventually(lambda: access_log(balancer), 30)[0]["tokens_in"] is None


def test_a_client_that_goes_away(start, simulator, model):
    simulator.key("openai")
    simulator.script(Answer(200, body={}, delay=3), model=model)
    balancer = start()
    hasty = httpx.Client(base_url=f"http://127.0.0.1:{balancer.port}", trust_env=False, timeout=1)
    headers = {"authorization": f"Bearer {balancer.auth_key}"}
    with pytest.raises(httpx.ReadTimeout):
        hasty.post("/v1/chat/completions", headers=headers, json=chat_body(f"openai/{model}"))
    eventually(lambda: samples(balancer, "requests") == {("requests", "openai", "cancelled"): 1})


def test_a_cut_stream_counts_the_tokens_it_told(start, simulator, model):
    simulator.key("openai")
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}
    pieces = Stream()
    pieces.send(f"data: {json.dumps(usage)}\n\n".encode())
    simulator.script(Answer(chunks=pieces), model=model)
    balancer = start()
    with balancer.client.stream("/v1/chat/completions", json=chat_body(f"openai/{model}", stream=True)) as stream:
        stream.chunk()
    pieces.close()
    expected = {("tokens", "in", "openai"): 7, ("tokens", "out", "openai"): 5}
    eventually(lambda: samples(balancer, "tokens") == expected)


@pytest.mark.waits
def test_many_changes_do_not_flood_the_log(start, simulator, model):
    for _ in range(60):
        simulator.key("openai", Behaviour.DAILY_SPENT)
    balancer = start(env={"MAX_RETRIES": "50"}, concurrency=1)
    for _ in range(2):
        assert balancer.client.chat(f"openai/{model}").status_code == 429
    eventually(lambda: samples(balancer, "keys") == {("keys", "openai", "cooling"): 60})
    assert 20 <= len(re.findall("cooled for", balancer.log())) <= 40
    eventually(lambda: samples(balancer, "coolings") == {("coolings", "openai", "daily_quota"): 60})
