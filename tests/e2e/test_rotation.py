"""Trying the next key within a request, over real retries of a real router."""

import json
from collections import Counter

import harness
import httpx
import pytest
from harness import Simulator
from provider_simulator import Answer, Behaviour, Stream

OPENAI_BAD_KEY = {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}
GOOGLE_BAD_KEY = {
    "error": {
        "code": 400,
        "status": "INVALID_ARGUMENT",
        "message": "API key not valid. Please pass a valid API key.",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
    }
}
FAILURES = {
    "429": Answer(429, body={"error": {"message": "slow down"}}),
    "401": Answer(401, body=OPENAI_BAD_KEY),
    "403": Answer(
        403, body={"error": {"message": "Your API key was reported as leaked.", "status": "PERMISSION_DENIED"}}
    ),
    "400 of a bad key": Answer(400, body=GOOGLE_BAD_KEY),
    "503": Answer(503, body="down"),
    "500 without a body": Answer(500),
    "408": Answer(408),
    "a reset": Answer(reset=True),
    "an error that is cut": Answer(503, body="x" * 1000, cut_after=10),
    "a long error": Answer(503, body="x" * 300_000),
}


def tried(balancer, slug, model):
    return [
        request.key.label for request in balancer.simulator.requests if request.slug == slug and request.model == model
    ]


@pytest.mark.parametrize("failure", FAILURES)
def test_the_answer_is_streamed_after_failures(start, simulator, failure, model):
    slug = "google-ai-studio" if failure.startswith("40") and failure[2] in "03" else "openai"
    keys = [simulator.key(slug) for _ in range(4)]
    balancer = start()
    for key in keys[:3]:
        simulator.script(FAILURES[failure], key=key, times=None)
    stream = Stream()
    simulator.script(Answer(chunks=stream), key=keys[3], times=None)
    stream.send(b"data: 1\n\n")
    path = (
        f"/api/{slug}/v1beta/models/{model}:streamGenerateContent?alt=sse"
        if slug != "openai"
        else "/api/openai/responses"
    )
    with balancer.client.stream(path, json={"model": model}) as arriving:
        assert arriving.status == 200
        assert arriving.headers["x-one-balance-attempts"] == "4"
        assert "x-one-balance-retry" not in arriving.headers
        assert arriving.exactly(9) == b"data: 1\n\n", "a stream is not held back"
        stream.send(b"data: 2\n\n")
        assert arriving.exactly(9) == b"data: 2\n\n"
        stream.close()
        assert arriving.rest() == b""
    assert tried(balancer, slug, model) == [key.label for key in keys], "in turn, and none twice"
    assert len({request.body for request in simulator.requests}) == 1


def test_a_403_that_says_nothing_is_tried_on_three_keys(start, simulator, model):
    keys = [simulator.key("openai") for _ in range(5)]
    simulator.script(Answer(403, body={"error": {"message": "denied"}}), times=None)
    answer = start().client.chat(f"openai/{model}")
    assert (answer.status_code, answer.json()["error"]["message"]) == (403, "denied")
    assert [request.key for request in simulator.requests] == keys[:3], "it may be the request's own fault"


def test_a_stream_that_breaks_is_not_retried(shared, pool):
    stream = Stream()
    shared.simulator.script(Answer(chunks=stream), model=pool.model)
    stream.send(b"data: 1\n\n")
    body = {"model": pool.compat_model, "stream": True}
    with shared.client.stream("/v1/chat/completions", json=body) as arriving:
        assert arriving.exactly(9) == b"data: 1\n\n"
        stream.reset()
        with pytest.raises(httpx.RemoteProtocolError):
            arriving.rest()
    assert len(tried(shared.balancer, pool.slug, pool.model)) == 1


def test_a_client_that_goes_away_mid_stream(shared, pool):
    stream = Stream()
    shared.simulator.script(Answer(chunks=stream), model=pool.model)
    stream.send(b"data: 1\n\n")
    with shared.client.stream("/v1/chat/completions", json={"model": pool.compat_model}) as arriving:
        assert arriving.exactly(9) == b"data: 1\n\n"
    assert stream.gone.wait(5), "the provider hears of it"
    assert shared.client.chat(pool.compat_model).status_code == 200


def test_attempts_end(start, simulator, model):
    for _ in range(5):
        simulator.key("openai")
    simulator.script(Answer(503, body={"error": {"message": "down"}}), times=None)
    balancer = start(env={"MAX_RETRIES": "2"})
    answer = balancer.client.chat(f"openai/{model}")
    assert (answer.status_code, answer.headers["x-one-balance-attempts"]) == (503, "3")
    assert answer.json()["error"]["message"] == "down", "the last answer is the client's"
    assert len(simulator.requests) == 3


