//! What is known of a provider as a whole, and of its models: limits that answers have stated, and
//! signs that it is not the keys' fault.
//!
//! One value in shared data for all providers; it changes seldom.

use serde::{Deserialize, Serialize};

use super::denials::Denials;
use super::key::KeyId;
use crate::host::store;
use crate::quota::{Dimension, Quota};
use crate::time::{MINUTE, Span, Time};

/// The value's name in shared data.
pub const NAME: &str = "one-balance/2/providers";

/// Models of a provider whose limits are remembered; the one stated longest ago makes room.
const MAX_MODELS: usize = 128;
/// If this many keys get an unexplained 429 for one model within [`EGRESS_WINDOW`] and none succeeds between,
/// the keys are not at fault: nobody has quota for the model, or the provider limits our address. With good keys
/// in the pool, round robin brings a success between. Only the model rests, although our address may be limited
/// for all of them: each model finds that out at the price of four answers, and a client of models that nobody
/// has quota for cannot stop the others.
const EGRESS_KEYS: usize = 4;
const EGRESS_WINDOW: Span = Span::secs(5);
/// How long the model rests then. Only the next request can show whether it is over, so the rest is short, and
/// the next unexplained 429 of the same model begins another one.
pub const EGRESS_REST: Span = Span::secs(2);
/// No rest ends later than this, with some slack for the workers' clocks.
const LONGEST_REST: Span = Span::secs(10);
/// How long a model stays suspect without a success.
const SUSPECT: Span = Span::secs(120);
/// The most models that rest at a time; the one that began first makes room.
const MAX_RESTS: usize = 32;
/// More refused keys than this within a minute, without a success between: the provider's login is
/// broken rather than every key. A block is for good, and D1 would pass it on to the Worker.
const REFUSED_KEYS: usize = 4;

/// All providers about which there is something to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Providers(Vec<(String, ProviderState)>);

/// What is known of one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderState {
    /// Until when no key is used for a model; see [`Self::rests`].
    rests: Vec<(String, Time)>,
    /// Keys with an unexplained 429 for a model, since the model's last success.
    unexplained: Vec<(KeyId, String, Time)>,
    /// Refusals that may be the request's doing.
    pub denials: Denials,
    /// Keys whose credential was refused, since the last success.
    refused: Vec<(KeyId, Time)>,
    models: Vec<(String, Learned)>,
}

/// What answers have stated of a model's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// The limits.
    pub quota: Quota,
    /// When one was stated last.
    stated: Time,
    /// When a request was last let beyond a limit.
    tried: Time,
}

impl Providers {
    /// Reads the value; nothing is known if it cannot be read.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        store::decode(bytes).unwrap_or_default()
    }

    /// Writes the value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        store::encode(self)
    }

    /// What is known of a provider.
    #[must_use]
    pub fn get(&self, slug: &str) -> Option<&ProviderState> {
        self.0.iter().find(|(name, _)| name == slug).map(|(_, state)| state)
    }

    /// The same, to be changed. Slugs come from the configuration, so there are few.
    pub fn get_mut(&mut self, slug: &str) -> &mut ProviderState {
        let place = self.0.iter().position(|(name, _)| name == slug).unwrap_or_else(|| {
            self.0.push((slug.to_owned(), ProviderState::default()));
            self.0.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "the place was found or made above")]
        &mut self.0[place].1
    }
}

impl ProviderState {
    /// The learned limits of a model.
    #[must_use]
    pub fn learned(&self, model: &str) -> Quota {
        self.model(model).map(|learned| learned.quota).unwrap_or_default()
    }

    /// An answer has stated a limit; true if it is the first or the same. A different one is the
    /// key's own: keys of one provider may be of several tiers.
    pub fn state_limit(&mut self, model: &str, dimension: Dimension, limit: u64, now: Time) -> bool {
        if self.model(model).is_none() {
            if self.models.len() >= MAX_MODELS {
                let oldest = self.models.iter().enumerate().min_by_key(|(_, (_, learned))| learned.stated);
                if let Some(oldest) = oldest.map(|(place, _)| place) {
                    self.models.swap_remove(oldest);
                }
            }
            self.models.push((model.to_owned(), Learned::default()));
        }
        let Some((_, learned)) = self.models.iter_mut().find(|(name, _)| name == model) else { return false };
        learned.stated = now;
        match learned.quota.get(dimension) {
            None => {
                learned.quota.set(dimension, limit);
                learned.tried = now;
            }
            Some(known) => return known == limit,
        }
        true
    }

