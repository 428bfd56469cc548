//! Requests to a provider's own API: every byte of the body is passed on as it is.

use std::rc::Rc;

use super::edits;
use super::forward::{Client, Destination, Forward, Gateway};
use super::model;
use super::restricted::{self, check_native};
use super::target::Target;
use crate::auth::Definition;
use crate::config::{Config, Upstream};
use crate::http::headers::Headers;
use crate::http::url;
use crate::provider::{Auth, Provider};
use crate::reply::{Code, Reply, refusals};

/// A request to a provider's own API.
#[derive(Debug)]
pub(super) struct Native {
    upstream: Rc<Upstream>,
    /// The path after the slug.
    rest: String,
    /// The query without credentials.
    query: String,
    /// The model that the path names.
    model: Option<String>,
}

/// A request's body. There are no bytes if nothing has to be read of them.
#[derive(Clone, Copy)]
pub(super) struct Body<'a> {
    pub bytes: &'a [u8],
    pub size: usize,
}

impl Native {
    pub fn new(upstream: &Rc<Upstream>, rest: &str, query: &str) -> Self {
        Native {
            upstream: upstream.clone(),
            rest: rest.to_owned(),
            query: edits::query(upstream.provider, query),
            model: model::in_path(upstream.provider, rest),
        }
    }

    pub fn model_is_in_body(&self) -> bool {
        self.model.is_none() && model::may_be_in_body(self.upstream.provider)
    }

    pub fn forward(
        &self,
        client: &Client,
        config: &Config,
        definition: &Definition,
        body: Body,
        random: u64,
    ) -> Result<Forward, Reply> {
        let Native { upstream, rest, query, model } = self;
        let slug = &upstream.slug;
        let headers = &client.headers;
        let Body { bytes: body, size } = body;
        check_native(definition, &restricted::Request { upstream, rest, query, headers, body, size })?;
        let model = match model {
            Some(model) => Some(model.clone()),
            None => model::behind_path(upstream.provider, query, headers, body).map_err(refusals::unreadable)?,
        };
        let nowhere = |problem| Reply::new(Code::InvalidPath, format!("{slug}: {problem}."));
        let gateway = Gateway::of(config, upstream, random);
        let target = match gateway {
            Some(Gateway { config, prefix }) => Target::native_through(config, prefix, upstream, rest, query),
            None => Target::native(upstream, rest, query).map_err(nowhere)?,
        };
        let auth = auth(upstream.provider, rest, query, headers);
        client.forward(Destination { upstream, model, target, gateway, auth }, None)
    }
}

/// How the key is sent to the API that is called: a provider may have several.
fn auth(provider: &Provider, rest: &str, query: &str, headers: &Headers) -> Auth {
    if let Some(openai) = provider.openai.filter(|openai| url::percent_decode(rest).starts_with(openai.scope)) {
        return openai.auth;
    }
    let older = provider.older.filter(|older| {
        let named = url::query_value(query, older.query);
        let version = named.as_deref().or_else(|| headers.text(older.header));
        version.is_some_and(|version| older.includes(version))
    });
    older.map_or(provider.auth, |older| older.auth)
}
