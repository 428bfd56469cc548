//! Refusals that may be the request's doing: who was refused which model, and has another key served it since?
//!
//! A 403 or 404 for a model can mean that the key lacks access, or that the request is at fault: a mistyped
//! model, a file of somebody else's, a project that the client named. The answer alone cannot tell. So a key is
//! blamed only by the success of others: once another key has served the model after the refusal, the same
//! refusal by the same key says something about the key. A key that serves the model itself is cleared.
//!
//! ```text
//! (nothing) ──refused──▶ suspected ──another key serves the model──▶ proven ──refused──▶ blamed: cools, longer
//!     ▲                      │                                         │                        each time
//!     └──────────────────────┴──────── the key serves the model ───────┘
//! ```

use serde::{Deserialize, Serialize};

use super::key::KeyId;
use crate::time::{DAY, Time};

/// The most refusals that are remembered; the oldest makes room.
const MOST: usize = 64;

/// The refusals of one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denials(Vec<Denial>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Denial {
    model: String,
    id: KeyId,
    at: Time,
    /// Another key has served the model since.
    proven: bool,
}

impl Denials {
    /// Records a refusal. What was proven stays so.
    pub(crate) fn record(&mut self, model: &str, id: KeyId, now: Time) {
        self.0.retain(|denial| denial.at.plus(DAY) > now && denial.at <= now.plus(DAY));
        if let Some(denial) = self.0.iter_mut().find(|denial| denial.id == id && denial.model == model) {
            denial.at = now;
            return;
        }
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(Denial { model: model.to_owned(), id, at: now, proven: false });
    }

    /// Whether another key has served the model since this key was refused.
    pub(crate) fn is_proven(&self, model: &str, id: KeyId) -> bool {
        self.0.iter().any(|denial| denial.proven && denial.id == id && denial.model == model)
    }

    /// Whether a success of this key with the model would change anything.
    pub(crate) fn concerns(&self, model: &str, id: KeyId) -> bool {
        self.0.iter().any(|denial| denial.model == model && (denial.id == id || !denial.proven))
    }

    /// A key has served the model in an attempt that was leased at this time.
    pub(crate) fn served(&mut self, model: &str, id: KeyId, leased: Time) {
        self.0.retain(|denial| !(denial.id == id && denial.model == model && denial.at <= leased));
        for denial in self.0.iter_mut().filter(|denial| denial.model == model && denial.at <= leased) {
            denial.proven |= denial.id != id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: KeyId = KeyId(1);
    const OTHER: KeyId = KeyId(2);

    #[test]
    fn only_others_success_proves_a_refusal() {
        let mut denials = Denials::default();
        denials.record("m", ONE, Time(10));
        assert!(!denials.is_proven("m", ONE) && denials.concerns("m", OTHER));
        denials.served("n", OTHER, Time(20));
        denials.served("m", OTHER, Time(5));
        assert!(!denials.is_proven("m", ONE), "another model, or an attempt that began before");
        denials.served("m", OTHER, Time(20));
        assert!(denials.is_proven("m", ONE) && !denials.concerns("m", OTHER) && denials.concerns("m", ONE));
        denials.record("m", ONE, Time(30));
        assert!(denials.is_proven("m", ONE), "it stays proven");
        denials.served("m", ONE, Time(40));
        assert_eq!(denials, Denials::default(), "the key serves the model");
    }

    #[test]
    fn they_are_bounded_and_forgotten() {
        let mut denials = Denials::default();
        for number in 0..100 {
            denials.record(&format!("m{number}"), ONE, Time(number));
        }
        assert_eq!(denials.0.len(), MOST);
        denials.record("late", ONE, Time(200).plus(DAY));
        assert_eq!(denials.0.len(), 1);
    }
}
