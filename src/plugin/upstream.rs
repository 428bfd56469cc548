//! The upstream filter: one context per attempt. Which key, and what did the answer say.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType};

use super::{Shared, host, random};
use crate::answer::BODY_LIMIT;
use crate::answer::stream::Watcher;
use crate::balancer::{ATTEMPTS_HEADER, Next, RETRY_HEADER};
use crate::headers::Headers;
use crate::reply::Reply;
use crate::ticket::Ticket;

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
    /// A successful answer passes, and is watched for errors and token counts.
    Watching(Box<Watcher>),
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
        if matches!(next, Next::Deliver(_)) && succeeded(headers) {
            self.state = State::Watching(Box::new(Watcher::new(headers)));
        }
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

    /// A piece of a successful answer passes.
    fn watch(&mut self, size: usize) {
        let (State::Watching(watcher), Some(balancer)) = (&mut self.state, &self.balancer) else { return };
        if size == 0 || !watcher.is_watching() {
            return;
        }
        let provider = balancer.borrow().config.upstream(&self.ticket.slug).map(|(_, upstream)| upstream.provider);
        let Some(provider) = provider else { return };
        let piece = host::body(BufferType::HttpResponseBody, size);
        let now = host::now();
        if let Some(verdict) = watcher.see(&piece, provider, now) {
            balancer.borrow_mut().failed_late(&host::SharedData, &self.ticket, &verdict, now);
        }
    }

    /// A successful answer has ended, in whatever way.
    fn ended(&mut self) {
        if let (State::Watching(watcher), Some(balancer)) = (&self.state, &self.balancer) {
            if let Some(tokens) = watcher.usage() {
                balancer.borrow_mut().served(&host::SharedData, &self.ticket, tokens, host::now());
            }
            self.state = State::Passing;
        }
    }

    /// Puts our body in the place of the first piece of the provider's, and nothing in that of all others.
    fn swallow(&mut self, size: usize) -> Action {
        if let State::Replacing(body) = &mut self.state {
            let ours = core::mem::take(body);
            host::set_body(BufferType::HttpResponseBody, size, &ours);
        }
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
        if is_error(&headers) && !end_of_stream {
            self.state = State::Reading(headers);
            return Action::Pause;
        }
        self.answered(&headers, &[]);
        if end_of_stream {
            self.ended();
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match &self.state {
            State::Reading(_) if !end_of_stream && size < BODY_LIMIT => Action::Pause,
            State::Reading(headers) => {
                let headers = headers.clone();
                let body = host::body(BufferType::HttpResponseBody, size.min(BODY_LIMIT));
                self.answered(&headers, &body);
                self.swallow(size)
            }
            State::Replacing(_) => self.swallow(size),
            State::Watching(_) => {
                self.watch(size);
                if end_of_stream {
                    self.ended();
                }
                Action::Continue
            }
            State::Waiting | State::Passing => Action::Continue,
        }
    }

    /// With trailers, no body callback says that the error is complete.
    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        if let State::Reading(headers) = &self.state {
            let headers = headers.clone();
            let body = host::body(BufferType::HttpResponseBody, BODY_LIMIT);
            self.answered(&headers, &body);
            return self.swallow(BODY_LIMIT);
        }
        self.ended();
        Action::Continue
    }

    /// Also when the client has gone before the end.
    fn on_log(&mut self) {
        self.ended();
    }
}

fn status_class(headers: &Headers) -> Option<char> {
    headers.text(":status").and_then(|status| status.chars().next())
}

fn succeeded(headers: &Headers) -> bool {
    status_class(headers) == Some('2')
}

fn is_error(headers: &Headers) -> bool {
    !matches!(status_class(headers), Some('1' | '2' | '3'))
}
