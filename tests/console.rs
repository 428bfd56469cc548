//! The console, as transcripts: who is authorized, what the status shows, and how an edit changes the pool of another
//! worker. tests/e2e covers the page, and what the statements do to a real D1.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::cell::RefCell;
use std::rc::Rc;

use one_balance::console::edit::{Task, Verb};
use one_balance::console::status::{self, Query};
use one_balance::console::{ConsoleRequest, edit};
use one_balance::d1::{Answer, Call, Syncer};
use one_balance::host::memory::Memory;
use one_balance::host::{Host, Store};
use one_balance::http::headers::Headers;
use one_balance::pool::Pool;
use one_balance::pool::record::NEVER;
use one_balance::reply::Reply;
use one_balance::request::{self, Step};
use one_balance::time::Time;
use serde_json::{Value, json};
use support::{World, id};

const D1: [(&str, &str); 3] = [("D1_ACCOUNT_ID", "acc"), ("D1_DATABASE_ID", "db"), ("D1_API_TOKEN", "t")];

fn world(json: &str, keys: &str, d1: bool) -> World {
    let mut env = vec![("AUTH_KEY", "boss;guest=openai;gone(1)"), ("PROVIDER_KEYS", keys)];
    env.extend(D1.iter().filter(|_| d1));
    World::new(json, &env)
}

/// The result of a request: status and code, or the kind of the authorized request.
fn begin(world: &World, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let all = [(":method", method), (":path", path)].into_iter().chain(headers.iter().copied());
    match request::begin(&world.config, &*world.host, Headers::from_iter(all), true) {
        Step::Reply(reply, _) => format!("{} {}", reply.status, reply.code.as_str()),
        Step::Answer(answer) => format!("{} {}", answer.status, answer.headers[0].1),
        Step::Console(ConsoleRequest::Status(_), 0) => "status".to_owned(),
        Step::Console(ConsoleRequest::Edit(verb), 0) => format!("{verb:?}"),
        Step::Console(..) | Step::Proceed(_) => "something else".to_owned(),
    }
}

fn show(world: &mut World, worker: usize, query: &str) -> Value {
    let pool = &mut world.workers[worker].pool;
    let query = Query::read(query).unwrap();
    let answer = status::answer(pool, &*world.host, &world.config, &query).unwrap();
    serde_json::from_slice(&answer.body).unwrap()
}

fn task(world: &mut World, verb: Verb, body: &Value) -> Result<Task, Reply> {
    let pool = &mut world.workers[0].pool;
    Task::read(verb, body.to_string().as_bytes(), pool, &world.config)
}

fn answer(world: &mut World, task: &Task, status: u16, results: &[Value]) -> Result<Value, Reply> {
    let results: Vec<Value> = results.iter().map(|rows| json!({"success": true, "results": rows})).collect();
    let body = json!({"success": true, "result": results}).to_string();
    let answer = Answer { status: Some(status), retry_after: None, body: body.as_bytes() };
    let pool = &mut world.workers[0].pool;
    let done = task.answered(pool, &*world.host, &world.config, &answer)?;
    Ok(serde_json::from_slice(&done.body).unwrap())
}

fn row(id: &str, key: &str, status: &str) -> Value {
    json!({"id": id, "key": key, "provider": "openai", "status": status, "remark": format!("of {id}")})
}

/// A sync by the second worker.
struct Sync(Syncer);

impl Sync {
    fn tick(&mut self, world: &mut World) -> Option<Call> {
        self.0.tick(&mut world.workers[1].pool)
    }

    fn begin(&mut self, world: &mut World) -> bool {
        self.tick(world).is_some()
    }

    fn end(&mut self, world: &mut World, rows: &[Value]) -> Option<Call> {
        let body = json!({"success": true, "result": [{"success": true, "results": rows}]}).to_string();
        let answer = Answer { status: Some(200), retry_after: None, body: body.as_bytes() };
        self.0.answered(&mut world.workers[1].pool, &answer)
    }
}

