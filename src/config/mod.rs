//! The configuration: parsed and checked in one step.
//!
//! The plugin configuration is JSON. Each field with a variable in [`VARIABLES`] can also be set in the VM's
//! environment, which takes precedence: so one static YAML serves all deployments, and secrets stay out of files and
//! of `/config_dump`. An invalid configuration stops the filter from starting, and all of its problems are reported
//! at once.

mod d1;
mod policy;
mod reader;
mod selection;
mod upstream;

use std::collections::BTreeMap;
use std::rc::Rc;

use base64::Engine as _;
use serde_json::Value;

use crate::auth::AuthKeys;
use crate::http::url::Url;
use crate::provider;
use crate::secret::Secret;
pub use d1::D1;
pub use policy::{DailyQuota, Escalate, Policy};
pub use reader::{Problems, Reader};
pub use selection::Selection;
pub use upstream::{OpenAiFormat, Upstream};

/// The environment variables, each with the field that it sets.
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

/// The name that sets the URL of AI Gateway itself in `provider_base_urls`.
const AI_GATEWAY_SLUG: &str = "ai-gateway";
const AI_GATEWAY_URL: &str = "https://gateway.ai.cloudflare.com";

/// A valid configuration.
#[derive(Debug)]
pub struct Config {
    /// The AUTH_KEYs of clients and their rights.
    pub auth: AuthKeys,
    /// The providers that requests can name, by slug.
    pub upstreams: BTreeMap<String, Rc<Upstream>>,
    /// The Cloudflare AI Gateway that requests are sent through; `None` if they are sent to the providers directly.
    pub ai_gateway: Option<AiGateway>,
    /// The most attempts after the first one.
    pub max_retries: u32,
    /// The largest request body in bytes.
    pub max_body_bytes: usize,
    /// What to do while all keys are cooling.
    pub when_all_cooling: WhenAllCooling,
    /// How the pool treats its keys.
    pub policy: Policy,
    /// The Worker's D1 database, if the pool shares it.
    pub d1: Option<D1>,
    /// Other names of models, for example `gpt-4o` for `google-ai-studio/gemini-2.5-pro`.
    pub aliases: BTreeMap<String, String>,
    /// What `GET /v1/models` lists, as `slug/model`.
    pub models: Vec<String>,
    /// What the console below `/one-balance` allows.
    pub console: Console,
    /// Whether tokens are counted in metrics and written to the access log.
    pub token_metrics: bool,
}

/// What an unrestricted AUTH_KEY may do in the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// Nothing: the paths do not exist.
    Off,
    /// Read the state of the pool.
    Read,
    /// Read the state, and edit the keys that are in D1.
    Edit,
}

/// A Cloudflare AI Gateway.
#[derive(Debug)]
pub struct AiGateway {
    /// The URL of AI Gateway.
    pub url: Url,
    /// `/v1/{account}/{gateway}` of each gateway; each request uses one of them.
    pub prefixes: Vec<String>,
    /// The token of a gateway that requires `cf-aig-authorization`.
    pub token: Option<Secret>,
}

/// What a client gets while all keys that could serve it are cooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAllCooling {
    /// A 429 with the time until the first key recovers. No request is sent to the provider.
    Reject,
    /// The request tries the key that recovers first, as in the Worker.
    TryEarliest,
}

impl Config {
    /// Parses the plugin configuration (JSON, may be empty) and applies the environment.
    ///
    /// # Errors
    /// All problems, each with its JSON path, even if the value comes from a variable.
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

    /// A summary for the log in one line, without secrets.
    pub fn summary(&self) -> String {
        let keys: Vec<String> = self
            .upstreams
            .iter()
            .filter(|(_, upstream)| !upstream.keys.is_empty())
            .map(|(slug, upstream)| format!("{slug}: {}", upstream.keys.len()))
            .collect();
        let keys = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
        format!("{} AUTH_KEY definitions; keys in the configuration: {keys}", self.auth.count())
    }

