//! What one client can do to others: whatever a provider answers to what a client can send, the keys stay ready
//! for everybody else's models.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use one_balance::balancer::Next;
use one_balance::balancer::lifecycle::MAX_GUESSES;
use one_balance::request::forward::Outgoing;
use one_balance::time::Time;
use proptest::prelude::*;
use support::World;

const KEYS: usize = 12;
/// Answers that a request can cause, by what it names, how it is sent or how large it is; cases.md A and B.
const CAUSED: &[(u16, &str)] = &[
    (400, r#"{"error":{"message":"Invalid value","type":"invalid_request_error"}}"#),
    (
        400,
        r#"{"error":{"code":400,"status":"FAILED_PRECONDITION","message":"User location is not supported for the API use."}}"#,
    ),
    (401, ""),
    (401, "\u{8}\u{3}\u{12}\u{5}proto"),
    (401, r#"{"error":{"code":401,"message":"Access denied due to invalid subscription key or wrong API endpoint."}}"#),
    (401, r#"{"error":{"message":"You have insufficient permissions for this operation. Missing scopes: x"}}"#),
    (402, r#"{"error":{"message":"Prompt tokens limit exceeded: 230799 > 91442.","code":402}}"#),
    (
        402,
        r#"{"error":{"message":"This request requires more credits, or fewer max_tokens. You requested up to 9, but can only afford 3."}}"#,
    ),
    (402, r#"{"error":{"message":"Insufficient credits. This account never purchased credits.","code":402}}"#),
    (403, ""),
    (
        403,
        r#"{"error":{"code":403,"status":"PERMISSION_DENIED","message":"Caller does not have required permission to use project evil."}}"#,
    ),
    (
        403,
        r#"{"error":{"code":403,"message":"You do not have permission to access the File abc123 or it may not exist.","status":"PERMISSION_DENIED"}}"#,
    ),
    (
        403,
        r#"{"code":"The caller does not have permission","error":"Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}"#,
    ),
    (404, r#"{"error":{"code":"model_not_found","message":"The model does not exist"}}"#),
    (404, r#"{"error":{"message":"No such File object: file-abc"}}"#),
    (413, r#"{"error":{"message":"Request too large"}}"#),
    (429, r#"{"error":{"message":"Resource has been exhausted (e.g. check quota)."}}"#),
    (429, ""),
    (500, r#"{"error":{"code":500,"status":"INTERNAL"}}"#),
    (503, ""),
    (529, ""),
];

/// What a healthy key is told where another kind of key is wanted: paths without a model.
const WANTS_ANOTHER_KEY: (u16, &str) =
    (401, r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}"#);

/// One request of the client: its model, and which answer each attempt gets.
fn requests() -> impl Strategy<Value = Vec<(u8, Vec<prop::sample::Index>, u64)>> {
    let answers = prop::collection::vec(any::<prop::sample::Index>(), 1..4);
    prop::collection::vec((0u8..6, answers, 0u64..90), 1..60)
}

fn unready(world: &mut World, model: &str) -> usize {
    let now = world.now();
    (0..KEYS).filter(|number| world.available_from("openai", &format!("key-{number}"), model) > now).count()
}

/// A client sends what it likes. `single`: there is no other AUTH_KEY.
fn attack(single: bool, requests: &[(u8, Vec<prop::sample::Index>, u64)]) -> Result<(), TestCaseError> {
    let keys: Vec<String> = (0..KEYS).map(|number| format!("key-{number}")).collect();
    let auth_key = if single { "hostile" } else { "hostile;honest" };
    let env = [("AUTH_KEY", auth_key), ("PROVIDER_KEYS", &format!("openai={}", keys.join(",")))];
    let mut world = World::new("", &env);
    for (model, answers, wait) in requests {
        let model = if *model == 0 { String::new() } else { format!("bad-{model}") };
        let outgoing = Outgoing { definition: 0, ..world.outgoing("openai", &model) };
        if let Ok(mut sent) = world.send(0, outgoing) {
            for answer in answers.iter().cycle() {
                let wants_another = model.is_empty() && answer.index(2) == 0;
                let (status, body) = if wants_another { &WANTS_ANOTHER_KEY } else { answer.get(CAUSED) };
                if world.answer(&mut sent, *status, &[], body) != Next::Retry || world.attempt(&mut sent).is_err() {
                    break;
                }
            }
            prop_assert!(sent.exchange.progress.guesses <= MAX_GUESSES);
            world.ended(&mut sent);
        }
        let unready = unready(&mut world, "good");
        prop_assert_eq!(unready, 0, "keys are not ready for the model of others");
        prop_assert!(world.ask(1, "openai", "good").is_ok(), "an innocent request has a key");
        world.wait(*wait);
    }
    for number in 0..KEYS {
        let until = world.available_from("openai", &format!("key-{number}"), "good");
        prop_assert!(until != one_balance::pool::record::NEVER, "no key is blocked");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn one_client_takes_nothing_from_others(single: bool, requests in requests()) {
        attack(single, &requests)?;
    }
}

/// The guilty are still dealt with: keys that are really dead leave within a few requests.
#[test]
fn dead_keys_leave() {
    let env = [("AUTH_KEY", "a"), ("PROVIDER_KEYS", "openai=dead-1,dead-2,good")];
    let mut world = World::new("", &env);
    let provider =
        |key: &str| if key == "good" { (200, "{}") } else { (401, r#"{"error":{"code":"invalid_api_key"}}"#) };
    for _ in 0..6 {
        assert_eq!(world.serve(0, "openai", "m", provider).1, 200);
        world.wait(5);
    }
    for key in ["dead-1", "dead-2"] {
        assert_eq!(world.available_from("openai", key, "m"), one_balance::pool::record::NEVER, "{key}");
    }
    assert_eq!(world.available_from("openai", "good", "m"), Time(0));
}
