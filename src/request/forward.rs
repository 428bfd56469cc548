//! A request on its way to a provider, once it is known where it goes: what changes of its headers and
//! body, and what is fixed for all of its attempts.
//!
//! Both ways in, [`super::native`] and [`super::openai`], end here.

use std::rc::Rc;

use super::edits::{self, Edit};
use super::model::MAX_MODEL_BYTES;
use super::target::Target;
use crate::config::{AiGateway, Config, Upstream};
use crate::http::headers::Headers;
use crate::provider::{Api, Auth};
use crate::reply::{Code, Reply};
use crate::translate::AnswerShape;

/// The client of a request, and the headers that it sent.
#[derive(Debug)]
pub struct Client {
    /// Its headers.
    pub headers: Headers,
    /// The dialect in which it expects errors.
    pub api: Api,
    /// The index of the AUTH_KEY definition that let it in.
    pub definition: usize,
}

/// What is fixed for a request once it is known where it goes. All attempts share it.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The provider, as it was configured when the request came.
    pub upstream: Rc<Upstream>,
    /// The model, as the pool counts it. Requests without a model are counted together, under the empty name.
    pub model: String,
    /// The dialect in which the client expects errors.
    pub client_api: Api,
    /// The index of the AUTH_KEY definition that let the client in.
    pub definition: usize,
    /// How the key is sent. It depends on which of the provider's APIs is called.
    pub auth: Auth,
    /// The request is a GET, whose answer tells what the account has, and not what a model says.
    pub is_get: bool,
    /// The request goes through Cloudflare AI Gateway.
    pub through_ai_gateway: bool,
    /// What requests of one conversation share, where `sticky` selection needs it.
    pub conversation: Option<u64>,
    /// An estimate of the tokens that the request will take.
    pub tokens: u64,
    /// How the answer is translated, if it has to be.
    pub shape: Option<AnswerShape>,
}

impl Outgoing {
    /// A plain request for a model.
    pub fn new(upstream: Rc<Upstream>, model: String) -> Self {
        Outgoing {
            auth: upstream.provider.auth,
            upstream,
            model,
            client_api: Api::default(),
            is_get: false,
            definition: 0,
            through_ai_gateway: false,
            conversation: None,
            tokens: 0,
            shape: None,
        }
    }

    /// The provider's slug.
    pub fn slug(&self) -> &str {
        &self.upstream.slug
    }
}

/// A request that is ready to be sent, except for its key.
#[derive(Debug)]
pub struct Forward {
    /// The changes to its headers.
    pub edits: Vec<Edit>,
    /// The change to its body, if there is one.
    pub body: Option<NewBody>,
    /// What the attempts need to know.
    pub outgoing: Outgoing,
}

/// A change to a body: other bytes replace its first ones. Only that much has to be moved, because the
/// model is mostly near the beginning.
#[derive(Debug, PartialEq, Eq)]
pub struct NewBody {
    /// How many bytes are replaced.
    pub replaced: usize,
    /// What replaces them.
    pub beginning: Vec<u8>,
    /// The size of the whole body afterwards.
    pub size: usize,
}

/// Where a request is sent, and as what.
pub(super) struct Destination<'a> {
    pub upstream: &'a Rc<Upstream>,
    pub model: Option<String>,
    pub target: Target,
    pub gateway: Option<Gateway<'a>>,
    pub auth: Auth,
}

/// AI Gateway, and the one of the configured gateways that was picked for this request.
#[derive(Clone, Copy)]
pub(super) struct Gateway<'a> {
    pub config: &'a AiGateway,
    pub prefix: &'a str,
}

impl<'a> Gateway<'a> {
    /// The gateway that a provider is called through: none if the provider has its own base URL. `random`
    /// picks one of several.
    pub fn of(config: &'a Config, upstream: &Upstream, random: u64) -> Option<Self> {
        let config = config.ai_gateway.as_ref().filter(|_| upstream.base_url.is_none())?;
        let index = random.checked_rem(config.prefixes.len() as u64).unwrap_or_default();
        let prefix = config.prefixes.get(index as usize).map_or("", String::as_str);
        Some(Gateway { config, prefix })
    }
}

impl Client {
    /// Sends the request to its destination, with another body if it needs one.
    pub(super) fn forward(&self, to: Destination, body: Option<NewBody>) -> Result<Forward, Reply> {
        let model = to.model.unwrap_or_default();
        if model.len() > MAX_MODEL_BYTES {
            let message = format!("The model's name is longer than {MAX_MODEL_BYTES} bytes.");
            return Err(Reply::new(Code::InvalidModel, message));
        }
        let mut edits =
            edits::edits(to.upstream.provider, &self.headers, to.target, body.as_ref().map(|body| body.size));
        let absent = to.upstream.provider.headers.iter().filter(|(name, _)| !self.headers.has(name));
        edits.extend(absent.map(|&(name, value)| Edit::Set(name, value.into())));
        if let Some(token) = to.gateway.and_then(|gateway| gateway.config.token.as_ref()) {
            edits.push(Edit::Set("cf-aig-authorization", format!("Bearer {}", token.expose()).into()));
        }
        let outgoing = Outgoing {
            client_api: self.api,
            auth: to.auth,
            is_get: self.headers.get(":method") == Some(b"GET"),
            through_ai_gateway: to.gateway.is_some(),
            definition: self.definition,
            ..Outgoing::new(to.upstream.clone(), model)
        };
        Ok(Forward { edits, body, outgoing })
    }
}
