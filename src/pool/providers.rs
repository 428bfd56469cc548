//! What is known about each provider as a whole: limits that its answers have stated, and signs that failures are
//! not the keys' fault.
//!
//! All providers share one value in shared data, because it changes rarely.

use serde::{Deserialize, Serialize};

use super::bounded::{find_or_push, make_room};
use super::denials::Denials;
use super::key::KeyId;
use crate::host::store;
use crate::quota::{Dimension, Quota};
use crate::time::{MINUTE, Span, Time};

/// The value's name in shared data.
pub(crate) const NAME: &str = "one-balance/2/providers";

/// The most models of a provider whose limits are remembered; the one stated longest ago is evicted.
const MAX_MODELS: usize = 128;
/// If this many keys get an unexplained 429 for one model within [`UNEXPLAINED_WINDOW`] and none succeeds between,
/// the keys are not at fault: nobody has quota for the model, or the provider limits our address. With good keys
/// in the pool, round robin brings a success between. Only the model rests, although our address may be limited
/// for all of them: each model finds that out at the price of four answers, and a client of models that nobody
/// has quota for cannot stop the others.
const UNEXPLAINED_KEYS: usize = 4;
const UNEXPLAINED_WINDOW: Span = Span::secs(5);
/// How long the model rests then. Only the next request can show whether it is over, so the rest is short, and
/// the next unexplained 429 of the same model begins another one.
pub const MODEL_REST: Span = Span::secs(2);
/// No rest is longer than this, with some tolerance for differences between the workers' clocks.
const LONGEST_REST: Span = Span::secs(10);
/// How long a model stays suspect without a success.
const SUSPECT: Span = Span::secs(120);
/// The most models that rest at a time; the one that began first makes room.
const MAX_RESTS: usize = 32;
/// More refused keys than this within a minute, without a success between: the provider's login is
/// broken rather than every key. A block is for good, and D1 would pass it on to the Worker.
const REFUSED_KEYS: usize = 4;

/// The providers whose state differs from that of a fresh one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Providers(Vec<(String, ProviderState)>);

/// The state of one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderState {
    /// Until when no key is used for a model; see [`Self::rests_until`].
    rests: Vec<(String, Time)>,
    /// Keys with an unexplained 429 for a model, since the model's last success.
    unexplained: Vec<(KeyId, String, Time)>,
    /// Refusals that may be the request's doing.
    pub denials: Denials,
    /// Keys whose credential was refused, since the last success.
    refused: Vec<(KeyId, Time)>,
    models: Vec<(String, Learned)>,
}

/// The limits of a model as answers have stated them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// The limits.
    pub quota: Quota,
    /// When a limit was last stated.
    stated: Time,
    /// When a request was last allowed to exceed a limit; `None` if the next one may do so at once.
    tried: Option<Time>,
}

impl Learned {
    fn is_trial_due(&self, wait: Span, now: Time) -> bool {
        self.tried.is_none_or(|tried| tried.plus(wait) <= now)
    }
}

impl Providers {
    /// Decodes the value; an unreadable value counts as empty.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        store::decode(bytes).unwrap_or_default()
    }

    /// Encodes the value.
    pub(crate) fn encode(&self) -> Vec<u8> {
        store::encode(self)
    }

    /// The state of a provider; `None` if nothing is known about it.
    pub(crate) fn get(&self, slug: &str) -> Option<&ProviderState> {
        self.0.iter().find(|(name, _)| name == slug).map(|(_, state)| state)
    }

    /// The state of a provider, added if there is none. Slugs come from the configuration, so there are few.
    pub(crate) fn get_mut(&mut self, slug: &str) -> &mut ProviderState {
        let new = || (slug.to_owned(), ProviderState::default());
        &mut find_or_push(&mut self.0, |(name, _)| name == slug, new).1
    }
}

impl ProviderState {
    /// The learned limits of a model.
    pub(crate) fn learned(&self, model: &str) -> Quota {
        self.model(model).map(|learned| learned.quota).unwrap_or_default()
    }

    /// Learns a limit that an answer has stated. False if another limit is known: then this one belongs to the key
    /// alone, because the keys of a provider may belong to several tiers.
    pub(crate) fn state_limit(&mut self, model: &str, dimension: Dimension, limit: u64, now: Time) -> bool {
        if self.model(model).is_none() {
            make_room(&mut self.models, MAX_MODELS, |(_, learned)| learned.stated);
        }
        let new = || (model.to_owned(), Learned::default());
        let (_, learned) = find_or_push(&mut self.models, |(name, _)| name == model, new);
        learned.stated = now;
        match learned.quota.get(dimension) {
            None => {
                learned.quota.set(dimension, limit);
                learned.tried = Some(now);
            }
            Some(known) => return known == limit,
        }
        true
    }

    /// Allows one request to exceed a model's learned limits, if the last such request was at least `wait` ago.
    #[must_use]
    pub(crate) fn claim_limit_trial(&mut self, model: &str, wait: Span, now: Time) -> bool {
        match self.models.iter_mut().find(|(name, _)| name == model) {
            Some((_, learned)) if learned.is_trial_due(wait, now) => {
                learned.tried = Some(now);
                true
            }
            _ => false,
        }
    }

    /// Whether [`Self::claim_limit_trial`] would succeed.
    pub(crate) fn limit_trial_due(&self, model: &str, wait: Span, now: Time) -> bool {
        self.model(model).is_some_and(|learned| learned.is_trial_due(wait, now))
    }

    /// A request that exceeded the limits was served: the next one may do so at once.
    pub(crate) fn limit_trial_succeeded(&mut self, model: &str) {
        if let Some((_, learned)) = self.models.iter_mut().find(|(name, _)| name == model) {
            learned.tried = None;
        }
    }

