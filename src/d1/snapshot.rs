//! The rows of D1's table, read with tolerance for what they contain in practice.
//!
//! D1 stores every number of the Worker as REAL, so `end_at` is `1795406903.0`. `model_coolings` may be NULL, empty
//! or malformed, and people write rows by hand. A row that cannot be used is skipped with a warning that names it,
//! and does not affect the other rows.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::Config;
use crate::pool::listing::ListedKey;
use crate::pool::{KeyId, Row};
use crate::secret::Secret;
use crate::time::Time;

/// The longest key in bytes; tokens of some clouds have 2 KB.
pub const MAX_KEY_BYTES: usize = 4096;
/// The longest id. It is a UUID where the Worker or the console has made it, and it is sent in a response header.
const MAX_ID_BYTES: usize = 64;
/// The longest remark that is kept, in characters.
pub const MAX_REMARK_CHARS: usize = 200;
/// The longest name of a model in a row; no request has a longer one.
const MAX_MODEL_BYTES: usize = 200;
/// The latest end of a cooldown: the last second that a date of four-digit years can show.
const LATEST: Time = Time::from_secs(253_402_300_799);

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The slug of the provider in this configuration.
    pub slug: String,
    /// The provider's key.
    pub key: Secret,
    /// The row's id and remark.
    pub row: Row,
    /// `status = 'blocked'`.
    pub blocked: bool,
    /// The end of each model's cooling, including those in the past.
    pub coolings: BTreeMap<String, Time>,
}

impl Remote {
    /// The id of the key in the pool.
    pub(crate) fn id(&self) -> KeyId {
        KeyId::of(&self.slug, &self.key)
    }

    /// The entry for the pool's listing.
    pub(crate) fn listed(&self) -> ListedKey {
        (self.slug.clone(), self.key.clone(), self.row.clone())
    }

    /// Reads a row.
    ///
    /// # Errors
    /// The row's id, empty if it has none, and the problem; never the key.
    pub fn read(row: &Value, config: &Config) -> Result<Remote, (String, &'static str)> {
        let text = |name: &str| row.get(name).and_then(Value::as_str);
        let id = text("id").unwrap_or_default();
        let wrong = |what| (id.chars().take(MAX_ID_BYTES).collect(), what);
        let key = text("key").map(str::trim).filter(|key| !key.is_empty()).ok_or_else(|| wrong("it has no key"))?;
        let is_id = (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_id || key.len() > MAX_KEY_BYTES {
            return Err(wrong("its id or key is too long, or its id is not printable ASCII"));
        }
        let key = Secret::new(key);
        if !key.is_credential() {
            return Err(wrong("its key cannot be used"));
        }
        let provider = text("provider").unwrap_or_default().trim();
        let slug = &config.upstream(provider).ok_or_else(|| wrong("its provider is not known here"))?.slug;
        let blocked = match text("status") {
            Some("active") => false,
            Some("blocked") => true,
            _ => return Err(wrong("its status is neither active nor blocked")),
        };
        Ok(Remote {
            slug: slug.to_owned(),
            key,
            row: Row { id: id.to_owned(), remark: text("remark").map(read_remark) },
            blocked,
            coolings: text("model_coolings").map(read_coolings).unwrap_or_default(),
        })
    }
}

/// A remark as one line that a table can show.
fn read_remark(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(MAX_REMARK_CHARS).collect()
}

/// The ends that can be read from the Worker's `{"<model>":{"end_at":1795406903.0,"total_seconds":65.0}}`.
fn read_coolings(text: &str) -> BTreeMap<String, Time> {
    let Ok(Value::Object(models)) = serde_json::from_str(text) else { return BTreeMap::new() };
    let ends = models.into_iter().filter_map(|(model, entry)| {
        let end = entry.get("end_at")?.as_f64().filter(|end| *end > 0.0)?;
        // The cast saturates.
        (model.len() <= MAX_MODEL_BYTES).then_some((model, Time::from_secs(end as u64).min(LATEST)))
    });
    ends.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config() -> Config {
        Config::parse(b"", |name| (name == "AUTH_KEY").then(|| "a".to_owned())).unwrap()
    }

    #[test]
    fn coolings_are_read_with_tolerance() {
        for (coolings, expected) in [
            (json!(null), vec![]),
            (json!(""), vec![]),
            (json!("{}"), vec![]),
            (json!("[1]"), vec![]),
            (json!("{\"m\":{\"end_at\":1795406903.0,\"total_seconds\":65.0}}"), vec![("m", 1_795_406_903)]),
            (json!("{\"m\":{\"end_at\":5},\"n\":{\"end_at\":\"x\"},\"o\":7,\"p\":{\"end_at\":-1}}"), vec![("m", 5)]),
            (json!("{\"m\":"), vec![]),
            (json!("{\"m\":{\"end_at\":1e300}}"), vec![("m", 253_402_300_799)]),
            (json!(format!("{{\"{}\":{{\"end_at\":5}}}}", "m".repeat(201))), vec![]),
            (json!(7), vec![]),
        ] {
            let row = json!({"id": "r", "key": "k", "provider": "perplexity", "status": "active", "model_coolings": coolings});
            let remote = Remote::read(&row, &config()).unwrap();
            let ends: Vec<_> = remote.coolings.iter().map(|(model, end)| (model.as_str(), end.as_secs())).collect();
            assert_eq!((remote.slug.as_str(), ends), ("perplexity-ai", expected), "{row}");
        }
    }

    #[test]
    fn rows_that_cannot_be_used() {
        let row = json!({"id": "r", "key": "sk-secret", "provider": "openai", "status": "active"});
        for (field, value) in
            [("key", json!(null)), ("key", json!("a b")), ("provider", json!("nobody")), ("status", json!("paused"))]
        {
            let mut row = row.clone();
            row[field] = value;
            let (id, what) = Remote::read(&row, &config()).unwrap_err();
            assert_eq!(id, "r", "{field}");
            assert!(!what.contains("sk-secret"));
        }
        assert!(Remote::read(&json!("text"), &config()).is_err());
        let long = "i".repeat(65);
        for (id, shown) in [
            ("", ""),
            ("inj\r\nx: y", "inj\r\nx: y"),
            ("a b", "a b"),
            ("nul\0", "nul\0"),
            ("ä", "ä"),
            (&long, &long[..64]),
        ] {
            let mut row = row.clone();
            row["id"] = json!(id);
            assert_eq!(Remote::read(&row, &config()).unwrap_err().0, shown);
        }
        for (bytes, is_read) in [(4096, true), (4097, false)] {
            let mut row = row.clone();
            row["key"] = json!("k".repeat(bytes));
            assert_eq!(Remote::read(&row, &config()).is_ok(), is_read, "{bytes}");
        }
    }

    #[test]
    fn a_remark_is_one_line() {
        for (remark, expected) in [
            (json!(null), None),
            (json!("a\nb"), Some("a b".to_owned())),
            (json!("ä".repeat(1000)), Some("ä".repeat(200))),
        ] {
            let row = json!({"id": "r", "key": "k", "provider": "openai", "status": "active", "remark": remark});
            assert_eq!(Remote::read(&row, &config()).unwrap().row.remark, expected);
        }
    }
}