    /// Warnings about settings that are valid but probably unintended.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let unknown = self.auth.unknown(|slug| self.upstreams.contains_key(slug));
        unknown.map(|(definition, position)| {
            format!(
                "auth_key: definition {definition} allows nothing with its provider {position}: no provider has that name"
            )
        })
    }

    /// Finds a provider by slug or alias.
    pub(crate) fn upstream(&self, name: &str) -> Option<&Rc<Upstream>> {
        self.upstreams.get(name).or_else(|| self.upstreams.get(slug_of(name)))
    }
}

/// Resolves a provider's name, which may be an alias, to its slug.
fn slug_of(name: &str) -> &str {
    provider::find(name).map_or(name, |known| known.slug)
}

/// Replaces fields by the variables that are set. A blank variable counts as not set, except AUTH_KEY: there it is a
/// mistake that must be reported.
fn overlay(value: &mut Value, env: impl Fn(&str) -> Option<String>) {
    let Value::Object(fields) = value else { return };
    for (variable, field) in VARIABLES {
        let Some(text) = env(variable) else { continue };
        if text.trim().is_empty() && *variable != "AUTH_KEY" {
            continue;
        }
        // A number in the environment is text. If it cannot be parsed, the check of the field reports it.
        let number = NUMBER_FIELDS.contains(field).then(|| text.trim().parse().ok()).flatten();
        fields.insert((*field).to_owned(), number.map_or(Value::String(text), Value::Number));
    }
}

/// The fields that are numbers. All others are text, even if they look like numbers.
const NUMBER_FIELDS: &[&str] = &["max_retries", "consecutive_429_threshold", "sync_seconds"];

fn read(reader: &mut Reader) -> Option<Config> {
    let auth = read_auth(reader);
    let upstreams = upstream::read(reader);
    let ai_gateway = read_ai_gateway(reader, upstreams.ai_gateway_url);
    let number = |reader: &mut Reader, name, range, default: u64| reader.number(name, range).unwrap_or(default);
    let policy = Policy::read(reader);
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
        d1: d1::read(reader),
        aliases: read_aliases(reader, &upstreams.by_slug),
        models: read_models(reader, &upstreams.by_slug),
        console: reader
            .choice("console", &[("off", Console::Off), ("read", Console::Read), ("edit", Console::Edit)])
            .unwrap_or(Console::Edit),
        token_metrics: reader.flag("token_metrics").unwrap_or(true),
        auth: auth?,
        upstreams: upstreams.by_slug.into_iter().map(|(slug, upstream)| (slug, Rc::new(upstream))).collect(),
        ai_gateway,
    })
}

