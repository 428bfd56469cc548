//! The life of keys, read as transcripts: two workers, one pool, a clock that the test sets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use one_balance::answer::stream::Watcher;
use one_balance::balancer::Next;
use one_balance::http::headers::Headers;
use one_balance::pool::record::{NEVER, Record, Trial};
use one_balance::request::forward::Outgoing;
use one_balance::time::{DailyReset, Span, Time};
use support::{START, Sent, World, id};

const GEMINI: &str = "google-ai-studio";
const OK: (u16, &str) = (200, "{}");
const BARE: (u16, &str) = (429, "{}");

fn world(json: &str, keys: &str) -> World {
    World::new(json, &[("AUTH_KEY", "a"), ("PROVIDER_KEYS", keys)])
}

/// A Google 429 with these quota ids.
fn google(ids: &[&str], delay: &str) -> String {
    let violations: Vec<_> = ids.iter().map(|id| serde_json::json!({"quotaId": id, "quotaValue": "2"})).collect();
    serde_json::json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "quota", "details": [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
    ]}})
    .to_string()
}

const PER_DAY: &str = "GenerateRequestsPerDayPerProjectPerModel-FreeTier";
const PER_MINUTE: &str = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier";

#[test]
fn all_workers_take_turns() {
    let mut world = world("", "openai=k1,k2,k3");
    let keys: Vec<String> = (0..6).map(|turn| world.ask(turn % 2, "openai", "m").unwrap().key()).collect();
    assert_eq!(keys, ["k1", "k2", "k3", "k1", "k2", "k3"]);
}

