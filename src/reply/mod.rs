//! Answers of our own: errors in the shape of the API that the client speaks.
//!
//! SDKs pick their exception by the status and show the message; plain text or an array loses the
//! message in most of them. `code` is stable, for programs; the message says what to do, for people.

mod code;
pub mod refusals;

use serde_json::{Value, json};

use crate::provider::Api;
use crate::time::Span;
pub use code::{Code, Retry, Stage};

/// The header that tells openai's and anthropic's SDKs not to try again by themselves.
const SHOULD_RETRY: &str = "x-should-retry";
/// Up to this wait a client may well sleep it off; longer ones make some SDKs hang for minutes.
const LONGEST_SLEEP: Span = Span::secs(60);

/// An answer that no provider gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The reason, for programs.
    pub code: Code,
    /// What happened and what to do, for a person. Never holds a secret.
    pub message: String,
    /// The request's field that is at fault, if it is one.
    pub param: Option<String>,
    /// When it is worth asking again.
    pub retry_after: Option<Span>,
    /// The methods that the path takes, if it was the method.
    pub allow: Option<&'static str>,
}

/// A rendered answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// HTTP status.
    pub status: u16,
    /// Header names and values.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Rendered {
    /// An answer that is no error.
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Rendered { status, headers: vec![("content-type", content_type.to_owned())], body: body.into() }
    }
}

impl Reply {
    /// A reply without `retry_after`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Reply::with_status(code.status(), code, message)
    }

    /// A reply that takes its status from the provider or Envoy.
    pub fn with_status(status: u16, code: Code, message: impl Into<String>) -> Self {
        Reply { status, code, message: message.into(), param: None, retry_after: None, allow: None }
    }

    /// Refuses a method; `allow` lists those that the path takes, as RFC 9110 wants it.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let message = format!("This path takes {allow}.");
        Reply { allow: Some(allow), ..Reply::new(Code::MethodNotAllowed, message) }
    }

    /// The same reply that names the field at fault.
    pub fn param(mut self, field: impl Into<String>) -> Self {
        self.param = Some(field.into());
        self
    }

    /// The same reply that says when to come back.
    pub fn retry_after(mut self, wait: Span) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Renders it for a client that speaks `api`.
    pub fn render(&self, api: Api) -> Rendered {
        let body = match api {
            Api::OpenAi => openai_error(self.status, self.code.as_str(), &self.message, self.param.as_deref()),
            Api::Anthropic => json!({"type": "error", "error": {
                "type": anthropic_type(self.status), "message": self.message, "code": self.code.as_str(),
            }}),
            Api::Gemini => json!({"error": {
                "code": self.status, "message": self.message, "status": google_status(self.status),
                "details": [{
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": self.code.as_str().to_ascii_uppercase(), "domain": "one-balance",
                }],
            }}),
        };
        let mut headers = vec![("content-type", "application/json".to_owned())];
        headers.extend(self.retry_headers());
        headers.extend(self.allow.map(|methods| ("allow", methods.to_owned())));
        Rendered { status: self.status, headers, body: body.to_string().into_bytes() }
    }

    fn retry_headers(&self) -> Vec<(&'static str, String)> {
        match self.retry_after {
            Some(wait) => retry_headers(wait).collect(),
            // There is no key: asking again brings none. Any other 503 may be over in a moment.
            None if self.code.retry() == Retry::Never => vec![(SHOULD_RETRY, "false".to_owned())],
            None => Vec::new(),
        }
    }
}

/// An error in OpenAI's shape. Translated errors of providers have it, too, with codes of OpenAI's.
pub fn openai_error(status: u16, code: &str, message: &str, param: Option<&str>) -> Value {
    json!({"error": {"message": message, "type": openai_type(status), "param": param, "code": code}})
}

/// Refuses a method that is none of those allowed, a list with commas.
///
/// # Errors
/// The answer to it.
pub fn check_method(method: &str, allowed: &'static str) -> Result<(), Reply> {
    let is_allowed = allowed.split(',').any(|other| other.trim_start() == method);
    if is_allowed { Ok(()) } else { Err(Reply::method_not_allowed(allowed)) }
}

