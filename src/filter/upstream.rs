//! The upstream filter: one for each attempt. Which key is sent, and what did the answer say.
//!
//! ```text
//! Waiting ─ headers ─┬─ error, a GET's JSON, or to be translated whole ─▶ Reading ─ body ─┬─▶ Passing (as it came)
//!                    │                                                      └─▶ Replacing (ours)
//!                    └─ else ─▶ Flowing: each piece is watched, and translated if need be
//! ```

use super::{Action, Attribute, SharedBalancer, Side, Stream, passed_down};
use crate::answer::BODY_LIMIT;
use crate::answer::stream::Watcher;
use crate::balancer::progress::SharedExchange;
use crate::balancer::{ATTEMPTS_HEADER, KEY_ID_HEADER, Next, RETRY_HEADER};
use crate::http::headers::Headers;
use crate::observe::metrics::Ending;
use crate::reply::{Code, Reply};
use crate::translate::{self, AnswerShape, Kind};

/// The largest answer that is translated in one piece; the buffer limit of the clusters in the shipped
/// configuration. A larger one is unreadable.
const MAX_ANSWER: usize = 8 << 20;
/// The headers of an answer of ours that takes the place of one without a body.
const KEPT: [&str; 5] = ["content-type", "retry-after", "x-should-retry", ATTEMPTS_HEADER, KEY_ID_HEADER];

/// One attempt.
#[derive(Default)]
pub struct Upstream {
    request: Option<(SharedBalancer, SharedExchange)>,
    state: State,
}

#[derive(Default)]
enum State {
    /// No answer yet.
    #[default]
    Waiting,
    /// The headers are in, and the body is being read.
    Reading(Head),
    /// The answer passes as it is.
    Passing,
    /// A successful answer passes, watched for errors and token counts, and translated if need be.
    Flowing(Box<Watcher>, Option<Box<translate::Stream>>),
    /// Ours takes the place of the answer, whose body is dropped.
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
    fn read(stream: &dyn Stream, ended: bool) -> Self {
        let headers = stream.headers(Side::Response);
        Head { status: headers.status().unwrap_or(502), headers, ended }
    }

    fn succeeded(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn is_error(&self) -> bool {
        self.status >= 400
    }

    /// Whether a successful answer is JSON that is not known to be too large to be looked at.
    fn is_small_json(&self) -> bool {
        let json = || self.headers.text("content-type").is_some_and(|kind| kind.starts_with("application/json"));
        let length = || self.headers.text("content-length").and_then(|length| length.parse::<usize>().ok());
        self.succeeded() && !self.headers.is_encoded() && json() && length().is_none_or(|length| length <= BODY_LIMIT)
    }

    /// Whether a stream follows that can be read.
    fn streams(&self) -> bool {
        self.succeeded() && !self.ended && !self.headers.is_encoded()
    }
}

impl Upstream {
    /// The request is about to be sent: puts in the key. `exchange` is that of the downstream filter.
    pub fn request_headers(
        &mut self,
        stream: &dyn Stream,
        balancer: Option<SharedBalancer>,
        exchange: Option<SharedExchange>,
    ) -> Action {
        let (Some(balancer), Some(exchange)) = (balancer, exchange) else {
            // Without an exchange the request has not passed the downstream filter: fail closed.
            let message = "This request has not passed the downstream filter.";
            return self.reply(stream, &Reply::new(Code::NotConfigured, message));
        };
        let attempt = balancer.borrow_mut().attempt(&mut exchange.borrow_mut());
        self.request = Some((balancer, exchange));
        match attempt {
            Ok(attempt) => {
                attempt.edits.iter().for_each(|edit| edit.apply(stream));
                Action::Continue
            }
            Err(reply) => self.reply(stream, &reply),
        }
    }

    /// The headers of the answer have come.
    pub fn response_headers(&mut self, stream: &dyn Stream, end_of_stream: bool) -> Action {
        let head = Head::read(stream, end_of_stream);
        if !end_of_stream && self.reads(&head).is_some() {
            self.state = State::Reading(head);
            return Action::Pause;
        }
        self.answered(stream, &head, &[]);
        match core::mem::take(&mut self.state) {
            // There is no body whose place ours could take, so the whole answer is ours.
            State::Replacing(body) if end_of_stream => {
                self.state = State::Passing;
                replace(stream, &body)
            }
            state => {
                self.state = state;
                Action::Continue
            }
        }
    }

    /// A piece of the answer's body has come; `size` bytes are buffered.
    pub fn response_body(&mut self, stream: &dyn Stream, size: usize, end_of_stream: bool) -> Action {
        match core::mem::replace(&mut self.state, State::Passing) {
            State::Reading(head) => {
                if !end_of_stream && self.reads(&head).is_some_and(|limit| size < limit) {
                    self.state = State::Reading(head);
                    return Action::Pause;
                }
                self.read(stream, &head, size);
            }
            State::Flowing(watcher, translation) => self.flow(stream, watcher, translation, size, end_of_stream),
            State::Replacing(body) => {
                self.state = State::Replacing(body);
                self.put_ours(stream, size);
            }
            State::Waiting | State::Passing => {}
        }
        Action::Continue
    }

