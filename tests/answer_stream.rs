//! The body of a good answer, watched with cuts at every byte.

// Helpers of tests may panic as tests do, but clippy.toml exempts only the test functions themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use one_balance::answer::stream::{Usage, Watcher};
use one_balance::answer::{Outcome, Period, Verdict};
use one_balance::http::headers::Headers;
use one_balance::provider::{Provider, find};
use one_balance::time::{Span, Time};
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: Time = Time(1_795_521_600_000); // 2026-11-24T12:00:00Z

const SSE: &str = "text/event-stream; charset=utf-8";
const JSON: &str = "application/json";

type Seen = (Option<Outcome>, Option<Usage>);

fn watch(provider: &Provider, kind: &str, pieces: &[&[u8]]) -> (Vec<Verdict>, Option<Usage>) {
    let mut watcher = Watcher::new(&[("content-type", kind)].into_iter().collect());
    let verdicts = pieces.iter().filter_map(|piece| watcher.see(piece, provider, || NOW)).collect();
    (verdicts, watcher.usage())
}

/// What the watcher sees of a body, which must be the same in one piece, for every cut in two, and byte by
/// byte.
fn seen(slug: &str, kind: &str, body: &str) -> Seen {
    let provider = find(slug).expect(slug);
    let body = body.as_bytes();
    let whole = watch(provider, kind, &[body]);
    assert!(whole.0.len() <= 1, "one verdict for one answer: {whole:?}");
    for cut in 0..=body.len() {
        assert_eq!(watch(provider, kind, &[&body[..cut], &body[cut..]]), whole, "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(watch(provider, kind, &bytes), whole, "byte by byte");
    (whole.0.first().map(|verdict| verdict.outcome), whole.1)
}

fn tokens(input: u64, output: u64) -> Option<Usage> {
    Some(Usage { input, output })
}

#[test]
fn openai_stream() {
    let body = concat!(
        "data: {\"id\":\"c1\",\"choices\":[{\"delta\":{\"content\":\"a \\\"error\\\": {\\\"code\\\":401}\"}}],\"usage\":null}\n\n",
        ": a comment with \"error\":{\"code\":401}\n\n",
        "data: {\"id\":\"c1\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12,\"total_tokens\":21,",
        "\"prompt_tokens_details\":{\"cached_tokens\":0}}}\n\ndata: [DONE]\n\n",
    );
    assert_eq!(seen("openai", SSE, body), (None, tokens(9, 12)));
    assert_eq!(seen("openai", SSE, &body.replace('\n', "\r\n")), (None, tokens(9, 12)));
}

#[test]
fn openai_whole() {
    let body = r#"{"id":"c1","choices":[{"message":{"role":"assistant","content":"\\","error":{"code":429}}}],
        "error":null,"usage":{"prompt_tokens":5,"completion_tokens":7}}"#;
    assert_eq!(seen("openai", JSON, body), (None, tokens(5, 7)));
}

#[test]
fn keys_with_escapes() {
    let body = r#"{"a\"b":1,"\\":2,"\"error\":":{"code":1},"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
    assert_eq!(seen("openai", JSON, body), (None, tokens(3, 4)));
}

/// The last statement of each count wins. Documents may follow each other (NDJSON).
#[test]
fn usage_wins_late() {
    let body = concat!(
        "{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n{\"usage\":null}\n",
        "{\"usage\":{\"completion_tokens\":\"6\"}}\n{\"usage\":{\"seconds\":1}}\n[]\n",
    );
    assert_eq!(seen("openai", "application/x-ndjson", body), (None, tokens(3, 6)));
}

#[test]
fn openai_responses() {
    let done = concat!(
        "event: response.completed\n",
        "data: {\"type\":\"response.completed\",\"response\":{\"error\":null,\"output\":[{\"usage\":1}],",
        "\"usage\":{\"input_tokens\":37,\"output_tokens\":11}}}\n\n",
    );
    assert_eq!(seen("openai", SSE, done), (None, tokens(37, 11)));
    let failed = concat!(
        "data: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",",
        "\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"Please try again in 20s.\"}}}\n\n",
    );
    let (outcome, _) = seen("openai", SSE, failed);
    assert!(matches!(outcome, Some(Outcome::RateLimit(limit)) if limit.until == Some(NOW.plus(Span::secs(20)))));
}

#[test]
fn openrouter_errors() {
    let stream = concat!(
        ": OPENROUTER PROCESSING\n\n",
        "data: {\"id\":\"g\",\"choices\":[{\"delta\":{\"content\":\"Once\"}}]}\n\n",
        "data: {\"id\":\"g\",\"error\":{\"code\":429,\"message\":\"Rate limit exceeded: free-models-per-day\"},",
        "\"choices\":[{\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\"}]}\n\n",
        "data: {\"error\":{\"code\":502,\"message\":\"again\"}}\n\n",
    );
    let (outcome, _) = seen("openrouter", SSE, stream);
    assert!(matches!(outcome, Some(Outcome::Quota(quota)) if quota.period == Period::Daily && quota.until.is_some()));
    let whole = "\n\n   \n{\"error\":{\"code\":502,\"message\":\"Provider returned error\"},\"user_id\":\"u\"}";
    assert_eq!(seen("openrouter", JSON, whole).0, Some(Outcome::Transient { until: None }));
    let spaced = "{\n  \"error\" : {\n    \"code\": 502,\n    \"message\": \"Provider returned error\"\n  }\n}\n";
    assert_eq!(seen("openrouter", JSON, spaced).0, Some(Outcome::Transient { until: None }));
    let named =
        "data: {\"error\":{\"code\":\"server_error\",\"message\":\"Provider disconnected\"},\"choices\":[]}\n\n";
    assert_eq!(seen("openrouter", SSE, named).0, Some(Outcome::Transient { until: None }));
}

#[test]
fn gemini() {
    let chunk = |candidates: u32, thoughts: &str| {
        format!(
            "{{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"hi\"}}]}}}}],\"usageMetadata\":{{\
             \"promptTokenCount\":8,\"candidatesTokenCount\":{candidates}{thoughts}}}}}"
        )
    };
    let (first, last) = (chunk(2, ""), chunk(9, ",\"thoughtsTokenCount\":30"));
    let events = format!("data: {first}\r\n\r\ndata: {last}\r\n\r\n");
    assert_eq!(seen("google-ai-studio", SSE, &events), (None, tokens(8, 39)));
    let array = format!("[{first}\n,\r\n{last}\n]");
    assert_eq!(seen("google-ai-studio", JSON, &array), (None, tokens(8, 39)));

    let error =
        r#"{"error":{"code":503,"message":"The model is overloaded. Please try again later.","status":"UNAVAILABLE"}}"#;
    for (kind, body) in [(JSON, format!("[{first},{error}]")), (SSE, format!("data: {first}\n\ndata: {error}\n\n"))] {
        assert_eq!(seen("google-ai-studio", kind, &body).0, Some(Outcome::Overloaded { until: None }), "{kind}");
    }
}

#[test]
fn anthropic() {
    let start = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"content\":[],",
        "\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"\\\"error\\\":{}\"}}\n\n",
    );
    let end =
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":15}}\n\n";
    assert_eq!(seen("anthropic", SSE, &format!("{start}{end}")), (None, tokens(25, 15)));
    let error = concat!(
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",",
        "\"message\":\"Overloaded\"}}\n\n",
    );
    let seen = seen("anthropic", SSE, &format!("{start}{error}"));
    assert_eq!(seen, (Some(Outcome::Overloaded { until: None }), tokens(25, 1)));
}

