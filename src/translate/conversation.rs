//! OpenAI's `messages` as the two things that Gemini and Anthropic know: instructions, and turns of
//! user and model that alternate.
//!
//! Instructions (system, developer) are collected in order, wherever they stand. A tool's result is
//! the user's. Neighbours of one side become one turn, as both APIs demand of parallel results. Within
//! a message of the model, text comes first and calls after it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::call_id;
use super::fields::{Fields, Refusal, refuse, text};
use super::media::{self, Media};

/// What was said, and by whom.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// One text for each part of a system or developer message.
    pub system: Vec<String>,
    /// Alternating, none of them empty.
    pub turns: Vec<Turn>,
}

#[derive(Debug)]
pub(super) struct Turn {
    pub side: Side,
    pub blocks: Vec<Block>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    User,
    Model,
}

#[derive(Debug)]
pub(super) enum Block {
    Text(Text),
    Media(Media),
    Call(Call),
    Result(ToolResult),
}

#[derive(Debug)]
pub(super) struct Text {
    pub text: String,
    /// Gemini's signature of a text.
    pub signature: Option<String>,
}

#[derive(Debug)]
pub(super) struct Call {
    /// The first call of its message: the one that carries what was thought before the calls.
    pub first: bool,
    /// As the client sent it, perhaps with a payload.
    pub id: String,
    pub name: String,
    pub arguments: Map<String, Value>,
    /// `extra_content` as the client sent it back.
    pub extra: Value,
}

#[derive(Debug)]
pub(super) struct ToolResult {
    pub id: String,
    /// The function that was called; from the call, or else from the message itself.
    pub name: Option<String>,
    pub text: String,
    /// The message's `tool_call_id`, for refusals.
    pub field: String,
    /// The place of its call among those of the turn before.
    order: usize,
}

impl Conversation {
    pub fn read(messages: Vec<Value>) -> Result<Self, Refusal> {
        let mut reader = Reader::default();
        for (number, message) in messages.into_iter().enumerate() {
            reader.message(Fields::of(&format!("messages[{number}]"), message)?)?;
        }
        reader.finish()
    }
}

#[derive(Default)]
struct Reader {
    conversation: Conversation,
    /// Id to name and place of every call so far.
    calls: BTreeMap<String, (String, usize)>,
}

impl Reader {
    fn message(&mut self, mut message: Fields) -> Result<(), Refusal> {
        match message.required_text("role")?.as_str() {
            "system" | "developer" => {
                let texts = texts(&mut message)?;
                self.conversation.system.extend(texts.into_iter().filter(|text| !text.is_empty()));
            }
            "user" => {
                let blocks = user_blocks(&mut message)?;
                self.say(Side::User, blocks);
            }
            "assistant" => {
                let blocks = self.assistant_blocks(&mut message)?;
                self.say(Side::Model, blocks);
            }
            "tool" => {
                let result = self.tool_result(&mut message)?;
                self.say(Side::User, vec![Block::Result(result)]);
            }
            "function" => return Err(message.refuse("role", "must be tool: functions were replaced by tools")),
            _ => return Err(message.refuse("role", "must be system, developer, user, assistant or tool")),
        }
        Ok(())
    }

    fn say(&mut self, side: Side, blocks: Vec<Block>) {
        match self.conversation.turns.last_mut() {
            Some(turn) if turn.side == side => turn.blocks.extend(blocks),
            _ if blocks.is_empty() => {}
            _ => self.conversation.turns.push(Turn { side, blocks }),
        }
    }

    fn assistant_blocks(&mut self, message: &mut Fields) -> Result<Vec<Block>, Refusal> {
        let extra = message.take("extra_content").unwrap_or_default();
        let mut texts = texts(message)?;
        // A refusal of OpenAI's is what the model said.
        texts.extend(message.text("refusal")?);
        texts.retain(|text| !text.is_empty());
        let text = |text| Block::Text(Text { text, signature: None });
        let mut blocks: Vec<Block> = texts.into_iter().map(text).collect();
        if let Some(Block::Text(last)) = blocks.last_mut() {
            last.signature = extra.pointer("/google/thought_signature").and_then(Value::as_str).map(str::to_owned);
        }
        for (number, value) in message.list("tool_calls")?.unwrap_or_default().into_iter().enumerate() {
            let mut fields = Fields::of(&message.name(&format!("tool_calls[{number}]")), value)?;
            let call = call(&mut fields, number == 0)?;
            self.calls.insert(call.id.clone(), (call.name.clone(), number));
            blocks.push(Block::Call(call));
        }
        if message.take("function_call").is_some() {
            return Err(message.refuse("function_call", "was replaced by tool_calls"));
        }
        Ok(blocks)
    }

