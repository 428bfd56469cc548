//! The routes: what each path leads to.
//!
//! ```text
//! /healthz                               a liveness probe
//! /v1/chat/completions, /v1/embeddings   OpenAI's API, the model names the provider
//! /v1/models                             the models that the configuration lists
//! /api/compat/…                          the same, as AI Gateway spells it
//! /api/{slug}/{native path}              a provider's own API
//! /one-balance/…                         the console: see the pool, and edit it
//! ```

use crate::console::ConsolePath;
use crate::provider::Api;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// A liveness probe.
    Health,
    /// OpenAI-shaped, for the provider that the model names.
    OpenAi(Endpoint),
    /// The list of models.
    Models,
    /// A provider's own API: the slug as written, and the path behind it, beginning with a slash.
    Native(&'a str, &'a str),
    /// The console.
    Console(ConsolePath),
}

/// The OpenAI endpoints that are served for any provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `chat/completions`.
    ChatCompletions,
    /// `embeddings`.
    Embeddings,
}

impl Endpoint {
    /// Its path below an OpenAI-style base.
    pub fn path(self) -> &'static str {
        match self {
            Endpoint::ChatCompletions => "chat/completions",
            Endpoint::Embeddings => "embeddings",
        }
    }
}

/// Finds the route of a path (without its query); `None` if there is nothing there.
pub fn find(path: &str) -> Option<Route<'_>> {
    if path == "/healthz" {
        return Some(Route::Health);
    }
    if let Some(place) = ConsolePath::find(path) {
        return Some(Route::Console(place));
    }
    let compat = path.strip_prefix("/api/compat/").or_else(|| path.strip_prefix("/v1/"));
    if let Some(rest) = compat {
        if rest == "models" {
            return Some(Route::Models);
        }
        let endpoints = [Endpoint::ChatCompletions, Endpoint::Embeddings];
        return endpoints.into_iter().find(|endpoint| endpoint.path() == rest).map(Route::OpenAi);
    }
    let (slug, rest) = behind_api(path)?;
    (!slug.is_empty() && !rest.is_empty()).then_some(Route::Native(slug, rest))
}

/// The first segment behind `/api/` and what follows it, from its slash on.
fn behind_api(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/api/")?;
    Some(rest.split_at(rest.find('/').unwrap_or(rest.len())))
}

/// The dialect in which a client on this path expects errors. Only needs to be right for paths
/// that exist; for all others OpenAI's is the one most clients read.
pub fn api_of(path: &str) -> Api {
    let Some((slug, rest)) = behind_api(path) else { return Api::OpenAi };
    match crate::provider::find(slug) {
        Some(provider) if provider.openai.is_some_and(|openai| rest.starts_with(openai.scope)) => Api::OpenAi,
        Some(provider) => provider.api,
        None => Api::OpenAi,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let native = |slug, rest| Some(Route::Native(slug, rest));
        for (path, route) in [
            ("/healthz", Some(Route::Health)),
            ("/v1/chat/completions", Some(Route::OpenAi(Endpoint::ChatCompletions))),
            ("/api/compat/chat/completions", Some(Route::OpenAi(Endpoint::ChatCompletions))),
            ("/api/compat/embeddings", Some(Route::OpenAi(Endpoint::Embeddings))),
            ("/v1/models", Some(Route::Models)),
            ("/api/compat/models", Some(Route::Models)),
            ("/api/openai/v1/models", native("openai", "/v1/models")),
            ("/api/openai/", native("openai", "/")),
            ("/api/openai", None),
            ("/api//x", None),
            ("/one-balance/status", Some(Route::Console(ConsolePath::Status))),
            ("/one-balance/nothing", None),
            ("/v1/messages", None),
            ("/", None),
            ("/healthz/", None),
        ] {
            assert_eq!(find(path), route, "{path}");
        }
    }

    #[test]
    fn dialects() {
        for (path, api) in [
            ("/api/google-ai-studio/v1beta/models/m:generateContent", Api::Gemini),
            ("/api/google-ai-studio/v1beta/openai/chat/completions", Api::OpenAi),
            ("/api/anthropic/v1/messages", Api::Anthropic),
            ("/api/anthropic/v1/chat/completions", Api::OpenAi),
            ("/api/groq/chat/completions", Api::OpenAi),
            ("/api/compat/chat/completions", Api::OpenAi),
            ("/api/anthropic", Api::Anthropic),
            ("/nonsense", Api::OpenAi),
        ] {
            assert_eq!(api_of(path), api, "{path}");
        }
    }
}
