//! The configuration: what the user wrote becomes what it means, in one fallible step.
//!
//! The plugin configuration is JSON. Each field that has a variable in [`VARIABLES`] can also come
//! from the VM's environment, which wins: one static YAML then serves everywhere, and secrets stay
//! out of files and of `/config_dump`. All problems are reported at once, and with any problem the
//! filter does not start.

mod reader;

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::Value;

use crate::auth::AuthKeys;
use crate::pool::quota::Quota;
use crate::pool::select::Selection;
use crate::provider::{self, Provider};
use crate::secret::Secret;
use crate::time::{DAY, Span};
use crate::translate;
use crate::url::Url;
pub use reader::{Problems, Reader};

/// The environment variables and the field that each of them stands for.
pub const VARIABLES: &[(&str, &str)] = &[
    ("AUTH_KEY", "auth_key"),
    ("PROVIDER_KEYS", "provider_keys"),
    ("AI_GATEWAY", "ai_gateway"),
    ("AI_GATEWAY_TOKEN", "ai_gateway_token"),
    ("PROVIDER_BASE_URLS", "provider_base_urls"),
    ("MAX_RETRIES", "max_retries"),
    ("CONSECUTIVE_429_THRESHOLD", "consecutive_429_threshold"),
    ("D1_ACCOUNT_ID", "d1_account_id"),
    ("D1_DATABASE_ID", "d1_database_id"),
    ("D1_API_TOKEN", "d1_api_token"),
    ("SYNC_SECONDS", "sync_seconds"),
];

/// The slug under which `provider_base_urls` places AI Gateway itself.
const AI_GATEWAY_SLUG: &str = "ai-gateway";
const AI_GATEWAY_URL: &str = "https://gateway.ai.cloudflare.com";

/// Everything that can be configured, checked.
#[derive(Debug)]
pub struct Config {
    /// Who may ask.
    pub auth: AuthKeys,
    /// The providers that can be asked for, by slug.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Cloudflare AI Gateway, if requests go through one.
    pub ai_gateway: Option<AiGateway>,
    /// Attempts after the first one.
    pub max_retries: u32,
    /// The largest request body in bytes.
    pub max_body_bytes: usize,
    /// What to do when every key is cooling.
    pub when_all_cooling: WhenAllCooling,
    /// How the pool treats its keys.
    pub policy: Policy,
    /// The Worker's D1 database, if the pool shares it.
    pub d1: Option<D1>,
    /// Other names for models: `gpt-4o` may stand for `google-ai-studio/gemini-2.5-pro`.
    pub aliases: BTreeMap<String, String>,
    /// What `GET /v1/models` lists, as `slug/model`.
    pub models: Vec<String>,
}

/// How an OpenAI-shaped request reaches a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenAiFormat {
    /// Translated to the provider's own API.
    Native,
    /// As it is, to the provider's own OpenAI-style API.
    Passthrough,
    /// As it is, to AI Gateway's compat endpoint.
    AiGateway,
}

/// Cloudflare D1, through its REST API.
#[derive(Debug)]
pub struct D1 {
    /// The API's base.
    pub url: Url,
    /// The account.
    pub account: String,
    /// The database.
    pub database: String,
    /// A token with the permission D1 Edit.
    pub token: Secret,
    /// The Envoy cluster that leads there.
    pub cluster: String,
    /// How often it is read.
    pub interval: Span,
    /// The slugs whose keys are read; empty: all.
    pub providers: Vec<String>,
}

const D1_URL: &str = "https://api.cloudflare.com/client/v4";

impl D1 {
    /// The path of a query.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/accounts/{}/d1/database/{}/query", self.url.path, self.account, self.database)
    }
}

/// A provider as it is reached from here, and its keys from the configuration.
#[derive(Debug)]
pub struct Upstream {
    /// What is known of it.
    pub provider: &'static Provider,
    /// A base URL that stands in place of the table's. Such a provider is asked directly, with or
    /// without AI Gateway: only we know where it is.
    pub base_url: Option<Url>,
    /// Keys from the configuration, in order, none twice.
    pub keys: Vec<Secret>,
    /// Configured limits of each key, for all models but those in `model_quotas`.
    pub quota: Quota,
    /// Configured limits of each key for one model.
    pub model_quotas: BTreeMap<String, Quota>,
    /// Weights of keys by their shown ids; 1 if not named.
    pub weights: BTreeMap<String, u32>,
    /// How OpenAI-shaped requests reach it, if that is configured.
    pub openai_format: Option<OpenAiFormat>,
    /// Fields that are dropped from OpenAI-shaped requests before they are translated, by how the
    /// model's name begins.
    pub drop: BTreeMap<String, Vec<String>>,
}

