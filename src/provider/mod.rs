//! The providers: a table with one entry each, which holds every fact that distinguishes it from the others.
//!
//! To add a provider, add an entry to [`PROVIDERS`]. Slugs are those of Cloudflare AI Gateway, which the D1 column
//! `keys.provider` also uses. A slug that is not in the table, but has a base URL in the configuration, is treated as
//! an OpenAI-compatible server: [`COMPATIBLE`].
//!
//! The facts come from the providers' public documentation as of November 2026.

pub mod endpoints;

use crate::quota::Minute;
use crate::time::DailyReset;
use endpoints::Endpoints;

/// The facts about a provider.
#[derive(Debug, PartialEq, Eq)]
pub struct Provider {
    /// The name in paths, in compat models, in D1 and on AI Gateway.
    pub slug: &'static str,
    /// Other names for the same provider.
    pub aliases: &'static [&'static str],
    /// The header that carries the key.
    pub auth: Auth,
    /// Older versions of the API that expect the key in another header.
    pub older: Option<Older>,
    /// The dialect of the native API, which also determines the shape of errors.
    pub api: Api,
    /// The base URL of requests that are sent directly to the provider.
    pub base: Base,
    /// The OpenAI-compatible API; `None` if there is none.
    pub openai: Option<OpenAi>,
    /// Required headers, with the value to send if the client sends none.
    pub headers: &'static [(&'static str, &'static str)],
    /// Where a native request names its model; the first place with a name counts.
    pub model: &'static [ModelPlace],
    /// The endpoints that can be judged for an AUTH_KEY that is restricted to some models.
    pub endpoints: Endpoints,
    /// What clients may put before a model's name, which is the same model then.
    pub model_prefix: &'static str,
    /// When the daily quotas are reset.
    pub daily_reset: DailyReset,
    /// When a minute of the quotas begins.
    pub minute: Minute,
    /// What a client must not choose: see [`Choices`].
    pub choices: Choices,
    /// Where its API hands out or makes credentials. No request is sent there, because whoever has such a
    /// credential can use the account without this gateway.
    pub credential_paths: &'static [CredentialPath],
}

/// The headers and query parameters by which a request chooses the project, the organisation or the account
/// that pays, or another method than its own. They are the account's matter and not the client's, so they are
/// removed: a foreign project makes the provider refuse a good key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choices {
    /// Names of headers.
    pub headers: &'static [&'static str],
    /// How the names of more headers begin.
    pub header_prefixes: &'static [&'static str],
    /// Names of query parameters, in lower case. Their case does not matter.
    pub parameters: &'static [&'static str],
    /// How the names of more query parameters begin, in lower case.
    pub parameter_prefixes: &'static [&'static str],
}

/// A path behind the base URL without the version, as `auth/keys`. A segment `{}` is any segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialPath {
    /// This path only.
    At(&'static str),
    /// This path and everything below it.
    Below(&'static str),
}

impl CredentialPath {
    /// Its first segment, which is never `{}`.
    pub(crate) fn head(self) -> &'static str {
        let (CredentialPath::At(pattern) | CredentialPath::Below(pattern)) = self;
        pattern.split_once('/').map_or(pattern, |(head, _)| head)
    }

    /// Whether a path, in segments that are decoded, is this one.
    pub fn matches<S: AsRef<str>>(self, path: &[S]) -> bool {
        let (pattern, below) = match self {
            CredentialPath::At(pattern) => (pattern, false),
            CredentialPath::Below(pattern) => (pattern, true),
        };
        let mut path = path.iter();
        let begins = pattern.split('/').all(|wanted| {
            path.next().is_some_and(|segment| wanted == "{}" || wanted.eq_ignore_ascii_case(segment.as_ref()))
        });
        begins && (below || path.next().is_none())
    }
}

/// The header that carries a key, and its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `authorization: Bearer KEY`.
    Bearer,
    /// This header, with the bare key as its value.
    Header(&'static str),
}

/// The header that carries the key in older versions of an API. The request names its version, which is a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Older {
    /// The header with the version.
    pub header: &'static str,
    /// The query parameter with the version, which takes precedence over the header.
    pub query: &'static str,
    /// The last of these versions.
    pub until: &'static str,
    /// The header that carries the key in these versions.
    pub auth: Auth,
}

