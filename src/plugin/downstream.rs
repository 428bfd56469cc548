//! The downstream filter: who asks, for what, and is there a key.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType};

use super::console::{self, Editing};
use super::{Shared, TICKETS, host, random, root};
use crate::balancer::RETRY_HEADER;
use crate::config::Config;
use crate::console::{Asked, edit};
use crate::headers::Headers;
use crate::metrics::CANCELLED;
use crate::provider::Api;
use crate::reply::{Rendered, Reply};
use crate::request::{self, Intake, Step};
use crate::ticket::{SharedTicket, Stub};

/// One stream.
pub struct Downstream {
    /// The context's number.
    number: u32,
    balancer: Option<Shared>,
    ticket: Option<(Stub, SharedTicket)>,
    state: State,
    api: Api,
    /// Bytes of the body that are buffered.
    buffered: usize,
}

enum State {
    /// Nothing has come yet.
    New,
    /// The headers are in, the body is being buffered. The configuration is the one they were read
    /// with, even if a new one comes meanwhile.
    Buffering(Box<Intake>, Rc<Config>),
    /// The console's: an edit whose body is being buffered, or which D1 has been asked to carry out.
    Editing(Box<Editing>),
    /// The request has gone up.
    Forwarded,
    /// Its answer goes to the client.
    Answered,
    /// The request got an answer of ours, whose way back runs through our own callbacks.
    Replied,
    /// Envoy's own answer is being replaced by one that a client can read.
    Replacing(Vec<u8>),
}

impl Downstream {
    pub fn new(number: u32, balancer: Option<Shared>) -> Self {
        Downstream { number, balancer, ticket: None, state: State::New, api: Api::OpenAi, buffered: 0 }
    }

    /// Turns a request away whose provider is not known yet, or has not been asked for a key.
    fn refuse(&mut self, reply: &Reply) -> Action {
        if let Some(balancer) = &self.balancer {
            balancer.borrow().tally.refuse(reply.code);
        }
        self.reply(reply)
    }

    fn reply(&mut self, reply: &Reply) -> Action {
        host::note(host::OUTCOME, reply.code);
        self.answer(&reply.render(self.api))
    }

    fn answer(&mut self, answer: &Rendered) -> Action {
        self.state = State::Replied;
        host::reply(answer.status, &answer.headers, &answer.body);
        Action::Pause
    }

    fn outcome(&mut self, outcome: Result<Rendered, Reply>) -> Action {
        match outcome {
            Ok(answer) => self.answer(&answer),
            Err(reply) => self.reply(&reply),
        }
    }

    /// The request is complete: decides, and sends it up. `size` is that of the buffered body.
    fn forward(&mut self, intake: &Intake, config: &Config, size: usize) -> Action {
        let Some(balancer) = self.balancer.clone() else { return self.refuse(&not_configured()) };
        let body = if intake.reads_body(config) { host::body(BufferType::HttpRequestBody, size) } else { Vec::new() };
        let mut forward = match intake.finish(config, &body, size, random()) {
            Ok(forward) => forward,
            Err(reply) => return self.refuse(&reply),
        };
        host::note(host::CLIENT, &(forward.ticket.definition.saturating_add(1)).to_string());
        host::note(host::PROVIDER, forward.ticket.slug());
        host::note(host::MODEL, &forward.ticket.model);
        let admitted = balancer.borrow_mut().admit(&host::SharedData, &mut forward.ticket, random(), host::now());
        if let Err(reply) = admitted {
            return self.reply(&reply);
        }
        host::edit_request(&forward.edits);
        if let Some(body) = &forward.body {
            host::set_body(BufferType::HttpRequestBody, body.replaced, &body.beginning);
        }
        let ticket = Rc::new(RefCell::new(forward.ticket));
        let stub = TICKETS.with(|tickets| tickets.borrow_mut().put(self.number, ticket.clone()));
        host::set_stub(stub);
        self.ticket = Some((stub, ticket));
        self.state = State::Forwarded;
        Action::Continue
    }

    /// The body of an edit is complete: D1 has the word, and until then the stream waits.
    fn edit(&mut self, mut edit: Box<Editing>, size: usize) -> Action {
        let Some(balancer) = self.balancer.clone() else { return self.reply(&not_configured()) };
        let outcome = edit.begin(&balancer, &host::body(BufferType::HttpRequestBody, size));
        self.state = State::Editing(edit);
        outcome.map_or(Action::Pause, |outcome| self.outcome(outcome))
    }

    /// Ours takes the place of an answer.
    fn replace(&mut self, reply: &Reply, end_of_stream: bool) {
        let map = MapType::HttpResponseHeaders;
        let rendered = reply.render(self.api);
        for (name, value) in &rendered.headers {
            host::set_header(map, name, value);
        }
        if !end_of_stream {
            host::set_header(map, "content-length", &rendered.body.len().to_string());
            self.state = State::Replacing(rendered.body);
        }
    }

