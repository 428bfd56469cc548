"""Real Node SDKs as clients: tests/sdk/checks.mjs against each kind of target."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import harness
import pytest
from harness_sdks import FAMILIES, FULL, TIGHT, new_target, no_quota, url
from provider_simulator import Answer

FOLDER = Path(__file__).resolve().parents[1] / "sdk"
SCENARIOS = ("chat", "stream", "tools", "streamed tools", "image", "schema", "errors", "rotation")
CHECKS = [f"{sdk} {scenario}" for sdk in ("openai", "ai") for scenario in SCENARIOS]


def missing() -> str | None:
    """Why there can be no Node SDKs here."""
    if not shutil.which("node"):
        return "Node is not installed"
    return None if (FOLDER / "node_modules" / "openai").exists() else "tests/sdk is not installed: make setup"


@pytest.fixture(scope="module")
def installed() -> None:
    harness.require("Node SDKs", missing())


@pytest.mark.parametrize("slug", FAMILIES)
def test_checks(installed, sdks, slug):
    model = new_target(sdks, slug).model
    limited, refused, rotating = (f"{model}-{what}" for what in ("limited", "refused", "rotating"))
    sdks.simulator.script(no_quota, model=limited, times=None)
    sdks.simulator.script(Answer(400, body={"error": {"message": "no such field"}}), model=refused, times=None)
    for number in (1, 2):
        sdks.simulator.script(no_quota, model=f"{rotating}-{number}", times=2)
    names = {"MODEL": model, "LIMITED_MODEL": limited, "REFUSED_MODEL": refused, "ROTATING_MODEL": rotating}
    environment = {
        "PATH": os.environ["PATH"],
        "BASE_URL": url(sdks),
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
    images = [request.body for request in sdks.simulator.requests if request.model == model]
    assert sum(b"iVBORw0KGgo" in body for body in images) == 2, "the image came with each SDK"
