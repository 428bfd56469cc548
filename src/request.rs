//! A request as the downstream filter sees it: who asks, for what, and what goes up in its place.
//!
//! The order of decisions: path, credential, provider, body, model, rights. Nothing that only a
//! valid AUTH_KEY may learn is told before the credential has been checked.

use std::rc::Rc;

use crate::auth::{Definition, Denied};
use crate::compat;
use crate::config::{AiGateway, Config, Console, Upstream};
use crate::console;
use crate::conversation;
use crate::headers::Headers;
use crate::json::Unreadable;
use crate::model::{self, MAX_MODEL_BYTES};
use crate::pool::select::Selection;
use crate::provider::{Api, Auth, CREDENTIAL_PARAMETERS, Provider};
use crate::reply::{Rendered, Reply, check_method};
use crate::rewrite::{self, Edit};
use crate::route::{self, Endpoint, Route};
use crate::target::Target;
use crate::ticket::Ticket;
use crate::time::Time;
use crate::url;

/// About how many bytes of a request are one token, for the quotas of tokens per minute. What an
/// answer then says takes its place.
const BYTES_PER_TOKEN: u64 = 4;
/// The methods that go up, the usual one first. Not TRACE, whose answer is the request, with the pooled key in it.
const PASSED_ON: &str = "POST, GET, HEAD, PUT, PATCH, DELETE";

/// What the headers of a request lead to.
#[derive(Debug)]
pub enum Step {
    /// An error of ours, in the dialect given.
    Reply(Reply, Api),
    /// An answer of ours.
    Answer(Rendered),
    /// For the console, which needs the pool to answer; from the AUTH_KEY of this number.
    Console(console::Asked, usize),
    /// The request is known; its body comes next, or there is none.
    Proceed(Box<Intake>),
}

/// A request whose headers have been read.
#[derive(Debug)]
pub struct Intake {
    asked: Asked,
    headers: Headers,
    definition: usize,
    /// Errors are told in this dialect.
    pub api: Api,
    /// Whether a body will follow that has to be waited for.
    pub awaits_body: bool,
}

#[derive(Debug)]
enum Asked {
    Compat(Endpoint),
    Native(Native),
}

/// A request to a provider's own API.
#[derive(Debug)]
struct Native {
    upstream: Rc<Upstream>,
    /// The path behind the slug.
    rest: String,
    query: String,
    /// The model that the path names.
    model: Option<String>,
}

/// A request that is ready to go up, but for its key.
#[derive(Debug)]
pub struct Forward {
    /// What becomes of its headers.
    pub edits: Vec<Edit>,
    /// What becomes of its body, if it changes.
    pub body: Option<NewBody>,
    /// What the attempts need to know.
    pub ticket: Ticket,
}

/// A change of a body: other bytes in the place of its first ones. Only that much has to be moved,
/// for a model mostly stands near the beginning.
#[derive(Debug, PartialEq, Eq)]
pub struct NewBody {
    /// How many bytes go.
    pub replaced: usize,
    /// What comes in their place.
    pub beginning: Vec<u8>,
    /// The size of the whole body then.
    pub size: usize,
}

/// Reads the headers of a request. `complete`: nothing follows them. The `clock` is asked if the
/// AUTH_KEY expires.
#[must_use]
pub fn begin(config: &Config, headers: Headers, complete: bool, clock: impl Fn() -> Time) -> Step {
    let full = headers.text(":path").unwrap_or_default().to_owned();
    let (path, query) = full.split_once('?').unwrap_or((&full, ""));
    let api = route::api_of(path);
    match read(config, headers, (path, query), complete, clock) {
        Ok(Entered::Request(intake)) => Step::Proceed(Box::new(Intake { api, ..intake })),
        Ok(Entered::Answer(answer)) => Step::Answer(answer),
        Ok(Entered::Console(asked, number)) => Step::Console(asked, number),
        Err(reply) => Step::Reply(reply, api),
    }
}

enum Entered {
    Answer(Rendered),
    Console(console::Asked, usize),
    Request(Intake),
}

