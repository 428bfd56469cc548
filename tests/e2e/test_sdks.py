"""Real SDKs as clients: what their users would write, against each kind of target.

`google-ai-studio` and `anthropic` are translated, `openai` is passed on.
"""

import base64
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types
from harness import Pool, Shared, Simulator
from harness_client import HOST
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from provider_simulator import Answer
from provider_simulator.answers import SIGNATURE, spent
from provider_simulator.keys import Spent
from pydantic import BaseModel

FULL, TIGHT = "auth-full-" + secrets.token_hex(8), "auth-tight-" + secrets.token_hex(8)
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
FAMILIES = {"google-ai-studio": "gemini-3-flash", "anthropic": "claude-opus-4-6", "openai": "gpt-4o"}
HELLO = [{"role": "user", "content": "Hello"}]


class City(BaseModel):
    name: str
    inhabitants: int
    districts: list[str]


CITY = City(name="text", inhabitants=1, districts=["text"])
"""What the simulator fills the schema with."""


def tool(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


TOOLS = [tool("weather"), tool("clock")]


@dataclass
class Target:
    """A provider and a model of this test's own."""

    shared: Shared
    slug: str
    model: str

    @property
    def compat(self) -> str:
        return f"{self.slug}/{self.model}"

    def requests(self) -> list[Any]:
        return [request for request in self.shared.simulator.requests if request.model == self.model]

    def body(self) -> Any:
        """The last request as the provider got it."""
        return self.requests()[-1].json()

    def fail(self, answer: Answer, times: int | None = None) -> None:
        self.shared.simulator.script(answer, model=self.model, times=times)

    def spend(self, times: int | None = None) -> None:
        """The next requests meet keys without quota, and are told so in the provider's words."""
        spend(self.shared.simulator, self.model, times)


def spend(simulator: Simulator, model: str, times: int | None = None) -> None:
    def answer(request):
        return spent(request.slug, request.api, request.model, Spent("rpm", 15, 22))

    simulator.script(answer, model=model, times=times)


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Shared]:
    keys = f"{FULL};{TIGHT}=" + "&".join(f"{slug},another-model" for slug in FAMILIES)
    plugin = {"models": ["google-ai-studio/gemini-2.5-flash"], "aliases": {"alias": "openai/gpt-4o"}}
    shared = Shared(tmp_path_factory.mktemp("sdks") / "envoy.log", env={"AUTH_KEY": keys}, plugin=plugin)
    yield shared
    shared.stop()


@pytest.fixture(autouse=True)
def direct(monkeypatch) -> None:
    monkeypatch.setenv("NO_PROXY", HOST)
    monkeypatch.setenv("LANGSMITH_TRACING", "false")


def new_target(shared: Shared, slug: str) -> Target:
    return Target(shared, slug, f"{FAMILIES[slug]}-{secrets.token_hex(6)}")


@pytest.fixture(params=FAMILIES)
def target(shared, request) -> Target:
    return new_target(shared, request.param)


def url(shared: Shared, path: str = "/v1") -> str:
    return f"http://{HOST}:{shared.balancer.port}{path}"


def said(target: Target) -> str:
    return f"Hello from the provider simulator, in the role of {target.model}."


def image_of(slug: str, body: Any) -> bytes:
    """The image in what the provider got."""
    if slug == "google-ai-studio":
        data = next(part["inlineData"] for part in body["contents"][-1]["parts"] if "inlineData" in part)
        # Google's own SDK writes this one in snake_case, and base64 in the alphabet of URLs.
        assert (data.get("mimeType") or data.get("mime_type")) == "image/png"
        return base64.b64decode(data["data"], "+/" if "mimeType" in data else "-_", validate=True)
    parts = body["messages"][-1]["content"]
    if slug == "anthropic":
        source = next(part["source"] for part in parts if part["type"] == "image")
        assert (source["type"], source["media_type"]) == ("base64", "image/png")
        return base64.b64decode(source["data"], validate=True)
    link = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
    return base64.b64decode(link.removeprefix("data:image/png;base64,"), validate=True)