/// Whether a text has the form `slug/model` and names a known provider.
fn is_full_model(text: &str, by_slug: &BTreeMap<String, Upstream>) -> bool {
    let slug = text.split_once('/').filter(|(_, model)| !model.is_empty()).map(|(name, _)| name);
    slug.is_some_and(|name| by_slug.contains_key(slug_of(name)))
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

fn read_auth(reader: &mut Reader) -> Option<AuthKeys> {
    if !reader.has("auth_key") {
        reader.problem("auth_key", "required (variable AUTH_KEY): without it no client could send requests");
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

/// The text; if it begins with `base64:`, the decoded rest.
fn decoded(text: &str) -> Result<String, Vec<String>> {
    let Some(encoded) = text.trim().strip_prefix("base64:") else { return Ok(text.to_owned()) };
    let compact: String = encoded.split_ascii_whitespace().collect();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(compact)
        .map_err(|_| vec!["the text after base64: is not base64".to_owned()])?;
    String::from_utf8(bytes).map_err(|_| vec!["the text after base64: is not UTF-8 when decoded".to_owned()])
}

fn read_ai_gateway(reader: &mut Reader, url: Option<Url>) -> Option<AiGateway> {
    // Files with secrets often end with a line break, which is not allowed in a header.
    let token = reader.text("ai_gateway_token").map(|text| Secret::new(text.trim()));
    if token.as_ref().is_some_and(|token| !token.is_credential()) {
        reader.problem("ai_gateway_token", "is empty or has characters that no header can carry");
    }
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
    use crate::config::Selection;
    use crate::quota::Quota;

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
    fn urls_and_gateways() {
        let env = [
            ("AUTH_KEY", "a"),
            ("PROVIDER_BASE_URLS", "openai=http://h:1/v1;mine=https://x/y/;ai-gateway=http://g"),
            ("AI_GATEWAY", "acc/g1, g2"),
            ("PROVIDER_KEYS", "mine=k"),
        ];
        let config = parse("", &env).unwrap();
        assert_eq!(config.upstreams["openai"].base_url, Some(Url::parse("http://h:1/v1").unwrap()));
        assert_eq!(config.upstream("mine").unwrap().keys.len(), 1);
        assert_eq!(config.warnings().count(), 0);
        let gateway = config.ai_gateway.unwrap();
        assert_eq!(gateway.prefixes, ["/v1/acc/g1", "/v1/acc/g2"]);
        assert_eq!(gateway.url.authority, "g");
    }

    #[test]
    fn a_right_for_an_unknown_provider_is_a_warning() {
        let config = parse("", &[("AUTH_KEY", "a;b=openai&opnai"), ("PROVIDER_BASE_URLS", "mine=http://h")]).unwrap();
        let warnings: Vec<_> = config.warnings().collect();
        assert_eq!(warnings, ["auth_key: definition 2 allows nothing with its provider 2: no provider has that name"]);
        let known = parse("", &[("AUTH_KEY", "b=perplexity&mine,m"), ("PROVIDER_BASE_URLS", "mine=http://h")]).unwrap();
        assert_eq!(known.warnings().count(), 0);
    }

    #[test]
    fn all_problems_at_once_and_no_secrets() {
        let json = r#"{"auth_key":7,"max_retries":51,"surprise":1,"when_all_cooling":"panic","max_body_bytes":"x",
            "provider_keys":"sk-secret;nope=sk-secret","ai_gateway":"x","provider_base_urls":"openai=ftp://x;compat=http://h"}"#;
        let problems = parse(json, &[]).unwrap_err();
        let expected = [
            "auth_key: must be a string, not a number",
            "provider_base_urls: openai: it must begin with https:// or http://",
            "provider_base_urls: `compat` is not a slug: use a-z, 0-9 and -, and none of [\"compat\", \"ai-gateway\"]",
            "provider_keys: an entry is not slug=key,key",
            "provider_keys: `nope` is not a known provider; give it a URL in provider_base_urls if it has an OpenAI-compatible API",
            "ai_gateway: must be account/gateway or account/gateway1,gateway2",
            "max_retries: must be a whole number from 0 to 50",
            "max_body_bytes: must be a number, not a string",
            "when_all_cooling: must be one of reject, try_earliest",
            "surprise: unknown field",
        ];
        assert_eq!(problems, expected);
        for (text, problem) in [
            ("-1", "max_retries: must be a whole number from 0 to 50"),
            ("51", "max_retries: must be a whole number from 0 to 50"),
            ("ten", "max_retries: must be a number, not a string"),
        ] {
            assert_eq!(parse("", &[("AUTH_KEY", "a"), ("MAX_RETRIES", text)]).unwrap_err(), [problem], "{text}");
        }
        let token = |text| parse("", &[("AUTH_KEY", "a"), ("AI_GATEWAY", "a/g"), ("AI_GATEWAY_TOKEN", text)]);
        assert_eq!(token("t\n").unwrap().ai_gateway.unwrap().token, Some(Secret::new("t")));
        let refused = "ai_gateway_token: is empty or has characters that no header can carry";
        assert_eq!(token("t\nx: y").unwrap_err(), [refused]);
        let ids = [("AUTH_KEY", "a"), ("D1_ACCOUNT_ID", "a"), ("D1_DATABASE_ID", "b"), ("D1_API_TOKEN", "t\nx: y")];
        assert_eq!(parse("", &ids).unwrap_err(), ["d1_api_token: has characters that no header can carry"]);
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
                "providers.nope: not a known provider; give it a URL in provider_base_urls",
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
                "providers.openai.openai_format: requests to this provider cannot be translated to a native API",
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
        assert_eq!(config.upstreams["anthropic"].dropped("claude-x"), ["seed"]);
        assert!(config.upstreams["anthropic"].dropped("other").is_empty());
    }

    #[test]
    fn debug_holds_no_secret() {
        let config = parse("", &[("AUTH_KEY", "sk-client"), ("PROVIDER_KEYS", "openai=sk-provider")]).unwrap();
        assert!(!format!("{config:?}").contains("sk-"));
    }
}