fn read(
    config: &Config,
    headers: Headers,
    (path, query): (&str, &str),
    complete: bool,
    clock: impl Fn() -> Time,
) -> Result<Entered, Reply> {
    if url::is_ambiguous(path) {
        let message = "The path has dot segments, an encoded slash, a backslash or raw bytes; write it plainly.";
        return Err(Reply::new(400, "invalid_path", message));
    }
    let route = route::find(path);
    if route == Some(Route::Health) {
        return Ok(Entered::Answer(Rendered::new(200, "text/plain", "ok\n")));
    }
    let method = headers.text(":method").unwrap_or_default();
    if method == "OPTIONS" {
        let allow = ("allow", format!("{PASSED_ON}, OPTIONS"));
        return Ok(Entered::Answer(Rendered { status: 204, headers: vec![allow], body: Vec::new() }));
    }
    if let Some(Route::Console(place)) = route
        && config.console != Console::Off
    {
        if let Some(answer) = place.open(method) {
            return answer.map(Entered::Answer);
        }
        let (number, definition) = check_credential(config, &headers, "", clock)?;
        let asked = place.enter(config, definition, method, &headers, query)?;
        return Ok(Entered::Console(asked, number));
    }
    let (definition_number, definition) = check_credential(config, &headers, query, clock)?;
    let Some(route) = route else { return Err(unknown_path()) };
    let asked = match route {
        Route::Compat(endpoint) => {
            check_method(method, "POST")?;
            Asked::Compat(endpoint)
        }
        Route::Models => {
            check_method(method, "GET, HEAD")?;
            return Ok(Entered::Answer(compat::models(config, definition)));
        }
        Route::Native(name, rest) => {
            check_method(method, PASSED_ON)?;
            let upstream = config.upstream(name).ok_or_else(|| unknown_provider(name))?;
            check_provider(definition, &upstream.slug)?;
            let query = url::without_parameters(query, CREDENTIAL_PARAMETERS);
            let model = model::in_path(upstream.provider, rest);
            Asked::Native(Native { upstream: upstream.clone(), rest: rest.to_owned(), query, model })
        }
        Route::Health | Route::Console(_) => return Err(unknown_path()),
    };
    let declared = headers.text("content-length").and_then(|text| text.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > config.max_body_bytes as u64) {
        return Err(too_large(config));
    }
    // An upgrade has no body and no end either: what follows is the other protocol. A server may answer one
    // that has a body as if it were none, and nobody would have read the model in it.
    let upgrades = headers.has("upgrade");
    if upgrades && method != "GET" {
        let message = "An upgrade comes with GET; leave out the header `upgrade`.".to_owned();
        return Err(Reply { message, ..Reply::method_not_allowed("GET") });
    }
    let bodyless = headers.text("content-length").is_none_or(|length| length == "0");
    let awaits_body = !(complete || (upgrades && bodyless));
    let intake = Intake { asked, headers, definition: definition_number, api: Api::OpenAi, awaits_body };
    if awaits_body && intake.model_is_in_body() && intake.headers.is_encoded() {
        let message =
            "The body is compressed, so that the model in it cannot be read; send it without content-encoding.";
        return Err(Reply::new(415, "unsupported_encoding", message));
    }
    Ok(Entered::Request(intake))
}

fn check_credential<'a>(
    config: &'a Config,
    headers: &Headers,
    query: &str,
    clock: impl Fn() -> Time,
) -> Result<(usize, &'a Definition), Reply> {
    let in_query = url::query_value(query, "key");
    let candidates = rewrite::credentials(headers).chain(in_query.as_deref().map(str::as_bytes));
    config.auth.check(candidates, clock).map_err(|denied| match denied {
        Denied::Missing => Reply::new(
            401,
            "missing_auth_key",
            "No AUTH_KEY was sent. Send it as `Authorization: Bearer …`, x-api-key, x-goog-api-key, api-key, xi-api-key or ?key=.",
        ),
        Denied::Wrong => Reply::new(401, "invalid_auth_key", "This AUTH_KEY is not known here."),
        Denied::Expired => Reply::new(401, "expired_auth_key", "This AUTH_KEY has expired; ask for a new one."),
    })
}

impl Intake {
    /// Whether the body has to be looked at; if not, it needs only be complete.
    #[must_use]
    pub fn reads_body(&self, config: &Config) -> bool {
        config.policy.selection == Selection::Sticky || self.model_is_in_body()
    }

    fn model_is_in_body(&self) -> bool {
        match &self.asked {
            Asked::Compat(_) => true,
            Asked::Native(native) => native.model.is_none() && model::may_be_in_body(native.upstream.provider),
        }
    }

    /// Decides, with the whole body at hand, of `size` bytes; it may be empty if it need not be read.
    /// `random` picks one of several gateways.
    ///
    /// # Errors
    /// The answer to a request that does not go up.
    pub fn finish(&self, config: &Config, body: &[u8], size: usize, random: u64) -> Result<Forward, Reply> {
        if size > config.max_body_bytes {
            return Err(too_large(config));
        }
        let definition = config
            .auth
            .definition(self.definition)
            .ok_or_else(|| Reply::new(401, "invalid_auth_key", "This AUTH_KEY is not known here any more."))?;
        let mut forward = match &self.asked {
            Asked::Compat(endpoint) => compat::forward(self, config, definition, *endpoint, body, random),
            Asked::Native(native) => self.native(config, definition, native, body, random),
        }?;
        forward.ticket.tokens = size as u64 / BYTES_PER_TOKEN;
        if config.policy.selection == Selection::Sticky {
            forward.ticket.conversation = conversation::of(body);
        }
        Ok(forward)
    }

