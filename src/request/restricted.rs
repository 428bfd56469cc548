//! Which models a request uses, for an AUTH_KEY that may use some of a provider's models only.
//!
//! The model that is judged has to be the model that the provider will use. So a request is taken only at an
//! endpoint that can be judged ([`crate::provider::endpoints`]), and only if each of its parts can be read in one
//! way:
//!
//! ```text
//! method ─▶ endpoint ─┬─▶ path ───────────────────────────┐
//!                     ├─▶ query (upgrades)                ├─▶ every model that is named ─▶ rights
//!                     ├─▶ form, read strictly             │
//!                     └─▶ JSON ─▶ model, fallbacks, tools ┘
//! ```
//!
//! Nothing of this is done for an AUTH_KEY that may use all models of the provider.

use core::ops::Range;

use serde::Deserialize;

use super::named;
use super::rights::check_model;
use super::target::below_base;
use crate::auth::Definition;
use crate::config::Upstream;
use crate::http::headers::Headers;
use crate::http::media_type::MediaType;
use crate::http::strict_form;
use crate::http::url;
use crate::json;
use crate::provider::endpoints::{Call, Place};
use crate::provider::{ModelPlace, Provider};
use crate::reply::{Code, Reply, refusals};

/// Headers by which some servers take another method than the request's.
const METHOD_HEADERS: &[&str] = &["x-http-method-override", "x-http-method", "x-method-override"];
/// Query parameters that do the same.
const METHOD_PARAMETERS: &[&str] = &["$httpmethod", "httpmethod", "_method"];
/// The most bytes of a list of fallbacks.
const MAX_FALLBACKS_BYTES: usize = 16 * 1024;

/// What is judged of a native request.
pub(super) struct Request<'a> {
    pub upstream: &'a Upstream,
    /// The path behind the slug.
    pub rest: &'a str,
    /// The query without credentials.
    pub query: &'a str,
    pub headers: &'a Headers,
    /// The body, or nothing of it if the path names the model.
    pub body: &'a [u8],
    /// The size of the whole body.
    pub size: usize,
}

/// Checks that a client may send a native request.
///
/// # Errors
/// The reply to one that may not, or whose request cannot be judged.
pub(super) fn check_native(definition: &Definition, request: &Request) -> Result<(), Reply> {
    let slug = &request.upstream.slug;
    if definition.allows(slug, None) {
        return Ok(());
    }
    request.models()?.iter().try_for_each(|model| check_model(definition, slug, model))
}

/// Checks an OpenAI-shaped request that is passed on: the model has been judged, and whatever else of its body
/// names one is judged here.
///
/// # Errors
/// As [`check_native`].
pub(super) fn check_passed(
    definition: &Definition,
    upstream: &Upstream,
    headers: &Headers,
    body: &[u8],
) -> Result<(), Reply> {
    let slug = &upstream.slug;
    refuse_another_method(slug, headers, "")?;
    let (_, others) = in_json(upstream, "model", body)?;
    others.iter().try_for_each(|model| check_model(definition, slug, model))
}