def results_of(slug: str, body: Any) -> list[Any]:
    """The calls' results in what the provider got, each with what ties it to its call."""
    if slug == "google-ai-studio":
        call_turn, result_turn = body["contents"][-2:]
        assert call_turn["parts"][0]["thoughtSignature"] == SIGNATURE, "Gemini 3 refuses what has lost it"
        responses = [part["functionResponse"] for part in result_turn["parts"]]
        calls = [part["functionCall"] for part in call_turn["parts"] if "functionCall" in part]
        assert [call["name"] for call in calls] == [response["name"] for response in responses]
        return [response["response"] for response in responses]
    if slug == "anthropic":
        call_turn, result_turn = body["messages"][-2:]
        ids = [block["id"] for block in call_turn["content"] if block["type"] == "tool_use"]
        assert [block["tool_use_id"] for block in result_turn["content"]] == ids
        return [json.loads(text_of(block["content"])) for block in result_turn["content"]]
    results = [message for message in body["messages"] if message["role"] == "tool"]
    ids = [call["id"] for message in body["messages"] for call in message.get("tool_calls") or []]
    assert [message["tool_call_id"] for message in results] == ids
    return [json.loads(message["content"]) for message in results]


def text_of(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


RESULTS = [{"sky": "blue"}, {"hour": 12}]


class TestOpenAI:
    @pytest.fixture
    def client(self, shared) -> openai.OpenAI:
        return self.new(shared, FULL)

    def new(self, shared: Shared, key: str, path: str = "/v1") -> openai.OpenAI:
        # Without retries of its own: what is retried is the filter's doing.
        return openai.OpenAI(api_key=key, base_url=url(shared, path), max_retries=0)

    @pytest.mark.parametrize("path", ["/v1", "/api/compat"])
    def test_chat(self, shared, target, path):
        answer = self.new(shared, FULL, path).chat.completions.create(model=target.compat, messages=HELLO)
        assert answer.choices[0].message.content == said(target)
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        assert answer.usage.prompt_tokens == 9

    @pytest.mark.parametrize("usage", [True, False])
    def test_stream(self, client, target, usage):
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
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said(target)
        assert len(chunks) > 5, "a stream comes in pieces"
        assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]

    @pytest.mark.parametrize("streamed", [True, False])
    def test_tools(self, client, target, streamed):
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
        assert answer.choices[0].message.content == said(target)
        assert results_of(target.slug, target.body()) == RESULTS

    def test_a_named_tool_and_none(self, client, target):
        options = {"model": target.compat, "messages": HELLO, "tools": TOOLS}
        named = {"type": "function", "function": {"name": "clock"}}
        message = client.chat.completions.create(tool_choice=named, **options).choices[0].message
        assert [call.function.name for call in message.tool_calls] == ["clock"]
        message = client.chat.completions.create(tool_choice="none", **options).choices[0].message
        assert (message.tool_calls, message.content) == (None, said(target))

    def test_image(self, client, target):
        link = "data:image/png;base64," + base64.b64encode(PNG).decode()
        content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": link}}]
        client.chat.completions.create(model=target.compat, messages=[{"role": "user", "content": content}])
        assert image_of(target.slug, target.body()) == PNG

    def test_schema(self, client, target):
        answer = client.chat.completions.parse(model=target.compat, messages=HELLO, response_format=City)
        assert answer.choices[0].message.parsed == CITY
        with client.chat.completions.stream(model=target.compat, messages=HELLO, response_format=City) as stream:
            assert stream.get_final_completion().choices[0].message.parsed == CITY

    def test_401_and_403(self, shared, target):
        with pytest.raises(openai.AuthenticationError) as error:
            self.new(shared, "wrong-key-1234").chat.completions.create(model=target.compat, messages=HELLO)
        assert error.value.code == "invalid_auth_key"
        with pytest.raises(openai.PermissionDeniedError) as error:
            self.new(shared, TIGHT).chat.completions.create(model=target.compat, messages=HELLO)
        assert error.value.code == "model_not_allowed"
        assert not target.requests()

    def test_400(self, client, target):
        if target.slug == "openai":
            body = {"message": "no bias", "type": "invalid_request_error", "param": "logit_bias", "code": None}
            target.fail(Answer(400, body={"error": body}))
        with pytest.raises(openai.BadRequestError) as error:
            client.chat.completions.create(model=target.compat, messages=HELLO, logit_bias={"5": 1})
        assert (error.value.param, error.value.type) == ("logit_bias", "invalid_request_error")
        assert len(target.requests()) == (target.slug == "openai"), "what cannot be said is not sent"

    @pytest.mark.parametrize("stream", [True, False])
    def test_429_when_all_cool(self, client, target, stream):
        target.spend()
        for _ in range(2):
            with pytest.raises(openai.RateLimitError) as error:
                client.chat.completions.create(model=target.compat, messages=HELLO, stream=stream)
            assert 0 < int(error.value.response.headers["retry-after"]) <= 60
            assert error.value.body["message"]
        assert error.value.code == "all_keys_cooling"
        assert len(target.requests()) == 3, "each key once"

    @pytest.mark.parametrize("stream", [True, False])
    def test_429_rotation_is_unseen(self, client, target, stream):
        target.spend(times=2)
        answer = client.chat.completions.create(model=target.compat, messages=HELLO, stream=stream)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer) if stream else None
        assert (text or answer.choices[0].message.content) == said(target)
        assert len({request.key.secret for request in target.requests()}) == 3

    def test_503(self, client):
        with pytest.raises(openai.InternalServerError) as error:
            client.chat.completions.create(model="groq/llama", messages=HELLO)
        assert (error.value.status_code, error.value.code) == (503, "no_keys")

    @pytest.mark.parametrize("slug", ["google-ai-studio", "anthropic"])
    def test_a_stream_that_breaks_is_an_error(self, shared, client, slug):
        target = new_target(shared, slug)
        events = {
            "google-ai-studio": b'data: {"candidates":[{"content":{"parts":[{"text":"So"}]}}]}\r\n\r\n',
            "anthropic": b'event: message_start\ndata: {"type":"message_start","message":{}}\n\n',
        }
        target.fail(Answer(chunks=[events[slug]]))
        stream = client.chat.completions.create(model=target.compat, messages=HELLO, stream=True)
        with pytest.raises(openai.APIError) as error:
            list(stream)
        assert error.value.code == "provider_stream_broken"

    def test_embeddings(self, client, shared):
        for slug in ("google-ai-studio", "openai"):
            answer = client.embeddings.create(model=new_target(shared, slug).compat, input=["a", "b"])
            assert [round(number, 2) for number in answer.data[1].embedding] == [0.01, -0.02, 0.03]

    def test_models(self, client):
        assert [(model.id, model.owned_by) for model in client.models.list()] == [
            ("google-ai-studio/gemini-2.5-flash", "google-ai-studio"),
            ("alias", "openai"),
        ]
        answer = client.chat.completions.create(model="alias", messages=HELLO)
        assert answer.choices[0].message.content.endswith("in the role of gpt-4o.")


