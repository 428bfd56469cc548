"""The shipped dashboard's queries, asked of a real Prometheus that scrapes real Envoys."""

import json
import subprocess

import pytest
from harness import eventually
from harness_prometheus import FOLDER, Prometheus, binary, metrics, panels, require
from provider_simulator import Answer, Behaviour
from test_d1 import serves, stated

GOOGLE = "google-ai-studio"


@pytest.fixture
def scrape(tmp_path):
    """`scrape(balancer, …)`: a Prometheus that has seen them before there was traffic."""
    require()
    started = []

    def scraper(*balancers):
        prometheus = Prometheus(tmp_path, [balancer.envoy.admin_port for balancer in balancers])
        started.append(prometheus)
        eventually(lambda: len(prometheus.query("one_balance_attempts{provider='openai'}")) == len(balancers))
        return prometheus

    yield scraper
    for prometheus in started:
        prometheus.close()


@pytest.mark.waits
def test_each_question_has_its_answer(start, scrape, simulator, d1, model):
    dead = simulator.key("openai", Behaviour.REVOKED, label="dead")
    good = simulator.key("openai", label="good")
    spent = [simulator.key(GOOGLE, Behaviour.DAILY_SPENT) for _ in range(2)]
    for key in (dead, good, *spent):
        d1.insert(key.slug, key.secret)
    envoys = [start(env={"PROVIDER_KEYS": None}, d1=d1) for _ in range(2)]
    one, two = (balancer.client for balancer in envoys)
    prometheus = scrape(*envoys)
    eventually(lambda: serves(envoys[0], model) == serves(envoys[1], model) == {"good"})
    for _ in range(4):
        assert one.chat(f"{GOOGLE}/{model}").status_code == 429
        assert two.chat("groq/some-model").json()["error"]["code"] == "no_keys"
    simulator.script(stated(100), key=good, model="busy")
    assert one.chat("openai/busy").status_code == 429
    simulator.script(Answer(400, body={"error": {"message": "no such field"}}), model="bad")
    assert one.chat("openai/bad").status_code == 400

    def shows(title, holds):
        return eventually(lambda: (found := prometheus.panel(title)) and holds(found) and found, 40)

    # Is quota being served?
    shows("Served", lambda found: 0 < found[()] < 1)
    results = {("served",), ("caller_error",), ("all_keys_cooling",), ("no_keys",)}
    shows("Requests by what became of them", lambda found: results <= set(found))
    shows("Tokens", lambda found: {("in", "openai"), ("out", "openai")} == set(found))
    # Which provider is short?
    ready = shows("Keys that are ready", lambda found: found.get((GOOGLE,)) == found.get(("openai",)) == 0)
    assert ready[("openai",)] == 0, "one is blocked, and one cools for a model"
    short = {(GOOGLE, "all_keys_cooling"), ("groq", "no_keys")}
    shows("Turned away for want of a key", lambda found: short <= set(found))
    recovery = shows("Time until a key is ready", lambda found: (GOOGLE,) in found and ("openai",) in found)
    assert 0 < recovery[("openai",)] <= 100 < recovery[(GOOGLE,)]
    keys = shows("Keys by state", lambda found: found.get(("openai", "blocked")) == 1)
    assert keys[(GOOGLE, "cooling")] == 2, "two Envoys, one pool"
    shows("Attempts per answered request", lambda found: 1 <= found.get(("openai",), 0) < 2)
    # Which keys die?
    assert shows("Blocked keys", lambda found: ("openai",) in found) == {("openai",): 1}
    assert set(shows("Blocked in the last hour", lambda found: ("openai",) in found)) == {("openai",)}
    reasons = {(GOOGLE, "daily_quota"), ("openai", "rate_limit")}
    shows("Why keys cool or rest", lambda found: reasons == set(found))
    outcomes = {("success", "openai"), ("credential", "openai"), ("quota", GOOGLE)}
    shows("What attempts came to", lambda found: outcomes <= set(found))
    # Is D1 in step?
    assert shows("Loaded", lambda found: found[()] == 1)
    assert prometheus.panel("Failing for") == {}
    assert len(shows("Age of what was read", lambda found: max(found.values()) < 10)) == 2
    shows("Changes that wait to be written", lambda found: max(found.values()) == 0)
    d1.fault("status", times=40, status=500)
    assert shows("Failing for", lambda found: ("server",) in found)
    shows("Calls that failed", lambda found: ("server",) in found)
    shows("Age of what was read", lambda found: min(found.values()) > 3)


@pytest.mark.waits
def test_every_metric_it_asks_for_is_there(start, scrape, simulator, d1):
    """A name that is written wrong, or that is no more, would show an empty panel and no error."""
    d1.insert("openai", simulator.key("openai").secret)
    balancer = start(env={"PROVIDER_KEYS": None}, d1=d1)
    prometheus = scrape(balancer)
    queries = [target["expr"] for panel in panels().values() for target in panel["targets"]]
    asked = set().union(*map(metrics, queries))
    assert len(asked) >= 12
    for name in asked:
        eventually(lambda name=name: prometheus.query(name), 10)
    scraped = prometheus.query('count by (__name__) ({job="one-balance", __name__=~"envoy.*"})')
    assert scraped == {}, "only the filter's own are scraped"


def test_the_files():
    require()
    checked = subprocess.run(
        [binary("promtool"), "check", "config", FOLDER / "prometheus.yaml"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    dashboard = json.loads((FOLDER / "grafana.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    taken = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not taken & cells, f"{panel['title']} lies over another"
        taken |= cells
