//! Requests that a provider refuses for a reason of their own, with whichever key they come.
//!
//! The texts are those of public reports; most such requests are accidents. None says anything of the
//! key that carried it, so none may cost the others a key.

use serde_json::json;

use crate::provider::{Answer, answer};

/// What is wrong with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hostile {
    /// A model that Gemini does not have.
    GeminiTypo,
    /// A header by which the client names a project that is not the key's.
    ForeignProject,
    /// A file of another key, or one that has expired.
    StaleFile,
    /// The same of a cache.
    StaleCache,
    /// A read, without a model, of something that is not there.
    GoneFile,
    /// A field that the API does not know.
    Garbage,
    /// A refusal whose reason cannot be read: the answer to a HEAD has no body.
    Head,
    /// A model for which no key has any quota.
    NoQuota,
    /// A model that OpenRouter does not have.
    OpenRouterTypo,
    /// More tokens in the answer than the balance buys.
    DearAnswer,
    /// More tokens in the prompt than the balance buys.
    DearPrompt,
    /// A paid model, with keys of accounts that never bought credit.
    PaidModel,
    /// A prompt that the moderation does not let pass.
    Flagged,
}

impl Hostile {
    pub const GEMINI: &[Hostile] = &[
        Hostile::GeminiTypo,
        Hostile::ForeignProject,
        Hostile::StaleFile,
        Hostile::StaleCache,
        Hostile::GoneFile,
        Hostile::Garbage,
        Hostile::Head,
        Hostile::NoQuota,
    ];
    pub const OPENROUTER: &[Hostile] = &[
        Hostile::OpenRouterTypo,
        Hostile::DearAnswer,
        Hostile::DearPrompt,
        Hostile::PaidModel,
        Hostile::Flagged,
        Hostile::Head,
    ];

    /// The model that the request names, where it is not one that the innocent use as well.
    pub fn model(self) -> Option<&'static str> {
        match self {
            Hostile::GeminiTypo => Some("gemini-2.0-flahs"),
            Hostile::NoQuota => Some("gemini-2.5-pro"),
            Hostile::GoneFile => Some(""),
            Hostile::OpenRouterTypo => Some("deepseek/deepseek-rl:free"),
            Hostile::PaidModel => Some("openai/gpt-4o"),
            _ => None,
        }
    }

    pub fn answer(self) -> Answer {
        let google = |status: u16, name: &str, message: &str, details: serde_json::Value| {
            let body = json!({"error": {"code": status, "message": message, "status": name, "details": details}});
            answer(status, &[], body)
        };
        let open_router = |code: u16, message: &str, metadata: serde_json::Value| {
            answer(code, &[], json!({"error": {"message": message, "code": code, "metadata": metadata}}))
        };
        match self {
            Hostile::GeminiTypo => google(
                404,
                "NOT_FOUND",
                "models/gemini-2.0-flahs is not found for API version v1beta, or is not supported for \
                 generateContent. Call ListModels to see the list of available models and their supported methods.",
                json!([]),
            ),
            Hostile::ForeignProject => google(
                403,
                "PERMISSION_DENIED",
                "Caller does not have required permission to use project another-project.",
                json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "USER_PROJECT_DENIED",
                    "domain": "googleapis.com", "metadata": {"consumer": "projects/another-project"}}]),
            ),
            Hostile::StaleFile => google(
                403,
                "PERMISSION_DENIED",
                "You do not have permission to access the File abc123 or it may not exist.",
                json!([]),
            ),
            Hostile::StaleCache => {
                google(403, "PERMISSION_DENIED", "CachedContent not found (or permission denied)", json!([]))
            }
            Hostile::GoneFile => google(404, "NOT_FOUND", "Requested entity was not found.", json!([])),
            Hostile::Garbage => google(
                400,
                "INVALID_ARGUMENT",
                "Invalid JSON payload received. Unknown name \"colour\": Cannot find field.",
                json!([{"@type": "type.googleapis.com/google.rpc.BadRequest",
                    "fieldViolations": [{"description": "Unknown name \"colour\": Cannot find field."}]}]),
            ),
            Hostile::Head => answer(403, &[], json!(null)).without_body(),
            Hostile::NoQuota => {
                google(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).", json!([]))
            }
            Hostile::OpenRouterTypo => open_router(404, "No endpoints found for deepseek/deepseek-rl:free.", json!({})),
            Hostile::DearAnswer => open_router(
                402,
                "This request requires more credits, or fewer max_tokens. You requested up to 64000 tokens, but can \
                 only afford 4666. To increase, visit https://openrouter.ai/settings/credits and upgrade to a paid \
                 account",
                json!({}),
            ),
            Hostile::DearPrompt => open_router(
                402,
                "Prompt tokens limit exceeded: 230799 > 91442. To increase, visit \
                 https://openrouter.ai/settings/keys and create a key with a higher monthly limit",
                json!({}),
            ),
            Hostile::PaidModel => open_router(
                402,
                "Insufficient credits. This account never purchased credits. Make sure your key is on the correct \
                 account or org, and if so, purchase more at https://openrouter.ai/settings/credits",
                json!({}),
            ),
            Hostile::Flagged => open_router(
                403,
                "deepseek/deepseek-r1 requires moderation. Your input was flagged for \"violence\". No credits were \
                 charged.",
                json!({"reasons": ["violence"], "flagged_input": "…"}),
            ),
        }
    }
}
