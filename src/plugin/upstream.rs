//! The upstream filter: one context per attempt. Which key, and what did the answer say.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType};

use super::{Shared, host, random};
use crate::balancer::{ATTEMPTS_HEADER, Next, RETRY_HEADER};
use crate::headers::Headers;
use crate::reply::Reply;
use crate::ticket::Ticket;

/// How much of an error's body is read.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// One attempt.
pub struct Upstream {
    balancer: Option<Shared>,
    ticket: Ticket,
    state: State,
}

enum State {
    /// No answer yet.
    Waiting,
    /// An error's headers are in and its body is being read.
    Reading(Headers),
    /// The answer passes.
    Passing,
    /// Ours takes the place of the answer, whose body is being swallowed.
    Replacing(Vec<u8>),
}

impl Upstream {
    pub fn new(balancer: Option<Shared>) -> Self {
        Upstream { balancer, ticket: Ticket::default(), state: State::Waiting }
    }

    fn reply(&mut self, reply: &Reply) -> Action {
        let rendered = reply.render(self.ticket.client);
        let mut headers = rendered.headers;
        headers.push((ATTEMPTS_HEADER, self.ticket.tried.len().to_string()));
        host::reply(rendered.status, &headers, &rendered.body);
        Action::Pause
    }

    /// The answer is known as far as it is read.
    fn answered(&mut self, headers: &Headers, body: &[u8]) -> Action {
        let map = MapType::HttpResponseHeaders;
        let Some(balancer) = self.balancer.clone() else { return Action::Continue };
        let mut balancer = balancer.borrow_mut();
        let next = balancer.answered(&host::SharedData, &mut self.ticket, headers, body, random(), host::now());
        host::set_ticket(&self.ticket);
        if headers.has("set-cookie") {
            host::remove_header(map, "set-cookie");
        }
        self.state = State::Passing;
        let marks = match next {
            Next::Deliver(marks) => marks,
            Next::Retry => {
                host::set_header(map, RETRY_HEADER, "1");
                balancer.marks(&self.ticket)
            }
            Next::Replace(reply) => {
                let rendered = reply.render(self.ticket.client);
                host::set_header(map, ":status", &rendered.status.to_string());
                host::set_header(map, "content-length", &rendered.body.len().to_string());
                let mut marks = balancer.marks(&self.ticket);
                marks.extend(rendered.headers);
                self.state = State::Replacing(rendered.body);
                marks
            }
        };
        for (name, value) in marks {
            host::set_header(map, name, &value);
        }
        Action::Continue
    }

    fn swallow(&mut self, size: usize, end_of_stream: bool) -> Action {
        if let State::Replacing(body) = &mut self.state {
            // The first piece becomes ours, every later one nothing.
            let ours = core::mem::take(body);
            host::set_body(BufferType::HttpResponseBody, size, &ours);
        }
        let _ = end_of_stream;
        Action::Continue
    }
}

impl Context for Upstream {}

impl HttpContext for Upstream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let (Some(balancer), Some(ticket)) = (self.balancer.clone(), host::ticket()) else {
            // Without a ticket the request has not passed the downstream filter: fail closed.
            return self.reply(&Reply::new(
                503,
                "not_configured",
                "This request has not passed the downstream filter.",
            ));
        };
        self.ticket = ticket;
        let attempt = balancer.borrow_mut().attempt(&host::SharedData, &mut self.ticket, random(), host::now());
        match attempt {
            Ok(attempt) => {
                host::edit_request(&attempt.edits);
                host::set_ticket(&self.ticket);
                Action::Continue
            }
            Err(reply) => {
                host::set_ticket(&self.ticket);
                self.reply(&reply)
            }
        }
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let headers = host::headers(MapType::HttpResponseHeaders);
        let failed = headers.text(":status").is_none_or(|status| !status.starts_with(['1', '2', '3']));
        if failed && !end_of_stream {
            self.state = State::Reading(headers);
            return Action::Pause;
        }
        self.answered(&headers, &[])
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match &self.state {
            State::Reading(_) if !end_of_stream && size < MAX_ERROR_BYTES => Action::Pause,
            State::Reading(headers) => {
                let headers = headers.clone();
                let body = host::body(BufferType::HttpResponseBody, size.min(MAX_ERROR_BYTES));
                self.answered(&headers, &body);
                self.swallow(size, end_of_stream)
            }
            State::Replacing(_) => self.swallow(size, end_of_stream),
            _ => Action::Continue,
        }
    }

    /// With trailers, no body callback says that the error is complete.
    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        if let State::Reading(headers) = &self.state {
            let headers = headers.clone();
            let body = host::body(BufferType::HttpResponseBody, MAX_ERROR_BYTES);
            self.answered(&headers, &body);
            return self.swallow(MAX_ERROR_BYTES, true);
        }
        Action::Continue
    }
}
