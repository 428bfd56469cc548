//! Edits of the keys in D1 that an operator requests.
//!
//! [`Task::read`] checks the body against the pool, D1 executes the edit ([`crate::d1::edit`]), and the answer says how
//! many keys have changed. Keys of the configuration are not in D1, so their ids are unknown here. Everything is
//! bounded: the size of the body, the number of keys and ids, and the length of each key.

use std::collections::BTreeSet;

use log::info;
use serde::Serialize;
use serde_json::Value;

use crate::config::{self, Config, Reader};
use crate::d1::api::Failure;
use crate::d1::edit::{Edit, Rows};
use crate::d1::snapshot::{MAX_KEY_BYTES, MAX_REMARK_CHARS};
use crate::d1::{self, Answer, Call, api};
use crate::host::Host;
use crate::http::headers::Headers;
use crate::pool::record::Record;
use crate::pool::{Key, Pool};
use crate::reply::refusals::{not_loaded, unknown_provider};
use crate::reply::{Code, Rendered, Reply};
use crate::secret::Secret;
use crate::time::Span;

/// The largest body. It has room for the most keys if they have a common length.
pub(crate) const MAX_BODY: usize = 512 << 10;
/// The most keys or ids in one edit.
const MAX_ITEMS: usize = 1000;

/// The kind of an edit, and its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `{"provider", "keys": […], "remark"?}`
    Add,
    /// `{"ids": […]}`
    Delete,
    /// `{"provider"?}`
    DeleteBlocked,
    /// `{"ids": […]}`
    Activate,
    /// `{"ids": […], "model"?}`
    Clear,
}

impl Verb {
    /// The verb with this name in the path.
    pub(crate) fn find(name: &str) -> Option<Verb> {
        let verbs = [Verb::Add, Verb::Delete, Verb::DeleteBlocked, Verb::Activate, Verb::Clear];
        verbs.into_iter().find(|verb| verb.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Verb::Add => "add",
            Verb::Delete => "delete",
            Verb::DeleteBlocked => "delete-blocked",
            Verb::Activate => "activate",
            Verb::Clear => "clear",
        }
    }
}

/// Checks that edits are possible and that the headers have the form of one.
///
/// # Errors
/// The reply to a request that cannot be an edit.
pub(crate) fn check(config: &Config, headers: &Headers) -> Result<(), Reply> {
    if config.console != config::Console::Edit {
        return Err(Reply::new(Code::ConsoleReadOnly, "The configuration makes the console read-only (console)."));
    }
    if config.d1.is_none() {
        return Err(Reply::new(Code::NoD1, "Without D1 the keys are in the configuration; edit them there."));
    }
    // A form of another site cannot send this type without a preflight request, which is not granted.
    let kind = headers.text("content-type").and_then(|kind| kind.split(';').next()).unwrap_or_default();
    if !kind.trim().eq_ignore_ascii_case("application/json") {
        return Err(Reply::new(Code::UnsupportedMediaType, "The content-type must be application/json."));
    }
    Ok(())
}

/// The reply to a body that is larger than [`MAX_BODY`].
pub fn too_large() -> Reply {
    Reply::new(Code::BodyTooLarge, format!("An edit has at most {MAX_BODY} bytes; send several."))
}

/// The answer: the number of keys or ids that have changed, have not, or are unknown.
#[derive(Serialize)]
struct Done {
    changed: usize,
    unchanged: usize,
    unknown: usize,
}

/// An edit that has been checked.
#[derive(Debug)]
pub struct Task {
    verb: Verb,
    edit: Edit,
    /// The number of keys or ids in the body.
    requested: usize,
    /// The number of ids that are not among D1's keys.
    unknown: usize,
}

impl Task {
    /// Reads and checks the body.
    ///
    /// # Errors
    /// The reply to a body with problems; it never contains a key.
    pub fn read(verb: Verb, body: &[u8], pool: &mut Pool, config: &Config) -> Result<Task, Reply> {
        let value: Value =
            serde_json::from_slice(body).map_err(|_| Reply::new(Code::InvalidJson, "The body is not JSON."))?;
        pool.refresh();
        if !pool.is_loaded() {
            return Err(not_loaded());
        }
        let mut problems = Vec::new();
        let mut reader = Reader::new("", value, &mut problems);
        let form = Form::read(verb, &mut reader);
        reader.finish();
        if !problems.is_empty() {
            return Err(Reply::new(Code::InvalidEdit, problems.join("; ")));
        }
        match verb {
            Verb::Add => form.add(pool, config),
            Verb::DeleteBlocked => form.delete_blocked(pool, config),
            Verb::Delete | Verb::Activate | Verb::Clear => Ok(form.of_ids(verb, pool)),
        }
    }

    /// The call that executes the edit; `None` if there is nothing to do.
    pub fn call(&self, config: &Config) -> Option<Call> {
        if self.requested == self.unknown {
            return None;
        }
        let path = config.d1.as_ref()?.path();
        Some(Call { path, body: api::body(&self.edit.statements()) })
    }

    /// The answer to an edit with nothing to do.
    pub(crate) fn nothing(&self) -> Rendered {
        self.done(0)
    }

    /// Applies the edit to the pool after D1's answer.
    ///
    /// # Errors
    /// The reply if D1 has not acknowledged the edit.
    pub fn answered(
        &self,
        pool: &mut Pool,
        host: &dyn Host,
        config: &Config,
        answer: &Answer,
    ) -> Result<Rendered, Reply> {
        let changed = self.edit.answered(pool, host, config, answer).map_err(failed)?;
        info!("console: {}: {changed} keys changed in D1", self.verb.name());
        Ok(self.done(changed))
    }

