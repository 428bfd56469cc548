//! What is known of a key: the states of its life.
//!
//! ```text
//! ready ──429──▶ cooling (key, model) ──end stated by the provider──────────▶ ready
//!                    │ end was a guess
//!                    └──▶ on trial: one request goes first ──success──▶ ready
//!                                                          └─429─────▶ cooling
//! ready ──credit spent──▶ resting (all models) ──▶ on trial ──▶ …
//! ready ──bad credential──▶ blocked, until D1 or the configuration says otherwise
//! ```
//!
//! A record exists only for a key about which there is something to know. All methods are pure:
//! they change the record they are given, at the time they are given.

use serde::{Deserialize, Serialize};

use crate::time::{DAY, Span, Time};

/// A time that does not come.
pub const NEVER: Time = Time(u64::MAX);
/// How long one request may be the one that goes first. A request that hangs longer than this does
/// not keep the key from the others.
pub const TRIAL: Span = Span::secs(30);
/// The most models of a key that are remembered; the one whose cooling ends first makes room.
pub const MAX_MODELS: usize = 64;

/// The state of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The key is dead, since then.
    pub blocked: Option<Block>,
    /// The key rests for all models.
    pub resting: Option<Pause>,
    /// The models about which there is something to know.
    pub models: Vec<ModelState>,
    /// The last answer that said something against the key, for people; no decision depends on it.
    /// It outlives a success, so that what happened can be read afterwards.
    pub last: Option<LastError>,
}

/// What an answer said against a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// When.
    pub at: Time,
    /// The status and what decided beside it: words of our own lists, never of a body.
    pub evidence: String,
}

/// A block for a bad credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// When it was learned.
    pub since: Time,
    /// What D1 knows of it.
    pub sync: SyncState,
}

/// What is known of a key for one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelState {
    /// Its name.
    pub model: String,
    /// 429s in a row, each one counted.
    pub consecutive_429: u32,
    /// The newest 429; an attempt that began before it says nothing new by succeeding.
    pub last_429: Time,
    /// The daily quota that a short delay was believed for once.
    pub quota: Option<u32>,
    /// The cooling, also for some time after its end.
    pub cooling: Option<Pause>,
}

/// A time in which a key is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// When it began.
    pub from: Time,
    /// When it ends.
    pub until: Time,
    /// Why.
    pub reason: Reason,
    /// How it ends.
    pub trial: Trial,
    /// What D1 knows of it.
    pub sync: SyncState,
}

/// Why a key is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// A 429 that did not say which limit it was.
    Unstated,
    /// A limit per minute or of concurrency.
    RateLimit,
    /// The day's quota.
    DailyQuota,
    /// The month's quota.
    MonthlyQuota,
    /// The credit is spent.
    Credit,
    /// The model is not in this key's tier.
    ModelAccess,
    /// A refusal that does not say why.
    Forbidden,
    /// The answer said that nothing remains.
    Exhausted,
    /// D1 says so: the Worker or another Envoy found out.
    Remote,
}

impl Reason {
    /// The reasons that an answer can give, in the order of their metrics. [`Reason::Remote`] is not among them:
    /// it is counted where it was found out.
    pub const LEARNED: [Self; 8] = [
        Self::Unstated,
        Self::RateLimit,
        Self::DailyQuota,
        Self::MonthlyQuota,
        Self::Credit,
        Self::ModelAccess,
        Self::Forbidden,
        Self::Exhausted,
    ];

    /// Its name in logs, metrics and the status page.
    #[must_use]
    pub fn name(self) -> &'static str {
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
    /// The provider stated the end and is believed.
    Believed,
    /// The end was a guess: one request goes first.
    Needed,
    /// That request is under way; until then nobody else goes.
    Out(Time),
}

/// What D1 knows of something that was learned here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncState {
    /// Not yet: it waits to be sent, since then, and lies over what D1 says.
    Pending(Time),
    /// Since then; reads that began before may still miss it.
    Acknowledged(Time),
    /// It is none of D1's business: the Worker's table has no place for it.
    Local,
}

impl SyncState {
    /// Whether a read of D1 that began at `started` decides over it.
    #[must_use]
    pub fn yields_to(self, started: Time) -> bool {
        matches!(self, SyncState::Acknowledged(since) if since < started)
    }
}

