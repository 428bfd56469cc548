//! Where a request goes: scheme, authority and path of the provider's side.

use crate::config::{AiGateway, Upstream};
use crate::http::url::{Url, percent_decode};
use crate::provider::Base;
use crate::request::route::Endpoint;

/// The provider's side of a request. `path` includes the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whether it is reached over TLS.
    pub tls: bool,
    /// Host and port.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

/// Why a path leads nowhere; a text for the client.
pub type Nowhere = &'static str;

impl Target {
    fn at(url: &Url, path: &str, query: &str) -> Self {
        let mark = if query.is_empty() { "" } else { "?" };
        let path = [&url.path, path, mark, query].concat();
        Target { tls: url.tls, authority: url.authority.clone(), path }
    }

    /// A native request, straight to the provider.
    ///
    /// # Errors
    /// When the path does not name what the provider's host is made of.
    pub fn native(upstream: &Upstream, rest: &str, query: &str) -> Result<Self, Nowhere> {
        if let Some(url) = &upstream.base_url {
            return Ok(Target::at(url, without_repeated_version(&url.path, rest), query));
        }
        let (text, rest) = match upstream.provider.base {
            Base::Fixed(text) => (text.to_owned(), rest),
            Base::Segments { skip, url } => fill(url, skip, rest)?,
            Base::VertexLocation => (vertex(rest)?, rest),
        };
        let url = Url::parse(&text).map_err(|_| "this path does not lead to a host")?;
        Ok(Target::at(&url, without_repeated_version(&url.path, rest), query))
    }

    /// A native request through AI Gateway, where the slug replaces the same base URL as here.
    pub fn native_through(gateway: &AiGateway, prefix: &str, upstream: &Upstream, rest: &str, query: &str) -> Self {
        let replaced = match upstream.provider.base {
            Base::Fixed(text) => Url::parse(text).map(|url| url.path).unwrap_or_default(),
            Base::Segments { .. } | Base::VertexLocation => String::new(),
        };
        let rest = without_repeated_version(&replaced, rest);
        Target::at(&gateway.url, &format!("{prefix}/{}{rest}", upstream.provider.slug), query)
    }

    /// Path and query of the provider's own OpenAI-style API, as a native request would have them.
    ///
    /// # Errors
    /// When it has none, or its host cannot be known from the model alone.
    pub fn openai(upstream: &Upstream, endpoint: Endpoint, model: &str) -> Result<(String, &'static str), Nowhere> {
        let openai = upstream.provider.openai.ok_or("this provider has no OpenAI-style API; use its native path")?;
        let path = format!("{}{}", openai.prefix, endpoint.path());
        // Azure's host and deployment are in the model: `azure-openai/{resource}/{deployment}`.
        let in_model = matches!(upstream.provider.base, Base::Segments { .. }) && upstream.base_url.is_none();
        if in_model && !(model.split('/').count() == 2 && model.split('/').all(is_label)) {
            return Err("the model must name the resource, too: azure-openai/{resource}/{deployment}");
        }
        let path = if in_model { format!("/{model}{path}") } else { path };
        Ok((path, openai.query.trim_start_matches('?')))
    }

    /// An OpenAI-shaped request on AI Gateway's compat endpoint.
    pub fn compat(gateway: &AiGateway, prefix: &str, endpoint: Endpoint) -> Self {
        Target::at(&gateway.url, &format!("{prefix}/compat/{}", endpoint.path()), "")
    }

    /// The `:scheme` that the routes of the shipped Envoy configuration go by.
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

/// A native path as it is sent to the provider, below the base URL that replaces the slug.
pub(super) fn below_base<'a>(upstream: &Upstream, rest: &'a str) -> &'a str {
    let fixed;
    let base = match (&upstream.base_url, upstream.provider.base) {
        (Some(url), _) => &url.path,
        (None, Base::Fixed(text)) => {
            fixed = Url::parse(text).map(|url| url.path).unwrap_or_default();
            &fixed
        }
        (None, _) => "",
    };
    without_repeated_version(base, rest)
}

