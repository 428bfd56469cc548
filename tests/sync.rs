//! The sync with D1, as transcripts: two workers of one Envoy, with answers written by hand. tests/e2e shows what the
//! statements do to a real D1.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use one_balance::balancer::Next;
use one_balance::d1::api::Failure;
use one_balance::d1::{Answer, Call, Status, Syncer, edit};
use one_balance::pool::record::NEVER;
use one_balance::time::{Span, Time};
use serde_json::{Value, json};
use support::World;

struct Sync {
    world: World,
    syncers: Vec<Syncer>,
}

fn sync(keys: &str) -> Sync {
    let env = [
        ("AUTH_KEY", "a"),
        ("PROVIDER_KEYS", keys),
        ("D1_ACCOUNT_ID", "acc"),
        ("D1_DATABASE_ID", "db"),
        ("D1_API_TOKEN", "t"),
    ];
    let world = World::new("", &env);
    let syncers: Vec<Syncer> = (1..=2)
        .map(|worker| {
            world.host.random.set(worker);
            Syncer::new(world.config.clone(), world.host.clone())
        })
        .collect();
    world.host.random.set(0);
    Sync { world, syncers }
}

impl Sync {
    fn tick(&mut self, worker: usize) -> Option<Call> {
        let pool = &mut self.world.workers[worker].pool;
        self.syncers[worker].tick(pool)
    }

    fn answered(&mut self, worker: usize, answer: &Answer) -> Option<Call> {
        let pool = &mut self.world.workers[worker].pool;
        self.syncers[worker].answered(pool, answer)
    }

    fn rows(&mut self, worker: usize, rows: &[Value]) -> Option<Call> {
        let body = json!({"success": true, "result": [{"success": true, "results": rows}]}).to_string();
        self.answered(worker, &Answer { status: Some(200), retry_after: None, body: body.as_bytes() })
    }

    fn done(&mut self, worker: usize) -> Option<Call> {
        self.rows(worker, &[])
    }

    /// A complete read of the table by the first worker; the table has these rows.
    fn load(&mut self, rows: &[Value]) {
        self.tick(0).expect("it is time to read");
        assert!(self.rows(0, rows).is_none(), "one page");
    }

    fn status(&self) -> Status {
        Status::read(&*self.world.host)
    }
}

fn row(id: &str, key: &str, status: &str, coolings: Value) -> Value {
    let coolings = if coolings.is_null() { coolings } else { Value::from(coolings.to_string()) };
    json!({"id": id, "key": key, "provider": "openai", "status": status, "model_coolings": coolings, "remark": null})
}

fn active(id: &str, key: &str) -> Value {
    row(id, key, "active", Value::Null)
}

