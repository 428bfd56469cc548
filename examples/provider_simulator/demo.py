"""The keys of the demo, and the line that is printed for each request."""

import sys

from .keys import Behaviour
from .server import GOOGLE, Request, Simulator

KEYS = [
    (GOOGLE, Behaviour.INVALID),
    (GOOGLE, Behaviour.MINUTE_SPENT),
    (GOOGLE, Behaviour.DAILY_SPENT),
    (GOOGLE, Behaviour.GOOD),
    (GOOGLE, Behaviour.GOOD),
    ("openai", Behaviour.MINUTE_SPENT),
    ("openai", Behaviour.GOOD),
    ("openai", Behaviour.GOOD),
]


def add_keys(simulator: Simulator) -> None:
    for slug, behaviour in KEYS:
        simulator.key(slug, behaviour)


def print_request(request: Request) -> None:
    key = f"{request.key.label} ({request.key.behaviour.value})" if request.key else "unknown key"
    status = request.status or "reset"
    line = f"  simulator: {request.slug:<17} {key:<28} {request.model or request.path:<24} -> {status}"
    print(line, file=sys.stderr, flush=True)