class TestLangChain:
    def new(self, target: Target, key: str = FULL) -> ChatOpenAI:
        return ChatOpenAI(
            model=target.compat, api_key=key, base_url=url(target.shared), max_retries=0, stream_usage=True
        )

    def test_chat_and_stream(self, target):
        answer = self.new(target).invoke("Hello")
        assert (answer.text, answer.response_metadata["finish_reason"]) == (said(target), "stop")
        chunks = list(self.new(target).stream("Hello"))
        total = chunks[0]
        for chunk in chunks[1:]:
            total += chunk
        assert total.text == said(target)
        assert total.usage_metadata["input_tokens"] == 9, "usage came once: LangChain adds it up"

    @pytest.mark.parametrize("streamed", [True, False])
    def test_tools(self, target, streamed):
        """LangChain drops fields that it does not know: Gemini's signature comes back all the same."""
        model = self.new(target).bind_tools(TOOLS)
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
        assert model.invoke([HumanMessage("Hello"), message, *results]).text == said(target)
        assert results_of(target.slug, target.body()) == RESULTS

    def test_image(self, target):
        image = {"type": "image", "base64": base64.b64encode(PNG).decode(), "mime_type": "image/png"}
        self.new(target).invoke([HumanMessage([{"type": "text", "text": "What is it?"}, image])])
        assert image_of(target.slug, target.body()) == PNG

    @pytest.mark.parametrize("method", ["json_schema", "function_calling"])
    def test_schema(self, target, method):
        model = self.new(target).with_structured_output(City, method=method)
        assert model.invoke("Hello") == CITY

    def test_errors(self, target):
        for key, error in (("wrong-key-1234", openai.AuthenticationError), (TIGHT, openai.PermissionDeniedError)):
            with pytest.raises(error):
                self.new(target, key).invoke("Hello")
        target.spend(times=2)
        assert self.new(target).invoke("Hello").text == said(target)
        target.spend()
        for _ in range(2):
            with pytest.raises(openai.RateLimitError) as raised:
                self.new(target).invoke("Hello")
        assert int(raised.value.response.headers["retry-after"]) > 0


