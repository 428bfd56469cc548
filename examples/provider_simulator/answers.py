"""What providers answer, in their own words: OpenAI's, Google's and Anthropic's shapes."""

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import model as models
from .keys import Behaviour, Spent
from .model import Said

JSON = "application/json"
SSE = "text/event-stream"
SIGNATURE = "c2ltdWxhdGVkIHRob3VnaHQ="
"""What Gemini signs its calls with, and wants back."""


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


def _tokens(said: Said) -> int:
    return max(1, len(_pieces(said.text + json.dumps([list(call) for call in said.calls]))))


def openai_chat(model: str, request: dict, newline: str = "\n") -> Answer:
    said, ident = models.openai(request).answer(model), "chatcmpl-" + uuid.uuid4().hex[:24]
    head = {"id": ident, "created": int(time.time()), "model": model, "system_fingerprint": "fp_simulator"}
    usage = {"prompt_tokens": 9, "completion_tokens": _tokens(said), "total_tokens": 9 + _tokens(said)}
    reason = "tool_calls" if said.calls else "stop"
    calls = [
        {"id": "call_" + uuid.uuid4().hex[:24], "type": "function", "function": {"name": name, "arguments": arguments}}
        for name, arguments in ((name, json.dumps(arguments)) for name, arguments in said.calls)
    ]
    if not request.get("stream"):
        message: dict = {"role": "assistant", "content": said.text or None, "refusal": None}
        message |= {"tool_calls": calls} if calls else {}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        return Answer(body={**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    head["object"] = "chat.completion.chunk"
    deltas = [{"role": "assistant", "content": None if calls else ""}]
    deltas += [{"content": piece} for piece in _pieces(said.text)] if said.text else []
    for index, call in enumerate(calls):
        function = call["function"]
        deltas.append({"tool_calls": [{"index": index, **call, "function": {**function, "arguments": ""}}]})
        pieces = ({"index": index, "function": {"arguments": piece}} for piece in _pieces(function["arguments"]))
        deltas += [{"tool_calls": [piece]} for piece in pieces]
    events: list[Any] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else reason}]}
        for delta in [*deltas, {}]
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


def gemini_generate(model: str, request: dict, streamed: bool, sse: bool, newline: str = "\r\n") -> Answer:
    said = models.gemini(request).answer(model)
    parts: list[dict] = [{"functionCall": {"name": name, "args": arguments}} for name, arguments in said.calls]
    if parts:
        # Only the first of parallel calls is signed.
        parts[0]["thoughtSignature"] = SIGNATURE
    texts = _pieces(said.text) if streamed else [said.text]
    groups = [parts] if parts else [[{"text": text}] for text in texts]
    head = {"modelVersion": model, "responseId": uuid.uuid4().hex[:22]}
    usage = {"promptTokenCount": 9, "candidatesTokenCount": _tokens(said)}
    usage["totalTokenCount"] = sum(usage.values())
    events = []
    for index, group in enumerate(groups):
        candidate = {"content": {"parts": group, "role": "model"}, "index": 0}
        if index == len(groups) - 1:
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
    said = models.anthropic(request).answer(model)
    blocks: list[dict] = [
        {"type": "tool_use", "id": "toolu_" + uuid.uuid4().hex[:24], "name": name, "input": arguments}
        for name, arguments in said.calls
    ] or [{"type": "text", "text": said.text}]
    stop = {"stop_reason": "tool_use" if said.calls else "end_turn", "stop_sequence": None}
    message = {"id": "msg_" + uuid.uuid4().hex[:24], "type": "message", "role": "assistant", "model": model}
    if not request.get("stream"):
        usage = {"input_tokens": 9, "output_tokens": _tokens(said)}
        return Answer(body={**message, "content": blocks, **stop, "usage": usage})
    begin = {"content": [], "stop_reason": None, "stop_sequence": None}
    begin["usage"] = {"input_tokens": 9, "output_tokens": 1}
    events = [
        {"type": "message_start", "message": {**message, **begin}},
        {"type": "ping"},
        *(event for index, block in enumerate(blocks) for event in _anthropic_block(index, block)),
        {"type": "message_delta", "delta": stop, "usage": {"output_tokens": _tokens(said)}},
        {"type": "message_stop"},
    ]
    return Answer(chunks=_sse(events, newline, names=True))


def _anthropic_block(index: int, block: dict) -> list[dict]:
    if block["type"] == "text":
        empty = {**block, "text": ""}
        deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
    else:
        empty = {**block, "input": {}}
        pieces = ["", *_pieces(json.dumps(block["input"]))]
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return [
        {"type": "content_block_start", "index": index, "content_block": empty},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


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


def revoked(slug: str, api: str) -> Answer:
    if slug == "google-ai-studio":
        return _google(api, 400, "INVALID_ARGUMENT", "API key expired. Please renew the API key.", [])
    if api == "anthropic":
        return _anthropic(403, "permission_error", "This organization has been disabled.")
    return _openai(401, "invalid_request_error", "account_deactivated", "The account was deactivated.")


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
