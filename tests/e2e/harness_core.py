"""The core of the end-to-end suite: what must hold wherever one-balance is put.

The whole suite runs on envoy.yaml and the pinned Envoy. These checks run on everything else that is
shipped or said to work: other Envoy versions, and what Istio and Envoy Gateway make of our manifests.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
import trustme
from harness import Balancer, Simulator
from harness_client import chat_body
from provider_simulator import Answer, Stream

SLUGS = ("openai", "google-ai-studio", "anthropic")
MIB = 1 << 20


@contextlib.contextmanager
def deployed(folder: Path, ca: trustme.CA, config: Any = harness.run.YAML, **options: Any) -> Iterator[Balancer]:
    """An Envoy with this bootstrap, before three providers that speak TLS and one that does not."""
    with Simulator(tls=harness.server_context(ca, "localhost")) as simulator, Simulator() as plain:
        for slug in SLUGS:
            for _ in range(4):
                simulator.key(slug)
        plain.key("plain")
        env = {
            "PROVIDER_KEYS": f"{simulator.provider_keys()};{plain.provider_keys()}",
            "PROVIDER_BASE_URLS": f"{simulator.base_urls()};{plain.base_urls()}",
        }
        balancer = harness.start(simulator, folder / "envoy.log", config=config, trust=ca, env=env, **options)
        balancer.secrets.update(key.secret for key in plain.keys)
        try:
            yield balancer
            balancer.check()
        finally:
            harness.stop(balancer)


def each_format(balancer: Balancer, model: str) -> None:
    client = balancer.client
    for slug in (*SLUGS, "plain"):
        answer = client.chat(f"{slug}/{model}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"]
    assert client.gemini(model).json()["candidates"]
    assert client.anthropic(model).json()["content"]


def keys_in_turn(balancer: Balancer, model: str) -> None:
    answers = [balancer.client.chat(f"openai/{model}") for _ in range(8)]
    assert len({answer.headers["x-one-balance-key-id"] for answer in answers}) == 4


def a_stream_after_failures(balancer: Balancer, model: str) -> None:
    """The headers of an answer wait for its body, and the router still retries: Envoy before 1.37
    crashes here (https://github.com/envoyproxy/envoy/pull/41879)."""
    stream = Stream()
    for status in (429, 503, 429):
        balancer.simulator.script(Answer(status, body={"error": {"message": "not now"}}), model=model)
    balancer.simulator.script(Answer(chunks=stream), model=model)
    stream.send(b"data: 1\n\n")
    with balancer.client.stream("/api/openai/responses", json={"model": model}) as arriving:
        assert (arriving.status, arriving.headers["x-one-balance-attempts"]) == (200, "4")
        assert arriving.exactly(9) == b"data: 1\n\n", "a stream is not held back"
        stream.close()
        assert arriving.rest() == b""


def a_large_body_is_retried(balancer: Balancer, model: str) -> None:
    balancer.simulator.script(Answer(429, body={"error": {"message": "not now"}}), model=model)
    answer = balancer.client.post("/v1/chat/completions", json=chat_body(f"openai/{model}", user="x" * 5 * MIB))
    assert (answer.status_code, answer.headers["x-one-balance-attempts"]) == (200, "2")


def many_at_once(balancer: Balancer, model: str) -> None:
    """Envoy's default circuit breaker lets three retries at a time through, and the rest out."""
    for key in balancer.simulator.keys[:3]:
        balancer.simulator.script(Answer(503, body="down"), key=key, model=model, times=None)
    answers = balancer.client.parallel(16, lambda _: balancer.client.chat(f"openai/{model}"))
    assert [answer.status_code for answer in answers] == [200] * 16


def a_resetting_provider(balancer: Balancer, model: str) -> None:
    balancer.simulator.script(Answer(reset=True), model=model)
    answer = balancer.client.chat(f"openai/{model}")
    assert (answer.status_code, answer.headers["x-one-balance-attempts"]) == (200, "2")


def who_may_not_ask(balancer: Balancer, model: str) -> None:
    for headers, code in (((), "missing_auth_key"), ({"x-api-key": "not-this-one"}, "invalid_auth_key")):
        answer = balancer.client.post(
            "/v1/chat/completions", auth=None, headers=headers, json=chat_body(f"openai/{model}")
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
    odd = balancer.client.raw_request("POST", "/api/openai/..%2fanthropic/v1/messages", body=b"{}")
    assert odd.status == 400, "nobody decodes what the filter judges"


def nothing_of_the_client_goes_up(balancer: Balancer, model: str) -> None:
    key = balancer.client.auth_key
    hidden = [("x-forwarded-for", "192.0.2.1"), ("cookie", "private"), ("x-api-key", key)]
    assert balancer.client.post("/api/openai/responses", headers=hidden, json={"model": model}).status_code == 200
    [request] = balancer.simulator.wait_for(1, model=model)
    assert not request.mentions(key)
    names = {name.decode().lower() for name, _ in request.headers}
    bad = ("x-forwarded", "x-envoy", "x-one-balance", "x-request-id", "cookie", "x-b3", "traceparent")
    left = {name for name in names if name.startswith(bad)}
    assert not left, left


def metrics_and_access_log(balancer: Balancer, model: str) -> None:
    answer = balancer.client.chat(f"openai/{model}")
    # Before 1.39 the metrics are those of the cluster whose filter came first, and have no labels.
    labels, names = r'\{provider="openai",result="served"\}', r"_provider_openai_result_served\{.*\}"
    served = re.compile(
        f"^(one_balance_requests{labels}|envoy_cluster_wasmcustom_one_balance_requests{names}) [1-9]", re.M
    )
    harness.eventually(lambda: served.search(balancer.envoy.get("/stats/prometheus")))
    line = harness.eventually(
        lambda: [line for line in balancer.log().splitlines() if model in line and line[0] == "{"]
    )[0]
    noted = json.loads(line)
    expected = {
        "provider": "openai",
        "client": "1",
        "outcome": "served",
        "key_id": answer.headers["x-one-balance-key-id"],
    }
    assert expected.items() <= noted.items(), noted


CORE: list[Callable[[Balancer, str], None]] = [
    each_format,
    keys_in_turn,
    a_stream_after_failures,
    a_large_body_is_retried,
    many_at_once,
    a_resetting_provider,
    who_may_not_ask,
    nothing_of_the_client_goes_up,
    metrics_and_access_log,
]
