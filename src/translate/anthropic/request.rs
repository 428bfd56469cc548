//! Chat Completions to `/v1/messages`.

use std::borrow::Cow;

use super::super::call_id;
use super::super::chat::{Chat, Effort, Format, Tool, ToolChoice};
use super::super::conversation::{Block, Call, Conversation, Side, ToolResult, Turn};
use super::super::fields::{Refusal, refuse};
use super::super::media::{Media, Source};
use super::super::models::{Claude, ClaudeThinking};
use super::super::schema;
use super::PROVIDER;
use crate::json::{Document, Node, Text, Writer};

const PATH: &str = "/v1/messages";

/// The smallest thinking budget that the API takes.
const LEAST_BUDGET: u64 = 1024;

/// What `json_object` becomes, for the API has no mode that only promises JSON.
const JSON_ONLY: &str = "Answer with one valid JSON object and nothing else: no other text, no code fence.";

/// Writes the body; returns the path.
pub(in super::super) fn request(model: &str, chat: &Chat, out: &mut Writer) -> Result<String, Refusal> {
    let abilities = Claude::of(model);
    refuse_unknown(chat, abilities)?;
    let thinking = thinking(chat, abilities)?;
    out.object();
    out.field("model", model);
    out.field("max_tokens", chat.max_tokens.unwrap_or(abilities.max_tokens));
    out.name("messages");
    out.array();
    let turns = &chat.conversation.turns;
    for (number, turn) in turns.iter().enumerate() {
        message(turn, number + 1 == turns.len(), out)?;
    }
    out.end_array();
    system(chat, out);
    if !chat.tools.is_empty() {
        out.name("tools");
        out.array();
        chat.tools.iter().for_each(|each| tool(each, out));
        out.end_array();
        tool_choice(chat, out);
    }
    if !chat.stop.is_empty() {
        out.name("stop_sequences");
        out.array();
        chat.stop.iter().for_each(|text| out.value(text));
        out.end_array();
    }
    if let Some(user) = &chat.user {
        out.name("metadata");
        out.object();
        out.field("user_id", user);
        out.end_object();
    }
    if abilities.sampling && !thinking.is_on() {
        sampling(chat, abilities, out);
    }
    output_config(chat, abilities, &thinking, out)?;
    if let Some(config) = thinking.config {
        config.write(out);
    }
    if chat.stream {
        out.field("stream", true);
    }
    out.end_object();
    Ok(PATH.to_owned())
}

fn system(chat: &Chat, out: &mut Writer) {
    let json_only = matches!(chat.format, Format::Json);
    if chat.conversation.system.is_empty() && !json_only {
        return;
    }
    out.name("system");
    out.array();
    chat.conversation.system.iter().for_each(|text| text_block(text, out));
    if json_only {
        text_block(&Text::escaped(JSON_ONLY), out);
    }
    out.end_array();
}

/// Penalties and `seed` are dropped: they change the odds of words, not what is asked for.
fn refuse_unknown(chat: &Chat, abilities: Claude) -> Result<(), Refusal> {
    if forces_call(chat) && !abilities.forced_calls {
        return Err(refuse("tool_choice", "must be auto or none: this model cannot be made to call a tool"));
    }
    let asked = [
        ("n", chat.n != 1),
        ("logprobs", chat.logprobs),
        ("top_logprobs", chat.top_logprobs.is_some_and(|top| top > 0)),
    ];
    match asked.into_iter().find(|(_, asked)| *asked) {
        Some((field, _)) => {
            Err(refuse(field, "is more than this provider can do: it has one choice, without probabilities"))
        }
        None => Ok(()),
    }
}

/// OpenAI's temperature goes to 2, Anthropic's to 1. Where it excludes `top_p`, it is the one that
/// clients set on purpose.
fn sampling(chat: &Chat, abilities: Claude, out: &mut Writer) {
    if let Some(temperature) = chat.temperature {
        match temperature.as_f64() {
            Some(high) if high > 1.0 => out.field("temperature", 1u64),
            _ => out.field("temperature", temperature),
        }
    }
    out.field_if("top_p", chat.top_p.filter(|_| abilities.both_samplers || chat.temperature.is_none()));
    out.field_if("top_k", chat.top_k);
}

fn output_config(chat: &Chat, abilities: Claude, thinking: &Thinking, out: &mut Writer) -> Result<(), Refusal> {
    let begin = out.begin_field("output_config");
    if let Format::Schema(schema) = &chat.format {
        if !abilities.json_schema {
            return Err(refuse("response_format", "cannot have a schema with this model; use a tool instead"));
        }
        out.name("format");
        out.object();
        out.field("type", "json_schema");
        out.field("schema", schema::for_anthropic(&schema.to_value(), "response_format.json_schema.schema")?);
        out.end_object();
    }
    out.field_if("effort", thinking.effort);
    out.end_unless_empty(begin);
    Ok(())
}

