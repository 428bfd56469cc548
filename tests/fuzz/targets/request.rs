//! Requests: each becomes a request in the target's own form, or is refused with the field's name.
//! A header byte chooses the model.

#![no_main]

mod support;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use one_balance::translate::{self, Options, Refusal, Target, Translated};
use serde::Deserialize;
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let Some((&header, body)) = input.split_first() else { return };
    let (target, model) = support::model(header);
    let options = Options::default();
    if let Some(body) = sound(target, translate::request(target, model, body, &options)) {
        sound_turns(target, &body);
    }
    sound(target, translate::embeddings(target, model, body, &options));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    support::mutate(data, size, max_size, seed, 1)
});

fn sound(target: Target, result: Result<Translated, Refusal>) -> Option<Value> {
    let translated = match result {
        Ok(translated) => translated,
        Err(refusal) => {
            assert!(!refusal.message.is_empty() && !refusal.message.contains('\n'), "{refusal:?}");
            return None;
        }
    };
    let prefix = if target == Target::Gemini { "/v1beta/models/" } else { "/v1/messages" };
    assert!(translated.path.starts_with(prefix), "{}", translated.path);
    assert!(translated.path.bytes().all(|byte| byte.is_ascii_graphic()), "{}", translated.path);
    // It may be some levels deeper than the request, which is limited to 128.
    let mut reader = serde_json::Deserializer::from_slice(&translated.body);
    reader.disable_recursion_limit();
    Some(Value::deserialize(&mut reader).expect("JSON"))
}

/// Checks that there is a turn to answer, and that no neighbours have the same role.
fn sound_turns(target: Target, body: &Value) {
    let turns = body[if target == Target::Gemini { "contents" } else { "messages" }].as_array().expect("turns");
    let roles: Vec<_> = turns.iter().map(|turn| turn["role"].as_str().expect("a role")).collect();
    assert!(!roles.is_empty() && roles.windows(2).all(|pair| pair[0] != pair[1]), "{body}");
    let parts = if target == Target::Gemini { "parts" } else { "content" };
    assert!(turns.iter().all(|turn| turn[parts].as_array().is_some_and(|parts| !parts.is_empty())), "{body}");
}
