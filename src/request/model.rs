//! Finding the model that a native request is counted under: in the path, the query, a JSON body or a form.

use crate::http::headers::Headers;
use crate::http::multipart;
use crate::http::url::{percent_decode, query_values};
use crate::json::{self, Unreadable};
use crate::provider::{ModelPlace, Provider};

/// The longest model name in bytes that is accepted; names become keys of the pool's state, which
/// a client must not be able to grow.
pub const MAX_MODEL_BYTES: usize = 200;

/// The model of a request whose path names none.
///
/// This is the model under which the pool counts the request. An AUTH_KEY that is restricted to some models is judged
/// more strictly: see [`super::restricted`]. A query counts only where nothing else can, because providers
/// take a body's model over it.
///
/// # Errors
/// As [`in_body`].
pub fn behind_path(
    provider: &Provider,
    query: &str,
    headers: &Headers,
    body: &[u8],
) -> Result<Option<String>, Unreadable> {
    // WebSocket upgrades have no body, and what opens a WebRTC call is a session description (SDP). Of
    // everything else some server may make JSON, for parsers take more encodings than ours.
    if body.is_empty() || body.starts_with(b"v=") {
        in_query(provider, query)
    } else {
        in_body(provider, headers, body)
    }
}

/// The first model that the path names.
pub fn in_path(provider: &Provider, rest: &str) -> Option<String> {
    provider.model.iter().find_map(|place| match *place {
        ModelPlace::PathAfter(name) => segments_after(rest, name, 1),
        ModelPlace::PathSegmentsAfter(name, count) => segments_after(rest, name, count),
        ModelPlace::PathSegment(number) => named(rest.split('/').skip(1).nth(number)?.to_owned()),
        ModelPlace::Query(_) | ModelPlace::Body(_) => None,
    })
}

/// Servers differ in which of two parameters of one name counts, so that there may be one only.
fn in_query(provider: &Provider, query: &str) -> Result<Option<String>, Unreadable> {
    for place in provider.model {
        let ModelPlace::Query(name) = *place else { continue };
        let mut values = query_values(query, name);
        let found = values.next();
        if values.next().is_some() {
            return Err(Unreadable::Duplicate(name));
        }
        if let Some(model) = found.filter(|model| !model.is_empty()) {
            return Ok(named(provider.bare_model(&model).to_owned()));
        }
    }
    Ok(None)
}

/// The model that a body names, if one of the places is in bodies. A body that is neither a JSON
/// object nor a form names none.
///
/// # Errors
/// When the body begins like a JSON object and is none, or names two models.
fn in_body(provider: &Provider, headers: &Headers, body: &[u8]) -> Result<Option<String>, Unreadable> {
    for place in provider.model {
        let ModelPlace::Body(name) = *place else { continue };
        let found = if let Some(boundary) = multipart::boundary(headers) {
            multipart::field(body, &boundary, name)?
        } else if body.trim_ascii_start().starts_with(b"{") {
            let [value] = json::fields(body, [name])?;
            value.and_then(|value| json::string(body, value))
        } else {
            None
        };
        if let Some(model) = found {
            return Ok(named(provider.bare_model(&model).to_owned()));
        }
    }
    Ok(None)
}

/// Whether [`in_body`] could find anything.
pub fn may_be_in_body(provider: &Provider) -> bool {
    provider.model.iter().any(|place| matches!(place, ModelPlace::Body(_)))
}

fn segments_after(path: &str, name: &str, count: usize) -> Option<String> {
    // Decoded, as the provider reads it: `/%6dodels/…` is `/models/…`.
    let encoded = path.contains('%');
    let is_it = |segment: &str| if encoded { percent_decode(segment) == name } else { segment == name };
    let mut segments = path.split('/').skip_while(|segment| !is_it(segment)).skip(1);
    let found: Vec<&str> = segments.by_ref().take(count).collect();
    if found.len() < count {
        return None;
    }
    let joined = found.join("/");
    // `gemini-2.0-flash:generateContent`: the verb is not a part of the name. Bedrock's names have a
    // colon of their own (`…-v2:0`), which no verb can be taken for.
    let model = match joined.rsplit_once(':') {
        Some((model, verb)) if verb.starts_with(|first: char| first.is_ascii_alphabetic()) => model,
        _ => &joined,
    };
    named(percent_decode(model).into_owned())
}

fn named(model: String) -> Option<String> {
    (!model.is_empty()).then_some(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::find;

    #[test]
    fn in_paths_and_queries() {
        let none = Headers::default();
        for (slug, rest, query, model) in [
            ("google-ai-studio", "/v1beta/models/gemini-2.0-flash:generateContent", "", Some("gemini-2.0-flash")),
            ("google-ai-studio", "/v1/models/gemini%2d2.0:x", "", Some("gemini-2.0")),
            ("google-ai-studio", "/v1beta/%6dodels/g:x", "model=other", Some("g")),
            ("google-ai-studio", "/v1beta/models", "", None),
            ("google-ai-studio", "/v1beta/models/", "", None),
            ("google-ai-studio", "/v1beta/tunedModels/t:generateContent", "", Some("t")),
            ("openai", "/realtime", "model=gpt-realtime", Some("gpt-realtime")),
            ("google-ai-studio", "/v1beta/live", "model=models/g", Some("g")),
            ("openai", "/models", "", None),
            ("azure-openai", "/res/gpt-4o/chat/completions", "", Some("gpt-4o")),
            ("replicate", "/models/meta/llama/predictions", "", Some("meta/llama")),
            (
                "aws-bedrock",
                "/bedrock-runtime/us-east-1/model/anthropic.claude-v2:0/invoke",
                "",
                Some("anthropic.claude-v2:0"),
            ),
        ] {
            let provider = find(slug).unwrap();
            let found = in_path(provider, rest).or_else(|| behind_path(provider, query, &none, b"").unwrap());
            assert_eq!(found.as_deref(), model, "{slug}{rest}");
        }
    }

    #[test]
    fn a_query_hides_no_other_model() {
        let (openai, json) = (find("openai").unwrap(), Headers::from_iter([("content-type", "application/json")]));
        let found = |query, body: &[u8]| behind_path(openai, query, &json, body);
        for (body, model) in [
            (&b""[..], Some("q")),
            (b"v=0\r\no=- 1 1 IN IP4 0.0.0.0", Some("q")),
            (br#"{"model":"b"}"#, Some("b")),
            (b"{}", None),
            (b"\xef\xbb\xbf{\"model\":\"b\"}", None),
            (b"\xff\xfe{\0", None),
        ] {
            assert_eq!(found("model=q", body).unwrap().as_deref(), model, "{body:?}");
        }
        assert_eq!(found("model=q&mod%65l=b", b""), Err(Unreadable::Duplicate("model")));
    }

    #[test]
    fn in_bodies() {
        let openai = find("openai").unwrap();
        let json = Headers::from_iter([("content-type", "application/json")]);
        for (body, model) in
            [(r#"{"model":"m"}"#, Some("m")), ("RIFF....", None), ("", None), (r#"{"model":""}"#, None)]
        {
            assert_eq!(in_body(openai, &json, body.as_bytes()).unwrap().as_deref(), model, "{body}");
        }
        assert!(in_body(openai, &json, b"{").is_err());
        for (slug, model) in [("google-ai-studio", "g"), ("openai", "models/g")] {
            let found = in_body(find(slug).unwrap(), &json, br#"{"model":"models/g"}"#);
            assert_eq!(found.unwrap().as_deref(), Some(model), "{slug}");
        }
    }
}
