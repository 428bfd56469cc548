//! What is known of a provider as a whole, and of its models: limits that answers have stated, and
//! signs that it is not the keys' fault.
//!
//! One value in shared data for all providers; it changes seldom.

use serde::{Deserialize, Serialize};

use super::key::KeyId;
use crate::host::store;
use crate::quota::{Dimension, Quota};
use crate::time::{MINUTE, Span, Time};

/// The value's name in shared data.
pub const NAME: &str = "one-balance/1/providers";

/// Models of a provider whose limits are remembered; the one stated longest ago makes room.
const MAX_MODELS: usize = 128;
/// This many keys with an unexplained 429 ...
const EGRESS_KEYS: usize = 4;
/// ... within this time, without a success between, are not at fault: the address is that all of
/// them come from. With good keys in the pool, round robin brings a success between.
const EGRESS_WINDOW: Span = Span::secs(5);
/// How long the provider rests then. Only the next request can tell whether it is over, so the rest
/// is short, and the next unexplained 429 begins another one.
pub const EGRESS_REST: Span = Span::secs(2);
/// No rest ends later than this, with some slack for the workers' clocks.
const LONGEST_REST: Span = Span::secs(10);
/// How long the address stays suspect without a success.
const SUSPECT: Span = Span::secs(120);
/// More refused keys than this within a minute, without a success between: the provider's login is
/// broken rather than every key. A block is for good, and D1 would pass it on to the Worker.
const REFUSED_KEYS: usize = 4;

/// All providers about which there is something to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Providers(Vec<(String, ProviderState)>);

/// What is known of one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderState {
    /// Until then no key is used; see [`Self::rests`].
    rests_until: Time,
    /// Keys with an unexplained 429, since the last success.
    unexplained: Vec<(KeyId, Time)>,
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

    /// Until when no key is used, if the provider rests. An end in the far future is from before a clock
    /// stepped back.
    #[must_use]
    pub fn rests(&self, now: Time) -> Option<Time> {
        (self.rests_until > now && now.until(self.rests_until) <= LONGEST_REST).then_some(self.rests_until)
    }

    /// Notes an unexplained 429. True if it is one of so many that the provider now rests; then
    /// the keys that got one are returned, for they are not at fault.
    pub fn unexplained(&mut self, id: KeyId, now: Time) -> Option<Vec<KeyId>> {
        note(&mut self.unexplained, id, now, EGRESS_WINDOW);
        let suspect = self.rests_until != Time(0) && self.rests_until.plus(SUSPECT) > now;
        if self.unexplained.len() < EGRESS_KEYS && !suspect {
            return None;
        }
        self.rests_until = self.rests(now).unwrap_or_default().max(now.plus(EGRESS_REST));
        Some(core::mem::take(&mut self.unexplained).into_iter().map(|(id, _)| id).collect())
    }

    /// Notes a refused credential. False if so many were refused that the keys are not to be blamed.
    pub fn refused(&mut self, id: KeyId, now: Time) -> bool {
        note(&mut self.refused, id, now, MINUTE);
        self.refused.len() <= REFUSED_KEYS
    }

    /// A success: what was noted against the provider as a whole is over.
    pub fn succeeded(&mut self) {
        self.unexplained.clear();
        self.refused.clear();
        self.rests_until = Time(0);
    }

    /// Whether a success would change anything.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        !self.unexplained.is_empty() || !self.refused.is_empty() || self.rests_until != Time(0)
    }

    fn model(&self, model: &str) -> Option<&Learned> {
        self.models.iter().find(|(name, _)| name == model).map(|(_, learned)| learned)
    }
}

fn note(list: &mut Vec<(KeyId, Time)>, id: KeyId, now: Time, window: Span) {
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
        assert_eq!(state.unexplained(KeyId(1), at(0)), None);
        assert_eq!(state.unexplained(KeyId(1), at(1)), None, "the same key again");
        assert_eq!(state.unexplained(KeyId(2), at(5)), None);
        assert_eq!(state.unexplained(KeyId(3), at(6)), None, "the first is too long ago");
        assert_eq!(state.unexplained(KeyId(4), at(7)), None);
        state.succeeded();
        assert_eq!(state.unexplained(KeyId(5), at(7)), None, "a success between");
        state.unexplained(KeyId(6), at(7));
        state.unexplained(KeyId(7), at(8));
        assert_eq!(state.unexplained(KeyId(8), at(8)), Some(vec![KeyId(5), KeyId(6), KeyId(7), KeyId(8)]));
        assert_eq!(state.rests_until, at(8).plus(EGRESS_REST));
        assert_eq!(state.unexplained(KeyId(9), at(20)), Some(vec![KeyId(9)]), "still the address");
        state.succeeded();
        assert_eq!(state.unexplained(KeyId(9), at(21)), None, "it is over");
    }

    #[test]
    fn a_clock_that_stepped_back_rests_nobody() {
        let mut state = ProviderState::default();
        let late = Time::from_secs(10_000);
        (1..=4).for_each(|id| drop(state.unexplained(KeyId(id), late)));
        assert_eq!(state.rests(late), Some(late.plus(EGRESS_REST)));
        let now = Time::from_secs(1000);
        assert_eq!(state.rests(now), None);
        assert!(state.unexplained(KeyId(5), now).is_some(), "it is still suspect");
        assert_eq!(state.rests(now), Some(now.plus(EGRESS_REST)));
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
