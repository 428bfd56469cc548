//! The client's side of an answer, as chunks of a stream or as one completion.
//!
//! A dialect's reader turns whatever its provider sends into [`Event`]s, whether they come one by one or
//! all in one document. Chunks are events written one after the other ([`super::chunks`]), and a
//! completion is the sum of the same events. So the two can only differ where the provider's own two forms
//! do.

use super::AnswerShape;
use crate::json::{Text, Writer};

/// One thing that happened.
#[derive(Debug)]
pub(super) enum Event<'d> {
    /// A choice grew. Its index is from 0.
    Choice(u64, Delta<'d>),
    /// The tokens so far. The last statement counts.
    Usage(Usage),
    /// The provider failed. This is the `error` that the client gets.
    Error(serde_json::Value),
    /// Nothing more will come.
    End,
}

/// What a choice gained.
#[derive(Debug)]
pub(super) enum Delta<'d> {
    /// More of the answer's text.
    Text(Text<'d>),
    /// More of what the model thought.
    Reasoning(Text<'d>),
    /// An extension of the message itself (`extra_content`): JSON.
    Extra(String),
    /// An image, as a URL.
    Image(Text<'d>),
    /// A call begins, with the arguments that are known so far.
    Call(Box<Call<'d>>),
    /// More of the newest call's arguments.
    Arguments(Text<'d>),
    /// Entries of `logprobs.content`: JSON, with commas between them.
    Logprobs(String),
    /// Why the model would not answer.
    Refusal(Text<'d>),
    /// The choice is complete.
    Finish(Finish),
}

#[derive(Debug)]
pub(super) struct Call<'d> {
    pub id: Text<'d>,
    pub name: Text<'d>,
    pub arguments: Text<'d>,
    /// JSON.
    pub extra: Option<String>,
}

/// Why a choice ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finish {
    pub reason: Reason,
    /// The provider's own reason, where `reason` does not say everything.
    pub provider: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The model was done. With calls it becomes `tool_calls`.
    Stop,
    Length,
    ContentFilter,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// The whole prompt, including the cached part.
    pub prompt: u64,
    pub cached: u64,
    /// The whole answer, including thoughts.
    pub completion: u64,
    pub reasoning: u64,
}

impl Usage {
    pub fn write(self, out: &mut Writer) {
        out.object_field("usage", |out| {
            out.field("prompt_tokens", self.prompt);
            out.field("completion_tokens", self.completion);
            out.field("total_tokens", self.prompt.saturating_add(self.completion));
            out.object_field("prompt_tokens_details", |out| out.field("cached_tokens", self.cached));
            out.object_field("completion_tokens_details", |out| out.field("reasoning_tokens", self.reasoning));
        });
    }
}

/// How many choices are kept apart, which is more than any request can have.
const MOST_CHOICES: usize = 128;

/// What is known of one choice.
#[derive(Debug, Default)]
pub(super) struct Choice<'d> {
    pub index: u64,
    /// How many calls have begun.
    calls: u64,
    /// The newest call is one that the client does not want.
    muted: bool,
    pub finish: Option<Finish>,
    /// The message so far. A stream keeps nothing of it.
    message: Message<'d>,
}

/// The choices that have appeared.
#[derive(Debug, Default)]
pub(super) struct Choices<'d>(pub Vec<Choice<'d>>);

impl<'d> Choices<'d> {
    /// The choice of this index, and whether it is new. `None` if there are too many.
    pub fn get(&mut self, index: u64) -> Option<(&mut Choice<'d>, bool)> {
        let at = self.0.iter().position(|choice| choice.index == index);
        if at.is_none() && self.0.len() < MOST_CHOICES {
            self.0.push(Choice { index, ..Choice::default() });
        }
        let last = self.0.len().saturating_sub(1);
        let choice = self.0.get_mut(at.unwrap_or(last))?;
        (choice.index == index).then_some((choice, at.is_none()))
    }
}

impl<'d> Choice<'d> {
    /// Counts a call and returns its index. `None` if the client wants only one call and has it.
    pub fn begin_call(&mut self, single: bool) -> Option<u64> {
        self.muted = single && self.calls > 0;
        if self.muted {
            return None;
        }
        self.calls = self.calls.saturating_add(1);
        self.calls.checked_sub(1)
    }

    /// The index of the call whose arguments grow. `None` if there is no call that the client wants.
    pub fn newest_call(&self) -> Option<u64> {
        self.calls.checked_sub(1).filter(|_| !self.muted)
    }

    fn add(&mut self, delta: Delta<'d>, single: bool) {
        let message = &mut self.message;
        match delta {
            Delta::Text(text) => message.text.push(text),
            Delta::Reasoning(text) => message.reasoning.push(text),
            Delta::Refusal(text) => message.refusal.get_or_insert_default().push(text),
            Delta::Extra(extra) => message.extra = Some(extra),
            Delta::Image(url) => message.images.push(url),
            Delta::Logprobs(entries) => match &mut message.logprobs {
                Some(before) => before.extend([",", &entries]),
                none => *none = Some(entries),
            },
            Delta::Finish(finish) => self.finish = Some(finish),
            Delta::Call(call) => {
                if self.begin_call(single).is_some() {
                    self.message.calls.push(*call);
                }
            }
            Delta::Arguments(text) => {
                if let Some(call) = message.calls.last_mut().filter(|_| !self.muted) {
                    call.arguments.push(text);
                }
            }
        }
    }

    fn write(&self, out: &mut Writer) {
        out.object(|out| {
            out.field("index", self.index);
            self.message.write(out);
            write_logprobs(self.message.logprobs.as_deref(), out);
            self.write_end(out);
        });
    }

    fn finish_reason(&self) -> &'static str {
        match self.finish.as_ref().map_or(Reason::Stop, |finish| finish.reason) {
            Reason::Stop if self.calls > 0 => "tool_calls",
            Reason::Stop => "stop",
            Reason::Length => "length",
            Reason::ContentFilter => "content_filter",
        }
    }

    /// The fields that end this choice.
    pub fn write_end(&self, out: &mut Writer) {
        out.field("finish_reason", self.finish_reason());
        out.field_if("provider_finish_reason", self.finish.as_ref().and_then(|finish| finish.provider.as_deref()));
    }
}

