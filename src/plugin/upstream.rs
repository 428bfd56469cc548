//! The upstream filter: one context per attempt. Which key, and what did the answer say.
//!
//! ```text
//! Waiting ─ headers ─┬─ error, or to be translated whole ─▶ Reading ─ body ─┬─▶ Passing (as it came)
//!                    │                                                      └─▶ Replacing (ours)
//!                    └─ else ─▶ Flowing: each piece is watched, and translated if need be
//! ```

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType};

use super::{Shared, TICKETS, host, random};
use crate::answer::BODY_LIMIT;
use crate::answer::stream::Watcher;
use crate::balancer::{ATTEMPTS_HEADER, KEY_ID_HEADER, Next, RETRY_HEADER};
use crate::headers::Headers;
use crate::reply::Reply;
use crate::ticket::SharedTicket;
use crate::time::Time;
use crate::translate::{self, AnswerShape, Kind, Stream};

/// The largest answer that is translated in one piece; the buffer limit of the clusters in the shipped
/// configuration. A larger one is unreadable.
const MAX_ANSWER: usize = 8 << 20;

/// One attempt.
pub struct Upstream {
    balancer: Option<Shared>,
    ticket: Option<SharedTicket>,
    state: State,
}

enum State {
    /// No answer yet.
    Waiting,
    /// The headers are in and the body is being read.
    Reading(Head),
    /// The answer passes as it is.
    Passing,
    /// A successful answer passes, watched for errors and token counts, and translated if need be.
    Flowing(Box<Watcher>, Option<Box<Stream>>),
    /// Ours takes the place of the answer, whose body is swallowed.
    Replacing(Vec<u8>),
}

/// What has come of an answer before its body.
struct Head {
    status: u16,
    headers: Headers,
    /// No body follows.
    ended: bool,
}

impl Head {
    fn read(ended: bool) -> Self {
        let headers = host::headers(MapType::HttpResponseHeaders);
        let status = headers.text(":status").and_then(|status| status.parse().ok()).unwrap_or(502);
        Head { status, headers, ended }
    }

    fn succeeded(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn is_error(&self) -> bool {
        self.status >= 400
    }

    /// Whether a stream follows that can be read.
    fn streams(&self) -> bool {
        self.succeeded() && !self.ended && !self.headers.is_encoded()
    }
}

impl Upstream {
    pub fn new(balancer: Option<Shared>) -> Self {
        Upstream { balancer, ticket: None, state: State::Waiting }
    }

    fn reply(&mut self, reply: &Reply) -> Action {
        host::note(host::OUTCOME, reply.code);
        let ticket = self.ticket.as_ref().map(|ticket| ticket.borrow());
        let (client, attempts) = ticket.map(|ticket| (ticket.client, ticket.tried.len())).unwrap_or_default();
        let rendered = reply.render(client);
        let mut headers = rendered.headers;
        headers.push((ATTEMPTS_HEADER, attempts.to_string()));
        host::reply(rendered.status, &headers, &rendered.body);
        Action::Pause
    }

    /// The answer is known as far as it has to be: what becomes of it? `body` is empty for one that
    /// flows.
    fn answered(&mut self, head: &Head, body: &[u8]) {
        let map = MapType::HttpResponseHeaders;
        let (Some(balancer), Some(ticket)) = (self.balancer.clone(), self.ticket.clone()) else { return };
        let mut balancer = balancer.borrow_mut();
        let now = host::now();
        let error = if head.is_error() { body.get(..body.len().min(BODY_LIMIT)).unwrap_or_default() } else { &[] };
        let mut ticket = ticket.borrow_mut();
        let next = balancer.answered(&host::SharedData, &mut ticket, &head.headers, error, random(), now);
        // The second is ours to set: a provider's would make the router ask the next key.
        for dropped in ["set-cookie", RETRY_HEADER] {
            if head.headers.has(dropped) {
                host::remove_header(map, dropped);
            }
        }
        let mut marks = if next == Next::Retry { Vec::new() } else { balancer.marks(&ticket) };
        drop(balancer);
        if next == Next::Retry {
            host::set_header(map, RETRY_HEADER, "1");
            // Should the router not retry after all, the downstream filter answers: none of this body goes on.
            self.state = if head.ended { State::Passing } else { State::Replacing(Vec::new()) };
            return;
        }
        let (client, shape) = (ticket.client, ticket.answer.clone());
        // Both are borrowed anew where the answer's body is watched.
        drop(ticket);
        let (state, readable) = match next {
            Next::Retry => (State::Passing, true),
            Next::Deliver(more) => {
                marks.extend(more);
                self.deliver(head, body, shape, now)
            }
            Next::Replace(reply) => {
                let rendered = reply.render(client);
                host::set_header(map, ":status", &rendered.status.to_string());
                marks.extend(rendered.headers);
                (State::Replacing(rendered.body), true)
            }
        };
        self.state = state;
        self.delivered(readable);
        if let State::Replacing(body) = &self.state {
            host::set_header(map, "content-length", &body.len().to_string());
            host::remove_header(map, "content-encoding");
        }
        for (name, value) in marks {
            // The provider's finer one speaks of its last key alone, and OpenAI's SDKs would believe it first.
            if name == "retry-after" && head.headers.has("retry-after-ms") {
                host::remove_header(map, "retry-after-ms");
            }
            host::set_header(map, name, &value);
        }
    }

