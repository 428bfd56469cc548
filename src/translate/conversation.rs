//! OpenAI's `messages` as the two things that Gemini and Anthropic have: instructions, and alternating turns
//! of user and model.
//!
//! Instructions (system, developer) are collected in order, wherever they are. A tool's result belongs to
//! the user's side. Neighbouring messages of one side become one turn, as both APIs require of parallel
//! results. Within a message of the model, text comes first and calls follow.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::json;

use super::call_id;
use super::fields::{Fields, Path, Refusal, refuse};
use super::media::{self, Media};
use crate::json::{Document, Items, Node, Text};

#[derive(Debug, Default)]
pub(super) struct Conversation<'d> {
    /// One text for each part of a system or developer message.
    pub system: Vec<Text<'d>>,
    /// They alternate, and none is empty.
    pub turns: Vec<Turn<'d>>,
}

#[derive(Debug)]
pub(super) struct Turn<'d> {
    pub side: Side,
    pub blocks: Vec<Block<'d>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    User,
    Model,
}

#[derive(Debug)]
pub(super) enum Block<'d> {
    /// A text, and Gemini's signature of it.
    Text(Text<'d>, Option<Text<'d>>),
    Media(Box<Media<'d>>),
    Call(Box<Call<'d>>),
    Result(Box<ToolResult<'d>>),
}

#[derive(Debug)]
pub(super) struct Call<'d> {
    /// The first call of its message, which carries the thoughts that came before the calls.
    pub first: bool,
    /// As the client sent it, perhaps with a payload.
    pub id: Cow<'d, str>,
    pub name: Text<'d>,
    /// A JSON object.
    pub arguments: Cow<'d, str>,
    /// `extra_content` as the client sent it back.
    pub extra: Option<Node<'d>>,
}

#[derive(Debug)]
pub(super) struct ToolResult<'d> {
    pub id: Cow<'d, str>,
    /// The function that was called; from the call, or else from the message itself.
    pub name: Option<Text<'d>>,
    pub text: Text<'d>,
    /// The index of its message.
    message: usize,
    /// The index of its call among those of the turn before.
    order: usize,
}

impl<'d> Conversation<'d> {
    pub fn read(messages: Items<'d>) -> Result<Self, Refusal> {
        let mut reader = Reader::default();
        for (index, message) in messages.enumerate() {
            reader.message(index, Fields::of(Path::Item(&Path::Root, "messages", index), message)?)?;
        }
        reader.finish()
    }
}

#[derive(Default)]
struct Reader<'d> {
    conversation: Conversation<'d>,
    /// The name of every call so far, and its index in its message, by id.
    calls: BTreeMap<Cow<'d, str>, (Text<'d>, usize)>,
}

impl<'d> Reader<'d> {
    fn message(&mut self, index: usize, mut message: Fields<'_, 'd>) -> Result<(), Refusal> {
        match &*message.required_text("role")?.decoded() {
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
                let result = self.tool_result(index, &mut message)?;
                self.say(Side::User, vec![Block::Result(Box::new(result))]);
            }
            "function" => return Err(message.refuse("role", "must be tool: functions were replaced by tools")),
            _ => return Err(message.refuse("role", "must be system, developer, user, assistant or tool")),
        }
        Ok(())
    }

    fn say(&mut self, side: Side, blocks: Vec<Block<'d>>) {
        match self.conversation.turns.last_mut() {
            Some(turn) if turn.side == side => turn.blocks.extend(blocks),
            _ if blocks.is_empty() => {}
            _ => self.conversation.turns.push(Turn { side, blocks }),
        }
    }

    fn assistant_blocks(&mut self, message: &mut Fields<'_, 'd>) -> Result<Vec<Block<'d>>, Refusal> {
        let extra = message.take("extra_content");
        let mut texts = texts(message)?;
        // In OpenAI's format a refusal is something that the model said.
        texts.extend(message.text("refusal")?);
        texts.retain(|text| !text.is_empty());
        let mut blocks: Vec<Block> = texts.into_iter().map(|text| Block::Text(text, None)).collect();
        if let (Some(Block::Text(_, signature)), Some(extra)) = (blocks.last_mut(), extra) {
            *signature = extra.at(&["google", "thought_signature"]).and_then(Node::as_text);
        }
        for (index, value) in message.list("tool_calls")?.into_iter().flatten().enumerate() {
            let mut fields = Fields::of(message.item("tool_calls", index), value)?;
            let call = call(&mut fields, index == 0)?;
            self.calls.insert(call.id.clone(), (call.name.clone(), index));
            blocks.push(Block::Call(Box::new(call)));
        }
        if message.take("function_call").is_some() {
            return Err(message.refuse("function_call", "was replaced by tool_calls"));
        }
        Ok(blocks)
    }

    fn tool_result(&mut self, index: usize, message: &mut Fields<'_, 'd>) -> Result<ToolResult<'d>, Refusal> {
        let id = message.required_text("tool_call_id")?.decoded();
        let (name, order) = match self.calls.get(&id) {
            Some((name, order)) => (Some(name.clone()), *order),
            None => (message.text("name")?, usize::MAX),
        };
        let mut text = Text::default();
        texts(message)?.into_iter().for_each(|part| text.push(part));
        Ok(ToolResult { id, name, text, message: index, order })
    }

    fn finish(self) -> Result<Conversation<'d>, Refusal> {
        let Conversation { mut system, mut turns } = self.conversation;
        if turns.is_empty() {
            // Both APIs need a turn, and instructions without a turn are the user's request.
            let texts = core::mem::take(&mut system).into_iter();
            let blocks: Vec<_> = texts.map(|text| Block::Text(text, None)).collect();
            if blocks.is_empty() {
                return Err(refuse("messages", "says nothing"));
            }
            turns.push(Turn { side: Side::User, blocks });
        }
        for turn in &mut turns {
            // Results come first, as Anthropic requires, and in the order of their calls, by which Gemini
            // tells two calls of one function apart.
            turn.blocks.sort_by_key(|block| match block {
                Block::Result(result) => (false, result.order),
                _ => (true, 0),
            });
        }
        Ok(Conversation { system, turns })
    }
}

