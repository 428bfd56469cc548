//! Messages, and their streams, to what the client sees.
//!
//! A message's blocks and a stream's events say the same things; what both have in common is one
//! function per block. Thinking is signed and must come back with the calls that follow it, so it is
//! kept until the next of them.

use serde_json::{Value, json};

use super::super::call_id;
use super::super::completion::{Call, Delta, Event, Finish, Reason, Usage};
use super::super::error;
use super::PROVIDER;

/// The thinking of one answer that is kept for its first call; more is shown, but not kept.
const THOUGHTS_LIMIT: usize = 1024 * 1024;

/// Whether this is an answer at all, be it an empty one.
pub(in super::super) fn is_answer(answer: &Value) -> bool {
    answer.get("content").is_some_and(Value::is_array)
}

/// Reads a stream's events in order, or one whole message.
#[derive(Debug, Default)]
pub(in super::super) struct Reader {
    /// Thinking blocks so far; the newest may still grow.
    thoughts: Vec<Thought>,
    /// Bytes of them.
    kept: usize,
    /// The block under way is a call, of whose arguments this many bytes have come.
    call: Option<usize>,
    usage: Counts,
}

#[derive(Debug)]
enum Thought {
    Open { text: String, signature: String },
    Redacted { data: String },
}

impl Thought {
    fn to_json(&self) -> Value {
        match self {
            Thought::Open { text, signature } => json!({"type": "thinking", "thinking": text, "signature": signature}),
            Thought::Redacted { data } => json!({"type": "redacted_thinking", "data": data}),
        }
    }
}

/// Anthropic has one choice.
fn event(delta: Delta) -> Event {
    Event::Choice(0, delta)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

impl Reader {
    /// The events of one event of a stream.
    pub fn read(&mut self, data: &Value, events: &mut Vec<Event>) {
        match text(data, "type") {
            "message_start" => {
                self.usage.update(data.pointer("/message/usage"));
                // The client learns at once that the model has begun.
                events.push(event(Delta::Text(String::new())));
            }
            "content_block_start" => {
                self.call = None;
                if let Some(block) = data.get("content_block") {
                    self.begin(block, events);
                }
            }
            "content_block_delta" => {
                if let Some(delta) = data.get("delta") {
                    self.grow(delta, events);
                }
            }
            "content_block_stop" => self.end_block(events),
            "message_delta" => {
                self.usage.update(data.get("usage"));
                let reason = data.pointer("/delta/stop_reason").and_then(Value::as_str);
                self.finish(reason, data.get("delta"), events);
            }
            "message_stop" => events.push(Event::End),
            "error" => {
                let unknown =
                    || error::own("provider_error", "The provider broke off with an error and did not say which.");
                events.push(Event::Error(error::of(data).unwrap_or_else(unknown)));
            }
            // ping, and what is yet to come.
            _ => {}
        }
    }

    /// The events of a whole message.
    pub fn read_message(&mut self, message: &Value, events: &mut Vec<Event>) {
        for block in message.get("content").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
            self.call = None;
            self.begin(block, events);
            if let Some(input) = block.get("input").filter(|input| input.is_object() && self.call.is_some()) {
                self.arguments(&input.to_string(), events);
            }
            self.end_block(events);
        }
        self.usage.update(message.get("usage"));
        let reason = message.get("stop_reason").and_then(Value::as_str);
        self.finish(reason, Some(message), events);
    }

    /// A block begins, with whatever text it has already.
    fn begin(&mut self, block: &Value, events: &mut Vec<Event>) {
        match text(block, "type") {
            "text" => push_text(text(block, "text"), Delta::Text, events),
            "thinking" => {
                self.keep(Thought::Open { text: String::new(), signature: String::new() }, 0);
                self.think(text(block, "thinking"), text(block, "signature"), events);
            }
            "redacted_thinking" => {
                let data = text(block, "data").to_owned();
                let size = data.len();
                self.keep(Thought::Redacted { data }, size);
            }
            "tool_use" => {
                let call = self.call(block);
                events.push(event(Delta::Call(call)));
                self.call = Some(0);
            }
            // Tools that run at Anthropic cannot be asked for from here.
            _ => {}
        }
    }

    fn grow(&mut self, delta: &Value, events: &mut Vec<Event>) {
        match text(delta, "type") {
            "text_delta" => push_text(text(delta, "text"), Delta::Text, events),
            "thinking_delta" => self.think(text(delta, "thinking"), "", events),
            "signature_delta" => self.think("", text(delta, "signature"), events),
            "input_json_delta" => self.arguments(text(delta, "partial_json"), events),
            _ => {}
        }
    }

    fn end_block(&mut self, events: &mut Vec<Event>) {
        // A call without arguments streams nothing, and its arguments are still JSON.
        if self.call.take() == Some(0) {
            events.push(event(Delta::Arguments("{}".to_owned())));
        }
    }

    fn arguments(&mut self, json: &str, events: &mut Vec<Event>) {
        let Some(size) = self.call.as_mut().filter(|_| !json.is_empty()) else { return };
        *size = size.saturating_add(json.len());
        events.push(event(Delta::Arguments(json.to_owned())));
    }

    fn keep(&mut self, thought: Thought, size: usize) {
        self.kept = self.kept.saturating_add(size);
        if self.kept <= THOUGHTS_LIMIT {
            self.thoughts.push(thought);
        }
    }

    fn think(&mut self, more: &str, signed: &str, events: &mut Vec<Event>) {
        push_text(more, Delta::Reasoning, events);
        self.kept = self.kept.saturating_add(more.len()).saturating_add(signed.len());
        if let Some(Thought::Open { text, signature }) =
            self.thoughts.last_mut().filter(|_| self.kept <= THOUGHTS_LIMIT)
        {
            text.push_str(more);
            signature.push_str(signed);
        }
    }

    /// A call begins; it takes along what was thought before it.
    fn call(&mut self, block: &Value) -> Call {
        let thoughts = core::mem::take(&mut self.thoughts);
        let blocks: Value = thoughts.iter().filter(|_| self.kept <= THOUGHTS_LIMIT).map(Thought::to_json).collect();
        let has_thoughts = blocks.as_array().is_some_and(|blocks| !blocks.is_empty());
        let id = text(block, "id");
        Call {
            id: if has_thoughts { call_id::join(id, PROVIDER, &blocks.to_string()) } else { id.to_owned() },
            name: text(block, "name").to_owned(),
            arguments: String::new(),
            extra: has_thoughts.then(|| json!({PROVIDER: {"thinking_blocks": blocks}})),
        }
    }

    fn finish(&mut self, reason: Option<&str>, details: Option<&Value>, events: &mut Vec<Event>) {
        if let Some(reason) = reason {
            let refusal = details.and_then(|details| details.pointer("/stop_details/explanation")?.as_str());
            if let Some(refusal) = refusal.filter(|_| reason == "refusal") {
                events.push(event(Delta::Refusal(refusal.to_owned())));
            }
            events.push(event(Delta::Finish(finish(reason))));
        }
        events.push(Event::Usage(self.usage.total()));
    }
}

