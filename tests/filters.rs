//! The two filters, driven callback by callback against a stream in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use one_balance::balancer::RETRY_HEADER;
use one_balance::balancer::progress::ExchangeId;
use one_balance::config::D1;
use one_balance::d1::Call;
use one_balance::filter::downstream::{Downstream, SharedInFlight};
use one_balance::filter::upstream::Upstream;
use one_balance::filter::{Action, Attribute, SharedBalancer, Side, Stream};
use one_balance::http::headers::Headers;
use support::World;

type Map = BTreeMap<String, String>;

/// A stream as a host has it: both messages, and what was recorded.
#[derive(Default)]
struct FakeStream {
    headers: RefCell<[Map; 2]>,
    bodies: RefCell<[Vec<u8>; 2]>,
    attributes: RefCell<BTreeMap<Attribute, String>>,
    replied: RefCell<Option<(u16, Map, String)>>,
    exchange: RefCell<Option<ExchangeId>>,
}

impl FakeStream {
    fn put(&self, side: Side, headers: &[(&str, &str)], body: &str) {
        let map = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.headers.borrow_mut()[side as usize] = map;
        self.bodies.borrow_mut()[side as usize] = body.as_bytes().to_vec();
    }

    fn header(&self, side: Side, name: &str) -> Option<String> {
        self.headers.borrow()[side as usize].get(name).cloned()
    }

    fn text(&self, side: Side) -> String {
        String::from_utf8(self.bodies.borrow()[side as usize].clone()).unwrap()
    }

    fn outcome(&self) -> Option<String> {
        self.attributes.borrow().get(&Attribute::Outcome).cloned()
    }
}

impl Stream for FakeStream {
    fn headers(&self, side: Side) -> Headers {
        self.headers.borrow()[side as usize].iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    fn set_header(&self, side: Side, name: &str, value: &str) {
        self.headers.borrow_mut()[side as usize].insert(name.to_owned(), value.to_owned());
    }

    fn remove_header(&self, side: Side, name: &str) {
        self.headers.borrow_mut()[side as usize].remove(name);
    }

    fn body(&self, side: Side, size: usize) -> Vec<u8> {
        let body = &self.bodies.borrow()[side as usize];
        body[..size.min(body.len())].to_vec()
    }

    fn set_body(&self, side: Side, replaced: usize, bytes: &[u8]) {
        let body = &mut self.bodies.borrow_mut()[side as usize];
        let end = replaced.min(body.len());
        body.splice(..end, bytes.iter().copied());
    }

    fn reply(&self, status: u16, headers: &[(&str, String)], body: &[u8]) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        self.replied.replace(Some((status, headers, String::from_utf8(body.to_vec()).unwrap())));
    }

    fn record(&self, attribute: Attribute, value: &str) {
        self.attributes.borrow_mut().insert(attribute, value.to_owned());
    }

    fn set_exchange(&self, id: ExchangeId) {
        self.exchange.replace(Some(id));
    }

    fn call_d1(&self, _: &D1, _: &Call) -> Option<u32> {
        None
    }
}

/// A worker with both filters of one stream.
struct Worker {
    balancer: SharedBalancer,
    in_flight: SharedInFlight,
    stream: FakeStream,
    downstream: Downstream,
}

impl Worker {
    fn new(keys: &str) -> Self {
        Worker::with("", keys)
    }

    fn with(json: &str, keys: &str) -> Self {
        let mut world = World::with_workers(json, &[("AUTH_KEY", "a"), ("PROVIDER_KEYS", keys)], 1);
        let balancer = Rc::new(RefCell::new(world.workers.remove(0)));
        let in_flight = SharedInFlight::default();
        let downstream = Downstream::new(1, Some(balancer.clone()), in_flight.clone());
        Worker { balancer, in_flight, stream: FakeStream::default(), downstream }
    }

    /// The client's whole request; whether it goes on.
    fn request(&mut self, path: &str, body: &str) -> Action {
        let headers = [(":method", "POST"), (":path", path), ("authorization", "Bearer a")];
        self.stream.put(Side::Request, &headers, body);
        assert_eq!(self.downstream.request_headers(&self.stream, false), Action::Pause, "the body is awaited");
        self.downstream.request_body(&self.stream, body.len(), true)
    }

