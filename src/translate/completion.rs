//! The client's side of an answer: what a model says, as chunks of a stream or as one completion.
//!
//! A dialect's reader turns whatever its provider sends into [`Event`]s, whether they come one by one
//! or all in one document. Chunks are events written down one after the other, and a completion is
//! the same events added up; so the two can only differ where the provider's own two forms do.

use serde_json::{Value, json};

use super::AnswerShape;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    /// A choice grew; its number, from 0.
    Choice(u64, Delta),
    /// The tokens so far; the last one counts.
    Usage(Usage),
    /// The provider gave up: the `error` that the client gets.
    Error(Value),
    /// Nothing more will come.
    End,
}

/// What a choice gained.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Delta {
    /// More of the answer's text.
    Text(String),
    /// More of what the model thought.
    Reasoning(String),
    /// An extension of the message itself (`extra_content`).
    Extra(Value),
    /// An image, as a URL.
    Image(String),
    /// A call begins, with what is known of its arguments.
    Call(Call),
    /// More of the newest call's arguments.
    Arguments(String),
    /// Entries of `logprobs.content`.
    Logprobs(Vec<Value>),
    /// Why the model would not answer.
    Refusal(String),
    /// The choice is complete.
    Finish(Finish),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub id: String,
    pub name: String,
    pub arguments: String,
    pub extra: Option<Value>,
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
    fn to_json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt.saturating_add(self.completion),
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        })
    }
}

/// More choices than any request can ask for are not kept apart.
const MOST_CHOICES: usize = 128;

/// What is known of one choice.
#[derive(Debug, Default)]
struct Choice {
    number: u64,
    /// How many calls have begun.
    calls: u64,
    /// The newest call is one that the client does not want.
    muted: bool,
    finish: Option<Finish>,
    /// What has been said; a stream keeps nothing of it.
    message: Message,
}

/// The choices that have appeared.
#[derive(Debug, Default)]
struct Choices(Vec<Choice>);

impl Choices {
    /// The choice of this number, and whether it is new. `None` if there are too many.
    fn get(&mut self, number: u64) -> Option<(&mut Choice, bool)> {
        let at = self.0.iter().position(|choice| choice.number == number);
        if at.is_none() && self.0.len() < MOST_CHOICES {
            self.0.push(Choice { number, ..Choice::default() });
        }
        let last = self.0.len().saturating_sub(1);
        let choice = self.0.get_mut(at.unwrap_or(last))?;
        (choice.number == number).then_some((choice, at.is_none()))
    }
}

impl Choice {
    /// Counts a call. `None` if the client wants one call only and has it.
    fn begin_call(&mut self, single: bool) -> Option<u64> {
        self.muted = single && self.calls > 0;
        if self.muted {
            return None;
        }
        self.calls = self.calls.saturating_add(1);
        self.calls.checked_sub(1)
    }

    fn add(&mut self, delta: Delta, single: bool) {
        let message = &mut self.message;
        match delta {
            Delta::Text(text) => message.text.push_str(&text),
            Delta::Reasoning(text) => message.reasoning.push_str(&text),
            Delta::Refusal(text) => message.refusal.get_or_insert_default().push_str(&text),
            Delta::Extra(extra) => message.extra = Some(extra),
            Delta::Image(url) => message.images.push(image_json(&url)),
            Delta::Logprobs(content) => message.logprobs.extend(content),
            Delta::Finish(finish) => self.finish = Some(finish),
            Delta::Call(call) => {
                if self.begin_call(single).is_some() {
                    self.message.calls.push(call);
                }
            }
            Delta::Arguments(text) => {
                if let Some(call) = message.calls.last_mut().filter(|_| !self.muted) {
                    call.arguments.push_str(&text);
                }
            }
        }
    }

    fn to_json(&self) -> Value {
        let logprobs = match self.message.logprobs.as_slice() {
            [] => Value::Null,
            content => json!({"content": content}),
        };
        let mut json = json!({"index": self.number, "message": self.message.to_json(), "logprobs": logprobs});
        self.write_end(&mut json);
        json
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
    fn write_end(&self, choice: &mut Value) {
        put(choice, "finish_reason", self.finish_reason());
        if let Some(word) = self.finish.as_ref().and_then(|finish| finish.provider.as_deref()) {
            put(choice, "provider_finish_reason", word);
        }
    }
}

/// Sets a field of an object.
pub(super) fn put(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Value::Object(map) = object {
        map.insert(field.to_owned(), value.into());
    }
}

fn call_json(call: &Call) -> Value {
    let mut json = json!({
        "id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments},
    });
    if let Some(extra) = &call.extra {
        put(&mut json, "extra_content", extra.clone());
    }
    json
}

/// What all chunks, or the completion, say of themselves.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub id: String,
    /// Unix seconds.
    pub created: u64,
}

/// Writes events down as chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    shape: AnswerShape,
    head: Head,
    choices: Choices,
    usage: Usage,
}

impl Chunks {
    pub fn new(shape: AnswerShape, head: Head) -> Self {
        Chunks { shape, head, choices: Choices::default(), usage: Usage::default() }
    }

