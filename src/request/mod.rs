//! The way in: who sends a request, for what, and what is sent to the provider in its place.
//!
//! ```text
//! headers ─▶ begin ─▶ path ─▶ credential ─▶ route ─▶ limits ─┬─▶ a reply of ours
//!                                                            ├─▶ the console
//!                                                            └─▶ PendingRequest
//! body ─▶ PendingRequest::finish ─▶ model ─▶ rights ─▶ target ─▶ Forward
//! ```
//!
//! The order matters: nothing that only a valid AUTH_KEY may learn is said before the credential has been
//! checked, and no key is leased before the whole request is known to be acceptable.

pub mod conversation;
pub mod edits;
pub mod forward;
pub mod model;
mod named;
mod native;
pub mod openai;
mod restricted;
mod rights;
pub mod route;
pub mod target;

use std::rc::Rc;

use crate::auth::Definition;
use crate::config::{Config, Console, Selection};
use crate::console;
use crate::host::Host;
use crate::http::headers::Headers;
use crate::http::url;
use crate::provider::Api;
use crate::reply::{Code, Rendered, Reply, check_method, refusals};
use forward::{Client, Forward};
use native::{Body, Native};
use rights::{check_credential, check_provider};
use route::{Endpoint, Route};

/// An estimate of the bytes of a request that make one token, for quotas of tokens per minute. What the
/// answer then says replaces it.
const BYTES_PER_TOKEN: u64 = 4;
/// The methods that are passed on, the usual one first. TRACE is not among them: its answer is the request,
/// with the pooled key in it.
const PASSED_ON: &str = "POST, GET, HEAD, PUT, PATCH, DELETE";

/// What the headers of a request lead to.
#[derive(Debug)]
pub enum Step {
    /// An error of ours, in this dialect.
    Reply(Reply, Api),
    /// An answer of ours that is not an error.
    Answer(Rendered),
    /// A request to the console, from the AUTH_KEY definition of this index. Answering it needs the pool.
    Console(console::ConsoleRequest, usize),
    /// A request for a provider, whose body may follow.
    Proceed(Box<PendingRequest>),
}

/// A request whose headers have been read, with the configuration they were read by: a newer one may come
/// into force before the body is complete.
#[derive(Debug)]
pub struct PendingRequest {
    /// The configuration.
    pub config: Rc<Config>,
    client: Client,
    kind: Kind,
    /// Whether a body follows that has to be waited for.
    pub awaits_body: bool,
}

#[derive(Debug)]
enum Kind {
    OpenAi(Endpoint),
    Native(Native),
}

/// A request whose credential has been checked.
struct Admitted<'a> {
    method: &'a str,
    query: &'a str,
    definition: &'a Definition,
}

/// Reads the headers of a request. `complete`: nothing follows them.
pub fn begin(config: &Rc<Config>, host: &dyn Host, headers: Headers, complete: bool) -> Step {
    let full = headers.text(":path").unwrap_or_default().to_owned();
    let (path, query) = full.split_once('?').unwrap_or((&full, ""));
    let api = route::api_of(path);
    match read(config, host, &headers, path, query) {
        Ok(Read::Answer(answer)) => Step::Answer(answer),
        Ok(Read::Console(asked, definition)) => Step::Console(asked, definition),
        Ok(Read::Request(kind, definition)) => {
            let awaits_body = match check_body(config, &headers, &kind, complete) {
                Ok(awaits_body) => awaits_body,
                Err(reply) => return Step::Reply(reply, api),
            };
            let client = Client { headers, api, definition };
            Step::Proceed(Box::new(PendingRequest { config: config.clone(), client, kind, awaits_body }))
        }
        Err(reply) => Step::Reply(reply, api),
    }
}

enum Read {
    Answer(Rendered),
    Console(console::ConsoleRequest, usize),
    Request(Kind, usize),
}

