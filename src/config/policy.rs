//! The settings of how keys are chosen, cooled and rested.

use super::Reader;
use crate::config::Selection;
use crate::time::{DAY, Span};

/// How keys are chosen, cooled and rested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The number of consecutive 429s after which a key cools until the daily reset; see [`Escalate`].
    pub consecutive_429_threshold: u32,
    /// How long a key cools after a 429 that states no end.
    pub default_cooling: Span,
    /// How long a key rests when its credit is spent, before a trial request.
    pub credit_rest: Span,
    /// Which 429s cool until the daily reset once the threshold is reached.
    pub escalate: Escalate,
    /// How long a key cools if a 429 states both a daily quota and a short delay.
    pub daily_quota: DailyQuota,
    /// How the next key is chosen.
    pub selection: Selection,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            consecutive_429_threshold: 2,
            default_cooling: Span::secs(65),
            credit_rest: DAY,
            escalate: Escalate::Unstated,
            daily_quota: DailyQuota::UntilReset,
            selection: Selection::RoundRobin,
        }
    }
}

/// Which 429s count towards `consecutive_429_threshold`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escalate {
    /// Those that did not state which limit was exceeded.
    Unstated,
    /// All of them, as in the Worker.
    Always,
}

/// How long a key cools if a 429 states both a daily quota and a short delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DailyQuota {
    /// Until the provider's daily reset.
    UntilReset,
    /// For the stated delay; if the same quota is reported again, until the daily reset.
    HonourRetryDelayOnce,
}

impl Policy {
    /// Reads the fields of the policy.
    pub(super) fn read(reader: &mut Reader) -> Policy {
        let default = Policy::default();
        let seconds =
            |reader: &mut Reader, name, most, default| reader.number(name, 1..=most).map_or(default, Span::secs);
        Policy {
            consecutive_429_threshold: reader
                .number("consecutive_429_threshold", 1..=1000)
                .map_or(default.consecutive_429_threshold, |number| number as u32),
            default_cooling: seconds(reader, "default_cooling_seconds", 86_400, default.default_cooling),
            credit_rest: seconds(reader, "credit_rest_seconds", 30 * 86_400, default.credit_rest),
            escalate: reader
                .choice("escalate", &[("unstated", Escalate::Unstated), ("always", Escalate::Always)])
                .unwrap_or(default.escalate),
            daily_quota: reader
                .choice(
                    "daily_quota",
                    &[
                        ("until_reset", DailyQuota::UntilReset),
                        ("honour_retry_delay_once", DailyQuota::HonourRetryDelayOnce),
                    ],
                )
                .unwrap_or(default.daily_quota),
            selection: reader
                .choice(
                    "selection",
                    &[
                        ("round_robin", Selection::RoundRobin),
                        ("random", Selection::Random),
                        ("least_used", Selection::LeastUsed),
                        ("sticky", Selection::Sticky),
                    ],
                )
                .unwrap_or(default.selection),
        }
    }
}
