"""The pool and a real D1: what one learns, the others obey; and nothing is lost while it is away."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import harness
import pytest
from harness import eventually
from provider_simulator import Answer, Behaviour

# One answer suffices for a block if no request can have caused it.
BAD_KEY = {"error": {"message": "The account was deactivated", "code": "account_deactivated"}}
# What the Worker asks D1 and does with the answer, in its own words: the keys of a provider, and
# whether one of them is cooling for a model.
WORKERS_QUERY = """
SELECT id, key, json_extract(model_coolings, '$."' || ?1 || '".end_at') AS end_at,
       json_extract(model_coolings, '$."' || ?1 || '".total_seconds') AS total_seconds, total_cooling_seconds
FROM keys WHERE provider = ?2 AND status = 'active' ORDER BY created_at
"""


def stated(seconds):
    return Answer(429, headers=[("retry-after", str(seconds))], body={"error": {"code": "rate_limit_exceeded"}})


def serves(balancer, model, slug="openai"):
    """The labels of the keys that serve a few requests, whatever traffic there is for other models."""
    start = len(balancer.simulator.requests)
    for _ in range(6):
        balancer.client.chat(f"{slug}/{model}")
    requests = balancer.simulator.requests[start:]
    return {request.key.label for request in requests if request.status == 200 and request.model == model}


class Traffic:
    """Requests all the time, from two threads; what came of them."""

    def __init__(self, balancer, model):
        self.balancer, self.model, self.statuses, self._stop = balancer, model, [], threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def _run(self):
        while not self._stop.is_set():
            self.statuses.append(self.balancer.client.chat(self.model).status_code)
            time.sleep(0.02)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def loaded(start, simulator, d1):
    """An Envoy whose only keys are two rows of D1."""
    simulator.key("openai", label="one")
    simulator.key("openai", label="two")
    ids = [d1.insert("openai", key.secret) for key in simulator.keys]
    balancer = start(env={"PROVIDER_KEYS": None}, d1=d1)
    balancer.ids = ids
    eventually(lambda: serves(balancer, "warm-up") == {"one", "two"})
    return balancer


@pytest.mark.waits
def test_keys_come_and_go_while_traffic_flows(loaded, simulator, d1, model):
    with Traffic(loaded, f"openai/{model}") as traffic:
        three = simulator.key("openai", label="three")
        d1.insert("openai", three.secret)
        eventually(lambda: "three" in serves(loaded, model))
        d1.sql("DELETE FROM keys WHERE id = ?", loaded.ids[0])
        eventually(lambda: "one" not in serves(loaded, model))
        d1.sql("UPDATE keys SET status = 'blocked' WHERE id = ?", loaded.ids[1])
        eventually(lambda: serves(loaded, model) == {"three"})
        d1.sql("UPDATE keys SET status = 'active' WHERE id = ?", loaded.ids[1])
        eventually(lambda: serves(loaded, model) == {"two", "three"})
    assert set(traffic.statuses) == {200}


def test_ids_are_those_of_the_rows(loaded, model):
    assert loaded.client.chat(f"openai/{model}").headers["x-one-balance-key-id"] in loaded.ids


@pytest.mark.parametrize("model", ["gemini-2.0-flash", "we.ird[0]$-😀", "a/b:free"])
def test_what_is_written_back_is_what_the_worker_reads(loaded, simulator, d1, model):
    one, two = simulator.keys[:2]
    one.behaviour = Behaviour.REVOKED
    simulator.script(stated(300), key=two)
    began = time.time()
    assert loaded.client.chat(f"openai/{model}").status_code in (401, 429)
    eventually(lambda: d1.row(loaded.ids[0])["status"] == "blocked")
    eventually(lambda: d1.row(loaded.ids[1])["model_coolings"])
    [row] = d1.sql(WORKERS_QUERY, model, "openai")
    assert row["key"] == two.secret, "the blocked one is not active any more"
    assert began + 295 < row["end_at"] <= time.time() + 301
    assert 295 < row["total_seconds"] <= 302
    assert row["total_cooling_seconds"] == row["total_seconds"]
    assert d1.row(loaded.ids[1])["model_coolings"].keys() == {model}


def test_totals_grow_by_what_is_added(loaded, simulator, d1, model):
    """The Worker has cooled the key for another model before, in its own way of writing numbers."""
    end = time.time() + 1000
    coolings = {"other": {"end_at": end, "total_seconds": 65.0}, model: {"end_at": 5.0, "total_seconds": 10.0}}
    d1.sql(
        "UPDATE keys SET model_coolings = ?, total_cooling_seconds = 75 WHERE id = ?",
        json.dumps(coolings),
        loaded.ids[1],
    )
    simulator.script(stated(100), key=simulator.keys[1], model=model)
    eventually(lambda: serves(loaded, model) == {"one"})
    row = eventually(lambda: (row := d1.row(loaded.ids[1]))["total_cooling_seconds"] > 75 and row)
    assert row["model_coolings"]["other"] == coolings["other"]
    assert 100 <= row["model_coolings"][model]["total_seconds"] - 10 <= 102
    assert row["total_cooling_seconds"] - 75 == row["model_coolings"][model]["total_seconds"] - 10


@pytest.mark.parametrize("odd", ["", "{}", "null", "[1]", '{"m":', '"text"', '{"m": 7}'])
def test_odd_rows(loaded, simulator, d1, model, odd):
    d1.sql("UPDATE keys SET model_coolings = ? WHERE id = ?", odd, loaded.ids[1])
    d1.insert("nobody-knows", "key-of-nobody-1", id="row-of-nobody")
    d1.insert("openai", "key-with-status", id="row-with-status", status="paused")
    simulator.script(stated(100), key=simulator.keys[1], model=model)
    eventually(lambda: serves(loaded, model) == {"one"})
    written = "SELECT model_coolings FROM keys WHERE id = ?"
    eventually(lambda: model in (d1.sql(written, loaded.ids[1])[0]["model_coolings"] or ""))
    assert model in d1.row(loaded.ids[1])["model_coolings"]
    for row in ("row-of-nobody", "row-with-status"):
        eventually(lambda row=row: loaded.log().count(f"row {row} is passed over") == 1, 5)


def test_a_person_clears_a_cooldown(loaded, simulator, d1, model):
    simulator.script(stated(1000), key=simulator.keys[0], model=model)
    eventually(lambda: serves(loaded, model) == {"two"})
    eventually(lambda: d1.row(loaded.ids[0])["model_coolings"])
    d1.sql("UPDATE keys SET model_coolings = NULL WHERE id = ?", loaded.ids[0])
    eventually(lambda: "one" in serves(loaded, model))


@pytest.mark.waits
def test_two_envoys_are_one_pool(loaded, start, simulator, d1, model):
    other = start(env={"PROVIDER_KEYS": None}, d1=d1)
    eventually(lambda: serves(other, "warm-up") == {"one", "two"})
    simulator.script(stated(1000), key=simulator.keys[0], model=model)
    simulator.script(Answer(401, body=BAD_KEY), key=simulator.keys[1], model="killer")
    eventually(lambda: serves(loaded, model) == {"two"})
    eventually(lambda: serves(other, model) == {"two"})
    eventually(lambda: serves(loaded, "killer") == {"one"})
    eventually(lambda: serves(other, "another") == {"one"})


def test_five_thousand_keys_in_pages(start, simulator, d1, model):
    last = simulator.key("openai", label="last")
    d1.insert_all(
        [
            {"id": f"{number:06}", "provider": "openai", "key": f"filler-{number:06}", "status": "blocked"}
            for number in range(5000)
        ]
    )
    d1.insert("openai", last.secret, id="zzz")
    balancer = start(env={"PROVIDER_KEYS": None}, d1=d1)
    eventually(lambda: serves(balancer, model) == {"last"})
    assert "the pool has 5001 keys" in balancer.log()
    pages = [call for call in d1.calls() if "SELECT" in json.dumps(call)]
    assert len(pages) >= 6


FAULTS = {
    "refused": {"kind": "status", "status": 503},
    "broken": {"kind": "status", "status": 500},
    "limited": {"kind": "status", "status": 429, "retry_after": 1},
    "slow": {"kind": "delay", "seconds": 2},
    "cut": {"kind": "cut"},
    "run but not answered": {"kind": "lost"},
    "half an answer": {"kind": "half"},
    "bad JSON": {"kind": "bad_json"},
    "wrong token": {"kind": "status", "status": 401},
}


@pytest.mark.waits
@pytest.mark.parametrize("fault", FAULTS)
def test_d1_away(loaded, simulator, d1, model, fault):
    details = dict(FAULTS[fault])
    with Traffic(loaded, f"openai/{model}") as traffic:
        d1.fault(details.pop("kind"), times=2, **details)
        simulator.script(stated(1000), key=simulator.keys[0], model=f"{model}-cools")
        simulator.script(Answer(401, body=BAD_KEY), key=simulator.keys[1], model=f"{model}-kills")
        eventually(lambda: serves(loaded, f"{model}-cools") == {"two"})
        eventually(lambda: serves(loaded, f"{model}-kills") == {"one"})
        eventually(lambda: d1.row(loaded.ids[1])["status"] == "blocked", 40)
        row = eventually(lambda: (row := d1.row(loaded.ids[0]))["model_coolings"] and row, 40)
    assert set(traffic.statuses) == {200}
    cooling = row["model_coolings"][f"{model}-cools"]
    assert 995 < cooling["total_seconds"] <= 1002, "written once, whatever was sent twice"
    assert row["total_cooling_seconds"] == cooling["total_seconds"]
    assert loaded.log().count("D1: ") - loaded.log().count("D1: the pool") <= 4, (
        "a line when it begins, and one when it ends"
    )


def test_a_wrong_token_is_one_clear_line(start, simulator, d1, model):
    simulator.key("openai", label="own")
    balancer = start(d1=d1, env={"D1_API_TOKEN": "some-wrong-token"})
    eventually(lambda: "D1 refuses the token" in balancer.log())
    time.sleep(3)
    assert balancer.log().count("D1 refuses the token") == 1
    assert balancer.client.chat(f"openai/{model}").status_code == 200, "the configuration's keys serve"


@pytest.mark.waits
def test_gauges(loaded, d1):
    def gauges():
        return {name.split("one_balance.d1.")[1]: value for name, value in loaded.stats(r"one_balance\.d1\.").items()}

    assert eventually(lambda: (shown := gauges())["loaded"] == 1 and shown)["snapshot_age_seconds"] <= 5
    d1.fault("status", times=3, status=500)
    eventually(lambda: gauges()["failing.class.server"] == 1)
    eventually(lambda: gauges()["snapshot_age_seconds"] >= 3)
    eventually(lambda: gauges()["failing.class.server"] == 0 and gauges()["snapshot_age_seconds"] <= 2, 40)
    assert gauges()["outbox"] == 0
    assert gauges()["errors.class.server"] == 3


@pytest.mark.waits
def test_a_first_start_with_d1_away(start, simulator, d1, model):
    key = simulator.key("openai", label="row")
    d1.insert("openai", key.secret)
    d1.fault("status", times=2, status=500)
    balancer = start(env={"PROVIDER_KEYS": None}, d1=d1)
    answer = balancer.client.chat(f"openai/{model}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "pool_not_loaded")
    eventually(lambda: balancer.client.chat(f"openai/{model}").status_code == 200, 30)


def test_both_sources_make_one_pool(start, simulator, d1, model):
    both, own, row = (simulator.key("openai", label=label) for label in ("both", "own", "row"))
    ids = [d1.insert("openai", key.secret) for key in (both, row)]
    balancer = start(env={"PROVIDER_KEYS": f"openai={both.secret},{own.secret}"}, d1=d1)
    eventually(lambda: serves(balancer, model) == {"both", "own", "row"})
    answers = [balancer.client.chat(f"openai/{model}") for _ in range(9)]
    shown = [answer.headers["x-one-balance-key-id"] for answer in answers]
    assert len(set(shown)) == 3
    assert set(ids) < set(shown)
    assert all(shown.count(ident) == 3 for ident in shown), "one key, one turn"


@pytest.mark.waits
def test_a_thousand_cooldowns_in_few_calls(start, simulator, d1, model):
    keys = [simulator.key("openai") for _ in range(50)]
    d1.insert_all([{"id": f"row-{number}", "provider": "openai", "key": key.secret} for number, key in enumerate(keys)])
    balancer = start(env={"PROVIDER_KEYS": None, "MAX_RETRIES": "50"}, d1=d1)
    eventually(lambda: balancer.client.chat("openai/warm-up").status_code == 200)
    simulator.script(stated(1000), when=lambda request: request.model.startswith(model), times=None)
    balancer.client.parallel(4, lambda part: [balancer.client.chat(f"openai/{model}-{part}-{n}") for n in range(5)])
    count = "SELECT sum((SELECT count(*) FROM json_each(model_coolings))) AS n FROM keys"
    eventually(lambda: d1.sql(count)[0]["n"] == 1000, 60)
    writes = [call for call in d1.calls() if "UPDATE" in json.dumps(call)]
    assert len(writes) <= 20, f"{len(writes)} calls"


@pytest.mark.waits
def test_one_worker_talks_and_not_much(loaded, d1):
    before = len(d1.calls())
    time.sleep(5)
    # An interval of a second, less 10 % of jitter, with ticks of half a second; two workers.
    assert 2 <= len(d1.calls()) - before <= 6


D1_WRANGLER = harness.ROOT / "envoy" / "d1" / "node_modules" / ".bin" / "wrangler"


def test_keys_by_hand(tmp_path, d1_server):
    """make d1-…, on a local database, as a person would."""
    file = tmp_path / "keys.txt"
    file.write_text("# mine\nopenai sk-aaaaaaaaaaaaaaaaaaaa the first\ngroq gsk-bbbbbbbbbbbbbbbbbb it's quoted\n")
    script = harness.ROOT / "envoy" / "d1" / "d1.py"
    # Local databases are told apart by their id.
    env = {**os.environ, "D1_DATABASE_ID": str(uuid.uuid4()), "WHERE": "local"}

    def d1(*arguments):
        done = subprocess.run(
            [sys.executable, script, *arguments], env=env, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    assert d1("migrate")[0] == 0
    assert d1("import", str(file)) == (0, "2 keys imported, 0 were there already.\n")
    assert d1("import", str(file)) == (0, "0 keys imported, 2 were there already.\n")
    code, listed = d1("list")
    assert code == 0
    assert "openai" in listed
    assert "sk-a…aaaa  the first" in listed
    assert "it's quoted" in listed
    assert "sk-aaaaaaaaaaaaaaaaaaaa" not in listed
    assert d1("delete-blocked") == (0, "0 blocked keys deleted.\n")
    for line in ("openai", "bad line", "sk-cccccccccccccccccccc openai", "openai sk-ccc\u2026ccc", "ai-gateway sk-ccc"):
        file.write_text(f"openai sk-dddddddddddddddddddd\n{line}\n")
        code, text = d1("import", str(file))
        assert code == 1, line
        assert "line 2" in text
        assert "sk-" not in text
    assert d1("list")[1].endswith("2 keys.\n"), "nothing of a file with a fault was imported"
    env["PROVIDER_BASE_URLS"] = "own=http://10.0.0.1/v1"
    file.write_text("\ufeffown key-of-our-own-server\x20a\x1b[31mb\nperplexity pplx-eeeeeeeeeeeeeeee\n")
    assert d1("import", str(file)) == (0, "2 keys imported, 0 were there already.\n")
    assert "\x1b" not in d1("list")[1]
    assert d1("import", str(tmp_path / "nowhere"))[0] == 1
    file.write_bytes(b"openai sk-\xff\n")
    assert d1("import", str(file)) == (1, f"{file} is not UTF-8\n")


def test_runs_by_hand_at_the_same_time_keep_to_their_databases(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("d1", harness.ROOT / "envoy" / "d1" / "d1.py")
    by_hand = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(by_hand)
    monkeypatch.setattr(by_hand, "STATE", tmp_path)
    named = []
    waiting = ["second"]

    def wrangler(command, **_):
        """Reads its configuration after another run has begun and ended."""
        if waiting:
            run(waiting.pop())
        config = json.loads(Path(command[command.index("--config") + 1]).read_text())
        named.append(config["d1_databases"][0]["database_id"])
        return subprocess.CompletedProcess(command, 0, "", "")

    def run(database):
        monkeypatch.setenv("D1_DATABASE_ID", database)
        by_hand.wrangler("d1", "list")

    monkeypatch.setattr(by_hand.subprocess, "run", wrangler)
    run("first")
    assert named == ["second", "first"]
    assert list(tmp_path.iterdir()) == [], "no configuration is left behind"


def test_d1_by_hand_without_a_token():
    """What is missing is said, and not that something is."""
    harness.require("wrangler", None if D1_WRANGLER.exists() else "it is not installed (make d1-migrate)")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("CLOUDFLARE_", "D1_", "CF_"))}

    def d1(command, **more):
        script = harness.ROOT / "envoy" / "d1" / "d1.py"
        done = subprocess.run(
            [sys.executable, script, command],
            env={**env, "WHERE": "remote", **more},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        return done.stderr

    for command in ("list", "migrate"):
        assert "D1_DATABASE_ID is not set" in d1(command)
        text = d1(command, D1_DATABASE_ID=str(uuid.uuid4()), XDG_CONFIG_HOME="/nonexistent", HOME="/nonexistent")
        assert text.startswith("wrangler failed: it needs CLOUDFLARE_API_TOKEN")
        assert len(text.splitlines()) == 1


def test_a_name_that_does_not_resolve(start, simulator, model):
    """The shipped cluster as it is: no server has an address here, so a callout fails within the call."""
    simulator.key("openai")
    env = {"D1_ACCOUNT_ID": "account", "D1_DATABASE_ID": "database", "D1_API_TOKEN": "some-token-1234"}
    balancer = start(env=env)
    eventually(lambda: "D1 gives no answer" in balancer.log())
    assert balancer.client.chat(f"openai/{model}").status_code == 200
