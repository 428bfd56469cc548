//! The downstream filter: who sends a request, for what, and is there a key.
//!
//! ```text
//! New ─ headers ─┬─ a reply of ours ───────────────────────────────────▶ Replied
//!                ├─ an edit of the console ─▶ Editing ─ body, D1 ──────▶ Replied
//!                └─ for a provider ─▶ Buffering ─ body ─┬─ refused ────▶ Replied
//!                                                       └─▶ Forwarded ─ answer ─┬─▶ Answered
//!                                                                               └─▶ Replacing
//! ```
//!
//! Every body is buffered before it is sent, because Envoy can only retry what it has completely.

use std::cell::RefCell;
use std::rc::Rc;

use super::console::{self, Editing};
use super::{Action, Attribute, SharedBalancer, Side, Stream, passed_down};
use crate::balancer::RETRY_HEADER;
use crate::balancer::progress::{Exchange, ExchangeId, InFlight, SharedExchange};
use crate::console::{ConsoleRequest, edit};
use crate::d1::Answer;
use crate::observe::metrics::Ending;
use crate::provider::Api;
use crate::reply::{Rendered, Reply, refusals};
use crate::request::edits::Edit;
use crate::request::{self, PendingRequest, Step};

/// The exchanges of a VM.
pub type SharedInFlight = Rc<RefCell<InFlight>>;

/// One stream.
pub struct Downstream {
    /// The stream's number, which no other stream under way has.
    number: u32,
    balancer: Option<SharedBalancer>,
    in_flight: SharedInFlight,
    exchange: Option<(ExchangeId, SharedExchange)>,
    state: State,
    api: Api,
    /// Bytes of the body that are buffered.
    buffered: usize,
}

enum State {
    /// Nothing has come yet.
    New,
    /// The headers are in, and the body is being buffered.
    Buffering(Box<PendingRequest>),
    /// The console's: an edit whose body is being buffered, or that D1 is carrying out.
    Editing(Box<Editing>),
    /// The request has been sent to the provider.
    Forwarded,
    /// Its answer is being sent to the client.
    Answered,
    /// The request got an answer of ours, which passes our own callbacks on its way.
    Replied,
    /// Envoy's own answer is being replaced by one that a client can read.
    Replacing(Vec<u8>),
}

impl Downstream {
    /// A stream of this number. Without a balancer, every request is refused.
    pub fn new(number: u32, balancer: Option<SharedBalancer>, in_flight: SharedInFlight) -> Self {
        Downstream { number, balancer, in_flight, exchange: None, state: State::New, api: Api::OpenAi, buffered: 0 }
    }

    /// The request's headers have come.
    pub fn request_headers(&mut self, stream: &dyn Stream, end_of_stream: bool) -> Action {
        let Some(balancer) = self.balancer.clone() else {
            return self.refuse(stream, &refusals::not_configured());
        };
        let step = {
            let balancer = balancer.borrow();
            request::begin(&balancer.config, &*balancer.host, stream.headers(Side::Request), end_of_stream)
        };
        match step {
            Step::Reply(reply, api) => {
                self.api = api;
                self.refuse(stream, &reply)
            }
            Step::Answer(answer) => self.answer(stream, &answer),
            Step::Console(asked, definition) => {
                record_client(stream, definition);
                self.console(stream, &balancer, asked, end_of_stream)
            }
            Step::Proceed(pending) => {
                self.api = pending.api();
                if pending.awaits_body {
                    self.state = State::Buffering(pending);
                    return Action::Pause;
                }
                self.forward(stream, &pending, 0)
            }
        }
    }

    /// A piece of the request's body has come; `size` bytes are buffered.
    pub fn request_body(&mut self, stream: &dyn Stream, size: usize, end_of_stream: bool) -> Action {
        self.buffered = size;
        match &self.state {
            State::Buffering(pending) if size > pending.config.max_body_bytes => {
                let reply = refusals::too_large(pending.config.max_body_bytes);
                self.refuse(stream, &reply)
            }
            State::Editing(_) if size > edit::MAX_BODY => self.reply(stream, &edit::too_large()),
            State::Buffering(_) | State::Editing(_) if !end_of_stream => Action::Pause,
            State::Buffering(_) | State::Editing(_) => self.complete(stream, size),
            State::Replied => Action::Pause,
            _ => Action::Continue,
        }
    }