impl Upstream {
    /// A provider that is reached where the table says, without keys.
    #[must_use]
    pub fn new(provider: &'static Provider) -> Self {
        Upstream {
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
    #[must_use]
    pub fn native(&self) -> Option<translate::Target> {
        match self.provider.slug {
            "google-ai-studio" => Some(translate::Target::Gemini),
            "anthropic" => Some(translate::Target::Anthropic),
            _ => None,
        }
    }

    /// How an OpenAI-shaped request reaches it, through a gateway or straight.
    #[must_use]
    pub fn openai_format(&self, through_gateway: bool) -> OpenAiFormat {
        let on_compat = self.provider.openai.is_some_and(|openai| openai.on_compat);
        match self.openai_format {
            Some(OpenAiFormat::AiGateway) if !through_gateway => OpenAiFormat::Passthrough,
            Some(format) => format,
            None if self.native().is_some() => OpenAiFormat::Native,
            None if through_gateway && on_compat => OpenAiFormat::AiGateway,
            None => OpenAiFormat::Passthrough,
        }
    }

    /// The fields that are dropped for a model.
    #[must_use]
    pub fn drop(&self, model: &str) -> Vec<String> {
        let lists = self.drop.iter().filter(|(prefix, _)| model.starts_with(prefix.as_str()));
        lists.flat_map(|(_, fields)| fields.iter().cloned()).collect()
    }

    /// The configured limits of a key for a model.
    #[must_use]
    pub fn quota(&self, model: &str) -> Quota {
        self.model_quotas.get(model).map_or(self.quota, |quota| quota.or(self.quota))
    }
}

/// A Cloudflare AI Gateway.
#[derive(Debug)]
pub struct AiGateway {
    /// Where it is.
    pub url: Url,
    /// `/v1/{account}/{gateway}` of each gateway; one is picked per request.
    pub prefixes: Vec<String>,
    /// For a gateway that asks for `cf-aig-authorization`.
    pub token: Option<Secret>,
}

/// What a client gets while all keys that could serve it are cooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAllCooling {
    /// 429 with the time until the first one recovers; the provider is not troubled.
    Reject,
    /// The key that recovers first is tried (what the Worker does).
    TryEarliest,
}

/// How the pool treats its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The consecutive unexplained 429 that cools until the daily reset.
    pub consecutive_429_threshold: u32,
    /// How long a 429 cools that says nothing of its end.
    pub default_cooling: Span,
    /// How long a key rests whose credit is spent, before one request tries it again.
    pub credit_rest: Span,
    /// Which 429s cool until the daily reset once the threshold is reached.
    pub escalate: Escalate,
    /// What a short delay stated beside a daily quota is worth.
    pub daily_quota: DailyQuota,
    /// Which key comes next.
    pub selection: Selection,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            consecutive_429_threshold: 2,
            default_cooling: Span::secs(65),
            credit_rest: DAY,
            escalate: Escalate::Unstated,
            daily_quota: DailyQuota::UntilReset,
            selection: Selection::RoundRobin,
        }
    }
}

/// Which 429s escalate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escalate {
    /// Those that did not say which limit it was.
    Unstated,
    /// All (what the Worker does).
    Always,
}

/// How a daily quota cools whose 429 states a short delay, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DailyQuota {
    /// Until the provider's daily reset.
    UntilReset,
    /// For the stated delay; when the same quota is reported again, until the reset.
    HonourRetryDelayOnce,
}

impl Config {
    /// Reads the plugin configuration (JSON text, may be empty) and the environment over it.
    ///
    /// # Errors
    /// Every problem with its JSON path or variable.
    pub fn parse(json: &[u8], env: impl Fn(&str) -> Option<String>) -> Result<Config, Problems> {
        let mut value = if json.trim_ascii().is_empty() {
            Value::Object(serde_json::Map::new())
        } else {
            serde_json::from_slice(json).map_err(|error| vec![format!("the configuration is not JSON: {error}")])?
        };
        let mut problems = Problems::new();
        overlay(&mut value, env);
        let mut reader = Reader::new("", value, &mut problems);
        let config = read(&mut reader);
        reader.finish();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }

