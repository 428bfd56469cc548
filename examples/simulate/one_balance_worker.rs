//! The policy of the Worker one-balance (glidea/one-balance at c0566d6), faults included.
//!
//! One isolate is modelled, as workerd runs it on one machine. What decides how much it serves:
//!
//! - The active keys of a provider are read from D1 into an array that all requests of the isolate share
//!   (src/service/key.ts, `listActiveKeysViaCache`), and read again when it is 60 s old, or when the isolate
//!   has written to D1 in the meantime.
//! - A 429 takes the key out of that very array, for all requests and models, until it is read again
//!   (src/api.ts, `activeKeys.splice(activeKeys.indexOf(selectedKey), 1)`, unless it has 500 or more keys).
//!   A second 429 of the same key, which was under way in the meantime, finds index -1, and `splice(-1, 1)`
//!   takes out the array's last key, which has done nothing. So each 429 costs one key, whoever deserved it.
//! - An empty array is a 503 (`No active keys available`), whatever the keys could serve by then.
//! - The key is a random one that does not cool, else that whose cooling ends first (`selectKey`). That one
//!   is not a last resort: it is used again and again until it gets a 429.
//! - The cooling is written to D1 only if the key does not cool already (`setKeyModelCooldownIfAvailable`).
//!   So a key that cools for a day goes on to serve as the one that is ready first, its 429s write nothing,
//!   and the array is not read again before it is 60 s old: 20 keys give 20 429s a minute, and then 503s.
//! - The second 429 of a key cools it until midnight, for the count goes by the key's text and a success
//!   deletes by the row's id (`consecutive429Count`); midnight is reckoned by the wall clock, wrongly on
//!   days that are not 24 hours long and in the first hour of each day (src/util.ts, `getSecondsUntilMidnightPT`).
//! - 401, 403 and Google's `API_KEY_INVALID` block a key for good; other 4xx go to the client; 5xx are tried
//!   again at once, 30 attempts in all, also with the same key.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use fastrand::Rng;
use one_balance::time::{DAY, MINUTE, Span, Time};

use crate::policy::{Policy, Request, Step};
use crate::provider::Answer;

const MAX_RETRIES: usize = 30;
const CONSECUTIVE_429_THRESHOLD: u32 = 2;
/// How often a key is drawn before all are looked at.
const RANDOM_TRIES: usize = 10;
/// How old the active keys of an isolate get.
const CACHE_MAX_AGE: Span = MINUTE;
/// The most rows that are read at once.
const ROWS: usize = 1000;
/// From this number on no key is taken out.
const MANY: usize = 500;
/// How long D1 takes to write.
const WRITE: Span = Span(10);

/// A key as it was read from D1. The ends of its coolings are Unix seconds.
#[derive(Clone)]
pub struct ActiveKey {
    number: usize,
    cooling_ends: Rc<Vec<(&'static str, i64)>>,
}

impl ActiveKey {
    fn cooling_end(&self, model: &str) -> i64 {
        self.cooling_ends.iter().find(|(name, _)| *name == model).map_or(0, |(_, end)| *end)
    }
}

/// The array that all requests share that came while it was the isolate's latest.
pub type ActiveKeys = Rc<RefCell<Vec<ActiveKey>>>;

enum Write {
    Block(usize),
    /// A key's cooling for a model, which is seen at the first time and ends at the second.
    Cool(usize, &'static str, i64, i64),
}

pub struct OneBalance {
    is_google: bool,
    /// D1's rows of status `active`, by the key's number.
    rows: Vec<Option<ActiveKey>>,
    /// What is on its way to D1, and when it gets there.
    writes: VecDeque<(Time, Write)>,
    cache: Option<(ActiveKeys, Time)>,
    limited: Vec<u32>,
    rng: Rng,
}

impl OneBalance {
    pub fn new(slug: &str, keys: usize, seed: u64) -> Self {
        OneBalance {
            is_google: slug == "google-ai-studio",
            rows: (0..keys).map(|number| Some(ActiveKey { number, cooling_ends: Rc::default() })).collect(),
            writes: VecDeque::new(),
            cache: None,
            limited: vec![0; keys],
            rng: Rng::with_seed(seed),
        }
    }

    /// Does in D1 what has got there. Whatever changes a row makes the cache dirty.
    fn write(&mut self, now: Time) {
        while let Some((_, write)) = self.writes.pop_front_if(|(at, _)| *at <= now) {
            match write {
                Write::Block(key) => self.rows[key] = None,
                Write::Cool(key, model, seen, end) => match &mut self.rows[key] {
                    Some(row) if row.cooling_end(model) <= seen => {
                        let ends = Rc::make_mut(&mut row.cooling_ends);
                        ends.retain(|(name, _)| *name != model);
                        ends.push((model, end));
                    }
                    _ => continue,
                },
            }
            self.cache = None;
        }
    }

