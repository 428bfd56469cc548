"""The harness itself, and the first requests: what it finds, and that it finds what it must."""

import json

import harness
import httpx
import pytest
from harness import Simulator, eventually
from provider_simulator import Answer, Behaviour, Stream


def test_both_formats_and_one_key_failing(shared, pool):
    bad, *_ = pool.keys
    shared.simulator.script(Answer(503), key=bad, times=None)
    for _ in pool.keys:
        answer = shared.client.chat(pool.compat_model)
        assert answer.status_code == 200, answer.text
    tried = [request.key for request in shared.simulator.requests if request.slug == pool.slug]
    assert bad in tried


def test_a_stream_arrives_piece_by_piece(shared, pool):
    stream = Stream()
    shared.simulator.script(Answer(chunks=stream), model=pool.model)
    stream.send(b"data: 1\n\n")
    body = {"model": pool.compat_model, "messages": [], "stream": True}
    with shared.client.stream("/v1/chat/completions", json=body) as arriving:
        assert arriving.exactly(9) == b"data: 1\n\n"
        stream.send(b"data: 2\n\n")
        assert arriving.exactly(9) == b"data: 2\n\n"
        stream.close()
        assert arriving.rest() == b""


def test_raw_and_websocket(shared, model):
    answer = shared.client.raw_request("GET", b"/api/openai/models", [(b"x-odd", b"\xff\xfe")])
    assert answer.status == 200, answer
    assert shared.client.websocket(f"/api/openai/realtime?model={model}", ["a", "b"]) == ["a", "b"]


def test_tls(start, ca):
    with Simulator(tls=harness.server_context(ca, "localhost")) as simulator:
        simulator.key("openai")
        balancer = start(simulator=simulator, trust=ca)
        answer = balancer.client.chat("openai/m")
        assert answer.status_code == 200, answer.text


def test_through_the_gateway(start, simulator):
    simulator.key("google-ai-studio")
    balancer = start(gateway=True)
    assert balancer.client.chat("google-ai-studio/m").status_code == 200
    assert balancer.client.gemini("m").status_code == 200
    assert all(request.through_gateway for request in simulator.requests)


def test_a_config_that_is_refused(start, simulator):
    simulator.key("openai")
    with pytest.raises(harness.run.Failure, match="max_retries"):
        start(plugin={"max_retries": "many"})


def test_the_check_finds_a_secret(shared):
    balancer = shared.balancer
    balancer.secrets.add("wasm.one_balance.vm_reload")
    with pytest.raises(AssertionError, match="stands in /stats"):
        balancer.check()
    balancer.secrets.remove("wasm.one_balance.vm_reload")


def test_keys_of_d1(start, simulator, d1):
    bad, good = simulator.key("openai", Behaviour.INVALID), simulator.key("openai")
    ident = d1.insert("openai", bad.secret)
    d1.insert("openai", good.secret)
    balancer = start(env={"PROVIDER_KEYS": None}, d1=d1)
    eventually(lambda: balancer.client.chat("openai/m").status_code == 200)
    eventually(lambda: balancer.client.chat("openai/m") and d1.row(ident)["status"] == "blocked")


def test_faults_of_d1(d1):
    d1.insert("openai", "some-key", model_coolings='{"m":{"end_at":1.5,"total_seconds":2}}')
    assert d1.sql("SELECT json_extract(model_coolings, '$.m.end_at') AS end_at FROM keys") == [{"end_at": 1.5}]
    url = f"{d1.plugin()['d1_base_url']}/accounts/{d1.account}/d1/database/{d1.database}/query"

    def ask(token: str = d1.token) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"}
        return httpx.post(url, headers=headers, json={"sql": "SELECT id FROM keys"}, trust_env=False)

    assert ask("wrong").status_code == 401
    assert len(ask().json()["result"][0]["results"]) == 1
    d1.fault("status", status=429, retry_after=7)
    answer = ask()
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    for kind in ("cut", "lost", "half"):
        d1.fault(kind)
        with pytest.raises(httpx.TransportError):
            ask()
    d1.fault("bad_json")
    with pytest.raises(json.JSONDecodeError):
        ask().json()
    assert ask().status_code == 200
    assert len(d1.calls()) == 8
