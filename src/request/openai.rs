//! Requests in OpenAI's shape. The model names the provider, and the provider decides how it is called.
//!
//! Native: translated to the provider's own API, here and once. Every attempt sends the same body to
//! the same provider, so translating it again for each attempt would only cost time, and what cannot be
//! translated is refused before a key is leased. Answers are translated upstream, where they are read.
//! Passthrough and AI Gateway: only the model's name is rewritten, and every other byte stays.

use core::ops::Range;
use std::rc::Rc;

use serde_json::json;

use super::edits::Edit;
use super::forward::{Client, Destination, Forward, Gateway, NewBody};
use super::restricted::check_passed;
use super::rights::{check_model, check_provider};
use super::route::Endpoint;
use super::target::Target;
use crate::auth::Definition;
use crate::config::{Config, OpenAiFormat, Upstream};
use crate::json;
use crate::provider::Auth;
use crate::reply::{Code, Rendered, Reply, refusals};
use crate::translate::{self, Options, Translated};

/// What a request becomes. `random` picks one of several gateways.
///
/// # Errors
/// Returns the reply to a request that is not sent on.
pub(super) fn forward(
    client: &Client,
    config: &Config,
    definition: &Definition,
    endpoint: Endpoint,
    body: &[u8],
    random: u64,
) -> Result<Forward, Reply> {
    let mut search = json::Search::new(body, ["model"]);
    let value = search.first().and_then(|value| Some((value.clone(), json::string(body, value)?)));
    let route = OpenAiRoute::of(config, definition, endpoint, value.as_ref().map(|(_, named)| named.as_str()), random);
    // A translation reads the whole body itself, and refuses whatever the search would refuse.
    let translated = match &route {
        Ok(route) if route.format() == OpenAiFormat::Native => match route.translated(client, body) {
            Ok(forward) => return Ok(forward),
            refused => Some(refused),
        },
        _ => None,
    };
    // A fault of the body as a whole is reported before all others.
    search.finish().map_err(refusals::unreadable)?;
    if let Some(refused) = translated {
        return refused;
    }
    let route = route?;
    let (value, named) = value.as_ref().ok_or_else(no_model)?;
    let is_restricted = !definition.allows(&route.upstream.slug, None);
    if is_restricted {
        check_passed(definition, route.upstream, &client.headers, body)?;
    }
    let mut forward = match route.format() {
        OpenAiFormat::AiGateway => route.compat(client, body, value, named),
        _ => route.passed(client, body, value, named),
    }?;
    if is_restricted {
        // The body has been judged as JSON, and so it is what the provider has to take it for.
        forward.edits.push(Edit::Set("content-type", "application/json".into()));
    }
    Ok(forward)
}

/// Where a request goes.
struct OpenAiRoute<'a> {
    upstream: &'a Rc<Upstream>,
    gateway: Option<Gateway<'a>>,
    endpoint: Endpoint,
    model: &'a str,
}

impl<'a> OpenAiRoute<'a> {
    /// The route to the model that the client names.
    fn of(
        config: &'a Config,
        definition: &Definition,
        endpoint: Endpoint,
        named: Option<&'a str>,
        random: u64,
    ) -> Result<Self, Reply> {
        let named = named.ok_or_else(no_model)?;
        let full = config.aliases.get(named).map_or(named, String::as_str);
        // Only the first slash separates the two: `openrouter/google/gemini-2.0-flash:free`.
        let (name, model) = full.split_once('/').filter(|(_, model)| !model.is_empty()).ok_or_else(no_model)?;
        let upstream = config.upstream(name).ok_or_else(|| refusals::unknown_provider(name))?;
        let model = upstream.provider.bare_model(model);
        if model.is_empty() {
            return Err(no_model());
        }
        check_provider(definition, &upstream.slug)?;
        check_model(definition, &upstream.slug, model)?;
        Ok(OpenAiRoute { upstream, gateway: Gateway::of(config, upstream, random), endpoint, model })
    }

    fn format(&self) -> OpenAiFormat {
        self.upstream.openai_format(self.gateway.is_some())
    }

