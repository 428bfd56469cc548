//! What is known about a key: its states and how it changes between them.
//!
//! ```text
//! ready ──429──▶ cooling (key, model) ──end stated by the provider──────────▶ ready
//!                    │ end was estimated
//!                    └──▶ on trial: a single request    ──success──▶ ready
//!                                                          └─429─────▶ cooling
//! ready ──credit spent──▶ resting (all models) ──▶ on trial ──▶ …
//! ready ──bad credential──▶ resting briefly ──refused again, by another client──▶ blocked, until D1 or the
//!                                                                                  configuration says otherwise
//! ```
//!
//! A key has a record only if something about it differs from a fresh key. All methods are pure: the time is an
//! argument.

use serde::{Deserialize, Serialize};

use super::bounded::{find_or_push, make_room};
use crate::time::{DAY, Span, Time};

/// The time of something that never happens.
pub const NEVER: Time = Time(u64::MAX);
/// How long a key is reserved for its trial request. If the request takes longer, other requests may use the key
/// again.
pub(crate) const TRIAL: Span = Span::secs(30);
/// The most models that are remembered for a key; the one whose cooling ends first is evicted.
pub(crate) const MAX_MODELS: usize = 64;

/// The state of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The key is blocked because its credential was refused.
    pub blocked: Option<Block>,
    /// The key is not used for any model.
    pub resting: Option<Pause>,
    /// Its credential was refused, which is not confirmed yet.
    pub refusal: Option<Refusal>,
    /// The models about which there is something to know.
    pub models: Vec<ModelState>,
    /// The last answer that counted against the key, for people to read; no decision depends on it. It is kept
    /// after a success, so that people can still see what happened.
    pub last_error: Option<LastError>,
}

/// The last answer that counted against a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// When the answer came.
    pub at: Time,
    /// The status and the words that decided. They come from lists in this program, never from a body.
    pub evidence: String,
}

/// A block for a bad credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// When the credential was refused.
    pub since: Time,
    /// Whether D1 has it.
    pub sync: SyncState,
}

/// A refused credential that waits for another request to confirm it: one request alone may have caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// When it was learned last.
    pub at: Time,
    /// The AUTH_KEY definition whose request saw it first.
    pub client: usize,
    /// How often in a row.
    pub times: u32,
}

/// What is known of a key for one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelState {
    /// The model's name.
    pub model: String,
    /// The number of 429s without a success in between.
    pub consecutive_429: u32,
    /// When the last 429 came. The success of an attempt that began before it is no evidence against it.
    pub last_429: Option<Time>,
    /// The daily quota for which a short delay was honoured once.
    pub quota: Option<u32>,
    /// How often in a row the key was refused for this model while others served it.
    pub refusals: u32,
    /// The cooling, also for some time after its end.
    pub cooling: Option<Pause>,
}

/// A period in which a key is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// When the pause began.
    pub from: Time,
    /// When the pause ends.
    pub until: Time,
    /// Why the key is paused.
    pub reason: Reason,
    /// How the pause ends.
    pub trial: Trial,
    /// Whether D1 has it.
    pub sync: SyncState,
}

/// Why a key is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// A 429 that did not state which limit was exceeded.
    Unstated,
    /// A limit per minute, or one of concurrent requests.
    RateLimit,
    /// The daily quota is spent.
    DailyQuota,
    /// The monthly quota is spent.
    MonthlyQuota,
    /// The credit is spent.
    Credit,
    /// The key's tier does not include the model.
    ModelAccess,
    /// A refusal without a stated reason.
    Forbidden,
    /// A successful answer stated that no quota remains.
    Exhausted,
    /// D1 has the cooling: the Worker or another Envoy wrote it.
    Remote,
}

impl Reason {
    /// The reasons that an answer can give, in the order of their metrics. [`Reason::Remote`] is not among them:
    /// the Envoy that learned it counts it.
    pub(crate) const LEARNED: [Self; 8] = [
        Self::Unstated,
        Self::RateLimit,
        Self::DailyQuota,
        Self::MonthlyQuota,
        Self::Credit,
        Self::ModelAccess,
        Self::Forbidden,
        Self::Exhausted,
    ];

    /// The name in logs, metrics and the status page.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Reason::Unstated => "unstated",
            Reason::RateLimit => "rate_limit",
            Reason::DailyQuota => "daily_quota",
            Reason::MonthlyQuota => "monthly_quota",
            Reason::Credit => "credit",
            Reason::ModelAccess => "model_access",
            Reason::Forbidden => "forbidden",
            Reason::Exhausted => "exhausted",
            Reason::Remote => "remote",
        }
    }
}

