//! The pool as JSON: the state of each provider's keys, and the status of the sync with D1.
//!
//! Without a provider in the query, the answer only counts keys; the cost is proportional to the number of records,
//! which only keys with a history have. With a provider it also lists that provider's keys, at most [`MAX_LIMIT`] at
//! a time. Searching and sorting examine all keys of the provider once, in the worker's decoded copy, without host
//! calls.

use std::cmp::Reverse;

use serde::Serialize;

use crate::config::{Config, Console};
use crate::d1;
use crate::host::Host;
use crate::http::url;
use crate::pool::record::{Pause, Record, Trial};
use crate::pool::{Key, KeyCounts, KeyState, Pool};
use crate::reply::refusals::unknown_provider;
use crate::reply::{Code, Rendered, Reply};
use crate::time::{Span, Time};

/// The number of keys in an answer if the query sets no limit.
const LIMIT: usize = 50;
/// The most keys in an answer.
pub(crate) const MAX_LIMIT: usize = 200;
/// The most coolings that are listed for a key; those that end last are listed.
const MAX_COOLINGS: usize = 8;

/// The query of a status request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The provider whose keys are listed; `None` lists no keys.
    pub provider: Option<String>,
    /// Lists only keys in this state.
    pub state: Option<KeyState>,
    /// Lists only keys whose remark, id or mask contains this text, which is in lower case.
    pub search: String,
    /// Lists the keys that cool longest first, instead of in the pool's order.
    pub longest_first: bool,
    /// The number of keys to skip.
    pub offset: usize,
    /// The most keys to list.
    pub limit: usize,
}

impl Query {
    /// Parses the query of a path.
    ///
    /// # Errors
    /// The reply to a query with an invalid value.
    pub fn read(query: &str) -> Result<Query, Reply> {
        let text = |name: &'static str| url::query_value(query, name).filter(|value| !value.is_empty());
        let number = |name: &'static str, default: usize| match text(name) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| wrong(name, "a whole number")),
        };
        let state = match text("state") {
            None => None,
            Some(name) => Some(
                KeyState::ALL
                    .into_iter()
                    .find(|state| state.name() == name)
                    .ok_or_else(|| wrong("state", "one of ready, cooling, resting, blocked"))?,
            ),
        };
        let longest_first = match text("sort").as_deref() {
            None => false,
            Some("cooling") => true,
            Some(_) => return Err(wrong("sort", "cooling")),
        };
        Ok(Query {
            provider: text("provider").map(|name| name.into_owned()),
            state,
            search: text("search").map(|words| words.to_lowercase()).unwrap_or_default(),
            longest_first,
            offset: number("offset", 0)?,
            limit: number("limit", LIMIT)?.clamp(1, MAX_LIMIT),
        })
    }
}

fn wrong(name: &'static str, expected: &str) -> Reply {
    Reply::new(Code::InvalidQuery, format!("`{name}` must be {expected}.")).param(name)
}

/// The answer. Times are RFC 3339 in UTC.
#[derive(Serialize)]
struct StatusView<'a> {
    version: &'static str,
    time: String,
    /// Whether edits are accepted.
    editable: bool,
    /// The sync with D1; `null` without D1.
    d1: Option<D1View>,
    providers: Vec<ProviderView<'a>>,
    /// The providers for which keys can be added.
    known_providers: Vec<&'a str>,
    /// `null` unless the query names a provider.
    keys: Option<KeyList<'a>>,
}

#[derive(Serialize)]
struct D1View {
    /// Whether D1's keys are in the pool.
    loaded: bool,
    /// When the snapshot in force was read, and its age.
    read_at: Option<String>,
    age_seconds: Option<u64>,
    /// The number of blocks and coolings that D1 does not have yet.
    waiting_to_be_written: u32,
    /// Why the last call failed, and what to do about it.
    failure: Option<&'static str>,
    advice: Option<&'static str>,
}

