"""Real Node SDKs as clients: tests/sdk/checks.mjs against each kind of target."""

import json
import os
import secrets
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import Shared
from harness_client import HOST
from provider_simulator import Answer
from provider_simulator.answers import spent
from provider_simulator.keys import Spent

FOLDER = Path(__file__).resolve().parents[1] / "sdk"
FULL, TIGHT = "auth-full-" + secrets.token_hex(8), "auth-tight-" + secrets.token_hex(8)
FAMILIES = {"google-ai-studio": "gemini-3-flash", "anthropic": "claude-opus-4-6", "openai": "gpt-4o"}
SCENARIOS = ("chat", "stream", "tools", "streamed tools", "image", "schema", "errors", "rotation")
CHECKS = [f"{sdk} {scenario}" for sdk in ("openai", "ai") for scenario in SCENARIOS]


def missing() -> str | None:
    """Why there can be no Node SDKs here."""
    if not shutil.which("node"):
        return "Node is not installed"
    return None if (FOLDER / "node_modules" / "openai").exists() else "tests/sdk is not installed: make setup"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    why = missing()
    if why and os.environ.get("CI"):
        pytest.fail(f"CI must run the Node SDKs, but {why}")
    if why:
        pytest.skip(f"NOT TESTED: Node SDKs, since {why}")
    keys = f"{FULL};{TIGHT}=" + "&".join(f"{slug},another-model" for slug in FAMILIES)
    shared = Shared(tmp_path_factory.mktemp("node") / "envoy.log", env={"AUTH_KEY": keys})
    yield shared
    shared.stop()


def no_quota(request):
    return spent(request.slug, request.api, request.model, Spent("rpm", 15, 22))


@pytest.mark.parametrize("slug", FAMILIES)
def test_checks(shared, slug):
    model = f"{FAMILIES[slug]}-{secrets.token_hex(6)}"
    limited, refused, rotating = (f"{model}-{what}" for what in ("limited", "refused", "rotating"))
    shared.simulator.script(no_quota, model=limited, times=None)
    shared.simulator.script(Answer(400, body={"error": {"message": "no such field"}}), model=refused, times=None)
    for number in (1, 2):
        shared.simulator.script(no_quota, model=f"{rotating}-{number}", times=2)
    names = {"MODEL": model, "LIMITED_MODEL": limited, "REFUSED_MODEL": refused, "ROTATING_MODEL": rotating}
    environment = {
        "PATH": os.environ["PATH"],
        "BASE_URL": f"http://{HOST}:{shared.balancer.port}/v1",
        "AUTH_KEY": FULL,
        "TIGHT_KEY": TIGHT,
        "UNSERVED_MODEL": "groq/llama",
        **{name: f"{slug}/{value}" for name, value in names.items()},
    }
    done = subprocess.run(
        ["node", "checks.mjs"], cwd=FOLDER, env=environment, stdout=subprocess.PIPE, timeout=60, check=True
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["check"] for result in results] == CHECKS
    failures = [f"{result['check']}: {result['error']}" for result in results if result["error"]]
    assert not failures, "\n\n".join(failures)
    images = [request.body for request in shared.simulator.requests if request.model == model]
    assert sum(b"iVBORw0KGgo" in body for body in images) == 2, "the image came with each SDK"