fn message(turn: &Turn, is_last: bool, out: &mut Writer) -> Result<(), Refusal> {
    let role = match turn.side {
        Side::User => "user",
        Side::Model => "assistant",
    };
    out.object();
    out.field("role", role);
    out.name("content");
    out.array();
    // What was thought comes before everything else that the model said, or before a later call.
    for block in &turn.blocks {
        if let Block::Call(call) = block
            && call.first
        {
            thoughts(call, |thought| out.value(thought));
        }
    }
    for block in &turn.blocks {
        match block {
            // The beginning of an answer must not end in white space.
            Block::Text(text, _) if is_last && turn.side == Side::Model => text_block(&trimmed(text), out),
            Block::Text(text, _) => text_block(text, out),
            Block::Media(media) => media_block(media, out)?,
            Block::Call(call) => {
                if !call.first {
                    thoughts(call, |thought| out.value(thought));
                }
                out.object();
                out.field("type", "tool_use");
                out.field("id", &*id(&call.id));
                out.field("name", &call.name);
                out.name("input");
                out.raw(&call.arguments);
                out.end_object();
            }
            Block::Result(result) => result_block(result, out),
        }
    }
    out.end_array();
    out.end_object();
    Ok(())
}

fn trimmed<'d>(text: &Text<'d>) -> Text<'d> {
    Text::of(text.decoded().trim_end().to_owned())
}

fn text_block(text: &Text, out: &mut Writer) {
    out.object();
    out.field("type", "text");
    out.field("text", text);
    out.end_object();
}

/// The thinking blocks that came with a call.
fn thoughts(call: &Call, mut each: impl FnMut(Node)) {
    // The client had them in its hands: whatever else it put there is not passed on.
    let is_thought =
        |block: &Node| block.get("type").is_some_and(|kind| kind.is("thinking") || kind.is("redacted_thinking"));
    let json = match call.extra(&["anthropic", "thinking_blocks"]) {
        Some(extra) if extra.is_array() => return extra.items().filter(is_thought).for_each(each),
        Some(extra) => extra.as_text().map(|json| json.decoded().into_owned()),
        None => call.payload(PROVIDER),
    };
    let Some(json) = json else { return };
    if let Ok(document) = Document::read(json.as_bytes()) {
        document.root().items().filter(is_thought).for_each(&mut each);
    }
}

/// Ids of other providers may have characters that Anthropic refuses.
fn id(id: &str) -> Cow<'_, str> {
    let id = call_id::plain(id);
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if id.chars().all(allowed) { id.into() } else { id.replace(|c| !allowed(c), "_").into() }
}

fn result_block(result: &ToolResult, out: &mut Writer) {
    out.object();
    out.field("type", "tool_result");
    out.field("tool_use_id", &*id(&result.id));
    if !result.text.is_empty() {
        out.field("content", &result.text);
    }
    out.end_object();
}

fn media_block(media: &Media, out: &mut Writer) -> Result<(), Refusal> {
    let kind_of = |mime: &str| match mime {
        "image/jpeg" | "image/png" | "image/gif" | "image/webp" => Some("image"),
        "application/pdf" => Some("document"),
        _ => None,
    };
    let kind = match &media.source {
        // A slip that other providers forgive.
        Source::Inline { mime, .. } if mime == "image/jpg" => Some("image"),
        Source::Inline { mime, .. } => kind_of(mime),
        Source::Link { mime: Some(mime), .. } => kind_of(mime),
        // A link without a known ending is an image where an image was meant.
        Source::Link { mime: None, .. } => {
            Some(if media.field.ends_with("image_url.url") { "image" } else { "document" })
        }
    };
    let kind = kind.ok_or_else(|| {
        refuse(&media.field, "must be a JPEG, PNG, GIF or WebP image or a PDF: this provider takes no other media")
    })?;
    out.object();
    out.field("type", kind);
    out.name("source");
    out.object();
    match &media.source {
        Source::Inline { mime, base64 } => {
            out.field("type", "base64");
            out.field("media_type", if mime == "image/jpg" { "image/jpeg" } else { mime.as_str() });
            out.field("data", base64);
        }
        Source::Link { url, .. } => {
            out.field("type", "url");
            out.field("url", url);
        }
    }
    out.end_object();
    out.field_if("title", media.name.as_ref().filter(|_| kind == "document"));
    out.end_object();
    Ok(())
}

