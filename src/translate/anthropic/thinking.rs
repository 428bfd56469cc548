//! What a request says about thinking, and the earlier thoughts that a client sends back.
//!
//! OpenAI has one word, `reasoning_effort`. Claude has three ways to set it, depending on the model: not at
//! all, a budget in tokens, or adaptive thinking with an effort. The API also refuses combinations: thinking
//! beside a forced call, beside sampling parameters, with a budget as large as `max_tokens`, and a budget
//! in a turn that goes on after calls whose signed thoughts are missing. Each of these would be an error for
//! a request that is valid for OpenAI. So a forced call turns thinking off, a budget is at most half of
//! `max_tokens` and is left out if thoughts are missing, and sampling parameters are dropped beside thinking.

use super::PROVIDER;
use crate::json::{Document, Node, Writer};
use crate::translate::chat::{Chat, Effort, ToolChoice};
use crate::translate::conversation::{Block, Call, Conversation, Side, Turn};
use crate::translate::fields::{Refusal, refuse};
use crate::translate::models::{Claude, ClaudeThinking};

/// The smallest thinking budget that the API accepts.
const LEAST_BUDGET: u64 = 1024;

/// The two fields of a request that set thinking.
#[derive(Debug, Default)]
pub(super) struct Thinking {
    pub config: Option<Config>,
    pub effort: Option<&'static str>,
}

/// `thinking`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Config {
    Disabled,
    Enabled { budget: u64 },
    Adaptive { summarized: bool },
}

impl Config {
    pub fn write(self, out: &mut Writer) {
        out.object_field("thinking", |out| match self {
            Config::Disabled => out.field("type", "disabled"),
            Config::Enabled { budget } => {
                out.field("type", "enabled");
                out.field("budget_tokens", budget);
            }
            Config::Adaptive { summarized } => {
                out.field("type", "adaptive");
                out.field_if("display", summarized.then_some("summarized"));
            }
        });
    }
}

impl Thinking {
    /// Whether the model thinks. If so, the API refuses sampling parameters.
    pub fn is_on(&self) -> bool {
        self.config.is_some_and(|config| config != Config::Disabled)
    }
}

/// Chooses how the model thinks. Without `reasoning_effort` its own default applies.
pub(super) fn thinking(chat: &Chat, abilities: Claude) -> Result<Thinking, Refusal> {
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

/// Whether the model must make a call, which excludes thinking. The call is what the client requests.
pub(super) fn forces_call(chat: &Chat) -> bool {
    !chat.tools.is_empty() && matches!(chat.tool_choice, ToolChoice::Required | ToolChoice::Named(_))
}

/// Turns thinking off if a call is forced, because some models think by default.
fn not_beside_forced_call(chat: &Chat, abilities: Claude) -> Option<Config> {
    let can = abilities.thinking == ClaudeThinking::Adaptive { off: true };
    (can && forces_call(chat)).then_some(Config::Disabled)
}

/// A budget is part of `max_tokens`, so it takes at most half of it. The API refuses a budget in a turn that
/// goes on after calls whose thoughts were lost.
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
        // This model always thinks, and low effort is the nearest to none.
        Effort::None => Thinking { config: None, effort: Some(word) },
        // More than high effort excludes turning thinking off.
        Effort::XHigh | Effort::Max if forces_call(chat) => adaptive(chat, Effort::High, off, abilities),
        _ if forces_call(chat) => Thinking { config: not_beside_forced_call(chat, abilities), effort: Some(word) },
        _ => {
            let config = Config::Adaptive { summarized: abilities.since_4_7 };
            Thinking { config: Some(config), effort: Some(word) }
        }
    }
}

/// The thinking blocks that came with a call.
pub(super) fn thoughts(call: &Call, mut each: impl FnMut(Node)) {
    // They come from the client, so anything but thinking blocks is not passed on.
    let is_thought =
        |block: &Node| block.get("type").is_some_and(|kind| kind.is("thinking") || kind.is("redacted_thinking"));
    let json = match call.extra(&[PROVIDER, "thinking_blocks"]) {
        Some(extra) if extra.is_array() => return extra.items().filter(is_thought).for_each(each),
        Some(extra) => extra.as_text().map(|json| json.decoded().into_owned()),
        None => call.payload(PROVIDER),
    };
    let Some(json) = json else { return };
    if let Ok(document) = Document::read(json.as_bytes()) {
        document.root().items().filter(is_thought).for_each(&mut each);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::translate::Options;
    use crate::translate::anthropic::request::request;

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
