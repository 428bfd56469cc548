"""`python examples/provider_simulator`: the demo's providers by themselves.

Prints the environment that leads one-balance to it, then a line per request: the key, the model,
the status.
"""

import argparse
import sys
import time
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from provider_simulator import Simulator
from provider_simulator.demo import add_keys, print_request


def main() -> None:
    parser = argparse.ArgumentParser(prog="provider_simulator", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1 (default: any free one)")
    simulator = Simulator(parser.parse_args().port, on_request=print_request)
    add_keys(simulator)
    with simulator:
        print(f"export PROVIDER_KEYS='{simulator.provider_keys()}'")
        print(f"export PROVIDER_BASE_URLS='{simulator.base_urls()}'", flush=True)
        while True:
            time.sleep(3600)


try:
    main()
except KeyboardInterrupt:
    sys.exit(130)
