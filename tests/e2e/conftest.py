"""Fixtures of the end-to-end tests, and the check after each of them."""

import itertools
import secrets
from collections.abc import Callable, Iterator

import harness
import harness_sdks
import pytest
import trustme
from harness import Balancer, Pool, Shared, Simulator
from harness_client import HOST
from harness_d1 import D1, missing
from harness_sdks import FAMILIES, Target


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What `--dist loadgroup` needs: tests that share an Envoy go to one process, each of the others to any.

    Tests that mostly wait begin first, so that the others run meanwhile and nothing is left for the end.
    """
    items.sort(key=lambda item: item.get_closest_marker("waits") is None)
    for item in items:
        definitions = item._fixtureinfo.name2fixturedefs.values()
        if any(definition[-1].scope == "module" for definition in definitions):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))


@pytest.fixture(autouse=True)
def unharmed() -> Iterator[None]:
    """After each test, the Envoys that live on are whole, and no secret got out of them."""
    yield
    for balancer in harness.RUNNING:
        balancer.check()


@pytest.fixture(autouse=True)
def direct(monkeypatch) -> None:
    """SDKs heed the environment's proxies."""
    monkeypatch.setenv("NO_PROXY", HOST)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """A simulator without keys: make them before `start`."""
    with Simulator() as running:
        yield running


@pytest.fixture
def start(tmp_path, simulator) -> Iterator[Callable[..., Balancer]]:
    """`start(**options)` of harness.start, for an Envoy of this test's own (about a second each).

    The simulator is the fixture's unless `simulator=` gives another.
    """
    started: list[Balancer] = []
    numbers = itertools.count(1)

    def starter(**options) -> Balancer:
        log = tmp_path / f"envoy-{next(numbers)}.log"
        balancer = harness.start(options.pop("simulator", simulator), log, **options)
        started.append(balancer)
        return balancer

    yield starter
    try:
        for balancer in started:
            balancer.check()
    finally:
        for balancer in started:
            harness.stop(balancer)


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Shared]:
    """One Envoy for the module: three keys of Google, OpenAI and Anthropic each, and spare pools."""
    shared = Shared(tmp_path_factory.mktemp("shared") / "envoy.log")
    yield shared
    shared.stop()


@pytest.fixture
def pool(shared) -> Pool:
    """A provider with keys of this test's own, on the shared Envoy."""
    return shared.take_pool()


@pytest.fixture
def model() -> str:
    """A model that no other test uses: nothing is cooling for it."""
    return f"model-{secrets.token_hex(6)}"


@pytest.fixture(scope="module")
def sdks(tmp_path_factory) -> Iterator[Shared]:
    """One Envoy for the module, with what the tests of SDKs need."""
    shared = harness_sdks.start(tmp_path_factory.mktemp("sdks") / "envoy.log")
    yield shared
    shared.stop()


@pytest.fixture(params=FAMILIES)
def target(sdks, request) -> Target:
    """A model of this test's own, of each kind of target."""
    return harness_sdks.new_target(sdks, request.param)


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """An authority for providers' certificates: `harness.server_context(ca, "localhost")`."""
    return trustme.CA()


@pytest.fixture(scope="session")
def d1_server() -> Iterator[D1]:
    harness.require("D1", missing())
    server = D1()
    yield server
    server.close()


@pytest.fixture
def d1(d1_server) -> D1:
    """The database: empty, without faults, its counters at 0."""
    d1_server.reset()
    return d1_server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows what its Envoys said."""
    report = yield
    if report.failed:
        for balancer in harness.RUNNING:
            tail = "\n".join(balancer.log().splitlines()[-80:])
            report.sections.append((f"log of Envoy on port {balancer.port}", tail))
    return report
