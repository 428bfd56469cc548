//! Providers' errors as OpenAI's: `{"error": {message, type, param, code}}`.
//!
//! The message stays the provider's, except anything that looks like a key, because Google's answer about a
//! suspended key quotes the whole key.

use serde_json::{Value, json};

use crate::json::Node;
use crate::reply::openai_error;

/// The error that an answer with a successful status has in place of a result, as the value of `error`.
pub(super) fn of(answer: Node) -> Option<Value> {
    // Google wraps errors in an array if the request was for a stream.
    let error = answer.items().next().unwrap_or(answer).get("error").filter(|error| error.is_object())?.to_value();
    Some(translate(status_of(&error), &error))
}

/// An error answer's body as OpenAI writes it.
pub(super) fn body(status: u16, body: &[u8]) -> Value {
    let json = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let answer = unwrapped(&json);
    // Cloudflare has a list of errors there, and others have the message beside it or in its place.
    let error = answer.get("error").map(unwrapped).filter(|error| error.is_object());
    json!({"error": translate(status, error.unwrap_or(answer))})
}

/// The first value of an array, or the value itself if it is not an array.
fn unwrapped(value: &Value) -> &Value {
    value.as_array().and_then(|list| list.first()).unwrap_or(value)
}

/// The body of an error answer.
pub(super) fn wrapped(error: &Value) -> String {
    json!({"error": error}).to_string()
}

/// An error of our own, for an answer that cannot be read.
pub(super) fn own(code: &'static str, message: &str) -> Value {
    render(502, code, message)
}

fn translate(status: u16, error: &Value) -> Value {
    let text = |field: &str| error.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let message = text("message")
        .or(text("error"))
        .map_or_else(|| format!("The provider answered {status} and said nothing readable."), without_keys);
    let kind = text("status").or(text("type")).unwrap_or_default().to_ascii_lowercase();
    let code = code(status, &kind, &message, error);
    let mut rendered = render(status, "", &message);
    let param = details(error).find_map(|detail| detail.pointer("/fieldViolations/0/field")?.as_str());
    if let Value::Object(fields) = &mut rendered {
        fields.insert("code".to_owned(), code);
        fields.extend(param.map(|param| ("param".to_owned(), param.into())));
    }
    rendered
}

/// The error's type and shape are decided in [`crate::reply`].
fn render(status: u16, code: &str, message: &str) -> Value {
    unwrap_error(openai_error(status, code, message, None))
}

fn unwrap_error(mut body: Value) -> Value {
    body.get_mut("error").map(Value::take).unwrap_or_default()
}

fn details(error: &Value) -> impl Iterator<Item = &Value> {
    error.get("details").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default().iter()
}

/// OpenAI's code if there is one that programs look for, and otherwise the provider's own.
fn code(status: u16, kind: &str, message: &str, error: &Value) -> Value {
    let bad_key = details(error).any(|detail| detail.get("reason").and_then(Value::as_str) == Some("API_KEY_INVALID"));
    // Gemini and Anthropic, in this order.
    let too_long = ["exceeds the maximum number of tokens", "prompt is too long"];
    match status {
        _ if bad_key => "invalid_api_key".into(),
        400 | 413 if too_long.iter().any(|words| message.contains(words)) => "context_length_exceeded".into(),
        401 => "invalid_api_key".into(),
        404 => "model_not_found".into(),
        429 => "rate_limit_exceeded".into(),
        _ if kind.is_empty() => Value::Null,
        _ => kind.into(),
    }
}

/// The status that an error states, or the one that usually comes with its type.
fn status_of(error: &Value) -> u16 {
    let stated = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    if let Some(status) = stated.filter(|status| (400..600).contains(status)) {
        return status;
    }
    match error.get("type").and_then(Value::as_str).unwrap_or_default() {
        "invalid_request_error" => 400,
        "authentication_error" => 401,
        "permission_error" => 403,
        "not_found_error" => 404,
        "request_too_large" => 413,
        "rate_limit_error" => 429,
        "overloaded_error" => 529,
        _ => 500,
    }
}

/// Masks each word that begins like a provider's key and is as long as one, and each word after `api_key:`.
fn without_keys(message: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    let mut clean = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(start) = rest.find(is_word) {
        let (before, tail) = rest.split_at(start);
        let (word, after) = tail.split_at(tail.find(|c| !is_word(c)).unwrap_or(tail.len()));
        clean.push_str(before);
        let begins = ["AIza", "AQ.", "sk-"].iter().any(|head| word.starts_with(head));
        let named = clean.ends_with("api_key:") || clean.ends_with("api_key: ");
        clean.push_str(if named || (begins && word.len() >= 20) { "***" } else { word });
        rest = after;
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_out() {
        for (message, clean) in [
            ("Consumer 'api_key:AIzaSyD0123456789' has been suspended.", "Consumer 'api_key:***' has been suspended."),
            ("bad key AIzaSyD-0123456789abcdefghijklmnopqrst!", "bad key ***!"),
            ("sk-ant-api03-0123456789abcdef", "***"),
            ("sk-ip this: gemini-2.5-pro — ünknown", "sk-ip this: gemini-2.5-pro — ünknown"),
            ("", ""),
        ] {
            assert_eq!(without_keys(message), clean);
        }
    }

    #[test]
    fn messages() {
        for (text, message) in [
            (r#"{"error":{"message":"m"}}"#, "m"),
            (r#"{"error":"m"}"#, "m"),
            (r#"{"success":false,"error":[{"code":2001,"message":"m"}]}"#, "m"),
            (r#"{"name":"AiGatewayError","message":"m","internalCode":2009}"#, "m"),
            (r#"{"error":{"message":""}}"#, "The provider answered 500 and said nothing readable."),
            ("{", "The provider answered 500 and said nothing readable."),
        ] {
            assert_eq!(body(500, text.as_bytes())["error"]["message"], message, "{text}");
        }
    }

    #[test]
    fn shapes_and_codes() {
        for (status, text, kind, code) in [
            (
                429,
                r#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}]"#,
                "rate_limit_error",
                json!("rate_limit_exceeded"),
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}"#,
                "invalid_request_error",
                json!("invalid_argument"),
            ),
            (
                400,
                r#"{"error":{"message":"m","details":[{"reason":"API_KEY_INVALID"}]}}"#,
                "invalid_request_error",
                json!("invalid_api_key"),
            ),
            (
                529,
                r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
                "server_error",
                json!("overloaded_error"),
            ),
            (
                400,
                r#"{"error":{"type":"invalid_request_error","message":"prompt is too long: 9 tokens > 8 maximum"}}"#,
                "invalid_request_error",
                json!("context_length_exceeded"),
            ),
            (503, "<html>", "server_error", Value::Null),
            (404, "", "not_found_error", json!("model_not_found")),
            (500, r#"{"error":"text"}"#, "server_error", Value::Null),
        ] {
            let body = body(status, text.as_bytes());
            assert_eq!((body["error"]["type"].as_str(), &body["error"]["code"]), (Some(kind), &code), "{text}");
            assert!(body["error"]["message"].is_string(), "{text}");
        }
    }
}