impl Pause {
    /// When the key can be used as far as this pause goes.
    #[must_use]
    pub fn available_from(&self) -> Time {
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
    /// What is known of a model.
    #[must_use]
    pub fn model(&self, model: &str) -> Option<&ModelState> {
        self.models.iter().find(|state| state.model == model)
    }

    /// The state of a model, made if there is none. The oldest one makes room when there are too many.
    pub fn model_mut(&mut self, model: &str) -> &mut ModelState {
        let place = match self.models.iter().position(|state| state.model == model) {
            Some(place) => place,
            None => {
                if self.models.len() >= MAX_MODELS {
                    let key = |state: &ModelState| state.cooling.map_or(state.last_429, |cooling| cooling.until);
                    let oldest = self.models.iter().enumerate().min_by_key(|(_, state)| key(state));
                    if let Some(oldest) = oldest.map(|(place, _)| place) {
                        self.models.swap_remove(oldest);
                    }
                }
                self.models.push(ModelState { model: model.to_owned(), ..ModelState::default() });
                self.models.len() - 1
            }
        };
        // The place was found or just made.
        #[expect(clippy::indexing_slicing, reason = "the place was found or made above")]
        &mut self.models[place]
    }

    /// The first moment at which the key can be used for the model; `Time(0)` if nothing is in the
    /// way, [`NEVER`] if the key is blocked.
    #[must_use]
    pub fn available_from(&self, model: &str) -> Time {
        if self.blocked.is_some() {
            return NEVER;
        }
        self.pauses(model).map(Pause::available_from).max().unwrap_or_default()
    }

    /// Whether the next request for the model goes first, before others follow.
    #[must_use]
    pub fn needs_trial(&self, model: &str) -> bool {
        self.pauses(model).any(Pause::needs_trial)
    }

    fn pauses(&self, model: &str) -> impl Iterator<Item = &Pause> {
        self.resting.iter().chain(self.model(model).and_then(|state| state.cooling.as_ref()))
    }

    /// Sends one request first. False if the key cannot be used now, for somebody else was faster.
    pub fn claim_trial(&mut self, model: &str, now: Time) -> bool {
        if self.available_from(model) > now {
            return false;
        }
        let cooling =
            self.models.iter_mut().find(|state| state.model == model).and_then(|state| state.cooling.as_mut());
        for pause in self.resting.iter_mut().chain(cooling).filter(|pause| pause.needs_trial()) {
            pause.trial = Trial::Out(now.plus(TRIAL));
        }
        true
    }

    /// The request that went first came to nothing that says anything of the key: another may go.
    pub fn release_trial(&mut self, model: &str) {
        let cooling =
            self.models.iter_mut().find(|state| state.model == model).and_then(|state| state.cooling.as_mut());
        for pause in self.resting.iter_mut().chain(cooling) {
            if let Trial::Out(_) = pause.trial {
                pause.trial = Trial::Needed;
            }
        }
    }

    /// An attempt that began at `leased` has succeeded: what was known by then is over. A success of
    /// an attempt that began before says nothing.
    pub fn succeeded(&mut self, model: &str, leased: Time) {
        self.resting = self.resting.filter(|rest| rest.from > leased);
        self.models.retain(|state| {
            let newer = state.last_429 > leased || state.cooling.is_some_and(|cooling| cooling.from > leased);
            state.model != model || newer
        });
    }

    /// Cools a model: the longer of the old and the new end stands.
    pub fn cool(&mut self, model: &str, pause: Pause) {
        let state = self.model_mut(model);
        state.cooling = Some(longer(state.cooling, pause));
    }

    /// Rests the key for all models: the longer of the old and the new end stands.
    pub fn rest(&mut self, pause: Pause) {
        self.resting = Some(longer(self.resting, pause));
    }

    /// Forgets what has been over for a day; true if nothing is left that is worth keeping.
    pub fn expire(&mut self, now: Time) -> bool {
        let over = |end: Time| end.plus(DAY) < now;
        self.models.retain(|state| {
            let end = state.cooling.map_or(state.last_429, |cooling| cooling.until.max(state.last_429));
            !over(end)
        });
        if self.resting.is_some_and(|rest| over(rest.until)) {
            self.resting = None;
        }
        if self.last.as_ref().is_some_and(|note| over(note.at)) {
            self.last = None;
        }
        *self == Record::default()
    }
}

/// The pause that ends later. An old one that is over is no pause any more: the new one begins.
fn longer(old: Option<Pause>, new: Pause) -> Pause {
    match old {
        Some(old) if old.until >= new.until => Pause { trial: settled(old.trial), ..old },
        Some(old) if old.until > new.from => Pause { from: old.from, ..new },
        _ => new,
    }
}

/// A trial that ran into the next limit is not out any more.
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
        assert!(!record.claim_trial("m", Time(101)), "somebody is out");
        record.release_trial("m");
        assert!(record.claim_trial("m", Time(102)));
        let end = Time(102).plus(TRIAL);
        assert!(record.claim_trial("m", end), "a trial that never ends gives way");
        record.succeeded("m", end);
        assert_eq!(record, Record::default());
    }

    #[test]
    fn other_models_go_on() {
        let mut record = Record::default();
        record.cool("m", pause(0, 100, Trial::Believed));
        assert_eq!((record.available_from("m"), record.available_from("n")), (Time(100), Time(0)));
        record.rest(pause(0, 50, Trial::Needed));
        assert_eq!((record.available_from("m"), record.available_from("n")), (Time(100), Time(50)));
        record.blocked = Some(Block { since: Time(1), sync: SyncState::Local });
        assert_eq!(record.available_from("n"), NEVER);
    }

    #[test]
    fn a_success_from_before_the_429_says_nothing() {
        let mut record = Record::default();
        record.cool("m", pause(10, 100, Trial::Believed));
        record.model_mut("m").last_429 = Time(10);
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
        for number in 0..=MAX_MODELS as u64 {
            record.cool(&format!("m{number}"), pause(0, 1000 + number, Trial::Believed));
        }
        assert_eq!(record.models.len(), MAX_MODELS);
        assert!(record.model("m0").is_none() && record.model("m1").is_some(), "the first to end made room");
    }

    #[test]
    fn what_is_long_over_is_forgotten() {
        let mut record = Record::default();
        record.cool("m", pause(0, 1000, Trial::Believed));
        assert!(!record.expire(Time(1000).plus(DAY)));
        record.last = Some(LastError { at: Time(2000), evidence: "429".to_owned() });
        assert!(!record.expire(Time(2000).plus(DAY)));
        assert!(record.models.is_empty() && record.last.is_some());
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
