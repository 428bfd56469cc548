//! The words by which answers are told apart, all in one place and in lower case.
//!
//! A `code` must equal a code, type, status or reason of the body, and a `text` may occur anywhere in its
//! message. An entry with a provider's name behind it was seen there, and the goldens show where.

use super::body::ErrorBody;
use super::evidence::Sign;

/// Words of the same meaning.
pub(crate) struct Markers {
    codes: &'static [&'static str],
    texts: &'static [&'static str],
}

impl Markers {
    /// The first of these words that the error uses.
    pub(crate) fn find(&self, error: &ErrorBody) -> Option<Sign> {
        self.code(error).or_else(|| self.text(&error.message))
    }

    /// The same for words that accuse the key. An answer may quote the request, and a client must not be
    /// able to accuse a key, so quoted words do not count.
    pub(crate) fn find_unquoted(&self, error: &ErrorBody, status: u16) -> Option<Sign> {
        let text = || match status {
            400 | 403 => self.text(&without_quotes(error)),
            401 | 402 | 429 => self.text(&error.message),
            // Other statuses are about the request alone, such as 404 with the name of the model.
            _ => None,
        };
        self.code(error).or_else(text)
    }

    fn code(&self, error: &ErrorBody) -> Option<Sign> {
        self.codes.iter().find(|code| error.has_code(code)).copied().map(Sign::Code)
    }

    fn text(&self, message: &str) -> Option<Sign> {
        self.texts.iter().find(|text| message.contains(*text)).copied().map(Sign::Text)
    }

    /// The offset in the message of the first of these words; 0 if the word is a code.
    pub(crate) fn offset(&self, error: &ErrorBody) -> Option<usize> {
        if self.codes.iter().any(|code| error.has_code(code)) {
            return Some(0);
        }
        self.texts.iter().filter_map(|text| error.message.find(text)).min()
    }
}

/// The part of the message that cannot be words of the request: everything outside the first quote and the
/// last, because a quoted text may itself have quotes.
fn without_quotes(error: &ErrorBody) -> String {
    if ECHO.find(error).is_some() { String::new() } else { unquoted(&error.message) }
}

fn unquoted(text: &str) -> String {
    let is_quote = |&(at, quote): &(usize, char)| {
        // Between letters it is an apostrophe.
        let letter = |char: Option<char>| char.is_some_and(char::is_alphanumeric);
        let (before, behind) = text.split_at_checked(at).unwrap_or_default();
        let inside = letter(before.chars().next_back()) && letter(behind.chars().nth(1));
        matches!(quote, '"' | '`' | '“' | '”') || (matches!(quote, '\'' | '’') && !inside)
    };
    let mut quotes = text.char_indices().filter(is_quote).map(|(at, _)| at);
    let (Some(first), Some(last)) = (quotes.next(), quotes.next_back()) else { return text.to_owned() };
    [text.get(..first).unwrap_or_default(), " ", text.get(last..).unwrap_or_default()].concat()
}

/// Messages that repeat words of the request without quotes: the name of a field (Anthropic, OpenAI) or of
/// a model (Mistral, OpenRouter).
pub(crate) const ECHO: Markers = Markers {
    codes: &[],
    texts: &[
        "extra inputs are not permitted",
        "unrecognized request argument",
        "invalid model",
        "is not a valid model",
        "unknown model",
    ],
};

/// Credit is spent or billing is off, so that somebody has to pay.
pub(crate) const CREDIT: Markers = Markers {
    codes: &[
        "insufficient_quota",
        "blocked_api_access",           // Groq
        "organization_restricted",      // Groq
        "billing_error",                // Anthropic
        "enforced_spend_limit_reached", // Anthropic, in the details of a 429
        "billing_hard_limit_reached",
        "billing_not_active",
        "openrouter_credits", // OpenRouter's limit_source
        "insufficient_balance",
        "insufficient_user_quota", // new-api
        "arrearage",               // DashScope, with a 400
        "accountoverdueerror",     // Ark
        "30001",                   // SiliconFlow, with a 403
    ],
    texts: &[
        "credit balance",
        "spend limit",
        "api usage limits",
        "prepayment credits",
        "credits are depleted",
        "spending cap",
        "requires billing to be enabled",
        "key limit exceeded",
        "account is not active",
        "spending limit", // xAI
        "used all available credits",
        "run out of credits",
        "doesn't have any credits",
        "insufficient balance", // DeepSeek
        "insufficient credit",
        "balance is insufficient", // SiliconFlow
        "quota is not enough",     // new-api
        "in good standing",        // DashScope
        "can only afford 0",       // OpenRouter
    ],
};

