"""The harness itself, and the first requests: what it finds, and that it finds what it must."""

import harness
import pytest
from harness import Simulator
from provider_simulator import Answer, Stream


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
    key = simulator.key("openai")
    ident = d1.insert("openai", key.secret)
    balancer = start(env={"PROVIDER_KEYS": None}, d1=d1)
    simulator.script(Answer(401, body={"error": {"code": "invalid_api_key", "message": "no"}}), times=None)
    for _ in range(100):
        if balancer.client.chat("openai/m").status_code == 401 or simulator.requests:
            break
    import time

    deadline = time.monotonic() + 20
    while d1.row(ident)["status"] != "blocked" and time.monotonic() < deadline:
        balancer.client.chat("openai/m")
        time.sleep(0.1)
    assert d1.row(ident)["status"] == "blocked"
