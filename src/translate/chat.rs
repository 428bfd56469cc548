//! A Chat Completions request, read and checked.
//!
//! Everything about OpenAI's format is decided here, before and without a dialect: which fields exist, what
//! their values may be, which old name a new one replaces, and which fields have no effect on the answer.
//! What a target can do with a field is decided in the dialect. A field that is unknown is refused rather
//! than ignored, because a client that sends it expects it to change the answer.

use super::Options;
use super::conversation::{Conversation, strings};
use super::fields::{Fields, Path, Refusal, refuse};
use crate::json::{Node, Text};

/// What the client requests.
#[derive(Debug)]
pub(super) struct Chat<'d> {
    /// The model's name as the client sent it.
    pub model: Option<Text<'d>>,
    pub conversation: Conversation<'d>,
    pub tools: Vec<Tool<'d>>,
    pub tool_choice: ToolChoice<'d>,
    /// `parallel_tool_calls: false`.
    pub single_call: bool,
    pub format: Format<'d>,
    pub stop: Vec<Text<'d>>,
    pub max_tokens: Option<u64>,
    /// Numbers such as this one are passed on as they were written.
    pub temperature: Option<Node<'d>>,
    pub top_p: Option<Node<'d>>,
    /// OpenAI does not have it, but many clients send it and both targets know it.
    pub top_k: Option<u64>,
    pub n: u64,
    pub seed: Option<Node<'d>>,
    pub presence_penalty: Option<Node<'d>>,
    pub frequency_penalty: Option<Node<'d>>,
    pub logprobs: bool,
    pub top_logprobs: Option<u64>,
    pub effort: Option<Effort>,
    pub stream: bool,
    pub include_usage: bool,
    /// The client's own user: `user`, or the field that has replaced it.
    pub user: Option<Text<'d>>,
}

#[derive(Debug)]
pub(super) struct Tool<'d> {
    pub name: Text<'d>,
    pub description: Option<Text<'d>>,
    /// JSON Schema.
    pub parameters: Option<Node<'d>>,
}

#[derive(Debug)]
pub(super) enum ToolChoice<'d> {
    /// Not stated.
    Default,
    Auto,
    None,
    Required,
    Named(Text<'d>),
}

#[derive(Debug)]
pub(super) enum Format<'d> {
    Text,
    /// Any JSON object.
    Json,
    /// JSON of this schema.
    Schema(Node<'d>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

/// Fields that do not change the answer. They are about OpenAI's own storage, caching, speed and price.
const WITHOUT_EFFECT: [&str; 6] =
    ["metadata", "prediction", "prompt_cache_key", "prompt_cache_retention", "service_tier", "store"];

impl<'d> Chat<'d> {
    pub fn read(body: Node<'d>, options: &Options) -> Result<Self, Refusal> {
        let mut fields = top(body, options)?;
        let messages = fields.list("messages")?.ok_or_else(|| refuse("messages", "is missing"))?;
        let mut tools = tools(&mut fields)?;
        let tool_choice = tool_choice(&mut fields, &mut tools)?;
        let chat = Chat {
            model: fields.text("model")?,
            conversation: Conversation::read(messages)?,
            tools,
            tool_choice,
            single_call: fields.flag("parallel_tool_calls")? == Some(false),
            format: format(&mut fields)?,
            stop: stop(&mut fields)?,
            max_tokens: max_tokens(&mut fields)?,
            temperature: fields.number("temperature")?,
            top_p: fields.number("top_p")?,
            top_k: fields.count("top_k")?,
            n: fields.count("n")?.unwrap_or(1),
            seed: fields.number("seed")?,
            presence_penalty: fields.number("presence_penalty")?,
            frequency_penalty: fields.number("frequency_penalty")?,
            logprobs: fields.flag("logprobs")?.unwrap_or(false),
            top_logprobs: fields.count("top_logprobs")?,
            effort: effort(&mut fields)?,
            stream: fields.flag("stream")?.unwrap_or(false),
            include_usage: include_usage(&mut fields)?,
            user: user(&mut fields)?,
        };
        refuse_rest(fields)?;
        Ok(chat)
    }
}

/// The request's fields, except those that the configuration drops.
pub(super) fn top<'d>(body: Node<'d>, options: &Options) -> Result<Fields<'static, 'd>, Refusal> {
    // It is not to be guessed which of two models would count, and whether the client may use it.
    if body.fields().filter(|(key, _)| key.is("model")).count() > 1 {
        return Err(refuse("model", "must not occur twice"));
    }
    let mut fields = Fields::of(Path::Root, body)?;
    for name in &options.drop {
        fields.take(name);
    }
    Ok(fields)
}