    fn native(
        &self,
        config: &Config,
        definition: &Definition,
        Native { upstream, rest, query, model }: &Native,
        body: &[u8],
        random: u64,
    ) -> Result<Forward, Reply> {
        let slug = &upstream.slug;
        let model = match model {
            Some(model) => Some(model.clone()),
            None => model::behind_path(upstream.provider, query, &self.headers, body).map_err(unreadable)?,
        };
        // What comes over a WebSocket names its model there, where nobody looks.
        let reads = matches!(self.headers.text(":method"), Some("GET" | "HEAD")) && !self.headers.has("upgrade");
        if model.is_some() || !reads {
            check_model(definition, slug, model.as_deref())?;
        }
        let nowhere = |problem| Reply::new(400, "invalid_path", format!("{slug}: {problem}."));
        let gateway = gateway(config, upstream);
        let target = match gateway {
            Some(gateway) => Target::native_through(gateway, pick(gateway, random), upstream, rest, query),
            None => Target::native(upstream, rest, query).map_err(nowhere)?,
        };
        let auth = self.native_auth(upstream.provider, rest, query);
        self.forward(upstream, model, target, gateway, auth, None)
    }

    /// How the key is sent to the API that a native request asks.
    fn native_auth(&self, provider: &Provider, rest: &str, query: &str) -> Auth {
        if let Some(openai) = provider.openai.filter(|openai| url::percent_decode(rest).starts_with(openai.scope)) {
            return openai.auth;
        }
        let older = provider.older.filter(|older| {
            let asked = url::query_value(query, older.query);
            let version = asked.as_deref().or_else(|| self.headers.text(older.header));
            version.is_some_and(|version| older.includes(version))
        });
        older.map_or(provider.auth, |older| older.auth)
    }

    /// A request on its way, once it is known where it goes.
    pub(crate) fn forward(
        &self,
        upstream: &Rc<Upstream>,
        model: Option<String>,
        target: Target,
        gateway: Option<&AiGateway>,
        auth: Auth,
        body: Option<NewBody>,
    ) -> Result<Forward, Reply> {
        let model = model.unwrap_or_default();
        if model.len() > MAX_MODEL_BYTES {
            let message = format!("The model's name is longer than {MAX_MODEL_BYTES} bytes.");
            return Err(Reply::new(400, "invalid_model", message));
        }
        let mut edits = rewrite::edits(&self.headers, target, body.as_ref().map(|body| body.size));
        let absent = upstream.provider.headers.iter().filter(|(name, _)| !self.headers.has(name));
        edits.extend(absent.map(|&(name, value)| Edit::Set(name, value.into())));
        if let Some(token) = gateway.and_then(|gateway| gateway.token.as_ref()) {
            edits.push(Edit::Set("cf-aig-authorization", format!("Bearer {}", token.expose()).into()));
        }
        let ticket = Ticket {
            client: self.api,
            auth,
            through_ai_gateway: gateway.is_some(),
            definition: u32::try_from(self.definition).unwrap_or(u32::MAX),
            ..Ticket::new(upstream.clone(), model)
        };
        Ok(Forward { edits, body, ticket })
    }
}

/// The gateway a provider is asked through: none if it has a place of its own.
pub(crate) fn gateway<'a>(config: &'a Config, upstream: &Upstream) -> Option<&'a AiGateway> {
    config.ai_gateway.as_ref().filter(|_| upstream.base_url.is_none())
}

pub(crate) fn pick(gateway: &AiGateway, random: u64) -> &str {
    let place = random.checked_rem(gateway.prefixes.len() as u64).unwrap_or_default();
    gateway.prefixes.get(place as usize).map_or("", String::as_str)
}

pub(crate) fn check_provider(definition: &Definition, slug: &str) -> Result<(), Reply> {
    if definition.allows_provider(slug) {
        return Ok(());
    }
    Err(Reply::new(403, "provider_not_allowed", format!("This AUTH_KEY may not use the provider {slug}.")))
}

pub(crate) fn check_model(definition: &Definition, slug: &str, model: Option<&str>) -> Result<(), Reply> {
    if definition.allows(slug, model) {
        return Ok(());
    }
    let message = match model {
        Some(_) => format!("This AUTH_KEY may not use this model of {slug}."),
        None => format!("This AUTH_KEY may use some models of {slug} only, and this request names none."),
    };
    Err(Reply::new(403, "model_not_allowed", message))
}

pub(crate) fn unreadable(problem: Unreadable) -> Reply {
    match problem {
        Unreadable::Broken(line, column) => {
            let message =
                format!("The body is not one JSON object: the first fault is in line {line}, column {column}.");
            Reply::new(400, "invalid_json", message)
        }
        Unreadable::Duplicate(name) => {
            Reply::new(400, "duplicate_field", format!("The request names `{name}` more than once."))
        }
    }
}

/// The answer to a body over the limit.
#[must_use]
pub fn too_large(config: &Config) -> Reply {
    let message = format!("The body is larger than the {} bytes that are accepted here.", config.max_body_bytes);
    Reply::new(413, "body_too_large", message)
}

/// The answer at a path where nothing is.
#[must_use]
pub fn unknown_path() -> Reply {
    let message = "Nothing is here. Use /v1/chat/completions, /v1/embeddings, /api/compat/… or /api/{provider}/….";
    Reply::new(404, "unknown_path", message)
}

pub(crate) fn unknown_provider(name: &str) -> Reply {
    let shown: String = name.chars().filter(|char| char.is_ascii_graphic()).take(40).collect();
    let message = format!("`{shown}` is no provider that is known here; see PROVIDER_BASE_URLS to add one.");
    Reply::new(404, "unknown_provider", message)
}