fn loaded(rows: &[Value]) -> (World, Sync) {
    let mut world = world("", "", true);
    let mut sync = Sync(Syncer::new(world.config.clone(), world.host.clone()));
    assert!(sync.begin(&mut world));
    sync.end(&mut world, rows);
    world.wait(1);
    (world, sync)
}

#[test]
fn who_is_authorized() {
    let world = world("", "openai=k1", true);
    let boss = ("authorization", "Bearer boss");
    let json = ("content-type", "application/json; charset=utf-8");
    for (method, path, headers, expected) in [
        ("GET", "/one-balance", &[][..], "308 text/plain"),
        ("GET", "/one-balance/", &[], "200 text/html; charset=utf-8"),
        ("GET", "/one-balance/page.js", &[], "200 text/javascript; charset=utf-8"),
        ("GET", "/one-balance/page.css", &[], "200 text/css; charset=utf-8"),
        ("POST", "/one-balance/", &[], "405 method_not_allowed"),
        ("GET", "/one-balance/status", &[], "401 missing_auth_key"),
        ("GET", "/one-balance/status?key=boss", &[], "401 missing_auth_key"),
        ("GET", "/one-balance/status", &[("x-api-key", "nobody")], "401 invalid_auth_key"),
        ("GET", "/one-balance/status", &[("x-api-key", "gone")], "401 expired_auth_key"),
        ("GET", "/one-balance/status", &[("x-api-key", "guest")], "403 restricted_auth_key"),
        ("GET", "/one-balance/status", &[boss], "status"),
        ("POST", "/one-balance/status", &[boss], "405 method_not_allowed"),
        ("GET", "/one-balance/status?limit=many", &[boss], "400 invalid_query"),
        ("GET", "/one-balance/status?state=odd", &[boss], "400 invalid_query"),
        ("GET", "/one-balance/status?sort=odd", &[boss], "400 invalid_query"),
        ("POST", "/one-balance/keys/add", &[json], "401 missing_auth_key"),
        ("POST", "/one-balance/keys/add", &[json, ("x-api-key", "guest")], "403 restricted_auth_key"),
        ("POST", "/one-balance/keys/add", &[boss], "415 unsupported_media_type"),
        ("POST", "/one-balance/keys/add", &[boss, ("content-type", "text/plain")], "415 unsupported_media_type"),
        ("GET", "/one-balance/keys/add", &[boss, json], "405 method_not_allowed"),
        ("POST", "/one-balance/keys/add", &[boss, json], "Add"),
        ("POST", "/one-balance/keys/delete-blocked", &[boss, json], "DeleteBlocked"),
        ("POST", "/one-balance/keys/nothing", &[boss, json], "404 unknown_path"),
    ] {
        assert_eq!(begin(&world, method, path, headers), expected, "{method} {path} {headers:?}");
    }
}

