//! A request's whole way through the core, as the adapter drives it, against a memory in place of
//! shared data: what `make bench-core` times.

use one_balance::answer::stream::Watcher;
use one_balance::http::headers::Headers;
use one_balance::request::{self, Step};
use one_balance::testing;

/// One worker with its keys.
pub struct World(testing::World);

/// What a client sends, and what its provider answers.
pub struct Exchange {
    path: &'static str,
    body: Vec<u8>,
    answer: &'static [u8],
}

impl Exchange {
    /// The kinds that are measured.
    pub const ALL: [(&str, fn() -> Self); 5] = [
        ("native 1 KB", Exchange::native),
        ("compat 1 KB", || Exchange::compat(1 << 10)),
        ("compat 64 KB", || Exchange::compat(64 << 10)),
        ("compat 1 MB", || Exchange::compat(1 << 20)),
        ("translated 1 KB", Exchange::translated),
    ];

    /// Gemini's own API, with a body of about 1 KB.
    pub fn native() -> Self {
        let text = "There are three ways to do it. ".repeat(32);
        Exchange {
            path: "/api/google-ai-studio/v1beta/models/gemini-2.0-flash:generateContent",
            body: format!(r#"{{"contents":[{{"role":"user","parts":[{{"text":"{text}"}}]}}]}}"#).into_bytes(),
            answer: br#"{"candidates":[{"content":{"parts":[{"text":"Hello."}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":12,"candidatesTokenCount":9,"totalTokenCount":21}}"#,
        }
    }

    /// OpenAI's format for a provider that speaks it, of about so many bytes.
    pub fn compat(size: usize) -> Self {
        let text = r#"He said: \"There are three ways to do it.\\n\" Then he left. "#.repeat(size / 60);
        Exchange {
            path: "/v1/chat/completions",
            body: format!(r#"{{"model":"plain/m","messages":[{{"role":"user","content":"{text}"}}],"max_tokens":100}}"#)
                .into_bytes(),
            answer: br#"{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hello."},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21}}"#,
        }
    }

    /// OpenAI's format, translated for Gemini.
    pub fn translated() -> Self {
        let body = Exchange::compat(1024).body;
        let body = String::from_utf8(body).unwrap().replace("plain/m", "google-ai-studio/gemini-2.0-flash");
        Exchange { body: body.into_bytes(), path: "/v1/chat/completions", ..Exchange::native() }
    }
}

impl World {
    /// A worker with so many keys of each provider.
    pub fn new(keys: usize) -> Self {
        let list = |name| {
            let keys: Vec<String> = (0..keys).map(|number| format!("sk-{name}-{number:024}")).collect();
            format!("{name}={}", keys.join(","))
        };
        let json = format!(
            r#"{{"auth_key":"bench-auth-key","provider_keys":"{};{}","provider_base_urls":"plain=http://127.0.0.1:1/v1"}}"#,
            list("plain"),
            list("google-ai-studio")
        );
        World(testing::World::with_workers(&json, &[], 1))
    }

    /// A request and its answer; the size of what goes up and down, so that nothing is optimized away.
    pub fn serve(&mut self, exchange: &Exchange) -> usize {
        let World(world) = self;
        world.host.now.set(one_balance::time::Time(world.now().0 + 1));
        let length = exchange.body.len().to_string();
        let headers: Headers = [
            (":authority", "one-balance"),
            (":path", exchange.path),
            (":method", "POST"),
            (":scheme", "http"),
            ("content-type", "application/json"),
            ("authorization", "Bearer bench-auth-key"),
            ("content-length", &length),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-envoy-internal", "true"),
            ("x-request-id", "a5a5a5a5-a5a5-a5a5-a5a5-a5a5a5a5a5a5"),
        ]
        .into_iter()
        .collect();
        let Step::Proceed(pending) = request::begin(&world.config, &*world.host, headers, false) else {
            panic!("the request is good")
        };
        let read = if pending.reads_body() { exchange.body.as_slice() } else { &[] };
        let forward = pending.finish(read, exchange.body.len(), 7).expect("the request is good");
        let mut sent = world.send(0, forward.outgoing).expect("there is a key");
        let answer: Headers =
            [(":status", "200"), ("content-type", "application/json"), ("x-request-id", "req_1"), ("alt-svc", "h3")]
                .into_iter()
                .collect();
        world.answered(&mut sent, &answer, &[]);
        let mut size = world.workers[0].answer_headers(&sent.exchange.progress).len();
        let mut watcher = Watcher::new(&answer);
        let outgoing = &sent.exchange.outgoing;
        watcher.see(exchange.answer, outgoing.upstream.provider, || world.now());
        size += sent.headers.len() + forward.body.map_or(0, |body| body.beginning.len());
        if let Some(shape) = &outgoing.shape {
            size +=
                one_balance::translate::answer(shape, "chatcmpl-1", 1, exchange.answer).map_or(0, |body| body.len());
        }
        if let Some(tokens) = watcher.usage() {
            world.served(&sent, tokens);
        }
        size
    }
}