/// How a pause ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trial {
    /// The provider stated the end, and the key is used again then.
    Believed,
    /// The end was estimated: a single request tries the key before others use it.
    Needed,
    /// The trial request is under way; no other request uses the key before this time.
    Out(Time),
}

/// Whether D1 has something that was learned here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncState {
    /// It has waited since then to be sent, and overrides D1's row.
    Pending(Time),
    /// D1 acknowledged it then. A read that began before may not include it.
    Acknowledged(Time),
    /// It is never sent, because the Worker's table cannot hold it.
    Local,
}

impl SyncState {
    /// Whether a read of D1 that began at `started` overrides it.
    pub(crate) fn yields_to(self, started: Time) -> bool {
        matches!(self, SyncState::Acknowledged(since) if since < started)
    }
}

impl Pause {
    /// The first moment at which this pause no longer prevents the key's use.
    pub(crate) fn available_from(&self) -> Time {
        match self.trial {
            Trial::Out(until) => self.until.max(until),
            Trial::Believed | Trial::Needed => self.until,
        }
    }

    fn needs_trial(&self) -> bool {
        self.trial != Trial::Believed
    }
}

impl Record {
    /// The state of a model; `None` if nothing is known about it.
    pub fn model(&self, model: &str) -> Option<&ModelState> {
        self.models.iter().find(|state| state.model == model)
    }

    /// The state of a model, added if there is none. If the list is full, the oldest one is evicted.
    pub fn model_mut(&mut self, model: &str) -> &mut ModelState {
        if self.model(model).is_none() {
            make_room(&mut self.models, MAX_MODELS, |state| {
                state.cooling.map(|cooling| cooling.until).or(state.last_429)
            });
        }
        let new = || ModelState { model: model.to_owned(), ..ModelState::default() };
        find_or_push(&mut self.models, |state| state.model == model, new)
    }

    /// The first moment at which the key can be used for the model: the epoch if nothing prevents it, and [`NEVER`]
    /// if the key is blocked.
    pub(crate) fn available_from(&self, model: &str) -> Time {
        if self.blocked.is_some() {
            return NEVER;
        }
        self.pauses(model).map(Pause::available_from).max().unwrap_or_default()
    }

    /// Whether the next request for the model has to be a trial.
    pub(crate) fn needs_trial(&self, model: &str) -> bool {
        self.pauses(model).any(Pause::needs_trial)
    }

    fn pauses(&self, model: &str) -> impl Iterator<Item = &Pause> {
        self.resting.iter().chain(self.model(model).and_then(|state| state.cooling.as_ref()))
    }

    fn pauses_mut(&mut self, model: &str) -> impl Iterator<Item = &mut Pause> {
        let state = self.models.iter_mut().find(|state| state.model == model);
        self.resting.iter_mut().chain(state.and_then(|state| state.cooling.as_mut()))
    }

    /// Reserves the key for a trial request. False if the key cannot be used now, because another worker was faster.
    #[must_use]
    pub(crate) fn claim_trial(&mut self, model: &str, now: Time) -> bool {
        if self.available_from(model) > now {
            return false;
        }
        for pause in self.pauses_mut(model).filter(|pause| pause.needs_trial()) {
            pause.trial = Trial::Out(now.plus(TRIAL));
        }
        true
    }

    /// Ends a trial that revealed nothing about the key, so that another request can try it.
    pub(crate) fn release_trial(&mut self, model: &str) {
        for pause in self.pauses_mut(model) {
            if let Trial::Out(_) = pause.trial {
                pause.trial = Trial::Needed;
            }
        }
    }

    /// An attempt that began at `leased` has succeeded. This ends what was learned before the attempt began; later
    /// 429s and pauses stay.
    pub(crate) fn succeeded(&mut self, model: &str, leased: Time) {
        self.resting = self.resting.filter(|rest| rest.from > leased);
        self.refusal = self.refusal.filter(|refusal| refusal.at > leased);
        self.models.retain(|state| {
            let newer = state.last_429.is_some_and(|last| last > leased)
                || state.cooling.is_some_and(|cooling| cooling.from > leased);
            state.model != model || newer
        });
    }

    /// Cools the key for a model, until the later of the old and the new end.
    pub fn cool(&mut self, model: &str, pause: Pause) {
        let state = self.model_mut(model);
        state.cooling = Some(longer(state.cooling, pause));
    }

    /// Rests the key for all models, until the later of the old and the new end.
    pub(crate) fn rest(&mut self, pause: Pause) {
        self.resting = Some(longer(self.resting, pause));
    }