    /// The answer's trailers have come. No callback for the body says then that it is complete.
    pub fn response_trailers(&mut self, stream: &dyn Stream) -> Action {
        match core::mem::replace(&mut self.state, State::Passing) {
            State::Reading(head) => self.read(stream, &head, MAX_ANSWER),
            State::Flowing(watcher, _) => self.count(stream, &watcher),
            state => self.state = state,
        }
        Action::Continue
    }

    /// The attempt is over, perhaps because the client has left before the end of the answer.
    pub fn ended(&mut self, stream: &dyn Stream) {
        match (&self.state, &self.request) {
            (State::Flowing(watcher, _), _) => self.count(stream, watcher),
            // The provider has closed the connection, or Envoy's time for an attempt is over.
            (State::Reading(head), Some((balancer, exchange))) if head.is_error() => {
                balancer.borrow_mut().broke_off(&mut exchange.borrow_mut(), &head.headers);
            }
            _ => {}
        }
    }

    fn reply(&mut self, stream: &dyn Stream, reply: &Reply) -> Action {
        stream.record(Attribute::Outcome, reply.code.as_str());
        let exchange = self.request.as_ref().map(|(_, exchange)| exchange.borrow());
        let (api, attempts) =
            exchange.map(|exchange| (exchange.outgoing.client_api, exchange.progress.tried.len())).unwrap_or_default();
        let rendered = reply.render(api);
        let mut headers = rendered.headers;
        headers.push((ATTEMPTS_HEADER, attempts.to_string()));
        stream.reply(rendered.status, &headers, &rendered.body);
        Action::Pause
    }

    /// Whether the body has to be read before the headers are sent on, and how much of it.
    fn reads(&self, head: &Head) -> Option<usize> {
        if head.is_error() {
            return Some(BODY_LIMIT);
        }
        let exchange = self.request.as_ref().map(|(_, exchange)| exchange.borrow());
        let outgoing = exchange.as_ref().map(|exchange| &exchange.outgoing);
        // It may be the account's own data, with the key in it.
        if outgoing.is_some_and(|outgoing| outgoing.is_get) && head.is_small_json() {
            return Some(BODY_LIMIT);
        }
        let shape = outgoing.and_then(|outgoing| outgoing.shape.as_ref());
        let whole = shape.is_some_and(|shape| shape.kind != Kind::ChatStream);
        (head.succeeded() && whole).then_some(MAX_ANSWER)
    }

    /// The answer is known as far as it has to be: decides what becomes of it. `body` is empty if it flows.
    fn answered(&mut self, stream: &dyn Stream, head: &Head, body: &[u8]) {
        let Some((balancer, exchange)) = self.request.clone() else { return };
        let read = body.get(..body.len().min(BODY_LIMIT)).unwrap_or_default();
        let next = balancer.borrow_mut().answered(&mut exchange.borrow_mut(), &head.headers, read);
        let shows_key = |value: &[u8]| balancer.borrow().shows_key(&exchange.borrow(), value);
        passed_down::remove_headers(stream, &head.headers, shows_key);
        let mut headers = balancer.borrow().answer_headers(&exchange.borrow().progress);
        let (state, instead) = match next {
            Next::Retry => {
                stream.set_header(Side::Response, RETRY_HEADER, "1");
                // Should the router not retry after all, the downstream filter answers: none of this body is
                // sent on.
                self.state = if head.ended { State::Passing } else { State::Replacing(Vec::new()) };
                return;
            }
            Next::Deliver(more) => {
                headers.extend(more);
                let shape = exchange.borrow().outgoing.shape.clone();
                if shape.is_none() && !head.ended {
                    passed_down::disarm(stream, &head.headers);
                }
                self.deliver(stream, head, body, shape)
            }
            Next::Replace(reply) => {
                let rendered = reply.render(exchange.borrow().outgoing.client_api);
                stream.set_header(Side::Response, ":status", &rendered.status.to_string());
                headers.extend(rendered.headers);
                (State::Replacing(rendered.body), None)
            }
        };
        self.state = state;
        balancer.borrow().delivered(&mut exchange.borrow_mut(), instead);
        if let Some(ending) = exchange.borrow().progress.ending() {
            stream.record(Attribute::Outcome, ending.as_str());
        }
        if let State::Replacing(body) = &self.state {
            stream.set_header(Side::Response, "content-length", &body.len().to_string());
            stream.remove_header(Side::Response, "content-encoding");
        }
        for (name, value) in headers {
            // The provider's finer one speaks of its last key alone, and OpenAI's SDKs would believe it first.
            if name == "retry-after" && head.headers.has("retry-after-ms") {
                stream.remove_header(Side::Response, "retry-after-ms");
            }
            stream.set_header(Side::Response, name, &value);
        }
    }

