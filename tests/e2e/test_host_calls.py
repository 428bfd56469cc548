"""What a request costs in calls between Envoy and the module: counted by Envoy itself, held to a budget.

Wall time on a shared machine says little, and a call more per request is the easiest way to lose
what was won. The budget's one home is the table here; make it smaller when you can.
"""

import re
import time
from collections import Counter

import pytest
from harness import eventually
from harness_client import chat_body, gemini_body

GOOGLE = "google-ai-studio"

BUDGET = {
    # (into the module, out of it), of a request on a warm worker.
    "native": (19, 30),
    "compat": (19, 32),
    "translated": (19, 34),
    "refused": (6, 4),
}


@pytest.fixture(scope="module")
def asked(shared):
    """Calls by direction and name, for each kind of request."""

    def kinds(client):
        return {
            "native": lambda: client.gemini("gemini-2.0-flash"),
            "compat": lambda: client.chat("openai/gpt-4o"),
            "translated": lambda: client.chat(f"{GOOGLE}/gemini-2.0-flash"),
            "refused": lambda: client.post("/v1/chat/completions", json=chat_body("openai/gpt-4o"), auth=None),
        }

    return kinds
