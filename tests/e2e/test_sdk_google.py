"""Google's own SDK on Gemini's own API, which is passed on."""

import pytest
from google import genai
from google.genai import types
from harness_client import HOST
from harness_sdks import CITY, FULL, PNG, RESULTS, TIGHT, City, Target, image_of, new_target, results_of
from provider_simulator import Answer


@pytest.fixture
def target(sdks) -> Target:
    return new_target(sdks, "google-ai-studio")


def new(port: int, key: str = FULL) -> genai.Client:
    base = f"http://{HOST}:{port}/api/google-ai-studio"
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=base))


@pytest.fixture
def client(sdks) -> genai.Client:
    return new(sdks.balancer.port)


def test_chat_and_stream(client, target):
    answer = client.models.generate_content(model=target.model, contents="Hello")
    assert (answer.text, answer.candidates[0].finish_reason.name) == (target.said(), "STOP")
    chunks = list(client.models.generate_content_stream(model=target.model, contents="Hello"))
    assert "".join(chunk.text for chunk in chunks) == target.said()
    assert chunks[-1].usage_metadata.prompt_token_count == 9


@pytest.mark.parametrize("streamed", [True, False])
def test_tools(client, target, streamed):
    """The SDK runs the functions and asks again, all in one call."""

    def weather(city: str) -> dict:
        """The weather."""
        return RESULTS[0]

    def clock(city: str) -> dict:
        """The time."""
        return RESULTS[1]

    options = {"model": target.model, "contents": "Hello", "config": {"tools": [weather, clock]}}
    if streamed:
        text = "".join(chunk.text or "" for chunk in client.models.generate_content_stream(**options))
    else:
        text = client.models.generate_content(**options).text
    assert text == target.said()
    results = results_of("google-ai-studio", target.body())
    assert [result.get("result", result) for result in results] == RESULTS


def test_image_and_schema(client, target):
    contents = [types.Part.from_bytes(data=PNG, mime_type="image/png"), "What is it?"]
    config = {"response_mime_type": "application/json", "response_schema": City}
    answer = client.models.generate_content(model=target.model, contents=contents, config=config)
    assert answer.parsed == CITY
    assert image_of("google-ai-studio", target.body()) == PNG


def test_errors(sdks, client, target):
    def status_of(client: genai.Client) -> tuple[int, str]:
        with pytest.raises(genai.errors.APIError) as error:
            client.models.generate_content(model=target.model, contents="Hello")
        assert error.value.message
        return error.value.code, error.value.status

    port = sdks.balancer.port
    assert status_of(new(port, "wrong-key-1234")) == (401, "UNAUTHENTICATED")
    assert status_of(new(port, TIGHT)) == (403, "PERMISSION_DENIED")
    body = {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "no such field"}}
    target.fail(Answer(400, body=body), times=1)
    assert status_of(client) == (400, "INVALID_ARGUMENT")
    target.spend(times=2)
    assert client.models.generate_content(model=target.model, contents="Hello").text == target.said()
    target.spend()
    assert [status_of(client) for _ in range(2)] == [(429, "RESOURCE_EXHAUSTED")] * 2


def test_503(start, simulator):
    simulator.key("openai")
    balancer = start()
    client = new(balancer.port, balancer.auth_key)
    with pytest.raises(genai.errors.ServerError) as error:
        client.models.generate_content(model="gemini", contents="Hello")
    assert error.value.code == 503