impl Request<'_> {
    /// Every model that the request may make the provider use.
    fn models(&self) -> Result<Vec<String>, Reply> {
        let slug = &self.upstream.slug;
        let provider = self.upstream.provider;
        refuse_another_method(slug, self.headers, self.query)?;
        let path = below_base(self.upstream, self.rest);
        let Some((call, place)) = self.call().and_then(|call| Some((call, provider.endpoints.find(call, path)?)))
        else {
            return Err(unseen(slug, "which models it uses, or whose data it reads, cannot be seen at this path"));
        };
        if call != Call::Post && self.size > 0 {
            return Err(unseen(slug, "a request of its method has no body"));
        }
        let (model, mut models) = match place {
            Place::Nowhere => return Ok(Vec::new()),
            Place::Path(model) => {
                self.refuse_urlencoded()?;
                (Some(model), Vec::new())
            }
            Place::Query(parameters) => (self.in_query(parameters)?, Vec::new()),
            Place::Json | Place::Form => match MediaType::of(self.headers) {
                Some(MediaType::Json) => in_json(self.upstream, body_name(provider), self.body)?,
                Some(MediaType::Form(boundary)) if place == Place::Form => (self.in_form(&boundary)?, Vec::new()),
                _ => {
                    let why = "its content-type has to be application/json (UTF-8), or one plain multipart/form-data where the provider takes forms";
                    return Err(unseen(slug, why));
                }
            },
        };
        let model = model.filter(|model| !model.is_empty()).ok_or_else(|| unseen(slug, "it names no model"))?;
        self.refuse_another_model_in_query(&model)?;
        models.push(model);
        Ok(models)
    }

    fn call(&self) -> Option<Call> {
        match (self.headers.text(":method")?, self.headers.get("upgrade")) {
            ("GET" | "HEAD", None) => Some(Call::Read),
            ("POST", None) => Some(Call::Post),
            ("GET", Some(protocol)) if protocol.eq_ignore_ascii_case(b"websocket") => Some(Call::Upgrade),
            _ => None,
        }
    }

    /// The model of an upgrade, which has one of these parameters at most once each, and no other.
    fn in_query(&self, parameters: &[&str]) -> Result<Option<String>, Reply> {
        let slug = &self.upstream.slug;
        let mut met: Vec<String> = Vec::new();
        for name in self.parameter_names() {
            if !parameters.contains(&name.as_str()) || met.contains(&name) {
                return Err(unseen(slug, "its query has a parameter twice, or one that may name another session"));
            }
            met.push(name);
        }
        let places = self.upstream.provider.model.iter();
        let mut values = places.filter_map(|place| match *place {
            ModelPlace::Query(name) => url::query_value(self.query, name),
            _ => None,
        });
        Ok(values.next().map(|model| self.upstream.provider.bare_model(&model).to_owned()))
    }

    fn in_form(&self, boundary: &str) -> Result<Option<String>, Reply> {
        let slug = &self.upstream.slug;
        let ambiguous = |why: &str| unseen(slug, &format!("servers differ in how they read its form: {why}"));
        let wanted = body_name(self.upstream.provider);
        let mut found = None;
        for part in strict_form::parts(self.body, boundary).map_err(ambiguous)? {
            if part.name == wanted {
                if found.is_some() {
                    return Err(refusals::unreadable(json::Unreadable::Duplicate(wanted)));
                }
                found = Some(part.text.ok_or_else(|| ambiguous("its model is no plain text"))?);
            } else if OTHERS.iter().chain([&wanted]).any(|name| is_taken_for(part.name, name)) {
                return Err(ambiguous("a field has a name that some take for the model's"));
            }
        }
        Ok(found.map(|model| self.upstream.provider.bare_model(model).to_owned()))
    }

    /// A server that binds such a body to its parameters may take one for the path's.
    fn refuse_urlencoded(&self) -> Result<(), Reply> {
        let is_form = |value: &[u8]| value.to_ascii_lowercase().windows(10).any(|word| word == b"urlencoded");
        if self.headers.all("content-type").any(is_form) {
            return Err(unseen(&self.upstream.slug, "its content-type has to be application/json"));
        }
        Ok(())
    }

    /// Some servers look into the query, too.
    fn refuse_another_model_in_query(&self, model: &str) -> Result<(), Reply> {
        if self.query.is_empty() {
            return Ok(());
        }
        let name = body_name(self.upstream.provider);
        for other in self.parameter_names().filter(|other| is_taken_for(other, name)) {
            let mut values = url::query_values(self.query, &other);
            if !values.all(|value| self.upstream.provider.bare_model(&value) == model) {
                return Err(unseen(&self.upstream.slug, "its query names another model than the request itself"));
            }
        }
        Ok(())
    }

    fn parameter_names(&self) -> impl Iterator<Item = String> {
        let parts = self.query.split('&').filter(|part| !part.is_empty());
        parts.map(|part| url::percent_decode(part.split('=').next().unwrap_or_default()).into_owned())
    }
}

