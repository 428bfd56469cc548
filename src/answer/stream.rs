//! Watches a successful answer's body as it passes, for errors that come after the 200 and for token usage.
//!
//! OpenRouter, Gemini and Anthropic report an error that occurs after the start inside the body, and every
//! provider states the tokens somewhere in it. A body can be of any length and arrive in any pieces, so
//! it is not kept. A scanner follows the structure of the JSON and copies out only the values of the keys
//! that matter, at the top level or one level down in `message` and `response`. An `"error"` in a model's
//! text is inside a string and never looks like a key. A search for words in the text would need whole
//! lines in memory and a parser for each.

use std::borrow::Cow;

use memchr::{memchr2, memchr2_iter};
use serde_json::Value;

use super::body::number;
use super::tokens::Tokens;
use super::{Answer, Verdict, classify};
use crate::http::headers::Headers;
use crate::json::scanner::{Key, Role, Scanner};
use crate::provider::Provider;
use crate::time::Time;

/// Tokens as the answer last stated them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input: u64,
    /// Tokens of the answer, thoughts included.
    pub output: u64,
}

/// Watches one answer's body. It keeps no line and no document, only the value that is being copied, which
/// is at most 16 KiB.
pub struct Watcher {
    format: Format,
    scanner: Scanner<Field>,
    line: Line,
    usage: Option<Usage>,
    thoughts: u64,
    failed: bool,
}

/// The fields of an answer whose values are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Error,
    Usage,
}

impl Key for Field {
    fn role(name: &[u8]) -> Option<Role<Self>> {
        Some(match name {
            b"error" => Role::Value(Field::Error),
            b"usage" | b"usageMetadata" => Role::Value(Field::Usage),
            // Anthropic's first event, OpenAI's Responses, and Groq.
            b"message" | b"response" | b"x_groq" => Role::Parent,
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// One JSON document, an array of documents, or several in sequence.
    Json,
    /// Server-sent events, with one JSON document in each `data:` line.
    Events,
    /// Compressed, audio, or anything else that cannot be read here.
    Opaque,
}

/// The part of an event stream's line that the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// This many bytes of `data:` have come since the line began.
    Prefix(usize),
    /// The data that follows `data:`.
    Data,
    /// A line of no interest.
    Other,
}

const DATA: &[u8] = b"data:";

impl Watcher {
    /// A watcher for an answer with these headers.
    pub fn new(headers: &Headers) -> Self {
        Watcher {
            format: format_of(headers),
            scanner: Scanner::default(),
            line: Line::Prefix(0),
            usage: None,
            thoughts: 0,
            failed: false,
        }
    }

    /// Whether there is anything to watch. If not, [`Self::see`] need not be called.
    pub fn is_watching(&self) -> bool {
        self.format != Format::Opaque
    }

    /// Takes the next piece of the body, which may be cut anywhere. Returns a verdict on the first error
    /// in the body.
    pub fn see(&mut self, piece: &[u8], provider: &Provider, now: impl FnOnce() -> Time) -> Option<Verdict> {
        let error = match self.format {
            Format::Opaque => None,
            Format::Json => self.scan(piece),
            Format::Events => self.scan_events(piece),
        };
        let error = error.filter(|_| !self.failed)?;
        self.failed = true;
        Some(verdict(&error, provider, now()))
    }

    /// The tokens stated so far.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    fn scan_events<'p>(&mut self, piece: &'p [u8]) -> Option<Cow<'p, [u8]>> {
        let mut error = None;
        let mut rest = piece;
        loop {
            let end = memchr2(b'\n', b'\r', rest);
            let (line, after) = rest.split_at(end.unwrap_or(rest.len()));
            let text = self.data_part(line);
            error = error.or(self.scan(text));
            let [_, after @ ..] = after else { return error };
            rest = after;
            if self.line == Line::Data {
                self.scanner.start();
            }
            self.line = Line::Prefix(0);
        }
    }

    /// The part of a line's piece that follows `data:`.
    fn data_part<'a>(&mut self, mut text: &'a [u8]) -> &'a [u8] {
        while let (Line::Prefix(met), Some((byte, rest))) = (self.line, text.split_first()) {
            self.line = match DATA.get(met) {
                Some(expected) if expected == byte && met + 1 == DATA.len() => Line::Data,
                Some(expected) if expected == byte => Line::Prefix(met + 1),
                _ => Line::Other,
            };
            text = rest;
        }
        if self.line == Line::Data { text } else { &[] }
    }

    fn scan<'p>(&mut self, text: &'p [u8]) -> Option<Cow<'p, [u8]>> {
        let mut error = None;
        let mut rest = text;
        while !rest.is_empty() {
            let (read, found) = self.scanner.step(rest);
            rest = rest.get(read..).unwrap_or_default();
            match found {
                Some((Field::Usage, value)) => self.update_usage(&value),
                Some((Field::Error, value)) if is_error(&value) => error = error.or(Some(value)),
                Some((Field::Error, _)) | None => {}
            }
        }
        error
    }

    fn update_usage(&mut self, value: &[u8]) {
        let Tokens { input, output, thoughts } = Tokens::read(value);
        if input.is_none() && output.is_none() && thoughts.is_none() {
            return;
        }
        let last = self.usage.unwrap_or_default();
        let answer = output.unwrap_or(last.output.saturating_sub(self.thoughts));
        self.thoughts = thoughts.unwrap_or(self.thoughts);
        self.usage = Some(Usage { input: input.unwrap_or(last.input), output: answer.saturating_add(self.thoughts) });
    }
}

