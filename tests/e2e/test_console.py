"""The console's JSON: what it tells of the pool, and edits of a real D1 that show in every worker at once."""

import threading
import uuid

import pytest
from harness import eventually
from provider_simulator import Answer, Behaviour
from test_d1 import BAD_KEY, FAULTS, serves, stated

STATUS = "/one-balance/status"
LONG = {"SYNC_SECONDS": "600"}
"""So seldom that only the edit itself can have shown in the pool."""


def pool_of(balancer, provider="openai", **query):
    answer = balancer.client.request("GET", STATUS + "?" + "&".join(f"{k}={v}" for k, v in query.items()))
    assert answer.status_code == 200, answer.text
    found = [entry for entry in answer.json()["providers"] if entry["provider"] == provider]
    return found[0] if found else None


def listed(balancer, provider="openai", **query):
    query = "&".join(f"{name}={value}" for name, value in query.items())
    return balancer.client.get(f"{STATUS}?provider={provider}&{query}").json()["keys"]["list"]


def edit(balancer, verb, body, **options):
    return balancer.client.post(f"/one-balance/keys/{verb}", json=body, **options)


def in_all_workers(balancer, holds):
    """Each request has a connection of its own, so twenty of them meet both workers."""
    assert all(balancer.client.parallel(20, lambda _: holds()))


@pytest.fixture
def loaded(start, simulator, d1):
    """An Envoy whose only keys are three rows of D1, which it reads once."""
    ids = {}
    for label in ("one", "two", "three"):
        ids[label] = d1.insert("openai", simulator.key("openai", label=label).secret, remark=f"remark {label}")
    balancer = start(env={"PROVIDER_KEYS": None, **LONG}, d1=d1)
    balancer.ids = ids
    eventually(lambda: serves(balancer, "warm-up") == {"one", "two", "three"})
    return balancer


def test_status_tells_all_and_no_key(loaded, simulator, model):
    one, two, _ = simulator.keys
    simulator.script(stated(300), key=one, model=model)
    two.behaviour = Behaviour.REVOKED
    assert serves(loaded, model) == {"three"}
    answer = loaded.client.get(f"{STATUS}?provider=openai")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    status = answer.json()
    counts = {"keys": 3, "ready": 1, "cooling": 1, "resting": 0, "blocked": 1}
    assert counts.items() <= status["providers"][0].items()
    assert status["editable"]
    assert status["d1"]["loaded"]
    keys = {key["remark"]: key for key in status["keys"]["list"]}
    assert keys["remark one"]["coolings"][0]["model"] == model
    assert keys["remark one"]["coolings"][0]["reason"] == "rate_limit"
    assert keys["remark one"]["last"]["evidence"].startswith("429")
    assert keys["remark two"]["state"] == "blocked"
    assert keys["remark two"]["last"]["evidence"].startswith("401")
    assert keys["remark three"]["id"] == loaded.ids["three"]
    for key in simulator.keys:
        assert key.secret not in answer.text
        mask = next(entry["mask"] for entry in status["keys"]["list"] if entry["remark"] == f"remark {key.label}")
        assert mask == f"{key.secret[:4]}…{key.secret[-4:]}"


def test_search_order_and_pages(loaded, simulator, model):
    simulator.script(stated(300), key=simulator.keys[2], model=model)
    simulator.script(stated(100), key=simulator.keys[1], model=model)
    assert serves(loaded, model) == {"one"}

    def remarks(**query):
        return [key["remark"].removeprefix("remark ") for key in listed(loaded, **query)]

    assert set(remarks(search="REMARK%20t")) == {"two", "three"}
    assert remarks(sort="cooling") == ["three", "two", "one"]
    assert remarks(sort="cooling", limit=1, offset=1) == ["two"]
    assert remarks(state="ready") == ["one"]
    assert remarks(search=loaded.ids["two"]) == ["two"]