    /// Writes what the client sees of `event` at once. [`Delta::Finish`] and [`Event::Usage`] are kept
    /// for [`Self::end`], because text and calls may still follow them.
    pub fn write(&mut self, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Usage(usage) => self.usage = usage,
            Event::Choice(number, delta) => self.write_delta(number, delta, out),
            Event::Error(_) | Event::End => {}
        }
    }

    fn write_delta(&mut self, number: u64, delta: Delta, out: &mut Vec<u8>) {
        let Some((choice, is_new)) = self.choices.get(number) else { return };
        let mut logprobs = Value::Null;
        let mut delta = match delta {
            Delta::Text(text) => json!({"content": text}),
            Delta::Reasoning(text) => json!({"reasoning_content": text}),
            Delta::Extra(extra) => json!({"extra_content": extra}),
            Delta::Image(url) => json!({"images": [image_json(&url)]}),
            Delta::Refusal(text) => json!({"refusal": text}),
            Delta::Logprobs(content) => {
                logprobs = json!({"content": content});
                json!({})
            }
            Delta::Call(call) => {
                let Some(index) = choice.begin_call(self.shape.single_call) else { return };
                let mut json = call_json(&call);
                put(&mut json, "index", index);
                json!({"tool_calls": [json]})
            }
            Delta::Arguments(text) => {
                let Some(index) = choice.calls.checked_sub(1).filter(|_| !choice.muted) else { return };
                json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
            }
            Delta::Finish(finish) => {
                choice.finish = Some(finish);
                if !is_new {
                    return;
                }
                json!({})
            }
        };
        if is_new {
            introduce(&mut delta);
        }
        let mut choice = json!({"index": number, "delta": delta, "finish_reason": null});
        if !logprobs.is_null() {
            put(&mut choice, "logprobs", logprobs);
        }
        self.chunk(json!([choice]), None, out);
    }

    /// Whether every choice that has appeared is complete, and there is one.
    pub fn is_complete(&self) -> bool {
        !self.choices.0.is_empty() && self.choices.0.iter().all(|choice| choice.finish.is_some())
    }

    /// Writes the reasons, the usage if it was asked for, and `[DONE]`.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        for choice in core::mem::take(&mut self.choices.0) {
            let mut end = json!({"index": choice.number, "delta": {}});
            choice.write_end(&mut end);
            self.chunk(json!([end]), None, out);
        }
        if self.shape.include_usage {
            self.chunk(json!([]), Some(self.usage), out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn chunk(&self, choices: Value, usage: Option<Usage>, out: &mut Vec<u8>) {
        let mut chunk = json!({
            "id": self.head.id, "object": "chat.completion.chunk", "created": self.head.created,
            "model": self.shape.model, "choices": choices,
        });
        if let Some(usage) = usage {
            put(&mut chunk, "usage", usage.to_json());
        }
        write_data(&chunk, out);
    }
}

/// Writes one `data:` event.
pub(super) fn write_data(value: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(value.to_string().as_bytes());
    out.extend_from_slice(b"\n\n");
}

fn image_json(url: &str) -> Value {
    json!({"type": "image_url", "image_url": {"url": url}})
}

/// What the first delta of a choice has besides its own.
fn introduce(delta: &mut Value) {
    put(delta, "role", "assistant");
    if delta.get("content").is_none() {
        let content = if delta.get("tool_calls").is_some() { Value::Null } else { "".into() };
        put(delta, "content", content);
    }
}

/// Adds events up to one completion.
pub(super) fn complete(shape: &AnswerShape, head: &Head, events: Vec<Event>) -> Value {
    let mut choices = Choices::default();
    let mut usage = Usage::default();
    for event in events {
        match event {
            Event::Usage(last) => usage = last,
            Event::Choice(number, delta) => {
                let Some((choice, _)) = choices.get(number) else { continue };
                choice.add(delta, shape.single_call);
            }
            Event::Error(_) | Event::End => {}
        }
    }
    if choices.0.is_empty() {
        // Every client takes the first choice without looking whether there is one.
        choices.0.push(Choice::default());
    }
    json!({
        "id": head.id, "object": "chat.completion", "created": head.created, "model": shape.model,
        "choices": choices.0.iter().map(Choice::to_json).collect::<Value>(), "usage": usage.to_json(),
    })
}

/// A message under way.
#[derive(Debug, Default)]
struct Message {
    text: String,
    reasoning: String,
    refusal: Option<String>,
    extra: Option<Value>,
    images: Vec<Value>,
    calls: Vec<Call>,
    logprobs: Vec<Value>,
}

impl Message {
    fn to_json(&self) -> Value {
        let content = if self.text.is_empty() && !self.calls.is_empty() { None } else { Some(self.text.as_str()) };
        let mut message = json!({"role": "assistant", "content": content, "refusal": self.refusal});
        if !self.reasoning.is_empty() {
            put(&mut message, "reasoning_content", self.reasoning.as_str());
        }
        if let Some(extra) = &self.extra {
            put(&mut message, "extra_content", extra.clone());
        }
        if !self.images.is_empty() {
            put(&mut message, "images", self.images.clone());
        }
        if !self.calls.is_empty() {
            put(&mut message, "tool_calls", self.calls.iter().map(call_json).collect::<Value>());
        }
        message
    }
}
