//! Telling conversations apart, so that `sticky` selection can keep one on one key.
//!
//! A provider's prompt cache belongs to a key's account and pays when requests that begin alike come
//! with the same key. What tells them apart is, in this order, OpenAI's `prompt_cache_key`, its
//! `user`, or a hash of the conversation's beginning, which stays the same as it grows.

use crate::hash::fnv1a;
use crate::json;

/// How many bytes of a conversation are its beginning: past the usual opening of a system prompt,
/// and before the end of all but the shortest first turns.
const BEGINNING: usize = 1024;

/// A number that the requests of a conversation share; `None` if nothing in the body identifies it.
pub fn of(body: &[u8]) -> Option<u64> {
    let names = ["prompt_cache_key", "user", "system", "systemInstruction", "messages", "contents", "input"];
    let Ok([key, user, beginnings @ ..]) = json::fields(body, names) else { return None };
    let text = |value| body.get(value).unwrap_or_default();
    let named = [key, user].into_iter().flatten().map(text).find(|text| !matches!(*text, b"null" | b"\"\""));
    if let Some(name) = named {
        return Some(hash(name));
    }
    let mut beginning = Vec::with_capacity(BEGINNING);
    for text in beginnings.into_iter().flatten().map(text) {
        let room = BEGINNING - beginning.len();
        beginning.extend_from_slice(text.get(..room).unwrap_or(text));
    }
    (!beginning.is_empty()).then(|| hash(&beginning))
}

fn hash(bytes: &[u8]) -> u64 {
    let hash = fnv1a(bytes.iter().copied());
    // Its low bits are the weak ones, and the keys are picked by the remainder.
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_conversations_apart() {
        let same = |one: &str, other: &str| of(one.as_bytes()) == of(other.as_bytes());
        assert!(same(
            r#"{"prompt_cache_key":"a","messages":[1]}"#,
            r#"{"user":"x","messages":[2],"prompt_cache_key":"a"}"#
        ));
        assert!(same(r#"{"user":"u","messages":[1]}"#, r#"{"user":"u","messages":[2],"prompt_cache_key":null}"#));
        assert!(!same(r#"{"user":"u"}"#, r#"{"user":"v"}"#));
        assert!(!same(r#"{"messages":[{"content":"a"}]}"#, r#"{"messages":[{"content":"b"}]}"#));
        let turn = "x".repeat(BEGINNING);
        let (first, grown) = (format!(r#"{{"contents":["{turn}"]}}"#), format!(r#"{{"contents":["{turn}","more"]}}"#));
        assert!(same(&first, &grown), "a conversation grows at its end");
        for nothing in ["", "{}", "[]", "RIFF", r#"{"model":"m"}"#] {
            assert_eq!(of(nothing.as_bytes()), None, "{nothing}");
        }
    }
}