    /// The request's trailers have come. No callback for the body says then that it is complete.
    pub fn request_trailers(&mut self, stream: &dyn Stream) -> Action {
        self.complete(stream, self.buffered)
    }

    /// The headers of the answer have come, the upstream filter's or Envoy's own.
    pub fn response_headers(&mut self, stream: &dyn Stream, end_of_stream: bool) -> Action {
        if matches!(self.state, State::Replied) {
            return Action::Continue;
        }
        self.state = State::Answered;
        let exchange = self.exchange.as_ref().map(|(_, exchange)| exchange.clone());
        let mut exchange = exchange.as_ref().map(|exchange| exchange.borrow_mut());
        // The upstream filter has decided what becomes of what it let through.
        if exchange.as_ref().is_some_and(|exchange| exchange.progress.ending().is_some()) {
            return Action::Continue;
        }
        let Some(balancer) = self.balancer.clone() else { return Action::Continue };
        let mut balancer = balancer.borrow_mut();
        let headers = stream.headers(Side::Response);
        match &mut exchange {
            // Left over when the router did not retry after all.
            Some(exchange) if headers.has(RETRY_HEADER) => {
                for gone in [RETRY_HEADER, "content-encoding"] {
                    if headers.has(gone) {
                        stream.remove_header(Side::Response, gone);
                    }
                }
                self.replace(stream, &balancer.not_retried(&headers, exchange), end_of_stream);
            }
            // A client can read it as it is: a redirect, or a 200 in place of a WebSocket.
            Some(exchange) if headers.status().is_some_and(|status| status < 400) => {
                passed_down::remove_headers(stream, &headers, |value| balancer.shows_key(exchange, value));
                balancer.passed_by_envoy(exchange);
            }
            // The upstream filter has not seen it: Envoy made it.
            exchange => {
                let reply = balancer.answered_by_envoy(&headers, exchange.as_deref_mut());
                if exchange.is_none() {
                    stream.record(Attribute::Outcome, reply.code.as_str());
                }
                self.replace(stream, &reply, end_of_stream);
            }
        }
        if let Some(exchange) = &exchange {
            if let Some(ending) = exchange.progress.ending() {
                stream.record(Attribute::Outcome, ending.as_str());
            }
            for (name, value) in balancer.answer_headers(&exchange.progress) {
                stream.set_header(Side::Response, name, &value);
            }
        }
        Action::Continue
    }

    /// A piece of the answer's body has come; `size` bytes are buffered.
    pub fn response_body(&mut self, stream: &dyn Stream, size: usize, end_of_stream: bool) -> Action {
        let State::Replacing(body) = &self.state else { return Action::Continue };
        if !end_of_stream {
            return Action::Pause;
        }
        stream.set_body(Side::Response, size, body);
        Action::Continue
    }

    /// A call to D1 was answered.
    pub fn d1_answered(&mut self, stream: &dyn Stream, token: u32, answer: &Answer) {
        let (State::Editing(edit), Some(balancer)) = (&self.state, &self.balancer) else { return };
        if let Some(outcome) = edit.answered(balancer, token, answer) {
            self.outcome(stream, outcome);
        }
    }

    /// The stream is over, and the access log is written next.
    pub fn log(&mut self, stream: &dyn Stream) {
        if let (State::Forwarded, Some(balancer), Some((_, exchange))) = (&self.state, &self.balancer, &self.exchange) {
            balancer.borrow().cancelled(&exchange.borrow().outgoing);
            stream.record(Attribute::Outcome, Ending::Cancelled.as_str());
        }
    }

    fn console(
        &mut self,
        stream: &dyn Stream,
        balancer: &SharedBalancer,
        asked: ConsoleRequest,
        complete: bool,
    ) -> Action {
        let config = balancer.borrow().config.clone();
        match asked {
            ConsoleRequest::Status(query) => self.outcome(stream, console::status(balancer, &config, &query)),
            ConsoleRequest::Edit(verb) if complete => self.edit(stream, Box::new(Editing::new(verb, config)), 0),
            ConsoleRequest::Edit(verb) => {
                self.state = State::Editing(Box::new(Editing::new(verb, config)));
                Action::Pause
            }
        }
    }

