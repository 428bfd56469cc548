"""`make bench-core`: instructions per request in the core, by callgrind.

They are the same from run to run, so that commits compare. What is counted is the native release build
against a memory in place of shared data; host calls and V8 are not in it. Each kind of exchange runs
twice, a few times and many times, and the difference counts, so that starting up does not. The last
run's numbers are in target/bench/core.json; a run prints its change against them.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

BUILT = Path(__file__).resolve().parents[2] / "target" / "bench"
KINDS = ["native 1 KB", "compat 1 KB", "compat 64 KB", "compat 1 MB", "translated 1 KB"]
FEW, MANY = 20, 120


def instructions(kind: str, times: int) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [str(BUILT / "release" / "bench-core"), kind, str(times)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])


def main() -> int:
    if not shutil.which("valgrind"):
        print("bench-core: valgrind is missing; install it (Debian: valgrind)", file=sys.stderr)
        return 1
    file = BUILT / "core.json"
    last = json.loads(file.read_text()) if file.exists() else {}
    now = {}
    for kind in KINDS:
        now[kind] = (instructions(kind, MANY) - instructions(kind, FEW)) // (MANY - FEW)
        change = f"{now[kind] / last[kind] - 1:+.1%}" if last.get(kind) else ""
        print(f"{kind:<20}{now[kind]:>12,} instructions per request  {change}", flush=True)
    file.write_text(json.dumps(now, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