/// The keys of a provider by state.
#[derive(Serialize)]
struct ProviderView<'a> {
    provider: &'a str,
    keys: u64,
    ready: u64,
    cooling: u64,
    resting: u64,
    blocked: u64,
    /// The time until every model has a ready key again; `null` if each has one.
    recovery_seconds: Option<u64>,
    /// The end of the provider's rest, which it takes when the keys are not at fault.
    rests_until: Option<String>,
}

#[derive(Serialize)]
struct KeyList<'a> {
    provider: &'a str,
    /// The number of keys that match. `list` has those from `offset` on.
    found: usize,
    offset: usize,
    list: Vec<KeyView<'a>>,
}

#[derive(Serialize)]
struct KeyView<'a> {
    id: String,
    mask: String,
    remark: Option<&'a str>,
    /// `d1` or `configuration`.
    source: &'static str,
    state: &'static str,
    blocked_since: Option<String>,
    resting: Option<PauseView<'a>>,
    /// Sorted by their ends, the last one first.
    coolings: Vec<PauseView<'a>>,
    /// The number of coolings that are not listed.
    more_coolings: usize,
    /// The last answer that counted against the key.
    last: Option<LastErrorView<'a>>,
}

#[derive(Serialize)]
struct PauseView<'a> {
    /// `null` for all models.
    model: Option<&'a str>,
    since: String,
    until: String,
    reason: &'static str,
    /// Whether a trial request is under way.
    on_trial: bool,
}

#[derive(Serialize)]
struct LastErrorView<'a> {
    at: String,
    evidence: &'a str,
}

/// The answer to a query.
///
/// # Errors
/// The reply to an unknown provider.
pub fn answer(pool: &mut Pool, host: &dyn Host, config: &Config, query: &Query) -> Result<Rendered, Reply> {
    let now = host.now();
    pool.refresh();
    let pool = &*pool;
    let keys = match &query.provider {
        None => None,
        Some(name) => match config.upstream(name) {
            Some(upstream) => Some(keys(pool, &upstream.slug, query, now)),
            None => return Err(unknown_provider(name)),
        },
    };
    let read = config.d1.as_ref().map(|d1| d1.providers.as_slice()).unwrap_or_default();
    let known = config.upstreams.keys().filter(|slug| read.is_empty() || read.contains(slug));
    Ok(super::json(&StatusView {
        version: env!("CARGO_PKG_VERSION"),
        time: now.to_string(),
        editable: config.d1.is_some() && config.console == Console::Edit,
        d1: config.d1.is_some().then(|| sync(&d1::Status::read(host), pool, now)),
        providers: providers(pool, now),
        known_providers: known.map(String::as_str).collect(),
        keys,
    }))
}

fn sync(status: &d1::Status, pool: &Pool, now: Time) -> D1View {
    let read = status.snapshot;
    D1View {
        loaded: pool.is_loaded(),
        read_at: read.map(|read| read.to_string()),
        age_seconds: read.map(|read| read.until(now).0 / 1000),
        waiting_to_be_written: status.outbox,
        failure: status.failure.map(d1::api::Failure::name),
        advice: status.failure.map(d1::api::Failure::advice),
    }
}

/// The counts of every provider that has keys.
fn providers(pool: &Pool, now: Time) -> Vec<ProviderView<'_>> {
    let count = |(provider, counts): (_, KeyCounts)| {
        let KeyCounts { ready, cooling, resting, blocked, recovery } = counts;
        let rests_until = pool.provider(provider).and_then(|state| state.some_rest(now));
        ProviderView {
            provider,
            keys: ready + cooling + resting + blocked,
            ready,
            cooling,
            resting,
            blocked,
            recovery_seconds: recovery.map(Span::as_secs_up),
            rests_until: rests_until.map(|until| until.to_string()),
        }
    };
    pool.key_counts(now).into_iter().map(count).collect()
}

fn state_of(record: Option<&Record>, now: Time) -> KeyState {
    record.map_or(KeyState::Ready, |record| record.state(now))
}