    fn delivered(&self, readable: bool) {
        let (Some(balancer), Some(ticket)) = (&self.balancer, &self.ticket) else { return };
        let mut ticket = ticket.borrow_mut();
        balancer.borrow().delivered(&mut ticket, readable);
        host::note(host::OUTCOME, ticket.result);
    }

    /// The answer goes to the client: as it is, or translated. Whether it can be read as far as it must be.
    fn deliver(&mut self, head: &Head, body: &[u8], shape: Option<AnswerShape>, now: Time) -> (State, bool) {
        let map = MapType::HttpResponseHeaders;
        let Some(shape) = shape else {
            let watched = head.succeeded().then(|| State::Flowing(Box::new(Watcher::new(&head.headers)), None));
            return (watched.unwrap_or(State::Passing), true);
        };
        let (id, created) = (format!("chatcmpl-{:016x}{:016x}", random(), random()), now.as_secs());
        let json = |body| {
            host::set_header(map, "content-type", "application/json");
            State::Replacing(body)
        };
        if head.is_error() {
            return (json(translate::error(head.status, body)), true);
        }
        if shape.kind == Kind::ChatStream && head.streams() {
            host::remove_header(map, "content-length");
            host::set_header(map, "content-type", "text/event-stream");
            let stream = Stream::new(shape, &id, created);
            return (State::Flowing(Box::new(Watcher::new(&head.headers)), Some(Box::new(stream))), true);
        }
        let mut watcher = Box::new(Watcher::new(&head.headers));
        self.watch(&mut watcher, body);
        self.count(&watcher);
        match translate::answer(&shape, &id, created, body) {
            Ok(answer) => (json(answer), true),
            Err(error) => {
                host::set_header(map, ":status", "502");
                (json(error), false)
            }
        }
    }

    /// A piece of a successful answer passes.
    fn watch(&self, watcher: &mut Watcher, piece: &[u8]) {
        let (Some(balancer), Some(ticket)) = (&self.balancer, &self.ticket) else { return };
        let ticket = ticket.borrow();
        let mut balancer = balancer.borrow_mut();
        if let Some(verdict) = watcher.see(piece, ticket.upstream.provider, host::now) {
            balancer.failed_late(&host::SharedData, &ticket, &verdict, host::now());
        }
    }

    /// A successful answer has ended: its tokens are known.
    fn count(&self, watcher: &Watcher) {
        if let (Some(tokens), Some(balancer), Some(ticket)) = (watcher.usage(), &self.balancer, &self.ticket) {
            let balancer = balancer.borrow();
            balancer.served(&host::SharedData, &ticket.borrow(), tokens, host::now);
            if balancer.config.token_metrics {
                host::note(host::TOKENS_IN, &tokens.input.to_string());
                host::note(host::TOKENS_OUT, &tokens.output.to_string());
            }
        }
    }

    fn flow(&mut self, mut watcher: Box<Watcher>, mut stream: Option<Box<Stream>>, size: usize, end: bool) {
        if watcher.is_watching() || stream.is_some() {
            let piece = if size > 0 { host::body(BufferType::HttpResponseBody, size) } else { Vec::new() };
            self.watch(&mut watcher, &piece);
            if let Some(stream) = &mut stream {
                let mut chunks = stream.feed(&piece);
                if end {
                    chunks.extend(stream.finish());
                }
                host::set_body(BufferType::HttpResponseBody, size, &chunks);
            }
        }
        if end {
            self.count(&watcher);
        } else {
            self.state = State::Flowing(watcher, stream);
        }
    }