fn format_of(headers: &Headers) -> Format {
    if headers.is_encoded() {
        return Format::Opaque;
    }
    let kind = headers.text("content-type").unwrap_or_default();
    if kind.starts_with("application/json") { Format::Json } else { format_of_type(kind.as_bytes()) }
}

fn format_of_type(kind: &[u8]) -> Format {
    let says =
        |at: usize, word: &[u8]| kind.get(at..at + word.len()).is_some_and(|text| text.eq_ignore_ascii_case(word));
    if says(0, b"text/event-stream") {
        Format::Events
    } else if memchr2_iter(b'j', b'J', kind).any(|at| says(at, b"json")) {
        Format::Json
    } else {
        Format::Opaque
    }
}

/// Whether the value of an `error` key is an error: an object that says something. Good answers have `null`
/// there, and a text is how Replicate reports that a model failed.
fn is_error(value: &[u8]) -> bool {
    let says = |word: &[u8]| memchr::memmem::find(value, word).is_some();
    value.first() == Some(&b'{') && (says(b"\"message\"") || says(b"\"code\"") || says(b"\"type\""))
}

/// Classifies an error found inside a 200, with the status that usually comes with it.
fn verdict(error: &[u8], provider: &Provider, now: Time) -> Verdict {
    let body = [b"{\"error\":", error, b"}"].concat();
    let status = status_of(&body);
    let headers = Headers::default();
    classify(&Answer { provider, through_ai_gateway: false, status, headers: &headers, body: &body, now })
}

/// The status that an error states itself, or the one that usually comes with its type.
fn status_of(body: &[u8]) -> u16 {
    let json = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let field = |name: &str| json.get("error").and_then(|error| error.get(name));
    let code = ["code", "status"].iter().find_map(|name| number(field(name)?));
    if let Some(code) = code.filter(|code| (400.0..600.0).contains(code)) {
        return code as u16;
    }
    let names = ["type", "code", "status"].into_iter().filter_map(|name| field(name)?.as_str());
    names.into_iter().find_map(status_of_name).unwrap_or(500)
}

fn status_of_name(name: &str) -> Option<u16> {
    Some(match name.to_ascii_lowercase().as_str() {
        "rate_limit_error" | "rate_limit_exceeded" | "resource_exhausted" | "insufficient_quota" => 429,
        "overloaded_error" => 529,
        "authentication_error" | "invalid_api_key" | "unauthenticated" => 401,
        "billing_error" => 402,
        "permission_error" | "permission_denied" => 403,
        "not_found_error" | "not_found" | "model_not_found" => 404,
        "request_too_large" => 413,
        "invalid_request_error" | "invalid_argument" | "failed_precondition" | "invalid_prompt" => 400,
        "unavailable" => 503,
        _ => return None,
    })
}