    fn done(&self, changed: usize) -> Rendered {
        let unchanged = self.requested.saturating_sub(changed).saturating_sub(self.unknown);
        super::json(&Done { changed, unchanged, unknown: self.unknown })
    }
}

/// The reply to an edit that D1 has not acknowledged.
pub(crate) fn failed(failure: Failure) -> Reply {
    let message = format!("{}; the pool is unchanged.", failure.advice());
    match failure {
        Failure::Unreachable | Failure::Server | Failure::RateLimited => {
            Reply::new(Code::D1Unavailable, message).retry_after(Span::secs(5))
        }
        _ => Reply::new(Code::D1Refused, message),
    }
}

/// The fields of a body.
#[derive(Default)]
struct Form {
    provider: Option<String>,
    keys: Vec<Secret>,
    remark: Option<String>,
    ids: BTreeSet<String>,
    model: Option<String>,
}

impl Form {
    /// Reads the fields of the verb; all other fields count as unknown.
    fn read(verb: Verb, reader: &mut Reader) -> Form {
        let mut form = Form::default();
        match verb {
            Verb::Add => {
                form.provider = reader.text("provider");
                form.keys = read_keys(reader);
                form.remark = reader.text("remark").map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
                let odd =
                    |remark: &String| remark.chars().count() > MAX_REMARK_CHARS || remark.chars().any(char::is_control);
                if form.remark.as_ref().is_some_and(odd) {
                    reader.problem("remark", format_args!("must be one line of at most {MAX_REMARK_CHARS} characters"));
                }
                if form.provider.is_none() {
                    reader.problem("provider", "required");
                }
            }
            Verb::DeleteBlocked => form.provider = reader.text("provider"),
            Verb::Delete | Verb::Activate => form.ids = read_ids(reader),
            Verb::Clear => {
                form.ids = read_ids(reader);
                form.model = reader.text("model");
            }
        }
        form
    }

    fn add(self, pool: &Pool, config: &Config) -> Result<Task, Reply> {
        let name = self.provider.unwrap_or_default();
        let slug = &config.upstream(&name).ok_or_else(|| unknown_provider(&name))?.slug;
        let read = config.d1.as_ref().map(|d1| d1.providers.as_slice()).unwrap_or_default();
        if !read.is_empty() && !read.iter().any(|other| other == slug) {
            let message = format!("d1_providers leaves out {slug}, so its keys in D1 would not be used here.");
            return Err(Reply::new(Code::InvalidEdit, message));
        }
        if rows(pool).count().saturating_add(self.keys.len()) > d1::MAX_KEYS {
            let message = format!("The pool takes at most {} keys from D1; delete some first.", d1::MAX_KEYS);
            return Err(Reply::new(Code::PoolFull, message));
        }
        let requested = self.keys.len();
        let edit = Edit::Add { slug: slug.to_owned(), keys: self.keys, remark: self.remark };
        Ok(Task { verb: Verb::Add, edit, requested, unknown: 0 })
    }

    fn delete_blocked(self, pool: &Pool, config: &Config) -> Result<Task, Reply> {
        let slug = match &self.provider {
            Some(name) => Some(config.upstream(name).ok_or_else(|| unknown_provider(name))?.slug.as_str()),
            None => None,
        };
        let blocked = |key: &Key| pool.record(key.id).is_some_and(|record: &Record| record.blocked.is_some());
        let found = rows(pool).filter(|(other, key, _)| slug.is_none_or(|slug| slug == *other) && blocked(key));
        let rows: Rows = found.take(MAX_ITEMS).map(|(_, key, row)| (row.to_owned(), key.id)).collect();
        Ok(Task { verb: Verb::DeleteBlocked, requested: rows.len(), edit: Edit::DeleteBlocked(rows), unknown: 0 })
    }

    fn of_ids(self, verb: Verb, pool: &Pool) -> Task {
        let found = rows(pool).filter(|(_, _, row)| self.ids.contains(*row));
        let rows: Rows = found.map(|(_, key, row)| (row.to_owned(), key.id)).collect();
        let (requested, unknown) = (self.ids.len(), self.ids.len().saturating_sub(rows.len()));
        let edit = match verb {
            Verb::Activate => Edit::Activate(rows),
            Verb::Clear => Edit::Clear(rows, self.model),
            _ => Edit::Delete(rows),
        };
        Task { verb, edit, requested, unknown }
    }
}

/// The keys that are in D1, with their providers and row ids.
fn rows(pool: &Pool) -> impl Iterator<Item = (&str, &Key, &str)> {
    pool.roster().iter().flat_map(|(slug, keys)| {
        keys.iter().filter_map(move |key| key.row.as_ref().map(|row| (slug, key, row.id.as_str())))
    })
}

fn read_keys(reader: &mut Reader) -> Vec<Secret> {
    let mut seen = BTreeSet::new();
    let mut keys = Vec::new();
    for (index, text) in read_items(reader, "keys").into_iter().enumerate() {
        let key = Secret::new(text.trim());
        if !key.is_credential() || text.len() > MAX_KEY_BYTES {
            reader.problem("keys", format_args!("number {} cannot be a key", index + 1));
        } else if seen.insert(key.clone()) {
            keys.push(key);
        }
    }
    keys
}

fn read_ids(reader: &mut Reader) -> BTreeSet<String> {
    read_items(reader, "ids").into_iter().collect()
}

fn read_items(reader: &mut Reader, name: &str) -> Vec<String> {
    let known = reader.has(name);
    let items = reader.texts(name).unwrap_or_default();
    if !known || items.is_empty() || items.len() > MAX_ITEMS {
        reader.problem(name, format_args!("must be a list of 1 to {MAX_ITEMS}"));
    }
    items.into_iter().take(MAX_ITEMS).collect()
}