fn read(config: &Config, host: &dyn Host, headers: &Headers, path: &str, query: &str) -> Result<Read, Reply> {
    if url::is_ambiguous(path) {
        let message = "The path has dot segments, an encoded slash, a backslash or raw bytes; write it plainly.";
        return Err(Reply::new(Code::InvalidPath, message));
    }
    let route = route::find(path);
    if route == Some(Route::Health) {
        return Ok(Read::Answer(Rendered::new(200, "text/plain", "ok\n")));
    }
    let method = headers.text(":method").unwrap_or_default();
    if method == "OPTIONS" {
        let allow = ("allow", format!("{PASSED_ON}, OPTIONS"));
        return Ok(Read::Answer(Rendered { status: 204, headers: vec![allow], body: Vec::new() }));
    }
    let clock = || host.now();
    if let Some(Route::Console(place)) = route
        && config.console != Console::Off
    {
        if let Some(answer) = place.open(method) {
            return answer.map(Read::Answer);
        }
        // The console takes no AUTH_KEY in the query.
        let (index, definition) = check_credential(config, headers, "", clock)?;
        let asked = place.enter(config, definition, method, headers, query)?;
        return Ok(Read::Console(asked, index));
    }
    let (index, definition) = check_credential(config, headers, query, clock)?;
    let admitted = Admitted { method, query, definition };
    match route {
        Some(Route::Models) => {
            check_method(method, "GET, HEAD")?;
            Ok(Read::Answer(openai::models(config, definition)))
        }
        Some(route) => Ok(Read::Request(admitted.kind(config, route)?, index)),
        None => Err(refusals::unknown_path()),
    }
}

impl Admitted<'_> {
    fn kind(&self, config: &Config, route: Route) -> Result<Kind, Reply> {
        match route {
            Route::OpenAi(endpoint) => {
                check_method(self.method, "POST")?;
                Ok(Kind::OpenAi(endpoint))
            }
            Route::Native(name, rest) => {
                check_method(self.method, PASSED_ON)?;
                let upstream = config.upstream(name).ok_or_else(|| refusals::unknown_provider(name))?;
                check_provider(self.definition, &upstream.slug)?;
                if target::leads_to_credentials(upstream, rest) {
                    return Err(refusals::credential_endpoint(&upstream.slug));
                }
                Ok(Kind::Native(Native::new(upstream, rest, self.query)))
            }
            Route::Health | Route::Models | Route::Console(_) => Err(refusals::unknown_path()),
        }
    }
}

/// What the headers say of the body: whether one has to be waited for, and whether it can be read.
fn check_body(config: &Config, headers: &Headers, kind: &Kind, complete: bool) -> Result<bool, Reply> {
    let declared = headers.text("content-length").and_then(|text| text.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > config.max_body_bytes as u64) {
        return Err(refusals::too_large(config.max_body_bytes));
    }
    // An upgrade has no body and no end either: what follows is the other protocol. A server may answer
    // one that has a body as if it had none, and nobody would have read the model in it.
    let upgrades = headers.has("upgrade");
    if upgrades && headers.text(":method") != Some("GET") {
        let message = "An upgrade comes with GET; leave out the header `upgrade`.".to_owned();
        return Err(Reply { message, ..Reply::method_not_allowed("GET") });
    }
    let bodyless = headers.text("content-length").is_none_or(|length| length == "0");
    let awaits_body = !(complete || (upgrades && bodyless));
    if awaits_body && kind.model_is_in_body() && headers.is_encoded() {
        let message =
            "The body is compressed, so that the model in it cannot be read; send it without content-encoding.";
        return Err(Reply::new(Code::UnsupportedEncoding, message));
    }
    Ok(awaits_body)
}

impl Kind {
    fn model_is_in_body(&self) -> bool {
        match self {
            Kind::OpenAi(_) => true,
            Kind::Native(native) => native.model_is_in_body(),
        }
    }
}

impl PendingRequest {
    /// The dialect in which the client expects errors.
    pub fn api(&self) -> Api {
        self.client.api
    }

    /// Whether the body has to be read. If not, it only has to be complete.
    pub fn reads_body(&self) -> bool {
        self.config.policy.selection == Selection::Sticky || self.kind.model_is_in_body()
    }

    /// Decides where the request goes, with its whole body of `size` bytes. `body` may be empty if
    /// [`Self::reads_body`] says so. `random` picks one of several gateways.
    ///
    /// # Errors
    /// Returns the reply to a request that is not sent on.
    pub fn finish(&self, body: &[u8], size: usize, random: u64) -> Result<Forward, Reply> {
        let config = &*self.config;
        if size > config.max_body_bytes {
            return Err(refusals::too_large(config.max_body_bytes));
        }
        let definition = config
            .auth
            .definition(self.client.definition)
            .ok_or_else(|| Reply::new(Code::InvalidAuthKey, "This AUTH_KEY is not known here any more."))?;
        let mut forward = match &self.kind {
            Kind::OpenAi(endpoint) => openai::forward(&self.client, config, definition, *endpoint, body, random),
            Kind::Native(native) => {
                native.forward(&self.client, config, definition, Body { bytes: body, size }, random)
            }
        }?;
        forward.outgoing.tokens = size as u64 / BYTES_PER_TOKEN;
        if config.policy.selection == Selection::Sticky {
            forward.outgoing.conversation = conversation::of(body);
        }
        Ok(forward)
    }
}
