//! What is known about each provider as a whole: limits that its answers have stated, and signs that failures are
//! not the keys' fault.
//!
//! All providers share one value in shared data, because it changes rarely.

use serde::{Deserialize, Serialize};

use super::bounded::{find_or_push, make_room};
use super::key::KeyId;
use crate::host::store;
use crate::quota::{Dimension, Quota};
use crate::time::{MINUTE, Span, Time};

/// The value's name in shared data.
pub(crate) const NAME: &str = "one-balance/2/providers";

/// The most models of a provider whose limits are remembered; the one stated longest ago is evicted.
const MAX_MODELS: usize = 128;
/// If this many keys get an unexplained 429 within [`EGRESS_WINDOW`] and none succeeds in between, our IP address
/// is limited, not the keys. While the pool has good keys, round robin makes one of them succeed in between.
const EGRESS_KEYS: usize = 4;
/// See [`EGRESS_KEYS`].
const EGRESS_WINDOW: Span = Span::secs(5);
/// How long the provider rests then. Only a request can show whether the limit is over, so the rest is short; the
/// next unexplained 429 begins another one.
pub(crate) const EGRESS_REST: Span = Span::secs(2);
/// No rest is longer than this, with some tolerance for differences between the workers' clocks.
const LONGEST_REST: Span = Span::secs(10);
/// How long our IP address remains suspect without a success.
const SUSPECT: Span = Span::secs(120);
/// If more keys than this are refused within a minute and none succeeds in between, the provider's authentication
/// is broken, not the keys. They are not blocked, because a block is permanent and D1 passes it on to the Worker.
const REFUSED_KEYS: usize = 4;

/// The providers whose state differs from that of a fresh one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Providers(Vec<(String, ProviderState)>);

/// The state of one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderState {
    /// The end of the last rest since the last success; see [`Self::rests_until`].
    rest: Option<Time>,
    /// The keys with an unexplained 429 since the last success.
    unexplained: Vec<(KeyId, Time)>,
    /// The keys whose credential was refused since the last success.
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

    /// The time until which no key is used; `None` if the provider does not rest. A rest that ends in the far
    /// future was begun before a clock stepped back, and is ignored.
    pub(crate) fn rests_until(&self, now: Time) -> Option<Time> {
        self.rest.filter(|until| *until > now && now.until(*until) <= LONGEST_REST)
    }

    /// Records an unexplained 429. If the provider rests because of it, returns the keys that got
    /// one, because they are not at fault.
    pub(crate) fn record_unexplained_429(&mut self, id: KeyId, now: Time) -> Option<Vec<KeyId>> {
        push_recent(&mut self.unexplained, id, now, EGRESS_WINDOW);
        let suspect = self.rest.is_some_and(|until| until.plus(SUSPECT) > now);
        if self.unexplained.len() < EGRESS_KEYS && !suspect {
            return None;
        }
        self.rest = self.rests_until(now).max(Some(now.plus(EGRESS_REST)));
        Some(core::mem::take(&mut self.unexplained).into_iter().map(|(id, _)| id).collect())
    }

    /// Records a refused credential. False if the provider, and not the key, is at fault.
    pub(crate) fn record_refusal(&mut self, id: KeyId, now: Time) -> bool {
        push_recent(&mut self.refused, id, now, MINUTE);
        self.refused.len() <= REFUSED_KEYS
    }

    /// A key was served: clears everything that was recorded against the provider.
    pub(crate) fn succeeded(&mut self) {
        self.unexplained.clear();
        self.refused.clear();
        self.rest = None;
    }

    /// Whether a success would change anything.
    pub(crate) fn is_suspect(&self) -> bool {
        !self.unexplained.is_empty() || !self.refused.is_empty() || self.rest.is_some()
    }

    fn model(&self, model: &str) -> Option<&Learned> {
        self.models.iter().find(|(name, _)| name == model).map(|(_, learned)| learned)
    }
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
    fn many_unexplained_429s_are_the_address() {
        let mut state = ProviderState::default();
        let at = |secs: u64| Time::from_secs(1000 + secs);
        assert_eq!(state.record_unexplained_429(KeyId(1), at(0)), None);
        assert_eq!(state.record_unexplained_429(KeyId(1), at(1)), None, "the same key again");
        assert_eq!(state.record_unexplained_429(KeyId(2), at(5)), None);
        assert_eq!(state.record_unexplained_429(KeyId(3), at(6)), None, "the first is too long ago");
        assert_eq!(state.record_unexplained_429(KeyId(4), at(7)), None);
        state.succeeded();
        assert_eq!(state.record_unexplained_429(KeyId(5), at(7)), None, "a success between");
        state.record_unexplained_429(KeyId(6), at(7));
        state.record_unexplained_429(KeyId(7), at(8));
        assert_eq!(state.record_unexplained_429(KeyId(8), at(8)), Some(vec![KeyId(5), KeyId(6), KeyId(7), KeyId(8)]));
        assert_eq!(state.rest, Some(at(8).plus(EGRESS_REST)));
        assert_eq!(state.record_unexplained_429(KeyId(9), at(20)), Some(vec![KeyId(9)]), "still the address");
        state.succeeded();
        assert_eq!(state.record_unexplained_429(KeyId(9), at(21)), None, "it is over");
    }

    #[test]
    fn a_rest_from_before_a_clock_stepped_back_is_ignored() {
        let mut state = ProviderState::default();
        let late = Time::from_secs(10_000);
        (1..=4).for_each(|id| drop(state.record_unexplained_429(KeyId(id), late)));
        assert_eq!(state.rests_until(late), Some(late.plus(EGRESS_REST)));
        let now = Time::from_secs(1000);
        assert_eq!(state.rests_until(now), None);
        assert!(state.record_unexplained_429(KeyId(5), now).is_some(), "it is still suspect");
        assert_eq!(state.rests_until(now), Some(now.plus(EGRESS_REST)));
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
