"""Other versions of Envoy than the pinned one: which do, and what keeps the others from it.

`make envoys` installs them, each into a folder of its own below .cache.
"""

import contextlib
from pathlib import Path

import harness
import httpx
import pytest
from harness_core import CORE, a_stream_after_failures, deployed

ENVOYS = Path(__file__).resolve().parents[2] / ".cache" / "envoy"


def binary(version: str) -> Path:
    path = ENVOYS / version / "envoy" / "_bin" / "envoy"
    harness.require(f"Envoy {version}", None if path.exists() else "it is not installed: make envoys")
    return path


@pytest.fixture(scope="module")
def on_envoy(tmp_path_factory, ca):
    """`with on_envoy(version) as balancer`."""

    @contextlib.contextmanager
    def run(version: str):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ENVOY", str(binary(version)))
            with deployed(tmp_path_factory.mktemp("version"), ca) as balancer:
                yield balancer

    return run


@pytest.fixture(scope="module", params=["1.37.0", "1.38.2", "1.39.3"])
def balancer(request, on_envoy):
    with on_envoy(request.param) as balancer:
        yield balancer


@pytest.mark.parametrize("check", CORE, ids=lambda check: check.__name__)
def test_core(balancer, check, model):
    check(balancer, model)


def test_envoy_1_36_crashes_when_an_answer_that_was_read_is_retried(on_envoy, model):
    """Why 1.37 is the first that will do. Should this fail, a 1.36 with the mending is out."""

    def ask():
        with on_envoy("1.36.4") as balancer:
            with pytest.raises(httpx.RemoteProtocolError):
                a_stream_after_failures(balancer, model)
            harness.eventually(lambda: balancer.envoy.process.poll() is not None)

    with pytest.raises(AssertionError, match="Envoy has died"):
        ask()


def test_the_wheel_of_1_38_3_has_no_wasm(on_envoy):
    """So 1.38 is tested with 1.38.2."""
    with pytest.raises(harness.run.Failure, match="Unable to create Wasm plugin"), on_envoy("1.38.3"):
        pass
