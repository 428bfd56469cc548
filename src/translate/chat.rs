//! A Chat Completions request, read and checked, before any dialect has a say.

use serde_json::{Number, Value};

use super::Options;
use super::conversation::{Conversation, strings};
use super::fields::{Fields, Refusal, refuse};

/// What the client asks for.
#[derive(Debug)]
pub(super) struct Chat {
    /// As the client named it.
    pub model: Option<String>,
    pub conversation: Conversation,
    pub tools: Vec<Tool>,
    pub tool_choice: ToolChoice,
    /// `parallel_tool_calls: false`.
    pub single_call: bool,
    pub format: Format,
    pub stop: Vec<String>,
    pub max_tokens: Option<u64>,
    pub temperature: Option<Number>,
    pub top_p: Option<Number>,
    /// Not OpenAI's, but many clients send it, and both targets have it.
    pub top_k: Option<u64>,
    pub n: u64,
    pub seed: Option<Number>,
    pub presence_penalty: Option<Number>,
    pub frequency_penalty: Option<Number>,
    pub logprobs: bool,
    pub top_logprobs: Option<u64>,
    pub effort: Option<Effort>,
    pub stream: bool,
    pub include_usage: bool,
    /// Who is behind the request: `user`, or what has replaced it.
    pub user: Option<String>,
}

#[derive(Debug)]
pub(super) struct Tool {
    pub name: String,
    pub description: Option<String>,
    /// JSON Schema.
    pub parameters: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ToolChoice {
    /// Not stated.
    Default,
    Auto,
    None,
    Required,
    Named(String),
}

#[derive(Debug)]
pub(super) enum Format {
    Text,
    /// Some JSON object.
    Json,
    /// JSON of this schema.
    Schema(Value),
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

/// Fields that change nothing about the answer: they are about OpenAI's own storage, caching, speed
/// and price.
const WITHOUT_MEANING: [&str; 6] =
    ["metadata", "prediction", "prompt_cache_key", "prompt_cache_retention", "service_tier", "store"];

impl Chat {
    pub fn read(body: &[u8], options: &Options) -> Result<Self, Refusal> {
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
        nothing_else(fields)?;
        Ok(chat)
    }
}

/// The request's fields but those that the configuration drops.
pub(super) fn top(body: &[u8], options: &Options) -> Result<Fields, Refusal> {
    let body: Value =
        serde_json::from_slice(body).map_err(|error| refuse("body", format_args!("is not JSON: {error}")))?;
    let mut fields = Fields::of("", body)?;
    for name in &options.drop {
        fields.take(name);
    }
    Ok(fields)
}

/// Refuses the fields that are left, unless they ask for what happens anyway.
fn nothing_else(mut fields: Fields) -> Result<(), Refusal> {
    for name in WITHOUT_MEANING {
        fields.take(name);
    }
    let usual = [("verbosity", Value::from("medium")), ("modalities", Value::from(vec!["text"]))];
    for (name, usual) in usual {
        if fields.take(name).is_some_and(|value| value != usual) {
            return Err(refuse(name, format_args!("must be {usual}: this provider knows no other")));
        }
    }
    // OpenAI's own SDK has both an empty and a missing one.
    if fields.take("logit_bias").is_some_and(|bias| bias.as_object().is_none_or(|bias| !bias.is_empty())) {
        return Err(refuse("logit_bias", "is not known to this provider"));
    }
    match fields.rest().next() {
        Some(name @ ("functions" | "function_call")) => Err(refuse(name, "was replaced by tools and tool_choice")),
        Some(name) => {
            Err(refuse(name, "has no equal at this provider; leave it out, or have it dropped for this model"))
        }
        None => Ok(()),
    }
}

fn tools(fields: &mut Fields) -> Result<Vec<Tool>, Refusal> {
    let tools = fields.list("tools")?.unwrap_or_default();
    tools
        .into_iter()
        .enumerate()
        .map(|(number, tool)| {
            let mut tool = Fields::of(&format!("tools[{number}]"), tool)?;
            if tool.required_text("type")? != "function" {
                return Err(tool.refuse("type", "must be function: other tools exist at OpenAI only"));
            }
            let mut function = tool.required_object("function")?;
            let parameters = function.take("parameters");
            if parameters.as_ref().is_some_and(|schema| !schema.is_object()) {
                return Err(function.refuse("parameters", "must be a JSON Schema object"));
            }
            Ok(Tool { name: function.required_text("name")?, description: function.text("description")?, parameters })
        })
        .collect()
}

/// `tool_choice`. `allowed_tools` is the same as having sent only those.
fn tool_choice(fields: &mut Fields, tools: &mut Vec<Tool>) -> Result<ToolChoice, Refusal> {
    let choice = match fields.take("tool_choice") {
        None => return Ok(ToolChoice::Default),
        Some(Value::String(mode)) => mode_of(&mode),
        Some(value) => {
            let mut object = Fields::of("tool_choice", value)?;
            match object.required_text("type")?.as_str() {
                "function" => Some(ToolChoice::Named(object.required_object("function")?.required_text("name")?)),
                "allowed_tools" => {
                    let mut allowed = object.required_object("allowed_tools")?;
                    let names: Vec<Value> = allowed.list("tools")?.unwrap_or_default();
                    let is_allowed = |tool: &Tool| {
                        names
                            .iter()
                            .any(|name| name.pointer("/function/name").and_then(Value::as_str) == Some(&tool.name))
                    };
                    tools.retain(is_allowed);
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
            Err(refuse("tool_choice", "demands a call, but there are no tools"))
        }
        Some(choice) => Ok(choice),
        None => Err(refuse("tool_choice", "must be none, auto, required, or name a function")),
    }
}

fn mode_of(mode: &str) -> Option<ToolChoice> {
    Some(match mode {
        "auto" => ToolChoice::Auto,
        "none" => ToolChoice::None,
        "required" => ToolChoice::Required,
        _ => return None,
    })
}

fn format(fields: &mut Fields) -> Result<Format, Refusal> {
    let Some(mut format) = fields.object("response_format")? else { return Ok(Format::Text) };
    match format.required_text("type")?.as_str() {
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

fn stop(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let Some(value) = fields.take("stop") else { return Ok(Vec::new()) };
    let list = strings(value).ok_or_else(|| refuse("stop", "must be a string or an array of strings"))?;
    Ok(list.into_iter().filter(|text| !text.is_empty()).collect())
}

/// `max_completion_tokens` replaced `max_tokens`, so it wins.
fn max_tokens(fields: &mut Fields) -> Result<Option<u64>, Refusal> {
    let old = fields.count("max_tokens")?;
    Ok(fields.count("max_completion_tokens")?.or(old))
}

fn effort(fields: &mut Fields) -> Result<Option<Effort>, Refusal> {
    let Some(effort) = fields.text("reasoning_effort")? else { return Ok(None) };
    Ok(Some(match effort.as_str() {
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

fn user(fields: &mut Fields) -> Result<Option<String>, Refusal> {
    let user = fields.text("user")?;
    Ok(fields.text("safety_identifier")?.or(user))
}

impl Effort {
    /// Thinking tokens for the models that take a number instead of a word, as Google's and
    /// Cloudflare's own OpenAI endpoints map them.
    pub fn budget(self) -> u64 {
        match self {
            Effort::None => 0,
            Effort::Minimal | Effort::Low => 1024,
            Effort::Medium => 8192,
            Effort::High | Effort::XHigh | Effort::Max => 24_576,
        }
    }
}