def test_only_an_unrestricted_key_in_a_header(start, simulator):
    simulator.key("openai")
    boss, guest = "boss-1234567", "guest-123456"
    balancer = start(env={"AUTH_KEY": f"{boss};{guest}=openai"})

    def code(method, path, **options):
        answer = balancer.client.request(method, path, auth=None, **options)
        return answer.status_code, answer.json()["error"]["code"] if answer.status_code >= 400 else None

    assert code("GET", STATUS) == (401, "missing_auth_key")
    assert code("GET", f"{STATUS}?key={boss}") == (401, "missing_auth_key")
    assert code("GET", STATUS, headers={"x-api-key": "nobody-12345"}) == (401, "invalid_auth_key")
    assert code("GET", STATUS, headers={"x-api-key": guest}) == (403, "restricted_auth_key")
    assert code("GET", STATUS, headers={"x-api-key": boss}) == (200, None)
    assert code("GET", f"{STATUS}?provider=nobody", headers={"x-api-key": boss}) == (404, "unknown_provider")
    assert code("POST", "/one-balance/keys/delete", headers={"x-api-key": boss}, json={}) == (409, "no_d1")
    page = balancer.client.get("/one-balance/", auth=None)
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    moved = balancer.client.get("/one-balance", auth=None)
    assert (moved.status_code, moved.headers["location"]) == (308, "/one-balance/")


def test_switched_off(start, simulator):
    simulator.key("openai")
    balancer = start(plugin={"console": "off"})
    for path in ("/one-balance/", "/one-balance/page.js", STATUS):
        assert balancer.client.get(path).json()["error"]["code"] == "unknown_path"
        assert balancer.client.get(path, auth=None).status_code == 401


def test_added_keys_serve_at_once(loaded, simulator, d1, model):
    new = [simulator.key("openai", label=label) for label in ("four", "five")]
    loaded.secrets.update(key.secret for key in new)
    keys = [new[0].secret, simulator.keys[0].secret, new[1].secret, new[0].secret]
    answer = edit(loaded, "add", {"provider": "openai", "keys": keys, "remark": "über 🔑"})
    assert answer.json() == {"changed": 2, "unchanged": 1, "unknown": 0}
    in_all_workers(loaded, lambda: pool_of(loaded)["ready"] == 5)
    assert serves(loaded, model) | serves(loaded, model) == {"one", "two", "three", "four", "five"}
    rows = d1.sql("SELECT * FROM keys WHERE remark = ?", "über 🔑")
    assert {row["key"] for row in rows} == {key.secret for key in new}
    for row in rows:
        assert uuid.UUID(row["id"]).version == 4
        assert str(uuid.UUID(row["id"])) == row["id"]
        defaults = {"provider": "openai", "status": "active", "model_coolings": None, "total_cooling_seconds": 0}
        assert defaults.items() <= row.items()
        assert row["created_at"] > 1_700_000_000
    assert edit(loaded, "add", {"provider": "openai", "keys": keys}).json()["changed"] == 0


def test_a_thousand_keys_in_one_call(loaded, d1):
    keys = [f"filler-{uuid.uuid4()}" for _ in range(1000)]
    before = len(d1.calls())
    assert edit(loaded, "add", {"provider": "groq", "keys": keys}).json()["changed"] == 1000
    in_all_workers(loaded, lambda: pool_of(loaded, "groq")["ready"] == 1000)
    assert len({row["id"] for row in d1.sql("SELECT id FROM keys WHERE provider = 'groq'")}) == 1000
    # The edit, and the read of the table's two pages that follows it.
    eventually(lambda: len(d1.calls()) - before == 3)
    ids = [key["id"] for offset in range(0, 1000, 200) for key in listed(loaded, "groq", limit=200, offset=offset)]
    assert edit(loaded, "delete", {"ids": ids}).json()["changed"] == 1000
    in_all_workers(loaded, lambda: pool_of(loaded, "groq") is None)
    assert d1.sql("SELECT count(*) AS n FROM keys")[0]["n"] == 3


