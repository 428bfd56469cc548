//! The codes of our own answers: one table with the status, whether asking again can help, and when in a
//! request's life each is sent.
//!
//! A code is stable, because programs, metrics and the access log go by it. The message beside it is for
//! people and may change.

use core::fmt;

/// Whether a client should ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// We send no advice: the status says enough, and the client decides.
    ClientDecides,
    /// It is in vain until an operator has changed something.
    Never,
}

/// When in a request's life a code is sent. Metrics have a label for each code that can occur there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before a key is asked for.
    Refusal,
    /// From then on.
    Attempt,
    /// In both.
    Both,
}

macro_rules! codes {
    ($($(#[$doc:meta])+ $name:ident = $text:literal, $status:literal, $retry:ident, $stage:ident;)+) => {
        /// Why a client gets an answer of ours in place of a provider's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])+ $name,)+
        }

        impl Code {
            /// All codes, in the order of the table.
            pub const ALL: &[Code] = &[$(Code::$name),+];

            const fn row(self) -> (&'static str, u16, Retry, Stage) {
                match self {
                    $(Code::$name => ($text, $status, Retry::$retry, Stage::$stage),)+
                }
            }
        }
    };
}

codes! {
    /// No credential was sent.
    MissingAuthKey = "missing_auth_key", 401, ClientDecides, Refusal;
    /// The credential is not an AUTH_KEY.
    InvalidAuthKey = "invalid_auth_key", 401, ClientDecides, Refusal;
    /// The AUTH_KEY has expired.
    ExpiredAuthKey = "expired_auth_key", 401, ClientDecides, Refusal;
    /// The AUTH_KEY may not use this provider.
    ProviderNotAllowed = "provider_not_allowed", 403, ClientDecides, Refusal;
    /// The AUTH_KEY may not use this model.
    ModelNotAllowed = "model_not_allowed", 403, ClientDecides, Refusal;
    /// The provider's API hands out or makes credentials at this path.
    CredentialEndpoint = "credential_endpoint", 403, ClientDecides, Refusal;
    /// The console takes AUTH_KEYs without restrictions only.
    RestrictedAuthKey = "restricted_auth_key", 403, ClientDecides, Refusal;
    /// The path leads nowhere.
    UnknownPath = "unknown_path", 404, ClientDecides, Refusal;
    /// The provider is not configured.
    UnknownProvider = "unknown_provider", 404, ClientDecides, Refusal;
    /// The path does not take this method.
    MethodNotAllowed = "method_not_allowed", 405, ClientDecides, Refusal;
    /// The path can be read in more than one way.
    InvalidPath = "invalid_path", 400, ClientDecides, Refusal;
    /// The query of the console's status has a value that it does not take.
    InvalidQuery = "invalid_query", 400, ClientDecides, Refusal;
    /// The body is not JSON, or not one object.
    InvalidJson = "invalid_json", 400, ClientDecides, Refusal;
    /// The model's name is missing, too long or without a provider.
    InvalidModel = "invalid_model", 400, ClientDecides, Refusal;
    /// The body names a field twice that decides on rights.
    DuplicateField = "duplicate_field", 400, ClientDecides, Refusal;
    /// A field has no counterpart at the provider.
    UnsupportedField = "unsupported_field", 400, ClientDecides, Refusal;
    /// The provider has no OpenAI-style API, nor one that we translate to.
    NoOpenaiApi = "no_openai_api", 400, ClientDecides, Refusal;
    /// The body is larger than the limit.
    BodyTooLarge = "body_too_large", 413, ClientDecides, Both;
    /// The body is compressed, and its model has to be read.
    UnsupportedEncoding = "unsupported_encoding", 415, ClientDecides, Refusal;
    /// An edit's body is not declared as JSON.
    UnsupportedMediaType = "unsupported_media_type", 415, ClientDecides, Refusal;
    /// The console is configured to be read only.
    ConsoleReadOnly = "console_read_only", 403, ClientDecides, Refusal;
    /// Edits need D1.
    NoD1 = "no_d1", 409, ClientDecides, Refusal;
    /// An edit has fields or values that cannot be carried out.
    InvalidEdit = "invalid_edit", 422, ClientDecides, Refusal;
    /// The pool has as many keys from D1 as it takes.
    PoolFull = "pool_full", 409, ClientDecides, Refusal;
    /// D1 does not answer at the moment.
    D1Unavailable = "d1_unavailable", 503, ClientDecides, Refusal;
    /// D1 has refused an edit.
    D1Refused = "d1_refused", 502, ClientDecides, Refusal;
    /// Envoy has no route for the request.
    NoRoute = "no_route", 404, ClientDecides, Both;
    /// The filter has no valid configuration, or only one of its two places.
    NotConfigured = "not_configured", 503, ClientDecides, Both;
    /// The provider has no keys.
    NoKeys = "no_keys", 503, Never, Attempt;
    /// All of the provider's keys are blocked.
    AllKeysBlocked = "all_keys_blocked", 503, Never, Attempt;
    /// All of the provider's keys are cooling for this model, resting or at their quota.
    AllKeysCooling = "all_keys_cooling", 429, ClientDecides, Attempt;
    /// Every key has been tried by this request.
    AllKeysTried = "all_keys_tried", 503, ClientDecides, Attempt;
    /// Nobody has quota for the model, or the provider limits our address, so the model is left alone.
    ProviderResting = "provider_resting", 429, ClientDecides, Attempt;
    /// D1's keys have not been read yet.
    PoolNotLoaded = "pool_not_loaded", 503, ClientDecides, Both;
    /// The provider refuses the pool's keys.
    ProviderKeysRefused = "provider_keys_refused", 502, ClientDecides, Attempt;
    /// AI Gateway, or something else on the way, refuses us.
    GatewayRefused = "gateway_refused", 502, ClientDecides, Attempt;
    /// No attempt got an answer.
    ProviderUnreachable = "provider_unreachable", 502, ClientDecides, Attempt;
    /// The provider did not answer in time.
    ProviderTimeout = "provider_timeout", 504, ClientDecides, Attempt;
    /// The provider's answer cannot be read, and so cannot be translated.
    ProviderAnswerUnreadable = "provider_answer_unreadable", 502, ClientDecides, Attempt;
    /// The provider's answer shows the pooled key, or is a compressed error that may show it.
    ProviderErrorWithheld = "provider_error_withheld", 502, ClientDecides, Attempt;
    /// Envoy let an answer through that was to be retried.
    NotRetried = "not_retried", 502, ClientDecides, Attempt;
    /// Envoy's own rate limit for this AUTH_KEY.
    ClientRateLimited = "client_rate_limited", 429, ClientDecides, Both;
    /// Envoy could not serve the request for another reason.
    EnvoyError = "envoy_error", 503, ClientDecides, Both;
}

impl Code {
    /// The code as clients, metrics and the access log see it.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status, where the provider's or Envoy's does not take its place.
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// Whether asking again can help.
    pub const fn retry(self) -> Retry {
        self.row().2
    }

    /// When it is sent.
    pub const fn stage(self) -> Stage {
        self.row().3
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_code_has_its_own_name_and_an_error_status() {
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!((400..600).contains(&code.status()), "{code:?}");
            assert!(
                code.as_str().bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
        }
    }
}