pub(super) fn write_logprobs(entries: Option<&str>, out: &mut Writer) {
    match entries {
        Some(entries) => {
            out.object_field("logprobs", |out| out.array_field("content", |out| out.raw(entries)));
        }
        None => out.field("logprobs", ()),
    }
}

pub(super) fn write_call(call: &Call, index: Option<u64>, out: &mut Writer) {
    out.object(|out| {
        out.field("id", &call.id);
        out.field("type", "function");
        out.object_field("function", |out| {
            out.field("name", &call.name);
            out.field("arguments", &call.arguments);
        });
        write_extra(call.extra.as_deref(), out);
        out.field_if("index", index);
    });
}

pub(super) fn write_extra(extra: Option<&str>, out: &mut Writer) {
    if let Some(extra) = extra {
        out.name("extra_content");
        out.raw(extra);
    }
}

pub(super) fn write_image(url: &Text, out: &mut Writer) {
    out.object(|out| {
        out.field("type", "image_url");
        out.object_field("image_url", |out| out.field("url", url));
    });
}

/// The fields that all chunks of a stream, or the completion, begin with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'h> {
    pub id: &'h str,
    /// Unix seconds.
    pub created: u64,
    pub model: &'h str,
}

impl Head<'_> {
    pub fn write(self, object: &str, out: &mut Writer) {
        out.field("id", self.id);
        out.field("object", object);
        out.field("created", self.created);
        out.field("model", self.model);
    }
}

/// Adds events up to one completion.
#[derive(Debug)]
pub(super) struct Completion<'d> {
    single_call: bool,
    choices: Choices<'d>,
    usage: Usage,
}

impl<'d> Completion<'d> {
    pub fn new(shape: &AnswerShape) -> Self {
        Completion { single_call: shape.single_call, choices: Choices::default(), usage: Usage::default() }
    }

    pub fn add(&mut self, event: Event<'d>) {
        match event {
            Event::Usage(last) => self.usage = last,
            Event::Choice(index, delta) => {
                if let Some((choice, _)) = self.choices.get(index) {
                    choice.add(delta, self.single_call);
                }
            }
            Event::Error(_) | Event::End => {}
        }
    }

    pub fn write(mut self, head: Head, out: &mut Writer) {
        if self.choices.0.is_empty() {
            // Every client takes the first choice without checking that there is one.
            self.choices.0.push(Choice::default());
        }
        out.object(|out| {
            head.write("chat.completion", out);
            out.array_field("choices", |out| self.choices.0.iter().for_each(|choice| choice.write(out)));
            self.usage.write(out);
        });
    }
}

/// A message that is being added up.
#[derive(Debug, Default)]
struct Message<'d> {
    text: Text<'d>,
    reasoning: Text<'d>,
    refusal: Option<Text<'d>>,
    extra: Option<String>,
    images: Vec<Text<'d>>,
    calls: Vec<Call<'d>>,
    logprobs: Option<String>,
}

impl Message<'_> {
    fn write(&self, out: &mut Writer) {
        out.object_field("message", |out| {
            out.field("role", "assistant");
            out.field("content", (!self.text.is_empty() || self.calls.is_empty()).then_some(&self.text));
            out.field("refusal", self.refusal.as_ref());
            if !self.reasoning.is_empty() {
                out.field("reasoning_content", &self.reasoning);
            }
            write_extra(self.extra.as_deref(), out);
            if !self.images.is_empty() {
                out.array_field("images", |out| self.images.iter().for_each(|url| write_image(url, out)));
            }
            if !self.calls.is_empty() {
                out.array_field("tool_calls", |out| self.calls.iter().for_each(|call| write_call(call, None, out)));
            }
        });
    }
}
