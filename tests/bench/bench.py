"""`make bench`: what the filter costs, as ratios against bare Envoy in the same run.

Both Envoys run the shipped envoy.yaml on one worker; the bare one has the filter's two places taken
out, and is asked for the provider's own path. `wrk` asks them in turns, several rounds of a few
seconds each, so that whatever else the machine does meets both. Of the rounds' ratios the median
counts. CPU is Envoy's own, from the scheduler's accounting in /proc (Linux); the load generator
and the provider share the other core and are not counted.

Absolute figures say nothing on a shared machine, so none are printed but those that are goals.

Environment: QUICK=1 (fewer and shorter rounds), ONLY=word (the works whose name has it),
LEVEL=log level. Results as JSON: target/bench/results.json.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "envoy"))

from run import Envoy, configure, load, walk  # noqa: E402

BUILT = ROOT / "target" / "bench"
FLOOR = BUILT / "wasm32-wasip1" / "release" / "bench_floor.wasm"
WRK = ROOT / ".cache" / "wrk"
AUTH_KEY = "bench-auth-key"
QUICK = os.environ.get("QUICK", "") not in ("", "0")
ROUNDS = 2 if QUICK else 7
WARM_UP = 0 if QUICK else 1
"""Rounds before those that count."""
SECONDS = 1 if QUICK else 3
SOAK_REQUESTS = 20_000 if QUICK else 1_000_000


@dataclass(frozen=True)
class Work:
    """What is asked, of the filter and of bare Envoy, and how much more it may cost."""

    name: str
    path: str
    bare_path: str
    body: bytes
    cpu: float | None
    throughput: float | None = None
    bare_requests: int = 1
    """One request here stands against so many bare ones."""


def chat(model: str, size: int, **more: Any) -> bytes:
    """A chat of about so many bytes, with text as people write it: some of it must be escaped."""
    turn = 'He said: "There are three ways to do it.\\n" Then he left, and nobody asked why; the café was closed. '
    content = (turn * (size // len(turn) + 1))[: max(size - 150, 40)]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    return json.dumps({"model": model, "messages": messages, "max_tokens": 100, **more}).encode()


def gemini(size: int) -> bytes:
    content = ("There are three ways to do it. " * (size // 31 + 1))[: size - 90]
    return json.dumps({"contents": [{"role": "user", "parts": [{"text": content}]}]}).encode()


GENERATE = "v1beta/models/gemini-2.0-flash:generateContent"
CHAT = "/v1/chat/completions"
WORKS = [
    Work("native, 1 KB", f"/api/google-ai-studio/{GENERATE}", f"/{GENERATE}", gemini(1024), 1.20, 0.87),
    Work("compat, 1 KB", CHAT, CHAT, chat("plain/m", 1024), 1.30, 0.82),
    Work("compat, 64 KB", CHAT, CHAT, chat("plain/m", 65_536), 1.35, 0.80),
    Work("compat, 1 MB", CHAT, CHAT, chat("plain/m", 1_048_576), 1.40, 0.75),
    Work("SSE, 200 chunks", CHAT, f"/sse{CHAT}", chat("sse/m", 1024, stream=True), 1.15, 0.90),
    Work("OpenAI to Gemini", CHAT, f"/{GENERATE}", chat("google-ai-studio/gemini-2.0-flash", 1024), 1.60, 0.70),
    Work("3 attempts", CHAT, CHAT, chat("third/m", 1024), 1.15, None, 3),
]
LATENCY_GOAL = 60
"""Microseconds added at the median, one request at a time."""
KEYS_GOAL = 1.03
MEMORY_GOAL = 40
"""MB over bare Envoy, with 10,000 keys and two workers."""
START_GOAL = 1.5
"""Seconds from start to the first answer."""


def keys(provider: str, count: int) -> str:
    return f"{provider}=" + ",".join(f"sk-bench-{provider}-{number:020}" for number in range(count))


def settings(upstream: int, count: int) -> dict[str, Any]:
    base = f"http://127.0.0.1:{upstream}"
    return {
        "auth_key": AUTH_KEY,
        "provider_keys": ";".join(keys(name, count) for name in ("plain", "sse", "third", "google-ai-studio")),
        "provider_base_urls": f"plain={base}/v1;sse={base}/sse/v1;third={base}/third/v1;google-ai-studio={base}",
    }


def without_filter(config: dict[str, Any]) -> dict[str, Any]:
    """The same Envoy without the filter in its two places."""
    for node in walk(config):
        if "http_filters" in node:
            kept = [entry for entry in node["http_filters"] if "wasm" not in entry["typed_config"]["@type"].lower()]
            node["http_filters"] = kept
    return config


def start(
    stack: contextlib.ExitStack,
    filtered: dict[str, Any] | None,
    concurrency: int = 1,
    floor: str = "",
) -> Envoy:
    """An Envoy with the filter, without one, or with one that decides nothing (floor/src/lib.rs)."""
    config = configure(load(), port=0, admin_port=0, **({"module": FLOOR} if floor else {}))
    for node in walk(config):
        if node.get("root_id") == "downstream":
            node["configuration"]["value"] = floor or json.dumps(filtered)
    if filtered is None and not floor:
        config = without_filter(config)
    log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))) / "envoy.log"
    envoy = Envoy(config, os.environ, log, concurrency=concurrency, access_log=subprocess.DEVNULL)
    if filtered is None:
        envoy._serves = lambda: True  # /healthz is the filter's own
    stack.callback(envoy.stop)
    return envoy.start()


@contextlib.contextmanager
def provider() -> Iterator[int]:
    """The provider; its port."""
    process = subprocess.Popen([BUILT / "release" / "bench-upstream"], stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """CPU that a process has used, over all threads."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def resident_mb(pid: int) -> float:
    line = next(row for row in Path(f"/proc/{pid}/status").read_text().splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def wrk(
    port: int, host: str, path: str, body: Path, connections: int, seconds: int, numbered: bool = False
) -> dict[str, Any]:
    libraries = next(iter((WRK / "usr" / "lib").glob("*-linux-gnu")), Path())
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(libraries),
        "BENCH_AUTH_KEY": AUTH_KEY,
        "BENCH_HOST": host,
        "BENCH_BODY": str(body),
        "BENCH_NUMBERED": str(int(numbered)),
    }
    command = [WRK / "usr" / "bin" / "wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "20"]
    command += ["-s", Path(__file__).with_name("wrk.lua"), f"http://127.0.0.1:{port}{path}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.rpartition("RESULT ")[2])
    if result["errors"] or not result["requests"]:
        raise SystemExit(f"bench: {path} had {result['errors']} errors of {result['requests']} requests")
    return result


class Side:
    """One of the Envoys that are compared."""

    def __init__(self, envoy: Envoy, host: str) -> None:
        self.envoy, self.host = envoy, host

    def ask(
        self, path: str, body: Path, connections: int = 64, seconds: int = SECONDS, numbered: bool = False
    ) -> dict[str, float]:
        before = cpu_seconds(self.envoy.process.pid)
        result = wrk(self.envoy.port, self.host, path, body, connections, seconds, numbered)
        used = cpu_seconds(self.envoy.process.pid) - before
        return {
            "cpu": used / result["requests"],
            "rate": result["requests"] / result["microseconds"],
            "p50": result["p50"],
        }


@dataclass
class Ratio:
    """The median of the rounds' ratios, and where their middle half lies."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Ratio":
        ordered = sorted(values)
        quarter = len(ordered) // 4
        return cls(statistics.median(ordered), ordered[quarter], ordered[-1 - quarter])

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.2f}-{self.high:.2f})"


ROW = "{:<28}{:>22}{:>8}{:>26}{:>8}"


def compare(filtered: Side, bare: Side, work: Work, body: Path) -> dict[str, Any]:
    cpu, rate = [], []
    for turn in range(WARM_UP + ROUNDS):
        numbered = work.bare_requests > 1
        one = filtered.ask(work.path, body, numbered=numbered)
        other = bare.ask(work.bare_path, body, numbered=numbered)
        if turn >= WARM_UP:
            cpu.append(one["cpu"] / (other["cpu"] * work.bare_requests))
            rate.append(one["rate"] / other["rate"])
    result = {"work": work.name, "cpu": vars(Ratio.of(cpu)), "throughput": vars(Ratio.of(rate))}
    goals = (f"≤{work.cpu:.2f}" if work.cpu else "", f"≥{work.throughput:.2f}" if work.throughput else "")
    shown = str(Ratio.of(rate)) if work.bare_requests == 1 else ""
    print(ROW.format(work.name, str(Ratio.of(cpu)), goals[0], shown, goals[1]), flush=True)
    return result


def goal(name: str, value: float, limit: float, unit: str) -> dict[str, Any]:
    print(f"{name:<58}{value:>8.2f} {unit:<4}{'≤':>4}{limit:g}", flush=True)
    return {"goal": name, "value": value, "limit": limit}


def main() -> int:
    only = os.environ.get("ONLY", "")
    results: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(provider())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        host = f"127.0.0.1:{upstream}"
        bare = Side(start(stack, None), host)
        filtered = Side(start(stack, settings(upstream, 10)), "one-balance")
        print(ROW.format("against bare Envoy", "CPU per request", "goal", "throughput at 64", "goal"))
        body = folder / "body"
        for work in WORKS:
            if only in work.name:
                body.write_bytes(work.body)
                results.append(compare(filtered, bare, work, body))
        native = WORKS[0]
        body.write_bytes(native.body)
        for name, calls in (("two filters that do nothing", "none"), ("that make the same calls", "calls")):
            if only in name:
                side = Side(start(stack, None, floor=calls), host)
                work = replace(native, name=name, path=native.bare_path, cpu=None, throughput=None)
                results.append(compare(side, bare, work, body))
        if only in "latency":
            added = []
            for _ in range(ROUNDS):
                one = filtered.ask(native.path, body, 1)["p50"]
                added.append(one - bare.ask(native.bare_path, body, 1)["p50"])
            results.append(
                goal("latency added at the median, one at a time", statistics.median(added), LATENCY_GOAL, "µs")
            )
        if only in "keys":
            many = Side(start(stack, settings(upstream, 2500)), "one-balance")
            ratios = [
                many.ask(native.path, body)["cpu"] / filtered.ask(native.path, body)["cpu"] for _ in range(ROUNDS)
            ]
            results.append(goal("CPU with 10,000 keys against 40", statistics.median(ratios), KEYS_GOAL, "x"))
        if only in "memory":
            results += memory(stack, upstream, host, native, body)
        if only in "start":
            began = time.monotonic()
            envoy = start(stack, settings(upstream, 10))
            wrk(envoy.port, "one-balance", native.path, body, 1, 1)
            results.append(goal("start to first answer", time.monotonic() - began - 1, START_GOAL, "s"))
    BUILT.mkdir(parents=True, exist_ok=True)
    (BUILT / "results.json").write_text(json.dumps({"quick": QUICK, "results": results}, indent=2))
    return 0


def memory(stack: contextlib.ExitStack, upstream: int, host: str, work: Work, body: Path) -> list[dict[str, Any]]:
    """Resident memory with 10,000 keys and two workers, and whether it grows."""
    bare = Side(start(stack, None, 2), host)
    filtered = Side(start(stack, settings(upstream, 2500), 2), "one-balance")
    bare.ask(work.bare_path, body)

    def soak(requests: int) -> int:
        asked = 0
        while asked < requests:
            asked += wrk(filtered.envoy.port, "one-balance", work.path, body, 64, 5)["requests"]
        return asked

    # Until each key has been used, and has its counts.
    soak(SOAK_REQUESTS // 4)
    before = resident_mb(filtered.envoy.process.pid)
    over = before - resident_mb(bare.envoy.process.pid)
    asked = soak(SOAK_REQUESTS)
    grown = resident_mb(filtered.envoy.process.pid) - before
    return [
        goal("resident memory over bare Envoy, 10,000 keys, 2 workers", over, MEMORY_GOAL, "MB"),
        goal(f"memory grown in {asked:,} requests", grown, 2, "MB"),
    ]


if __name__ == "__main__":
    sys.exit(main())
