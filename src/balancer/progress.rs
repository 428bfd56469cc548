//! The state of one request: how far it has come, and how its callbacks find it.
//!
//! The downstream filter makes an [`Exchange`], and each attempt moves its [`Progress`] on. Both places of
//! the filter run in one VM, so the exchange stays in the VM's memory, and only its [`ExchangeId`] travels
//! with the stream.
//!
//! ```text
//! Admitted ──attempt──▶ Attempting ──answered──▶ Over (delivered, replaced)
//!     │                  │    ▲  └────answered─▶ Retrying ──attempt──▶ Attempting
//!     │                  └────┘ attempt: the last one came to no answer (broke off: as answered)
//!     └──▶ Over (no key, or Envoy answered)
//! ```

use std::cell::RefCell;
use std::rc::Rc;

use crate::answer::Evidence;
use crate::observe::metrics::Ending;
use crate::pool::{KeyId, Lease};
use crate::request::forward::Outgoing;
use crate::time::{Span, Time};

/// From this time on an attempt without an answer is taken for one that the provider has worked on, and may bill.
/// Envoy gives up connecting after 10 seconds.
const SLOW_ATTEMPT: Span = Span::secs(30);

/// A key that was leased for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leased {
    /// The lease.
    pub lease: Lease,
    /// When it was made.
    pub at: Time,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The first key is leased, so that a request without a key never leaves. No attempt has taken it yet.
    Admitted(Leased),
    /// An attempt is under way and has had no answer yet.
    Attempting(Leased),
    /// The answer to an attempt was dropped, and the next key is to be tried.
    Retrying(Leased),
    /// It is known what the client gets. The lease is that of the attempt whose answer it is, if it is one.
    Over(Ending, Option<Leased>),
}

/// A refusal that the request may have caused, kept until it is known whether another key serves the request.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// The key.
    pub leased: Leased,
    /// Whether the answer spoke of the model.
    pub access: bool,
    /// What decided.
    pub evidence: Evidence,
}

/// What moves on while a request is under way.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The keys that were tried, in order; the last one is in the attempt that is under way.
    pub tried: Vec<KeyId>,
    /// How far the request has come.
    pub phase: Phase,
    /// How many keys have said that their tokens per minute are spent.
    pub token_limits: u8,
    /// How many keys were tried although the request itself is likely to be the reason.
    pub doubtful: u8,
    /// How often the provider stumbled or had no room.
    pub stumbles: u8,
    /// How many keys this request has held by a guess: at most [`super::lifecycle::MAX_GUESSES`].
    pub guesses: u8,
    /// Keys that refused this request in a way that it may have caused.
    pub refused: Vec<Refused>,
    /// How many attempts took long and came to no answer.
    pub slow: u8,
}

impl Progress {
    /// A request whose first key is leased.
    pub fn admitted(leased: Leased) -> Self {
        Progress {
            tried: Vec::new(),
            phase: Phase::Admitted(leased),
            token_limits: 0,
            doubtful: 0,
            stumbles: 0,
            guesses: 0,
            refused: Vec::new(),
            slow: 0,
        }
    }

    /// Counts an attempt that came to no whole answer, if it took so long that the provider may have worked on
    /// it. A connection that is refused or cannot be opened takes less.
    pub fn count_slow(&mut self, leased: Leased, now: Time) {
        if leased.at.until(now) >= SLOW_ATTEMPT {
            self.slow = self.slow.saturating_add(1);
        }
    }

    /// What became of the request, once that is known.
    pub fn ending(&self) -> Option<Ending> {
        match self.phase {
            Phase::Over(ending, _) => Some(ending),
            _ => None,
        }
    }

    /// The lease of the attempt that is under way and has had no answer.
    pub fn unanswered(&self) -> Option<Leased> {
        match self.phase {
            Phase::Attempting(leased) => Some(leased),
            _ => None,
        }
    }