/// A month's quota is spent.
pub(crate) const MONTHLY: Markers = Markers {
    codes: &["quota_exceeded"], // ElevenLabs
    texts: &[
        "regain access on",         // Anthropic's monthly spend limit
        "/ month",                  // Cohere
        "monthly included credits", // Hugging Face
        "out of call volume quota", // Azure's free tier
    ],
};

/// A day's quota is spent. These are looked for only in a 429.
pub(crate) const DAILY: Markers = Markers {
    codes: &["openrouter_free_tier_daily"],
    texts: &["per-day", "per day", "/ day", "(tpd)", "(rpd)", "daily limit", "daily quota"],
};

/// The model has no quota in the key's tier.
pub(crate) const NOT_IN_TIER: Markers = Markers {
    codes: &["allocationquota.freetieronly"], // DashScope
    texts: &[
        "doesn't have a free quota tier",
        // Google, of a project without billing: another key's project may have it.
        "free tier is not available in your country",
        "without a billing account linked",
    ],
};

/// The provider has no capacity left for any key.
pub(crate) const OVERLOADED: Markers = Markers {
    codes: &[
        "overloaded_error",               // Anthropic
        "upstream_provider_shared_pool",  // OpenRouter's limit_source
        "service_tier_capacity_exceeded", // Mistral
        "queue_exceeded",                 // Cerebras
        "system_busy",                    // ElevenLabs
        "modelnotreadyexception",         // Bedrock
    ],
    texts: &[
        "overloaded",
        "temporarily rate-limited upstream",
        "currently experiencing high",
        "experiencing high traffic",
        "is currently loading", // Hugging Face
    ],
};

/// A rate limit was hit, whatever the status.
pub(crate) const RATE_LIMIT: Markers = Markers {
    codes: &[
        "rate_limit_exceeded",
        "rate_limit_error",
        "rate_limited",
        "too_many_requests",
        "too_many_requests_error",
        "too_many_concurrent_requests",
        "concurrency_limited",
        "throttlingexception",
        "servicequotaexceededexception",
    ],
    texts: &[],
};

/// The limit counts concurrent requests.
pub(crate) const CONCURRENCY: Markers = Markers {
    codes: &["concurrency_limited", "too_many_concurrent_requests"],
    texts: &["concurrent request", "concurrency limit"],
};

/// The limit counts tokens.
pub(crate) const TOKENS: Markers = Markers {
    codes: &["tokens", "token_quota_exceeded"],
    texts: &["tokens per min", "tokens per day", "token rate limit", "too many tokens", "(tpm)", "(tpd)"],
};

/// The limit counts tokens of prompts.
pub(crate) const INPUT_TOKENS: Markers = Markers { codes: &["input_tokens"], texts: &["input tokens per min"] };

/// The limit counts tokens of completions.
pub(crate) const OUTPUT_TOKENS: Markers = Markers { codes: &["output_tokens"], texts: &["output tokens per min"] };

/// The limit counts requests.
pub(crate) const REQUESTS: Markers = Markers {
    codes: &["requests", "request_quota_exceeded"],
    texts: &[
        "requests per min",
        "requests per day",
        "requests rate limit",
        "call rate limit",
        "api calls /",
        "free-models-per",
        "(rpm)",
        "(rpd)",
    ],
};