    fn attempt(&self) -> (Upstream, Action) {
        let mut upstream = Upstream::default();
        let exchange = self.stream.exchange.borrow().and_then(|id| self.in_flight.borrow().get(id));
        let action = upstream.request_headers(&self.stream, Some(self.balancer.clone()), exchange);
        (upstream, action)
    }

    /// The provider's answer to an attempt, whose body comes in one piece.
    fn answer(&self, upstream: &mut Upstream, status: &str, body: &str) -> Action {
        self.stream.put(Side::Response, &[(":status", status), ("content-type", "application/json")], body);
        match upstream.response_headers(&self.stream, body.is_empty()) {
            Action::Pause if !body.is_empty() => upstream.response_body(&self.stream, body.len(), true),
            action if body.is_empty() => action,
            _ => upstream.response_body(&self.stream, body.len(), true),
        }
    }
}

const CHAT: &str = "/api/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"m","messages":[]}"#;

#[test]
fn a_request_gets_a_key_and_its_answer_passes() {
    let mut worker = Worker::new("openai=k1");
    assert_eq!(worker.request(CHAT, BODY), Action::Continue);
    assert_eq!(worker.stream.header(Side::Request, "authorization"), None, "the AUTH_KEY is out");
    let (mut upstream, action) = worker.attempt();
    assert_eq!(action, Action::Continue);
    assert_eq!(worker.stream.header(Side::Request, "authorization").as_deref(), Some("Bearer k1"));
    assert_eq!(worker.stream.text(Side::Request), BODY, "byte for byte");
    let answer = r#"{"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
    assert_eq!(worker.answer(&mut upstream, "200", answer), Action::Continue);
    assert_eq!(worker.downstream.response_headers(&worker.stream, false), Action::Continue);
    assert_eq!(worker.stream.text(Side::Response), answer);
    assert_eq!(worker.stream.outcome().as_deref(), Some("served"));
    assert_eq!(worker.stream.attributes.borrow()[&Attribute::TokensOut], "4");
}

#[test]
fn an_error_is_read_before_its_headers_go_on_and_the_next_key_is_tried() {
    let mut worker = Worker::new("openai=k1,k2");
    worker.request(CHAT, BODY);
    let (mut first, _) = worker.attempt();
    worker.answer(&mut first, "429", "{}");
    assert_eq!(worker.stream.header(Side::Response, RETRY_HEADER).as_deref(), Some("1"));
    assert_eq!(worker.stream.text(Side::Response), "", "should the router not retry, nothing of it is sent on");
    let (mut second, _) = worker.attempt();
    assert_eq!(worker.stream.header(Side::Request, "authorization").as_deref(), Some("Bearer k2"));
    worker.answer(&mut second, "200", "{}");
    assert_eq!(worker.stream.header(Side::Response, "x-one-balance-attempts").as_deref(), Some("2"));
}

#[test]
fn what_the_router_does_not_retry_is_replaced() {
    let mut worker = Worker::new("openai=k1,k2");
    worker.request(CHAT, BODY);
    let (mut upstream, _) = worker.attempt();
    worker.answer(&mut upstream, "429", "{}");
    assert_eq!(worker.downstream.response_headers(&worker.stream, false), Action::Continue);
    worker.downstream.response_body(&worker.stream, 0, true);
    assert!(worker.stream.text(Side::Response).contains("not_retried"));
    assert_eq!(worker.stream.header(Side::Response, RETRY_HEADER), None);
    assert_eq!(worker.stream.outcome().as_deref(), Some("failed"));
}

