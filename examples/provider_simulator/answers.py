"""What providers answer, in their own words: OpenAI's, Google's and Anthropic's shapes.

Texts name the model and nothing else: an answer never repeats what stood in the request.
"""

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .keys import Behaviour, Spent

JSON = "application/json"
SSE = "text/event-stream"


@dataclass
class Pause:
    """A wait between two chunks, in seconds."""

    seconds: float


@dataclass
class Answer:
    """An answer, and how it goes wrong on the wire if it is to."""

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    body: Any = b""
    """bytes as they are, str in UTF-8, anything else as JSON."""
    chunks: Any = None
    """Instead of `body`: an iterable of bytes and `Pause`, or a `Stream` that the test steps. Sent
    chunked, each piece by itself."""
    delay: float = 0.0
    """Seconds before the headers."""
    reset: bool = False
    """Reset the connection instead of answering."""
    cut_after: int | None = None
    """Send only so many bytes of the body (its length was announced), then reset."""
    raw: bytes | None = None
    """Instead of everything else: these bytes, then the connection closes."""

    def content_type(self) -> str:
        return SSE if self.chunks is not None else JSON

    def payload(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


def text_of(model: str) -> str:
    return f"Hello from the provider simulator, in the role of {model}."


def _pieces(text: str) -> list[str]:
    words = text.split(" ")
    return [word if index == 0 else " " + word for index, word in enumerate(words)]


def _sse(events: Sequence[Any], newline: str, names: bool = False) -> list[bytes]:
    """Events as Server-Sent Events; `names` adds `event:` lines with each event's type."""
    out = []
    for event in events:
        lines = [f"event: {event['type']}"] if names else []
        lines.append("data: " + (event if isinstance(event, str) else json.dumps(event)))
        out.append((newline.join(lines) + newline * 2).encode())
    return out


def openai_chat(model: str, request: dict, newline: str = "\n") -> Answer:
    text, ident = text_of(model), "chatcmpl-" + uuid.uuid4().hex[:24]
    head = {"id": ident, "created": int(time.time()), "model": model, "system_fingerprint": "fp_simulator"}
    usage = {"prompt_tokens": 9, "completion_tokens": len(_pieces(text)), "total_tokens": 9 + len(_pieces(text))}
    if not request.get("stream"):
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return Answer(body={**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    head["object"] = "chat.completion.chunk"
    deltas: list[dict] = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in _pieces(text)), {}]
    events: list[Any] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}]}
        for delta in deltas
    ]
    if (request.get("stream_options") or {}).get("include_usage"):
        events.append({**head, "choices": [], "usage": usage})
    return Answer(chunks=_sse([*events, "[DONE]"], newline))


def openai_embeddings(model: str, request: dict) -> Answer:
    inputs = request.get("input", "")
    count = len(inputs) if isinstance(inputs, list) else 1
    data = [{"object": "embedding", "index": index, "embedding": [0.01, -0.02, 0.03]} for index in range(count)]
    usage = {"prompt_tokens": 2 * count, "total_tokens": 2 * count}
    return Answer(body={"object": "list", "data": data, "model": model, "usage": usage})


def openai_models(models: Sequence[str]) -> Answer:
    data = [{"id": model, "object": "model", "created": 1_735_689_600, "owned_by": "simulator"} for model in models]
    return Answer(body={"object": "list", "data": data})


def gemini_generate(model: str, streamed: bool, sse: bool, newline: str = "\r\n") -> Answer:
    text = text_of(model)
    pieces = _pieces(text) if streamed else [text]
    head = {"modelVersion": model, "responseId": uuid.uuid4().hex[:22]}
    usage = {"promptTokenCount": 9, "candidatesTokenCount": len(_pieces(text))}
    usage["totalTokenCount"] = sum(usage.values())
    events = []
    for index, piece in enumerate(pieces):
        candidate = {"content": {"parts": [{"text": piece}], "role": "model"}, "index": 0}
        if index == len(pieces) - 1:
            candidate["finishReason"] = "STOP"
        events.append({"candidates": [candidate], "usageMetadata": usage, **head})
    if not streamed:
        return Answer(body=events[0])
    if sse:
        return Answer(chunks=_sse(events, newline))
    array = [("[" if index == 0 else ",\r\n") + json.dumps(event) for index, event in enumerate(events)]
    return Answer(headers=[("content-type", JSON)], chunks=[part.encode() for part in [*array, "]"]])


def gemini_other(verb: str, request: dict) -> Answer | None:
    values = {"values": [0.01, -0.02, 0.03]}
    bodies = {
        "countTokens": {"totalTokens": 9, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}]},
        "embedContent": {"embedding": values},
        "batchEmbedContents": {"embeddings": [values for _ in request.get("requests") or [None]]},
    }
    return Answer(body=bodies[verb]) if verb in bodies else None


def gemini_models(models: Sequence[str]) -> Answer:
    methods = ["generateContent", "countTokens"]
    entries = [{"name": f"models/{model}", "supportedGenerationMethods": methods} for model in models]
    return Answer(body={"models": entries})