/// The texts of a content that may hold nothing else.
fn texts<'d>(message: &mut Fields<'_, 'd>) -> Result<Vec<Text<'d>>, Refusal> {
    let Some(content) = message.take("content") else { return Ok(Vec::new()) };
    if let Some(text) = content.as_text() {
        return Ok(vec![text]);
    }
    if !content.is_array() {
        return Err(message.refuse("content", NO_CONTENT));
    }
    content
        .items()
        .enumerate()
        .map(|(index, part)| {
            let mut part = Fields::of(message.item("content", index), part)?;
            match &*part.required_text("type")?.decoded() {
                "text" => part.required_text("text"),
                "refusal" => part.required_text("refusal"),
                other => Err(part.refuse("type", format_args!("must be text in this message, not {other}"))),
            }
        })
        .collect()
}

const NO_CONTENT: &str = "must be a string or an array of parts";

fn user_blocks<'d>(message: &mut Fields<'_, 'd>) -> Result<Vec<Block<'d>>, Refusal> {
    let content = message.take("content").ok_or_else(|| message.refuse("content", "is missing"))?;
    let mut blocks = Vec::with_capacity(1);
    // Anthropic refuses empty texts, and they mean nothing.
    let add_text = |text: Text<'d>, blocks: &mut Vec<_>| {
        if !text.is_empty() {
            blocks.push(Block::Text(text, None));
        }
    };
    if let Some(text) = content.as_text() {
        add_text(text, &mut blocks);
        return Ok(blocks);
    }
    if !content.is_array() {
        return Err(message.refuse("content", NO_CONTENT));
    }
    for (index, part) in content.items().enumerate() {
        let mut part = Fields::of(message.item("content", index), part)?;
        let media = match &*part.required_text("type")?.decoded() {
            "text" => {
                add_text(part.required_text("text")?, &mut blocks);
                continue;
            }
            "image_url" => media::image(&mut part)?,
            "input_audio" => media::audio(&mut part)?,
            "file" => media::file(&mut part)?,
            _ => return Err(part.refuse("type", "must be text, image_url, input_audio or file")),
        };
        blocks.push(Block::Media(Box::new(media)));
    }
    Ok(blocks)
}

fn call<'d>(fields: &mut Fields<'_, 'd>, first: bool) -> Result<Call<'d>, Refusal> {
    let id = fields.required_text("id")?.decoded();
    if fields.text("type")?.is_some_and(|kind| *kind.decoded() != *"function") {
        return Err(fields.refuse("type", "must be function"));
    }
    let mut function = fields.required_object("function")?;
    let name = function.required_text("name")?;
    let mut arguments = function.text("arguments")?.unwrap_or_default().decoded();
    let trimmed = arguments.trim();
    if trimmed.is_empty() || trimmed == "null" {
        // Some clients send a call without arguments back like this.
        arguments = "{}".into();
    } else if trimmed.len() < arguments.len() {
        arguments = trimmed.to_owned().into();
    }
    if !is_object(&arguments) {
        // Cut off by `max_tokens`, for example. OpenAI takes any text, and a history that has it once would be
        // refused for ever; the tool's own error, which comes next, explains it to the model.
        arguments = json!({"_invalid_json": arguments}).to_string().into();
    }
    Ok(Call { first, id, name, arguments, extra: fields.take("extra_content") })
}

/// Whether a text is a JSON object.
pub(super) fn is_object(text: &str) -> bool {
    // Anything that begins otherwise need not be read, and is usually a long text.
    text.trim_start().starts_with('{') && Document::read(text.as_bytes()).is_ok()
}

impl<'d> Call<'d> {
    /// What a provider needs to see again with this call: the value at a path in `extra_content`.
    pub fn extra(&self, path: &[&str]) -> Option<Node<'d>> {
        self.extra?.at(path)
    }

    /// The same from the id, if `provider` wrote it.
    pub fn payload(&self, provider: &str) -> Option<String> {
        call_id::payload(&self.id, provider)
    }
}

impl ToolResult<'_> {
    /// Its message's `tool_call_id`, for refusals.
    pub fn field(&self) -> String {
        Path::Field(&Path::Item(&Path::Root, "messages", self.message), "tool_call_id").to_string()
    }
}

/// A list of strings, or a single one.
pub(super) fn strings(value: Node<'_>) -> Option<Vec<Text<'_>>> {
    match value.as_text() {
        Some(one) => Some(vec![one]),
        None => value.is_array().then(|| value.items().map(Node::as_text).collect())?,
    }
}
