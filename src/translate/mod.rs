//! OpenAI Chat Completions in; Gemini's or Anthropic's own API out, and back.
//!
//! Cloudflare's compat endpoint is deprecated, and the providers' own OpenAI endpoints lose features
//! (Google's breaks real SDKs), so the filter speaks the native APIs itself.
//!
//! ```text
//! request:  body ── Chat (read, checked, turns) ──► gemini::request or anthropic::request ──► body
//! answer:   body ── gemini::answer or anthropic::answer ──► events ──► one completion, or chunks
//! ```
//!
//! A dialect sees no other, and there is no common request format beyond what OpenAI itself has. What
//! the target cannot say is left out where the answer means the same without it, and refused with the
//! field's name where it does not; an operator who thinks otherwise lists the field in
//! [`Options::drop`].
//!
//! Everything is a function of bytes: ids and times come in as arguments.
//!
#![doc = include_str!("FIELDS.md")]

mod anthropic;
mod call_id;
mod chat;
mod completion;
mod conversation;
mod error;
mod fields;
mod gemini;
mod media;
mod models;
mod schema;
mod sse;
mod stream;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use chat::Chat;
use completion::Head;
pub use fields::Refusal;
use fields::refuse;
pub use stream::Stream;

/// Whose API is spoken upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// Google AI Studio.
    Gemini,
    /// Anthropic.
    Anthropic,
}

/// What the configuration says about a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// OpenAI's names of fields that are taken out of every request before it is looked at.
    pub drop: Vec<String>,
}

/// A request in the target's dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    /// Path and query below the provider's base URL.
    pub path: String,
    /// The JSON body.
    pub body: Vec<u8>,
    /// What the way back must know.
    pub answer: AnswerShape,
}

/// What the way back must know of the request; it travels in the ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerShape {
    /// Whose answer it will be.
    pub target: Target,
    /// The model as the client named it, for the answer's `model`.
    pub model: String,
    /// What was asked for.
    pub kind: Kind,
    /// The client asked for usage at the end of the stream.
    pub include_usage: bool,
    /// The client wants no more than one tool call, and the target cannot be told so.
    pub single_call: bool,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A chat completion in one piece.
    Chat,
    /// A chat completion as a stream: [`Stream`] translates it.
    ChatStream,
    /// Embeddings, as numbers or packed in base64.
    Embeddings {
        /// `encoding_format: base64`.
        base64: bool,
    },
}

/// Translates the body of `/v1/chat/completions`. `model` is the target's name for the model; the
/// body's own may be an alias or have a slug before it, and is what the answer will say.
///
/// # Errors
/// When the body is not what OpenAI documents, or asks for what the target cannot do.
pub fn request(target: Target, model: &str, body: &[u8], options: &Options) -> Result<Translated, Refusal> {
    let chat = Chat::read(body, options)?;
    let (path, body) = match target {
        Target::Gemini => gemini::request::request(model, &chat)?,
        Target::Anthropic => anthropic::request::request(model, &chat)?,
    };
    let answer = AnswerShape {
        target,
        model: chat.model.unwrap_or_else(|| model.to_owned()),
        kind: if chat.stream { Kind::ChatStream } else { Kind::Chat },
        include_usage: chat.include_usage,
        // Anthropic has a word for it.
        single_call: chat.single_call && target == Target::Gemini,
    };
    Ok(Translated { path, body: body.to_string().into_bytes(), answer })
}

/// Translates the body of `/v1/embeddings`, as [`request`] does a chat's.
///
/// # Errors
/// As [`request`]; and Anthropic has no embeddings.
pub fn embeddings(target: Target, model: &str, body: &[u8], options: &Options) -> Result<Translated, Refusal> {
    let mut fields = chat::top(body, options)?;
    let named = fields.text("model")?.unwrap_or_else(|| model.to_owned());
    if target == Target::Anthropic {
        return Err(refuse("model", "has no embeddings: this provider makes none"));
    }
    let (path, body, base64) = gemini::embeddings::request(model, fields)?;
    let kind = Kind::Embeddings { base64 };
    let answer = AnswerShape { target, model: named, kind, include_usage: false, single_call: false };
    Ok(Translated { path, body: body.to_string().into_bytes(), answer })
}

/// Translates the body of a successful answer that is no stream. `id` (`chatcmpl-…`) and `created`
/// (Unix seconds) are the completion's.
///
/// # Errors
/// When the body is an error in spite of its status, or no answer at all: the OpenAI error to send,
/// with status 502.
pub fn answer(shape: &AnswerShape, id: &str, created: u64, body: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    let fail = |error: Value| Err(json!({"error": error}).to_string().into_bytes());
    let unreadable = || fail(error::own("provider_answer_unreadable", "The provider's answer cannot be read."));
    let Ok(answer) = serde_json::from_slice::<Value>(body) else { return unreadable() };
    if let Some(error) = error::of(&answer) {
        return fail(error);
    }
    let answer = match shape.kind {
        Kind::Embeddings { base64 } => gemini::embeddings::answer(&shape.model, base64, &answer),
        Kind::Chat | Kind::ChatStream => chat_answer(shape, id, created, &answer),
    };
    answer.map_or_else(unreadable, |answer| Ok(answer.to_string().into_bytes()))
}

/// The completion that a provider's answer is; `None` if it is none.
fn chat_answer(shape: &AnswerShape, id: &str, created: u64, answer: &Value) -> Option<Value> {
    let mut events = Vec::new();
    match shape.target {
        Target::Gemini if gemini::answer::is_answer(answer) => {
            gemini::answer::Reader::new(id).read(answer, &mut events)
        }
        Target::Anthropic if anthropic::answer::is_answer(answer) => {
            anthropic::answer::Reader::default().read_message(answer, &mut events);
        }
        Target::Gemini | Target::Anthropic => return None,
    }
    let head = Head { id: id.to_owned(), created };
    Some(completion::complete(shape, &head, events))
}

/// Translates the body of a provider's error answer.
#[must_use]
pub fn error(status: u16, body: &[u8]) -> Vec<u8> {
    error::body(status, body).to_string().into_bytes()
}