    fn complete(&mut self, stream: &dyn Stream, size: usize) -> Action {
        match core::mem::replace(&mut self.state, State::New) {
            State::Buffering(pending) => self.forward(stream, &pending, size),
            State::Editing(edit) => self.edit(stream, edit, size),
            other => {
                self.state = other;
                Action::Continue
            }
        }
    }

    /// The request is complete, with a body of `size` bytes: decides, and sends it to the provider.
    fn forward(&mut self, stream: &dyn Stream, pending: &PendingRequest, size: usize) -> Action {
        let Some(balancer) = self.balancer.clone() else {
            return self.refuse(stream, &refusals::not_configured());
        };
        let body = if pending.reads_body() { stream.body(Side::Request, size) } else { Vec::new() };
        let random = balancer.borrow().host.random();
        let forward = match pending.finish(&body, size, random) {
            Ok(forward) => forward,
            Err(reply) => return self.refuse(stream, &reply),
        };
        let outgoing = forward.outgoing;
        record_client(stream, outgoing.definition);
        stream.record(Attribute::Provider, outgoing.slug());
        stream.record(Attribute::Model, &outgoing.model);
        let progress = match balancer.borrow_mut().admit(&outgoing) {
            Ok(progress) => progress,
            Err(reply) => return self.reply(stream, &reply),
        };
        for edit in &forward.edits {
            edit.apply(stream);
        }
        if let Some(body) = &forward.body {
            stream.set_body(Side::Request, body.replaced, &body.beginning);
        }
        let exchange = Rc::new(RefCell::new(Exchange { outgoing, progress }));
        let id = self.in_flight.borrow_mut().put(self.number, exchange.clone());
        stream.set_exchange(id);
        self.exchange = Some((id, exchange));
        self.state = State::Forwarded;
        Action::Continue
    }

    /// The body of an edit is complete. D1 decides, and until then the stream waits.
    fn edit(&mut self, stream: &dyn Stream, mut edit: Box<Editing>, size: usize) -> Action {
        let Some(balancer) = self.balancer.clone() else {
            return self.reply(stream, &refusals::not_configured());
        };
        let outcome = edit.begin(stream, &balancer, &stream.body(Side::Request, size));
        self.state = State::Editing(edit);
        outcome.map_or(Action::Pause, |outcome| self.outcome(stream, outcome))
    }

    /// Refuses a request whose provider is not known yet, or that has not got as far as needing a key.
    fn refuse(&mut self, stream: &dyn Stream, reply: &Reply) -> Action {
        if let Some(balancer) = &self.balancer {
            balancer.borrow().counters.refuse(reply.code);
        }
        self.reply(stream, reply)
    }

    fn reply(&mut self, stream: &dyn Stream, reply: &Reply) -> Action {
        stream.record(Attribute::Outcome, reply.code.as_str());
        self.answer(stream, &reply.render(self.api))
    }

    fn answer(&mut self, stream: &dyn Stream, answer: &Rendered) -> Action {
        self.state = State::Replied;
        stream.reply(answer.status, &answer.headers, &answer.body);
        Action::Pause
    }

    fn outcome(&mut self, stream: &dyn Stream, outcome: Result<Rendered, Reply>) -> Action {
        match outcome {
            Ok(answer) => self.answer(stream, &answer),
            Err(reply) => self.reply(stream, &reply),
        }
    }

    /// Replaces an answer by ours.
    fn replace(&mut self, stream: &dyn Stream, reply: &Reply, end_of_stream: bool) {
        let rendered = reply.render(self.api);
        for (name, value) in &rendered.headers {
            stream.set_header(Side::Response, name, value);
        }
        if !end_of_stream {
            stream.set_header(Side::Response, "content-length", &rendered.body.len().to_string());
            self.state = State::Replacing(rendered.body);
        }
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        let Some((id, exchange)) = self.exchange.take() else { return };
        self.in_flight.borrow_mut().remove(id);
        if let Some(balancer) = &self.balancer {
            balancer.borrow_mut().ended(&mut exchange.borrow_mut());
        }
    }
}

impl Edit {
    /// Carries out a change of the request's headers.
    pub fn apply(&self, stream: &dyn Stream) {
        match self {
            Edit::Set(name, value) => stream.set_header(Side::Request, name, value),
            Edit::Remove(name) => stream.remove_header(Side::Request, name),
        }
    }
}

fn record_client(stream: &dyn Stream, definition: usize) {
    stream.record(Attribute::Client, &definition.saturating_add(1).to_string());
}