fn tool(tool: &Tool, out: &mut Writer) {
    out.object();
    out.field("name", &tool.name);
    out.field_if("description", tool.description.as_ref());
    match tool.parameters {
        Some(schema) if schema.get("type").is_some() => out.field("input_schema", schema),
        parameters => {
            out.name("input_schema");
            out.object();
            match parameters {
                Some(schema) => {
                    for (key, value) in schema.fields() {
                        out.name(key.as_text().unwrap_or_default().as_escaped());
                        out.value(value);
                    }
                }
                None => {
                    out.name("properties");
                    out.object();
                    out.end_object();
                }
            }
            out.field("type", "object");
            out.end_object();
        }
    }
    out.end_object();
}

fn tool_choice(chat: &Chat, out: &mut Writer) {
    let (kind, name) = match &chat.tool_choice {
        ToolChoice::Default if !chat.single_call => return,
        ToolChoice::Default | ToolChoice::Auto => ("auto", None),
        ToolChoice::None => ("none", None),
        ToolChoice::Required => ("any", None),
        ToolChoice::Named(name) => ("tool", Some(name)),
    };
    out.name("tool_choice");
    out.object();
    out.field("type", kind);
    out.field_if("name", name);
    if chat.single_call && kind != "none" {
        out.field("disable_parallel_tool_use", true);
    }
    out.end_object();
}

/// What a request says about thinking.
#[derive(Debug, Default)]
struct Thinking {
    config: Option<Config>,
    effort: Option<&'static str>,
}

/// `thinking`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Config {
    Disabled,
    Enabled { budget: u64 },
    Adaptive { summarized: bool },
}

impl Config {
    fn write(self, out: &mut Writer) {
        out.name("thinking");
        out.object();
        match self {
            Config::Disabled => out.field("type", "disabled"),
            Config::Enabled { budget } => {
                out.field("type", "enabled");
                out.field("budget_tokens", budget);
            }
            Config::Adaptive { summarized } => {
                out.field("type", "adaptive");
                out.field_if("display", summarized.then_some("summarized"));
            }
        }
        out.end_object();
    }
}

impl Thinking {
    /// With thinking on, the API refuses to have its sampling set.
    fn is_on(&self) -> bool {
        self.config.is_some_and(|config| config != Config::Disabled)
    }
}

/// Without `reasoning_effort` the model does as it likes.
fn thinking(chat: &Chat, abilities: Claude) -> Result<Thinking, Refusal> {
    let Some(effort) = chat.effort else {
        return Ok(Thinking { config: not_beside_forced_call(chat, abilities), effort: None });
    };
    Ok(match abilities.thinking {
        ClaudeThinking::None if effort == Effort::None => Thinking::default(),
        ClaudeThinking::None => return Err(refuse("reasoning_effort", "must be none: this model does not think")),
        ClaudeThinking::Budget => Thinking { config: budget(chat, effort, abilities), effort: None },
        ClaudeThinking::Adaptive { off } => adaptive(chat, effort, off, abilities),
    })
}

/// A forced call and thinking exclude each other; the call is what was asked for.
fn forces_call(chat: &Chat) -> bool {
    !chat.tools.is_empty() && matches!(chat.tool_choice, ToolChoice::Required | ToolChoice::Named(_))
}

/// Thinking is turned off where a call is forced, for some models think by default.
fn not_beside_forced_call(chat: &Chat, abilities: Claude) -> Option<Config> {
    let can = abilities.thinking == ClaudeThinking::Adaptive { off: true };
    (can && forces_call(chat)).then_some(Config::Disabled)
}

/// The budget is part of `max_tokens`, and both must leave room for the other. A turn with calls whose
/// thinking was lost cannot go on thinking: the API refuses it.
fn budget(chat: &Chat, effort: Effort, abilities: Claude) -> Option<Config> {
    let max_tokens = chat.max_tokens.unwrap_or(abilities.max_tokens);
    let budget = effort.budget().min(max_tokens / 2);
    let allowed = budget >= LEAST_BUDGET && !forces_call(chat) && !lost_thoughts(&chat.conversation);
    allowed.then_some(Config::Enabled { budget })
}

/// Whether the model's last turn has calls and no thoughts before them.
fn lost_thoughts(conversation: &Conversation) -> bool {
    let last = conversation.turns.iter().rev().find(|turn| turn.side == Side::Model);
    let has_call = |turn: &Turn| turn.blocks.iter().any(|block| matches!(block, Block::Call(_)));
    last.is_some_and(|turn| has_call(turn) && !turn.blocks.iter().any(has_thoughts))
}

fn has_thoughts(block: &Block) -> bool {
    let mut any = false;
    if let Block::Call(call) = block
        && call.first
    {
        thoughts(call, |_| any = true);
    }
    any
}

