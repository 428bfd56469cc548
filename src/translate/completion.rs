//! The client's side of an answer: what a model says, as chunks of a stream or as one completion.
//!
//! A dialect's reader turns whatever its provider sends into [`Event`]s, whether they come one by one
//! or all in one document. Chunks are events written down one after the other, and a completion is
//! the same events added up; so the two can only differ where the provider's own two forms do.

use super::AnswerShape;
use crate::json::{Text, Writer};

/// One thing that happened.
#[derive(Debug)]
pub(super) enum Event<'d> {
    /// A choice grew; its number, from 0.
    Choice(u64, Delta<'d>),
    /// The tokens so far; the last one counts.
    Usage(Usage),
    /// The provider gave up: the `error` that the client gets.
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
    /// A call begins, with what is known of its arguments.
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
    /// The provider's own word, where `reason` does not say all of it.
    pub provider: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The model was done. With calls it becomes `tool_calls`.
    Stop,
    Length,
    ContentFilter,
}

/// Tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// All of the prompt, the cached part included.
    pub prompt: u64,
    pub cached: u64,
    /// All of the answer, thoughts included.
    pub completion: u64,
    pub reasoning: u64,
}

impl Usage {
    fn write(self, out: &mut Writer) {
        out.name("usage");
        out.object();
        out.field("prompt_tokens", self.prompt);
        out.field("completion_tokens", self.completion);
        out.field("total_tokens", self.prompt.saturating_add(self.completion));
        out.name("prompt_tokens_details");
        out.object();
        out.field("cached_tokens", self.cached);
        out.end_object();
        out.name("completion_tokens_details");
        out.object();
        out.field("reasoning_tokens", self.reasoning);
        out.end_object();
        out.end_object();
    }
}

/// More choices than any request can ask for are not kept apart.
const MOST_CHOICES: usize = 128;

/// What is known of one choice.
#[derive(Debug, Default)]
struct Choice<'d> {
    number: u64,
    /// How many calls have begun.
    calls: u64,
    /// The newest call is one that the client does not want.
    muted: bool,
    finish: Option<Finish>,
    /// What has been said; a stream keeps nothing of it.
    message: Message<'d>,
}

/// The choices that have appeared.
#[derive(Debug, Default)]
struct Choices<'d>(Vec<Choice<'d>>);

impl<'d> Choices<'d> {
    /// The choice of this number, and whether it is new. `None` if there are too many.
    fn get(&mut self, number: u64) -> Option<(&mut Choice<'d>, bool)> {
        let at = self.0.iter().position(|choice| choice.number == number);
        if at.is_none() && self.0.len() < MOST_CHOICES {
            self.0.push(Choice { number, ..Choice::default() });
        }
        let last = self.0.len().saturating_sub(1);
        let choice = self.0.get_mut(at.unwrap_or(last))?;
        (choice.number == number).then_some((choice, at.is_none()))
    }
}

impl<'d> Choice<'d> {
    /// Counts a call. `None` if the client wants one call only and has it.
    fn begin_call(&mut self, single: bool) -> Option<u64> {
        self.muted = single && self.calls > 0;
        if self.muted {
            return None;
        }
        self.calls = self.calls.saturating_add(1);
        self.calls.checked_sub(1)
    }

    /// The number of the call whose arguments grow. `None` if there is none that the client wants.
    fn newest_call(&self) -> Option<u64> {
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
        out.object();
        out.field("index", self.number);
        self.message.write(out);
        write_logprobs(self.message.logprobs.as_deref(), out);
        self.write_end(out);
        out.end_object();
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
    fn write_end(&self, out: &mut Writer) {
        out.field("finish_reason", self.finish_reason());
        out.field_if("provider_finish_reason", self.finish.as_ref().and_then(|finish| finish.provider.as_deref()));
    }
}

fn write_logprobs(entries: Option<&str>, out: &mut Writer) {
    out.name("logprobs");
    let Some(entries) = entries else { return out.value(()) };
    out.object();
    out.name("content");
    out.array();
    out.raw(entries);
    out.end_array();
    out.end_object();
}

fn write_call(call: &Call, index: Option<u64>, out: &mut Writer) {
    out.object();
    out.field("id", &call.id);
    out.field("type", "function");
    out.name("function");
    out.object();
    out.field("name", &call.name);
    out.field("arguments", &call.arguments);
    out.end_object();
    write_extra(call.extra.as_deref(), out);
    out.field_if("index", index);
    out.end_object();
}

fn write_extra(extra: Option<&str>, out: &mut Writer) {
    if let Some(extra) = extra {
        out.name("extra_content");
        out.raw(extra);
    }
}

fn write_image(url: &Text, out: &mut Writer) {
    out.object();
    out.field("type", "image_url");
    out.name("image_url");
    out.object();
    out.field("url", url);
    out.end_object();
    out.end_object();
}

/// What all chunks, or the completion, say of themselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'h> {
    pub id: &'h str,
    /// Unix seconds.
    pub created: u64,
    pub model: &'h str,
}

impl Head<'_> {
    fn write(self, object: &str, out: &mut Writer) {
        out.field("id", self.id);
        out.field("object", object);
        out.field("created", self.created);
        out.field("model", self.model);
    }
}