    /// Removes everything that ended more than a day ago; true if nothing is left.
    pub(crate) fn expire(&mut self, now: Time) -> bool {
        let over = |end: Time| end.plus(DAY) < now;
        self.models.retain(|state| {
            let end = state.cooling.map(|cooling| cooling.until).max(state.last_429);
            end.is_some_and(|end| !over(end))
        });
        if self.resting.is_some_and(|rest| over(rest.until)) {
            self.resting = None;
        }
        if self.refusal.is_some_and(|refusal| over(refusal.at)) {
            self.refusal = None;
        }
        if self.last_error.as_ref().is_some_and(|error| over(error.at)) {
            self.last_error = None;
        }
        *self == Record::default()
    }
}

/// The pause that ends later. If the old one has ended before the new one begins, the new one.
fn longer(old: Option<Pause>, new: Pause) -> Pause {
    match old {
        Some(old) if old.until >= new.until => Pause { trial: settled(old.trial), ..old },
        Some(old) if old.until > new.from => Pause { from: old.from, ..new },
        _ => new,
    }
}

/// The trial of a pause that was extended: a trial under way has failed, so that another is needed.
fn settled(trial: Trial) -> Trial {
    if trial == Trial::Believed { trial } else { Trial::Needed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pause(from: u64, until: u64, trial: Trial) -> Pause {
        Pause { from: Time(from), until: Time(until), reason: Reason::Unstated, trial, sync: SyncState::Local }
    }

    #[test]
    fn a_guessed_end_lets_one_request_go_first() {
        let mut record = Record::default();
        record.cool("m", pause(0, 100, Trial::Needed));
        assert!(!record.claim_trial("m", Time(99)), "still cooling");
        assert!(record.needs_trial("m"));
        assert!(record.claim_trial("m", Time(100)));
        assert!(!record.claim_trial("m", Time(101)), "a trial is under way");
        record.release_trial("m");
        assert!(record.claim_trial("m", Time(102)));
        let end = Time(102).plus(TRIAL);
        assert!(record.claim_trial("m", end), "a trial that never ends does not reserve the key forever");
        record.succeeded("m", end);
        assert_eq!(record, Record::default());
    }

    #[test]
    fn other_models_are_not_affected() {
        let mut record = Record::default();
        record.cool("m", pause(0, 100, Trial::Believed));
        assert_eq!((record.available_from("m"), record.available_from("n")), (Time(100), Time(0)));
        record.rest(pause(0, 50, Trial::Needed));
        assert_eq!((record.available_from("m"), record.available_from("n")), (Time(100), Time(50)));
        record.blocked = Some(Block { since: Time(1), sync: SyncState::Local });
        assert_eq!(record.available_from("n"), NEVER);
    }

    #[test]
    fn a_success_from_before_the_429_changes_nothing() {
        let mut record = Record::default();
        record.cool("m", pause(10, 100, Trial::Believed));
        record.model_mut("m").last_429 = Some(Time(10));
        record.succeeded("m", Time(5));
        assert_eq!(record.available_from("m"), Time(100));
        record.succeeded("n", Time(150));
        assert!(record.model("m").is_some(), "another model");
        record.succeeded("m", Time(150));
        assert!(record.model("m").is_none());
    }

    #[test]
    fn models_are_bounded() {
        let mut record = Record::default();
        for index in 0..=MAX_MODELS as u64 {
            record.cool(&format!("m{index}"), pause(0, 1000 + index, Trial::Believed));
        }
        assert_eq!(record.models.len(), MAX_MODELS);
        assert!(record.model("m0").is_none() && record.model("m1").is_some(), "the first to end was evicted");
    }

    #[test]
    fn what_is_long_over_is_forgotten() {
        let mut record = Record::default();
        record.cool("m", pause(0, 1000, Trial::Believed));
        assert!(!record.expire(Time(1000).plus(DAY)));
        record.last_error = Some(LastError { at: Time(2000), evidence: "429".to_owned() });
        assert!(!record.expire(Time(2000).plus(DAY)));
        assert!(record.models.is_empty() && record.last_error.is_some());
        assert!(record.expire(Time(2001).plus(DAY)));
    }

    proptest! {
        #[test]
        fn an_end_never_comes_nearer(ends in proptest::collection::vec((0u64..1000, 0u64..1000), 1..20)) {
            let mut record = Record::default();
            let mut now = 0;
            for (step, length) in ends {
                now += step;
                let before = record.available_from("m");
                record.cool("m", pause(now, now + length, Trial::Believed));
                let after = record.available_from("m");
                prop_assert!(after >= before && after >= Time(now + length));
            }
        }
    }
}