    fn translated(&self, client: &Client, body: &[u8]) -> Result<Forward, Reply> {
        let no_api =
            || Reply::new(Code::NoOpenaiApi, format!("{} has no API that this is translated to.", self.upstream.slug));
        let target = self.upstream.native().ok_or_else(no_api)?;
        let options = Options { drop: self.upstream.dropped(self.model) };
        let translated = match self.endpoint {
            Endpoint::ChatCompletions => translate::request(target, self.model, body, &options),
            Endpoint::Embeddings => translate::embeddings(target, self.model, body, &options),
        };
        let size = body.len();
        let Translated { path, body, answer } =
            translated.map_err(|refusal| Reply::new(Code::UnsupportedField, refusal.message).param(refusal.field))?;
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let target = self.native(path, query)?;
        let body = NewBody { replaced: size, size: body.len(), beginning: body };
        let mut forward = self.forward(client, target, self.upstream.provider.auth, Some(body))?;
        forward.edits.push(Edit::Set("content-type", "application/json".into()));
        forward.outgoing.shape = Some(answer);
        Ok(forward)
    }

    fn passed(&self, client: &Client, body: &[u8], value: &Range<usize>, named: &str) -> Result<Forward, Reply> {
        let path = Target::openai(self.upstream, self.endpoint, self.model);
        let (path, query) =
            path.map_err(|problem| Reply::new(Code::NoOpenaiApi, format!("{}: {problem}.", self.upstream.slug)))?;
        let target = self.native(&path, query)?;
        let provider = self.upstream.provider;
        let auth = provider.openai.map_or(provider.auth, |openai| openai.auth);
        self.forward(client, target, auth, rewritten(body, value, named, self.model))
    }

    fn compat(&self, client: &Client, body: &[u8], value: &Range<usize>, named: &str) -> Result<Forward, Reply> {
        let Some(gateway) = self.gateway else { return self.passed(client, body, value, named) };
        let target = Target::compat(gateway.config, gateway.prefix, self.endpoint);
        let sent = format!("{}/{}", self.upstream.provider.compat_name(), self.model);
        // The endpoint takes every provider's key there.
        self.forward(client, target, Auth::Bearer, rewritten(body, value, named, &sent))
    }

    fn native(&self, path: &str, query: &str) -> Result<Target, Reply> {
        match self.gateway {
            Some(Gateway { config, prefix }) => Ok(Target::native_through(config, prefix, self.upstream, path, query)),
            None => Target::native(self.upstream, path, query)
                .map_err(|problem| Reply::new(Code::NoOpenaiApi, format!("{}: {problem}.", self.upstream.slug))),
        }
    }

    fn forward(&self, client: &Client, target: Target, auth: Auth, body: Option<NewBody>) -> Result<Forward, Reply> {
        let model = Some(self.model.to_owned());
        client.forward(Destination { upstream: self.upstream, model, target, gateway: self.gateway, auth }, body)
    }
}

/// Replaces the model in the body, and leaves every other byte as it is; `None` if it has that model already.
fn rewritten(body: &[u8], value: &Range<usize>, named: &str, model: &str) -> Option<NewBody> {
    if named == model {
        return None;
    }
    let quoted = serde_json::to_string(model).ok()?;
    let beginning = [body.get(..value.start)?, quoted.as_bytes()].concat();
    let size = body.len() - value.len() + quoted.len();
    Some(NewBody { replaced: value.end, beginning, size })
}

fn no_model() -> Reply {
    let message = "`model` must be provider/model, for example google-ai-studio/gemini-2.0-flash.";
    Reply::new(Code::InvalidModel, message).param("model")
}

/// `GET /v1/models`: the configured models and aliases that this AUTH_KEY may use.
pub fn models(config: &Config, definition: &Definition) -> Rendered {
    let listed = config.models.iter().map(|full| (full, full)).chain(&config.aliases);
    let data: Vec<_> = listed
        .filter_map(|(id, full)| {
            let (name, model) = full.split_once('/')?;
            let upstream = config.upstream(name)?;
            let model = upstream.provider.bare_model(model);
            definition
                .allows(&upstream.slug, Some(model))
                .then(|| json!({"id": id, "object": "model", "created": 0, "owned_by": upstream.slug}))
        })
        .collect();
    Rendered::new(200, "application/json", json!({"object": "list", "data": data}).to_string())
}