fn keys<'a>(pool: &'a Pool, slug: &'a str, query: &Query, now: Time) -> KeyList<'a> {
    let matches = |key: &&Key| {
        query.state.is_none_or(|state| state_of(pool.record(key.id), now) == state)
            && (query.search.is_empty() || matches_search(key, &query.search))
    };
    let mut found: Vec<&Key> = pool.roster().keys(slug).iter().filter(matches).collect();
    if query.longest_first {
        let end = |key: &Key| pool.record(key.id).map_or(Time(0), |record| last_end(record, now));
        // The sort is stable: keys that end together stay in the pool's order.
        found.sort_by_key(|key| Reverse(end(key)));
    }
    let listed = found.iter().skip(query.offset).take(query.limit);
    KeyList {
        provider: slug,
        found: found.len(),
        offset: query.offset,
        list: listed.map(|key| shown(key, pool.record(key.id), now)).collect(),
    }
}

/// Whether a key's remark, id or mask contains `words`. It runs for ten thousand keys at once, so it allocates only
/// what could match.
fn matches_search(key: &Key, words: &str) -> bool {
    let within = |part: &str| part.len() >= words.len() && part.to_lowercase().contains(words);
    if let Some(row) = &key.row
        && (within(&row.id) || row.remark.as_ref().is_some_and(|remark| remark.to_lowercase().contains(words)))
    {
        return true;
    }
    let (head, tail) = key.secret.edges();
    // The words are a mask as it is shown.
    if let Some((first, last)) = words.split_once('…') {
        return head.to_lowercase() == first && tail.to_lowercase() == last;
    }
    let may_be_id = key.row.is_none() && words.bytes().all(|byte| byte.is_ascii_hexdigit());
    within(head) || within(tail) || may_be_id && key.id.to_string().contains(words)
}

fn shown<'a>(key: &'a Key, record: Option<&'a Record>, now: Time) -> KeyView<'a> {
    let mut ends: Vec<(&str, &Pause)> = record.map(|record| coolings(record, now).collect()).unwrap_or_default();
    ends.sort_by_key(|(_, pause)| Reverse(pause.available_from()));
    let resting = record.and_then(|record| record.resting.as_ref()).filter(|rest| running(Some(rest), now));
    KeyView {
        id: key.shown_id(),
        mask: key.secret.mask(),
        remark: key.row.as_ref().and_then(|row| row.remark.as_deref()),
        source: if key.row.is_some() { "d1" } else { "configuration" },
        state: state_of(record, now).name(),
        blocked_since: record.and_then(|record| record.blocked).map(|block| block.since.to_string()),
        resting: resting.map(|rest| pause(None, rest)),
        coolings: ends.iter().take(MAX_COOLINGS).map(|(model, cooling)| pause(Some(model), cooling)).collect(),
        more_coolings: ends.len().saturating_sub(MAX_COOLINGS),
        last: record
            .and_then(|record| record.last_error.as_ref())
            .map(|error| LastErrorView { at: error.at.to_string(), evidence: &error.evidence }),
    }
}

fn pause<'a>(model: Option<&'a str>, pause: &Pause) -> PauseView<'a> {
    PauseView {
        model,
        since: pause.from.to_string(),
        until: pause.available_from().to_string(),
        reason: pause.reason.name(),
        on_trial: matches!(pause.trial, Trial::Out(_)),
    }
}

fn coolings(record: &Record, now: Time) -> impl Iterator<Item = (&str, &Pause)> {
    let models = record.models.iter().filter_map(|state| Some((state.model.as_str(), state.cooling.as_ref()?)));
    models.filter(move |(_, cooling)| running(Some(cooling), now))
}

fn running(pause: Option<&Pause>, now: Time) -> bool {
    pause.is_some_and(|pause| pause.available_from() > now)
}

/// The end of the pause that ends last; a block is ignored, because it has no end.
fn last_end(record: &Record, now: Time) -> Time {
    let pauses = record.resting.iter().chain(coolings(record, now).map(|(_, cooling)| cooling));
    pauses.map(Pause::available_from).filter(|end| *end > now).max().unwrap_or_default()
}