@pytest.mark.parametrize("api", ["openai", "gemini"])
def test_an_answer_that_envoy_does_not_retry(start, simulator, model, api):
    """A bad key's error may have the key in it, and nobody has translated it."""
    keys = [simulator.key("google-ai-studio") for _ in range(2)]
    for key in keys:
        error = {"code": 403, "message": f"Consumer 'api_key:{key.secret}' has been suspended."}
        error["details"] = [{"reason": "CONSUMER_SUSPENDED"}]
        simulator.script(Answer(403, body={"error": error}), key=key, times=None)

    def edit(config):
        for node in harness.run.walk(config):
            if "num_retries" in node:
                node["num_retries"] = 0

    client = start(edit=edit).client
    answer = client.gemini(model) if api == "gemini" else client.chat(f"google-ai-studio/{model}")
    assert answer.status_code == 403
    assert "Envoy did not try the next key" in answer.json()["error"]["message"]
    assert not [key for key in keys if key.secret in answer.text]
    assert answer.headers["x-one-balance-attempts"] == "1"


def test_resets_end_too(start, simulator, model):
    for _ in range(5):
        simulator.key("anthropic")
    simulator.script(Answer(reset=True), times=None)
    balancer = start(env={"MAX_RETRIES": "2"})
    answer = balancer.client.anthropic(model)
    assert answer.status_code in (502, 503), answer.text
    assert answer.json()["type"] == "error"
    assert "anthropic" in answer.json()["error"]["message"]
    assert answer.headers["x-one-balance-attempts"] == "3"
    assert len(simulator.requests) == 3


def test_a_reset_of_the_only_key(start, simulator, model):
    simulator.key("google-ai-studio")
    simulator.script(Answer(reset=True), times=None)
    answer = start().client.gemini(model)
    assert (answer.status_code, answer.json()["error"]["status"]) == (502, "UNAVAILABLE")
    assert len(simulator.requests) == 1, "no key twice"


def test_a_provider_that_is_not_there(start, simulator, model):
    simulator.key("openai")
    balancer = start(env={"PROVIDER_BASE_URLS": "openai=http://127.0.0.1:1/v1"})
    answer = balancer.client.chat(f"openai/{model}")
    assert answer.status_code in (502, 503), answer.text
    assert answer.json()["error"]["code"] == "provider_unreachable"
    balancer = start(env={"PROVIDER_BASE_URLS": "openai=http://nowhere.invalid/v1"})
    answer = balancer.client.chat(f"openai/{model}")
    assert answer.status_code == 503
    assert answer.json()["error"]["message"]


def test_ten_in_parallel_share_the_keys_evenly(start, simulator, model):
    for _ in range(5):
        simulator.key("openai")
    balancer = start()
    answers = balancer.client.parallel(10, lambda _: balancer.client.chat(f"openai/{model}"))
    assert {answer.status_code for answer in answers} == {200}
    assert set(Counter(tried(balancer, "openai", model)).values()) == {2}


def test_what_one_worker_learns_the_other_uses(start, simulator, model):
    bad, *_ = [simulator.key("openai") for _ in range(3)]
    bad.behaviour = Behaviour.REVOKED
    balancer = start()
    while not simulator.requests or simulator.requests[-1].key is not bad:
        balancer.client.chat(f"openai/{model}")
        if any(request.key is bad for request in simulator.requests):
            break
    simulator.clear()
    # Every request has a connection of its own, and the kernel spreads them over both workers.
    answers = [balancer.client.chat(f"openai/{model}") for _ in range(30)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["x-one-balance-attempts"] for answer in answers} == {"1"}
    assert bad.label not in tried(balancer, "openai", model)


def test_no_key_at_all(start, simulator, model):
    simulator.key("openai")
    client = start().client
    answer = client.anthropic(model)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_keys")
    assert answer.headers["x-should-retry"] == "false"


def test_the_providers_finer_wait_does_not_outdo_ours(start, simulator, model):
    waits = [simulator.key("openai") for _ in range(2)]
    for key, milliseconds in zip(waits, ("30000", "60000"), strict=True):
        answer = Answer(429, headers=[("retry-after-ms", milliseconds)], body={})
        simulator.script(answer, key=key, model=model)
    answer = start().client.chat(f"openai/{model}")
    # Until the first key is ready, whichever was asked last.
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    assert "retry-after-ms" not in answer.headers


def test_all_keys_cooling(start, simulator, model):
    for _ in range(2):
        simulator.key("openai", Behaviour.MINUTE_SPENT)
    client = start().client
    first = client.chat(f"openai/{model}")
    assert first.status_code == 429
    assert 0 < int(first.headers["retry-after"]) <= 65
    count = len(simulator.requests)
    assert count == 2
    second = client.chat(f"openai/{model}")
    assert second.json()["error"]["code"] == "all_keys_cooling"
    assert 0 < int(second.headers["retry-after"]) <= 65
    assert len(simulator.requests) == count, "the provider is not troubled"
    assert client.chat("openai/other-model-" + model).status_code == 429, "cooling is per model"
    assert len(simulator.requests) == count + 2