/// Refuses the fields that are left, unless they request what happens anyway.
fn refuse_rest(mut fields: Fields) -> Result<(), Refusal> {
    if fields.rest().next().is_none() {
        return Ok(());
    }
    for name in WITHOUT_EFFECT {
        fields.take(name);
    }
    let must = |name, usual| refuse(name, format_args!("must be {usual}: this provider knows no other"));
    if fields.take("verbosity").is_some_and(|value| !value.is("medium")) {
        return Err(must("verbosity", "\"medium\""));
    }
    let is_text = |value: Node| value.items().count() == 1 && value.items().all(|kind| kind.is("text"));
    if fields.take("modalities").is_some_and(|value| !is_text(value)) {
        return Err(must("modalities", "[\"text\"]"));
    }
    // To OpenAI's own SDK an empty one and a missing one are the same.
    if fields.take("logit_bias").is_some_and(|bias| !bias.is_object() || bias.fields().next().is_some()) {
        return Err(refuse("logit_bias", "is not known to this provider"));
    }
    let Some(name) = fields.rest().next() else { return Ok(()) };
    let reason = match &*name.decoded() {
        "functions" | "function_call" => "was replaced by tools and tool_choice",
        _ => "has no equal at this provider; leave it out, or have it dropped for this model",
    };
    Err(refuse(name.decoded(), reason))
}

fn tools<'d>(fields: &mut Fields<'_, 'd>) -> Result<Vec<Tool<'d>>, Refusal> {
    let Some(tools) = fields.list("tools")? else { return Ok(Vec::new()) };
    tools
        .enumerate()
        .map(|(index, tool)| {
            let mut tool = Fields::of(fields.item("tools", index), tool)?;
            if *tool.required_text("type")?.decoded() != *"function" {
                return Err(tool.refuse("type", "must be function: other tools exist at OpenAI only"));
            }
            let mut function = tool.required_object("function")?;
            let parameters = function.take("parameters");
            if parameters.is_some_and(|schema| !schema.is_object()) {
                return Err(function.refuse("parameters", "must be a JSON Schema object"));
            }
            Ok(Tool { name: function.required_text("name")?, description: function.text("description")?, parameters })
        })
        .collect()
}

/// `tool_choice`. `allowed_tools` has the effect of sending only those tools.
fn tool_choice<'d>(fields: &mut Fields<'_, 'd>, tools: &mut Vec<Tool<'d>>) -> Result<ToolChoice<'d>, Refusal> {
    let Some(value) = fields.take("tool_choice") else { return Ok(ToolChoice::Default) };
    let choice = match value.as_text() {
        Some(mode) => mode_of(&mode),
        None => {
            let mut object = Fields::of(fields.path("tool_choice"), value)?;
            match &*object.required_text("type")?.decoded() {
                "function" => Some(ToolChoice::Named(object.required_object("function")?.required_text("name")?)),
                "allowed_tools" => {
                    let mut allowed = object.required_object("allowed_tools")?;
                    let names: Vec<Text> = allowed
                        .list("tools")?
                        .into_iter()
                        .flatten()
                        .filter_map(|tool| tool.at(&["function", "name"])?.as_text())
                        .collect();
                    tools.retain(|tool| names.contains(&tool.name));
                    mode_of(&allowed.required_text("mode")?)
                }
                _ => None,
            }
        }
    };
    match choice {
        Some(ToolChoice::Named(name)) if !tools.iter().any(|tool| tool.name == name) => {
            Err(refuse("tool_choice.function.name", "names a tool that is not in tools"))
        }
        Some(ToolChoice::Required) if tools.is_empty() => {
            Err(refuse("tool_choice", "requires a call, but there are no tools"))
        }
        Some(choice) => Ok(choice),
        None => Err(refuse("tool_choice", "must be none, auto, required, or name a function")),
    }
}