/// Fields of a JSON body that may name models beside `model`: OpenRouter's and its like. Whoever gives a `preset`
/// leaves the choice to what is stored at the provider.
const OTHERS: &[&str] = &["models", "fallbacks", "preset", "route"];

/// The model of a JSON body, and the other models that it names.
fn in_json(upstream: &Upstream, name: &'static str, body: &[u8]) -> Result<(Option<String>, Vec<String>), Reply> {
    let slug = &upstream.slug;
    let names = [name, "models", "fallbacks", "preset", "route", "tools", "plugins"];
    let found = json::fields_in_exact_case(body, names).map_err(refusals::unreadable)?;
    let text = |range: Option<Range<usize>>| range.and_then(|range| body.get(range)).filter(|text| *text != b"null");
    let [model, models, fallbacks, preset, route, tools, plugins] = found;
    let model = model.and_then(|range| json::string(body, range));
    let mut others = Vec::new();
    for list in [text(models), text(fallbacks)].into_iter().flatten() {
        others.extend(fallbacks_of(list).ok_or_else(|| unseen(slug, "its `models` or `fallbacks` cannot be read"))?);
    }
    // Without a list, OpenRouter chooses.
    if text(preset).is_some() || (text(route).is_some() && others.is_empty()) {
        return Err(unseen(slug, "its `preset` or `route` leaves the choice of a model to the provider"));
    }
    for list in [text(tools), text(plugins)].into_iter().flatten() {
        others.extend(named::models(list).ok_or_else(|| unseen(slug, "its `tools` or `plugins` cannot be read"))?);
    }
    let bare = |model: String| upstream.provider.bare_model(&model).to_owned();
    Ok((model.map(bare), others.into_iter().map(bare).collect()))
}

/// The models of a list of fallbacks.
fn fallbacks_of(text: &[u8]) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Fallback {
        Name(String),
        Object(Object),
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Object {
        model: String,
    }
    if text.len() > MAX_FALLBACKS_BYTES {
        return None;
    }
    let fallbacks: Vec<Fallback> = serde_json::from_slice(text).ok()?;
    let names = fallbacks.into_iter().map(|fallback| match fallback {
        Fallback::Name(model) | Fallback::Object(Object { model }) => model,
    });
    Some(names.collect())
}

/// The field of a body in which the provider's model is.
fn body_name(provider: &Provider) -> &'static str {
    let mut names = provider.model.iter().filter_map(|place| match *place {
        ModelPlace::Body(name) => Some(name),
        _ => None,
    });
    names.next().unwrap_or("model")
}

/// Whether some server could take a form's field or a parameter of this name for the one that is wanted: without
/// case, without blanks, or as one entry of a list (`model[]`).
fn is_taken_for(name: &str, wanted: &str) -> bool {
    let kept = name.bytes().filter(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    kept.map(|byte| byte.to_ascii_lowercase()).eq(wanted.bytes())
}

fn refuse_another_method(slug: &str, headers: &Headers, query: &str) -> Result<(), Reply> {
    let in_query = || {
        let names = query.split('&').map(|part| url::percent_decode(part.split('=').next().unwrap_or_default()));
        names.map(|name| name.to_ascii_lowercase()).any(|name| METHOD_PARAMETERS.contains(&name.as_str()))
    };
    if METHOD_HEADERS.iter().any(|name| headers.has(name)) || in_query() {
        return Err(unseen(slug, "it asks for another method than its own"));
    }
    Ok(())
}

/// The reply to a request that cannot be judged.
fn unseen(slug: &str, why: &str) -> Reply {
    let message =
        format!("This AUTH_KEY may use some models of {slug} only, and this request needs one for all of them: {why}.");
    Reply::new(Code::ModelNotAllowed, message)
}