def test_try_earliest(start, simulator, model):
    simulator.key("openai")
    simulator.script(Answer(429, body={}), model=model)
    client = start(plugin={"when_all_cooling": "try_earliest"}).client
    assert client.chat(f"openai/{model}").status_code == 429
    assert client.chat(f"openai/{model}").status_code == 200


def test_all_keys_blocked(start, simulator, model):
    keys = [simulator.key("google-ai-studio", Behaviour.REVOKED) for _ in range(2)]
    client = start().client
    answer = client.gemini(model)
    assert answer.json()["error"]["details"][0]["reason"] == "PROVIDER_KEYS_REFUSED"
    assert answer.status_code == 400, "the last answer's status"
    assert not any(key.secret in answer.text for key in keys)
    assert client.gemini(model).json()["error"]["details"][0]["reason"] == "ALL_KEYS_BLOCKED"


@pytest.mark.parametrize("status", [401, 503])
@pytest.mark.parametrize("slug", ["openai", "google-ai-studio"])
def test_an_error_without_a_body_gets_one(start, simulator, slug, status, model):
    """A dead key's is ours, and a translated one is OpenAI's; a provider's own stays as it is."""
    simulator.key(slug)
    simulator.script(Answer(status), times=None)
    answer = start().client.chat(f"{slug}/{model}")
    assert answer.status_code == status
    assert answer.headers["x-one-balance-attempts"] == "1"
    if status == 401 or slug == "google-ai-studio":
        assert answer.json()["error"]["message"]


def test_the_clients_own_fault_is_its_own(shared, pool):
    body = {
        "error": {"message": "messages: required", "type": "invalid_request_error", "param": "messages", "code": None}
    }
    shared.simulator.script(Answer(400, body=body), model=pool.model, times=None)
    answer = shared.client.chat(pool.compat_model)
    assert (answer.status_code, answer.json()) == (400, body)
    assert answer.headers["x-one-balance-attempts"] == "1"


def test_no_bodies(shared, pool):
    for status in (204, 304):
        shared.simulator.script(Answer(status), model=pool.model)
        assert shared.client.chat(pool.compat_model).status_code == status


def test_response_trailers(shared, pool):
    for status, expected in ((200, 200), (503, 200)):
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
        head += "transfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n"
        raw = head.encode() + b"2\r\n{}\r\n0\r\nx-t: 1\r\n\r\n"
        shared.simulator.script(Answer(raw=raw), model=pool.model)
        assert shared.client.chat(pool.compat_model).status_code == expected


def test_verified_tls(start, ca, model):
    with Simulator(tls=harness.server_context(ca, "localhost")) as simulator:
        simulator.key("openai")
        answer = start(simulator=simulator, trust=ca).client.chat(f"openai/{model}")
        assert answer.status_code == 200, answer.text
    with Simulator(tls=harness.server_context(ca, "elsewhere.example")) as simulator:
        simulator.key("openai")
        answer = start(simulator=simulator, trust=ca).client.chat(f"openai/{model}")
        assert answer.status_code in (502, 503), answer.text
        assert answer.json()["error"]["code"] == "provider_unreachable"
        assert not simulator.requests, "the key is not sent to a server with the wrong name"


def test_a_configuration_that_is_refused(start, simulator):
    simulator.key("openai")
    bad = {"max_retries": 51, "surprise": True, "when_all_cooling": "panic"}
    with pytest.raises(harness.run.Failure) as failure:
        start(plugin=bad)
    text = str(failure.value) + "".join(failure.value.__notes__)
    for problem in ["max_retries: must be", "surprise: unknown field", "when_all_cooling: must be one of"]:
        assert problem in text, "all problems at once"
    with pytest.raises(harness.run.Failure, match="auth_key: no key is given"):
        start(env={"AUTH_KEY": " "})


def test_errors_inside_a_200_are_seen(start, simulator, model):
    """A Gemini stream that ends in a 429: the client gets it as it came, and the key cools."""
    first, second = simulator.key("google-ai-studio"), simulator.key("google-ai-studio")
    error = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "quota", "details": []}}
    chunks = [b'data: {"candidates":[]}\r\n\r\n', f"data: {json.dumps(error)}\r\n\r\n".encode()]
    simulator.script(Answer(chunks=chunks), key=first)
    client = start().client
    path = f"/api/google-ai-studio/v1beta/models/{model}:streamGenerateContent?alt=sse"
    with client.stream(path, json={}) as arriving:
        assert arriving.rest() == b"".join(chunks)
    for _ in range(4):
        client.gemini(model)
    assert [request.key for request in simulator.requests] == [first, *[second] * 4]
