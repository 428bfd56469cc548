//! A provider's stream to the client's, event by event.
//!
//! ```text
//!             feed                      End, or finish with all choices complete
//!   Running ────────► chunks, at once ──────────────────────────────────────────► Ended
//!      │                                                                            ▲
//!      └── an error event, a line too long, no JSON, or finish too early: error ────┘
//! ```
//!
//! What comes after the end is not looked at.

use serde_json::{Value, json};

use super::completion::{Chunks, Event, Head, write_data};
use super::sse::Splitter;
use super::{AnswerShape, Target, anthropic, error, gemini};

/// The code of errors for streams that make no sense.
const UNREADABLE: &str = "provider_stream_unreadable";

/// The translation of one stream.
#[derive(Debug)]
pub struct Stream {
    splitter: Splitter,
    reader: Reader,
    chunks: Chunks,
    ended: bool,
}

/// A dialect's reader of streams.
#[derive(Debug)]
enum Reader {
    Gemini(gemini::answer::Reader),
    Anthropic(anthropic::answer::Reader),
}

impl Stream {
    /// A stream for a request of this shape. `id` and `created` (Unix seconds) stand in every chunk.
    #[must_use]
    pub fn new(shape: AnswerShape, id: &str, created: u64) -> Self {
        let reader = match shape.target {
            Target::Gemini => Reader::Gemini(gemini::answer::Reader::new(id)),
            Target::Anthropic => Reader::Anthropic(anthropic::answer::Reader::default()),
        };
        let head = Head { id: id.to_owned(), created };
        Stream { splitter: Splitter::default(), reader, chunks: Chunks::new(shape, head), ended: false }
    }

    /// Takes the next piece of the provider's stream, cut anywhere; returns what the client gets.
    pub fn feed(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if self.ended {
            return out;
        }
        let mut events = Vec::new();
        let fed = self.splitter.feed(piece, &mut events);
        events.iter().for_each(|data| self.data(data, &mut out));
        if fed.is_err() && !self.ended {
            self.fail(error::own(UNREADABLE, "An event of the provider's stream is too long."), &mut out);
        }
        out
    }

    /// To be called when the provider's stream is over, however it ended. Unless it came to its natural
    /// end, the client gets an error event: a clean end without a finish reason would hide that
    /// something is missing.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.ended {
            return out;
        }
        if let Some(data) = self.splitter.finish() {
            self.data(&data, &mut out);
        }
        if self.ended {
            return out;
        }
        if self.chunks.is_complete() {
            self.end(&mut out);
        } else {
            self.fail(
                error::own("provider_stream_broken", "The provider's stream broke off before its end."),
                &mut out,
            );
        }
        out
    }

    /// Whether the client has got everything, so that the rest need not be fed.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    fn data(&mut self, data: &[u8], out: &mut Vec<u8>) {
        if self.ended || data.is_empty() {
            return;
        }
        let Ok(answer) = serde_json::from_slice::<Value>(data) else {
            self.fail(error::own(UNREADABLE, "An event of the provider's stream is not JSON."), out);
            return;
        };
        let mut events = Vec::new();
        match &mut self.reader {
            Reader::Gemini(reader) => reader.read(&answer, &mut events),
            Reader::Anthropic(reader) => reader.read(&answer, &mut events),
        }
        for event in events {
            match event {
                Event::Error(error) => return self.fail(error, out),
                Event::End => return self.end(out),
                event => self.chunks.write(event, out),
            }
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.ended = true;
        self.chunks.end(out);
    }

    fn fail(&mut self, error: Value, out: &mut Vec<u8>) {
        self.ended = true;
        write_data(&json!({"error": error}), out);
    }
}