def test_deleted_keys_serve_no_more(loaded, d1, model):
    answer = edit(loaded, "delete", {"ids": [loaded.ids["one"], "no-such-row"]})
    assert answer.json() == {"changed": 1, "unchanged": 0, "unknown": 1}
    in_all_workers(loaded, lambda: pool_of(loaded)["keys"] == 2)
    assert serves(loaded, model) == {"two", "three"}
    assert d1.row(loaded.ids["one"]) is None
    assert edit(loaded, "delete", {"ids": [loaded.ids["one"]]}).json()["unknown"] == 1


def test_all_blocked_go_but_those_that_somebody_has_freed(loaded, simulator, d1, model):
    for key in simulator.keys[:2]:
        simulator.script(Answer(401, body=BAD_KEY), key=key, model="killer")
    assert serves(loaded, "killer") == {"three"}
    eventually(lambda: d1.sql("SELECT count(*) AS n FROM keys WHERE status = 'blocked'")[0]["n"] == 2)
    d1.sql("UPDATE keys SET status = 'active' WHERE id = ?", loaded.ids["one"])
    assert edit(loaded, "delete-blocked", {"provider": "groq"}).json()["changed"] == 0
    answer = edit(loaded, "delete-blocked", {})
    assert answer.json() == {"changed": 1, "unchanged": 1, "unknown": 0}
    assert d1.row(loaded.ids["two"]) is None
    # The edit makes D1 be read again, and so it is found out who is free.
    eventually(lambda: serves(loaded, model) == {"one", "three"})


@pytest.mark.waits
def test_the_operator_wins_over_what_waits_to_be_written(loaded, simulator, d1, model):
    """D1 is away while a key is blocked and another cools; the edits come before the outbox does."""
    d1.fault("status", times=1, status=429, retry_after=8)
    simulator.script(Answer(401, body=BAD_KEY), key=simulator.keys[0], model="killer")
    assert serves(loaded, "killer") == {"two", "three"}
    eventually(lambda: loaded.client.get(STATUS).json()["d1"]["failure"] == "rate_limited")
    simulator.script(stated(1000), key=simulator.keys[1], model=model)
    assert serves(loaded, model) == {"three"}
    assert edit(loaded, "activate", {"ids": [loaded.ids["one"]]}).json()["changed"] == 1
    assert edit(loaded, "clear", {"ids": [loaded.ids["two"]], "model": model}).json()["changed"] == 1
    in_all_workers(loaded, lambda: pool_of(loaded)["ready"] == 3)
    eventually(lambda: loaded.client.get(STATUS).json()["d1"]["failure"] is None)
    assert serves(loaded, model) == {"one", "two", "three"}
    assert d1.row(loaded.ids["one"])["status"] == "active"
    assert d1.row(loaded.ids["two"])["model_coolings"] is None


@pytest.mark.parametrize("model", ["gemini-2.0-flash", "we.ird[0]$-😀'\"", "a/b:free"])
def test_clearing_one_model_leaves_the_others(loaded, simulator, d1, model):
    one = simulator.keys[0]
    simulator.script(stated(1000), key=one, model=model)
    simulator.script(stated(1000), key=one, model="other")
    for name in (model, "other"):
        assert serves(loaded, name) == {"two", "three"}
    eventually(lambda: len(d1.row(loaded.ids["one"])["model_coolings"] or {}) == 2)
    assert edit(loaded, "clear", {"ids": [loaded.ids["one"]], "model": model}).json()["changed"] == 1
    assert d1.row(loaded.ids["one"])["model_coolings"].keys() == {"other"}
    assert d1.row(loaded.ids["one"])["total_cooling_seconds"] > 1990, "what was counted stays"
    assert serves(loaded, model) == {"one", "two", "three"}
    assert serves(loaded, "other") == {"two", "three"}
    assert edit(loaded, "clear", {"ids": [loaded.ids["one"]]}).json()["changed"] == 1
    assert d1.row(loaded.ids["one"])["model_coolings"] is None
    assert serves(loaded, "other") == {"one", "two", "three"}