#[test]
fn good_answers_have_no_error() {
    for body in [
        r#"{"error":null}"#,
        r#"{"error":"","usage":[]}"#,
        r#"{"error":"the model failed"}"#, // Replicate's prediction
        r#"{"error":{}}"#,
        r#"{"data":{"error":{"code":429,"message":"m"}}}"#,
        r#"[[{"error":{"code":429,"message":"m"}}]]"#,
        r#"{"a":["error",{"error":{"code":429}}]}"#,
        r#"{"a":"{\"error\":{\"code\":429,\"message\":\"m\"}}"}"#,
        r#"{"choices":{"error":{"code":429,"message":"m"}}}"#,
        r#"{"err\u006fr":{"code":429,"message":"m"}}"#,
        r#"{"errors":{"code":429,"message":"m"}}"#,
        r#""error""#,
        "",
    ] {
        assert_eq!(seen("openrouter", JSON, body), (None, None), "{body}");
    }
}

#[test]
fn what_is_not_read() {
    let read = |headers: &[(&str, &str)]| Watcher::new(&headers.iter().copied().collect::<Headers>()).is_watching();
    assert!(read(&[("content-type", JSON)]));
    assert!(read(&[("content-type", SSE), ("content-encoding", "identity")]));
    assert!(!read(&[("content-type", JSON), ("content-encoding", "gzip")]));
    assert!(!read(&[("content-type", "audio/mpeg")]));
    assert!(!read(&[]));
}