    fn tool_result(&mut self, message: &mut Fields) -> Result<ToolResult, Refusal> {
        let id = message.required_text("tool_call_id")?;
        let (name, order) = match self.calls.get(&id) {
            Some((name, order)) => (Some(name.clone()), *order),
            None => (message.text("name")?, usize::MAX),
        };
        Ok(ToolResult { id, name, text: texts(message)?.concat(), field: message.name("tool_call_id"), order })
    }

    fn finish(self) -> Result<Conversation, Refusal> {
        let Conversation { mut system, mut turns } = self.conversation;
        if turns.is_empty() {
            // Both APIs need a turn, and instructions alone are what the user wants done.
            let texts = core::mem::take(&mut system).into_iter();
            let blocks: Vec<_> = texts.map(|text| Block::Text(Text { text, signature: None })).collect();
            if blocks.is_empty() {
                return Err(refuse("messages", "says nothing"));
            }
            turns.push(Turn { side: Side::User, blocks });
        }
        for turn in &mut turns {
            // Results lead, in the order of their calls: Anthropic demands the first, and Gemini
            // tells two calls of one function apart by the second.
            turn.blocks.sort_by_key(|block| match block {
                Block::Result(result) => (false, result.order),
                _ => (true, 0),
            });
        }
        Ok(Conversation { system, turns })
    }
}

/// The texts of a content that may hold nothing else.
fn texts(message: &mut Fields) -> Result<Vec<String>, Refusal> {
    let field = message.name("content");
    match message.take("content") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text]),
        Some(Value::Array(parts)) => parts
            .into_iter()
            .enumerate()
            .map(|(number, part)| {
                let mut part = Fields::of(&format!("{field}[{number}]"), part)?;
                match part.required_text("type")?.as_str() {
                    "text" => part.required_text("text"),
                    "refusal" => part.required_text("refusal"),
                    other => Err(part.refuse("type", format_args!("must be text in this message, not {other}"))),
                }
            })
            .collect(),
        Some(_) => Err(refuse(field, "must be a string or an array of parts")),
    }
}

fn user_blocks(message: &mut Fields) -> Result<Vec<Block>, Refusal> {
    let field = message.name("content");
    let text = |text: String| Block::Text(Text { text, signature: None });
    let blocks: Vec<Block> = match message.take("content") {
        None => return Err(refuse(field, "is missing")),
        Some(Value::String(words)) => vec![text(words)],
        Some(Value::Array(parts)) => parts
            .into_iter()
            .enumerate()
            .map(|(number, part)| {
                let mut part = Fields::of(&format!("{field}[{number}]"), part)?;
                Ok(match part.required_text("type")?.as_str() {
                    "text" => text(part.required_text("text")?),
                    "image_url" => Block::Media(media::image(&mut part)?),
                    "input_audio" => Block::Media(media::audio(&mut part)?),
                    "file" => Block::Media(media::file(&mut part)?),
                    _ => return Err(part.refuse("type", "must be text, image_url, input_audio or file")),
                })
            })
            .collect::<Result<_, Refusal>>()?,
        Some(_) => return Err(refuse(field, "must be a string or an array of parts")),
    };
    // Anthropic refuses empty texts, and they say nothing to anybody.
    Ok(blocks.into_iter().filter(|block| !matches!(block, Block::Text(text) if text.text.is_empty())).collect())
}

fn call(fields: &mut Fields, first: bool) -> Result<Call, Refusal> {
    let id = fields.required_text("id")?;
    if fields.text("type")?.is_some_and(|kind| kind != "function") {
        return Err(fields.refuse("type", "must be function"));
    }
    let mut function = fields.required_object("function")?;
    let name = function.required_text("name")?;
    // A call without arguments comes back as "" from some clients.
    let arguments = match function.text("arguments")?.unwrap_or_default().trim() {
        "" => Map::new(),
        json => {
            serde_json::from_str(json).map_err(|_| function.refuse("arguments", "must be a JSON object in a string"))?
        }
    };
    Ok(Call { first, id, name, arguments, extra: fields.take("extra_content").unwrap_or_default() })
}

impl Call {
    /// What `provider` wants to see again with this call, from `extra_content` or else from the id.
    pub fn payload(&self, provider: &str, pointer: &str) -> Option<Value> {
        let extra = self.extra.pointer(pointer).cloned();
        extra.or_else(|| call_id::payload(&self.id, provider).map(Value::String))
    }
}

/// A list of strings, or one.
pub(super) fn strings(value: Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one]),
        Value::Array(list) => list.into_iter().map(text).collect(),
        _ => None,
    }
}
