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
use crate::provider::{self, Provider};
use crate::secret::Secret;
use crate::time::Span;
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
}

impl Default for Policy {
    fn default() -> Self {
        Policy { consecutive_429_threshold: 2, default_cooling: Span::secs(65) }
    }
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
        let number = text.trim().parse::<u64>().ok().filter(|_| !TEXT_FIELDS.contains(field));
        fields.insert((*field).to_owned(), number.map_or(Value::String(text), Value::from));
    }
}

/// Fields that are text even when they look like a number.
const TEXT_FIELDS: &[&str] = &["auth_key", "provider_keys", "ai_gateway", "ai_gateway_token", "provider_base_urls"];

fn read(reader: &mut Reader) -> Option<Config> {
    let auth = read_auth(reader);
    let upstreams = read_upstreams(reader);
    let ai_gateway = read_ai_gateway(reader, upstreams.ai_gateway_url);
    let defaults = Policy::default();
    let number = |reader: &mut Reader, name, range, default: u64| reader.number(name, range).unwrap_or(default);
    let policy = Policy {
        consecutive_429_threshold: number(reader, "consecutive_429_threshold", 1..=1000, 2) as u32,
        default_cooling: reader
            .number("default_cooling_seconds", 1..=86_400)
            .map_or(defaults.default_cooling, Span::secs),
    };
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
        auth: auth?,
        upstreams: upstreams.by_slug,
        ai_gateway,
    })
}

fn read_auth(reader: &mut Reader) -> Option<AuthKeys> {
    let Some(text) = reader.text("auth_key") else {
        reader.problem("auth_key", "required (variable AUTH_KEY): without it nobody could ask");
        return None;
    };
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
    let known = provider::PROVIDERS
        .iter()
        .map(|provider| (provider.slug.to_owned(), Upstream { provider, base_url: None, keys: Vec::new() }));
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
    let custom = || Upstream { provider: &provider::COMPATIBLE, base_url: None, keys: Vec::new() };
    upstreams.by_slug.entry(slug.to_owned()).or_insert_with(custom).base_url = Some(url);
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
            "auth_key: required (variable AUTH_KEY): without it nobody could ask",
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
    fn debug_holds_no_secret() {
        let config = parse("", &[("AUTH_KEY", "sk-client"), ("PROVIDER_KEYS", "openai=sk-provider")]).unwrap();
        assert!(!format!("{config:?}").contains("sk-"));
    }
}