#[test]
fn an_error_without_a_body_is_answered_by_a_reply_of_ours() {
    let mut worker = Worker::with(r#"{"ai_gateway":"account/gateway"}"#, "openai=k1");
    worker.request(CHAT, BODY);
    let (mut upstream, _) = worker.attempt();
    assert_eq!(worker.answer(&mut upstream, "401", ""), Action::Pause);
    let (status, headers, body) = worker.stream.replied.take().unwrap();
    assert!(status == 502 && body.contains("gateway_refused"), "{status} {body}");
    assert_eq!(headers["x-one-balance-attempts"], "1");
}

#[test]
fn a_request_that_has_not_passed_downstream_gets_no_key() {
    let worker = Worker::new("openai=k1");
    let (_, action) = worker.attempt();
    assert_eq!(action, Action::Pause);
    let (status, _, body) = worker.stream.replied.take().unwrap();
    assert!(status == 503 && body.contains("not_configured"), "{status} {body}");
}

#[test]
fn a_stream_that_ends_forgets_its_exchange() {
    let mut worker = Worker::new("openai=k1");
    worker.request(CHAT, BODY);
    worker.downstream.log(&worker.stream);
    assert_eq!(worker.stream.outcome().as_deref(), Some("cancelled"));
    let id = worker.stream.exchange.borrow().unwrap();
    let Worker { in_flight, downstream, .. } = worker;
    assert!(in_flight.borrow().get(id).is_some());
    drop(downstream);
    assert!(in_flight.borrow().get(id).is_none());
}

#[test]
fn a_translated_stream_is_translated_piece_by_piece() {
    let mut worker = Worker::new("google-ai-studio=k1");
    let body = r#"{"model":"google-ai-studio/g","stream":true,"messages":[{"role":"user","content":"x"}]}"#;
    assert_eq!(worker.request("/v1/chat/completions", body), Action::Continue);
    let path = worker.stream.header(Side::Request, ":path").unwrap();
    assert_eq!(path, "/v1beta/models/g:streamGenerateContent?alt=sse");
    let (mut upstream, _) = worker.attempt();
    let event = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hi\"}]},\"finishReason\":\"STOP\"}]}\n\n";
    for (at, _) in event.char_indices() {
        let (one, two) = event.split_at(at);
        worker.stream.put(Side::Response, &[(":status", "200"), ("content-type", "text/event-stream")], one);
        if at == 0 {
            continue;
        }
        let mut text = String::new();
        let mut upstream = if at == 1 { std::mem::take(&mut upstream) } else { worker.attempt().0 };
        assert_eq!(upstream.response_headers(&worker.stream, false), Action::Continue);
        for (piece, end) in [(one, false), (two, true)] {
            worker.stream.bodies.borrow_mut()[1] = piece.as_bytes().to_vec();
            upstream.response_body(&worker.stream, piece.len(), end);
            text += &worker.stream.text(Side::Response);
        }
        assert!(text.contains(r#""content":"Hi""#) && text.ends_with("data: [DONE]\n\n"), "{at}: {text}");
    }
}

/// A provider's key that is long enough to be looked for.
const LONG_KEY: &str = "own/secret-key-001";

/// Sends a request and answers its first attempt; returns whether the answer goes on to the client.
fn exchange(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (Worker, Upstream, Action) {
    let mut worker = Worker::new(&format!("openai={LONG_KEY};elevenlabs={LONG_KEY};google-ai-studio={LONG_KEY}"));
    worker.stream.put(Side::Request, &[(":method", method), (":path", path), ("authorization", "Bearer a")], "");
    assert_eq!(worker.downstream.request_headers(&worker.stream, true), Action::Continue);
    let (mut upstream, action) = worker.attempt();
    assert_eq!(action, Action::Continue);
    worker.stream.put(Side::Response, headers, body);
    let mut action = upstream.response_headers(&worker.stream, body.is_empty());
    if !body.is_empty() {
        action = upstream.response_body(&worker.stream, body.len(), true);
    }
    (worker, upstream, action)
}

const MODELS: &str = "/api/openai/v1/models";
const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn a_header_with_the_key_is_dropped() {
    for (name, value) in [
        ("www-authenticate", "Bearer error_description=\"bad key own/secret-key-001\""),
        ("x-debug", "own%2Fsecret-key-001"),
        ("location", "http://internal/?key=own/secret-key-001"),
    ] {
        let headers = [(":status", "400"), JSON, (name, value), ("x-kept", "own/secret-key-002")];
        let (worker, ..) = exchange("GET", MODELS, &headers, "{}");
        assert_eq!(worker.stream.header(Side::Response, name), None, "{name}");
        assert_eq!(worker.stream.header(Side::Response, "x-kept").as_deref(), Some("own/secret-key-002"));
        assert_eq!(worker.stream.text(Side::Response), "{}");
    }
}

#[test]
fn a_redirect_with_the_key_becomes_an_error() {
    for (location, replaced) in [("http://x/?key=own/secret-key-001", true), ("https://cdn/file", false)] {
        for body in ["", "moved"] {
            let headers = [(":status", "307"), ("content-type", "text/plain"), ("location", location)];
            let (worker, ..) = exchange("GET", MODELS, &headers, body);
            assert_eq!(worker.stream.header(Side::Response, "location").is_none(), replaced, "{location} {body}");
            let ours = worker.stream.replied.take().map(|(status, _, body)| (status.to_string(), body));
            let status = worker.stream.header(Side::Response, ":status").unwrap();
            let (status, text) = ours.unwrap_or((status, worker.stream.text(Side::Response)));
            assert_eq!(text.contains("provider_error_withheld"), replaced, "{text}");
            assert_eq!(status, if replaced { "502" } else { "307" });
        }
    }
}

#[test]
fn a_key_in_an_error_is_found_in_escapes_and_an_encoded_error_is_withheld() {
    let plain = [(":status", "400"), JSON];
    let gzip = [(":status", "400"), JSON, ("content-encoding", "gzip")];
    for (headers, body, withheld) in [
        (plain.as_slice(), r#"{"error":{"message":"you sent own\/secret\u002dkey-001"}}"#, true),
        (plain.as_slice(), r#"{"error":{"message":"you sent own\/secret\u002dkey-002"}}"#, false),
        (gzip.as_slice(), "?", true),
        (gzip.as_slice(), "", false),
    ] {
        let (worker, ..) = exchange("GET", MODELS, headers, body);
        let text = worker.stream.text(Side::Response);
        assert_eq!(text.contains("provider_error_withheld"), withheld, "{text}");
        assert_eq!(text == body, !withheld, "byte for byte");
        if withheld {
            assert_eq!(worker.stream.header(Side::Response, "content-encoding"), None);
            assert_eq!(worker.stream.header(Side::Response, ":status").as_deref(), Some("400"));
        }
    }
}

#[test]
fn a_small_json_success_of_a_get_is_looked_at() {
    let path = "/api/elevenlabs/v1/workspace";
    let with_key = r#"{"xi_api_key":"own\/secret-key-001"}"#;
    let length = |length| ("content-length", length);
    for (method, headers, body, withheld) in [
        ("GET", vec![JSON], with_key, true),
        ("GET", vec![JSON, length("40")], with_key, true),
        ("GET", vec![JSON], r#"{"name":"own"}"#, false),
        // These pass as they come.
        ("GET", vec![JSON, length("65537")], with_key, false),
        ("GET", vec![("content-type", "text/event-stream")], with_key, false),
    ] {
        let mut all = vec![(":status", "200")];
        all.extend(headers);
        let (worker, _, action) = exchange(method, path, &all, body);
        assert_eq!(action, Action::Continue);
        let text = worker.stream.text(Side::Response);
        assert_eq!(text.contains("provider_error_withheld"), withheld, "{all:?} {text}");
        assert_eq!(text == body, !withheld);
        let status = worker.stream.header(Side::Response, ":status");
        assert_eq!(status.as_deref(), Some(if withheld { "502" } else { "200" }));
    }
}

#[test]
fn what_a_client_does_not_get_of_an_answer() {
    let dropped = [
        "x-envoy-ratelimited",
        "x-envoy-overloaded",
        "strict-transport-security",
        "alt-svc",
        "access-control-allow-origin",
        "refresh",
        "clear-site-data",
        "service-worker-allowed",
        "set-cookie",
        "x-one-balance-anything",
    ];
    for status in ["200", "404", "302"] {
        let mut headers = vec![(":status", status), JSON, ("x-request-id", "kept"), ("retry-after", "1")];
        headers.extend(dropped.map(|name| (name, "x")));
        let (worker, ..) = exchange("GET", MODELS, &headers, "{}");
        for name in dropped {
            assert_eq!(worker.stream.header(Side::Response, name), None, "{status} {name}");
        }
        for name in ["x-request-id", "retry-after", "content-type", "x-one-balance-attempts"] {
            assert!(worker.stream.header(Side::Response, name).is_some(), "{status} {name}");
        }
    }
}

#[test]
fn the_router_sees_no_header_that_ends_its_retries() {
    let mut worker = Worker::new("openai=k1,k2");
    worker.request(CHAT, BODY);
    let (mut upstream, _) = worker.attempt();
    worker.stream.put(Side::Response, &[(":status", "429"), ("x-envoy-ratelimited", "true")], "{}");
    upstream.response_headers(&worker.stream, false);
    upstream.response_body(&worker.stream, 2, true);
    assert_eq!(worker.stream.header(Side::Response, RETRY_HEADER).as_deref(), Some("1"));
    assert_eq!(worker.stream.header(Side::Response, "x-envoy-ratelimited"), None);
}

#[test]
fn nothing_of_a_provider_runs_under_the_consoles_origin() {
    for (kind, sandboxed) in [
        (Some("text/html; charset=utf-8"), true),
        (Some("image/svg+xml"), true),
        (Some("application/xml"), true),
        (Some("application/json, text/html"), true),
        (Some(""), true),
        (None, true),
        (Some("application/json; charset=utf-8"), false),
        (Some("text/event-stream"), false),
        (Some("audio/mpeg"), false),
        (Some("image/png"), false),
    ] {
        for status in ["200", "404"] {
            let mut headers = vec![(":status", status)];
            headers.extend(kind.map(|kind| ("content-type", kind)));
            let (worker, ..) = exchange("GET", MODELS, &headers, "<script>");
            let policy = worker.stream.header(Side::Response, "content-security-policy");
            assert_eq!(policy.as_deref() == Some("sandbox"), sandboxed, "{status} {kind:?}");
            let sniffing = worker.stream.header(Side::Response, "x-content-type-options");
            assert_eq!(sniffing.as_deref() == Some("nosniff"), sandboxed, "{status} {kind:?}");
            assert_eq!(worker.stream.text(Side::Response), "<script>");
        }
    }
}

#[test]
fn an_error_that_breaks_off_is_judged_by_its_headers() {
    for (status, next) in [("429", "k2"), ("500", "k1")] {
        let mut worker = Worker::new("openai=k1,k2");
        worker.request(CHAT, BODY);
        let (mut upstream, _) = worker.attempt();
        worker.stream.put(Side::Response, &[(":status", status), ("retry-after", "30")], "{");
        assert_eq!(upstream.response_headers(&worker.stream, false), Action::Pause);
        assert_eq!(upstream.response_body(&worker.stream, 1, false), Action::Pause);
        upstream.ended(&worker.stream);
        let (_, action) = worker.attempt();
        assert_eq!(action, Action::Continue);
        assert_eq!(worker.stream.header(Side::Request, "authorization").as_deref(), Some("Bearer k2"), "{status}");
        // Another request: whether the key that broke off is leased shows what was learned.
        let stream = FakeStream::default();
        let mut other = Downstream::new(2, Some(worker.balancer.clone()), worker.in_flight.clone());
        stream.put(Side::Request, &[(":method", "POST"), (":path", CHAT), ("authorization", "Bearer a")], BODY);
        other.request_headers(&stream, false);
        other.request_body(&stream, BODY.len(), true);
        let id = stream.exchange.borrow().unwrap();
        let shared = worker.in_flight.borrow().get(id);
        Upstream::default().request_headers(&stream, Some(worker.balancer.clone()), shared);
        assert_eq!(stream.header(Side::Request, "authorization"), Some(format!("Bearer {next}")), "{status}");
    }
}
