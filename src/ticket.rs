//! What the filter remembers of a request between its two places in Envoy and over its attempts.
//!
//! Downstream makes it, and each attempt brings it up to date. Both places of the filter run in one
//! VM, so it stays in the VM's memory, and only its [`Stub`] travels with the stream.

use std::cell::RefCell;
use std::rc::Rc;

use crate::config::Upstream;
use crate::pool::{KeyId, Lease};
use crate::provider::{Api, Auth};
use crate::time::Time;
use crate::translate::AnswerShape;

/// The state of one request.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The provider, as it was configured when the request came.
    pub upstream: Rc<Upstream>,
    /// The model, as the pool counts it; empty if the request has none.
    pub model: String,
    /// The dialect in which the client expects errors.
    pub client: Api,
    /// How the key is sent: the API that is asked decides, and the provider may have several.
    pub auth: Auth,
    /// The request goes through Cloudflare AI Gateway.
    pub through_ai_gateway: bool,
    /// Number of the AUTH_KEY definition that let it in.
    pub definition: u32,
    /// Requests of one conversation share it; where `sticky` selection begins.
    pub conversation: u64,
    /// About how many tokens the request will take.
    pub tokens: u64,
    /// The keys that were tried, in order; the last one is in the attempt that is under way.
    pub tried: Vec<KeyId>,
    /// The first key, leased downstream so that a request without a key never leaves; the first
    /// attempt takes it.
    pub leased: Option<Lease>,
    /// The lease of the attempt under way.
    pub lease: Lease,
    /// The attempt under way has had no answer yet.
    pub unanswered: bool,
    /// When the key of the attempt under way was leased.
    pub leased_at: Time,
    /// The answer has to be translated, and how.
    pub answer: Option<AnswerShape>,
    /// How many keys have said that their tokens per minute are spent.
    pub token_limits: u8,
    /// How many keys were tried although the request itself is likely to be the reason.
    pub doubtful: u8,
    /// What became of the request, as metrics and the access log name it; empty until that is known.
    pub result: &'static str,
}

impl Ticket {
    /// A request for a model, which is empty if the request has none.
    #[must_use]
    pub fn new(upstream: Rc<Upstream>, model: String) -> Self {
        Ticket {
            auth: upstream.provider.auth,
            upstream,
            model,
            client: Api::default(),
            through_ai_gateway: false,
            definition: 0,
            conversation: 0,
            tokens: 0,
            tried: Vec::new(),
            leased: None,
            lease: Lease::default(),
            unanswered: false,
            leased_at: Time::default(),
            answer: None,
            token_limits: 0,
            doubtful: 0,
            result: "",
        }
    }

    /// The provider's slug.
    #[must_use]
    pub fn slug(&self) -> &str {
        &self.upstream.slug
    }
}

/// A ticket, for the downstream context and those of the attempts.
pub type SharedTicket = Rc<RefCell<Ticket>>;

/// What finds a stream's ticket: its place, and the stream's own number, for places are used again
/// and one request's key must never go with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stub {
    place: u32,
    stream: u32,
}

impl Stub {
    /// As it travels.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        (u64::from(self.place) << 32 | u64::from(self.stream)).to_le_bytes()
    }

    /// As it arrives.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        let both = u64::from_le_bytes(bytes);
        Stub { place: (both >> 32) as u32, stream: both as u32 }
    }
}

/// The tickets of the streams under way.
#[derive(Debug, Default)]
pub struct Tickets {
    places: Vec<Option<(u32, SharedTicket)>>,
    free: Vec<u32>,
}

impl Tickets {
    /// Keeps the ticket of a stream; no two streams have the same number at any time.
    pub fn put(&mut self, stream: u32, ticket: SharedTicket) -> Stub {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            // There are no 2^32 streams.
            (self.places.len() - 1) as u32
        });
        if let Some(slot) = self.places.get_mut(place as usize) {
            *slot = Some((stream, ticket));
        }
        Stub { place, stream }
    }

    /// The ticket of a stream, while it is under way.
    #[must_use]
    pub fn get(&self, stub: Stub) -> Option<SharedTicket> {
        let (stream, ticket) = self.places.get(stub.place as usize)?.as_ref()?;
        (*stream == stub.stream).then(|| ticket.clone())
    }

    /// Forgets the ticket of a stream that has ended.
    pub fn remove(&mut self, stub: Stub) {
        if self.get(stub).is_some()
            && let Some(slot) = self.places.get_mut(stub.place as usize)
        {
            *slot = None;
            self.free.push(stub.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::provider::COMPATIBLE;

    fn ticket() -> Ticket {
        Ticket::new(Rc::new(Upstream::new("own", &COMPATIBLE)), String::new())
    }

    proptest! {
        #[test]
        fn a_stub_finds_its_own_ticket_only(steps: Vec<(bool, prop::sample::Index)>) {
            let (mut tickets, mut under_way, mut ended) = (Tickets::default(), BTreeMap::new(), Vec::new());
            for (stream, (begins, which)) in (0..).zip(steps) {
                if begins || under_way.is_empty() {
                    let ticket = Ticket { tokens: u64::from(stream), ..ticket() };
                    let stub = tickets.put(stream, Rc::new(RefCell::new(ticket)));
                    under_way.insert(stream, Stub::from_bytes(stub.to_bytes()));
                } else {
                    let stream = *which.get(&under_way.keys().copied().collect::<Vec<_>>());
                    let stub = under_way.remove(&stream).unwrap();
                    tickets.remove(stub);
                    ended.push(stub);
                }
                for (stream, stub) in &under_way {
                    prop_assert_eq!(tickets.get(*stub).unwrap().borrow().tokens, u64::from(*stream));
                }
                for stub in &ended {
                    tickets.remove(*stub);
                    prop_assert!(tickets.get(*stub).is_none());
                }
            }
        }
    }
}
