//! Quotas: how much a key may be used for a model, as configured and as learned.
//!
//! A key at its quota is not chosen, because avoiding a 429 is cheaper than receiving it. For each limit the configured
//! value counts; otherwise the value that this key's answers have stated; otherwise the value that answers of the
//! provider's other keys have stated for the model.

use serde::{Deserialize, Serialize};

/// The value of a limit that a request has exceeded without a 429.
pub(crate) const UNLIMITED: u64 = u64::MAX;

/// What can be limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Dimension {
    /// Requests per minute.
    RequestsPerMinute,
    /// Requests per day.
    RequestsPerDay,
    /// Tokens per minute.
    TokensPerMinute,
    /// Tokens per day.
    TokensPerDay,
}

impl Dimension {
    /// All dimensions.
    pub(crate) const ALL: [Self; 4] =
        [Self::RequestsPerMinute, Self::RequestsPerDay, Self::TokensPerMinute, Self::TokensPerDay];
}

/// The limits of a key for a model; `None` where nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Requests per minute.
    pub rpm: Option<u64>,
    /// Requests per day.
    pub rpd: Option<u64>,
    /// Tokens per minute.
    pub tpm: Option<u64>,
    /// Tokens per day.
    pub tpd: Option<u64>,
}

impl Quota {
    /// The limit of a dimension.
    pub(crate) fn get(&self, dimension: Dimension) -> Option<u64> {
        match dimension {
            Dimension::RequestsPerMinute => self.rpm,
            Dimension::RequestsPerDay => self.rpd,
            Dimension::TokensPerMinute => self.tpm,
            Dimension::TokensPerDay => self.tpd,
        }
    }

    /// Sets the limit of a dimension.
    pub(crate) fn set(&mut self, dimension: Dimension, limit: u64) {
        *match dimension {
            Dimension::RequestsPerMinute => &mut self.rpm,
            Dimension::RequestsPerDay => &mut self.rpd,
            Dimension::TokensPerMinute => &mut self.tpm,
            Dimension::TokensPerDay => &mut self.tpd,
        } = Some(limit);
    }

    /// This quota, with the other's limits where this one has none.
    pub(crate) fn or(self, other: Quota) -> Quota {
        Quota {
            rpm: self.rpm.or(other.rpm),
            rpd: self.rpd.or(other.rpd),
            tpm: self.tpm.or(other.tpm),
            tpd: self.tpd.or(other.tpd),
        }
    }

    /// Whether nothing is limited.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Quota::default()
    }

    /// Whether tokens are limited.
    pub(crate) fn counts_tokens(&self) -> bool {
        self.tpm.is_some() || self.tpd.is_some()
    }
}

/// When a provider's minute begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Minute {
    /// At each full minute of the clock.
    Calendar,
    /// At any time: the last 60 seconds count.
    Rolling,
}
