//! Providers as they are configured: their URL, their keys, limits, weights and formats.
//!
//! An [`Upstream`] joins what the table of [`crate::provider`] says about a provider with what this configuration says.
//! Every provider of the table has one, even without keys, because its keys may be in D1. A slug that is not in the
//! table gets one if `provider_base_urls` gives it a URL; it counts as an OpenAI-compatible server.
//!
//! The fields are read in this order because each needs the one before: URLs create upstreams, keys must name an
//! existing upstream, and `providers` refines them.

use std::collections::BTreeMap;

use super::{AI_GATEWAY_SLUG, Reader, decoded, slug_of};
use crate::http::url::Url;
use crate::provider::{self, Provider};
use crate::quota::Quota;
use crate::secret::Secret;
use crate::translate;

/// A configured provider.
#[derive(Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The name in paths, in compat models and in D1.
    pub slug: String,
    /// The entry of the table.
    pub provider: &'static Provider,
    /// A base URL that replaces the one in the table. Requests to such a provider do not go through AI Gateway, which
    /// does not know the URL.
    pub base_url: Option<Url>,
    /// The keys in the configuration, in order and without duplicates.
    pub keys: Vec<Secret>,
    /// The configured limits of each key for all models that are not in `model_quotas`.
    pub quota: Quota,
    /// The configured limits of each key for one model.
    pub model_quotas: BTreeMap<String, Quota>,
    /// The weights of keys by their shown ids; a key that is not listed has weight 1.
    pub weights: BTreeMap<String, u32>,
    /// The configured format for OpenAI-shaped requests; `None` for the default.
    pub openai_format: Option<OpenAiFormat>,
    /// The fields that are removed from OpenAI-shaped requests before translation, by the prefix of the model's name.
    pub drop: BTreeMap<String, Vec<String>>,
}

impl Upstream {
    /// A provider at the URL of the table, without keys.
    pub fn new(slug: &str, provider: &'static Provider) -> Self {
        Upstream {
            slug: slug.to_owned(),
            provider,
            base_url: None,
            keys: Vec::new(),
            quota: Quota::default(),
            model_quotas: BTreeMap::new(),
            weights: BTreeMap::new(),
            openai_format: None,
            drop: BTreeMap::new(),
        }
    }

    /// The API that OpenAI-shaped requests can be translated to.
    pub(crate) fn native(&self) -> Option<translate::Target> {
        match self.provider.slug {
            "google-ai-studio" => Some(translate::Target::Gemini),
            "anthropic" => Some(translate::Target::Anthropic),
            _ => None,
        }
    }

    /// The format for an OpenAI-shaped request that is sent through AI Gateway or directly.
    pub(crate) fn openai_format(&self, through_gateway: bool) -> OpenAiFormat {
        let on_compat = self.provider.openai.is_some_and(|openai| openai.on_compat);
        match self.openai_format {
            Some(OpenAiFormat::AiGateway) if !through_gateway => OpenAiFormat::Passthrough,
            Some(format) => format,
            None if self.native().is_some() => OpenAiFormat::Native,
            None if through_gateway && on_compat => OpenAiFormat::AiGateway,
            None => OpenAiFormat::Passthrough,
        }
    }

    /// The fields that are removed for a model.
    pub(crate) fn dropped(&self, model: &str) -> Vec<String> {
        let lists = self.drop.iter().filter(|(prefix, _)| model.starts_with(prefix.as_str()));
        lists.flat_map(|(_, fields)| fields.iter().cloned()).collect()
    }

    /// The configured limits of a key for a model.
    pub(crate) fn quota(&self, model: &str) -> Quota {
        self.model_quotas.get(model).map_or(self.quota, |quota| quota.or(self.quota))
    }
}

/// The format in which an OpenAI-shaped request is sent to a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenAiFormat {
    /// Translated to the provider's native API.
    Native,
    /// Unchanged, to the provider's OpenAI-compatible API.
    Passthrough,
    /// Unchanged, to AI Gateway's compat endpoint.
    AiGateway,
}

/// All configured providers.
pub(super) struct Upstreams {
    /// The providers by slug.
    pub(super) by_slug: BTreeMap<String, Upstream>,
    /// A URL that replaces AI Gateway's default one.
    pub(super) ai_gateway_url: Option<Url>,
}

/// Reads the base URLs, the keys and the settings of each provider.
pub(super) fn read(reader: &mut Reader) -> Upstreams {
    let known =
        provider::PROVIDERS.iter().map(|provider| (provider.slug.to_owned(), Upstream::new(provider.slug, provider)));
    let mut upstreams = Upstreams { by_slug: known.collect(), ai_gateway_url: None };
    if let Some(text) = reader.text("provider_base_urls") {
        for entry in entries(&text) {
            if let Err(problem) = set_base_url(&mut upstreams, entry) {
                reader.problem("provider_base_urls", problem);
            }
        }
    }
    if let Some(text) = reader.text("provider_keys") {
        match decoded(&text) {
            Ok(text) => {
                for entry in entries(&text) {
                    if let Err(problem) = add_keys(&mut upstreams.by_slug, entry) {
                        reader.problem("provider_keys", problem);
                    }
                }
            }
            Err(problems) => problems.iter().for_each(|problem| reader.problem("provider_keys", problem)),
        }
    }
    read_providers(reader, &mut upstreams.by_slug);
    upstreams
}

