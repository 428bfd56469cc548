//! Translates messages, and their streams, to events for the client.
//!
//! A message's blocks and a stream's events say the same things, and what they have in common is one
//! function per block. Thinking is signed and must come back with the call that follows it, so it is kept
//! until that call begins.

use super::PROVIDER;
use crate::json::{Node, Text, Writer};
use crate::translate::call_id;
use crate::translate::completion::{Call, Delta, Event, Finish, Reason, Usage};
use crate::translate::error;

/// How many bytes of thinking are kept for the first call of an answer. More is shown, but not kept.
const THOUGHTS_LIMIT: usize = 1024 * 1024;

/// Whether this is an answer at all, even an empty one.
pub(in crate::translate) fn is_answer(answer: Node) -> bool {
    answer.get("content").is_some_and(Node::is_array)
}

/// Reads a stream's events in order, or one whole message.
#[derive(Debug, Default)]
pub(in crate::translate) struct Reader {
    /// The thinking blocks so far, of which the newest may still grow.
    thoughts: Vec<Thought>,
    /// Bytes of them.
    kept: usize,
    /// How many bytes of arguments have come, if the current block is a call.
    call: Option<usize>,
    usage: Counts,
}

/// Its texts are escaped.
#[derive(Debug)]
enum Thought {
    Open { text: String, signature: String },
    Redacted { data: String },
}

impl Thought {
    fn write(&self, out: &mut Writer) {
        out.object(|out| match self {
            Thought::Open { text, signature } => {
                out.field("type", "thinking");
                out.field("thinking", Text::escaped(text));
                out.field("signature", Text::escaped(signature));
            }
            Thought::Redacted { data } => {
                out.field("type", "redacted_thinking");
                out.field("data", Text::escaped(data));
            }
        });
    }
}

/// Called with each event.
type Say<'s, 'd> = &'s mut dyn FnMut(Event<'d>);

/// Anthropic has one choice.
fn event(delta: Delta) -> Event {
    Event::Choice(0, delta)
}

fn text<'d>(value: Node<'d>, field: &str) -> Text<'d> {
    value.get(field).and_then(Node::as_text).unwrap_or_default()
}

