"""What a request costs in calls between Envoy and the module: counted by Envoy itself, held to a budget.

Wall time on a shared machine says little, and one call more per request is the easiest way to lose
what was won. The table is the budget's one home; make it smaller when you can.
"""

import re

import pytest
from harness import eventually

GOOGLE = "google-ai-studio"

BUDGET = {
    # Calls out of the module, of a request that one key serves, on a worker that is warm.
    "native": 27,
    "compat": 30,
    "translated": 35,
    "refused": 3,
}


def ask(kind, client, model):
    if kind == "native":
        return client.gemini(model)
    if kind == "refused":
        return client.get("/v1/models", auth=None)
    return client.chat(f"{GOOGLE if kind == 'translated' else 'openai'}/{model}")


def calls(log: str) -> list[str]:
    """The calls out of the module in a trace, but for those of the clock tick between requests."""
    found, ticking = [], {}
    for line in log.splitlines():
        match = re.search(r"\[(\d+)\]\[trace\].*\[(host->vm|vm->host|host<-vm)\] (?:env\.)?(\w+)", line)
        if not match:
            continue
        thread, direction, name = match.groups()
        if name == "proxy_on_tick":
            ticking[thread] = direction == "host->vm"
        elif direction == "vm->host" and not ticking.get(thread):
            found.append(name.removeprefix("proxy_"))
    return found


@pytest.mark.parametrize("kind", BUDGET)
def test_host_calls(start, simulator, model, kind):
    for slug in (GOOGLE, "openai"):
        simulator.key(slug)
    balancer = start(concurrency=1)
    for _ in range(3):
        ask(kind, balancer.client, model)
    # A body may come in more pieces than one; that is not the module's doing.
    made = min((trace(balancer, kind, model) for _ in range(3)), key=len)
    assert len(made) <= BUDGET[kind], "\n".join(made)
    assert len(made) == BUDGET[kind], "fewer than before: make the budget smaller"


def trace(balancer, kind, model) -> list[str]:
    before = len(balancer.log())
    balancer.envoy.get("/logging?wasm=trace", "POST")
    ask(kind, balancer.client, model)
    ended = "proxy_on_delete" if kind == "refused" else "proxy_on_log"
    eventually(lambda: ended in balancer.log()[before:])
    balancer.envoy.get("/logging?wasm=info", "POST")
    return calls(balancer.log()[before:])