def anthropic_messages(model: str, request: dict, newline: str = "\n") -> Answer:
    text = text_of(model)
    message = {
        "id": "msg_" + uuid.uuid4().hex[:24],
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": len(_pieces(text))},
    }
    if not request.get("stream"):
        return Answer(body=message)
    begin = {**message, "content": [], "stop_reason": None, "usage": {"input_tokens": 9, "output_tokens": 1}}
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
        for piece in _pieces(text)
    ]
    events = [
        {"type": "message_start", "message": begin},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": len(_pieces(text))},
        },
        {"type": "message_stop"},
    ]
    return Answer(chunks=_sse(events, newline, names=True))


# Refusals. `api` is the shape that the client's path asks for: "openai", "gemini" or "anthropic".


def invalid(slug: str, api: str) -> Answer:
    if slug == "google-ai-studio":
        message = "API key not valid. Please pass a valid API key."
        info = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
            "metadata": {"service": "generativelanguage.googleapis.com"},
        }
        return _google(api, 400, "INVALID_ARGUMENT", message, [info])
    if api == "anthropic":
        return _anthropic(401, "authentication_error", "invalid x-api-key")
    return _openai(401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided.")


def google_two_credentials(api: str) -> Answer:
    message = "Multiple authentication credentials received. Please pass only one."
    return _google(api, 400, "INVALID_ARGUMENT", message, [])


def spent(slug: str, api: str, model: str, what: Spent, stated: bool = True) -> Answer:
    if slug == "google-ai-studio":
        return _google_quota(api, model, what, stated)
    wait = [("retry-after", str(max(1, round(what.wait))))]
    if api == "anthropic":
        answer = _anthropic(429, "rate_limit_error", "This request would exceed your account's rate limit.")
        return Answer(answer.status, wait, answer.body)
    kind = "tokens" if what.limit == "tpm" else "requests"
    if stated:
        reset = f"{what.wait:.3f}s"
        wait += [(f"x-ratelimit-limit-{kind}", str(what.value)), (f"x-ratelimit-remaining-{kind}", "0")]
        wait += [(f"x-ratelimit-reset-{kind}", reset)]
    period = {"rpm": "requests per min (RPM)", "tpm": "tokens per min (TPM)", "rpd": "requests per day (RPD)"}
    limit = f": Limit {what.value}" if stated else ""
    message = f"Rate limit reached for {model} on {period[what.limit]}{limit}. Please try again in {what.wait:.2f}s."
    return _openai(429, kind, "rate_limit_exceeded", message, wait)


def spent_for_good(behaviour: Behaviour, slug: str, api: str, model: str) -> Answer:
    """The refusal of a key whose quota is spent whatever is asked of it."""
    if behaviour is Behaviour.DAILY_SPENT:
        # Google states a short delay beside a daily quota, too.
        return spent(slug, api, model, Spent("rpd", 50, 22 if slug == "google-ai-studio" else 36_000))
    return spent(slug, api, model, Spent("rpm", 15, 22))


def gateway_unauthorized() -> Answer:
    error = {"name": "AiGatewayError", "httpCode": 401, "internalCode": 2009, "message": "Unauthorized"}
    return Answer(401, body={**error, "description": "The AI Gateway token is missing or wrong"})


def not_found(api: str) -> Answer:
    if api == "gemini":
        return _google(api, 404, "NOT_FOUND", "The requested entity was not found.", [])
    if api == "anthropic":
        return _anthropic(404, "not_found_error", "Not found")
    return _openai(404, "invalid_request_error", "unknown_url", "Unknown request URL.")


_GOOGLE_QUOTAS = {
    "rpm": ("generate_content_free_tier_requests", "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"),
    "rpd": ("generate_content_free_tier_requests", "GenerateRequestsPerDayPerProjectPerModel-FreeTier"),
    "tpm": (
        "generate_content_free_tier_input_token_count",
        "GenerateContentInputTokensPerModelPerMinute-FreeTier",
    ),
}


def _google_quota(api: str, model: str, what: Spent, stated: bool) -> Answer:
    metric, quota_id = _GOOGLE_QUOTAS[what.limit]
    violation = {
        "quotaMetric": f"generativelanguage.googleapis.com/{metric}",
        "quotaId": quota_id,
        "quotaDimensions": {"location": "global", "model": model},
    }
    if stated:
        violation["quotaValue"] = str(what.value)
    details = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]},
        {
            "@type": "type.googleapis.com/google.rpc.Help",
            "links": [
                {
                    "description": "Learn more about Gemini API quotas",
                    "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
                }
            ],
        },
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{round(what.wait, 3):g}s"},
    ]
    message = "You exceeded your current quota, please check your plan and billing details."
    return _google(api, 429, "RESOURCE_EXHAUSTED", message, details)


def _google(api: str, code: int, status: str, message: str, details: list) -> Answer:
    error = {"error": {"code": code, "message": message, "status": status}}
    if details:
        error["error"]["details"] = details
    # Google's OpenAI-compatible endpoint wraps its errors in an array.
    return Answer(code, body=[error] if api == "openai" else error)


def _openai(status: int, kind: str, code: str, message: str, headers: Sequence[tuple[str, str]] = ()) -> Answer:
    return Answer(status, headers, {"error": {"message": message, "type": kind, "param": None, "code": code}})


def _anthropic(status: int, kind: str, message: str) -> Answer:
    return Answer(status, body={"type": "error", "error": {"type": kind, "message": message}})
