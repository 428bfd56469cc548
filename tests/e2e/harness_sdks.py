"""What the tests of SDKs share: targets of each kind, what is asked of them, and what must reach the provider."""

import base64
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import Shared
from harness_client import HOST
from provider_simulator import Answer
from provider_simulator.answers import SIGNATURE, spent
from provider_simulator.keys import Spent
from pydantic import BaseModel

FULL, TIGHT = "auth-full-" + secrets.token_hex(8), "auth-tight-" + secrets.token_hex(8)
"""An AUTH_KEY that may do everything, and one that may use none of the targets."""
FAMILIES = {"google-ai-studio": "gemini-3-flash", "anthropic": "claude-opus-4-6", "openai": "gpt-4o"}
"""The kinds of targets: the first two are translated, the last is passed on."""
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HELLO = [{"role": "user", "content": "Hello"}]
RESULTS = [{"sky": "blue"}, {"hour": 12}]
"""Of the tools, in their order."""
ALIAS, LISTED = "alias", "google-ai-studio/gemini-2.5-flash"


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


def start(log: Path) -> Shared:
    keys = f"{FULL};{TIGHT}=" + "&".join(f"{slug},another-model" for slug in FAMILIES)
    plugin = {"models": [LISTED], "aliases": {ALIAS: "openai/gpt-4o"}}
    return Shared(log, env={"AUTH_KEY": keys}, plugin=plugin)


def no_quota(request: Any) -> Answer:
    """What a provider says whose key has no quota left."""
    return spent(request.slug, request.api, request.model, Spent("rpm", 15, 22))


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
        """The next requests meet keys without quota."""
        self.shared.simulator.script(no_quota, model=self.model, times=times)

    def url(self) -> str:
        """Where an SDK of OpenAI's is pointed to."""
        return url(self.shared)

    def said(self) -> str:
        """What the model says that is asked for nothing else."""
        return f"Hello from the provider simulator, in the role of {self.model}."


def new_target(shared: Shared, slug: str) -> Target:
    return Target(shared, slug, f"{FAMILIES[slug]}-{secrets.token_hex(6)}")


def url(shared: Shared, path: str = "/v1") -> str:
    return f"http://{HOST}:{shared.balancer.port}{path}"


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