/// The limit counts over a minute.
pub(crate) const PER_MINUTE: Markers =
    Markers { codes: &[], texts: &["per min", "per-min", "/ minute", "(tpm)", "(rpm)"] };

/// The request is larger than the limit.
pub(crate) const OVERSIZED: Markers = Markers { codes: &[], texts: &["request too large"] };

/// Of a key whose credit is not spent: a request that may cost less is served.
pub(crate) const UNAFFORDABLE: Markers =
    Markers { codes: &[], texts: &["can only afford", "prompt tokens limit exceeded", "more credits are required"] };

/// The request names what another key owns, or what is gone.
pub(crate) const NOT_MINE: Markers = Markers {
    codes: &["previous_response_not_found", "invalid_encrypted_content"], // OpenAI's Responses
    texts: &[
        "permission to access the file",           // Google
        "cachedcontent not found",                 // Google
        "previous response with id",               // OpenAI
        "encrypted content could not be verified", // OpenAI
    ],
};

/// Azure does not say whether the key is wrong or belongs to another resource than the path names.
pub(crate) const WRONG_RESOURCE: Markers = Markers { codes: &[], texts: &["or wrong api endpoint"] };

/// Our region is not served.
pub(crate) const REGION: Markers = Markers {
    codes: &["unsupported_country_region_territory"],
    texts: &[
        "unsupported countries",
        "location is not supported",
        "not available in your country",
        "country, region, or territory not supported",
    ],
};

/// The key is dead, in words that no request can cause.
pub(crate) const REVOKED: Markers = Markers {
    codes: &["api_key_expired", "account_deactivated"],
    texts: &["api key expired", "reported as leaked", "organization has been disabled"],
};

/// The key itself is at fault, as far as the answer says.
pub(crate) const CREDENTIAL: Markers = Markers {
    codes: &[
        "api_key_invalid", // Google
        "invalid_api_key",
        "consumer_suspended",          // Google
        "unrecognizedclientexception", // Bedrock
        "invalidsignatureexception",
        "expiredtokenexception",
    ],
    texts: &[
        "api key not valid",
        "has been suspended",
        "project has been denied access",
        "incorrect api key provided", // xAI says it with a 400
    ],
};

/// The fault is ours: our IP address or the browser's origin was refused, or no key was sent.
pub(crate) const OURS: Markers = Markers {
    codes: &[
        "ip_not_authorized",
        "api_key_ip_address_blocked",
        "api_key_http_referrer_blocked",
        "detected_unusual_activity", // ElevenLabs, about proxies and VPNs
        "missing_api_key",
        "mismatched_organization", // OpenAI, about a header
        "mismatched_project",
        "invalid_organization",
    ],
    texts: &[
        "allow-list",
        "allowlist",
        "ip address is not",
        "ip not authorized",
        "must be a member of an organization",
        "cors requests are not allowed",
        "didn't provide an api key",
        "virtual network/firewall",
        "public access is disabled",
        "error code: 1010", // Cloudflare's firewall in front of the provider
    ],
};

/// This key may not use this model.
pub(crate) const MODEL: Markers = Markers {
    codes: &[
        "model_not_found",
        "model_not_available",
        "model_permission_blocked_org", // Groq
        "model_permission_blocked_project",
        "model_terms_required",
        "permission_error", // Anthropic
        "service_disabled", // Google: the API is off in the key's project
        "api_key_service_blocked",
        "accessdeniedexception", // Bedrock
        "deploymentnotfound",    // Azure
        "missing_permissions",   // ElevenLabs
    ],
    texts: &[
        "you do not have access to",
        "does not have access to",
        "don't have access to the model",
        "insufficient permissions for this operation", // OpenAI's restricted keys
        "sufficient permissions to call inference providers", // Hugging Face
        "is not found for api version",                // Google
    ],
};

/// The request was refused because of its content.
pub(crate) const MODERATION: Markers = Markers {
    codes: &["content_policy_violation", "content_filter", "moderation"],
    // The last two are xAI's.
    texts: &["requires moderation", "flagged", "violates usage guidelines", "safety_check_type"],
};
