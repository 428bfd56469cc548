"""What answers teach the pool, on real Envoy: counts that are exact over workers, quotas, listener updates."""

import json
import os
import threading
import time
from collections import Counter

import harness
import httpx
import pytest
import yaml
from harness import eventually
from provider_simulator import Answer, Behaviour, Key, Quota

BARE = {"error": {"message": "slow down"}}


@pytest.mark.parametrize(("threshold", "escalates"), [(17, True), (18, False)])
def test_parallel_429s_over_four_workers_are_each_counted(start, simulator, model, threshold, escalates):
    """16 at once and one later: neither 16 nor 18 were counted."""
    simulator.key("openai")
    simulator.script(Answer(429, body=BARE, delay=1.0), model=model, times=16)
    simulator.script(Answer(429, body=BARE), model=model, times=None)
    env = {"CONSECUTIVE_429_THRESHOLD": str(threshold)}
    client = start(env=env, plugin={"default_cooling_seconds": 2}, concurrency=4).client
    answers = client.parallel(16, lambda _: client.chat(f"openai/{model}"))
    assert {answer.status_code for answer in answers} == {429}
    assert len(simulator.requests) == 16, "all were under way before the first answer"
    last = eventually(
        lambda: (answer := client.chat(f"openai/{model}")).headers.get("x-one-balance-attempts") == "1" and answer
    )
    # OpenAI's day is not known: 24 hours from now.
    assert (int(last.headers["retry-after"]) > 80_000) == escalates
    assert len(simulator.requests) == 17


def test_one_request_goes_first_after_a_guess(start, simulator, model):
    simulator.key("openai")
    simulator.script(Answer(429, body=BARE), model=model)
    simulator.script(Answer(200, body={}, delay=1.0), model=model)
    client = start(plugin={"default_cooling_seconds": 1}).client
    assert client.chat(f"openai/{model}").status_code == 429
    time.sleep(1.1)
    answers = client.parallel(8, lambda _: client.chat(f"openai/{model}"))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 429: 7}
    assert len(simulator.requests) == 2, "the others were not sent into the same wall"
    assert client.chat(f"openai/{model}").status_code == 200, "and follow once it has succeeded"


def test_a_learned_limit_spares_the_other_keys(start, simulator, model):
    """Four keys of three requests a minute: the first 429 tells, and the others are not run into it."""
    for _ in range(4):
        simulator.key("openai", quota=Quota(rpm=3, minute=120))
    simulator.script(Answer(200, body={}), model="other", times=None)
    client = start().client
    statuses = [client.chat(f"openai/{model}").status_code for _ in range(18)]
    assert Counter(statuses) == {200: 12, 429: 6}
    upstream = Counter(request.status for request in simulator.requests)
    assert upstream[429] <= 1, upstream


def test_a_configured_quota_is_kept_before_any_429(start, simulator, model):
    for _ in range(2):
        simulator.key("openai")
    client = start(plugin={"providers": {"openai": {"quota": {"rpm": 2}}}}).client
    statuses = client.parallel(8, lambda _: client.chat(f"openai/{model}").status_code)
    assert Counter(statuses) == {200: 4, 429: 4}
    assert {request.status for request in simulator.requests} == {200}


def test_a_request_larger_than_the_minute(start, simulator, model):
    for _ in range(5):
        simulator.key("google-ai-studio")
    violation = {"quotaId": "GenerateContentInputTokensPerModelPerMinute-FreeTier", "quotaValue": "250000"}
    details = [{"violations": [violation]}, {"retryDelay": "30s"}]
    error = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "quota", "details": details}
    simulator.script(Answer(429, body={"error": error}), model=model, times=None)
    client = start().client
    answer = client.gemini(model)
    assert (answer.status_code, answer.headers["x-one-balance-attempts"]) == (429, "3")
    assert answer.headers["retry-after"] == "30"


def test_overload_concerns_all_keys(start, simulator, model):
    for _ in range(3):
        simulator.key("anthropic")
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    simulator.script(Answer(529, headers=[("retry-after", "7")], body=body), model=model)
    client = start().client
    answer = client.anthropic(model)
    assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (529, body, "7")
    assert len(simulator.requests) == 1, "the pool is not walked"
    assert client.anthropic(model).status_code == 200, "and no key is blamed"


