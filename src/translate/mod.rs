//! Translates OpenAI Chat Completions to Gemini's or Anthropic's own API, and the answers back.
//!
//! Cloudflare's compat endpoint is deprecated, and the providers' own OpenAI endpoints lose features
//! (Google's breaks real SDKs), so the filter speaks the native APIs itself.
//!
//! ```text
//! request:  Document ── Chat (checked, turns) ──► gemini::request or anthropic::request ──► Writer
//! answer:   Document ── gemini::answer or anthropic::answer ──► events ──► completion or chunks ──► Writer
//! ```
//!
//! Chats are long and mostly text, and a stream has hundreds of chunks. So what lies between the document
//! and the writer are references into the document, and no tree of values or copy of a text. Only schemas
//! and errors are rewritten from the ground up, as serde's values.
//!
//! No dialect knows the other, and there is no common request format beyond OpenAI's own. A field that the
//! target does not have is left out if the answer means the same without it, and otherwise the request is
//! refused with the field's name. An operator who thinks otherwise lists the field in [`Options::drop`].
//!
//! Everything is a function of bytes. Ids and times are arguments.
//!
#![doc = include_str!("FIELDS.md")]

mod anthropic;
mod call_id;
mod chat;
mod chunks;
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

use chat::Chat;
use completion::{Completion, Head};
pub use fields::Refusal;
use fields::refuse;
pub use stream::Stream;

use crate::json::{Document, Node, Writer};

/// The API that a request is translated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Google AI Studio.
    Gemini,
    /// Anthropic.
    Anthropic,
}

/// What the configuration says about a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// OpenAI's names of fields that are removed from every request before it is translated.
    pub drop: Vec<String>,
}

/// A request for the target's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    /// Path and query below the provider's base URL.
    pub path: String,
    /// The JSON body.
    pub body: Vec<u8>,
    /// What the answer's translation must know.
    pub answer: AnswerShape,
}

/// What the answer's translation must know of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerShape {
    /// The API that answers.
    pub target: Target,
    /// The model as the client named it, for the answer's `model`.
    pub model: String,
    /// The kind of answer that the client expects.
    pub kind: Kind,
    /// The client wants usage at the end of the stream.
    pub include_usage: bool,
    /// The client wants at most one tool call, and the target has no field that says so.
    pub single_call: bool,
}

/// The kind of answer that a client expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
/// body's own may be an alias or begin with a provider's slug, and the answer repeats it.
///
/// # Errors
/// The body is not what OpenAI documents, or needs something that the target cannot do.
pub fn request(target: Target, model: &str, body: &[u8], options: &Options) -> Result<Translated, Refusal> {
    let document = read(body)?;
    let chat = Chat::read(document.root(), options)?;
    let mut out = writer_beside(body);
    let path = match target {
        Target::Gemini => gemini::request::request(model, &chat, &mut out)?,
        Target::Anthropic => anthropic::request::request(model, &chat, &mut out)?,
    };
    let answer = AnswerShape {
        target,
        model: chat.model.map_or_else(|| model.to_owned(), |named| named.decoded().into_owned()),
        kind: if chat.stream { Kind::ChatStream } else { Kind::Chat },
        include_usage: chat.include_usage,
        // Anthropic has a field for it.
        single_call: chat.single_call && target == Target::Gemini,
    };
    Ok(Translated { path, body: out.finish().into_bytes(), answer })
}

fn read(body: &[u8]) -> Result<Document<'_>, Refusal> {
    Document::read(body).map_err(|(line, column)| {
        refuse("body", format_args!("is not JSON: the first fault is in line {line}, column {column}"))
    })
}

/// A writer with room for a translated body, most of which is text that does not change.
fn writer_beside(body: &[u8]) -> Writer {
    Writer::with_capacity(body.len().saturating_add(256))
}

/// Translates the body of `/v1/embeddings`, as [`request`] translates a chat.
///
/// # Errors
/// Those of [`request`], and that Anthropic has no embeddings.
pub fn embeddings(target: Target, model: &str, body: &[u8], options: &Options) -> Result<Translated, Refusal> {
    let document = read(body)?;
    let mut fields = chat::top(document.root(), options)?;
    let named = fields.text("model")?.map_or_else(|| model.to_owned(), |named| named.decoded().into_owned());
    if target == Target::Anthropic {
        return Err(refuse("model", "has no embeddings: this provider makes none"));
    }
    let mut out = writer_beside(body);
    let (path, base64) = gemini::embeddings::request(model, fields, &mut out)?;
    let kind = Kind::Embeddings { base64 };
    let answer = AnswerShape { target, model: named, kind, include_usage: false, single_call: false };
    Ok(Translated { path, body: out.finish().into_bytes(), answer })
}

/// Translates the body of a successful answer that is not a stream. `id` (`chatcmpl-…`) and `created`
/// (Unix seconds) are the completion's.
///
/// # Errors
/// The OpenAI error to send with status 502, if the body is an error in spite of its status or not an
/// answer at all.
pub fn answer(shape: &AnswerShape, id: &str, created: u64, body: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    let Ok(document) = Document::read(body) else { return Err(unreadable()) };
    let root = document.root();
    if let Some(error) = error::of(root) {
        return Err(error::wrapped(&error).into_bytes());
    }
    let mut out = writer_beside(body);
    let written = match shape.kind {
        Kind::Embeddings { base64 } => gemini::embeddings::answer(&shape.model, base64, root, &mut out),
        Kind::Chat | Kind::ChatStream => chat_answer(shape, id, created, root, &mut out),
    };
    written.map(|()| out.finish().into_bytes()).ok_or_else(unreadable)
}

#[cold]
fn unreadable() -> Vec<u8> {
    let error = error::own("provider_answer_unreadable", "The provider's answer cannot be read.");
    error::wrapped(&error).into_bytes()
}

/// Writes a provider's answer as a completion. `None` if it is not an answer.
fn chat_answer(shape: &AnswerShape, id: &str, created: u64, answer: Node, out: &mut Writer) -> Option<()> {
    let mut completion = Completion::new(shape);
    let mut add = |event| completion.add(event);
    match shape.target {
        Target::Gemini if gemini::answer::is_answer(answer) => {
            gemini::answer::Reader::new(id).read(answer, &mut add);
        }
        Target::Anthropic if anthropic::answer::is_answer(answer) => {
            anthropic::answer::Reader::default().read_message(answer, &mut add);
        }
        Target::Gemini | Target::Anthropic => return None,
    }
    completion.write(Head { id, created, model: &shape.model }, out);
    Some(())
}

/// Translates the body of a provider's error answer.
pub fn error(status: u16, body: &[u8]) -> Vec<u8> {
    error::body(status, body).to_string().into_bytes()
}
