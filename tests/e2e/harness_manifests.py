"""The Kubernetes manifests below envoy/, built as a user builds them and held against published schemas."""

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness
import yaml

MANIFESTS = harness.ROOT / "tests" / "manifests"
Object = dict[str, Any]


def kustomize(folder: str, scratch: Path, *components: str) -> list[Object]:
    """The objects of a folder below envoy/, with the example's secrets; `components` are added to it."""
    for name in ("secret", "istio", "gateway"):
        shutil.copytree(harness.ROOT / "envoy" / name, scratch / name, dirs_exist_ok=True)
    shutil.copy(scratch / "secret" / "secrets.example.env", scratch / "secret" / "secrets.env")
    overlay = scratch / folder
    if components:
        overlay = scratch / "overlay"
        overlay.mkdir(exist_ok=True)
        lines = {"resources": [f"../{folder}"], "components": [f"../{name}" for name in components]}
        (overlay / "kustomization.yaml").write_text(yaml.safe_dump({"kind": "Kustomization", **lines}))
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run([kubectl, "kustomize", overlay], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [entry for entry in yaml.safe_load_all(done.stdout) if entry]


def problems(objects: list[Object]) -> str:
    """What the published schemas have against these objects; empty if nothing."""
    require_schemas()
    # kustomize wraps long base64, which Kubernetes takes and the validator does not.
    objects = json.loads(json.dumps(objects))
    for entry in objects:
        if entry["kind"] == "Secret":
            entry["data"] = {name: "".join(text.split()) for name, text in entry["data"].items()}
    done = subprocess.run(
        ["node", "validate.mjs"], cwd=MANIFESTS, input=json.dumps(objects), capture_output=True, text=True, timeout=120
    )
    assert not done.stderr, done.stderr
    return done.stdout.strip()


@functools.cache
def require_schemas() -> None:
    installed = (MANIFESTS / "node_modules").exists()
    harness.require("the manifests' schemas", None if installed else "they are not installed: make setup, with Node")


def only(objects: list[Object], kind: str, name: str | None = None) -> Object:
    """The one object of this kind and name."""
    [found] = [entry for entry in objects if entry["kind"] == kind and name in (None, entry["metadata"]["name"])]
    return found