/// The path without a version that the base has already: the base ends in `/v1` and the client
/// writes `/v1/chat/completions`, or repeats all of it (`/openai/v1/…` for Groq).
fn without_repeated_version<'a>(base: &str, rest: &'a str) -> &'a str {
    let behind = |prefix: &str| rest.strip_prefix(prefix).filter(|rest| rest.starts_with('/'));
    let last =
        base.rfind('/').and_then(|at| base.get(at..)).filter(|last| last.strip_prefix('/').is_some_and(is_version));
    last.and_then(|last| behind(base).or_else(|| behind(last))).unwrap_or(rest)
}

/// Whether the provider's API hands out or makes credentials at the path behind the slug.
pub fn leads_to_credentials(upstream: &Upstream, rest: &str) -> bool {
    let patterns = upstream.provider.credential_paths;
    // Nearly every path has none of the first segments in it, and needs no closer look.
    let is_head = |segment: &str| patterns.iter().any(|pattern| pattern.head().eq_ignore_ascii_case(segment));
    if !rest.contains('%') && !rest.split('/').any(is_head) {
        return false;
    }
    let base = match (&upstream.base_url, upstream.provider.base) {
        (Some(url), _) => url.path.as_str(),
        (None, Base::Fixed(text)) => text.splitn(4, '/').nth(3).unwrap_or_default(),
        (None, Base::Segments { .. } | Base::VertexLocation) => "",
    };
    let segments: Vec<_> = rest.split('/').filter(|segment| !segment.is_empty()).map(percent_decode).collect();
    // The client may repeat the version, or all of the base's path.
    let is_base = |segment: &str| is_version(segment) || base.split('/').any(|part| part == segment);
    let repeated = segments.iter().take_while(|segment| is_base(segment)).count();
    let mut paths = (0..=repeated).filter_map(|start| segments.get(start..));
    paths.any(|path| patterns.iter().any(|pattern| pattern.matches(path)))
}

fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

fn fill<'a>(url: &str, skip: Option<&str>, rest: &'a str) -> Result<(String, &'a str), Nowhere> {
    let mut rest = rest;
    if let Some(skip) = skip {
        rest = rest.strip_prefix('/').and_then(|rest| rest.strip_prefix(skip)).unwrap_or(rest);
    }
    let mut text = url.to_owned();
    while text.contains("{}") {
        let (label, behind) = first_segment(rest).ok_or("this path is too short to name the provider's host")?;
        // A deployment may have dots; in a host they would make labels of their own.
        let in_host = text.split("{}").next().unwrap_or_default().matches('/').count() == 2;
        if !is_label(label) || (in_host && label.contains('.')) {
            return Err("this path has a part that cannot be in a host's name");
        }
        text = text.replacen("{}", label, 1);
        rest = behind;
    }
    Ok((text, rest))
}

fn first_segment(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    let (segment, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
    (!segment.is_empty()).then_some((segment, rest))
}

/// What may become a part of a host's name: the client's path must not lead a key elsewhere.
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && { !text.starts_with(['-', '.']) && !text.ends_with(['-', '.']) }
}

