"""The end-to-end tests' ground: a real Envoy with the release module, a simulator behind it, and
what must hold after each test whatever it was about."""

import importlib.util
import json
import os
import re
import secrets
import socket
import ssl
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from harness_client import Client
from harness_d1 import D1

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))

from provider_simulator import Key, Simulator  # noqa: E402

_SPEC = importlib.util.spec_from_file_location("run", ROOT / "envoy" / "run.py")
run = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(run)

CONCURRENCY = 2
GATEWAY = "account/gateway"
Config = dict[str, Any]
RUNNING: list["Balancer"] = []
"""Those that are up now: for the log of a failed test, and for the check after each test."""


@dataclass
class Balancer:
    """An Envoy with one-balance, ready."""

    envoy: Any
    simulator: Simulator
    auth_key: str
    client: Client
    secrets: set[str] = field(default_factory=set)
    """Texts that must stand nowhere; a test may add some."""
    tolerated: str | None = None
    """What in a line of the log makes it no trap although it looks like one."""

    @property
    def port(self) -> int:
        return self.envoy.port

    def stats(self, pattern: str = "") -> dict[str, int]:
        """Counters and gauges whose name has the pattern."""
        lines = (line.partition(": ") for line in self.envoy.get("/stats").splitlines())
        numbers = {name: int(value) for name, _, value in lines if value.isdecimal()}
        return {name: value for name, value in numbers.items() if re.search(pattern, name)}

    def log(self) -> str:
        return self.envoy.log_text()

    def check(self) -> None:
        """What must hold after each test."""
        problems = [] if self.envoy.process.poll() is None else ["Envoy has died"]
        problems += self._crashes() if not problems else []
        places = {"Envoy's log": self.log()}
        if not problems:
            places |= {path: self.envoy.get(path) for path in ("/stats", "/config_dump")}
        # Never the secret itself: this message stands in CI's log.
        problems += [
            f"secret number {number} stands in {place}"
            for place, text in places.items()
            for number, secret in enumerate(sorted(self.secrets))
            if secret in text
        ]
        assert not problems, "\n".join([*problems, "", *self.log().splitlines()[-60:]])

    def _crashes(self) -> list[str]:
        wasm = self.stats(r"^wasm\.")
        # Without these names, zeros would mean nothing.
        assert any("vm_reload" in name for name in wasm), "Envoy's names of the wasm stats have changed"
        bad = re.compile(r"crash|vm_reload|fail")
        found = [f"{name} is {value}" for name, value in wasm.items() if value and bad.search(name)]
        traps = [line for line in self.log().splitlines() if TRAP.search(line)]
        return found + [line for line in traps if not self.tolerated or self.tolerated not in line]


TRAP = re.compile(r"panicked at|\[critical\]|Uncaught RuntimeError|Proxy-Wasm plugin.*(trap|fail)|Function: .* failed")
"""How a trap of the VM shows in Envoy's log."""


def new_auth_key() -> str:
    return "auth-" + secrets.token_hex(12)