#[test]
fn what_one_worker_learns_the_other_knows() {
    let mut world = world("", "openai=k1,k2,k3");
    let bad = |key: &str| if key == "k1" { (401, r#"{"error":{"code":"account_deactivated"}}"#) } else { OK };
    assert_eq!(world.serve(0, "openai", "m", bad), (vec!["k1".to_owned(), "k2".to_owned()], 200));
    for _ in 0..4 {
        assert_ne!(world.ask(1, "openai", "m").unwrap().key(), "k1");
    }
    assert_eq!(world.available_from("openai", "k1", "any"), NEVER);
}

#[test]
fn no_key_twice_in_a_request() {
    let mut world = world("", "openai=k1,k2,k3");
    let (mut tried, status) = world.serve(0, "openai", "m", |_| (503, ""));
    tried.sort();
    assert_eq!((tried, status), (vec!["k1".to_owned(), "k2".to_owned(), "k3".to_owned()], 503));
    assert_eq!(world.available_from("openai", "k1", "m"), Time(0), "a 5xx is not the key's fault");
}

#[test]
fn attempts_are_bounded() {
    let keys: Vec<String> = (0..20).map(|number| format!("k{number}")).collect();
    let env = [("AUTH_KEY", "a"), ("PROVIDER_KEYS", &format!("openai={}", keys.join(","))), ("MAX_RETRIES", "4")];
    let mut world = World::new("", &env);
    let others = r#"{"error":{"message":"You do not have permission to access the File abc123"}}"#;
    assert_eq!(world.serve(0, "openai", "m", |_| (403, others)).0.len(), 5);
    assert_eq!(world.serve(0, "openai", "m", |_| (500, "")).0.len(), 4, "a provider that stumbles is not overrun");
}

#[test]
fn when_nothing_is_left() {
    let mut world = world("", "openai=k1;groq=g1");
    let refused = |world: &mut World, slug: &str| {
        let reply = world.ask(0, slug, "m").err().unwrap();
        (reply.status, reply.code.as_str(), reply.retry_after)
    };
    assert_eq!(refused(&mut world, "anthropic"), (503, "no_keys", None));
    let mut sent = world.ask(0, "openai", "m").unwrap();
    let Next::Deliver(headers) = world.answer(&mut sent, 429, &[], "") else { panic!("there is no other key") };
    assert!(headers.contains(&("retry-after", "65".to_owned())), "{headers:?}");
    world.wait(5);
    assert_eq!(refused(&mut world, "openai"), (429, "all_keys_cooling", Some(Span::secs(60))));
    assert!(world.ask(0, "openai", "another").is_ok(), "cooling is per model");
    world.serve(0, "groq", "m", |_| (401, r#"{"error":{"code":"account_deactivated"}}"#));
    assert_eq!(refused(&mut world, "groq"), (503, "all_keys_blocked", None));
}

#[test]
fn try_earliest_does_what_the_worker_does() {
    let mut world = world(r#"{"when_all_cooling":"try_earliest"}"#, "openai=k1");
    assert_eq!(world.serve(0, "openai", "m", |_| BARE).1, 429);
    assert_eq!(world.serve(1, "openai", "m", |_| OK), (vec!["k1".to_owned()], 200));
    assert_eq!(world.available_from("openai", "k1", "m"), Time(0), "a success ends the cooling");
}

#[test]
fn a_429_that_says_nothing_lets_one_request_go_first_and_escalates() {
    let mut world = world("", "google-ai-studio=k1");
    world.serve(0, GEMINI, "m", |_| BARE);
    world.wait(65);
    let mut first = world.ask(0, GEMINI, "m").unwrap();
    assert!(world.ask(1, GEMINI, "m").is_err(), "one goes first");
    world.answer(&mut first, 429, &[], "");
    let reset = DailyReset::MidnightPacific.next(world.now());
    assert_eq!(world.available_from(GEMINI, "k1", "m"), reset, "the second in a row");
}

#[test]
fn a_success_between_resets_the_count() {
    let mut world = world("", "openai=k1");
    for _ in 0..3 {
        world.serve(0, "openai", "m", |_| BARE);
        assert_eq!(world.available_from("openai", "k1", "m"), world.now().plus(Span::secs(65)));
        world.wait(65);
        assert_eq!(world.serve(1, "openai", "m", |_| OK).1, 200);
        world.workers[0].pool.refresh();
        let mut record = world.workers[0].pool.record(id("openai", "k1")).unwrap().clone();
        assert!(record.last_error.take().is_some(), "for people to read");
        assert_eq!(record, Record::default(), "nothing is left to know");
    }
}

#[test]
fn parallel_429s_are_all_counted_and_do_not_escalate() {
    let mut world = world("", "openai=k1");
    let mut all: Vec<Sent> = (0..5).map(|number| world.ask(number % 2, "openai", "m").unwrap()).collect();
    for sent in &mut all {
        world.answer(sent, 429, &[], "");
    }
    world.workers[0].pool.refresh();
    let state = world.workers[0].pool.record(id("openai", "k1")).unwrap().model("m").unwrap();
    assert_eq!(state.consecutive_429, 5);
    assert_eq!(state.cooling.unwrap().until, world.now().plus(Span::secs(65)));
}

#[test]
fn a_stated_minute_never_escalates() {
    let mut world = world("", "google-ai-studio=k1");
    for _ in 0..4 {
        let body = google(&[PER_MINUTE], "21.5s");
        let mut sent = world.ask(0, GEMINI, "m").unwrap();
        world.answer(&mut sent, 429, &[], &body);
        assert_eq!(world.available_from(GEMINI, "k1", "m"), world.now().plus(Span(21_500)));
        world.wait(60);
    }
}

#[test]
fn escalate_always_is_the_workers_way() {
    let mut world = world(r#"{"escalate":"always"}"#, "google-ai-studio=k1");
    for _ in 0..2 {
        let mut sent = world.ask(0, GEMINI, "m").unwrap();
        world.answer(&mut sent, 429, &[], &google(&[PER_MINUTE], "10s"));
        world.wait(60);
    }
    assert_eq!(world.available_from(GEMINI, "k1", "m"), DailyReset::MidnightPacific.next(START));
}

#[test]
fn a_daily_quota_cools_until_midnight_pacific() {
    for (json, delays) in [("", [None, None]), (r#"{"daily_quota":"honour_retry_delay_once"}"#, [Some(20), None])] {
        let mut world = world(json, "google-ai-studio=k1");
        for delay in delays {
            let mut sent = world.ask(0, GEMINI, "m").unwrap();
            world.answer(&mut sent, 429, &[], &google(&[PER_DAY], "20s"));
            let end =
                delay.map_or(DailyReset::MidnightPacific.next(world.now()), |secs| world.now().plus(Span::secs(secs)));
            assert_eq!(world.available_from(GEMINI, "k1", "m"), end, "{json}");
            world.host.now.set(end);
        }
    }
}

/// B3: keys without credit serve OpenRouter's free models.
#[test]
fn spent_credit_is_the_models_and_then_one_request_decides() {
    let mut world = world("", "openai=k1,k2");
    let spent = |key: &str| if key == "k1" { (429, r#"{"error":{"code":"insufficient_quota"}}"#) } else { OK };
    world.serve(0, "openai", "m", spent);
    assert_eq!(world.available_from("openai", "k1", "m"), world.now().plus(Span::secs(86_400)));
    assert_eq!(world.available_from("openai", "k1", "free"), Time(0));
    world.wait(86_400);
    let mut keys: Vec<String> = (0..3).map(|_| world.ask(0, "openai", "m").unwrap().key()).collect();
    keys.sort();
    assert_eq!(keys, ["k1", "k2", "k2"], "one request tries it");
}

/// B1: one request, or one client where there are several, may have caused what it saw.
#[test]
fn a_refused_credential_is_confirmed_by_another_request() {
    let refused = r#"{"error":{"code":"invalid_api_key"}}"#;
    for (auth_key, second_client, blocked) in [("a", 0, true), ("a;b", 0, false), ("a;b", 1, true)] {
        let mut world = World::new("", &[("AUTH_KEY", auth_key), ("PROVIDER_KEYS", "openai=k1")]);
        let ask = |world: &mut World, definition| {
            let outgoing = Outgoing { definition, ..world.outgoing("openai", "m") };
            let mut sent = world.send(0, outgoing).unwrap();
            world.answer(&mut sent, 401, &[], refused);
        };
        ask(&mut world, 0);
        assert_eq!(world.available_from("openai", "k1", "m"), world.now().plus(Span::secs(5)), "it rests briefly");
        world.wait(5);
        ask(&mut world, second_client);
        let until = world.available_from("openai", "k1", "m");
        assert_eq!(until == NEVER, blocked, "{auth_key} {second_client}");
        assert!(blocked || until == world.now().plus(Span::secs(20)), "longer each time");
    }
}

#[test]
fn a_success_between_two_refusals_acquits_the_key() {
    let mut world = world("", "openai=k1");
    let refused = |_: &str| (401, r#"{"error":{"code":"invalid_api_key"}}"#);
    for _ in 0..3 {
        world.serve(0, "openai", "m", refused);
        world.wait(5);
        world.serve(0, "openai", "m", |_| OK);
    }
    assert_eq!(world.available_from("openai", "k1", "m"), Time(0));
}

/// W5, and rule 3: what another key serves is held against the key that does not.
#[test]
fn a_key_without_access_is_known_by_the_success_of_others() {
    let mut world = world("", "openai=k1,k2,k3,k4");
    let only_k4 = |key: &str| if key == "k4" { OK } else { (403, r#"{"error":{"message":"no"}}"#) };
    assert_eq!(world.serve(0, "openai", "m", only_k4), (vec!["k1".into(), "k2".into(), "k3".into()], 403));
    assert_eq!(world.available_from("openai", "k1", "m"), Time(0), "it may be the request");
    assert_eq!(world.serve(0, "openai", "m", only_k4), (vec!["k4".into()], 200));
    let all: Vec<String> = ["k1", "k2", "k3", "k4"].map(str::to_owned).to_vec();
    assert_eq!(world.serve(0, "openai", "m", only_k4), (all, 200), "such refusals use up no tries any more");
    for key in ["k1", "k2", "k3"] {
        assert_eq!(world.available_from("openai", key, "m"), world.now().plus(Span::secs(65)), "{key}");
    }
    assert_eq!(world.available_from("openai", "k1", "other"), Time(0));
    world.wait(65);
    for _ in 0..4 {
        world.serve(0, "openai", "m", only_k4);
    }
    assert_eq!(world.available_from("openai", "k1", "m"), world.now().plus(Span::secs(260)), "longer each time");
}

/// A mistyped model gets the provider's 404 however often it is asked for.
#[test]
fn a_model_that_does_not_exist_cools_nothing() {
    let mut world = world("", "openai=k1,k2,k3,k4");
    let missing = |_: &str| (404, r#"{"error":{"code":"model_not_found","message":"The model `gtp` does not exist"}}"#);
    for _ in 0..10 {
        let (tried, status) = world.serve(0, "openai", "gtp", missing);
        assert_eq!((tried.len(), status), (3, 404));
    }
    assert_eq!(world.serve(0, "openai", "gpt", |_| OK).1, 200);
}

/// B1b: what is not about a model may want another kind of key.
#[test]
fn a_refusal_without_a_model_is_not_the_keys() {
    let mut world = world("", "anthropic=k1,k2,k3,k4");
    let refused =
        |_: &str| (401, r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}"#);
    for _ in 0..10 {
        world.serve(0, "anthropic", "", refused);
        world.wait(1);
    }
    for key in ["k1", "k2", "k3", "k4"] {
        assert_eq!(world.available_from("anthropic", key, "m"), Time(0), "{key}");
    }
}

#[test]
fn an_overloaded_provider_is_tried_again_and_no_key_is_blamed() {
    let mut world = world("", "anthropic=k1,k2,k3,k4,k5");
    let overloaded = |_: &str| (529, r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#);
    let (tried, status) = world.serve(0, "anthropic", "m", overloaded);
    assert_eq!((tried.len(), status), (4, 529), "three more times");
    for key in ["k1", "k2", "k3", "k4", "k5"] {
        assert_eq!(world.available_from("anthropic", key, "m"), Time(0));
    }
    let mut sent = world.ask(0, "anthropic", "m").unwrap();
    let next = world.answer(&mut sent, 529, &[("retry-after", "30")], overloaded("").1);
    assert_eq!(next, Next::Deliver(vec![("retry-after", "30".to_owned())]), "it says when to come back");
}

/// A provider that asks for a longer wait than a request should take is believed.
#[test]
fn a_stumble_that_states_its_end_stops() {
    let mut world = world("", "openai=k1,k2");
    let mut sent = world.ask(0, "openai", "m").unwrap();
    assert_eq!(world.answer(&mut sent, 503, &[("retry-after", "1")], ""), Next::Retry);
    world.attempt(&mut sent).unwrap();
    let mut sent = world.ask(0, "openai", "m").unwrap();
    let after = vec![("retry-after", "60".to_owned())];
    assert_eq!(world.answer(&mut sent, 503, &[("retry-after", "60")], ""), Next::Deliver(after));
}

#[test]
fn nobody_is_blamed() {
    for (status, body) in [
        (
            400,
            r#"{"error":{"code":400,"status":"FAILED_PRECONDITION","message":"User location is not supported for the API use."}}"#,
        ),
        (401, r#"{"error":{"message":"CORS requests are not allowed for this Organization"}}"#),
        (400, r#"{"error":{"message":"bad request"}}"#),
    ] {
        let slug = if status == 400 { GEMINI } else { "anthropic" };
        let mut world = world("", "anthropic=k1,k2;google-ai-studio=k1,k2");
        let mut sent = world.ask(0, slug, "m").unwrap();
        let next = world.answer(&mut sent, status, &[], body);
        assert_ne!(next, Next::Retry, "{body}: the other key would get the same answer");
        for key in ["k1", "k2"] {
            assert_eq!(world.available_from(slug, key, "m"), Time(0), "{body}");
        }
    }
}

#[test]
fn a_refused_gateway_is_not_the_clients_fault() {
    let mut world = world("", "openai=k1,k2");
    let mut sent = world.ask(0, "openai", "m").unwrap();
    sent.exchange.outgoing.through_ai_gateway = true;
    let body = r#"{"name":"AiGatewayError","httpCode":401,"internalCode":2009}"#;
    let Next::Replace(reply) = world.answer(&mut sent, 401, &[], body) else { panic!("ours goes out") };
    assert_eq!((reply.status, reply.code.as_str()), (502, "gateway_refused"));
    assert_eq!(world.available_from("openai", "k1", "m"), Time(0));
}

#[test]
fn a_request_larger_than_the_minute_stops_after_three_keys() {
    let mut world = world("", "google-ai-studio=k1,k2,k3,k4,k5");
    let body: &'static str =
        Box::leak(google(&["GenerateContentInputTokensPerModelPerMinute-FreeTier"], "30s").into_boxed_str());
    let mut sent = world.ask(0, GEMINI, "m").unwrap();
    for _ in 0..2 {
        assert_eq!(world.answer(&mut sent, 429, &[], body), Next::Retry);
        world.attempt(&mut sent).unwrap();
    }
    let after = [("retry-after", "30".to_owned())];
    assert_eq!(world.answer(&mut sent, 429, &[], body), Next::Deliver(after.to_vec()));
}

/// Its own wait is over when that key is ready, and another key is now.
#[test]
fn the_last_429_says_when_the_pool_is_ready() {
    let env = [("AUTH_KEY", "a"), ("PROVIDER_KEYS", "openai=k1,k2,k3"), ("MAX_RETRIES", "1")];
    let mut world = World::new("", &env);
    let mut sent = world.ask(0, "openai", "m").unwrap();
    let long = [("retry-after", "3600")];
    assert_eq!(world.answer(&mut sent, 429, &long, "{}"), Next::Retry);
    world.attempt(&mut sent).unwrap();
    let after = [("retry-after", "1".to_owned())];
    assert_eq!(world.answer(&mut sent, 429, &long, "{}"), Next::Deliver(after.to_vec()));
    assert_eq!(world.serve(0, "openai", "m", |_| OK), (vec!["k3".to_owned()], 200));
}

#[test]
fn many_unexplained_429s_rest_the_provider_and_no_key() {
    let keys: Vec<String> = (0..10).map(|number| format!("k{number}")).collect();
    let mut world = world("", &format!("google-ai-studio={}", keys.join(",")));
    let (tried, status) = world.serve(0, GEMINI, "m", |_| BARE);
    assert_eq!((tried.len(), status), (4, 429), "four keys at once: it is the address");
    for key in &keys {
        assert_eq!(world.available_from(GEMINI, key, "m"), Time(0));
    }
    let reply = world.ask(1, GEMINI, "m").err().unwrap();
    assert_eq!((reply.code.as_str(), reply.retry_after), ("provider_resting", Some(Span::secs(2))));
    world.wait(2);
    assert_eq!(world.serve(1, GEMINI, "m", |_| BARE).0.len(), 1, "still the address: one is enough to see it");
    world.wait(2);
    assert_eq!(world.serve(0, GEMINI, "m", |_| OK).1, 200);
    assert_eq!(world.serve(1, GEMINI, "n", |_| OK).1, 200);
}

#[test]
fn many_refused_keys_at_once_are_not_blocked() {
    let keys: Vec<String> = (0..8).map(|number| format!("k{number}")).collect();
    let mut world = world("", &format!("openai={}", keys.join(",")));
    world.serve(0, "openai", "m", |_| (401, r#"{"error":{"code":"account_deactivated"}}"#));
    let blocked = keys.iter().filter(|key| world.available_from("openai", key, "m") == NEVER).count();
    assert_eq!(blocked, 4);
}

#[test]
fn a_learned_limit_spares_the_other_keys() {
    let mut world = world("", "google-ai-studio=k1,k2,k3");
    let mut limited = 0;
    for turn in 0..12 {
        let Ok(mut sent) = world.ask(turn % 2, GEMINI, "m") else { continue };
        // Each key may be used twice a minute.
        if turn == 6 {
            let next = world.answer(&mut sent, 429, &[], &google(&[PER_MINUTE], "50s"));
            // The other two are found full without being asked.
            assert_eq!(next, Next::Retry);
            assert_eq!(world.attempt(&mut sent).err().unwrap().code.as_str(), "all_keys_cooling");
            limited += 1;
        } else {
            assert!(turn < 6, "every key is at its quota");
            world.answer(&mut sent, 200, &[], "");
        }
    }
    assert_eq!(limited, 1);
    world.wait(60);
    assert!(world.ask(0, GEMINI, "m").is_ok(), "the next minute");
}

#[test]
fn a_configured_quota_wins() {
    let json = r#"{"providers":{"openai":{"quota":{"rpm":1,"models":{"big":{"rpd":1}}}}}}"#;
    let mut world = world(json, "openai=k1");
    let mut sent = world.ask(0, "openai", "m").unwrap();
    world.answer(&mut sent, 200, &[("x-ratelimit-limit-requests", "500"), ("x-ratelimit-reset-requests", "1s")], "");
    assert_eq!(world.ask(1, "openai", "m").err().unwrap().status, 429);
    world.wait(61);
    assert!(world.ask(1, "openai", "m").is_ok());
    assert!(world.ask(1, "openai", "big").is_ok());
    world.wait(3600);
    assert!(world.ask(1, "openai", "big").is_err(), "one a day");
}

#[test]
fn a_lease_that_no_attempt_took_goes_back() {
    let mut world = world(r#"{"providers":{"openai":{"quota":{"rpm":1}}}}"#, "openai=k1");
    let outgoing = world.outgoing("openai", "m");
    let mut admitted = world.admit(0, outgoing).unwrap();
    // Both workers know that the key is full.
    for worker in 0..2 {
        assert_eq!(world.ask(worker, "openai", "m").err().unwrap().code.as_str(), "all_keys_cooling");
    }
    world.ended(&mut admitted);
    let mut sent = world.ask(1, "openai", "m").unwrap();
    world.answer(&mut sent, 200, &[], "{}");
    world.ended(&mut sent);
    assert_eq!(world.ask(0, "openai", "m").err().unwrap().code.as_str(), "all_keys_cooling", "it was served");
}

/// D1 may take a key out of the pool between its lease and the attempt.
#[test]
fn a_key_that_has_left_the_pool_is_replaced_by_another() {
    let mut before = world("", "openai=k1,k2");
    let outgoing = before.outgoing("openai", "m");
    let admitted = before.admit(0, outgoing).unwrap();
    let mut after = world("", "openai=k2");
    let mut sent = Sent { worker: 0, ..admitted };
    after.attempt(&mut sent).unwrap();
    assert_eq!(sent.key(), "k2");
}

#[test]
fn an_error_that_shows_the_key_is_withheld() {
    let mut world = world("", "openai=sk-0123456789abcdef;groq=short");
    for (slug, body, withheld) in [
        ("openai", r#"{"error":"you sent sk-0123456789abcdef"}"#, true),
        ("openai", r#"{"error":"you sent sk-0123456789abcde"}"#, false),
        ("groq", r#"{"error":"the text is too short"}"#, false),
    ] {
        let mut sent = world.ask(0, slug, "m").unwrap();
        let next = world.answer(&mut sent, 400, &[], body);
        match next {
            Next::Replace(reply) => {
                assert_eq!((reply.status, reply.code.as_str(), withheld), (400, "provider_error_withheld", true))
            }
            next => assert_eq!((next, withheld), (Next::Deliver(Vec::new()), false), "{body}"),
        }
        assert_eq!(sent.result(), "caller_error");
    }
}

#[test]
fn a_client_that_goes_away_does_not_take_the_key_with_it() {
    let mut world = world("", "openai=k1");
    world.serve(0, "openai", "m", |_| BARE);
    world.wait(65);
    let mut first = world.ask(0, "openai", "m").unwrap();
    assert!(world.ask(1, "openai", "m").is_err(), "one goes first");
    world.ended(&mut first);
    assert!(world.ask(1, "openai", "m").is_ok(), "and is gone");
}

#[test]
fn an_attempt_that_envoy_gave_up_does_not_take_the_key_with_it() {
    for upgrade in [false, true] {
        let mut world = world(r#"{"providers":{"openai":{"quota":{"rpm":2}}}}"#, "openai=k1");
        world.serve(0, "openai", "m", |_| BARE);
        world.wait(65);
        let mut first = world.ask(0, "openai", "m").unwrap();
        assert!(world.ask(1, "openai", "m").is_err(), "one goes first");
        let worker = &mut world.workers[0];
        if upgrade {
            worker.passed_by_envoy(&mut first.exchange);
        } else {
            let headers = Headers::from_iter([(":status", "503")]);
            let reply = worker.answered_by_envoy(&headers, Some(&mut first.exchange));
            assert_eq!(reply.code.as_str(), "provider_unreachable");
        }
        worker.ended(&mut first.exchange);
        world.serve(1, "openai", "m", |_| (200, "{}"));
        assert_eq!(world.ask(0, "openai", "m").is_err(), upgrade, "what had no answer has cost nothing");
    }
}

#[test]
fn what_finds_no_fault_is_served() {
    let mut world = world("", "openai=k1");
    for (status, result) in [(101, "served"), (200, "served"), (302, "served"), (304, "served"), (400, "caller_error")]
    {
        let mut sent = world.ask(0, "openai", "m").unwrap();
        assert_eq!(world.answer(&mut sent, status, &[], ""), Next::Deliver(Vec::new()));
        assert_eq!(sent.result(), result, "{status}");
    }
}

#[test]
fn remaining_0_on_a_success_cools_before_the_first_429() {
    let mut world = world("", "groq=k1");
    let mut sent = world.ask(0, "groq", "m").unwrap();
    world.answer(
        &mut sent,
        200,
        &[
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "7.5s"),
            ("x-ratelimit-limit-tokens", "6000"),
        ],
        "",
    );
    assert_eq!(world.available_from("groq", "k1", "m"), world.now().plus(Span(7500)));
    let record = world.workers[0].pool.record(id("groq", "k1")).unwrap();
    assert_eq!(record.model("m").unwrap().cooling.unwrap().trial, Trial::Believed);
}

#[test]
fn selection_policies() {
    let picked = |selection: &str, requests: &[Option<u64>]| -> Vec<String> {
        let json = format!(r#"{{"selection":"{selection}"}}"#);
        let mut world = world(&json, "openai=k0,k1,k2,k3,k4");
        let mut pick = |conversation: &Option<u64>| {
            let outgoing = Outgoing { conversation: *conversation, ..world.outgoing("openai", "m") };
            world.send(0, outgoing).unwrap().key()
        };
        requests.iter().map(&mut pick).collect()
    };
    assert_eq!(picked("sticky", &[Some(12), Some(12), Some(8), Some(12)]), ["k2", "k2", "k3", "k2"]);
    assert_eq!(picked("sticky", &[None, None]), ["k0", "k1"], "without a conversation in turn");
    assert_eq!(picked("random", &[None]), ["k2"], "7 % 5");
    // 7 % 5 and (7 >> 32) % 5: k2 and k0 are compared, and the less used is taken.
    assert_eq!(picked("least_used", &[None, None, None]), ["k2", "k0", "k2"]);
}

#[test]
fn sticky_composes_with_failover() {
    let mut world = world(r#"{"selection":"sticky"}"#, "openai=k0,k1,k2");
    let outgoing = Outgoing { conversation: Some(4), ..world.outgoing("openai", "m") };
    let mut sent = world.send(0, outgoing.clone()).unwrap();
    assert_eq!(sent.key(), "k1");
    assert_eq!(world.answer(&mut sent, 429, &[], ""), Next::Retry);
    world.attempt(&mut sent).unwrap();
    assert_eq!(sent.key(), "k2");
    assert_eq!(world.send(1, outgoing).unwrap().key(), "k2", "while k1 cools");
}

#[test]
fn weights() {
    let k1 = id("openai", "k1");
    let json = format!(r#"{{"providers":{{"openai":{{"weights":{{"{k1}":3}}}}}}}}"#);
    let mut world = world(&json, "openai=k0,k1");
    let keys: Vec<String> = (0..8).map(|turn| world.ask(turn % 2, "openai", "m").unwrap().key()).collect();
    assert_eq!(keys.iter().filter(|key| *key == "k1").count(), 6, "{keys:?}");
}

#[test]
fn reset_before_any_answer_tries_the_next_key() {
    let mut world = world("", "openai=k1,k2");
    let mut sent = world.ask(0, "openai", "m").unwrap();
    world.attempt(&mut sent).unwrap();
    assert_eq!(sent.key(), "k2");
    let reply = world.attempt(&mut sent).err().unwrap();
    assert_eq!((reply.status, reply.code.as_str()), (502, "provider_unreachable"));
    assert_eq!(world.available_from("openai", "k1", "m"), Time(0));
}

#[test]
fn an_attempt_costs_the_same_with_ten_keys_and_ten_thousand() {
    let calls = |count: usize| {
        let keys: Vec<String> = (0..count).map(|number| format!("k{number}")).collect();
        let mut world = world("", &format!("openai={}", keys.join(",")));
        world.ask(0, "openai", "m").unwrap();
        let before = world.host.calls.get();
        let mut sent = world.ask(0, "openai", "m").unwrap();
        world.answer(&mut sent, 200, &[], "");
        world.host.calls.get() - before
    };
    // The board is read and its cursor moved; the key's count is read and written.
    assert_eq!((calls(10), calls(10_000)), (4, 4));
}

#[test]
fn a_new_configuration_keeps_what_is_known() {
    let mut world = world("", "openai=k1,k2");
    world.serve(
        0,
        "openai",
        "m",
        |key| if key == "k1" { (401, r#"{"error":{"code":"account_deactivated"}}"#) } else { OK },
    );
    let env = |name: &str| match name {
        "AUTH_KEY" => Some("a".to_owned()),
        "PROVIDER_KEYS" => Some("openai=k3,k1".to_owned()),
        _ => None,
    };
    one_balance::pool::create_state(&*world.host);
    let config = std::rc::Rc::new(one_balance::config::Config::parse(b"", env).unwrap());
    world.workers[0] = one_balance::balancer::Balancer::new(config, world.host.clone());
    for _ in 0..3 {
        assert_eq!(world.ask(0, "openai", "m").unwrap().key(), "k3", "k1 is still blocked, k2 has left");
    }
}

#[test]
fn a_late_failure_takes_no_count_of_others() {
    let json = r#"{"providers": {"openai": {"quota": {"tpm": 2500}}}}"#;
    let mut world = world(json, "openai=k1");
    let ask = |world: &mut World| {
        let outgoing = Outgoing { tokens: 1000, ..world.outgoing("openai", "m") };
        world.send(0, outgoing)
    };
    let (mut first, _second) = (ask(&mut world).unwrap(), ask(&mut world).unwrap());
    let mut watcher = Watcher::new(&Headers::from_iter([("content-type", "application/json")]));
    let body = br#"{"usage":{"prompt_tokens":100,"completion_tokens":0},"error":{"message":"x","code":500}}"#;
    let verdict = watcher.see(body, first.exchange.outgoing.upstream.provider, || world.now()).unwrap();
    world.workers[0].failed_late(&mut first.exchange, &verdict);
    world.served(&mut first, watcher.usage().unwrap());
    // 1000 of the second and 100 of the first; a quarter more than 1000 must fit.
    let _third = ask(&mut world).unwrap();
    assert_eq!(
        ask(&mut world).map(|sent| sent.key()).unwrap_err().code.as_str(),
        "all_keys_cooling",
        "2100 and 1250 are more than 2500"
    );
}

/// A provider may bill each attempt that it has worked on, so a slow answer is asked for twice at most.
#[test]
fn a_slow_answer_is_asked_for_twice() {
    for (seconds, attempts, code) in [(600, 2, "provider_timeout"), (10, 4, "provider_unreachable")] {
        let mut world = world("", "openai=k1,k2,k3,k4");
        let mut sent = world.ask(0, "openai", "m").unwrap();
        let reply = loop {
            world.wait(seconds);
            if let Err(reply) = world.attempt(&mut sent) {
                break reply;
            }
        };
        assert_eq!((sent.exchange.progress.tried.len(), reply.code.as_str()), (attempts, code));
        assert!(reply.message.contains(&format!("{attempts} attempts")), "{}", reply.message);
    }
    // One slow attempt is made up for by the next key.
    let mut world = world("", "openai=k1,k2");
    let mut sent = world.ask(0, "openai", "m").unwrap();
    world.wait(600);
    world.attempt(&mut sent).unwrap();
    assert_eq!(world.answer(&mut sent, 200, &[], "{}"), Next::Deliver(Vec::new()));
}
