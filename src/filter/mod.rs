//! What the two filters do between a host's callbacks and the balancer's decisions: what is read before the
//! headers leave, and what becomes of an answer.
//!
//! [`downstream`] is in the listener's chain, [`upstream`] in the clusters', once per attempt. Each is a state
//! machine over the callbacks that proxy-wasm and Envoy's other extension interfaces share: headers, pieces of
//! a body, trailers, the end. Keeping them here and not in an adapter lets them be tested natively and gives
//! every host the same behaviour.

pub mod console;
pub mod downstream;
pub mod passed_down;
pub mod upstream;

use std::cell::RefCell;
use std::rc::Rc;

use crate::balancer::Balancer;
use crate::balancer::progress::ExchangeId;
use crate::config::D1;
use crate::d1::Call;
use crate::http::headers::Headers;

/// The balancer of a worker, for the streams of both places.
pub type SharedBalancer = Rc<RefCell<Balancer>>;

/// What becomes of the message that a callback is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is passed on.
    Continue,
    /// It waits: for more of its body, for D1, or for ever because the client has been answered.
    Pause,
}

/// Which message of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What the client sends.
    Request,
    /// What the client gets.
    Response,
}

/// What the access log may show of a stream, and what filters behind ours may go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// The number of the AUTH_KEY definition, from 1.
    Client,
    /// The provider's slug.
    Provider,
    /// The model by its one name: without provider or prefix, and with aliases resolved.
    Model,
    /// What became of the request: an [`crate::observe::metrics::Ending`].
    Outcome,
    /// Tokens of the prompt.
    TokensIn,
    /// Tokens of the answer.
    TokensOut,
}

/// The stream that a callback is about. Each call may fail; what it returns is then empty, and what it should
/// have changed stays as it is.
pub trait Stream {
    /// All headers of a message.
    fn headers(&self, side: Side) -> Headers;
    /// Sets a header, replacing any values it had.
    fn set_header(&self, side: Side, name: &str, value: &str);
    /// Removes a header.
    fn remove_header(&self, side: Side, name: &str);
    /// Up to `size` bytes of the buffered body, from its beginning.
    fn body(&self, side: Side, size: usize) -> Vec<u8>;
    /// Replaces the first `replaced` bytes of the buffered body.
    fn set_body(&self, side: Side, replaced: usize, bytes: &[u8]);
    /// Answers the client; the request goes no further.
    fn reply(&self, status: u16, headers: &[(&str, String)], body: &[u8]);
    /// Records an attribute for the access log.
    fn record(&self, attribute: Attribute, value: &str);
    /// Lets the stream carry the id of its exchange to the attempts.
    fn set_exchange(&self, id: ExchangeId);
    /// Sends a call to D1, and returns its token; `None` if it cannot be sent.
    fn call_d1(&self, d1: &D1, call: &Call) -> Option<u32>;
}