fn params(call: &Call) -> Vec<Vec<String>> {
    let body: Value = serde_json::from_slice(&call.body).unwrap();
    let statements = body["batch"].as_array().cloned().unwrap_or_else(|| vec![body]);
    let texts = |statement: &Value| {
        statement["params"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    statements.iter().map(texts).collect()
}

#[test]
fn keys_are_read_and_every_worker_has_them() {
    let mut sync = sync("");
    let reply = sync.world.ask(1, "openai", "m").err().unwrap();
    assert_eq!((reply.status, reply.code.as_str()), (503, "pool_not_loaded"));
    let call = sync.tick(0).unwrap();
    assert_eq!(call.path, "/client/v4/accounts/acc/d1/database/db/query");
    assert!(sync.tick(0).is_none(), "one call at a time");
    assert!(sync.tick(1).is_none(), "one worker talks");
    sync.rows(0, &[active("r1", "k1"), row("r2", "k2", "blocked", Value::Null)]);
    let sent = sync.world.ask(1, "openai", "m").unwrap();
    assert_eq!(sent.key(), "k1");
    let marks = sync.world.workers[1].answer_headers(&sent.exchange.progress);
    assert!(marks.contains(&("x-one-balance-key-id", "r1".to_owned())), "{marks:?}");
    assert_eq!(sync.world.available_from("openai", "k2", "m"), NEVER);
    sync.world.wait(53);
    assert!(sync.tick(0).is_none());
    sync.world.wait(1);
    assert!(sync.tick(0).is_some(), "the next interval, 10 % early with this random number");
}

#[test]
fn a_snapshot_replaces_the_last_as_a_whole_or_not_at_all() {
    let mut sync = sync("");
    sync.load(&[active("r1", "k1")]);
    sync.world.wait(70);
    sync.tick(0).unwrap();
    let page: Vec<Value> = (0..1000).map(|number| active(&format!("r{number:04}"), &format!("n{number}"))).collect();
    let next = sync.rows(0, &page).expect("a full page is followed by another");
    assert_eq!(params(&next)[0][0], "r0999");
    assert!(sync.answered(0, &Answer { status: Some(500), ..Answer::default() }).is_none());
    assert_eq!(sync.world.ask(1, "openai", "m").unwrap().key(), "k1", "the old one is in force");
    assert_eq!(sync.status().failure, Some(Failure::Server));
    sync.world.wait(10);
    sync.tick(0).unwrap();
    sync.rows(0, &page).unwrap();
    sync.rows(0, &[active("r1000", "n1000")]);
    sync.world.workers[1].pool.refresh();
    assert_eq!(sync.world.workers[1].pool.roster().keys("openai").len(), 1001);
    assert_eq!(sync.status().failure, None);
}

#[test]
fn what_was_learned_is_written_once() {
    let mut sync = sync("openai=only-here");
    sync.load(&[active("r1", "k1"), active("r2", "k2")]);
    let (tried, _) = sync.world.serve(1, "openai", "m.\"[x]", |key| match key {
        "k1" => (401, r#"{"error":{"code":"account_deactivated"}}"#),
        "k2" => (429, "{}"),
        _ => (200, "{}"),
    });
    assert_eq!(tried.len(), 3.min(tried.len()));
    // Round robin may have served the request before both keys were tried.
    while sync.world.available_from("openai", "k2", "m.\"[x]") == Time(0)
        || sync.world.available_from("openai", "k1", "m") == Time(0)
    {
        sync.world.serve(1, "openai", "m.\"[x]", |key| match key {
            "k1" => (401, r#"{"error":{"code":"account_deactivated"}}"#),
            "k2" => (429, "{}"),
            _ => (200, "{}"),
        });
    }
    let began = sync.world.now();
    let call = sync.tick(0).expect("a block is urgent");
    let (from, until) = (began.as_secs().to_string(), began.plus(Span::secs(65)).as_secs().to_string());
    assert_eq!(params(&call), [vec!["r1".to_owned()], vec!["r2".into(), "m.\"[x]".into(), from, until]]);
    assert_eq!(sync.status().outbox, 2);
    assert!(sync.done(0).is_none());
    sync.world.wait(1);
    assert!(sync.tick(0).is_none(), "it is acknowledged");
    assert_eq!(sync.status().outbox, 0);
}

#[test]
fn coolings_wait_a_moment_for_others() {
    let mut sync = sync("");
    sync.load(&[active("r1", "k1")]);
    sync.world.serve(0, "openai", "m", |_| (429, "{}"));
    assert!(sync.tick(0).is_none());
    sync.world.wait(3);
    sync.world.serve(0, "openai", "n", |_| (429, "{}"));
    assert_eq!(params(&sync.tick(0).unwrap()).len(), 2);
}

#[test]
fn a_change_by_a_person_takes_effect_at_the_next_sync() {
    let mut sync = sync("");
    sync.load(&[active("r1", "k1")]);
    sync.world.serve(0, "openai", "m", |_| (401, r#"{"error":{"code":"account_deactivated"}}"#));
    sync.world.wait(70);
    sync.tick(0).expect("the block is sent first");
    // The answer to the write is lost: a read still must not unblock.
    sync.answered(0, &Answer::default());
    sync.world.wait(10);
    sync.tick(0).expect("it is sent again");
    assert!(sync.done(0).is_some(), "a read is due, too");
    sync.rows(0, &[active("r1", "k1")]);
    assert_eq!(sync.world.available_from("openai", "k1", "m"), NEVER, "it began with the acknowledgement");
    sync.world.wait(70);
    sync.load(&[active("r1", "k1")]);
    assert_eq!(sync.world.available_from("openai", "k1", "m"), Time(0), "re-activated in the Worker's pages");
    sync.world.wait(70);
    sync.load(&[]);
    assert_eq!(sync.world.ask(0, "openai", "m").err().unwrap().code.as_str(), "no_keys", "deleted there");
}

#[test]
fn a_read_that_began_before_the_acknowledgement_decides_nothing() {
    let mut sync = sync("");
    sync.load(&[active("r1", "k1")]);
    let mut sent = sync.world.ask(0, "openai", "m").unwrap();
    sync.world.wait(70);
    sync.tick(0).expect("a read");
    let next = sync.world.answer(&mut sent, 401, &[], r#"{"error":{"code":"account_deactivated"}}"#);
    assert!(matches!(next, Next::Replace(_)));
    sync.rows(0, &[active("r1", "k1")]);
    assert_eq!(sync.world.available_from("openai", "k1", "m"), NEVER);
}

#[test]
fn what_others_learned_takes_effect() {
    let mut sync = sync("");
    let end = sync.world.now().plus(Span::secs(100)).as_secs();
    sync.load(&[row("r1", "k1", "active", json!({"m": {"end_at": end as f64, "total_seconds": 65.0}}))]);
    assert_eq!(sync.world.available_from("openai", "k1", "m"), Time::from_secs(end));
    assert!(sync.tick(0).is_none(), "and not sent back");
}

#[test]
fn calls_back_off_while_d1_is_unavailable() {
    let mut sync = sync("openai=k0");
    let mut calls = 0;
    for _ in 0..600 {
        if sync.tick(0).is_some() {
            calls += 1;
            sync.answered(0, &Answer::default());
        }
        sync.world.wait(1);
    }
    // 2 + 4 + 8 + … s, then every 120 s, 10 % less for the jitter: 6 calls in two minutes, and 4 or 5 more.
    assert!((9..=12).contains(&calls), "{calls} calls in ten minutes");
    assert_eq!(sync.status().failure, Some(Failure::Unreachable));
    assert_eq!(sync.world.ask(1, "openai", "m").unwrap().key(), "k0", "the configuration's keys serve");
    sync.world.wait(130);
    sync.tick(0).unwrap();
    sync.answered(0, &Answer { status: Some(429), retry_after: Some(300), body: b"" });
    sync.world.wait(299);
    assert!(sync.tick(0).is_none(), "retry-after is honoured");
    sync.world.wait(1);
    assert!(sync.tick(0).is_some());
}

#[test]
fn another_worker_takes_over() {
    let mut sync = sync("");
    sync.load(&[active("r1", "k1")]);
    sync.world.serve(0, "openai", "m", |_| (401, r#"{"error":{"code":"account_deactivated"}}"#));
    sync.tick(0).expect("the block is on its way");
    // The holder dies between sending the call and receiving the answer.
    sync.world.wait(9);
    assert!(sync.tick(1).is_none());
    sync.world.wait(1);
    let again = sync.tick(1).expect("the lease has ended");
    assert_eq!(params(&again), [["r1"]], "sent again, which adds nothing");
}

#[test]
fn calls_are_bounded() {
    let mut sync = sync("");
    sync.load(&[active("r1", "k1")]);
    let mut calls = 0;
    // A new cooling every second for five minutes, and D1 answers at once.
    for second in 0..300 {
        let model = format!("m{second}");
        sync.world.serve(0, "openai", &model, |_| (429, "{}"));
        while sync.tick(0).is_some() {
            calls += 1;
            sync.rows(0, &[active("r1", "k1")]);
        }
        sync.world.wait(1);
    }
    assert!((80..=240).contains(&calls), "{calls} calls in five minutes, of 1,200 allowed for the account");
}

/// A table of somebody else's rows is read to the same end as one of keys.
#[test]
fn rows_that_are_passed_over_have_an_end() {
    let mut sync = sync("");
    let page: Vec<Value> = (0..1000).map(|number| row(&format!("r{number:04}"), "k", "paused", json!(null))).collect();
    sync.tick(0).unwrap();
    let pages = 1 + (0..20).take_while(|_| sync.rows(0, &page).is_some()).count();
    assert_eq!(pages, 10);
}

#[test]
fn a_read_begins_only_if_all_its_pages_are_within_the_limit() {
    let mut sync = sync("");
    let mut calls = 0;
    for _ in 0..290 {
        calls += usize::from(sync.tick(0).is_some());
        sync.rows(0, &[active("r1", "k1")]);
        // An operator's edit makes the next read due at once.
        edit::mark_edited(&*sync.world.host);
        sync.world.wait(1);
    }
    assert_eq!(calls, 240 - 10 + 1);
}