def start(
    simulator: Simulator,
    log: Path,
    *,
    env: Mapping[str, str | None] | None = None,
    plugin: Mapping[str, Any] | None = None,
    edit: Callable[[Config], None] | None = None,
    gateway: bool = False,
    trust: trustme.CA | None = None,
    d1: D1 | None = None,
    concurrency: int = CONCURRENCY,
    config: Path | Config = run.YAML,
    module: Path | None = run.MODULE,
) -> Balancer:
    """Starts an Envoy that leads to the simulator with all its keys.

    `env` goes over the defaults (None removes one), `plugin` into the plugin configuration, `edit`
    changes the whole bootstrap in place. `gateway` goes through AI Gateway's layout, `trust` is the
    only authority for the provider's certificates, `d1` the database. Raises `run.Failure`.
    """
    variables: dict[str, str | None] = {
        "PATH": os.environ.get("PATH", ""),
        "AUTH_KEY": new_auth_key(),
        "PROVIDER_KEYS": simulator.provider_keys(),
        "PROVIDER_BASE_URLS": simulator.base_urls(gateway=gateway),
        **({"AI_GATEWAY": GATEWAY} if gateway else {}),
        **(d1.env() if d1 else {}),
        **(env or {}),
    }
    variables = {name: value for name, value in variables.items() if value is not None}
    keys = run.auth_keys(variables.get("AUTH_KEY", ""))
    auth_key = keys[0] if keys else str((plugin or {}).get("auth_key", ""))
    hidden = {*keys, *(key.secret for key in simulator.keys)}
    hidden |= {variables[name] for name in ("AI_GATEWAY_TOKEN", "D1_API_TOKEN") if variables.get(name)}
    assert all(len(secret) >= 8 for secret in hidden), "a secret so short may stand in a log by chance: use 8 or more"
    config = run.load(config) if isinstance(config, Path) else config
    bootstrap = run.configure(config, port=0, admin_port=0, module=module)
    set_plugin(bootstrap, {**(d1.plugin() if d1 else {}), **(plugin or {})})
    if trust:
        trust_only(bootstrap, trust, log.with_suffix(".pem"))
    if d1:
        d1.edit(bootstrap)
    if edit:
        edit(bootstrap)
    envoy = run.Envoy(bootstrap, variables, log, concurrency=concurrency)
    try:
        envoy.start()
    except run.Failure as failure:
        failure.add_note("\n".join(envoy.log_text().splitlines()[-60:]))
        raise
    balancer = Balancer(envoy, simulator, auth_key, Client(envoy.port, auth_key), hidden)
    RUNNING.append(balancer)
    return balancer


def stop(balancer: Balancer) -> None:
    RUNNING.remove(balancer)
    balancer.envoy.stop()


def set_plugin(bootstrap: Config, fields: Mapping[str, Any]) -> None:
    """Adds fields to the plugin configuration of the downstream filter."""
    for node in run.walk(bootstrap):
        if node.get("root_id") == "downstream":
            value = json.loads(node["configuration"]["value"])
            node["configuration"]["value"] = json.dumps({**value, **fields})


def trust_only(bootstrap: Config, ca: trustme.CA, path: Path) -> None:
    """Makes an authority the only one that Envoy trusts."""
    ca.cert_pem.write_to_path(path)
    for node in run.walk(bootstrap):
        if "trusted_ca" in node:
            node["trusted_ca"] = {"filename": str(path)}


def server_context(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    """TLS for a simulator, with a certificate for these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return context


def free_port() -> int:
    """For where a number must be said before it is used."""
    with socket.socket() as probe:
        probe.bind((run.LOOPBACK, 0))
        return probe.getsockname()[1]


def require(what: str, lack: str | None) -> None:
    """Ends a test for which something is lacking: loudly, and in CI as a failure."""
    if lack:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"NOT TESTED: {what}, since {lack}")


def eventually(holds: Callable[[], Any], timeout: float = 20.0) -> Any:
    """Waits until something holds; its value. For what another process does in its own time."""
    deadline = time.monotonic() + timeout
    while not (value := holds()):
        assert time.monotonic() < deadline, f"it did not come true in {timeout} s"
        time.sleep(0.05)
    return value


@dataclass
class Pool:
    """A provider of its own for one test, on a shared Envoy: nobody else touches its keys."""

    slug: str
    keys: Sequence[Key]
    model: str

    @property
    def compat_model(self) -> str:
        return f"{self.slug}/{self.model}"


class Shared:
    """One Envoy for the tests of a module. Tests take pools, or names of models, of their own."""

    SPARE_POOLS, KEYS_PER_POOL = 40, 4

    def __init__(self, log: Path, **options: Any) -> None:
        self.simulator = Simulator().start()
        for slug in ("google-ai-studio", "openai", "anthropic"):
            for _ in range(3):
                self.simulator.key(slug)
        # Unknown slugs with a URL are OpenAI-compatible servers.
        self._spare = [f"spare-{number}" for number in range(1, self.SPARE_POOLS + 1)]
        for slug in self._spare:
            for _ in range(self.KEYS_PER_POOL):
                self.simulator.key(slug)
        self.balancer = start(self.simulator, log, **options)
        self.client = self.balancer.client

    def take_pool(self) -> Pool:
        assert self._spare, "more tests than spare pools: raise Shared.SPARE_POOLS"
        slug = self._spare.pop()
        return Pool(slug, [key for key in self.simulator.keys if key.slug == slug], f"model-{secrets.token_hex(4)}")

    def stop(self) -> None:
        stop(self.balancer)
        self.simulator.stop()