impl Reader {
    /// Reads one event of a stream.
    pub fn read<'d>(&mut self, data: Node<'d>, say: Say<'_, 'd>) {
        match &*text(data, "type").decoded() {
            "message_start" => {
                self.usage.update(data.at(&["message", "usage"]));
                // An empty text shows the client at once that the model has begun.
                say(event(Delta::Text(Text::default())));
            }
            "content_block_start" => {
                self.call = None;
                if let Some(block) = data.get("content_block") {
                    self.begin(block, say);
                }
            }
            "content_block_delta" => {
                if let Some(delta) = data.get("delta") {
                    self.grow(delta, say);
                }
            }
            "content_block_stop" => self.end_block(say),
            "message_delta" => {
                self.usage.update(data.get("usage"));
                self.finish(data.at(&["delta", "stop_reason"]), data.get("delta"), say);
            }
            "message_stop" => say(Event::End),
            "error" => {
                let unknown =
                    || error::own("provider_error", "The provider broke off with an error and did not say which.");
                say(Event::Error(error::of(data).unwrap_or_else(unknown)));
            }
            // ping, and events that do not exist yet.
            _ => {}
        }
    }

    /// Reads a whole message.
    pub fn read_message<'d>(&mut self, message: Node<'d>, say: Say<'_, 'd>) {
        for block in message.get("content").into_iter().flat_map(Node::items) {
            self.call = None;
            self.begin(block, say);
            if let Some(input) = block.get("input").filter(|input| input.is_object() && self.call.is_some()) {
                self.arguments(Text::of(input.compact()), say);
            }
            self.end_block(say);
        }
        self.usage.update(message.get("usage"));
        self.finish(message.get("stop_reason"), Some(message), say);
    }

    /// A block begins, with the text that it has so far.
    fn begin<'d>(&mut self, block: Node<'d>, say: Say<'_, 'd>) {
        match &*text(block, "type").decoded() {
            "text" => say_text(text(block, "text"), Delta::Text, say),
            "thinking" => {
                self.keep(Thought::Open { text: String::new(), signature: String::new() }, 0);
                self.think(text(block, "thinking"), text(block, "signature"), say);
            }
            "redacted_thinking" => {
                let data = text(block, "data").as_escaped().to_owned();
                let size = data.len();
                self.keep(Thought::Redacted { data }, size);
            }
            "tool_use" => {
                let call = self.call(block);
                say(event(Delta::Call(Box::new(call))));
                self.call = Some(0);
            }
            // Tools that run at Anthropic cannot be requested through OpenAI's format.
            _ => {}
        }
    }

    fn grow<'d>(&mut self, delta: Node<'d>, say: Say<'_, 'd>) {
        match &*text(delta, "type").decoded() {
            "text_delta" => say_text(text(delta, "text"), Delta::Text, say),
            "thinking_delta" => self.think(text(delta, "thinking"), Text::default(), say),
            "signature_delta" => self.think(Text::default(), text(delta, "signature"), say),
            "input_json_delta" => self.arguments(text(delta, "partial_json"), say),
            _ => {}
        }
    }

    fn end_block(&mut self, say: Say) {
        // A call without arguments streams nothing, and its arguments are still JSON.
        if self.call.take() == Some(0) {
            say(event(Delta::Arguments(Text::escaped("{}"))));
        }
    }

    fn arguments<'d>(&mut self, json: Text<'d>, say: Say<'_, 'd>) {
        let Some(size) = self.call.as_mut().filter(|_| !json.is_empty()) else { return };
        *size = size.saturating_add(json.as_escaped().len());
        say(event(Delta::Arguments(json)));
    }

    fn keep(&mut self, thought: Thought, size: usize) {
        self.kept = self.kept.saturating_add(size);
        if self.kept <= THOUGHTS_LIMIT {
            self.thoughts.push(thought);
        }
    }

    fn think<'d>(&mut self, more: Text<'d>, signed: Text<'d>, say: Say<'_, 'd>) {
        let (new, sign) = (more.as_escaped(), signed.as_escaped());
        self.kept = self.kept.saturating_add(new.len()).saturating_add(sign.len());
        if let Some(Thought::Open { text, signature }) =
            self.thoughts.last_mut().filter(|_| self.kept <= THOUGHTS_LIMIT)
        {
            text.push_str(new);
            signature.push_str(sign);
        }
        say_text(more, Delta::Reasoning, say);
    }

    /// A call begins. It takes the thoughts that came before it.
    fn call<'d>(&mut self, block: Node<'d>) -> Call<'d> {
        let mut thoughts = core::mem::take(&mut self.thoughts);
        if self.kept > THOUGHTS_LIMIT {
            thoughts.clear();
        }
        let (id, name, arguments) = (text(block, "id"), text(block, "name"), Text::default());
        if thoughts.is_empty() {
            return Call { id, name, arguments, extra: None };
        }
        let mut blocks = Writer::default();
        blocks.array(|out| thoughts.iter().for_each(|thought| thought.write(out)));
        let blocks = blocks.finish();
        let mut extra = Writer::default();
        extra.object(|out| {
            out.object_field(PROVIDER, |out| {
                out.name("thinking_blocks");
                out.raw(&blocks);
            });
        });
        let id = Text::of(call_id::join(&id.decoded(), PROVIDER, &blocks));
        Call { id, name, arguments, extra: Some(extra.finish()) }
    }

    fn finish<'d>(&mut self, reason: Option<Node<'d>>, details: Option<Node<'d>>, say: Say<'_, 'd>) {
        if let Some(reason) = reason.and_then(Node::as_text).as_ref().map(Text::decoded) {
            let refusal = details.and_then(|details| details.at(&["stop_details", "explanation"])?.as_text());
            if let Some(refusal) = refusal.filter(|_| reason == "refusal") {
                say(event(Delta::Refusal(refusal)));
            }
            say(event(Delta::Finish(finish(&reason))));
        }
        say(Event::Usage(self.usage.total()));
    }
}

fn say_text<'d>(more: Text<'d>, delta: fn(Text<'d>) -> Delta<'d>, say: Say<'_, 'd>) {
    if !more.is_empty() {
        say(event(delta(more)));
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

/// Tokens as Anthropic counts them: `input_tokens` excludes what was read from or written to the cache. A
/// stream states some of them twice, and the later number counts.
#[derive(Debug, Default)]
struct Counts {
    input: u64,
    cache_read: u64,
    cache_creation: u64,
    output: u64,
    thinking: u64,
}

impl Counts {
    fn update(&mut self, usage: Option<Node>) {
        let Some(usage) = usage else { return };
        let set = |count: &mut u64, value: Option<Node>| *count = value.and_then(Node::as_u64).unwrap_or(*count);
        set(&mut self.input, usage.get("input_tokens"));
        set(&mut self.cache_read, usage.get("cache_read_input_tokens"));
        set(&mut self.cache_creation, usage.get("cache_creation_input_tokens"));
        set(&mut self.output, usage.get("output_tokens"));
        set(&mut self.thinking, usage.at(&["output_tokens_details", "thinking_tokens"]));
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