    fn complete(&mut self, size: usize) -> Action {
        match core::mem::replace(&mut self.state, State::New) {
            State::Buffering(intake, config) => self.forward(&intake, &config, size),
            State::Editing(edit) => self.edit(edit, size),
            other => {
                self.state = other;
                Action::Continue
            }
        }
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        let Some((stub, ticket)) = self.ticket.take() else { return };
        TICKETS.with(|tickets| tickets.borrow_mut().remove(stub));
        if let Some(balancer) = &self.balancer {
            balancer.borrow_mut().ended(&host::SharedData, &mut ticket.borrow_mut(), host::now);
        }
    }
}

impl Context for Downstream {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _: usize) {
        let (State::Editing(edit), Some(balancer)) = (&self.state, self.balancer.clone()) else { return };
        let outcome = root::receive(headers, body_size, |answer| edit.answered(&balancer, token, answer));
        if let Some(outcome) = outcome {
            self.outcome(outcome);
        }
    }
}

impl HttpContext for Downstream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let Some(balancer) = self.balancer.clone() else { return self.refuse(&not_configured()) };
        let config = balancer.borrow().config.clone();
        let headers = host::headers(MapType::HttpRequestHeaders);
        match request::begin(&config, headers, end_of_stream, host::now) {
            Step::Reply(reply, api) => {
                self.api = api;
                self.refuse(&reply)
            }
            Step::Answer(answer) => self.answer(&answer),
            Step::Console(asked, number) => {
                host::note(host::CLIENT, &number.saturating_add(1).to_string());
                match asked {
                    Asked::Status(query) => self.outcome(console::status(&balancer, &config, &query)),
                    Asked::Edit(verb) if end_of_stream => self.edit(Box::new(Editing::new(verb, config)), 0),
                    Asked::Edit(verb) => {
                        self.state = State::Editing(Box::new(Editing::new(verb, config)));
                        Action::Pause
                    }
                }
            }
            Step::Proceed(intake) => {
                self.api = intake.api;
                if intake.awaits_body {
                    self.state = State::Buffering(intake, config);
                    return Action::Pause;
                }
                self.forward(&intake, &config, 0)
            }
        }
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.buffered = size;
        match &self.state {
            State::Buffering(_, config) if size > config.max_body_bytes => {
                let reply = request::too_large(config);
                self.refuse(&reply)
            }
            State::Editing(_) if size > edit::MAX_BODY => self.reply(&edit::too_large()),
            State::Buffering(..) | State::Editing(_) if !end_of_stream => Action::Pause,
            State::Buffering(..) | State::Editing(_) => self.complete(size),
            State::Replied => Action::Pause,
            _ => Action::Continue,
        }
    }

    /// With trailers, no body callback says that the body is complete.
    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.complete(self.buffered)
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let map = MapType::HttpResponseHeaders;
        if matches!(self.state, State::Replied) {
            return Action::Continue;
        }
        self.state = State::Answered;
        let ticket = self.ticket.clone();
        let mut ticket = ticket.as_ref().map(|(_, ticket)| ticket.borrow_mut());
        // The upstream filter has said what became of what it let through.
        if ticket.as_ref().is_some_and(|ticket| !ticket.result.is_empty()) {
            return Action::Continue;
        }
        let Some(balancer) = self.balancer.clone() else { return Action::Continue };
        let mut balancer = balancer.borrow_mut();
        let headers = host::headers(map);
        match &mut ticket {
            // Left over when the router did not retry after all.
            Some(ticket) if headers.has(RETRY_HEADER) => {
                for gone in [RETRY_HEADER, "content-encoding"] {
                    if headers.has(gone) {
                        host::remove_header(map, gone);
                    }
                }
                self.replace(&balancer.not_retried(&headers, ticket), end_of_stream);
            }
            // Not what a client could not read: a redirect, or a 200 in the place of a WebSocket.
            Some(ticket) if !is_error(&headers) => {
                host::remove_header(map, "set-cookie");
                balancer.passed_by_envoy(&host::SharedData, ticket, host::now);
            }
            // The upstream filter has not seen it: Envoy made it.
            ticket => {
                let reply = balancer.answered_by_envoy(&host::SharedData, &headers, ticket.as_deref_mut(), host::now);
                if ticket.is_none() {
                    host::note(host::OUTCOME, reply.code);
                }
                self.replace(&reply, end_of_stream);
            }
        }
        if let Some(ticket) = &ticket {
            host::note(host::OUTCOME, ticket.result);
            for (name, value) in balancer.marks(ticket) {
                host::set_header(map, name, &value);
            }
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let State::Replacing(body) = &self.state else { return Action::Continue };
        if !end_of_stream {
            return Action::Pause;
        }
        host::set_body(BufferType::HttpResponseBody, size, body);
        Action::Continue
    }

    fn on_log(&mut self) {
        if let (State::Forwarded, Some(balancer), Some((_, ticket))) = (&self.state, &self.balancer, &self.ticket) {
            balancer.borrow().cancelled(ticket.borrow().slug());
            host::note(host::OUTCOME, CANCELLED);
        }
    }
}

fn is_error(headers: &Headers) -> bool {
    headers.text(":status").is_none_or(|status| status >= "400")
}

fn not_configured() -> Reply {
    Reply::new(503, "not_configured", "The filter has no valid configuration; see Envoy's log.")
}