#[test]
fn what_follows_long_lines_strings_and_values_is_seen() {
    let long = "x".repeat(1 << 20);
    let usage = "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}";
    let provider = find("openai").unwrap();
    for body in [
        format!("data: {{\"a\":\"{long}\",{usage}}}\n"),
        format!("data: {{\"error\":{{\"message\":\"{long}\"}},{usage}}}\n"),
        format!(": {long}\ndata: {{{usage}}}\n"),
        format!("{long}\ndata: {{{usage}}}\n"),
        format!("data: {{\"{long}\":1,{usage}}}\n"),
        format!("data: {{\"{}\":1,{usage}}}\n", "\\\\".repeat(1 << 20)),
        format!("data: {}\ndata: {{{usage}}}\n", "[{\"a\":".repeat(100_000)),
    ] {
        let pieces: Vec<&[u8]> = body.as_bytes().chunks(4096).collect();
        assert_eq!(watch(provider, SSE, &pieces).1, tokens(1, 2), "{}", &body[..20]);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![Just("error".to_owned()), Just("usage".to_owned()), any::<String>()];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        text.prop_map(Value::from)
    ];
    let key = prop_oneof!["error|usage|usageMetadata|message|response|code|type|prompt_tokens", any::<String>()];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..5).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

/// Whether the document has an error, by a whole parse and the rule in the watcher's head.
fn holds_error(document: &Value) -> bool {
    let says = |error: Option<&Value>| {
        let text = error.filter(|error| error.is_object()).map(Value::to_string).unwrap_or_default();
        ["\"message\"", "\"code\"", "\"type\""].iter().any(|word| text.contains(word))
    };
    let inner = |name: &str| document.get(name).filter(|inner| inner.is_object()).and_then(|inner| inner.get("error"));
    document.is_object() && (says(document.get("error")) || says(inner("message")) || says(inner("response")))
}

proptest! {
    /// However the text is written and cut, the scanner finds what a whole parse finds.
    #[test]
    fn the_watcher_finds_what_a_whole_parse_finds(document in any_json(), pretty: bool, events: bool, size in 1usize..50) {
        prop_assume!(!document.is_array() || events);
        let text = if pretty && !events { format!("{document:#}") } else { document.to_string() };
        let (kind, text) = if events { (SSE, format!("data: {text}\n\n")) } else { (JSON, text) };
        let expected = if document.is_array() {
            document.as_array().unwrap().iter().any(holds_error)
        } else {
            holds_error(&document)
        };
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        let (verdicts, _) = watch(find("openrouter").unwrap(), kind, &pieces);
        prop_assert_eq!(verdicts.len(), usize::from(expected), "{}", text);
    }

    #[test]
    fn any_bytes_are_watched_and_the_cut_does_not_matter(bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\\ndata error"[..])], 0..300), cut: prop::sample::Index, events: bool) {
        let kind = if events { SSE } else { JSON };
        let provider = find("openai").unwrap();
        let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
        prop_assert_eq!(watch(provider, kind, &[head, tail]), watch(provider, kind, &[&bytes]));
    }
}

#[test]
fn evidence_has_the_status_that_comes_with_the_error() {
    let body = json!({"error": {"code": 429, "message": "Rate limit exceeded: free-models-per-min."}}).to_string();
    let (verdicts, _) = watch(find("openrouter").unwrap(), JSON, &[body.as_bytes()]);
    assert_eq!(verdicts[0].evidence.to_string(), "429 message \"free-models-per\"");
}
