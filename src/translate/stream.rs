//! Translates a provider's stream to the client's, event by event.
//!
//! ```text
//!             feed                      End or finish, with all choices complete
//!   Running ────────► chunks, at once ──────────────────────────────────────────► Ended
//!      │                                                                            ▲
//!      └── an error event, a line too long, not JSON, or an early end: error ───────┘
//! ```
//!
//! Anything that comes after the end is ignored.

use serde_json::Value;

use super::chunks::Chunks;
use super::completion::Event;
use super::sse::Splitter;
use super::{AnswerShape, Target, anthropic, error, gemini};
use crate::json::{Document, Writer};

/// The code of errors for streams that make no sense.
const UNREADABLE: &str = "provider_stream_unreadable";

/// The translation of one stream.
#[derive(Debug)]
pub struct Stream {
    splitter: Splitter,
    translation: Translation,
}

/// The part of the translation that follows the splitter.
#[derive(Debug)]
struct Translation {
    reader: Reader,
    output: Output,
}

/// A dialect's reader of streams.
#[derive(Debug)]
enum Reader {
    Gemini(gemini::answer::Reader),
    Anthropic(anthropic::answer::Reader),
}

/// What the client gets.
#[derive(Debug)]
struct Output {
    chunks: Chunks,
    ended: bool,
}

impl Stream {
    /// A stream for a request of this shape. Every chunk has `id` and `created` (Unix seconds).
    pub fn new(shape: AnswerShape, id: &str, created: u64) -> Self {
        let reader = match shape.target {
            Target::Gemini => Reader::Gemini(gemini::answer::Reader::new(id)),
            Target::Anthropic => Reader::Anthropic(anthropic::answer::Reader::default()),
        };
        let output = Output { chunks: Chunks::new(&shape, id, created), ended: false };
        Stream { splitter: Splitter::default(), translation: Translation { reader, output } }
    }

    /// Takes the next piece of the provider's stream, which may be cut anywhere, and returns what the client
    /// gets.
    pub fn feed(&mut self, piece: &[u8]) -> Vec<u8> {
        if self.is_ended() {
            return Vec::new();
        }
        // The client's chunks are about as long as the provider's.
        let mut out = Writer::with_capacity(piece.len());
        let fed = self.splitter.feed(piece, |data| self.translation.data(data, &mut out));
        if fed.is_err() {
            self.translation.output.fail(too_long, &mut out);
        }
        out.finish().into_bytes()
    }

    /// Call this when the provider's stream is over, however it ended. Unless it came to its natural end, the
    /// client gets an error event, because a clean end without a finish reason would hide that something is
    /// missing.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = Writer::default();
        if !self.is_ended() {
            self.splitter.finish(|data| self.translation.data(data, &mut out));
            self.translation.output.end(&mut out);
        }
        out.finish().into_bytes()
    }

    /// Whether the client has everything, so that the rest need not be fed.
    pub fn is_ended(&self) -> bool {
        self.translation.output.ended
    }
}

impl Translation {
    fn data(&mut self, data: &[u8], out: &mut Writer) {
        if self.output.ended || data.is_empty() {
            return;
        }
        let Ok(answer) = Document::read(data) else { return self.output.fail(not_json, out) };
        let output = &mut self.output;
        let mut say = |event: Event| output.event(event, out);
        match &mut self.reader {
            Reader::Gemini(reader) => reader.read(answer.root(), &mut say),
            Reader::Anthropic(reader) => reader.read(answer.root(), &mut say),
        }
    }
}

impl Output {
    fn event(&mut self, event: Event, out: &mut Writer) {
        if self.ended {
            return;
        }
        match event {
            Event::Error(error) => self.fail(|| error, out),
            Event::End => self.end(out),
            event => self.chunks.write(event, out),
        }
    }

    /// Ends the stream, whether or not the provider has announced its end. What counts is that each choice is
    /// complete.
    fn end(&mut self, out: &mut Writer) {
        if self.ended {
            return;
        }
        if !self.chunks.is_complete() {
            return self.fail(broken, out);
        }
        self.ended = true;
        self.chunks.end(out);
    }

    fn fail(&mut self, error: impl FnOnce() -> Value, out: &mut Writer) {
        if !core::mem::replace(&mut self.ended, true) {
            out.raw("data: ");
            out.raw(&error::wrapped(&error()));
            out.raw("\n\n");
        }
    }
}

fn too_long() -> Value {
    error::own(UNREADABLE, "An event of the provider's stream is too long.")
}

fn not_json() -> Value {
    error::own(UNREADABLE, "An event of the provider's stream is not JSON.")
}

fn broken() -> Value {
    error::own("provider_stream_broken", "The provider's stream broke off before its end.")
}