    /// Until when no key is used for a model, if it rests. An end in the far future is from before a clock stepped
    /// back.
    pub(crate) fn rests_until(&self, model: &str, now: Time) -> Option<Time> {
        let until = self.rests.iter().find(|(name, _)| name == model).map(|(_, until)| *until);
        until.filter(|until| *until > now && now.until(*until) <= LONGEST_REST)
    }

    /// Until when some model rests, for the status.
    pub(crate) fn some_rest(&self, now: Time) -> Option<Time> {
        self.rests.iter().filter_map(|(model, _)| self.rests_until(model, now)).max()
    }

    /// Records an unexplained 429. If it is one of so many that the model now rests, returns the keys that got
    /// one, because they are not at fault.
    pub(crate) fn record_unexplained_429(&mut self, id: KeyId, model: &str, now: Time) -> Option<Vec<KeyId>> {
        self.unexplained
            .retain(|(other, name, time)| (*other != id || name != model) && time.plus(UNEXPLAINED_WINDOW) > now);
        self.unexplained.push((id, model.to_owned(), now));
        let of_model = self.unexplained.iter().filter(|(_, name, _)| name == model).count();
        let rest = self.rests.iter().find(|(name, _)| name == model).map(|(_, until)| *until);
        if of_model < UNEXPLAINED_KEYS && !rest.is_some_and(|until| is_suspect(until, now)) {
            return None;
        }
        let until = self.rests_until(model, now).unwrap_or_default().max(now.plus(MODEL_REST));
        self.rests.retain(|(name, _)| name != model);
        if self.rests.len() >= MAX_RESTS {
            self.rests.remove(0);
        }
        self.rests.push((model.to_owned(), until));
        let keys = self.unexplained.iter().filter(|(_, name, _)| name == model).map(|(id, ..)| *id).collect();
        self.unexplained.retain(|(_, name, _)| name != model);
        Some(keys)
    }

    /// Records a refused credential. False if the provider, and not the key, is at fault.
    pub(crate) fn record_refusal(&mut self, id: KeyId, now: Time) -> bool {
        push_recent(&mut self.refused, id, now, MINUTE);
        self.refused.len() <= REFUSED_KEYS
    }

    /// A key has served a model: what was recorded against the model and against all keys together is over.
    pub(crate) fn succeeded(&mut self, model: &str) {
        self.unexplained.retain(|(_, name, _)| name != model);
        self.rests.retain(|(name, _)| name != model);
        self.refused.clear();
    }

    /// Whether a success would change anything.
    pub(crate) fn is_suspect(&self, model: &str) -> bool {
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

/// Adds a key, and removes its earlier entry and those that are older than the window.
fn push_recent(list: &mut Vec<(KeyId, Time)>, id: KeyId, now: Time, window: Span) {
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
        assert_eq!(state.record_unexplained_429(KeyId(1), "m", at(0)), None);
        assert_eq!(state.record_unexplained_429(KeyId(1), "m", at(1)), None, "the same key again");
        assert_eq!(state.record_unexplained_429(KeyId(2), "m", at(5)), None);
        assert_eq!(state.record_unexplained_429(KeyId(3), "m", at(6)), None, "the first is too long ago");
        assert_eq!(state.record_unexplained_429(KeyId(4), "m", at(7)), None);
        state.succeeded("m");
        assert_eq!(state.record_unexplained_429(KeyId(5), "m", at(7)), None, "a success between");
        assert_eq!(state.record_unexplained_429(KeyId(9), "n", at(7)), None, "another model");
        state.record_unexplained_429(KeyId(6), "m", at(7));
        state.record_unexplained_429(KeyId(7), "m", at(8));
        assert_eq!(
            state.record_unexplained_429(KeyId(8), "m", at(8)),
            Some(vec![KeyId(5), KeyId(6), KeyId(7), KeyId(8)])
        );
        assert_eq!(state.rests_until("m", at(8)), Some(at(8).plus(MODEL_REST)));
        assert_eq!(state.rests_until("n", at(8)), None, "the other model goes on");
        assert_eq!(state.record_unexplained_429(KeyId(9), "m", at(20)), Some(vec![KeyId(9)]), "still the model");
        state.succeeded("m");
        assert_eq!(state.record_unexplained_429(KeyId(9), "m", at(21)), None, "it is over");
    }

    #[test]
    fn a_rest_from_before_a_clock_stepped_back_is_ignored() {
        let mut state = ProviderState::default();
        let late = Time::from_secs(10_000);
        (1..=4).for_each(|id| drop(state.record_unexplained_429(KeyId(id), "m", late)));
        assert_eq!(state.rests_until("m", late), Some(late.plus(MODEL_REST)));
        let now = Time::from_secs(1000);
        assert_eq!(state.rests_until("m", now), None);
        assert!(state.record_unexplained_429(KeyId(5), "m", now).is_some(), "it is still suspect");
        assert_eq!(state.rests_until("m", now), Some(now.plus(MODEL_REST)));
    }

    #[test]
    fn many_refused_keys_are_the_provider() {
        let mut state = ProviderState::default();
        let blamed: Vec<bool> = (0..6).map(|id| state.record_refusal(KeyId(id), Time::from_secs(id))).collect();
        assert_eq!(blamed, [true, true, true, true, false, false]);
        assert!(state.record_refusal(KeyId(9), Time::from_secs(100)), "a minute later");
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
        for index in 0..=MAX_MODELS as u64 {
            state.state_limit(&format!("m{index}"), Dimension::RequestsPerDay, 1, Time(index));
        }
        assert_eq!((state.models.len(), state.learned("m0")), (MAX_MODELS, Quota::default()));
    }
}