    /// The lease of the last attempt.
    pub fn leased(&self) -> Option<Leased> {
        match self.phase {
            Phase::Admitted(leased) | Phase::Attempting(leased) | Phase::Retrying(leased) => Some(leased),
            Phase::Over(_, leased) => leased,
        }
    }

    /// Ends the request. The lease stays with it, because the answer may still go on.
    pub fn end(&mut self, ending: Ending) {
        self.phase = Phase::Over(ending, self.leased());
    }
}

/// A request under way: what is fixed, and its progress.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// What all attempts share.
    pub outgoing: Outgoing,
    /// How far it has come.
    pub progress: Progress,
}

/// An exchange, for the downstream filter and those of the attempts.
pub type SharedExchange = Rc<RefCell<Exchange>>;

/// Finds a stream's exchange: its slot, and the stream's own number, because slots are used again and one
/// request's key must never be sent with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeId {
    slot: u32,
    stream: u32,
}

impl ExchangeId {
    /// Encodes it for the stream's property.
    pub fn to_bytes(self) -> [u8; 8] {
        (u64::from(self.slot) << 32 | u64::from(self.stream)).to_le_bytes()
    }

    /// Decodes the stream's property.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        let both = u64::from_le_bytes(bytes);
        ExchangeId { slot: (both >> 32) as u32, stream: both as u32 }
    }
}

/// The exchanges of the streams under way in a VM.
#[derive(Debug, Default)]
pub struct InFlight {
    slots: Vec<Option<(u32, SharedExchange)>>,
    free: Vec<u32>,
}

impl InFlight {
    /// Keeps the exchange of a stream. No two streams under way have the same number.
    pub fn put(&mut self, stream: u32, exchange: SharedExchange) -> ExchangeId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // There are no 2^32 streams.
            (self.slots.len() - 1) as u32
        });
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            *entry = Some((stream, exchange));
        }
        ExchangeId { slot, stream }
    }

    /// The exchange of a stream, while it is under way.
    pub fn get(&self, id: ExchangeId) -> Option<SharedExchange> {
        let (stream, exchange) = self.slots.get(id.slot as usize)?.as_ref()?;
        (*stream == id.stream).then(|| exchange.clone())
    }

    /// Forgets the exchange of a stream that has ended.
    pub fn remove(&mut self, id: ExchangeId) {
        if self.get(id).is_some()
            && let Some(entry) = self.slots.get_mut(id.slot as usize)
        {
            *entry = None;
            self.free.push(id.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::config::Upstream;
    use crate::provider::COMPATIBLE;

    fn exchange(tokens: u64) -> Exchange {
        let upstream = Rc::new(Upstream::new("own", &COMPATIBLE));
        let outgoing = Outgoing { tokens, ..Outgoing::new(upstream, String::new()) };
        let leased = Leased { lease: Lease::default(), at: Time(0) };
        Exchange { outgoing, progress: Progress::admitted(leased) }
    }

    proptest! {
        #[test]
        fn an_id_finds_its_own_exchange_only(steps: Vec<(bool, prop::sample::Index)>) {
            let (mut in_flight, mut under_way, mut ended) = (InFlight::default(), BTreeMap::new(), Vec::new());
            for (stream, (begins, which)) in (0..).zip(steps) {
                if begins || under_way.is_empty() {
                    let id = in_flight.put(stream, Rc::new(RefCell::new(exchange(u64::from(stream)))));
                    under_way.insert(stream, ExchangeId::from_bytes(id.to_bytes()));
                } else {
                    let stream = *which.get(&under_way.keys().copied().collect::<Vec<_>>());
                    let id = under_way.remove(&stream).unwrap();
                    in_flight.remove(id);
                    ended.push(id);
                }
                for (stream, id) in &under_way {
                    prop_assert_eq!(in_flight.get(*id).unwrap().borrow().outgoing.tokens, u64::from(*stream));
                }
                for id in &ended {
                    in_flight.remove(*id);
                    prop_assert!(in_flight.get(*id).is_none());
                }
            }
        }
    }
}