#[test]
fn the_console_can_be_off_or_read_only() {
    let boss = [("authorization", "Bearer boss"), ("content-type", "application/json")];
    let off = world(r#"{"console": "off"}"#, "openai=k1", true);
    for path in ["/one-balance", "/one-balance/", "/one-balance/page.js", "/one-balance/status"] {
        assert_eq!(begin(&off, "GET", path, &[]), "401 missing_auth_key", "as any other path: {path}");
        assert_eq!(begin(&off, "GET", path, &boss), "404 unknown_path", "{path}");
    }
    assert_eq!(begin(&off, "POST", "/one-balance/keys/add", &boss), "404 unknown_path");
    let mut read = world(r#"{"console": "read"}"#, "openai=k1", true);
    assert_eq!(begin(&read, "GET", "/one-balance/status", &boss), "status");
    assert_eq!(begin(&read, "POST", "/one-balance/keys/add", &boss), "403 console_read_only");
    assert_eq!(show(&mut read, 0, "")["editable"], false);
    let mut without = world("", "openai=k1", false);
    assert_eq!(begin(&without, "POST", "/one-balance/keys/add", &boss), "409 no_d1");
    let shown = show(&mut without, 0, "");
    assert_eq!((&shown["editable"], &shown["d1"]), (&json!(false), &Value::Null));
}

#[test]
fn the_status_shows_each_key() {
    let mut world = world("", "openai=sk-0123456789abcdefghijk1,k2,k3,k4;groq=g1", false);
    let mut sent = world.ask(0, "openai", "m").unwrap();
    let headers = [("retry-after", "100")];
    world.answer(&mut sent, 429, &headers, r#"{"error":{"code":"rate_limit_exceeded"}}"#);
    world.attempt(&mut sent).unwrap();
    world.answer(&mut sent, 401, &[], r#"{"error":{"code":"account_deactivated"}}"#);
    world.attempt(&mut sent).unwrap();
    world.answer(&mut sent, 401, &[], r#"{"error":{"code":"invalid_api_key"}}"#);
    let shown = show(&mut world, 1, "provider=openai");
    assert_eq!(
        shown["providers"],
        json!([
            {"provider": "groq", "keys": 1, "ready": 1, "cooling": 0, "resting": 0, "blocked": 0, "recovery_seconds": null,
                "rests_until": null},
            {"provider": "openai", "keys": 4, "ready": 1, "cooling": 1, "resting": 1, "blocked": 1, "recovery_seconds": null,
                "rests_until": null},
        ])
    );
    let list = shown["keys"]["list"].as_array().unwrap();
    assert_eq!(
        list[0],
        json!({
            "id": id("openai", "sk-0123456789abcdefghijk1").to_string(), "mask": "sk-0…ijk1", "remark": null,
            "source": "configuration", "state": "cooling", "blocked_since": null, "resting": null,
            "coolings": [{"model": "m", "since": "2026-11-24T15:00:00Z", "until": "2026-11-24T15:01:40Z",
                "reason": "rate_limit", "on_trial": false}],
            "more_coolings": 0,
            "last": {"at": "2026-11-24T15:00:00Z", "evidence": "429 code rate_limit_exceeded"},
        })
    );
    let states: Vec<_> = list.iter().map(|key| key["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["cooling", "blocked", "resting", "ready"]);
    assert_eq!(list[2]["resting"]["reason"], "forbidden");
    for (query, expected) in [
        ("sort=cooling", &["cooling", "resting", "blocked", "ready"][..]),
        ("state=blocked", &["blocked"]),
        ("search=SK-0", &["cooling"]),
        ("search=IJK1", &["cooling"]),
        ("search=sk-0%E2%80%A6IJK1", &["cooling"]),
        ("search=sk-0%E2%80%A6ijk2", &[]),
        ("search=sk-01", &[]),
        ("search=nothing", &[]),
        ("limit=2&offset=1", &["blocked", "resting"]),
        ("limit=0", &["cooling"]),
        ("offset=99", &[]),
    ] {
        let shown = show(&mut world, 1, &format!("provider=openai&{query}"));
        let states: Vec<_> = shown["keys"]["list"].as_array().unwrap().iter().map(|key| &key["state"]).collect();
        assert_eq!(states, expected, "{query}");
    }
    // The last error is still shown after a success has ended the cooling.
    world.wait(101);
    let mut again = world.ask(0, "openai", "m").unwrap();
    while again.key() != "sk-0123456789abcdefghijk1" {
        again = world.ask(0, "openai", "m").unwrap();
    }
    world.answer(&mut again, 200, &[], "{}");
    let shown = show(&mut world, 1, "provider=openai");
    assert_eq!(shown["keys"]["list"][0]["state"], "ready");
    assert_eq!(shown["keys"]["list"][0]["last"]["evidence"], "429 code rate_limit_exceeded");
    world.wait(2 * 86_400);
    world.serve(0, "openai", "m", |_| (429, "{}"));
    assert!(show(&mut world, 1, "")["providers"][1]["ready"].as_u64() < Some(4));
}

#[test]
fn ten_thousand_keys_are_paged_without_host_calls() {
    let keys: Vec<String> = (0..10_000).map(|number| format!("sk-{number:020}")).collect();
    let mut world = world("", &format!("openai={}", keys.join(",")), false);
    show(&mut world, 0, "");
    let calls = world.host.calls.get();
    let shown = show(&mut world, 0, "provider=openai&limit=100000&offset=9900&search=sk-");
    assert!(world.host.calls.get() - calls <= 2, "the board is read");
    assert_eq!(shown["keys"]["found"], 10_000);
    assert_eq!(shown["keys"]["list"].as_array().unwrap().len(), 100);
    let full = show(&mut world, 0, "provider=openai&limit=100000").to_string();
    assert!(full.len() < 64 << 10, "{} bytes for a full page", full.len());
    assert!(keys.iter().all(|key| !full.contains(key)));
}

#[test]
fn added_keys_serve_at_once() {
    let (mut world, mut sync) = loaded(&[row("r1", "k1", "active")]);
    let body = json!({"provider": "openai", "keys": [" k2 ", "k1", "k2"], "remark": "mine"});
    let add = task(&mut world, Verb::Add, &body).unwrap();
    let call = add.call(&world.config).unwrap();
    let sent: Value = serde_json::from_slice(&call.body).unwrap();
    assert_eq!(call.path, "/client/v4/accounts/acc/d1/database/db/query");
    assert_eq!(sent["batch"][0]["params"], json!([r#"["k2","k1"]"#, "openai", "mine"]));
    // A read that began before the edit cannot remove the keys again.
    world.wait(70);
    assert!(sync.begin(&mut world));
    let both = [row("r1", "k1", "active"), row("r0", "k2", "active")];
    let done = answer(&mut world, &add, 200, &[json!([{"id": "r0"}]), json!(both)]).unwrap();
    assert_eq!(done, json!({"changed": 1, "unchanged": 1, "unknown": 0}));
    sync.end(&mut world, &[row("r1", "k1", "active")]);
    let shown = show(&mut world, 1, "provider=openai");
    let ids: Vec<_> = shown["keys"]["list"].as_array().unwrap().iter().map(|key| &key["id"]).collect();
    assert_eq!(ids, ["r0", "r1"], "in D1's order");
    world.wait(1);
    assert!(sync.begin(&mut world), "D1 is read again at once");
    sync.end(&mut world, &both[..1]);
    assert_eq!(show(&mut world, 1, "")["providers"][0]["keys"], 1, "and that read counts");
    assert!(!sync.begin(&mut world), "until the next interval");
}

#[test]
fn what_was_learned_yields_to_the_operator() {
    let (mut world, _) = loaded(&[row("r1", "k1", "active"), row("r2", "k2", "active")]);
    let tried = world.serve(0, "openai", "m", |key| match key {
        "k1" => (401, r#"{"error":{"code":"account_deactivated"}}"#),
        _ => (429, r#"{"error":{"code":"insufficient_quota"}}"#),
    });
    assert_eq!(tried.0.len(), 2);
    world.serve(0, "openai", "n", |_| (429, "{}"));
    assert_eq!(world.available_from("openai", "k1", "m"), NEVER);
    let activate = task(&mut world, Verb::Activate, &json!({"ids": ["r1", "gone"]})).unwrap();
    let done = answer(&mut world, &activate, 200, &[json!([{"id": "r1"}])]).unwrap();
    assert_eq!(done, json!({"changed": 1, "unchanged": 0, "unknown": 1}));
    assert_eq!(world.available_from("openai", "k1", "m"), Time(0), "pending or not");
    assert!(world.available_from("openai", "k2", "m") > world.now());
    let clear = task(&mut world, Verb::Clear, &json!({"ids": ["r2"]})).unwrap();
    answer(&mut world, &clear, 200, &[json!([{"id": "r2"}])]).unwrap();
    assert_eq!(world.available_from("openai", "k2", "m"), Time(0));
}

#[test]
fn a_write_that_was_under_way_is_taken_back() {
    let (mut world, mut sync) = loaded(&[row("r1", "k1", "active"), row("r2", "k2", "active")]);
    world.serve(0, "openai", "m", |key| match key {
        "k1" => (401, r#"{"error":{"code":"account_deactivated"}}"#),
        _ => (429, r#"{"error":{"code":"rate_limit_exceeded"}}"#),
    });
    let text = |call: Call| String::from_utf8(call.body).unwrap();
    assert!(text(sync.tick(&mut world).unwrap()).contains("blocked"));
    let activate = task(&mut world, Verb::Activate, &json!({"ids": ["r1"]})).unwrap();
    answer(&mut world, &activate, 200, &[json!([{"id": "r1"}])]).unwrap();
    let undo = text(sync.end(&mut world, &[]).expect("it may have come after the operator's"));
    assert!(undo.contains("SET status = 'active'") && undo.contains("r1"), "{undo}");
    assert!(!undo.contains("r2"), "what the operator has not touched stays written: {undo}");
    world.wait(1);
    let read = text(sync.end(&mut world, &[]).expect("and then D1 is read"));
    assert!(read.contains("SELECT"), "{read}");
    sync.end(&mut world, &[row("r1", "k1", "active"), row("r2", "k2", "active")]);
    assert_eq!(world.available_from("openai", "k1", "m"), Time(0));
    // The same for a cooling.
    world.serve(0, "openai", "n", |_| (429, r#"{"error":{"code":"rate_limit_exceeded"}}"#));
    world.wait(5);
    assert!(text(sync.tick(&mut world).unwrap()).contains("json_patch"));
    let clear = task(&mut world, Verb::Clear, &json!({"ids": ["r1"], "model": "n"})).unwrap();
    answer(&mut world, &clear, 200, &[json!([{"id": "r1"}])]).unwrap();
    let undo = text(sync.end(&mut world, &[]).unwrap());
    assert!(undo.contains("json_object(?2, NULL)") && !undo.contains("r2"), "{undo}");
}

/// A host that runs `then` just before a page of records is next read.
struct Interrupted {
    memory: Rc<Memory>,
    then: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl Store for Interrupted {
    fn get(&self, name: &str) -> Option<(Vec<u8>, u32)> {
        if name.contains("/records/")
            && let Some(then) = self.then.take()
        {
            then();
        }
        self.memory.get(name)
    }

    fn set(&self, name: &str, value: &[u8], cas: Option<u32>) -> bool {
        self.memory.set(name, value, cas)
    }
}

impl Host for Interrupted {
    fn now(&self) -> Time {
        self.memory.now()
    }

    fn random(&self) -> u64 {
        self.memory.random()
    }
}

#[test]
fn an_edit_in_the_midst_of_a_snapshot() {
    let (mut world, _) = loaded(&[row("r1", "k1", "active")]);
    let activate = task(&mut world, Verb::Activate, &json!({"ids": ["r1"]})).unwrap();
    world.wait(70);
    let interrupted = Rc::new(Interrupted { memory: world.host.clone(), then: RefCell::default() });
    let mut pool = Pool::new(world.config.clone(), interrupted.clone());
    let mut syncer = Syncer::new(world.config.clone(), interrupted.clone());
    assert!(syncer.tick(&mut pool).is_some());
    let body = |rows: Value| json!({"success": true, "result": [{"success": true, "results": rows}]}).to_string();
    let (host, config, edited) = (world.host.clone(), world.config.clone(), body(json!([{"id": "r1"}])));
    let edit = move || {
        let mut pool = Pool::new(config.clone(), host.clone());
        let answer = Answer { status: Some(200), retry_after: None, body: edited.as_bytes() };
        activate.answered(&mut pool, &*host, &config, &answer).unwrap();
    };
    interrupted.then.replace(Some(Box::new(edit)));
    // The read includes a block by the Worker, and the operator's edit came afterwards.
    let body = body(json!([row("r1", "k1", "blocked")]));
    let answer = Answer { status: Some(200), retry_after: None, body: body.as_bytes() };
    syncer.answered(&mut pool, &answer);
    assert!(interrupted.then.take().is_none(), "it has happened");
    assert_eq!(world.available_from("openai", "k1", "m"), Time(0));
}

#[test]
fn a_key_that_is_added_again_begins_anew() {
    let (mut world, mut sync) = loaded(&[row("r1", "k1", "active")]);
    world.serve(0, "openai", "m", |_| (401, r#"{"error":{"code":"account_deactivated"}}"#));
    // Before D1 has heard of it, somebody deletes the row there.
    world.wait(70);
    assert!(sync.begin(&mut world), "the block is being written");
    let read = sync.end(&mut world, &[]);
    assert!(read.is_some());
    sync.end(&mut world, &[]);
    let add = task(&mut world, Verb::Add, &json!({"provider": "openai", "keys": ["k1"]})).unwrap();
    answer(&mut world, &add, 200, &[json!([{"id": "r9"}]), json!([row("r9", "k1", "active")])]).unwrap();
    let shown = show(&mut world, 1, "provider=openai");
    assert_eq!(
        (&shown["keys"]["list"][0]["state"], &shown["keys"]["list"][0]["last"]),
        (&json!("ready"), &Value::Null)
    );
}

#[test]
fn one_cooling_is_cleared() {
    let (mut world, _) = loaded(&[row("r1", "k1", "active")]);
    for model in ["m", "n"] {
        world.serve(0, "openai", model, |_| (429, "{}"));
        assert!(world.available_from("openai", "k1", model) > world.now());
    }
    let clear = task(&mut world, Verb::Clear, &json!({"ids": ["r1"], "model": "m"})).unwrap();
    answer(&mut world, &clear, 200, &[json!([{"id": "r1"}])]).unwrap();
    assert_eq!(world.available_from("openai", "k1", "m"), Time(0));
    assert!(world.available_from("openai", "k1", "n") > world.now());
}

#[test]
fn deleted_keys_are_gone_and_forgotten() {
    let (mut world, _) = loaded(&[row("r1", "k1", "blocked"), row("r2", "k2", "blocked"), row("r3", "k3", "active")]);
    let blocked = task(&mut world, Verb::DeleteBlocked, &json!({"provider": "openai"})).unwrap();
    // Somebody has activated r2 in the meantime, so D1 keeps it.
    let done = answer(&mut world, &blocked, 200, &[json!([{"id": "r1"}])]).unwrap();
    assert_eq!(done, json!({"changed": 1, "unchanged": 1, "unknown": 0}));
    assert_eq!(show(&mut world, 1, "")["providers"][0]["keys"], 2);
    assert_eq!(world.available_from("openai", "k1", "m"), Time(0), "if it comes back, it begins anew");
    let delete = task(&mut world, Verb::Delete, &json!({"ids": ["r3"]})).unwrap();
    answer(&mut world, &delete, 200, &[json!([])]).unwrap();
    assert_eq!(show(&mut world, 1, "")["providers"][0]["keys"], 1, "D1 did not have it any more either");
    let nothing = task(&mut world, Verb::Delete, &json!({"ids": ["r3"]})).unwrap();
    assert!(nothing.call(&world.config).is_none());
    let reply = world.ask(0, "openai", "m").err().unwrap();
    assert_eq!(reply.code.as_str(), "all_keys_blocked");
}

#[test]
fn nothing_changes_without_an_acknowledgement() {
    let (mut world, _) = loaded(&[row("r1", "k1", "blocked")]);
    let before = show(&mut world, 1, "provider=openai");
    for (status, code) in [(500, "d1_unavailable"), (429, "d1_unavailable"), (401, "d1_refused"), (400, "d1_refused")] {
        for (verb, body) in [
            (Verb::Delete, json!({"ids": ["r1"]})),
            (Verb::Activate, json!({"ids": ["r1"]})),
            (Verb::DeleteBlocked, json!({})),
            (Verb::Add, json!({"provider": "openai", "keys": ["k2"]})),
        ] {
            let task = task(&mut world, verb, &body).unwrap();
            let reply = answer(&mut world, &task, status, &[json!([{"id": "r1"}])]).unwrap_err();
            assert_eq!(reply.code.as_str(), code, "{verb:?} {status}");
            assert_eq!(show(&mut world, 1, "provider=openai"), before, "{verb:?} {status}");
        }
    }
}

#[test]
fn bodies_that_are_refused() {
    let (mut world, _) = loaded(&[row("r1", "k1", "active")]);
    let many = vec!["x"; 1001];
    for (verb, body, code) in [
        (Verb::Add, json!([]), "422 invalid_edit"),
        (Verb::Add, json!({"keys": ["sk-secret"]}), "422 invalid_edit"),
        (Verb::Add, json!({"provider": "nobody", "keys": ["sk-secret"]}), "404 unknown_provider"),
        (Verb::Add, json!({"provider": "openai", "keys": "sk-secret"}), "422 invalid_edit"),
        (Verb::Add, json!({"provider": "openai", "keys": ["sk-secret", "sk secret"]}), "422 invalid_edit"),
        (Verb::Add, json!({"provider": "openai", "keys": ["sk-secret\n2"]}), "422 invalid_edit"),
        (Verb::Add, json!({"provider": "openai", "keys": ["x".repeat(4097)]}), "422 invalid_edit"),
        (Verb::Add, json!({"provider": "openai", "keys": many}), "422 invalid_edit"),
        (Verb::Add, json!({"provider": "openai", "keys": ["k"], "remark": "a\nb"}), "422 invalid_edit"),
        (Verb::Add, json!({"provider": "openai", "keys": ["k"], "ids": []}), "422 invalid_edit"),
        (Verb::Delete, json!({}), "422 invalid_edit"),
        (Verb::Delete, json!({"ids": []}), "422 invalid_edit"),
        (Verb::Delete, json!({"ids": [1]}), "422 invalid_edit"),
        (Verb::Activate, json!({"ids": many}), "422 invalid_edit"),
        (Verb::Clear, json!({"ids": ["r1"], "model": 1}), "422 invalid_edit"),
        (Verb::DeleteBlocked, json!({"provider": "nobody"}), "404 unknown_provider"),
    ] {
        let reply = task(&mut world, verb, &body).unwrap_err();
        assert_eq!(format!("{} {}", reply.status, reply.code.as_str()), code, "{verb:?} {body}");
        assert!(!reply.message.contains("secret"), "{}", reply.message);
    }
    let mut fresh = self::world("", "", true);
    let reply = task(&mut fresh, Verb::Delete, &json!({"ids": ["r1"]})).unwrap_err();
    assert_eq!((reply.status, reply.code.as_str()), (503, "pool_not_loaded"));
    assert_eq!(edit::too_large().status, 413);
    let mut some = world_with_providers();
    let reply = task(&mut some, Verb::Add, &json!({"provider": "openai", "keys": ["k"]})).unwrap_err();
    assert_eq!((reply.status, reply.code.as_str()), (422, "invalid_edit"), "{}", reply.message);
}

/// Only groq's keys are read from D1.
fn world_with_providers() -> World {
    let mut world = world(r#"{"d1_providers": "groq"}"#, "", true);
    let mut sync = Sync(Syncer::new(world.config.clone(), world.host.clone()));
    assert!(sync.begin(&mut world));
    sync.end(&mut world, &[]);
    world
}
