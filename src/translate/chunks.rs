//! Events as the chunks of a stream.
//!
//! Each event is written at once, and nothing of it is kept except what the last chunks need: the reasons
//! why choices ended, the usage, and how many calls have begun. Everything that all chunks have in common
//! (id, time and model) is written once per stream and then copied.

use super::AnswerShape;
use super::completion::{Choices, Delta, Event, Head, Usage, write_call, write_extra, write_image, write_logprobs};
use crate::json::Writer;

/// Writes events as chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    /// The beginning of every chunk, up to the first choice.
    begin: String,
    include_usage: bool,
    single_call: bool,
    choices: Choices<'static>,
    usage: Usage,
}

impl Chunks {
    pub fn new(shape: &AnswerShape, id: &str, created: u64) -> Self {
        let mut begin = Writer::default();
        begin.raw("data: {");
        Head { id, created, model: &shape.model }.write("chat.completion.chunk", &mut begin);
        begin.raw(",\"choices\":[");
        Chunks {
            begin: begin.finish(),
            include_usage: shape.include_usage,
            single_call: shape.single_call,
            choices: Choices::default(),
            usage: Usage::default(),
        }
    }

    /// Writes what the client sees of `event` at once. [`Delta::Finish`] and [`Event::Usage`] are kept for
    /// [`Self::end`], because text and calls may still follow them.
    pub fn write(&mut self, event: Event, out: &mut Writer) {
        match event {
            Event::Usage(usage) => self.usage = usage,
            Event::Choice(index, delta) => self.write_delta(index, delta, out),
            Event::Error(_) | Event::End => {}
        }
    }

    fn write_delta(&mut self, index: u64, mut delta: Delta, out: &mut Writer) {
        let Some((choice, is_new)) = self.choices.get(index) else { return };
        let call = match &mut delta {
            Delta::Call(_) => choice.begin_call(self.single_call),
            Delta::Arguments(_) => choice.newest_call(),
            Delta::Finish(finish) => {
                choice.finish = Some(finish.clone());
                is_new.then_some(0)
            }
            _ => Some(0),
        };
        let Some(call) = call else { return };
        out.raw(&self.begin);
        out.object(|out| {
            out.field("index", index);
            out.object_field("delta", |out| {
                write_gain(&delta, call, out);
                if is_new {
                    introduce(&delta, out);
                }
            });
            out.field("finish_reason", ());
            if let Delta::Logprobs(entries) = &delta {
                write_logprobs(Some(entries), out);
            }
        });
        out.raw(END);
    }

    /// Whether there is a choice, and all choices are complete.
    pub fn is_complete(&self) -> bool {
        !self.choices.0.is_empty() && self.choices.0.iter().all(|choice| choice.finish.is_some())
    }

    /// Writes the reasons why the choices ended, the usage if the client wants it, and `[DONE]`.
    pub fn end(&mut self, out: &mut Writer) {
        for choice in core::mem::take(&mut self.choices.0) {
            out.raw(&self.begin);
            out.object(|out| {
                out.field("index", choice.index);
                out.object_field("delta", |_| ());
                choice.write_end(out);
            });
            out.raw(END);
        }
        if self.include_usage {
            out.raw(&self.begin);
            out.raw("]");
            self.usage.write(out);
            out.raw("}\n\n");
        }
        out.raw("data: [DONE]\n\n");
    }
}

/// The end of a chunk with choices.
const END: &str = "]}\n\n";

/// Writes the fields of a delta. `call` is the index of the call that begins or grows.
fn write_gain(delta: &Delta, call: u64, out: &mut Writer) {
    match delta {
        Delta::Text(text) => out.field("content", text),
        Delta::Reasoning(text) => out.field("reasoning_content", text),
        Delta::Refusal(text) => out.field("refusal", text),
        Delta::Extra(extra) => write_extra(Some(extra), out),
        Delta::Image(url) => out.array_field("images", |out| write_image(url, out)),
        Delta::Call(begun) => out.array_field("tool_calls", |out| write_call(begun, Some(call), out)),
        Delta::Arguments(text) => out.array_field("tool_calls", |out| {
            out.object(|out| {
                out.field("index", call);
                out.object_field("function", |out| out.field("arguments", text));
            });
        }),
        // They are beside the delta, or come at the end.
        Delta::Logprobs(_) | Delta::Finish(_) => {}
    }
}

/// Writes the fields that the first delta of a choice has in addition.
fn introduce(delta: &Delta, out: &mut Writer) {
    out.field("role", "assistant");
    match delta {
        Delta::Text(_) => {}
        Delta::Call(_) | Delta::Arguments(_) => out.field("content", ()),
        _ => out.field("content", ""),
    }
}
