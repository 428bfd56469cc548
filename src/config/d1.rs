//! The settings of D1: where the database is, and which of its keys are read.

use super::{Reader, slug_of};
use crate::http::url::Url;
use crate::secret::Secret;
use crate::time::Span;

/// Cloudflare D1, through its REST API.
#[derive(Debug)]
pub struct D1 {
    /// The base URL of the API.
    pub url: Url,
    /// The id of the account.
    pub account: String,
    /// The id of the database.
    pub database: String,
    /// An API token with the permission D1 Edit.
    pub token: Secret,
    /// The Envoy cluster of the API.
    pub cluster: String,
    /// The interval between reads.
    pub interval: Span,
    /// The slugs of the providers whose keys are read; empty for all providers.
    pub providers: Vec<String>,
}

const D1_URL: &str = "https://api.cloudflare.com/client/v4";

impl D1 {
    /// The path of the API's query endpoint for this database.
    pub(crate) fn path(&self) -> String {
        format!("{}/accounts/{}/d1/database/{}/query", self.url.path, self.account, self.database)
    }
}

/// Reads the fields of D1. Account, database and token must be given together, or not at all.
pub(super) fn read(reader: &mut Reader) -> Option<D1> {
    let interval = reader.number("sync_seconds", 1..=86_400).map_or(Span::secs(60), Span::secs);
    let cluster = reader.text("d1_cluster").unwrap_or_else(|| "d1".to_owned());
    let providers = reader.text("d1_providers").unwrap_or_default();
    let providers = providers.split(',').map(str::trim).filter(|name| !name.is_empty());
    let providers = providers.map(|name| slug_of(name).to_owned()).collect();
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
                None => reader.problem(name, "required, because another of the three d1_… is given"),
                Some(text) if *name == "d1_api_token" => {
                    if !Secret::new(text.as_str()).is_credential() {
                        reader.problem(name, "has characters that no header can carry");
                    }
                }
                Some(text) if !plain(text) => reader.problem(name, "is not an id"),
                Some(_) => {}
            }
        }
    }
    let [account, database, token] = texts;
    let (Some(account), Some(database), Some(token)) = (account, database, token) else { return None };
    Some(D1 { url: url?, account, database, token: Secret::new(token), cluster, interval, providers })
}