fn adaptive(chat: &Chat, effort: Effort, off: bool, abilities: Claude) -> Thinking {
    let word = match effort {
        Effort::None | Effort::Minimal | Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::XHigh if abilities.since_4_7 => "xhigh",
        Effort::High | Effort::XHigh => "high",
        Effort::Max => "max",
    };
    match effort {
        Effort::None if off => Thinking { config: Some(Config::Disabled), effort: None },
        // This model always thinks; little is the nearest to nothing.
        Effort::None => Thinking { config: None, effort: Some(word) },
        // More than high effort and no thinking exclude each other, too.
        Effort::XHigh | Effort::Max if forces_call(chat) => adaptive(chat, Effort::High, off, abilities),
        _ if forces_call(chat) => Thinking { config: not_beside_forced_call(chat, abilities), effort: Some(word) },
        _ => {
            let config = Config::Adaptive { summarized: abilities.since_4_7 };
            Thinking { config: Some(config), effort: Some(word) }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::Options;
    use super::*;

    /// The thinking part of what a request becomes.
    fn thinking_of(model: &str, fields: &Value) -> Value {
        let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        let (body, mut out) = (body.to_string(), Writer::default());
        let document = Document::read(body.as_bytes()).unwrap();
        request(model, &Chat::read(document.root(), &Options::default()).unwrap(), &mut out).unwrap();
        let body: Value = serde_json::from_str(&out.finish()).unwrap();
        let picked = ["thinking", "output_config", "temperature", "max_tokens"].into_iter();
        picked.filter_map(|name| Some((name.to_owned(), body.get(name)?.clone()))).collect()
    }

    #[test]
    fn efforts() {
        for (model, fields, expected) in [
            ("claude-sonnet-4-5", json!({}), json!({"max_tokens": 64000})),
            ("claude-sonnet-4-5", json!({"reasoning_effort": "none"}), json!({"max_tokens": 64000})),
            (
                "claude-sonnet-4-5",
                json!({"reasoning_effort": "high", "temperature": 0.5}),
                json!({"thinking": {"type": "enabled", "budget_tokens": 24576}, "max_tokens": 64000}),
            ),
            // Half of what may be written at all.
            (
                "claude-sonnet-4-5",
                json!({"reasoning_effort": "high", "max_tokens": 4000}),
                json!({"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 4000}),
            ),
            (
                "claude-sonnet-4-5",
                json!({"reasoning_effort": "low", "max_tokens": 2047, "temperature": 2}),
                json!({"temperature": 1, "max_tokens": 2047}),
            ),
            (
                "claude-opus-4-6",
                json!({"reasoning_effort": "xhigh"}),
                json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}, "max_tokens": 128000}),
            ),
            (
                "claude-opus-5",
                json!({"reasoning_effort": "xhigh", "temperature": 0.5}),
                json!({"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "xhigh"}, "max_tokens": 128000}),
            ),
            (
                "claude-opus-5",
                json!({"reasoning_effort": "none"}),
                json!({"thinking": {"type": "disabled"}, "max_tokens": 128000}),
            ),
            (
                "claude-fable-5",
                json!({"reasoning_effort": "none"}),
                json!({"output_config": {"effort": "low"}, "max_tokens": 128000}),
            ),
            (
                "claude-opus-5-5",
                json!({"reasoning_effort": "none"}),
                json!({"output_config": {"effort": "low"}, "max_tokens": 128000}),
            ),
            ("claude-3-5-haiku", json!({"reasoning_effort": "none"}), json!({"max_tokens": 8192})),
            ("claude-opus-4-6", json!({"temperature": 1.5}), json!({"temperature": 1, "max_tokens": 128000})),
            ("claude-opus-4-7", json!({"temperature": 0.5}), json!({"max_tokens": 128000})),
            ("claude-unknown", json!({}), json!({"max_tokens": 4096})),
        ] {
            assert_eq!(thinking_of(model, &fields), expected, "{model} {fields}");
        }
    }

    #[test]
    fn a_forced_call_excludes_thinking() {
        let fields = |effort: Value| json!({"reasoning_effort": effort, "tool_choice": "required", "tools": [{"type": "function", "function": {"name": "f"}}]});
        let off = json!({"type": "disabled"});
        for (model, effort, expected) in [
            ("claude-sonnet-4-5", json!("high"), json!({"max_tokens": 64000})),
            ("claude-opus-5", Value::Null, json!({"thinking": off, "max_tokens": 128000})),
            ("claude-opus-5", json!("none"), json!({"thinking": off, "max_tokens": 128000})),
            (
                "claude-opus-5",
                json!("low"),
                json!({"thinking": off, "output_config": {"effort": "low"}, "max_tokens": 128000}),
            ),
            (
                "claude-opus-5",
                json!("max"),
                json!({"thinking": off, "output_config": {"effort": "high"}, "max_tokens": 128000}),
            ),
            ("claude-fable-5", json!("low"), json!({"output_config": {"effort": "low"}, "max_tokens": 128000})),
        ] {
            assert_eq!(thinking_of(model, &fields(effort.clone())), expected, "{model} {effort}");
        }
    }
}
