"""The simulator keeps to what it is told: tests lean on it."""

import httpx
import pytest
from harness import Simulator
from provider_simulator import Answer, Behaviour, Key, Pause, Quota

GOOGLE = "google-ai-studio"
GENERATE = "/v1beta/models/gemini:generateContent"


def ask(simulator: Simulator, key: Key | str, path: str = "/chat/completions", slug: str = "openai", **options):
    secret = key.secret if isinstance(key, Key) else key
    native = slug == GOOGLE and "openai" not in path
    headers = {"x-goog-api-key": secret} if native else {"authorization": f"Bearer {secret}"}
    url = simulator.url(slug) + path
    return httpx.post(url, headers=headers, json=options.pop("json", {"model": "m"}), trust_env=False, **options)


@pytest.mark.parametrize(
    ("slug", "path", "behaviour", "status", "says"),
    [
        (GOOGLE, GENERATE, Behaviour.GOOD, 200, "in the role of gemini"),
        (GOOGLE, GENERATE, Behaviour.INVALID, 400, "API_KEY_INVALID"),
        (GOOGLE, GENERATE, Behaviour.MINUTE_SPENT, 429, "PerMinute"),
        (GOOGLE, GENERATE, Behaviour.DAILY_SPENT, 429, "PerDay"),
        (GOOGLE, "/v1beta/openai/chat/completions", Behaviour.INVALID, 400, '[{"error"'),
        (GOOGLE, "/v1beta/models/gemini:countTokens", Behaviour.GOOD, 200, "totalTokens"),
        (GOOGLE, "/v1beta/models/gemini:streamGenerateContent", Behaviour.GOOD, 200, '[{"candidates"'),
        (GOOGLE, "/v1beta/models/gemini:streamGenerateContent?alt=sse", Behaviour.GOOD, 200, "data: {"),
        ("openai", "/chat/completions", Behaviour.GOOD, 200, "in the role of m"),
        ("openai", "/chat/completions", Behaviour.INVALID, 401, "invalid_api_key"),
        ("openai", "/chat/completions", Behaviour.MINUTE_SPENT, 429, "rate_limit_exceeded"),
        ("openai", "/embeddings", Behaviour.GOOD, 200, '"embedding"'),
        ("openai", "/responses", Behaviour.GOOD, 200, '{"model":"m"}'),
    ],
)
def test_keys_behave(simulator, slug, path, behaviour, status, says):
    answer = ask(simulator, simulator.key(slug, behaviour), path, slug)
    assert answer.status_code == status
    assert says in answer.text


def test_a_quota_is_kept_exactly():
    quota = Quota(rpm=2, rpd=3, tpm=100, minute=60, day=600)
    key = Key("openai", "secret", "key 1", quota=quota)
    assert [key.take("m", 1, at) is None for at in (0, 10, 20)] == [True, True, False]
    assert key.take("m", 1, 20).wait == 40
    assert key.take("other", 101, 20).limit == "tpm"
    assert key.take("m", 1, 60) is None
    assert key.take("m", 1, 130).limit == "rpd"
    assert key.take("m", 1, 600) is None


def test_googles_minute_ends_at_the_full_minute():
    key = Key(GOOGLE, "secret", "key 1", quota=Quota(rpm=1, calendar=True))
    assert key.take("m", 1, 59) is None
    assert key.take("m", 1, 59.5).wait == 0.5
    assert key.take("m", 1, 60) is None


def test_scripts_go_by_key_model_and_number(simulator):
    first, second = simulator.key("openai"), simulator.key("openai")
    simulator.script(Answer(503), key=first)
    simulator.script(Answer(418), model="n", times=None)
    simulator.script(Answer(chunks=[b"a", Pause(0.01), b"b"]), number=4)
    assert ask(simulator, second).status_code == 200
    assert ask(simulator, first).status_code == 503
    assert ask(simulator, first).status_code == 200
    assert ask(simulator, first).text == "ab"
    assert [ask(simulator, first, json={"model": "n"}).status_code for _ in range(2)] == [418, 418]


@pytest.mark.parametrize("answer", [Answer(reset=True), Answer(body=b"x" * 100, cut_after=10)])
def test_connections_break(simulator, answer):
    simulator.script(answer)
    with pytest.raises(httpx.TransportError):
        ask(simulator, simulator.key("openai"))


def test_requests_are_kept_as_they_came(simulator):
    key = simulator.key("openai")
    ask(simulator, key, "/a%2fb/c?x=%20")
    (request,) = simulator.wait_for(1)
    assert request.target == "/openai/v1/a%2fb/c?x=%20"
    assert request.body == b'{"model":"m"}'
    assert (request.key, request.model, request.status) == (key, "m", 200)
    assert request.mentions(key.secret)
    assert not request.mentions("AUTH_KEY")


def test_the_gateways_layout(simulator):
    key = simulator.key(GOOGLE)
    simulator.gateway_token = "gateway-token"
    url = f"{simulator.url()}/v1/account/gateway"
    headers = {"authorization": f"Bearer {key.secret}"}
    body = {"model": f"{GOOGLE}/gemini"}

    def chat() -> httpx.Response:
        return httpx.post(f"{url}/compat/chat/completions", headers=headers, json=body, trust_env=False)

    assert chat().json()["internalCode"] == 2009
    headers["cf-aig-authorization"] = "Bearer gateway-token"
    assert chat().status_code == 200
    request = simulator.requests[-1]
    assert (request.through_gateway, request.slug, request.model) == (True, GOOGLE, "gemini")