class TestAnthropic:
    """On Anthropic's own API, which is passed on."""

    TOOLS = [{"name": tool["function"]["name"], "input_schema": tool["function"]["parameters"]} for tool in TOOLS]

    @pytest.fixture
    def target(self, shared) -> Target:
        return new_target(shared, "anthropic")

    def new(self, shared: Shared, key: str = FULL) -> anthropic.Anthropic:
        return anthropic.Anthropic(api_key=key, base_url=url(shared, "/api/anthropic"), max_retries=0)

    def fields(self, target: Target, messages: Any = HELLO, **more: Any) -> dict[str, Any]:
        return {"model": target.model, "max_tokens": 64, "messages": messages, **more}

    def test_chat_and_stream(self, shared, target):
        client = self.new(shared)
        answer = client.messages.create(**self.fields(target))
        assert (answer.content[0].text, answer.stop_reason) == (said(target), "end_turn")
        with client.messages.stream(**self.fields(target)) as stream:
            assert "".join(stream.text_stream) == said(target)
            assert stream.get_final_message().usage.input_tokens == 9

    @pytest.mark.parametrize("streamed", [True, False])
    def test_tools(self, shared, target, streamed):
        client, fields = self.new(shared), self.fields(target, tools=self.TOOLS)
        if streamed:
            with client.messages.stream(**fields) as stream:
                answer = stream.get_final_message()
        else:
            answer = client.messages.create(**fields)
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
        answer = client.messages.create(**self.fields(target, turns, tools=self.TOOLS))
        assert answer.content[0].text == said(target)
        assert results_of("anthropic", target.body()) == RESULTS

    def test_image_and_schema(self, shared, target):
        source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}
        content = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
        answer = self.new(shared).messages.parse(
            **self.fields(target, [{"role": "user", "content": content}]), output_format=City
        )
        assert answer.parsed_output == CITY
        assert image_of("anthropic", target.body()) == PNG

    def test_errors(self, shared, target):
        with pytest.raises(anthropic.AuthenticationError):
            self.new(shared, "wrong-key-1234").messages.create(**self.fields(target))
        with pytest.raises(anthropic.PermissionDeniedError):
            self.new(shared, TIGHT).messages.create(**self.fields(target))
        body = {"type": "error", "error": {"type": "invalid_request_error", "message": "no such field"}}
        target.fail(Answer(400, body=body), times=1)
        with pytest.raises(anthropic.BadRequestError, match="no such field"):
            self.new(shared).messages.create(**self.fields(target))
        target.spend(times=2)
        assert self.new(shared).messages.create(**self.fields(target)).content[0].text == said(target)
        target.spend()
        for _ in range(2):
            with pytest.raises(anthropic.RateLimitError) as error:
                self.new(shared).messages.create(**self.fields(target))
            assert 0 < int(error.value.response.headers["retry-after"]) <= 60

    def test_503(self, start, simulator):
        simulator.key("openai")
        balancer = start()
        base = f"http://{HOST}:{balancer.port}/api/anthropic"
        client = anthropic.Anthropic(api_key=balancer.auth_key, base_url=base)
        with pytest.raises(anthropic.InternalServerError) as error:
            client.messages.create(model="claude", max_tokens=1, messages=HELLO)
        assert error.value.status_code == 503