fn vertex(rest: &str) -> Result<String, Nowhere> {
    let location = rest.split("/locations/").nth(1).and_then(|rest| rest.split('/').next());
    match location {
        Some("global") => Ok("https://aiplatform.googleapis.com".to_owned()),
        Some(location) if is_label(location) && !location.contains('.') => {
            Ok(format!("https://{location}-aiplatform.googleapis.com"))
        }
        _ => Err("this path has no /locations/{location}/ to tell the host by"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::find;

    fn upstream(slug: &str, base: Option<&str>) -> Upstream {
        let base_url = base.map(|text| Url::parse(text).unwrap());
        Upstream { base_url, ..Upstream::new(slug, find(slug).unwrap()) }
    }

    fn url(target: &Target) -> String {
        format!("{}://{}{}", target.scheme(), target.authority, target.path)
    }

    #[test]
    fn native() {
        for (slug, base, rest, query, expected) in [
            ("openai", None, "/chat/completions", "", "https://api.openai.com/v1/chat/completions"),
            ("openai", None, "/v1/chat/completions", "a=b", "https://api.openai.com/v1/chat/completions?a=b"),
            ("openai", None, "/v1beta/x", "", "https://api.openai.com/v1/v1beta/x"),
            ("groq", None, "/openai/v1/models", "", "https://api.groq.com/openai/v1/models"),
            ("groq", None, "/v1/models", "", "https://api.groq.com/openai/v1/models"),
            ("google-ai-studio", None, "/v1beta/models", "", "https://generativelanguage.googleapis.com/v1beta/models"),
            ("openai", Some("http://h:1/v1"), "/v1/models", "", "http://h:1/v1/models"),
            ("openai", Some("http://h:1"), "/v1/models", "", "http://h:1/v1/models"),
            (
                "azure-openai",
                None,
                "/res/gpt-4.1/chat/completions",
                "api-version=1",
                "https://res.openai.azure.com/openai/deployments/gpt-4.1/chat/completions?api-version=1",
            ),
            (
                "aws-bedrock",
                None,
                "/bedrock-runtime/us-east-1/model/m/invoke",
                "",
                "https://bedrock-runtime.us-east-1.amazonaws.com/model/m/invoke",
            ),
            (
                "google-vertex-ai",
                None,
                "/v1/projects/p/locations/us-central1/publishers/google/models/m:x",
                "",
                "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1/publishers/google/models/m:x",
            ),
        ] {
            let target = Target::native(&upstream(slug, base), rest, query).unwrap();
            assert_eq!(url(&target), expected, "{slug} {rest}");
        }
    }

    #[test]
    fn a_path_cannot_choose_another_host() {
        for (slug, rest) in [
            ("azure-openai", "/evil.com%23/gpt/x"),
            ("azure-openai", "/evil.com:1/gpt/x"),
            ("azure-openai", "/res"),
            ("aws-bedrock", "/bedrock-runtime"),
            ("aws-bedrock", "/bedrock-runtime/us@evil/model"),
            ("aws-bedrock", "/bedrock-runtime/bucket.s3/model"),
            ("azure-openai", "/a.b/gpt/x"),
            ("google-vertex-ai", "/v1/models"),
            ("google-vertex-ai", "/v1/locations/evil.com/x"),
        ] {
            assert!(Target::native(&upstream(slug, None), rest, "").is_err(), "{slug} {rest}");
        }
    }

    #[test]
    fn openai_shaped() {
        let chat = Endpoint::ChatCompletions;
        for (slug, model, expected) in [
            ("google-ai-studio", "m", "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions"),
            ("openai", "m", "https://api.openai.com/v1/chat/completions"),
            ("anthropic", "m", "https://api.anthropic.com/v1/chat/completions"),
            ("mistral", "m", "https://api.mistral.ai/v1/chat/completions"),
            ("cohere", "m", "https://api.cohere.ai/compatibility/v1/chat/completions"),
            ("openrouter", "a/b", "https://openrouter.ai/api/v1/chat/completions"),
            (
                "azure-openai",
                "res/gpt",
                "https://res.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2024-10-21",
            ),
        ] {
            let upstream = upstream(slug, None);
            let (path, query) = Target::openai(&upstream, chat, model).unwrap();
            assert_eq!(url(&Target::native(&upstream, &path, query).unwrap()), expected);
        }
        assert!(Target::openai(&upstream("elevenlabs", None), chat, "m").is_err());
        assert!(Target::openai(&upstream("azure-openai", None), chat, "gpt").is_err());
    }

    #[test]
    fn through_ai_gateway() {
        let gateway =
            AiGateway { url: Url::parse("https://gateway.ai.cloudflare.com").unwrap(), prefixes: vec![], token: None };
        for (slug, rest, expected) in [
            ("openai", "/v1/models", "/v1/a/g/openai/models"),
            ("groq", "/chat/completions", "/v1/a/g/groq/chat/completions"),
            ("google-ai-studio", "/v1/models/m:x", "/v1/a/g/google-ai-studio/v1/models/m:x"),
            ("azure-openai", "/r/d/chat/completions", "/v1/a/g/azure-openai/r/d/chat/completions"),
        ] {
            assert_eq!(Target::native_through(&gateway, "/v1/a/g", &upstream(slug, None), rest, "").path, expected);
        }
        let compat = Target::compat(&gateway, "/v1/a/g", Endpoint::Embeddings);
        assert_eq!(url(&compat), "https://gateway.ai.cloudflare.com/v1/a/g/compat/embeddings");
    }
}