@pytest.mark.parametrize("fault", FAULTS)
def test_d1_away(loaded, simulator, d1, fault):
    details = dict(FAULTS[fault])
    d1.fault(details.pop("kind"), **details)
    new = simulator.key("openai", label="four")
    loaded.secrets.add(new.secret)
    answer = edit(loaded, "add", {"provider": "openai", "keys": [new.secret]})
    if fault == "slow":
        assert answer.json()["changed"] == 1
        return
    expected = (502, "d1_refused") if fault in ("bad JSON", "wrong token") else (503, "d1_unavailable")
    assert (answer.status_code, answer.json()["error"]["code"]) == expected
    if fault in ("refused", "broken", "limited", "cut", "wrong token"):
        in_all_workers(loaded, lambda: pool_of(loaded)["keys"] == 3)
    # Sent again it is as if it had come once, whether D1 has run it or not.
    assert edit(loaded, "add", {"provider": "openai", "keys": [new.secret]}).status_code == 200
    in_all_workers(loaded, lambda: pool_of(loaded)["keys"] == 4)
    assert d1.sql("SELECT count(*) AS n FROM keys")[0]["n"] == 4


def test_an_edit_that_was_run_but_not_answered_shows_by_itself(loaded, simulator, d1, model):
    d1.fault("lost")
    assert edit(loaded, "delete", {"ids": [loaded.ids["one"]]}).status_code == 503
    eventually(lambda: pool_of(loaded)["keys"] == 2)


def test_another_envoy_hears_of_it(loaded, start, simulator, d1, model):
    other = start(env={"PROVIDER_KEYS": None}, d1=d1)
    eventually(lambda: serves(other, "warm-up") == {"one", "two", "three"})
    edit(loaded, "delete", {"ids": [loaded.ids["one"]]})
    eventually(lambda: serves(other, model) == {"two", "three"})


def test_edits_under_traffic_and_at_once(loaded, simulator, d1, model):
    """Many edits from many clients, while the pool serves: each key ends up once."""
    new = [simulator.key("openai", label=f"new {number}") for number in range(40)]
    loaded.secrets.update(key.secret for key in new)
    statuses, stop = [], threading.Event()

    def traffic():
        while not stop.is_set():
            statuses.append(loaded.client.chat(f"openai/{model}").status_code)

    thread = threading.Thread(target=traffic)
    thread.start()
    # Each key is sent by two clients.
    done = loaded.client.parallel(
        16, lambda part: edit(loaded, "add", {"provider": "openai", "keys": [k.secret for k in new[part // 2 :: 8]]})
    )
    stop.set()
    thread.join()
    assert sum(answer.json()["changed"] for answer in done) == 40
    in_all_workers(loaded, lambda: pool_of(loaded)["keys"] == 43)
    assert set(statuses) == {200}
    eventually(lambda: d1.calls()[-1]["status"] == 200 and "SELECT" in str(d1.calls()[-1]["statements"]))
    assert pool_of(loaded)["keys"] == 43


def test_bodies(loaded, d1):
    before = len(d1.calls())
    long = "x" * (600 << 10)
    for options, expected in [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, (400, "invalid_json")),
        ({"content": b"", "headers": {"content-type": "application/json"}}, (400, "invalid_json")),
        ({"content": b"{}", "headers": {"content-type": "text/plain"}}, (415, "unsupported_media_type")),
        ({"json": {"provider": "openai", "keys": [long]}}, (413, "body_too_large")),
        ({"json": {"provider": "openai", "keys": []}}, (422, "invalid_edit")),
        ({"json": {"provider": "nobody", "keys": ["key-1234"]}}, (404, "unknown_provider")),
    ]:
        answer = loaded.client.post("/one-balance/keys/add", **options)
        assert (answer.status_code, answer.json()["error"]["code"]) == expected
    assert loaded.client.get("/one-balance/keys/add").status_code == 405
    assert len(d1.calls()) == before
