"""A provider simulator: AI providers' APIs on one loopback port, with keys that behave as told.

`keys` says what a key does, `answers` words it as each provider does, `script` lets a test decide
what comes next, `server` speaks HTTP. As a program: `python examples/provider_simulator --help`.
"""

from .answers import Answer, Pause
from .keys import Behaviour, Key, Quota
from .script import Stream
from .server import Request, Simulator

__all__ = ["Answer", "Behaviour", "Key", "Pause", "Quota", "Request", "Simulator", "Stream"]