    /// One line for the log: what is configured, without any secret.
    #[must_use]
    pub fn summary(&self) -> String {
        let keys: Vec<String> = self
            .upstreams
            .iter()
            .filter(|(_, upstream)| !upstream.keys.is_empty())
            .map(|(slug, upstream)| format!("{slug}: {}", upstream.keys.len()))
            .collect();
        let keys = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
        format!("{} AUTH_KEY definitions; keys of the configuration: {keys}", self.auth.count())
    }

    /// The upstream of this slug or alias.
    #[must_use]
    pub fn upstream(&self, name: &str) -> Option<(&str, &Upstream)> {
        let slug = provider::find(name).map_or(name, |known| known.slug);
        self.upstreams.get_key_value(slug).map(|(slug, upstream)| (slug.as_str(), upstream))
    }
}

/// Puts the variables that are set in the place of the fields they stand for. A variable that is
/// set but blank counts as not set, but for AUTH_KEY: there it is a mistake that must be heard.
fn overlay(value: &mut Value, env: impl Fn(&str) -> Option<String>) {
    let Value::Object(fields) = value else { return };
    for (variable, field) in VARIABLES {
        let Some(text) = env(variable) else { continue };
        if text.trim().is_empty() && *variable != "AUTH_KEY" {
            continue;
        }
        // A number in the environment is text; the fields' own checks take it from there.
        let number = text.trim().parse::<u64>().ok().filter(|_| NUMBER_FIELDS.contains(field));
        fields.insert((*field).to_owned(), number.map_or(Value::String(text), Value::from));
    }
}

/// Fields that are numbers; all others are text, even when they look like one.
const NUMBER_FIELDS: &[&str] = &["max_retries", "consecutive_429_threshold", "sync_seconds"];

fn read(reader: &mut Reader) -> Option<Config> {
    let auth = read_auth(reader);
    let mut upstreams = read_upstreams(reader);
    read_providers(reader, &mut upstreams.by_slug);
    let ai_gateway = read_ai_gateway(reader, upstreams.ai_gateway_url);
    let number = |reader: &mut Reader, name, range, default: u64| reader.number(name, range).unwrap_or(default);
    let policy = read_policy(reader);
    Some(Config {
        max_retries: number(reader, "max_retries", 0..=50, 10) as u32,
        max_body_bytes: number(reader, "max_body_bytes", 1024..=256 << 20, 32 << 20) as usize,
        when_all_cooling: reader
            .choice(
                "when_all_cooling",
                &[("reject", WhenAllCooling::Reject), ("try_earliest", WhenAllCooling::TryEarliest)],
            )
            .unwrap_or(WhenAllCooling::Reject),
        policy,
        d1: read_d1(reader),
        aliases: read_aliases(reader, &upstreams.by_slug),
        models: read_models(reader, &upstreams.by_slug),
        auth: auth?,
        upstreams: upstreams.by_slug,
        ai_gateway,
    })
}

fn read_policy(reader: &mut Reader) -> Policy {
    let default = Policy::default();
    let seconds = |reader: &mut Reader, name, most, default| reader.number(name, 1..=most).map_or(default, Span::secs);
    Policy {
        consecutive_429_threshold: reader
            .number("consecutive_429_threshold", 1..=1000)
            .map_or(default.consecutive_429_threshold, |number| number as u32),
        default_cooling: seconds(reader, "default_cooling_seconds", 86_400, default.default_cooling),
        credit_rest: seconds(reader, "credit_rest_seconds", 30 * 86_400, default.credit_rest),
        escalate: reader
            .choice("escalate", &[("unstated", Escalate::Unstated), ("always", Escalate::Always)])
            .unwrap_or(default.escalate),
        daily_quota: reader
            .choice(
                "daily_quota",
                &[
                    ("until_reset", DailyQuota::UntilReset),
                    ("honour_retry_delay_once", DailyQuota::HonourRetryDelayOnce),
                ],
            )
            .unwrap_or(default.daily_quota),
        selection: reader
            .choice(
                "selection",
                &[
                    ("round_robin", Selection::RoundRobin),
                    ("random", Selection::Random),
                    ("least_used", Selection::LeastUsed),
                    ("sticky", Selection::Sticky),
                ],
            )
            .unwrap_or(default.selection),
    }
}