def test_the_gateways_refusal_blames_no_key(start, simulator, model):
    for _ in range(3):
        simulator.key("openai")
    simulator.gateway_token = "gateway-token-1234"
    balancer = start(gateway=True, env={"AI_GATEWAY_TOKEN": "wrong-token-1234"})
    answer = balancer.client.chat(f"openai/{model}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "gateway_refused")
    assert answer.headers["x-one-balance-attempts"] == "1"
    simulator.gateway_token = "wrong-token-1234"
    assert balancer.client.chat(f"openai/{model}").status_code == 200


@pytest.mark.waits
def test_quotas_in_real_time(start, simulator, model):
    """Ten keys of 5 requests per 2 s and two dead ones, asked 1.5 times what they have: most of the
    quota becomes answers, and no client gets a dead key's error.

    Answers state when a limit ends and not what it is: a "5 per minute" of two seconds would rightly
    be taken for a minute. So each key meets its wall about once in a window, and no more.
    """
    windows, quota = 5, Quota(rpm=5, minute=2.0)
    for _ in range(10):
        simulator.key("google-ai-studio")
    for _ in range(2):
        simulator.key("google-ai-studio", Behaviour.INVALID)
    counting = {key.secret: Key(key.slug, key.secret, key.label, quota=quota) for key in simulator.keys}

    def quota_true(request):
        if request.key is None or request.key.behaviour is Behaviour.INVALID:
            return None
        spent = counting[request.key.secret].take(model, 0)
        delay = (
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{spent.wait:.3f}s"} if spent else {}
        )
        error = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "quota", "details": [delay]}
        return Answer(429, body={"error": error}) if spent else Answer(200, body={})

    simulator.script(quota_true, times=None)
    client = start().client
    answers = []

    def ask(number):
        time.sleep(number / 37.5)
        answers.append(client.gemini(model).status_code)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(int(37.5 * 2 * windows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts, capacity = Counter(answers), 10 * 5 * windows
    assert set(counts) <= {200, 429}, counts
    assert counts[200] >= 0.75 * capacity, counts
    upstream = Counter(request.status for request in simulator.requests)
    # A wall per key and window, met by both workers at worst.
    assert upstream[429] <= 2 * 10 * windows, upstream
    assert upstream[400] <= 4, "two dead keys, each met once or, by two workers at the same time, twice"


def test_a_listener_update_keeps_what_is_known(start, simulator, model, tmp_path):
    """By file-based LDS, as a deployment would: keys come and go with the configuration, the state stays."""
    dead, stays, leaves, joins = (
        simulator.key("openai", label=label) for label in ("dead", "stays", "leaves", "joins")
    )
    dead.behaviour = Behaviour.INVALID
    file = tmp_path / "listeners.yaml"
    kept = {}

    def write(listener, keys):
        for node in harness.run.walk(listener):
            if node.get("root_id") == "downstream":
                keys = ",".join(key.secret for key in keys)
                node["configuration"]["value"] = json.dumps({"provider_keys": f"openai={keys}"})
        resource = {"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", **listener}
        new = tmp_path / "new.yaml"
        new.write_text(yaml.safe_dump({"resources": [resource]}, sort_keys=False))
        os.replace(new, file)

    def by_file(bootstrap):
        [listener] = bootstrap["static_resources"].pop("listeners")
        kept["listener"] = listener
        write(listener, [dead, stays, leaves])
        bootstrap["dynamic_resources"] = {"lds_config": {"path_config_source": {"path": str(file)}}}
        bootstrap.setdefault("node", {"id": "test", "cluster": "test"})

    balancer = start(env={"PROVIDER_KEYS": None}, edit=by_file)
    serving = lambda: {balancer.client.chat(f"openai/{model}") and simulator.requests[-1].key.label for _ in range(6)}  # noqa: E731
    # Here the keys are in the plugin configuration, which /config_dump shows, as docs/configuration.md says.
    balancer.secrets -= {key.secret for key in simulator.keys}
    assert serving() == {"stays", "leaves"}
    assert any(request.key is dead for request in simulator.requests)
    listener = kept["listener"]
    listener["address"]["socket_address"]["port_value"] = balancer.port
    simulator.clear()
    write(listener, [dead, stays, joins])

    def updated():
        try:
            return serving() == {"stays", "joins"}
        except httpx.TransportError:
            # A connection that waited at the old listener's socket is reset with it.
            return False

    eventually(updated)
    assert not any(request.key is dead for request in simulator.requests), "still blocked"