fn mode_of(mode: &Text) -> Option<ToolChoice<'static>> {
    Some(match &*mode.decoded() {
        "auto" => ToolChoice::Auto,
        "none" => ToolChoice::None,
        "required" => ToolChoice::Required,
        _ => return None,
    })
}

fn format<'d>(fields: &mut Fields<'_, 'd>) -> Result<Format<'d>, Refusal> {
    let Some(mut format) = fields.object("response_format")? else { return Ok(Format::Text) };
    match &*format.required_text("type")?.decoded() {
        "text" => Ok(Format::Text),
        "json_object" => Ok(Format::Json),
        "json_schema" => {
            let mut described = format.required_object("json_schema")?;
            match described.take("schema") {
                Some(schema) if schema.is_object() => Ok(Format::Schema(schema)),
                Some(_) => Err(described.refuse("schema", "must be a JSON Schema object")),
                None => Ok(Format::Json),
            }
        }
        _ => Err(format.refuse("type", "must be text, json_object or json_schema")),
    }
}

fn stop<'d>(fields: &mut Fields<'_, 'd>) -> Result<Vec<Text<'d>>, Refusal> {
    let Some(value) = fields.take("stop") else { return Ok(Vec::new()) };
    let list = strings(value).ok_or_else(|| refuse("stop", "must be a string or an array of strings"))?;
    Ok(list.into_iter().filter(|text| !text.is_empty()).collect())
}

/// `max_completion_tokens` has replaced `max_tokens`, so it takes precedence.
fn max_tokens(fields: &mut Fields) -> Result<Option<u64>, Refusal> {
    let old = fields.count("max_tokens")?;
    Ok(fields.count("max_completion_tokens")?.or(old))
}

fn effort(fields: &mut Fields) -> Result<Option<Effort>, Refusal> {
    let Some(effort) = fields.text("reasoning_effort")? else { return Ok(None) };
    Ok(Some(match &*effort.decoded() {
        "none" => Effort::None,
        "minimal" => Effort::Minimal,
        "low" => Effort::Low,
        "medium" => Effort::Medium,
        "high" => Effort::High,
        "xhigh" => Effort::XHigh,
        "max" => Effort::Max,
        _ => return Err(refuse("reasoning_effort", "must be none, minimal, low, medium, high, xhigh or max")),
    }))
}

fn include_usage(fields: &mut Fields) -> Result<bool, Refusal> {
    let Some(mut options) = fields.object("stream_options")? else { return Ok(false) };
    Ok(options.flag("include_usage")?.unwrap_or(false))
}

fn user<'d>(fields: &mut Fields<'_, 'd>) -> Result<Option<Text<'d>>, Refusal> {
    let user = fields.text("user")?;
    Ok(fields.text("safety_identifier")?.or(user))
}

impl Effort {
    /// The thinking tokens of an effort, where a model takes a number, as Google's and Cloudflare's own
    /// OpenAI endpoints map them.
    pub fn budget(self) -> u64 {
        match self {
            Effort::None => 0,
            Effort::Minimal | Effort::Low => 1024,
            Effort::Medium => 8192,
            Effort::High | Effort::XHigh | Effort::Max => 24_576,
        }
    }
}