class TestGoogle:
    """On Gemini's own API, which is passed on."""

    @pytest.fixture
    def target(self, shared) -> Target:
        return new_target(shared, "google-ai-studio")

    def new(self, port: int, key: str = FULL) -> genai.Client:
        base = f"http://{HOST}:{port}/api/google-ai-studio"
        return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=base))

    @pytest.fixture
    def client(self, shared) -> genai.Client:
        return self.new(shared.balancer.port)

    def test_chat_and_stream(self, client, target):
        answer = client.models.generate_content(model=target.model, contents="Hello")
        assert (answer.text, answer.candidates[0].finish_reason.name) == (said(target), "STOP")
        chunks = list(client.models.generate_content_stream(model=target.model, contents="Hello"))
        assert "".join(chunk.text for chunk in chunks) == said(target)
        assert chunks[-1].usage_metadata.prompt_token_count == 9

    @pytest.mark.parametrize("streamed", [True, False])
    def test_tools(self, client, target, streamed):
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
        assert text == said(target)
        results = results_of("google-ai-studio", target.body())
        assert [result.get("result", result) for result in results] == RESULTS

    def test_image_and_schema(self, client, target):
        contents = [types.Part.from_bytes(data=PNG, mime_type="image/png"), "What is it?"]
        config = {"response_mime_type": "application/json", "response_schema": City}
        answer = client.models.generate_content(model=target.model, contents=contents, config=config)
        assert answer.parsed == CITY
        assert image_of("google-ai-studio", target.body()) == PNG

    def test_errors(self, shared, client, target):
        def status_of(client: genai.Client) -> tuple[int, str]:
            with pytest.raises(genai.errors.APIError) as error:
                client.models.generate_content(model=target.model, contents="Hello")
            assert error.value.message
            return error.value.code, error.value.status

        port = shared.balancer.port
        assert status_of(self.new(port, "wrong-key-1234")) == (401, "UNAUTHENTICATED")
        assert status_of(self.new(port, TIGHT)) == (403, "PERMISSION_DENIED")
        body = {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "no such field"}}
        target.fail(Answer(400, body=body), times=1)
        assert status_of(client) == (400, "INVALID_ARGUMENT")
        target.spend(times=2)
        assert client.models.generate_content(model=target.model, contents="Hello").text == said(target)
        target.spend()
        assert [status_of(client) for _ in range(2)] == [(429, "RESOURCE_EXHAUSTED")] * 2

    def test_503(self, start, simulator):
        simulator.key("openai")
        balancer = start()
        client = self.new(balancer.port, balancer.auth_key)
        with pytest.raises(genai.errors.ServerError) as error:
            client.models.generate_content(model="gemini", contents="Hello")
        assert error.value.code == 503


def test_a_pool_of_an_unknown_provider_is_passed_on(shared, pool: Pool):
    client = openai.OpenAI(api_key=FULL, base_url=url(shared), max_retries=0)
    answer = client.chat.completions.create(model=pool.compat_model, messages=HELLO)
    assert answer.choices[0].message.content
