//! Chat Completions to `/v1/messages`.

use serde_json::{Value, json};

use super::super::call_id;
use super::super::chat::{Chat, Effort, Format, Tool, ToolChoice};
use super::super::completion::put;
use super::super::conversation::{Block, Call, Conversation, Side, ToolResult, Turn};
use super::super::fields::{Refusal, refuse};
use super::super::media::{Media, Source};
use super::super::models::{Claude, ClaudeThinking};
use super::super::schema;
use super::PROVIDER;

const PATH: &str = "/v1/messages";

/// The smallest thinking budget that the API takes.
const LEAST_BUDGET: u64 = 1024;

/// What `json_object` becomes, for the API has no mode that only promises JSON.
const JSON_ONLY: &str = "Answer with one valid JSON object and nothing else: no other text, no code fence.";

/// The path and the body.
pub(in super::super) fn request(model: &str, chat: &Chat) -> Result<(String, Value), Refusal> {
    let abilities = Claude::of(model);
    refuse_unknown(chat, abilities)?;
    let thinking = thinking(chat, abilities)?;
    let max_tokens = chat.max_tokens.unwrap_or(abilities.max_tokens);
    let mut body = json!({"model": model, "max_tokens": max_tokens, "messages": messages(&chat.conversation)?});
    let mut system = chat.conversation.system.clone();
    if matches!(chat.format, Format::Json) {
        system.push(JSON_ONLY.to_owned());
    }
    if !system.is_empty() {
        put(&mut body, "system", system.iter().map(|text| text_block(text)).collect::<Value>());
    }
    if !chat.tools.is_empty() {
        put(&mut body, "tools", chat.tools.iter().map(tool).collect::<Value>());
        if let Some(choice) = tool_choice(chat) {
            put(&mut body, "tool_choice", choice);
        }
    }
    if !chat.stop.is_empty() {
        put(&mut body, "stop_sequences", chat.stop.clone());
    }
    if let Some(user) = &chat.user {
        put(&mut body, "metadata", json!({"user_id": user}));
    }
    if abilities.sampling && !thinking.is_on() {
        put_sampling(&mut body, chat, abilities);
    }
    let mut output = json!({});
    if let Format::Schema(schema) = &chat.format {
        put(&mut output, "format", json!({"type": "json_schema", "schema": output_schema(schema, abilities)?}));
    }
    if let Some(effort) = thinking.effort {
        put(&mut output, "effort", effort);
    }
    if output.as_object().is_some_and(|output| !output.is_empty()) {
        put(&mut body, "output_config", output);
    }
    if let Some(config) = thinking.config {
        put(&mut body, "thinking", config);
    }
    if chat.stream {
        put(&mut body, "stream", true);
    }
    Ok((PATH.to_owned(), body))
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
fn put_sampling(body: &mut Value, chat: &Chat, abilities: Claude) {
    if let Some(temperature) = &chat.temperature {
        let cut = temperature.as_f64().is_some_and(|temperature| temperature > 1.0);
        put(body, "temperature", if cut { 1.into() } else { Value::Number(temperature.clone()) });
    }
    if let Some(top_p) = chat.top_p.as_ref().filter(|_| abilities.both_samplers || chat.temperature.is_none()) {
        put(body, "top_p", Value::Number(top_p.clone()));
    }
    if let Some(top_k) = chat.top_k {
        put(body, "top_k", top_k);
    }
}

fn output_schema(schema: &Value, abilities: Claude) -> Result<Value, Refusal> {
    if !abilities.json_schema {
        return Err(refuse("response_format", "cannot have a schema with this model; use a tool instead"));
    }
    schema::for_anthropic(schema, "response_format.json_schema.schema")
}

fn messages(conversation: &Conversation) -> Result<Value, Refusal> {
    let last = conversation.turns.len().saturating_sub(1);
    conversation.turns.iter().enumerate().map(|(number, turn)| message(turn, number == last)).collect()
}

fn message(turn: &Turn, is_last: bool) -> Result<Value, Refusal> {
    let role = match turn.side {
        Side::User => "user",
        Side::Model => "assistant",
    };
    // What was thought comes before everything else that the model said, or before a later call.
    let mut content: Vec<Value> = turn.blocks.iter().flat_map(thoughts).collect();
    for block in &turn.blocks {
        if let Block::Call(call) = block
            && !call.first
        {
            content.extend(thoughts_of(call));
        }
        content.push(match block {
            // The beginning of an answer must not end in white space.
            Block::Text(text) if is_last && turn.side == Side::Model => text_block(text.text.trim_end()),
            Block::Text(text) => text_block(&text.text),
            Block::Media(media) => media_block(media)?,
            Block::Call(call) => {
                json!({"type": "tool_use", "id": id(&call.id), "name": call.name, "input": call.arguments})
            }
            Block::Result(result) => result_block(result),
        });
    }
    Ok(json!({"role": role, "content": content}))
}

fn text_block(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

/// The thinking blocks that came with a message's first call.
fn thoughts(block: &Block) -> Vec<Value> {
    match block {
        Block::Call(call) if call.first => thoughts_of(call),
        _ => Vec::new(),
    }
}

fn thoughts_of(call: &Call) -> Vec<Value> {
    let blocks = match call.payload(PROVIDER, "/anthropic/thinking_blocks") {
        Some(Value::Array(blocks)) => blocks,
        Some(Value::String(json)) => serde_json::from_str(&json).unwrap_or_default(),
        _ => Vec::new(),
    };
    // The client had them in its hands: whatever else it put there is not passed on.
    let is_thought =
        |block: &Value| matches!(block.get("type").and_then(Value::as_str), Some("thinking" | "redacted_thinking"));
    blocks.into_iter().filter(is_thought).collect()
}

/// Ids of other providers may have characters that Anthropic refuses.
fn id(id: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    call_id::plain(id).chars().map(allowed).collect()
}

fn result_block(result: &ToolResult) -> Value {
    let mut block = json!({"type": "tool_result", "tool_use_id": id(&result.id)});
    if !result.text.is_empty() {
        put(&mut block, "content", result.text.as_str());
    }
    block
}

fn media_block(media: &Media) -> Result<Value, Refusal> {
    let kind = |mime: &str| match mime {
        "image/jpeg" | "image/png" | "image/gif" | "image/webp" => Some("image"),
        "application/pdf" => Some("document"),
        _ => None,
    };
    let (kind, source) = match &media.source {
        Source::Inline { mime, base64 } => {
            // A slip that other providers forgive.
            let mime = if mime == "image/jpg" { "image/jpeg" } else { mime };
            (kind(mime), json!({"type": "base64", "media_type": mime, "data": base64}))
        }
        // A link without a known ending is an image where an image was meant.
        Source::Link { mime, url } => {
            let guess = if media.field.ends_with("image_url.url") { "image" } else { "document" };
            (mime.map_or(Some(guess), kind), json!({"type": "url", "url": url}))
        }
    };
    let kind = kind.ok_or_else(|| {
        refuse(&media.field, "must be a JPEG, PNG, GIF or WebP image or a PDF: this provider takes no other media")
    })?;
    let mut block = json!({"type": kind, "source": source});
    if let Some(name) = media.name.as_deref().filter(|_| kind == "document") {
        put(&mut block, "title", name);
    }
    Ok(block)
}

fn tool(tool: &Tool) -> Value {
    let mut out = json!({"name": tool.name});
    if let Some(description) = &tool.description {
        put(&mut out, "description", description.as_str());
    }
    let mut schema = tool.parameters.clone().unwrap_or_else(|| json!({"properties": {}}));
    if schema.get("type").is_none() {
        put(&mut schema, "type", "object");
    }
    put(&mut out, "input_schema", schema);
    out
}

fn tool_choice(chat: &Chat) -> Option<Value> {
    let mut choice = match &chat.tool_choice {
        ToolChoice::Default if !chat.single_call => return None,
        ToolChoice::Default | ToolChoice::Auto => json!({"type": "auto"}),
        ToolChoice::None => return Some(json!({"type": "none"})),
        ToolChoice::Required => json!({"type": "any"}),
        ToolChoice::Named(name) => json!({"type": "tool", "name": name}),
    };
    if chat.single_call {
        put(&mut choice, "disable_parallel_tool_use", true);
    }
    Some(choice)
}

/// What a request says about thinking.
#[derive(Debug, Default, PartialEq)]
struct Thinking {
    config: Option<Value>,
    effort: Option<&'static str>,
}

impl Thinking {
    /// With thinking on, the API refuses to have its sampling set.
    fn is_on(&self) -> bool {
        self.config.as_ref().and_then(|config| config.get("type")).is_some_and(|kind| kind != "disabled")
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
fn not_beside_forced_call(chat: &Chat, abilities: Claude) -> Option<Value> {
    let can = abilities.thinking == ClaudeThinking::Adaptive { off: true };
    (can && forces_call(chat)).then(|| json!({"type": "disabled"}))
}

/// The budget is part of `max_tokens`, and both must leave room for the other. A turn with calls whose
/// thinking was lost cannot go on thinking: the API refuses it.
fn budget(chat: &Chat, effort: Effort, abilities: Claude) -> Option<Value> {
    let max_tokens = chat.max_tokens.unwrap_or(abilities.max_tokens);
    let budget = effort.budget().min(max_tokens / 2);
    let allowed = budget >= LEAST_BUDGET && !forces_call(chat) && !lost_thoughts(&chat.conversation);
    allowed.then(|| json!({"type": "enabled", "budget_tokens": budget}))
}

/// Whether the model's last turn has calls and no thoughts before them.
fn lost_thoughts(conversation: &Conversation) -> bool {
    let last = conversation.turns.iter().rev().find(|turn| turn.side == Side::Model);
    let has_call = |turn: &Turn| turn.blocks.iter().any(|block| matches!(block, Block::Call(_)));
    last.is_some_and(|turn| has_call(turn) && turn.blocks.iter().all(|block| thoughts(block).is_empty()))
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
        Effort::None if off => Thinking { config: Some(json!({"type": "disabled"})), effort: None },
        // This model always thinks; little is the nearest to nothing.
        Effort::None => Thinking { config: None, effort: Some(word) },
        // More than high effort and no thinking exclude each other, too.
        Effort::XHigh | Effort::Max if forces_call(chat) => adaptive(chat, Effort::High, off, abilities),
        _ if forces_call(chat) => Thinking { config: not_beside_forced_call(chat, abilities), effort: Some(word) },
        _ => {
            let mut config = json!({"type": "adaptive"});
            if abilities.since_4_7 {
                put(&mut config, "display", "summarized");
            }
            Thinking { config: Some(config), effort: Some(word) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Options;
    use super::*;

    /// The thinking part of what a request becomes.
    fn thinking_of(model: &str, fields: &Value) -> Value {
        let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
        for (name, value) in fields.as_object().unwrap() {
            put(&mut body, name, value.clone());
        }
        let chat = Chat::read(body.to_string().as_bytes(), &Options::default()).unwrap();
        let (_, body) = request(model, &chat).unwrap();
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