/// `retry-after`, and a word to SDKs that would sleep too long.
pub fn retry_headers(wait: Span) -> impl Iterator<Item = (&'static str, String)> {
    let after = ("retry-after", wait.as_secs_up().max(1).to_string());
    core::iter::once(after).chain((wait > LONGEST_SLEEP).then(|| (SHOULD_RETRY, "false".to_owned())))
}

fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "insufficient_quota",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        // The pool's matter, as 402 is; LiteLLM takes the next type for a bad request whatever the status.
        408 | 424 | 425 => "server_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    }
}

fn anthropic_type(status: u16) -> &'static str {
    match status {
        402 => "billing_error",
        529 => "overloaded_error",
        408 | 424 | 425 | 500.. => "api_error",
        _ => openai_type(status),
    }
}

fn google_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        402 | 429 => "RESOURCE_EXHAUSTED",
        408 | 424 | 425 => "UNAVAILABLE",
        400..500 => "INVALID_ARGUMENT",
        504 => "DEADLINE_EXCEEDED",
        502 | 503 => "UNAVAILABLE",
        _ => "INTERNAL",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(reply: &Reply, api: Api) -> Value {
        serde_json::from_slice(&reply.render(api).body).unwrap()
    }

    #[test]
    fn shapes() {
        let reply = Reply::new(Code::InvalidAuthKey, "no \"such\" key");
        assert_eq!(
            body(&reply, Api::OpenAi),
            json!({"error": {"message": "no \"such\" key", "type": "authentication_error", "param": null, "code": "invalid_auth_key"}})
        );
        assert_eq!(
            body(&reply, Api::Anthropic),
            json!({"type": "error", "error": {"type": "authentication_error", "message": "no \"such\" key", "code": "invalid_auth_key"}})
        );
        let google = body(&reply, Api::Gemini);
        assert_eq!(google["error"]["status"], "UNAUTHENTICATED");
        assert_eq!(google["error"]["details"][0]["reason"], "INVALID_AUTH_KEY");
    }

    #[test]
    fn the_clients_fault_is_not_told_as_the_servers() {
        for status in [400, 401, 403, 404, 405, 409, 413, 415, 422, 429] {
            let reply = Reply::with_status(status, Code::EnvoyError, "");
            assert_ne!(body(&reply, Api::OpenAi)["error"]["type"], "server_error", "{status}");
            assert_ne!(body(&reply, Api::Anthropic)["error"]["type"], "api_error", "{status}");
            assert_ne!(body(&reply, Api::Gemini)["error"]["status"], "INTERNAL", "{status}");
        }
    }

    #[test]
    fn the_pools_matters_are_not_told_as_the_clients() {
        for status in [402, 408, 424, 425, 429, 500, 503, 529] {
            let reply = Reply::with_status(status, Code::EnvoyError, "");
            for api in [Api::OpenAi, Api::Anthropic] {
                assert_ne!(body(&reply, api)["error"]["type"], "invalid_request_error", "{status}");
            }
            assert_ne!(body(&reply, Api::Gemini)["error"]["status"], "INVALID_ARGUMENT", "{status}");
        }
    }

    #[test]
    fn a_refused_method_names_those_allowed() {
        let headers = Reply::method_not_allowed("GET, HEAD").render(Api::OpenAi).headers;
        assert!(headers.contains(&("allow", "GET, HEAD".to_owned())));
    }

    #[test]
    fn retry_headers() {
        let headers = |reply: Reply| reply.retry_headers();
        let cooling = || Reply::new(Code::AllKeysCooling, "");
        let after = |text: &str| ("retry-after", text.to_owned());
        assert_eq!(headers(cooling().retry_after(Span(59_001))), [after("60")]);
        assert_eq!(headers(cooling().retry_after(Span(0))), [after("1")]);
        assert_eq!(headers(cooling().retry_after(Span(60_001))), [after("61"), (SHOULD_RETRY, "false".to_owned())]);
        for code in [Code::NoKeys, Code::AllKeysBlocked] {
            assert_eq!(headers(Reply::with_status(503, code, "")), [(SHOULD_RETRY, "false".to_owned())]);
        }
        for code in [Code::ProviderUnreachable, Code::AllKeysTried, Code::EnvoyError] {
            assert_eq!(headers(Reply::with_status(503, code, "")), []);
        }
        assert_eq!(headers(Reply::new(Code::InvalidAuthKey, "")), []);
    }
}