/// The entries of a `slug=…;slug=…` list.
fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split([';', '\n']).map(str::trim).filter(|entry| !entry.is_empty())
}

fn set_base_url(upstreams: &mut Upstreams, entry: &str) -> Result<(), String> {
    let (name, text) = entry.split_once('=').ok_or_else(|| format!("`{entry}` is not slug=url"))?;
    let (name, text) = (name.trim(), text.trim());
    let url = Url::parse(text).map_err(|problem| format!("{name}: {problem}"))?;
    if name == AI_GATEWAY_SLUG {
        upstreams.ai_gateway_url = Some(url);
        return Ok(());
    }
    let slug = slug_of(name);
    if !is_slug(slug) {
        return Err(format!("`{slug}` is not a slug: use a-z, 0-9 and -, and none of {RESERVED:?}"));
    }
    let upstream = upstreams.by_slug.entry(slug.to_owned());
    upstream.or_insert_with(|| Upstream::new(slug, &provider::COMPATIBLE)).base_url = Some(url);
    Ok(())
}

/// The first path segments below `/api/` that do not name providers.
const RESERVED: &[&str] = &["compat", AI_GATEWAY_SLUG];

fn is_slug(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= 64 && text.bytes().all(allowed) && !RESERVED.contains(&text)
}

fn add_keys(by_slug: &mut BTreeMap<String, Upstream>, entry: &str) -> Result<(), String> {
    // The entry is not quoted, because it may be a key without a slug.
    let (name, list) = entry.split_once('=').ok_or("an entry is not slug=key,key")?;
    let name = name.trim();
    let slug = slug_of(name);
    if !is_slug(slug) {
        return Err("an entry does not begin with a provider's slug and =".to_owned());
    }
    let upstream = by_slug.get_mut(slug).ok_or_else(|| {
        format!(
            "`{slug}` is not a known provider; give it a URL in provider_base_urls if it has an OpenAI-compatible API"
        )
    })?;
    for key in list.split(',').map(str::trim).filter(|key| !key.is_empty()) {
        let key = Secret::new(key);
        if !key.is_credential() {
            return Err(format!("{slug}: a key has blanks or characters that no header can carry"));
        }
        if !upstream.keys.contains(&key) {
            upstream.keys.push(key);
        }
    }
    Ok(())
}

/// Reads `providers`, the settings of each provider.
fn read_providers(reader: &mut Reader, by_slug: &mut BTreeMap<String, Upstream>) {
    let Some(mut providers) = reader.object("providers") else { return };
    for name in providers.names() {
        let slug = slug_of(&name).to_owned();
        let Some(upstream) = by_slug.get_mut(&slug) else {
            providers.problem(&name, "not a known provider; give it a URL in provider_base_urls");
            providers.skip(&name);
            continue;
        };
        let Some(mut fields) = providers.object(&name) else { continue };
        if let Some(mut quota) = fields.object("quota") {
            upstream.quota = read_quota(&mut quota);
            if let Some(mut models) = quota.object("models") {
                for model in models.names() {
                    if let Some(mut fields) = models.object(&model) {
                        let model = upstream.provider.bare_model(&model).to_owned();
                        upstream.model_quotas.insert(model, read_quota(&mut fields));
                        fields.finish();
                    }
                }
            }
            quota.finish();
        }
        upstream.openai_format = fields.choice(
            "openai_format",
            &[
                ("native", OpenAiFormat::Native),
                ("passthrough", OpenAiFormat::Passthrough),
                ("ai_gateway", OpenAiFormat::AiGateway),
            ],
        );
        if upstream.openai_format == Some(OpenAiFormat::Native) && upstream.native().is_none() {
            fields.problem("openai_format", "requests to this provider cannot be translated to a native API");
        }
        if let Some(mut drop) = fields.object("drop") {
            for prefix in drop.names() {
                let bare = upstream.provider.bare_model(&prefix).to_owned();
                upstream.drop.extend(drop.texts(&prefix).map(|names| (bare, names)));
            }
        }
        if let Some(mut weights) = fields.object("weights") {
            for id in weights.names() {
                if let Some(weight) = weights.number(&id, 1..=1000) {
                    upstream.weights.insert(id, weight as u32);
                }
            }
        }
        fields.finish();
    }
}

fn read_quota(reader: &mut Reader) -> Quota {
    let mut limit = |name| reader.number(name, 1..=1_000_000_000_000);
    Quota { rpm: limit("rpm"), rpd: limit("rpd"), tpm: limit("tpm"), tpd: limit("tpd") }
}