    /// Lets one request go beyond a model's learned limits, if the last one was so long ago.
    pub fn claim_limit_trial(&mut self, model: &str, wait: Span, now: Time) -> bool {
        let found = self.models.iter_mut().find(|(name, _)| name == model);
        let due = found.map(|(_, learned)| learned).filter(|learned| learned.tried.plus(wait) <= now);
        due.map(|learned| learned.tried = now).is_some()
    }

    /// Whether such a request may go.
    #[must_use]
    pub fn limit_trial_due(&self, model: &str, wait: Span, now: Time) -> bool {
        self.model(model).is_some_and(|learned| learned.tried.plus(wait) <= now)
    }

    /// A request beyond the limits was served: the next key may be tried out at once.
    pub fn limit_trial_succeeded(&mut self, model: &str) {
        if let Some((_, learned)) = self.models.iter_mut().find(|(name, _)| name == model) {
            learned.tried = Time(0);
        }
    }

    /// Until when no key is used for a model, if it rests. An end in the far future is from before a clock stepped
    /// back.
    pub fn rests(&self, model: &str, now: Time) -> Option<Time> {
        let until = self.rests.iter().find(|(name, _)| name == model).map(|(_, until)| *until);
        until.filter(|until| *until > now && now.until(*until) <= LONGEST_REST)
    }

    /// Until when some model rests, for the status.
    pub fn some_rest(&self, now: Time) -> Option<Time> {
        self.rests.iter().filter_map(|(model, _)| self.rests(model, now)).max()
    }

    /// Records an unexplained 429. If it is one of so many that the model now rests, returns the keys that got
    /// one, because they are not at fault.
    pub fn unexplained(&mut self, id: KeyId, model: &str, now: Time) -> Option<Vec<KeyId>> {
        self.unexplained
            .retain(|(other, name, time)| (*other != id || name != model) && time.plus(EGRESS_WINDOW) > now);
        self.unexplained.push((id, model.to_owned(), now));
        let of_model = self.unexplained.iter().filter(|(_, name, _)| name == model).count();
        let rest = self.rests.iter().find(|(name, _)| name == model).map(|(_, until)| *until);
        if of_model < EGRESS_KEYS && !rest.is_some_and(|until| is_suspect(until, now)) {
            return None;
        }
        let until = self.rests(model, now).unwrap_or_default().max(now.plus(EGRESS_REST));
        self.rests.retain(|(name, _)| name != model);
        if self.rests.len() >= MAX_RESTS {
            self.rests.remove(0);
        }
        self.rests.push((model.to_owned(), until));
        let keys = self.unexplained.iter().filter(|(_, name, _)| name == model).map(|(id, ..)| *id).collect();
        self.unexplained.retain(|(_, name, _)| name != model);
        Some(keys)
    }

    /// Notes a refused credential. False if so many were refused that the keys are not to be blamed.
    pub fn refused(&mut self, id: KeyId, now: Time) -> bool {
        note(&mut self.refused, id, now, MINUTE);
        self.refused.len() <= REFUSED_KEYS
    }

    /// A key has served a model: what was recorded against the model and against all keys together is over.
    pub fn succeeded(&mut self, model: &str) {
        self.unexplained.retain(|(_, name, _)| name != model);
        self.rests.retain(|(name, _)| name != model);
        self.refused.clear();
    }

    /// Whether a success would change anything.
    pub fn is_suspect(&self, model: &str) -> bool {
        !self.refused.is_empty()
            || self.unexplained.iter().any(|(_, name, _)| name == model)
            || self.rests.iter().any(|(name, _)| name == model)
    }

    fn model(&self, model: &str) -> Option<&Learned> {
        self.models.iter().find(|(name, _)| name == model).map(|(_, learned)| learned)
    }
}

/// Whether a model that rested until then has to be doubted still.
fn is_suspect(until: Time, now: Time) -> bool {
    until.plus(SUSPECT) > now
}