    fn active_keys(&mut self, now: Time) -> ActiveKeys {
        match &self.cache {
            Some((keys, read)) if read.until(now) < CACHE_MAX_AGE => keys.clone(),
            _ => {
                let mut rows: Vec<ActiveKey> = self.rows.iter().flatten().cloned().collect();
                self.rng.shuffle(&mut rows);
                rows.truncate(ROWS);
                let keys = Rc::new(RefCell::new(rows));
                self.cache = Some((keys.clone(), now));
                keys
            }
        }
    }

    fn cooling_secs(&mut self, key: usize, body: &[u8], now: Time) -> i64 {
        let day = DAY.as_secs_up() as i64;
        self.limited[key] += 1;
        if self.limited[key] >= CONSECUTIVE_429_THRESHOLD {
            self.limited[key] = 0;
            return if self.is_google { until_midnight(now) } else { day };
        }
        match Details::of(body) {
            Some(details) if self.is_google && details.is_daily() => until_midnight(now),
            Some(details) if self.is_google => details.retry_delay().map_or(65, |secs| secs + 2),
            _ => 65,
        }
    }
}

impl Policy for OneBalance {
    fn pick(&mut self, request: &mut Request, now: Time) -> Option<usize> {
        self.write(now);
        if request.model.is_empty() || request.tried.len() >= MAX_RETRIES {
            return None;
        }
        let keys = match &request.active_keys {
            Some(keys) => keys.clone(),
            None => request.active_keys.insert(self.active_keys(now)).clone(),
        };
        let keys = keys.borrow();
        let secs = now.as_secs() as i64;
        let lucky = (0..RANDOM_TRIES)
            .find_map(|_| self.rng.choice(keys.as_slice()).filter(|key| key.cooling_end(request.model) <= secs));
        let key = lucky.or_else(|| {
            let (mut ready, mut first) = (Vec::new(), None);
            for key in keys.iter() {
                let end = key.cooling_end(request.model);
                if end <= secs {
                    ready.push(key);
                } else if first.is_none_or(|(earliest, _)| end < earliest) {
                    first = Some((end, key));
                }
            }
            self.rng.choice(ready).or(first.map(|(_, key)| key))
        });
        key.map(|key| key.number)
    }

    fn learn(&mut self, request: &mut Request, answer: &Answer, now: Time) -> Step {
        let Some(&key) = request.tried.last() else { return Step::Failed };
        let write = match answer.status {
            200 => return Step::Served,
            500 | 502..=504 => return Step::Retry,
            401 | 403 => Write::Block(key),
            400 if self.is_google && Details::of(&answer.body).is_some_and(|details| details.is_key_invalid()) => {
                Write::Block(key)
            }
            429 => {
                let end = now.plus(Span(500)).as_secs() as i64 + self.cooling_secs(key, &answer.body, now);
                Write::Cool(key, request.model, now.as_secs() as i64, end)
            }
            _ => return Step::Failed,
        };
        self.writes.push_back((now.plus(WRITE), write));
        if let Some(keys) = &request.active_keys {
            let mut keys = keys.borrow_mut();
            if keys.len() < MANY {
                // JavaScript's splice takes index -1 for the last one.
                match keys.iter().position(|active| active.number == key) {
                    Some(place) => drop(keys.remove(place)),
                    None => drop(keys.pop()),
                }
            }
        }
        Step::Retry
    }

    fn backoff(&self, _: usize) -> Span {
        Span(0)
    }
}

/// Negative in the first hour of a day: the formatter writes 24:10:00 at ten past midnight.
fn until_midnight(now: Time) -> i64 {
    let stamp = jiff::Timestamp::from_millisecond(now.0 as i64).expect("a time of our century");
    let wall = stamp.to_zoned_datetime(jiff::tz::get!("America/Los_Angeles").clone());
    let hour = if wall.hour() == 0 { 24 } else { i64::from(wall.hour()) };
    24 * 3600 - (hour * 3600 + i64::from(wall.minute()) * 60 + i64::from(wall.second()))
}

/// `error.details` of an answer of Google.
struct Details(Vec<serde_json::Value>);

impl Details {
    fn of(body: &[u8]) -> Option<Self> {
        let body: serde_json::Value = serde_json::from_slice(body).ok()?;
        Some(Details(body["error"]["details"].as_array()?.clone()))
    }

    fn get(&self, name: &str) -> Option<&serde_json::Value> {
        self.0.iter().find(|detail| detail["@type"].as_str().is_some_and(|text| text.ends_with(name)))
    }

    fn is_key_invalid(&self) -> bool {
        self.get("ErrorInfo").is_some_and(|info| info["reason"] == "API_KEY_INVALID")
    }

    fn is_daily(&self) -> bool {
        let violations = self.get("QuotaFailure").and_then(|detail| detail["violations"].as_array());
        violations
            .into_iter()
            .flatten()
            .any(|one| one["quotaId"] == "GenerateRequestsPerDayPerProjectPerModel-FreeTier")
    }

    fn retry_delay(&self) -> Option<i64> {
        self.get("RetryInfo")?["retryDelay"].as_str()?.trim_end_matches('s').parse().ok()
    }
}