    /// The answer is sent to the client, as it is or translated. Returns also how the request ends instead, if
    /// the answer cannot be read as far as it must be.
    fn deliver(
        &mut self,
        stream: &dyn Stream,
        head: &Head,
        body: &[u8],
        shape: Option<AnswerShape>,
    ) -> (State, Option<Ending>) {
        let watcher = || Box::new(Watcher::new(&head.headers));
        let Some(shape) = shape else {
            if !head.succeeded() {
                return (State::Passing, None);
            }
            let mut watcher = watcher();
            if !body.is_empty() {
                self.watch(&mut watcher, body);
            }
            return (State::Flowing(watcher, None), None);
        };
        let json = |body| {
            stream.set_header(Side::Response, "content-type", "application/json");
            State::Replacing(body)
        };
        if head.is_error() {
            return (json(translate::error(head.status, body)), None);
        }
        let (id, created) = self.completion_id();
        if shape.kind == Kind::ChatStream && head.streams() {
            stream.remove_header(Side::Response, "content-length");
            stream.set_header(Side::Response, "content-type", "text/event-stream");
            let translation = translate::Stream::new(shape, &id, created);
            return (State::Flowing(watcher(), Some(Box::new(translation))), None);
        }
        let mut watcher = watcher();
        self.watch(&mut watcher, body);
        self.count(stream, &watcher);
        match translate::answer(&shape, &id, created, body) {
            Ok(answer) => (json(answer), None),
            Err(error) => {
                stream.set_header(Side::Response, ":status", "502");
                (json(error), Some(Ending::Own(Code::ProviderAnswerUnreadable)))
            }
        }
    }

    /// The id of a translated answer, and when it was made, in Unix seconds.
    fn completion_id(&self) -> (String, u64) {
        let Some((balancer, _)) = &self.request else { return Default::default() };
        let host = balancer.borrow().host.clone();
        (format!("chatcmpl-{:016x}{:016x}", host.random(), host.random()), host.now().as_secs())
    }

    /// A piece of a successful answer passes.
    fn watch(&self, watcher: &mut Watcher, piece: &[u8]) {
        let Some((balancer, exchange)) = &self.request else { return };
        let mut exchange = exchange.borrow_mut();
        let now = || balancer.borrow().host.now();
        let provider = exchange.outgoing.upstream.provider;
        if let Some(verdict) = watcher.see(piece, provider, now) {
            balancer.borrow_mut().failed_late(&mut exchange, &verdict);
        }
    }

    /// A successful answer has ended: its tokens are known.
    fn count(&self, stream: &dyn Stream, watcher: &Watcher) {
        let (Some(tokens), Some((balancer, exchange))) = (watcher.usage(), &self.request) else { return };
        let mut balancer = balancer.borrow_mut();
        balancer.served(&mut exchange.borrow_mut(), tokens);
        if balancer.config.token_metrics {
            stream.record(Attribute::TokensIn, &tokens.input.to_string());
            stream.record(Attribute::TokensOut, &tokens.output.to_string());
        }
    }

    fn flow(
        &mut self,
        stream: &dyn Stream,
        mut watcher: Box<Watcher>,
        mut translation: Option<Box<translate::Stream>>,
        size: usize,
        end: bool,
    ) {
        if watcher.is_watching() || translation.is_some() {
            let piece = if size > 0 { stream.body(Side::Response, size) } else { Vec::new() };
            self.watch(&mut watcher, &piece);
            if let Some(translation) = &mut translation {
                let mut chunks = translation.feed(&piece);
                if end {
                    chunks.extend(translation.finish());
                }
                stream.set_body(Side::Response, size, &chunks);
            }
        }
        if end {
            self.count(stream, &watcher);
        } else {
            self.state = State::Flowing(watcher, translation);
        }
    }

    /// The body of an answer that was read is complete.
    fn read(&mut self, stream: &dyn Stream, head: &Head, size: usize) {
        let body = stream.body(Side::Response, size);
        self.answered(stream, head, &body);
        self.put_ours(stream, size);
    }

    /// Puts our body in place of the first piece of the provider's, and nothing in place of all others.
    fn put_ours(&mut self, stream: &dyn Stream, size: usize) {
        if let State::Replacing(body) = &mut self.state {
            let ours = core::mem::take(body);
            stream.set_body(Side::Response, size, &ours);
        }
    }
}

/// Answers the client in place of an answer without a body, whose headers are changed already.
fn replace(stream: &dyn Stream, body: &[u8]) -> Action {
    let Head { status, headers, .. } = Head::read(stream, true);
    let kept = KEPT.iter().filter_map(|&name| Some((name, headers.text(name)?.to_owned())));
    stream.reply(status, &kept.collect::<Vec<_>>(), body);
    Action::Pause
}
