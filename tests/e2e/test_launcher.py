"""`make run` in a terminal: however it is stopped, no process and no folder stays."""

import contextlib
import fcntl
import io
import os
import pty
import signal
import subprocess
import termios
import time
from pathlib import Path

import harness
import pytest
from harness import eventually, free_port


def of(folder: Path) -> list[int]:
    """The processes whose temporary folder this is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"TMPDIR={folder}\0".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


def in_a_terminal(slave: int) -> None:
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    # Whatever runs the tests may have it ignored, and that is inherited.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def ctrl_c_twice(terminal: io.RawIOBase, _: int) -> None:
    terminal.write(b"\x03")
    time.sleep(0.05)
    terminal.write(b"\x03")


def close_the_terminal(terminal: io.RawIOBase, _: int) -> None:
    terminal.close()


def terminate_make(_: io.RawIOBase, make: int) -> None:
    os.kill(make, signal.SIGTERM)


@pytest.mark.parametrize("stop", [ctrl_c_twice, close_the_terminal, terminate_make])
def test_nothing_stays(tmp_path, stop):
    master, slave = pty.openpty()
    terminal = io.FileIO(master, "w")
    env = {**os.environ, "TMPDIR": str(tmp_path), "PORT": str(free_port()), "ADMIN_PORT": str(free_port())}
    env |= {"CONCURRENCY": "1", "MAKELEVEL": "", "MAKEFLAGS": ""}
    for name in ("PROVIDER_KEYS", "D1_DATABASE_ID", "AUTH_KEY"):
        env.pop(name, None)
    with (tmp_path / "out").open("wb") as out:
        make = subprocess.Popen(
            ["make", "run"],
            cwd=harness.ROOT,
            env=env,
            stdin=slave,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=lambda: in_a_terminal(slave),
        )
    os.close(slave)
    try:
        eventually(lambda: "is ready on" in (tmp_path / "out").read_text(), timeout=90)
        assert len(of(tmp_path)) >= 2, "the launcher and Envoy"
        assert list(tmp_path.glob("one-balance-*"))
        stop(terminal, make.pid)
        make.wait(20)
        eventually(lambda: not of(tmp_path))
        assert not list(tmp_path.glob("one-balance-*")), (tmp_path / "out").read_text()[-2000:]
        assert "Traceback" not in (tmp_path / "out").read_text()
    finally:
        terminal.close()
        for process in of(tmp_path):
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        make.wait(20)