/// `providers`: what is configured of each of them.
fn read_providers(reader: &mut Reader, by_slug: &mut BTreeMap<String, Upstream>) {
    let Some(mut providers) = reader.object("providers") else { return };
    for name in providers.names() {
        let slug = provider::find(&name).map_or(name.as_str(), |known| known.slug).to_owned();
        let Some(upstream) = by_slug.get_mut(&slug) else {
            providers.problem(&name, "no known provider; give it a URL in provider_base_urls");
            providers.skip(&name);
            continue;
        };
        let Some(mut fields) = providers.object(&name) else { continue };
        if let Some(mut quota) = fields.object("quota") {
            upstream.quota = read_quota(&mut quota);
            if let Some(mut models) = quota.object("models") {
                for model in models.names() {
                    if let Some(mut fields) = models.object(&model) {
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
            fields.problem("openai_format", "this provider has no native API that is spoken here");
        }
        if let Some(mut drop) = fields.object("drop") {
            for prefix in drop.names() {
                upstream.drop.extend(drop.texts(&prefix).map(|names| (prefix, names)));
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

/// Whether a text is `slug/model` of a known provider.
fn is_full_model(text: &str, by_slug: &BTreeMap<String, Upstream>) -> bool {
    let slug = text.split_once('/').filter(|(_, model)| !model.is_empty()).map(|(name, _)| name);
    slug.is_some_and(|name| by_slug.contains_key(provider::find(name).map_or(name, |known| known.slug)))
}

fn read_aliases(reader: &mut Reader, by_slug: &BTreeMap<String, Upstream>) -> BTreeMap<String, String> {
    let mut aliases = BTreeMap::new();
    let Some(mut fields) = reader.object("aliases") else { return aliases };
    for alias in fields.names() {
        let Some(model) = fields.text(&alias) else { continue };
        if is_full_model(&model, by_slug) {
            aliases.insert(alias, model);
        } else {
            fields.problem(&alias, "must be provider/model, of a known provider");
        }
    }
    aliases
}

fn read_models(reader: &mut Reader, by_slug: &BTreeMap<String, Upstream>) -> Vec<String> {
    let models = reader.texts("models").unwrap_or_default();
    if let Some(odd) = models.iter().find(|model| !is_full_model(model, by_slug)) {
        reader.problem("models", format_args!("`{odd}` must be provider/model, of a known provider"));
    }
    models
}

fn read_quota(reader: &mut Reader) -> Quota {
    let mut limit = |name| reader.number(name, 1..=1_000_000_000_000);
    Quota { rpm: limit("rpm"), rpd: limit("rpd"), tpm: limit("tpm"), tpd: limit("tpd") }
}

fn read_auth(reader: &mut Reader) -> Option<AuthKeys> {
    if !reader.has("auth_key") {
        reader.problem("auth_key", "required (variable AUTH_KEY): without it nobody could ask");
    }
    let text = reader.text("auth_key")?;
    match decoded(&text).and_then(|text| AuthKeys::parse(&text)) {
        Ok(auth) => Some(auth),
        Err(problems) => {
            problems.iter().for_each(|problem| reader.problem("auth_key", problem));
            None
        }
    }
}

struct Upstreams {
    by_slug: BTreeMap<String, Upstream>,
    ai_gateway_url: Option<Url>,
}

fn read_upstreams(reader: &mut Reader) -> Upstreams {
    let known = provider::PROVIDERS.iter().map(|provider| (provider.slug.to_owned(), Upstream::new(provider)));
    let mut upstreams = Upstreams { by_slug: known.collect(), ai_gateway_url: None };
    if let Some(text) = reader.text("provider_base_urls") {
        for entry in entries(&text) {
            if let Err(problem) = place(&mut upstreams, entry) {
                reader.problem("provider_base_urls", problem);
            }
        }
    }
    if let Some(text) = reader.text("provider_keys") {
        match decoded(&text) {
            Ok(text) => {
                for entry in entries(&text) {
                    if let Err(problem) = take_keys(&mut upstreams.by_slug, entry) {
                        reader.problem("provider_keys", problem);
                    }
                }
            }
            Err(problems) => problems.iter().for_each(|problem| reader.problem("provider_keys", problem)),
        }
    }
    upstreams
}

/// The entries of a `slug=…;slug=…` list.
fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split([';', '\n']).map(str::trim).filter(|entry| !entry.is_empty())
}

fn place(upstreams: &mut Upstreams, entry: &str) -> Result<(), String> {
    let (name, text) = entry.split_once('=').ok_or_else(|| format!("`{entry}` is not slug=url"))?;
    let (name, text) = (name.trim(), text.trim());
    let url = Url::parse(text).map_err(|problem| format!("{name}: {problem}"))?;
    if name == AI_GATEWAY_SLUG {
        upstreams.ai_gateway_url = Some(url);
        return Ok(());
    }
    let slug = provider::find(name).map_or(name, |known| known.slug);
    if !is_slug(slug) {
        return Err(format!("`{slug}` is no slug: use a-z, 0-9 and -, and none of {RESERVED:?}"));
    }
    let upstream = upstreams.by_slug.entry(slug.to_owned());
    upstream.or_insert_with(|| Upstream::new(&provider::COMPATIBLE)).base_url = Some(url);
    Ok(())
}

/// First path segments below `/api/` that are not providers.
const RESERVED: &[&str] = &["compat", AI_GATEWAY_SLUG];

fn is_slug(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= 64 && text.bytes().all(allowed) && !RESERVED.contains(&text)
}

fn take_keys(by_slug: &mut BTreeMap<String, Upstream>, entry: &str) -> Result<(), String> {
    // The entry may be a key without a slug, so it is not quoted.
    let (name, list) = entry.split_once('=').ok_or("an entry is not slug=key,key")?;
    let name = name.trim();
    let slug = provider::find(name).map_or(name, |known| known.slug);
    if !is_slug(slug) {
        return Err("an entry does not begin with a provider's slug and =".to_owned());
    }
    let upstream = by_slug.get_mut(slug).ok_or_else(|| {
        format!("`{slug}` is no known provider; give it a URL in provider_base_urls if it speaks OpenAI's API")
    })?;
    for key in list.split(',').map(str::trim).filter(|key| !key.is_empty()) {
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{slug}: a key has blanks or characters that no header can carry"));
        }
        let key = Secret::new(key);
        if !upstream.keys.contains(&key) {
            upstream.keys.push(key);
        }
    }
    Ok(())
}

/// The text, or what it says in base64 behind `base64:`.
fn decoded(text: &str) -> Result<String, Vec<String>> {
    let Some(encoded) = text.trim().strip_prefix("base64:") else { return Ok(text.to_owned()) };
    let compact: String = encoded.split_ascii_whitespace().collect();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(compact)
        .map_err(|_| vec!["what follows base64: is not base64".to_owned()])?;
    String::from_utf8(bytes).map_err(|_| vec!["what follows base64: is not UTF-8 text".to_owned()])
}

fn read_d1(reader: &mut Reader) -> Option<D1> {
    let interval = reader.number("sync_seconds", 1..=86_400).map_or(Span::secs(60), Span::secs);
    let cluster = reader.text("d1_cluster").unwrap_or_else(|| "d1".to_owned());
    let providers = reader.text("d1_providers").unwrap_or_default();
    let providers = providers.split(',').map(str::trim).filter(|name| !name.is_empty());
    let providers = providers.map(|name| provider::find(name).map_or(name, |known| known.slug).to_owned()).collect();
    let url = match Url::parse(&reader.text("d1_base_url").unwrap_or_else(|| D1_URL.to_owned())) {
        Ok(url) => Some(url),
        Err(problem) => {
            reader.problem("d1_base_url", problem);
            None
        }
    };
    let names = ["d1_account_id", "d1_database_id", "d1_api_token"];
    let texts = names.map(|name| reader.text(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()));
    let plain = |text: &String| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if texts.iter().any(Option::is_some) {
        for (name, text) in names.iter().zip(&texts) {
            match text {
                None => reader.problem(name, "required, for another of the three d1_… is given"),
                Some(text) if *name != "d1_api_token" && !plain(text) => reader.problem(name, "is not an id"),
                Some(_) => {}
            }
        }
    }
    let [account, database, token] = texts;
    let (Some(account), Some(database), Some(token)) = (account, database, token) else { return None };
    Some(D1 { url: url?, account, database, token: Secret::new(token), cluster, interval, providers })
}

fn read_ai_gateway(reader: &mut Reader, url: Option<Url>) -> Option<AiGateway> {
    let token = reader.text("ai_gateway_token").map(Secret::new);
    let text = reader.text("ai_gateway")?;
    let name = |text: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (!text.is_empty() && text.bytes().all(allowed)).then(|| text.to_owned())
    };
    let prefixes = text.split_once('/').and_then(|(account, gateways)| {
        let account = name(account.trim())?;
        gateways.split(',').map(|gateway| Some(format!("/v1/{account}/{}", name(gateway.trim())?))).collect()
    });
    let Some(prefixes) = prefixes else {
        reader.problem("ai_gateway", "must be account/gateway or account/gateway1,gateway2");
        return None;
    };
    let url = url.or_else(|| Url::parse(AI_GATEWAY_URL).ok())?;
    Some(AiGateway { url, prefixes, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str, env: &[(&str, &str)]) -> Result<Config, Problems> {
        let env: BTreeMap<_, _> = env.iter().copied().collect();
        Config::parse(json.as_bytes(), |name| env.get(name).map(|&text| text.to_owned()))
    }

    #[test]
    fn environment_over_json() {
        let json = r#"{"auth_key":"a","max_retries":3.0,"provider_keys":"openai=k1,k2,k1;groq=g1"}"#;
        let config = parse(json, &[]).unwrap();
        assert_eq!((config.max_retries, config.auth.count()), (3, 1));
        assert_eq!(config.upstreams["openai"].keys, [Secret::new("k1"), Secret::new("k2")]);
        let config =
            parse(json, &[("AUTH_KEY", "x;y"), ("MAX_RETRIES", " 5"), ("PROVIDER_KEYS", "openai=k3")]).unwrap();
        assert_eq!((config.max_retries, config.auth.count()), (5, 2));
        assert_eq!(config.upstreams["openai"].keys, [Secret::new("k3")]);
        assert!(config.upstreams["groq"].keys.is_empty());
    }

    #[test]
    fn base64_values() {
        // printf 'perplexity=p1' | base64
        let config = parse("", &[("AUTH_KEY", "12345"), ("PROVIDER_KEYS", "base64:cGVycGxleGl0eT1wMQ==\n")]).unwrap();
        assert_eq!(config.upstreams["perplexity-ai"].keys, [Secret::new("p1")]);
    }

    #[test]
    fn places() {
        let env = [
            ("AUTH_KEY", "a"),
            ("PROVIDER_BASE_URLS", "openai=http://h:1/v1;mine=https://x/y/;ai-gateway=http://g"),
            ("AI_GATEWAY", "acc/g1, g2"),
            ("PROVIDER_KEYS", "mine=k"),
        ];
        let config = parse("", &env).unwrap();
        assert_eq!(config.upstreams["openai"].base_url, Some(Url::parse("http://h:1/v1").unwrap()));
        assert_eq!(config.upstream("mine").unwrap().1.keys.len(), 1);
        let gateway = config.ai_gateway.unwrap();
        assert_eq!(gateway.prefixes, ["/v1/acc/g1", "/v1/acc/g2"]);
        assert_eq!(gateway.url.authority, "g");
    }

    #[test]
    fn all_problems_at_once_and_no_secrets() {
        let json = r#"{"auth_key":7,"max_retries":51,"surprise":1,"when_all_cooling":"panic","max_body_bytes":"x",
            "provider_keys":"sk-secret;nope=sk-secret","ai_gateway":"x","provider_base_urls":"openai=ftp://x;compat=http://h"}"#;
        let problems = parse(json, &[]).unwrap_err();
        let expected = [
            "auth_key: must be a string, not a number",
            "provider_base_urls: openai: it must begin with https:// or http://",
            "provider_base_urls: `compat` is no slug: use a-z, 0-9 and -, and none of [\"compat\", \"ai-gateway\"]",
            "provider_keys: an entry is not slug=key,key",
            "provider_keys: `nope` is no known provider; give it a URL in provider_base_urls if it speaks OpenAI's API",
            "ai_gateway: must be account/gateway or account/gateway1,gateway2",
            "max_retries: must be a whole number from 0 to 50",
            "max_body_bytes: must be a number, not a string",
            "when_all_cooling: must be one of reject, try_earliest",
            "surprise: unknown field",
        ];
        assert_eq!(problems, expected);
        for (json, problem) in [("[]", "must be an object"), ("{", "not JSON"), ("{}", "auth_key: required")] {
            assert!(parse(json, &[]).unwrap_err()[0].contains(problem), "{json}");
        }
        assert!(parse("{}", &[("AUTH_KEY", " ")]).unwrap_err()[0].contains("no key is given"));
    }

    #[test]
    fn what_is_configured_of_a_provider() {
        let json = r#"{"auth_key":"a","selection":"sticky","escalate":"always","providers":{
            "perplexity":{"quota":{"rpm":10,"tpm":5,"models":{"m":{"rpm":2,"rpd":100}}},"weights":{"00ff":3}},
            "nope":{},"openai":{"quota":{"rpm":0,"x":1},"colour":1}}}"#;
        let problems = parse(json, &[]).unwrap_err();
        assert_eq!(
            problems,
            [
                "providers.nope: no known provider; give it a URL in provider_base_urls",
                "providers.openai.quota.rpm: must be a whole number from 1 to 1000000000000",
                "providers.openai.quota.x: unknown field",
                "providers.openai.colour: unknown field",
            ]
        );
        let good = json.replace(r#""nope":{},"openai":{"quota":{"rpm":0,"x":1},"colour":1}"#, r#""openai":{}"#);
        let config = parse(&good, &[]).unwrap();
        let upstream = &config.upstreams["perplexity-ai"];
        assert_eq!(upstream.quota("m"), Quota { rpm: Some(2), rpd: Some(100), tpm: Some(5), tpd: None });
        assert_eq!(upstream.quota("n").rpm, Some(10));
        assert_eq!(upstream.weights["00ff"], 3);
        assert_eq!((config.policy.selection, config.policy.escalate), (Selection::Sticky, Escalate::Always));
    }

    #[test]
    fn models_and_formats() {
        let json = r#"{"auth_key":"a","aliases":{"gpt-4o":"perplexity/x","bad":"x"},"models":["openai/gpt-4o","y"],
            "providers":{"openai":{"openai_format":"native"},"anthropic":{"openai_format":"ai_gateway","drop":{"claude-":["seed"],"x":7}}}}"#;
        assert_eq!(
            parse(json, &[]).unwrap_err(),
            [
                "providers.openai.openai_format: this provider has no native API that is spoken here",
                "providers.anthropic.drop.x: must be a list of strings, not a number",
                "aliases.bad: must be provider/model, of a known provider",
                "models: `y` must be provider/model, of a known provider",
            ]
        );
        let good = json
            .replace(r#","bad":"x""#, "")
            .replace(r#","y""#, "")
            .replace(r#","x":7"#, "")
            .replace("native", "passthrough");
        let config = parse(&good, &[]).unwrap();
        let format = |slug: &str, gateway| config.upstreams[slug].openai_format(gateway);
        assert_eq!(format("google-ai-studio", true), OpenAiFormat::Native);
        assert_eq!(format("groq", false), OpenAiFormat::Passthrough);
        assert_eq!(format("groq", true), OpenAiFormat::AiGateway);
        assert_eq!(format("openrouter", true), OpenAiFormat::Passthrough, "compat does not serve it");
        assert_eq!(format("openai", true), OpenAiFormat::Passthrough);
        assert_eq!(format("anthropic", false), OpenAiFormat::Passthrough, "there is no gateway");
        assert_eq!(config.upstreams["anthropic"].drop("claude-x"), ["seed"]);
        assert!(config.upstreams["anthropic"].drop("other").is_empty());
    }

    #[test]
    fn debug_holds_no_secret() {
        let config = parse("", &[("AUTH_KEY", "sk-client"), ("PROVIDER_KEYS", "openai=sk-provider")]).unwrap();
        assert!(!format!("{config:?}").contains("sk-"));
    }
}
