"""OpenAI clients on Gemini and Anthropic, over real Envoy: translated there and back, retried in between."""

import json

import pytest
from harness import Simulator
from provider_simulator import Answer, Behaviour, Stream

TARGETS = ["google-ai-studio", "anthropic"]


def native(slug, text, **more):
    """A provider's own answer."""
    if slug == "anthropic":
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
        content = [{"type": "text", "text": text}]
        usage = {"input_tokens": 3, "output_tokens": 2}
        return {**message, "content": content, "stop_reason": "end_turn", "usage": usage, **more}
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
    return {"candidates": [candidate], "usageMetadata": usage, **more}


@pytest.mark.parametrize("slug", TARGETS)
def test_a_chat(shared, slug, model):
    answer = shared.client.chat(f"{slug}/{model}", max_tokens=50)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["object"] == "chat.completion"
    assert body["model"] == f"{slug}/{model}"
    assert body["choices"][0]["message"]["content"]
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["total_tokens"] > 0
    [request] = shared.simulator.wait_for(1, model=model)
    assert request.api != "openai", "it was asked in its own language"
    assert "max_tokens" not in request.json() or slug == "anthropic"


@pytest.mark.parametrize("slug", TARGETS)
def test_a_stream(shared, slug, model):
    body = {"model": f"{slug}/{model}", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    with shared.client.stream(
        "/v1/chat/completions", json={**body, "stream_options": {"include_usage": True}}
    ) as arriving:
        assert arriving.headers["content-type"].startswith("text/event-stream")
        events = arriving.events()
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert text
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert reasons == ["stop"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 0


def test_each_event_becomes_its_chunk_at_once(shared, model):
    stream = Stream()
    shared.simulator.script(Answer(chunks=stream), model=model)
    event = lambda text: b"data: " + json.dumps(native("google-ai-studio", text)).encode() + b"\r\n\r\n"  # noqa: E731
    stream.send(event("one"))
    body = {"model": f"google-ai-studio/{model}", "messages": [{"role": "user", "content": "x"}], "stream": True}
    with shared.client.stream("/v1/chat/completions", json=body) as arriving:
        received = b""
        while b"one" not in received:
            received += arriving.chunk()
        stream.send(event("two"))
        while b"two" not in received:
            received += arriving.chunk()
        stream.close()
        assert arriving.rest().endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("slug", TARGETS)
@pytest.mark.parametrize("stream", [False, True])
def test_rotation_is_unseen(start, simulator, slug, stream, model):
    for behaviour in (Behaviour.INVALID, Behaviour.MINUTE_SPENT, Behaviour.DAILY_SPENT, Behaviour.GOOD):
        simulator.key(slug, behaviour)
    answer = start().client.chat(f"{slug}/{model}", stream=stream)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-one-balance-attempts"] == "4"
    assert len({request.body for request in simulator.requests}) == 1


def test_a_stream_that_ends_early_says_so(shared, model):
    event = native("google-ai-studio", "half")
    del event["candidates"][0]["finishReason"]
    shared.simulator.script(Answer(chunks=[b"data: " + json.dumps(event).encode() + b"\n\n"]), model=model)
    body = {"model": f"google-ai-studio/{model}", "messages": [{"role": "user", "content": "x"}], "stream": True}
    with shared.client.stream("/v1/chat/completions", json=body) as arriving:
        events = arriving.json_events()
    assert any("error" in event and event["error"]["message"] for event in events), events


@pytest.mark.parametrize("slug", TARGETS)
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"code": 400, "message": "bad thing", "status": "INVALID_ARGUMENT"}}),
        (404, [{"error": {"code": 404, "message": "bad thing", "status": "NOT_FOUND"}}]),
        (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "bad thing"}}),
        (529, {"type": "error", "error": {"type": "overloaded_error", "message": "bad thing"}}),
    ],
)
def test_errors_are_openais(shared, slug, status, body, model):
    shared.simulator.script(Answer(status, body=body), model=model, times=None)
    answer = shared.client.chat(f"{slug}/{model}")
    assert answer.status_code == status
    error = answer.json()["error"]
    assert "bad thing" in error["message"]
    assert error["type"]
    assert "code" in error
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_an_answer_that_cannot_be_read(shared, model):
    shared.simulator.script(Answer(200, body="<html>"), model=model)
    answer = shared.client.chat(f"google-ai-studio/{model}")
    assert answer.status_code == 502
    assert answer.json()["error"]["message"]


def test_a_large_answer(shared, model):
    text = "x" * (5 << 20)
    shared.simulator.script(Answer(200, body=native("google-ai-studio", text)), model=model)
    answer = shared.client.chat(f"google-ai-studio/{model}")
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == text


def test_what_cannot_be_translated_is_refused_by_name(shared, model):
    answer = shared.client.chat(f"anthropic/{model}", n=2)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"], error["type"]) == ("n", "unsupported_field", "invalid_request_error")
    assert not [request for request in shared.simulator.requests if request.model == model], "no key was spent on it"


def test_embeddings_of_gemini(shared, model):
    answer = shared.client.post("/v1/embeddings", json={"model": f"google-ai-studio/{model}", "input": ["a", "b"]})
    assert answer.status_code == 200, answer.text
    assert [item["index"] for item in answer.json()["data"]] == [0, 1]
    answer = shared.client.post("/v1/embeddings", json={"model": f"anthropic/{model}", "input": "a"})
    assert answer.status_code == 400


def test_models_aliases_and_formats(start, model):
    plugin = {
        "aliases": {"gpt-4o": f"google-ai-studio/{model}"},
        "models": ["openai/gpt-4o", f"anthropic/{model}"],
        "providers": {
            "anthropic": {"openai_format": "passthrough"},
            "google-ai-studio": {"drop": {"model-": ["n"]}},
        },
    }
    with Simulator() as simulator:
        for slug in ("openai", "anthropic", "google-ai-studio"):
            simulator.key(slug)
        env = {"AUTH_KEY": "open-key-1234;tight-key-123=openai"}
        client = start(simulator=simulator, plugin=plugin, env=env).client
        ids = [entry["id"] for entry in client.get("/v1/models").json()["data"]]
        assert ids == ["openai/gpt-4o", f"anthropic/{model}", "gpt-4o"]
        tight = client.get("/v1/models", auth=None, headers={"authorization": "Bearer tight-key-123"})
        assert [entry["id"] for entry in tight.json()["data"]] == ["openai/gpt-4o"]
        answer = client.chat("gpt-4o", n=7)
        assert answer.status_code == 200
        assert answer.json()["model"] == "gpt-4o"
        assert simulator.requests[-1].slug == "google-ai-studio"
        assert "candidateCount" not in json.dumps(simulator.requests[-1].json()), "n was dropped"
        assert client.chat(f"anthropic/{model}").status_code == 200
        assert simulator.requests[-1].path.endswith("/chat/completions"), "passed on as it was"


@pytest.mark.parametrize("slug", TARGETS)
def test_through_ai_gateway(start, simulator, slug, model):
    simulator.key(slug)
    answer = start(gateway=True).client.chat(f"{slug}/{model}")
    assert answer.status_code == 200, answer.text
    [request] = simulator.requests
    assert request.through_gateway
    assert request.api != "openai"
