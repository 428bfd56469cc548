"""OpenAI's own SDK, against each kind of target."""

import base64
import json

import openai
import pytest
from harness import Pool, Shared
from harness_sdks import (
    ALIAS,
    CITY,
    FULL,
    HELLO,
    LISTED,
    PNG,
    RESULTS,
    TIGHT,
    TOOLS,
    City,
    image_of,
    new_target,
    results_of,
    url,
)
from provider_simulator import Answer


@pytest.fixture
def client(sdks) -> openai.OpenAI:
    return new(sdks, FULL)


def new(sdks: Shared, key: str, path: str = "/v1") -> openai.OpenAI:
    # Without retries of its own: what is retried is the filter's doing.
    return openai.OpenAI(api_key=key, base_url=url(sdks, path), max_retries=0)


@pytest.mark.parametrize("path", ["/v1", "/api/compat"])
def test_chat(sdks, target, path):
    answer = new(sdks, FULL, path).chat.completions.create(model=target.compat, messages=HELLO)
    assert answer.choices[0].message.content == target.said()
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens == 9


@pytest.mark.parametrize("usage", [True, False])
def test_stream(client, target, usage):
    options = {"stream_options": {"include_usage": True}} if usage else {}
    stream = client.chat.completions.create(model=target.compat, messages=HELLO, stream=True, **options)
    *chunks, last = stream
    if usage:
        assert (last.choices, last.usage.prompt_tokens) == ([], 9)
    else:
        chunks.append(last)
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == target.said()
    assert len(chunks) > 5, "a stream comes in pieces"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]


@pytest.mark.parametrize("streamed", [True, False])
def test_tools(client, target, streamed):
    if streamed:
        with client.chat.completions.stream(model=target.compat, messages=HELLO, tools=TOOLS) as stream:
            choice = stream.get_final_completion().choices[0]
    else:
        choice = client.chat.completions.create(model=target.compat, messages=HELLO, tools=TOOLS).choices[0]
    calls = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    assert [call.function.name for call in calls] == ["weather", "clock"]
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "text"}] * 2
    assert len({call.id for call in calls}) == 2
    turns = [*HELLO, choice.message]
    for call, result in zip(calls, RESULTS, strict=True):
        turns.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)})
    answer = client.chat.completions.create(model=target.compat, messages=turns, tools=TOOLS)
    assert answer.choices[0].message.content == target.said()
    assert results_of(target.slug, target.body()) == RESULTS


def test_a_named_tool_and_none(client, target):
    options = {"model": target.compat, "messages": HELLO, "tools": TOOLS}
    named = {"type": "function", "function": {"name": "clock"}}
    message = client.chat.completions.create(tool_choice=named, **options).choices[0].message
    assert [call.function.name for call in message.tool_calls] == ["clock"]
    message = client.chat.completions.create(tool_choice="none", **options).choices[0].message
    assert (message.tool_calls, message.content) == (None, target.said())


def test_image(client, target):
    link = "data:image/png;base64," + base64.b64encode(PNG).decode()
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": link}}]
    client.chat.completions.create(model=target.compat, messages=[{"role": "user", "content": content}])
    assert image_of(target.slug, target.body()) == PNG


def test_schema(client, target):
    answer = client.chat.completions.parse(model=target.compat, messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == CITY
    with client.chat.completions.stream(model=target.compat, messages=HELLO, response_format=City) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == CITY


def test_401_and_403(sdks, target):
    with pytest.raises(openai.AuthenticationError) as error:
        new(sdks, "wrong-key-1234").chat.completions.create(model=target.compat, messages=HELLO)
    assert error.value.code == "invalid_auth_key"
    with pytest.raises(openai.PermissionDeniedError) as error:
        new(sdks, TIGHT).chat.completions.create(model=target.compat, messages=HELLO)
    assert error.value.code == "model_not_allowed"
    assert not target.requests()


def test_400(client, target):
    if target.slug == "openai":
        body = {"message": "no bias", "type": "invalid_request_error", "param": "logit_bias", "code": None}
        target.fail(Answer(400, body={"error": body}))
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=target.compat, messages=HELLO, logit_bias={"5": 1})
    assert (error.value.param, error.value.type) == ("logit_bias", "invalid_request_error")
    assert len(target.requests()) == (target.slug == "openai"), "what cannot be said is not sent"


@pytest.mark.parametrize("stream", [True, False])
def test_429_when_all_cool(client, target, stream):
    target.spend()
    for _ in range(2):
        with pytest.raises(openai.RateLimitError) as error:
            client.chat.completions.create(model=target.compat, messages=HELLO, stream=stream)
        assert 0 < int(error.value.response.headers["retry-after"]) <= 60
        assert error.value.body["message"]
    assert error.value.code == "all_keys_cooling"
    assert len(target.requests()) == 3, "each key once"


@pytest.mark.parametrize("stream", [True, False])
def test_429_rotation_is_unseen(client, target, stream):
    target.spend(times=2)
    answer = client.chat.completions.create(model=target.compat, messages=HELLO, stream=stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in answer) if stream else None
    assert (text or answer.choices[0].message.content) == target.said()
    assert len({request.key.secret for request in target.requests()}) == 3


def test_503(client):
    with pytest.raises(openai.InternalServerError) as error:
        client.chat.completions.create(model="groq/llama", messages=HELLO)
    assert (error.value.status_code, error.value.code) == (503, "no_keys")


@pytest.mark.parametrize("slug", ["google-ai-studio", "anthropic"])
def test_a_stream_that_breaks_is_an_error(sdks, client, slug):
    target = new_target(sdks, slug)
    events = {
        "google-ai-studio": b'data: {"candidates":[{"content":{"parts":[{"text":"So"}]}}]}\r\n\r\n',
        "anthropic": b'event: message_start\ndata: {"type":"message_start","message":{}}\n\n',
    }
    target.fail(Answer(chunks=[events[slug]]))
    stream = client.chat.completions.create(model=target.compat, messages=HELLO, stream=True)
    with pytest.raises(openai.APIError) as error:
        list(stream)
    assert error.value.code == "provider_stream_broken"


def test_embeddings(client, sdks):
    for slug in ("google-ai-studio", "openai"):
        answer = client.embeddings.create(model=new_target(sdks, slug).compat, input=["a", "b"])
        assert [round(number, 2) for number in answer.data[1].embedding] == [0.01, -0.02, 0.03]


def test_models(client):
    assert [(model.id, model.owned_by) for model in client.models.list()] == [
        (LISTED, "google-ai-studio"),
        (ALIAS, "openai"),
    ]
    answer = client.chat.completions.create(model=ALIAS, messages=HELLO)
    assert answer.choices[0].message.content.endswith("in the role of gpt-4o.")


def test_a_pool_of_an_unknown_provider_is_passed_on(sdks, pool: Pool):
    client = openai.OpenAI(api_key=FULL, base_url=url(sdks), max_retries=0)
    answer = client.chat.completions.create(model=pool.compat_model, messages=HELLO)
    assert answer.choices[0].message.content
