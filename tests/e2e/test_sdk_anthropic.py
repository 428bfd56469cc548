"""Anthropic's own SDK on Anthropic's own API, which is passed on."""

import base64
import json
from typing import Any

import anthropic
import pytest
from harness import Shared
from harness_client import HOST
from harness_sdks import CITY, FULL, HELLO, PNG, RESULTS, TIGHT, City, Target, image_of, new_target, results_of, url
from harness_sdks import TOOLS as OPENAI_TOOLS
from provider_simulator import Answer

TOOLS = [{"name": tool["function"]["name"], "input_schema": tool["function"]["parameters"]} for tool in OPENAI_TOOLS]


@pytest.fixture
def target(sdks) -> Target:
    return new_target(sdks, "anthropic")


def new(sdks: Shared, key: str = FULL) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key=key, base_url=url(sdks, "/api/anthropic"), max_retries=0)


def fields(target: Target, messages: Any = HELLO, **more: Any) -> dict[str, Any]:
    return {"model": target.model, "max_tokens": 64, "messages": messages, **more}


def test_chat_and_stream(sdks, target):
    client = new(sdks)
    answer = client.messages.create(**fields(target))
    assert (answer.content[0].text, answer.stop_reason) == (target.said(), "end_turn")
    with client.messages.stream(**fields(target)) as stream:
        assert "".join(stream.text_stream) == target.said()
        assert stream.get_final_message().usage.input_tokens == 9


@pytest.mark.parametrize("streamed", [True, False])
def test_tools(sdks, target, streamed):
    client, asked = new(sdks), fields(target, tools=TOOLS)
    if streamed:
        with client.messages.stream(**asked) as stream:
            answer = stream.get_final_message()
    else:
        answer = client.messages.create(**asked)
    assert answer.stop_reason == "tool_use"
    assert [(block.name, block.input) for block in answer.content] == [
        ("weather", {"city": "text"}),
        ("clock", {"city": "text"}),
    ]
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": json.dumps(result)}
        for block, result in zip(answer.content, RESULTS, strict=True)
    ]
    turns = [*HELLO, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    answer = client.messages.create(**fields(target, turns, tools=TOOLS))
    assert answer.content[0].text == target.said()
    assert results_of("anthropic", target.body()) == RESULTS


def test_image_and_schema(sdks, target):
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    answer = new(sdks).messages.parse(**fields(target, [{"role": "user", "content": content}]), output_format=City)
    assert answer.parsed_output == CITY
    assert image_of("anthropic", target.body()) == PNG


def test_errors(sdks, target):
    with pytest.raises(anthropic.AuthenticationError):
        new(sdks, "wrong-key-1234").messages.create(**fields(target))
    with pytest.raises(anthropic.PermissionDeniedError):
        new(sdks, TIGHT).messages.create(**fields(target))
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": "no such field"}}
    target.fail(Answer(400, body=body), times=1)
    with pytest.raises(anthropic.BadRequestError, match="no such field"):
        new(sdks).messages.create(**fields(target))
    target.spend(times=2)
    assert new(sdks).messages.create(**fields(target)).content[0].text == target.said()
    target.spend()
    for _ in range(2):
        with pytest.raises(anthropic.RateLimitError) as error:
            new(sdks).messages.create(**fields(target))
        assert 0 < int(error.value.response.headers["retry-after"]) <= 60


def test_503(start, simulator):
    simulator.key("openai")
    balancer = start()
    base = f"http://{HOST}:{balancer.port}/api/anthropic"
    client = anthropic.Anthropic(api_key=balancer.auth_key, base_url=base)
    with pytest.raises(anthropic.InternalServerError) as error:
        client.messages.create(model="claude", max_tokens=1, messages=HELLO)
    assert error.value.status_code == 503