impl Older {
    /// Whether a version is one of these. Anything but a date is not; the provider rejects it.
    pub fn includes(&self, version: &str) -> bool {
        let shaped =
            version.len() == self.until.len() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        shaped && version <= self.until
    }
}

/// A dialect: the shape of requests, answers and errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Api {
    /// OpenAI's, and everything that follows it.
    #[default]
    OpenAi,
    /// Google's `generateContent`.
    Gemini,
    /// Anthropic's `messages`.
    Anthropic,
}

/// The URL that `/api/{slug}` is replaced by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Always the same.
    Fixed(&'static str),
    /// The leading path segments fill the `{}` of the URL in order; `skip` names a literal segment
    /// before them.
    Segments {
        /// A literal first segment that only AI Gateway's path has.
        skip: Option<&'static str>,
        /// The URL; each `{}` takes one segment, which must be a DNS label (it may become a host).
        url: &'static str,
    },
    /// The path's `locations/{location}` names the host: `{location}-aiplatform.googleapis.com`.
    VertexLocation,
}

/// A provider's OpenAI-compatible API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenAi {
    /// The path between the base URL and `chat/completions` or `embeddings`.
    pub prefix: &'static str,
    /// The query that the endpoint requires, with its `?`; empty if it requires none.
    pub query: &'static str,
    /// The header that carries the key.
    pub auth: Auth,
    /// The prefix of native paths (after the slug, with a slash) that belong to this API, too: they use its key header, and
    /// their answers have OpenAI's shape. It matters only if the native API differs.
    pub scope: &'static str,
    /// Whether AI Gateway's compat endpoint serves it.
    pub on_compat: bool,
}

impl Provider {
    /// The name that AI Gateway's compat models use.
    pub fn compat_name(&self) -> &'static str {
        self.aliases.first().copied().unwrap_or(self.slug)
    }

    /// The canonical name of a model, which coolings and rights refer to.
    pub fn bare_model<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(self.model_prefix).unwrap_or(name)
    }
}

impl OpenAi {
    const fn at(prefix: &'static str) -> Self {
        OpenAi { prefix, query: "", auth: Bearer, scope: "/", on_compat: true }
    }
}

