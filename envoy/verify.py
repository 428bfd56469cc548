"""`make verify URL=... AUTH_KEY=...`: asks a running deployment what its users will ask.

A line for each check, with a hint where it fails; exit status 1 if one does. It sends about eight
short requests to the provider of MODEL (`provider/model`; else the first that `/v1/models` lists, else
the first usual one that a key is there for). Nothing that it prints holds the AUTH_KEY or an answer's text.
Standard library only, so it also runs alone: `URL=... AUTH_KEY=... python3 verify.py`.
"""

import http.client
import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

USUAL_MODELS = ["google-ai-studio/gemini-2.5-flash", "openai/gpt-4o-mini", "anthropic/claude-haiku-4-5"]
ROTATIONS = 5
TIMEOUT_SECONDS = 60
HINTS = {
    "missing_auth_key": "the AUTH_KEY did not arrive; does something before Envoy take the header away?",
    "invalid_auth_key": "this AUTH_KEY is none of the deployment's; a changed one counts after a restart",
    "expired_auth_key": "this AUTH_KEY has expired: key(unixSeconds) in the deployment's AUTH_KEY",
    "provider_not_allowed": "this AUTH_KEY may not use the provider; give MODEL=provider/model that it may",
    "model_not_allowed": "this AUTH_KEY may not use the model; give MODEL=provider/model that it may",
    "client_rate_limited": "the limit for this AUTH_KEY is used up (local_ratelimit in envoy.yaml)",
    "invalid_model": "MODEL is provider/model",
    "invalid_path": "the provider's own API needs more in its path than this check knows (a deployment, a location)",
    "no_openai_api": "this provider has no API of OpenAI's format; the native one is all there is",
    "method_not_allowed": "something before Envoy has changed the request's method",
    "no_keys": "the pool has no key for this provider: PROVIDER_KEYS, or the rows of D1",
    "pool_not_loaded": "D1 has not been read yet; if this lasts, see wasmcustom.one_balance.d1.* and Envoy's log",
    "all_keys_blocked": "the provider refused every key; replace them",
    "provider_keys_refused": "the provider refused every key that was tried; replace them",
    "all_keys_cooling": "every key is over its quota for this model; wait, or add keys",
    "all_keys_tried": "no key did better; see Envoy's log for what the provider said of each",
    "provider_resting": "the provider limits the address that Envoy asks from; wait, or ask from another",
    "provider_error_withheld": "the provider's error has the key in it; see the key's line in Envoy's log",
    "gateway_refused": "AI Gateway refuses: is it there (AI_GATEWAY), and is AI_GATEWAY_TOKEN right?",
    "provider_unreachable": "Envoy does not reach the provider: name resolution, egress rules, certificates",
    "provider_timeout": "the provider gave no answer in time",
    "provider_answer_unreadable": "the provider's answer is not its API's, or larger than Envoy buffers of one",
    "unknown_provider": "no such provider; MODEL is provider/model",
    "unknown_path": "is URL the deployment's root, without /v1?",
    "no_route": "Envoy has no route: is the virtual host's domain *?",
    "not_configured": "the filter has no valid configuration; see Envoy's log",
    "envoy_error": "Envoy could not serve it; the access log's `flags` say why",
}
"""By the answer's `code`; docs/behaviour.md has them all."""
ELSEWHERE = "something before Envoy sends elsewhere; is URL right (https://, the deployment's root)?"
STATUS_HINTS = {
    301: ELSEWHERE,
    302: ELSEWHERE,
    307: ELSEWHERE,
    308: ELSEWHERE,
    401: "something before Envoy wants a credential of its own, or the provider refuses the key",
    403: "something before Envoy, or the provider, refuses",
    404: "if the provider says so, the model's name is wrong: MODEL=provider/model",
    426: "a proxy before Envoy speaks HTTP/1.0; nginx: proxy_http_version 1.1",
    429: "the provider's limit: wait, or add keys",
    502: "Envoy does not reach the provider, or something before Envoy does not reach Envoy",
    503: "the filter does not run; see Envoy's log",
    504: "something before Envoy did not wait long enough",
}


class Failed(Exception):
    """A check's outcome: what was seen, and what to look at."""

    def __init__(self, seen: str, hint: str = "") -> None:
        super().__init__(seen)
        self.hint = hint