fn push_text(more: &str, delta: fn(String) -> Delta, events: &mut Vec<Event>) {
    if !more.is_empty() {
        events.push(event(delta(more.to_owned())));
    }
}

fn finish(reason: &str) -> Finish {
    let provider = Some(reason.to_owned());
    match reason {
        "end_turn" | "stop_sequence" | "tool_use" => Finish { reason: Reason::Stop, provider: None },
        "max_tokens" => Finish { reason: Reason::Length, provider: None },
        "model_context_window_exceeded" => Finish { reason: Reason::Length, provider },
        "refusal" => Finish { reason: Reason::ContentFilter, provider },
        _ => Finish { reason: Reason::Stop, provider },
    }
}

/// Tokens as Anthropic counts them: `input_tokens` is without what the cache gave or took. A stream
/// states some of them twice, and the later number counts.
#[derive(Debug, Default)]
struct Counts {
    input: u64,
    cache_read: u64,
    cache_creation: u64,
    output: u64,
    thinking: u64,
}

impl Counts {
    fn update(&mut self, usage: Option<&Value>) {
        let Some(usage) = usage else { return };
        let set = |count: &mut u64, value: Option<&Value>| *count = value.and_then(Value::as_u64).unwrap_or(*count);
        set(&mut self.input, usage.get("input_tokens"));
        set(&mut self.cache_read, usage.get("cache_read_input_tokens"));
        set(&mut self.cache_creation, usage.get("cache_creation_input_tokens"));
        set(&mut self.output, usage.get("output_tokens"));
        set(&mut self.thinking, usage.pointer("/output_tokens_details/thinking_tokens"));
    }

    fn total(&self) -> Usage {
        Usage {
            prompt: self.input.saturating_add(self.cache_read).saturating_add(self.cache_creation),
            cached: self.cache_read,
            completion: self.output,
            reasoning: self.thinking,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finish_reasons() {
        for (word, reason, says_all) in [
            ("end_turn", Reason::Stop, true),
            ("stop_sequence", Reason::Stop, true),
            ("tool_use", Reason::Stop, true),
            ("max_tokens", Reason::Length, true),
            ("model_context_window_exceeded", Reason::Length, false),
            ("refusal", Reason::ContentFilter, false),
            ("pause_turn", Reason::Stop, false),
        ] {
            let provider = (!says_all).then(|| word.to_owned());
            assert_eq!(finish(word), Finish { reason, provider }, "{word}");
        }
    }
}