    /// The body of an answer that was read is complete.
    fn read(&mut self, head: &Head, size: usize) {
        let body = host::body(BufferType::HttpResponseBody, size);
        self.answered(head, &body);
        self.swallow(size);
    }

    /// Answers the client in the place of an answer without a body, whose headers are changed already.
    fn replace(&mut self, body: &[u8]) -> Action {
        let Head { status, headers, .. } = Head::read(true);
        let kept = ["content-type", "retry-after", "x-should-retry", ATTEMPTS_HEADER, KEY_ID_HEADER];
        let kept = kept.iter().filter_map(|&name| Some((name, headers.text(name)?.to_owned())));
        host::reply(status, &kept.collect::<Vec<_>>(), body);
        Action::Pause
    }

    /// Puts our body in the place of the first piece of the provider's, and nothing in that of all others.
    fn swallow(&mut self, size: usize) {
        if let State::Replacing(body) = &mut self.state {
            let ours = core::mem::take(body);
            host::set_body(BufferType::HttpResponseBody, size, &ours);
        }
    }

    /// Whether the body has to be read before the headers go on, and how much of it.
    fn reads(&self, head: &Head) -> Option<usize> {
        let shape = |shape: &AnswerShape| shape.kind != Kind::ChatStream;
        let whole = || self.ticket.as_ref().is_some_and(|ticket| ticket.borrow().answer.as_ref().is_some_and(shape));
        match head.is_error() {
            true => Some(BODY_LIMIT),
            false if head.succeeded() && whole() => Some(MAX_ANSWER),
            false => None,
        }
    }
}

impl Context for Upstream {}

/// Also when the client has gone before the end. `on_log` is not called for upstream filters, and
/// `on_done` is one call into the module more.
impl Drop for Upstream {
    fn drop(&mut self) {
        if let State::Flowing(watcher, _) = &self.state {
            self.count(watcher);
        }
    }
}

impl HttpContext for Upstream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let ticket = host::stub().and_then(|stub| TICKETS.with(|tickets| tickets.borrow().get(stub)));
        let (Some(balancer), Some(ticket)) = (self.balancer.clone(), ticket) else {
            // Without a ticket the request has not passed the downstream filter: fail closed.
            return self.reply(&Reply::new(
                503,
                "not_configured",
                "This request has not passed the downstream filter.",
            ));
        };
        let attempt = balancer.borrow_mut().attempt(&host::SharedData, &mut ticket.borrow_mut(), random(), host::now);
        self.ticket = Some(ticket);
        match attempt {
            Ok(attempt) => {
                host::edit_request(&attempt.edits);
                Action::Continue
            }
            Err(reply) => self.reply(&reply),
        }
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let head = Head::read(end_of_stream);
        if !end_of_stream && self.reads(&head).is_some() {
            self.state = State::Reading(head);
            return Action::Pause;
        }
        self.answered(&head, &[]);
        match core::mem::replace(&mut self.state, State::Passing) {
            // There is no body whose place ours could take, so the whole answer is ours.
            State::Replacing(body) if end_of_stream => self.replace(&body),
            state => {
                self.state = state;
                Action::Continue
            }
        }
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match core::mem::replace(&mut self.state, State::Passing) {
            State::Reading(head) => {
                if !end_of_stream && self.reads(&head).is_some_and(|limit| size < limit) {
                    self.state = State::Reading(head);
                    return Action::Pause;
                }
                self.read(&head, size);
            }
            State::Flowing(watcher, stream) => self.flow(watcher, stream, size, end_of_stream),
            State::Replacing(body) => {
                self.state = State::Replacing(body);
                self.swallow(size);
            }
            State::Waiting | State::Passing => {}
        }
        Action::Continue
    }

    /// With trailers, no body callback says that the body is complete.
    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        match core::mem::replace(&mut self.state, State::Passing) {
            State::Reading(head) => self.read(&head, MAX_ANSWER),
            State::Flowing(watcher, _) => self.count(&watcher),
            state => self.state = state,
        }
        Action::Continue
    }
}
