//! Tool call ids that carry what the model must see again.
//!
//! Gemini signs a function call, and Anthropic the thinking before it. Both refuse the next turn, or think
//! worse, if the signature is missing. An OpenAI client sends back what it knows: the call's id, name and
//! arguments. So the signature is in the call's `extra_content`, where Google's own OpenAI endpoint puts
//! it, and once more behind the id, because some clients drop unknown fields:
//!
//! ```text
//! call_7f3a_0~google~QUJD      {id}~{provider}~{base64url of the payload}
//! ```
//!
//! No provider's ids have a tilde. The provider gets only the part before it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

/// A payload longer than this many bytes is put only into `extra_content`, because every later request has
/// an id twice.
const PAYLOAD_LIMIT: usize = 16 * 1024;

/// The id with the payload of `provider` behind it.
pub(super) fn join(id: &str, provider: &str, payload: &str) -> String {
    if payload.len() > PAYLOAD_LIMIT {
        return id.to_owned();
    }
    format!("{id}~{provider}~{}", BASE64.encode(payload))
}

/// The id alone.
pub(super) fn plain(id: &str) -> &str {
    id.split_once('~').map_or(id, |(id, _)| id)
}

/// The payload behind an id, if `provider` wrote one.
pub(super) fn payload(id: &str, provider: &str) -> Option<String> {
    let mut parts = id.splitn(3, '~').skip(1);
    let encoded = parts.next().filter(|writer| *writer == provider).and(parts.next())?;
    String::from_utf8(BASE64.decode(encoded).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let id = join("call_1", "google", "a+b/c==");
        assert_eq!((plain(&id), payload(&id, "google").as_deref()), ("call_1", Some("a+b/c==")));
        assert_eq!(payload(&id, "anthropic"), None);
    }

    #[test]
    fn other_ids_carry_nothing() {
        for id in ["", "call_1", "toolu_01", "a~", "a~google", "a~google~***", "a~google~_w"] {
            assert_eq!(payload(id, "google"), None, "{id}");
        }
        assert_eq!(join("call_1", "google", &"x".repeat(PAYLOAD_LIMIT + 1)), "call_1");
    }
}