class Unreachable(Failed):
    """There was no answer at all."""


class AsItComes(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would make a GET of a POST, and carry the AUTH_KEY to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


OPENER = urllib.request.build_opener(AsItComes)


@dataclass
class Answer:
    status: int
    headers: Any
    lines: list[tuple[float, bytes]] = field(default_factory=list)
    """The body's lines, each with the second in which it came."""

    @property
    def body(self) -> bytes:
        return b"".join(line for _, line in self.lines)

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            raise Failed(f"{self.status}, not JSON", "something else than one-balance answers there") from None

    def code(self) -> str:
        """The stable name of what is wrong, in any of the three shapes; empty if there is none."""
        try:
            error = json.loads(self.body)["error"]
            return error["details"][0]["reason"].lower() if "details" in error else str(error["code"])
        except (ValueError, LookupError, TypeError, AttributeError):
            return ""

    def expect(self, status: int) -> "Answer":
        if self.status != status:
            code = self.code()
            known = code if code in HINTS else ""
            hint = HINTS.get(code) or STATUS_HINTS.get(self.status, "see the access log of Envoy")
            raise Failed(f"{self.status} {known}".strip(), hint)
        return self


class Deployment:
    """What is asked."""

    def __init__(self, url: str, auth_key: str) -> None:
        self.url, self.auth_key = url.rstrip("/"), auth_key

    def ask(self, path: str, body: Any = None, auth_key: str | None = None, header: str = "authorization") -> Answer:
        key = self.auth_key if auth_key is None else auth_key
        headers = {"content-type": "application/json", "user-agent": "one-balance-verify"}
        if key:
            headers[header] = f"Bearer {key}" if header == "authorization" else key
        if path.startswith("/api/anthropic/"):
            headers["anthropic-version"] = "2023-06-01"
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(self.url + path, data, headers)
            try:
                answer = OPENER.open(request, timeout=TIMEOUT_SECONDS)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                lines = [(time.monotonic(), line) for line in answer]
                return Answer(answer.status, answer.headers, lines)
        except (OSError, ValueError, http.client.HTTPException) as error:
            # What is no HTTP comes with its first bytes; they are not for printing.
            odd = isinstance(error, http.client.HTTPException)
            reason = type(error).__name__ if odd else str(getattr(error, "reason", error))
            hint = "is it running, is URL right (http:// or https://, port), is the certificate trusted?"
            raise Unreachable(reason, hint) from None


def chat(model: str, **more: Any) -> dict[str, Any]:
    # Not the same conversation twice, for `selection: sticky`.
    content = f"Answer with one word. ({secrets.token_hex(4)})"
    return {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": content}], **more}


def native(model: str) -> tuple[str, str, dict[str, Any]]:
    """The provider's own way to ask: path, header of the key, body."""
    slug, _, name = model.partition("/")
    if slug == "google-ai-studio":
        body = {"contents": [{"role": "user", "parts": [{"text": "Answer with one word."}]}]}
        return f"/api/{slug}/v1beta/models/{name}:generateContent", "x-goog-api-key", body
    if slug == "anthropic":
        return f"/api/{slug}/v1/messages", "x-api-key", chat(name)
    version = "/v1" if slug == "mistral" else ""
    return f"/api/{slug}{version}/chat/completions", "authorization", chat(name)


# The checks: each returns what it saw, or raises Failed.


def health(deployment: Deployment, _: str) -> str:
    deployment.ask("/healthz", auth_key="").expect(200)
    return "200"


def no_key(deployment: Deployment, model: str) -> str:
    status = deployment.ask("/v1/chat/completions", chat(model), auth_key="").status
    if status != 401:
        raise Failed(f"{status} without any key", "whoever finds this URL can use the pool" if status == 200 else "")
    return "401"


def wrong_key(deployment: Deployment, model: str) -> str:
    status = deployment.ask("/v1/chat/completions", chat(model), auth_key=secrets.token_hex(16)).status
    if status != 401:
        raise Failed(f"{status} with a random key", "whoever finds this URL can use the pool" if status == 200 else "")
    return "401"


def right_key(deployment: Deployment, _: str) -> str:
    listed = deployment.ask("/v1/models").expect(200).json()
    return f"200, {len(listed.get('data', []))} models listed"


def openai_format(deployment: Deployment, model: str) -> str:
    answer = deployment.ask("/v1/chat/completions", chat(model)).expect(200)
    if not answer.json().get("choices"):
        raise Failed("200 without choices", "something else than one-balance answers there")
    return f"200, {answer.headers.get('x-one-balance-attempts', '?')} attempts"


def native_format(deployment: Deployment, model: str) -> str:
    path, header, body = native(model)
    deployment.ask(path, body, header=header).expect(200).json()
    return "200"


def streaming(deployment: Deployment, model: str) -> str:
    answer = deployment.ask("/v1/chat/completions", chat(model, stream=True)).expect(200)
    events = [(at, line[5:].strip()) for at, line in answer.lines if line.startswith(b"data:")]
    if len(events) < 2 or events[-1][1] != b"[DONE]":
        raise Failed(f"{len(events)} events, the last not [DONE]", "does something before Envoy buffer or cut answers?")
    return f"{len(events)} events over {1000 * (events[-1][0] - events[0][0]):.0f} ms"


def rotation(deployment: Deployment, model: str) -> str:
    answers = [deployment.ask("/v1/chat/completions", chat(model)).expect(200) for _ in range(ROTATIONS)]
    ids = {answer.headers.get("x-one-balance-key-id") for answer in answers} - {None}
    if not ids:
        raise Failed("no x-one-balance-key-id", "something before Envoy removes the header, or it is not one-balance")
    if len(ids) == 1:
        raise Failed(
            "one key in all answers", "the pool has one key for this provider, or the others rest or are blocked"
        )
    return f"{len(ids)} keys in {ROTATIONS} answers"


CHECKS: list[tuple[str, Callable[[Deployment, str], str]]] = [
    ("health", health),
    ("no key refused", no_key),
    ("wrong key refused", wrong_key),
    ("AUTH_KEY accepted", right_key),
    ("OpenAI format", openai_format),
    ("native format", native_format),
    ("streaming", streaming),
    ("keys rotate", rotation),
]


def choose_model(deployment: Deployment) -> str:
    """The first that is listed, else the first usual one for which the pool has keys."""
    try:
        listed = deployment.ask("/v1/models").expect(200).json().get("data", [])
        names = [entry["id"] for entry in listed if "/" in entry.get("id", "")]
        for name in names or USUAL_MODELS:
            code = "" if names else deployment.ask("/v1/chat/completions", chat(name)).code()
            if code not in ("no_keys", "provider_not_allowed", "model_not_allowed"):
                return name
    except Failed:
        pass  # The checks will say why.
    return USUAL_MODELS[0]


def report(name: str, failed: Failed) -> list[str]:
    return [f"FAIL  {name:<18} {failed}", *([f"      {failed.hint}"] if failed.hint else [])]


def main(env: dict[str, str]) -> int:
    url, auth_key = env.get("URL", "").strip(), env.get("AUTH_KEY", "").strip()
    if not url.startswith(("http://", "https://")) or not auth_key:
        print("verify: say what to ask, and with which key: make verify URL=https://... AUTH_KEY=...", file=sys.stderr)
        return 2
    model = env.get("MODEL", "").strip()
    if model and not all(model.partition("/")):
        print(f"verify: MODEL is provider/model, such as {USUAL_MODELS[0]}", file=sys.stderr)
        return 2
    deployment = Deployment(url, auth_key)
    try:
        health(deployment, "")
    except Unreachable as failed:
        # Once: all the others would say the same.
        print("\n".join(report("health", failed)).replace(auth_key, "***"))
        return 1
    except Failed:
        pass  # The check will say so.
    model = model or choose_model(deployment)
    print(f"{urllib.parse.urlsplit(url).netloc.rpartition('@')[2]}, model {model}\n")
    failures = 0
    for name, check in CHECKS:
        try:
            lines = [f"pass  {name:<18} {check(deployment, model)}"]
        except Failed as failed:
            failures += 1
            lines = report(name, failed)
        print("\n".join(lines).replace(auth_key, "***"), flush=True)
    print(f"\n{len(CHECKS) - failures} passed, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(dict(os.environ)))