/// Writes events down as chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    /// How every chunk begins, up to the first choice.
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
        begin.name("choices");
        begin.array();
        Chunks {
            begin: begin.finish(),
            include_usage: shape.include_usage,
            single_call: shape.single_call,
            choices: Choices::default(),
            usage: Usage::default(),
        }
    }

    /// Writes what the client sees of `event` at once. [`Delta::Finish`] and [`Event::Usage`] are kept
    /// for [`Self::end`], because text and calls may still follow them.
    pub fn write(&mut self, event: Event, out: &mut Writer) {
        match event {
            Event::Usage(usage) => self.usage = usage,
            Event::Choice(number, delta) => self.write_delta(number, delta, out),
            Event::Error(_) | Event::End => {}
        }
    }

    fn write_delta(&mut self, number: u64, mut delta: Delta, out: &mut Writer) {
        let Some((choice, is_new)) = self.choices.get(number) else { return };
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
        out.object();
        out.field("index", number);
        out.name("delta");
        out.object();
        write_gain(&delta, call, out);
        if is_new {
            introduce(&delta, out);
        }
        out.end_object();
        out.field("finish_reason", ());
        if let Delta::Logprobs(entries) = &delta {
            write_logprobs(Some(entries), out);
        }
        out.end_object();
        out.raw(END);
    }

    /// Whether every choice that has appeared is complete, and there is one.
    pub fn is_complete(&self) -> bool {
        !self.choices.0.is_empty() && self.choices.0.iter().all(|choice| choice.finish.is_some())
    }

    /// Writes the reasons, the usage if it was asked for, and `[DONE]`.
    pub fn end(&mut self, out: &mut Writer) {
        for choice in core::mem::take(&mut self.choices.0) {
            out.raw(&self.begin);
            out.object();
            out.field("index", choice.number);
            out.name("delta");
            out.object();
            out.end_object();
            choice.write_end(out);
            out.end_object();
            out.raw(END);
        }
        if self.include_usage {
            out.raw(&self.begin);
            out.end_array();
            self.usage.write(out);
            out.end_object();
            out.raw("\n\n");
        }
        out.raw("data: [DONE]\n\n");
    }
}

/// How a chunk with choices ends.
const END: &str = "]}\n\n";

/// What a delta has itself. `call` is the number of the call that begins or grows.
fn write_gain(delta: &Delta, call: u64, out: &mut Writer) {
    match delta {
        Delta::Text(text) => out.field("content", text),
        Delta::Reasoning(text) => out.field("reasoning_content", text),
        Delta::Refusal(text) => out.field("refusal", text),
        Delta::Extra(extra) => write_extra(Some(extra), out),
        Delta::Image(url) => {
            out.name("images");
            out.array();
            write_image(url, out);
            out.end_array();
        }
        Delta::Call(begun) => {
            out.name("tool_calls");
            out.array();
            write_call(begun, Some(call), out);
            out.end_array();
        }
        Delta::Arguments(text) => {
            out.name("tool_calls");
            out.array();
            out.object();
            out.field("index", call);
            out.name("function");
            out.object();
            out.field("arguments", text);
            out.end_object();
            out.end_object();
            out.end_array();
        }
        // They stand beside the delta, or come at the end.
        Delta::Logprobs(_) | Delta::Finish(_) => {}
    }
}

/// What the first delta of a choice has besides its own.
fn introduce(delta: &Delta, out: &mut Writer) {
    out.field("role", "assistant");
    match delta {
        Delta::Text(_) => {}
        Delta::Call(_) | Delta::Arguments(_) => out.field("content", ()),
        _ => out.field("content", ""),
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
            Event::Choice(number, delta) => {
                if let Some((choice, _)) = self.choices.get(number) {
                    choice.add(delta, self.single_call);
                }
            }
            Event::Error(_) | Event::End => {}
        }
    }

    pub fn write(mut self, head: Head, out: &mut Writer) {
        if self.choices.0.is_empty() {
            // Every client takes the first choice without looking whether there is one.
            self.choices.0.push(Choice::default());
        }
        out.object();
        head.write("chat.completion", out);
        out.name("choices");
        out.array();
        self.choices.0.iter().for_each(|choice| choice.write(out));
        out.end_array();
        self.usage.write(out);
        out.end_object();
    }
}

/// A message under way.
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
        out.name("message");
        out.object();
        out.field("role", "assistant");
        out.field("content", (!self.text.is_empty() || self.calls.is_empty()).then_some(&self.text));
        out.field("refusal", self.refusal.as_ref());
        if !self.reasoning.is_empty() {
            out.field("reasoning_content", &self.reasoning);
        }
        write_extra(self.extra.as_deref(), out);
        if !self.images.is_empty() {
            out.name("images");
            out.array();
            self.images.iter().for_each(|url| write_image(url, out));
            out.end_array();
        }
        if !self.calls.is_empty() {
            out.name("tool_calls");
            out.array();
            self.calls.iter().for_each(|call| write_call(call, None, out));
            out.end_array();
        }
        out.end_object();
    }
}