/// Where a native request may name its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelPlace {
    /// The segment after the one named here, up to a `:verb`.
    PathAfter(&'static str),
    /// This many segments after the one named here, joined by `/` (`models/{owner}/{name}`).
    PathSegmentsAfter(&'static str, usize),
    /// The path segment at this index, counted from 0 after the slug.
    PathSegment(usize),
    /// This top-level field of a JSON body, or this field of a multipart form.
    Body(&'static str),
    /// This query parameter (WebSocket upgrades have no body).
    Query(&'static str),
}

use Auth::{Bearer, Header};
use CredentialPath::{At, Below};
use DailyReset::{After24Hours, MidnightPacific, MidnightUtc};
use ModelPlace::{Body, PathAfter, PathSegment, PathSegmentsAfter, Query};

/// Where OpenAI's own API and its followers name the model.
const OPENAI_MODEL: &[ModelPlace] = &[Body("model"), Query("model")];

const NO_CHOICES: Choices = Choices { headers: &[], header_prefixes: &[], parameters: &[], parameter_prefixes: &[] };

/// Google's system parameters, which it documents for all of its APIs.
const GOOGLE_CHOICES: Choices = Choices {
    headers: &["x-goog-user-project", "x-goog-quota-user"],
    header_prefixes: &["x-goog-iam-"],
    parameters: &["$userproject", "userproject", "$quotauser", "quotauser", "$httpmethod", "httpmethod"],
    ..NO_CHOICES
};

/// Where OpenAI's own API and its followers make short-lived keys for browsers, and keys for administrators.
const OPENAI_CREDENTIALS: &[CredentialPath] = &[
    Below("organization"),
    At("realtime/client_secrets"),
    At("realtime/sessions"),
    At("realtime/transcription_sessions"),
    At("realtime/translations/client_secrets"),
    Below("chatkit/sessions"),
];

/// A server that speaks OpenAI's API at a URL from the configuration.
pub const COMPATIBLE: Provider = Provider {
    slug: "",
    aliases: &[],
    auth: Bearer,
    older: None,
    api: Api::OpenAi,
    base: Base::Fixed(""),
    openai: Some(OpenAi { on_compat: false, ..OpenAi::at("/") }),
    headers: &[],
    model: OPENAI_MODEL,
    endpoints: endpoints::COMPATIBLE,
    model_prefix: "",
    daily_reset: After24Hours,
    minute: Minute::Rolling,
    choices: NO_CHOICES,
    credential_paths: OPENAI_CREDENTIALS,
};

const fn openai(slug: &'static str, url: &'static str) -> Provider {
    Provider { slug, base: Base::Fixed(url), openai: Some(OpenAi::at("/")), ..COMPATIBLE }
}

/// All known providers.
pub static PROVIDERS: &[Provider] = &[
    Provider {
        auth: Header("x-goog-api-key"),
        api: Api::Gemini,
        openai: Some(OpenAi { scope: "/v1beta/openai/", ..OpenAi::at("/v1beta/openai/") }),
        model: &[PathAfter("models"), PathAfter("tunedModels"), Body("model"), Query("model")],
        // The provider's bodies and its list of models say `models/gemini-…`.
        model_prefix: "models/",
        daily_reset: MidnightPacific,
        // The delays that 429s state end at the full minute.
        minute: Minute::Calendar,
        endpoints: endpoints::GEMINI,
        choices: GOOGLE_CHOICES,
        credential_paths: &[Below("auth_tokens"), Below("authTokens")],
        ..openai("google-ai-studio", "https://generativelanguage.googleapis.com")
    },
    Provider { endpoints: endpoints::OPENAI, ..openai("openai", "https://api.openai.com/v1") },
    Provider {
        auth: Header("x-api-key"),
        api: Api::Anthropic,
        openai: Some(OpenAi { scope: "/v1/chat/completions", ..OpenAi::at("/v1/") }),
        headers: &[("anthropic-version", "2023-06-01")],
        model: &[Body("model")],
        endpoints: endpoints::ANTHROPIC,
        credential_paths: &[Below("organizations")],
        ..openai("anthropic", "https://api.anthropic.com")
    },
    Provider {
        auth: Header("api-key"),
        base: Base::Segments { skip: None, url: "https://{}.openai.azure.com/openai/deployments/{}" },
        openai: Some(OpenAi { query: "?api-version=2024-10-21", auth: Header("api-key"), ..OpenAi::at("/") }),
        model: &[PathSegment(1)],
        endpoints: endpoints::AZURE,
        choices: Choices { headers: &["ocp-apim-subscription-key"], parameters: &["subscription-key"], ..NO_CHOICES },
        ..openai("azure-openai", "")
    },
    Provider {
        openai: Some(OpenAi { on_compat: false, ..OpenAi::at("/") }),
        daily_reset: MidnightUtc,
        endpoints: endpoints::OPENROUTER,
        credential_paths: &[Below("keys"), Below("auth/keys")],
        ..openai("openrouter", "https://openrouter.ai/api/v1")
    },
    Provider { endpoints: endpoints::FOLLOWER, ..openai("groq", "https://api.groq.com/openai/v1") },
    Provider {
        openai: Some(OpenAi::at("/v1/")),
        endpoints: endpoints::MISTRAL,
        ..openai("mistral", "https://api.mistral.ai")
    },
    Provider { endpoints: endpoints::DEEPSEEK, ..openai("deepseek", "https://api.deepseek.com") },
    Provider { endpoints: endpoints::GROK, ..openai("grok", "https://api.x.ai/v1") },
    Provider { endpoints: endpoints::FOLLOWER, ..openai("cerebras", "https://api.cerebras.ai/v1") },
    Provider {
        openai: Some(OpenAi::at("/compatibility/v1/")),
        endpoints: endpoints::COHERE,
        ..openai("cohere", "https://api.cohere.ai")
    },
    // AI Gateway's compat models say `perplexity/…`: both names are one pool.
    Provider {
        aliases: &["perplexity"],
        endpoints: endpoints::FOLLOWER,
        credential_paths: &[At("generate_auth_token"), At("revoke_auth_token")],
        ..openai("perplexity-ai", "https://api.perplexity.ai")
    },
    Provider {
        endpoints: endpoints::FOLLOWER,
        choices: Choices { headers: &["x-hf-bill-to"], ..NO_CHOICES },
        ..openai("huggingface", "https://router.huggingface.co/v1")
    },
    Provider {
        openai: None,
        model: &[PathSegmentsAfter("models", 2), PathSegmentsAfter("deployments", 2), Body("version")],
        endpoints: endpoints::REPLICATE,
        // It signs the calls that Replicate makes to the account's own servers.
        credential_paths: &[At("webhooks/default/secret")],
        ..openai("replicate", "https://api.replicate.com/v1")
    },
    Provider {
        // A valid key in the wrong header would be refused, and then blocked.
        older: Some(Older {
            header: "cartesia-version",
            query: "cartesia_version",
            until: "2024-11-13",
            auth: Header("x-api-key"),
        }),
        openai: None,
        headers: &[("cartesia-version", "2025-04-16")],
        model: &[Body("model_id")],
        endpoints: endpoints::CARTESIA,
        credential_paths: &[Below("access-token")],
        ..openai("cartesia", "https://api.cartesia.ai")
    },
    Provider {
        // The `x-api-key` that the Worker sends is not what the provider documents.
        auth: Header("xi-api-key"),
        openai: None,
        model: &[Body("model_id"), Query("model_id")],
        endpoints: endpoints::ELEVENLABS,
        // `GET /v1/user` has the key itself in its answer, as `xi_api_key`.
        credential_paths: &[
            At("user"),
            Below("single-use-token"),
            Below("service-accounts"),
            At("convai/conversation/get-signed-url"),
            At("convai/conversation/get_signed_url"),
            At("convai/conversation/token"),
        ],
        ..openai("elevenlabs", "https://api.elevenlabs.io")
    },
    Provider {
        api: Api::Gemini,
        base: Base::VertexLocation,
        openai: None,
        model: &[PathAfter("models"), Body("model")],
        endpoints: endpoints::VERTEX,
        choices: GOOGLE_CHOICES,
        ..openai("google-vertex-ai", "")
    },
    Provider {
        base: Base::Segments { skip: Some("bedrock-runtime"), url: "https://bedrock-runtime.{}.amazonaws.com" },
        openai: None,
        model: &[PathAfter("model"), Body("model")],
        endpoints: endpoints::BEDROCK,
        choices: Choices { header_prefixes: &["x-amz-"], parameter_prefixes: &["x-amz-"], ..NO_CHOICES },
        ..openai("aws-bedrock", "")
    },
];

/// Every header that may carry a key of the client or of a provider.
pub const CREDENTIAL_HEADERS: &[&str] = &["authorization", "x-api-key", "x-goog-api-key", "api-key", "xi-api-key"];

/// Every query parameter that may carry a key. Google also reads `access_token` and `oauth_token`: a wrong one causes a
/// 401, for which a valid key would be blocked.
pub const CREDENTIAL_PARAMETERS: &[&str] = &["key", "api_key", "api-key", "xi-api-key", "access_token", "oauth_token"];

/// Finds a provider by slug or alias.
pub fn find(name: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|provider| provider.slug == name || provider.aliases.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = PROVIDERS.iter().flat_map(|p| p.aliases.iter().chain([&p.slug])).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert_eq!(find("perplexity"), find("perplexity-ai"));
        assert_eq!(find("compat"), None, "a path segment that is not a provider");
    }

    #[test]
    fn credential_paths() {
        for (pattern, path, matches) in [
            (At("user"), "user", true),
            (At("user"), "USER", true),
            (At("user"), "user/subscription", false),
            (At("user"), "", false),
            (Below("auth/keys"), "auth/keys", true),
            (Below("auth/keys"), "auth/keys/code", true),
            (Below("auth/keys"), "auth/key", false),
            (Below("a/{}/b"), "a/x/b/c", true),
            (Below("a/{}/b"), "a/b", false),
        ] {
            let path: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
            assert_eq!(pattern.matches(&path), matches, "{pattern:?} {path:?}");
        }
    }

    #[test]
    fn choices_are_in_lower_case() {
        let all = PROVIDERS.iter().map(|provider| provider.choices);
        let names = all.flat_map(|all| [all.headers, all.header_prefixes, all.parameters, all.parameter_prefixes]);
        for name in names.flatten() {
            assert_eq!(*name, name.to_ascii_lowercase());
        }
    }

    #[test]
    fn credential_headers_cover_the_table() {
        for provider in PROVIDERS {
            let header = match provider.auth {
                Auth::Bearer => "authorization",
                Auth::Header(name) => name,
            };
            assert!(CREDENTIAL_HEADERS.contains(&header), "{}", provider.slug);
        }
    }
}
