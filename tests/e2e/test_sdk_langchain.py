"""LangChain's ChatOpenAI, against each kind of target."""

import base64
import json

import openai
import pytest
from harness_sdks import CITY, FULL, PNG, RESULTS, TIGHT, TOOLS, City, Target, image_of, results_of
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI


def new(target: Target, key: str = FULL) -> ChatOpenAI:
    return ChatOpenAI(model=target.compat, api_key=key, base_url=target.url(), max_retries=0, stream_usage=True)


def test_chat_and_stream(target):
    answer = new(target).invoke("Hello")
    assert (answer.text, answer.response_metadata["finish_reason"]) == (target.said(), "stop")
    chunks = list(new(target).stream("Hello"))
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    assert total.text == target.said()
    assert total.usage_metadata["input_tokens"] == 9, "usage came once: LangChain adds it up"


@pytest.mark.parametrize("streamed", [True, False])
def test_tools(target, streamed):
    """LangChain drops fields that it does not know: Gemini's signature comes back all the same."""
    model = new(target).bind_tools(TOOLS)
    if streamed:
        message = None
        for chunk in model.stream("Hello"):
            message = chunk if message is None else message + chunk
    else:
        message = model.invoke("Hello")
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [
        ("weather", {"city": "text"}),
        ("clock", {"city": "text"}),
    ]
    results = [
        ToolMessage(json.dumps(result), tool_call_id=call["id"])
        for call, result in zip(message.tool_calls, RESULTS, strict=True)
    ]
    assert model.invoke([HumanMessage("Hello"), message, *results]).text == target.said()
    assert results_of(target.slug, target.body()) == RESULTS


def test_image(target):
    image = {"type": "image", "base64": base64.b64encode(PNG).decode(), "mime_type": "image/png"}
    new(target).invoke([HumanMessage([{"type": "text", "text": "What is it?"}, image])])
    assert image_of(target.slug, target.body()) == PNG


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_schema(target, method):
    model = new(target).with_structured_output(City, method=method)
    assert model.invoke("Hello") == CITY


def test_errors(target):
    for key, error in (("wrong-key-1234", openai.AuthenticationError), (TIGHT, openai.PermissionDeniedError)):
        with pytest.raises(error):
            new(target, key).invoke("Hello")
    target.spend(times=2)
    assert new(target).invoke("Hello").text == target.said()
    target.spend()
    for _ in range(2):
        with pytest.raises(openai.RateLimitError) as raised:
            new(target).invoke("Hello")
    assert int(raised.value.response.headers["retry-after"]) > 0
