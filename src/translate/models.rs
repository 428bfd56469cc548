//! What the models of each family can do, as far as a translation depends on it. Every fact about a model,
//! and not about its API, is in this file.
//!
//! The version is read from a model's name, so that next month's model needs no release. A name without a
//! version (`gemini-flash-latest`, a tuned model) counts as current, as far as older models accept the
//! same.

/// Major and minor version, from the first `3`, `2.5` or `4-6` in a name. A date (`-20250514`) is not a
/// version.
fn version(name: &str) -> Option<(u32, u32)> {
    let mut numbers = name.split(['-', '.', ':', '@']).map(|word| word.parse::<u32>().ok().filter(|_| word.len() <= 2));
    let major = numbers.by_ref().flatten().next()?;
    Some((major, numbers.next().flatten().unwrap_or(0)))
}

/// How a model's thinking is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GeminiThinking {
    /// It does not think.
    None,
    /// `thinkingBudget`, with the smallest value, which turns thinking off or nearly off.
    Budget { least: u64 },
    /// `thinkingLevel`.
    Level { minimal: bool, medium: bool },
}

/// A Gemini model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gemini {
    /// It accepts JSON Schema as it is (`parametersJsonSchema`, `responseJsonSchema`; from 2.5 on).
    pub json_schema: bool,
    pub thinking: GeminiThinking,
    /// It gives its calls ids, needs the ids back, and refuses a turn whose first call is unsigned
    /// (from 3 on; <https://ai.google.dev/gemini-api/docs/thought-signatures>).
    pub signs_calls: bool,
}

impl Gemini {
    pub fn of(model: &str) -> Self {
        let version = version(model);
        let pro = model.contains("pro");
        let thinking = match version {
            Some(version) if version < (2, 5) => GeminiThinking::None,
            // 3 Pro has low and high, 3.1 Pro has medium too, the Flash models have all four.
            Some(version) if version >= (3, 0) => {
                GeminiThinking::Level { minimal: !pro, medium: !pro || version >= (3, 1) }
            }
            // 2.5 Pro always thinks, and 128 is the smallest budget that it accepts.
            _ if pro => GeminiThinking::Budget { least: 128 },
            // Gemini 3 still accepts budgets, so they are safe if the version is unknown.
            _ => GeminiThinking::Budget { least: 0 },
        };
        Gemini {
            json_schema: version.is_none_or(|version| version >= (2, 5)),
            thinking,
            signs_calls: version.is_some_and(|version| version >= (3, 0)),
        }
    }
}

/// How a Claude model's thinking is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaudeThinking {
    /// It does not think.
    None,
    /// `thinking: {type: enabled, budget_tokens}`.
    Budget,
    /// `thinking: {type: adaptive}` with `output_config.effort`; whether `off` is possible.
    Adaptive { off: bool },
}

/// A Claude model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claude {
    /// `max_tokens` if the client sends none, because the API requires one. It is the most that the model can
    /// write, because OpenAI's default has no limit either.
    pub max_tokens: u64,
    pub thinking: ClaudeThinking,
    /// A call can be forced, which ends with 5.5, and with 5.1 for the largest models.
    pub forced_calls: bool,
    /// From 4.7 on `temperature`, `top_p` and `top_k` are refused.
    pub sampling: bool,
    /// `temperature` and `top_p` at once (up to 4.0).
    pub both_samplers: bool,
    /// `output_config.format` (from 4.5 on).
    pub json_schema: bool,
    /// Effort `xhigh`, and thoughts that are left out unless `display` asks for them (from 4.7 on).
    pub since_4_7: bool,
}

/// `max_tokens` for models that are not in the table. Every model can write this much.
const UNKNOWN_MAX_TOKENS: u64 = 4096;

/// The most tokens that models from a version on can write, newest first
/// (<https://platform.claude.com/docs/en/about-claude/models/overview>; Effect-TS/effect#7129 for 4.6+).
const MAX_TOKENS: [((u32, u32), u64); 5] =
    [((4, 6), 128_000), ((4, 5), 64_000), ((4, 0), 32_000), ((3, 7), 64_000), ((3, 5), 8192)];

impl Claude {
    pub fn of(model: &str) -> Self {
        let version = version(model);
        let from = |least: (u32, u32)| version.is_none_or(|version| version >= least);
        let listed = MAX_TOKENS.iter().find(|(least, _)| version.is_some_and(|version| version >= *least));
        // <https://platform.claude.com/docs/en/models/opus-5-5/whats-new-opus-5-5> for Opus 5.5 and Fable 5.1,
        // <https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-adaptive-thinking.html> for 5.
        let largest = ["mythos", "fable"].iter().any(|name| model.contains(name));
        let always_thinks = largest || from((5, 5));
        let thinking = if from((4, 6)) {
            ClaudeThinking::Adaptive { off: !always_thinks }
        } else if from((3, 7)) {
            ClaudeThinking::Budget
        } else {
            ClaudeThinking::None
        };
        Claude {
            max_tokens: listed.map_or(UNKNOWN_MAX_TOKENS, |(_, tokens)| *tokens),
            thinking,
            forced_calls: version.is_none_or(|version| version < (5, 5) && !(largest && version >= (5, 1))),
            sampling: !from((4, 7)),
            both_samplers: !from((4, 1)),
            json_schema: from((4, 5)),
            since_4_7: from((4, 7)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (name, expected) in [
            ("gemini-2.5-pro", Some((2, 5))),
            ("gemini-3-flash-preview", Some((3, 0))),
            ("gemini-2.0-flash-001", Some((2, 0))),
            ("gemini-3.1-pro-preview-12-2025", Some((3, 1))),
            ("gemini-flash-latest", None),
            ("claude-3-5-haiku-20241022", Some((3, 5))),
            ("claude-sonnet-4-20250514", Some((4, 0))),
            ("claude-opus-4-6", Some((4, 6))),
            ("claude-sonnet-5", Some((5, 0))),
            ("", None),
        ] {
            assert_eq!(version(name), expected, "{name}");
        }
    }

    #[test]
    fn claude_defaults() {
        for (name, max_tokens) in [
            ("claude-opus-5", 128_000),
            ("claude-haiku-4-5", 64_000),
            ("claude-opus-4-1-20250805", 32_000),
            ("claude-3-7-sonnet-20250219", 64_000),
            ("claude-3-5-haiku-latest", 8192),
            ("claude-3-haiku-20240307", 4096),
            ("claude-next", 4096),
        ] {
            assert_eq!(Claude::of(name).max_tokens, max_tokens, "{name}");
        }
    }

    #[test]
    fn gemini_thinking() {
        use GeminiThinking::{Budget, Level, None};
        for (name, thinking) in [
            ("gemini-2.0-flash", None),
            ("gemini-2.5-flash", Budget { least: 0 }),
            ("gemini-2.5-pro", Budget { least: 128 }),
            ("gemini-3-pro-preview", Level { minimal: false, medium: false }),
            ("gemini-3.1-pro-preview", Level { minimal: false, medium: true }),
            ("gemini-3-flash-preview", Level { minimal: true, medium: true }),
            ("gemini-flash-latest", Budget { least: 0 }),
        ] {
            assert_eq!(Gemini::of(name).thinking, thinking, "{name}");
        }
    }
}