fn note(list: &mut Vec<(KeyId, Time)>, id: KeyId, now: Time, window: Span) {
    list.retain(|(other, time)| *other != id && time.plus(window) > now);
    list.push((id, now));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_unexplained_429s_are_the_models() {
        let mut state = ProviderState::default();
        let at = |secs: u64| Time::from_secs(1000 + secs);
        assert_eq!(state.unexplained(KeyId(1), "m", at(0)), None);
        assert_eq!(state.unexplained(KeyId(1), "m", at(1)), None, "the same key again");
        assert_eq!(state.unexplained(KeyId(2), "m", at(5)), None);
        assert_eq!(state.unexplained(KeyId(3), "m", at(6)), None, "the first is too long ago");
        assert_eq!(state.unexplained(KeyId(4), "m", at(7)), None);
        state.succeeded("m");
        assert_eq!(state.unexplained(KeyId(5), "m", at(7)), None, "a success between");
        assert_eq!(state.unexplained(KeyId(9), "n", at(7)), None, "another model");
        state.unexplained(KeyId(6), "m", at(7));
        state.unexplained(KeyId(7), "m", at(8));
        assert_eq!(state.unexplained(KeyId(8), "m", at(8)), Some(vec![KeyId(5), KeyId(6), KeyId(7), KeyId(8)]));
        assert_eq!(state.rests("m", at(8)), Some(at(8).plus(EGRESS_REST)));
        assert_eq!(state.rests("n", at(8)), None, "the other model goes on");
        assert_eq!(state.unexplained(KeyId(9), "m", at(20)), Some(vec![KeyId(9)]), "still the model");
        state.succeeded("m");
        assert_eq!(state.unexplained(KeyId(9), "m", at(21)), None, "it is over");
    }

    #[test]
    fn a_clock_that_stepped_back_rests_nobody() {
        let mut state = ProviderState::default();
        let late = Time::from_secs(10_000);
        (1..=4).for_each(|id| drop(state.unexplained(KeyId(id), "m", late)));
        assert_eq!(state.rests("m", late), Some(late.plus(EGRESS_REST)));
        let now = Time::from_secs(1000);
        assert_eq!(state.rests("m", now), None);
        assert!(state.unexplained(KeyId(5), "m", now).is_some(), "it is still suspect");
        assert_eq!(state.rests("m", now), Some(now.plus(EGRESS_REST)));
    }

    #[test]
    fn many_refused_keys_are_the_provider() {
        let mut state = ProviderState::default();
        let blamed: Vec<bool> = (0..6).map(|id| state.refused(KeyId(id), Time::from_secs(id))).collect();
        assert_eq!(blamed, [true, true, true, true, false, false]);
        assert!(state.refused(KeyId(9), Time::from_secs(100)), "a minute later");
    }

    #[test]
    fn limits_are_learned_and_tried_out() {
        let mut state = ProviderState::default();
        let (at, rpm) = (|secs: u64| Time::from_secs(10_000 + secs), Dimension::RequestsPerMinute);
        assert!(state.state_limit("m", rpm, 15, at(0)));
        assert!(state.state_limit("m", rpm, 15, at(1)));
        assert!(!state.state_limit("m", rpm, 1000, at(2)), "another tier");
        assert_eq!(state.learned("m").rpm, Some(15));
        let wait = Span::secs(600);
        assert!(!state.claim_limit_trial("m", wait, at(500)), "it was stated just now");
        assert!(state.claim_limit_trial("m", wait, at(700)));
        assert!(!state.claim_limit_trial("m", wait, at(701)));
        state.limit_trial_succeeded("m");
        assert!(state.claim_limit_trial("m", wait, at(702)));
        assert!(!state.claim_limit_trial("other", wait, at(702)));
    }

    #[test]
    fn models_are_bounded() {
        let mut state = ProviderState::default();
        for number in 0..=MAX_MODELS as u64 {
            state.state_limit(&format!("m{number}"), Dimension::RequestsPerDay, 1, Time(number));
        }
        assert_eq!((state.models.len(), state.learned("m0")), (MAX_MODELS, Quota::default()));
    }
}
