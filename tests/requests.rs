//! What becomes of a request downstream: read as transcripts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::rc::Rc;

use one_balance::config::Config;
use one_balance::host::memory::Memory;
use one_balance::http::headers::Headers;
use one_balance::provider::Auth;
use one_balance::request::edits::Edit;
use one_balance::request::{self, Step};
use support::{START, forward};

fn config(extra: &[(&str, &str)]) -> Rc<Config> {
    let mut env = BTreeMap::from([("AUTH_KEY", "open;tight=google-ai-studio,gemini-2.0-flash&openai;old(5)")]);
    env.extend(extra.iter().copied());
    Rc::new(Config::parse(b"", |name| env.get(name).map(|&text| text.to_owned())).unwrap())
}

fn outcome(config: &Rc<Config>, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let sent = body;
    match forward(config, method, path, headers, sent) {
        Err(reply) => format!("{} {}", reply.status, reply.code),
        Ok(forward) => {
            let set = |wanted| {
                forward.edits.iter().find_map(|edit| match edit {
                    Edit::Set(name, value) if *name == wanted => Some(value.to_string()),
                    _ => None,
                })
            };
            let [scheme, authority, path] = [":scheme", ":authority", ":path"].map(|name| set(name).unwrap());
            let body = forward.body.map_or_else(String::new, |new| {
                let whole = [&new.beginning, &sent.as_bytes()[new.replaced..]].concat();
                assert_eq!(whole.len(), new.size);
                format!(" {}", String::from_utf8(whole).unwrap())
            });
            format!("{scheme}://{authority}{path} [{}]{body}", forward.outgoing.model)
        }
    }
}

const OPEN: (&str, &str) = ("authorization", "Bearer open");
const TIGHT: (&str, &str) = ("x-goog-api-key", "tight");
const UPGRADE: (&str, &str) = ("upgrade", "websocket");
const GZIP: (&str, &str) = ("content-encoding", "gzip");

/// Providers go by their bodies, and so do rights.
#[test]
fn a_model_in_the_query_gives_no_right_to_another_one() {
    let config = config(&[("AUTH_KEY", "tight=openai,gpt-4o&google-ai-studio,g")]);
    let chat = "/api/openai/chat/completions?model=gpt-4o";
    let (went_up, refused) =
        ("https://api.openai.com/v1/chat/completions?model=gpt-4o [gpt-4o]", "403 model_not_allowed");
    for (method, path, headers, body, expected) in [
        ("POST", chat, vec![TIGHT], r#"{"model":"gpt-4o"}"#, went_up),
        ("POST", chat, vec![TIGHT], "v=0", went_up),
        ("POST", chat, vec![TIGHT], r#"{"model":"o3"}"#, refused),
        ("POST", chat, vec![TIGHT, GZIP], "\x1f\x08", "415 unsupported_encoding"),
        ("POST", chat, vec![TIGHT, UPGRADE], r#"{"model":"o3"}"#, "405 method_not_allowed"),
        // There the messages would name it, and nobody reads them.
        ("GET", "/api/openai/responses", vec![TIGHT, UPGRADE], "", refused),
        ("GET", "/api/google-ai-studio/ws/live", vec![TIGHT, UPGRADE], "", refused),
        ("GET", "/api/openai/models", vec![TIGHT], "", "https://api.openai.com/v1/models []"),
    ] {
        assert_eq!(outcome(&config, method, path, &headers, body), expected, "{method} {path} {headers:?} {body}");
    }
}

#[test]
fn who_asks_for_what() {
    let config = config(&[]);
    let gemini = "/api/google-ai-studio/v1beta/models/gemini-2.0-flash:generateContent";
    for (method, path, headers, body, expected) in [
        ("POST", gemini, vec![], "{}", "401 missing_auth_key"),
        ("POST", gemini, vec![("x-api-key", "nope")], "{}", "401 invalid_auth_key"),
        ("POST", gemini, vec![("x-api-key", "old")], "{}", "401 expired_auth_key"),
        (
            "POST",
            gemini,
            vec![("authorization", "bearer open")],
            "{}",
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.0-flash:generateContent [gemini-2.0-flash]",
        ),
        (
            "POST",
            gemini,
            vec![TIGHT],
            "{}",
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.0-flash:generateContent [gemini-2.0-flash]",
        ),
        (
            "POST",
            "/api/google-ai-studio/v1beta/models/gemini-2.5-pro:generateContent",
            vec![TIGHT],
            "{}",
            "403 model_not_allowed",
        ),
        (
            "POST",
            "/api/google-ai-studio/v1beta/models/gemini-2.5%2dpro:generateContent",
            vec![TIGHT],
            "{}",
            "403 model_not_allowed",
        ),
        (
            "GET",
            "/api/google-ai-studio/v1beta/models?key=tight&pageSize=5",
            vec![],
            "",
            "https://generativelanguage.googleapis.com/v1beta/models?pageSize=5 []",
        ),
        (
            "GET",
            "/api/google-ai-studio/v1beta/models?access_token=x&alt=json&oauth%5ftoken=y&key=z",
            vec![TIGHT],
            "",
            "https://generativelanguage.googleapis.com/v1beta/models?alt=json []",
        ),
        ("POST", "/api/google-ai-studio/v1beta/files", vec![TIGHT], "x", "403 model_not_allowed"),
        ("POST", "/api/anthropic/v1/messages", vec![TIGHT], "{}", "403 provider_not_allowed"),
        (
            "POST",
            "/api/anthropic/v1/messages",
            vec![("xi-api-key", "open")],
            r#"{"model":"claude"}"#,
            "https://api.anthropic.com/v1/messages [claude]",
        ),
        (
            "POST",
            "/api/openai/chat/completions",
            vec![("api-key", "open")],
            r#"{"model":"gpt-4o"}"#,
            "https://api.openai.com/v1/chat/completions [gpt-4o]",
        ),
        ("POST", "/api/openai/v1/responses", vec![OPEN], r#"{"model":"gpt-4o","model":"o3"}"#, "400 duplicate_field"),
        ("POST", "/api/openai/v1/responses", vec![OPEN], r#"{"model":"#, "400 invalid_json"),
        ("POST", "/api/openai/v1/responses", vec![OPEN, GZIP], "\x1f\x08", "415 unsupported_encoding"),
        ("POST", "/v1/embeddings", vec![OPEN, GZIP], "\x1f\x08", "415 unsupported_encoding"),
        (
            "POST",
            gemini,
            vec![TIGHT, GZIP],
            "\x1f\x08",
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.0-flash:generateContent [gemini-2.0-flash]",
        ),
        (
            "GET",
            "/api/openai/realtime?model=gpt-realtime",
            vec![OPEN, UPGRADE],
            "",
            "https://api.openai.com/v1/realtime?model=gpt-realtime [gpt-realtime]",
        ),
        // No name in another place hides the model that the provider reads.
        (
            "POST",
            "/api/google-ai-studio/v1beta/openai/chat/completions?model=gemini-2.0-flash",
            vec![TIGHT],
            r#"{"model":"gemini-2.5-pro"}"#,
            "403 model_not_allowed",
        ),
        (
            "POST",
            "/api/google-ai-studio/v1beta/%6dodels/gemini-2.5-pro:generateContent?model=gemini-2.0-flash",
            vec![TIGHT],
            r#"{"model":"gemini-2.0-flash"}"#,
            "403 model_not_allowed",
        ),
        (
            "POST",
            "/api/google-ai-studio/v1beta/openai/chat/completions?model=gemini-2.0-flash",
            vec![TIGHT, GZIP],
            "\x1f\x08",
            "415 unsupported_encoding",
        ),
        (
            "GET",
            "/api/google-ai-studio/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
            vec![TIGHT, ("upgrade", "websocket")],
            "",
            "403 model_not_allowed",
        ),
        ("POST", "/api/nobody/x", vec![OPEN], "{}", "404 unknown_provider"),
        ("POST", "/nothing", vec![OPEN], "{}", "404 unknown_path"),
        ("POST", "/nothing", vec![], "{}", "401 missing_auth_key"),
        ("POST", "/api/openai/../anthropic", vec![OPEN], "{}", "400 invalid_path"),
        ("POST", "/api/openai/a%2fb", vec![OPEN], "{}", "400 invalid_path"),
        ("GET", "/healthz", vec![], "", "200 answer"),
        ("OPTIONS", "/v1/chat/completions", vec![], "", "204 answer"),
        ("GET", "/v1/chat/completions", vec![OPEN], "", "405 method_not_allowed"),
        ("POST", "/v1/models", vec![OPEN], "", "405 method_not_allowed"),
        // What its answer would show is the request as it went up.
        ("TRACE", "/api/openai/models", vec![OPEN], "", "405 method_not_allowed"),
        ("PROPFIND", "/api/openai/models", vec![OPEN], "", "405 method_not_allowed"),
        ("POST", "/api/openai/responses", vec![OPEN, UPGRADE], "{}", "405 method_not_allowed"),
    ] {
        assert_eq!(outcome(&config, method, path, &headers, body), expected, "{method} {path} {headers:?} {body}");
    }
}

#[test]
fn openai_shaped_requests() {
    let config = config(&[("PROVIDER_BASE_URLS", "mine=http://10.0.0.1:8000/v1")]);
    let chat = "/v1/chat/completions";
    for (headers, body, expected) in [
        (
            OPEN,
            r#"{ "model" : "openai/gpt-4o", "n":1}"#,
            r#"https://api.openai.com/v1/chat/completions [gpt-4o] { "model" : "gpt-4o", "n":1}"#,
        ),
        (
            OPEN,
            r#"{"model":"openrouter/google/gemini-2.0-flash:free"}"#,
            r#"https://openrouter.ai/api/v1/chat/completions [google/gemini-2.0-flash:free] {"model":"google/gemini-2.0-flash:free"}"#,
        ),
        (
            OPEN,
            r#"{"model":"perplexity/sonar"}"#,
            r#"https://api.perplexity.ai/chat/completions [sonar] {"model":"sonar"}"#,
        ),
        (OPEN, r#"{"model":"mine/q\"x"}"#, r#"http://10.0.0.1:8000/v1/chat/completions [q"x] {"model":"q\"x"}"#),
        (
            TIGHT,
            r#"{"model":"google-ai-studio/models/gemini-2.0-flash","messages":[{"role":"user","content":"x"}]}"#,
            r#"https://generativelanguage.googleapis.com/v1beta/models/gemini-2.0-flash:generateContent [gemini-2.0-flash] {"contents":[{"role":"user","parts":[{"text":"x"}]}]}"#,
        ),
        (OPEN, r#"{"model":"gpt-4o"}"#, "400 invalid_model"),
        (OPEN, r#"{"model":"openai/"}"#, "400 invalid_model"),
        (OPEN, r#"{"model":"google-ai-studio/models/"}"#, "400 invalid_model"),
        (OPEN, r#"{"model":7}"#, "400 invalid_model"),
        (OPEN, "{}", "400 invalid_model"),
        (OPEN, "[]", "400 invalid_json"),
        (OPEN, r#"{"model":"nobody/x"}"#, "404 unknown_provider"),
        (OPEN, r#"{"model":"nobody/x","model":"openai/x"}"#, "400 duplicate_field"),
        (OPEN, r#"{"model":"nobody/x","y":}"#, "400 invalid_json"),
        (OPEN, r#"{"model":"google-ai-studio/g","messages":[]}"#, "400 unsupported_field"),
        (OPEN, r#"{"model":"google-ai-studio/g","messages":[],"mod\u0065l":"openai/x"}"#, "400 duplicate_field"),
        (OPEN, r#"{"model":"google-ai-studio/g","messages":[}"#, "400 invalid_json"),
        (OPEN, r#"{"model":"elevenlabs/x"}"#, "400 no_openai_api"),
        (TIGHT, r#"{"model":"google-ai-studio/gemini-2.5-pro"}"#, "403 model_not_allowed"),
        (TIGHT, r#"{"model":"anthropic/claude"}"#, "403 provider_not_allowed"),
    ] {
        assert_eq!(outcome(&config, "POST", chat, &[headers], body), expected, "{body}");
    }
    let long = format!(r#"{{"model":"openai/{}"}}"#, "x".repeat(201));
    assert_eq!(outcome(&config, "POST", chat, &[OPEN], &long), "400 invalid_model");
}

#[test]
fn through_ai_gateway() {
    let config =
        config(&[("AI_GATEWAY", "acc/gw"), ("AI_GATEWAY_TOKEN", "cf-token"), ("PROVIDER_BASE_URLS", "mine=http://h")]);
    for (path, body, expected) in [
        (
            "/v1/chat/completions",
            r#"{"model":"openai/gpt-4o"}"#,
            "https://gateway.ai.cloudflare.com/v1/acc/gw/compat/chat/completions [gpt-4o]",
        ),
        (
            "/v1/chat/completions",
            r#"{"model":"perplexity-ai/s"}"#,
            r#"https://gateway.ai.cloudflare.com/v1/acc/gw/compat/chat/completions [s] {"model":"perplexity/s"}"#,
        ),
        (
            "/v1/chat/completions",
            r#"{"model":"openrouter/a/b"}"#,
            r#"https://gateway.ai.cloudflare.com/v1/acc/gw/openrouter/chat/completions [a/b] {"model":"a/b"}"#,
        ),
        ("/v1/chat/completions", r#"{"model":"mine/m"}"#, r#"http://h/chat/completions [m] {"model":"m"}"#),
        (
            "/api/openai/v1/responses",
            r#"{"model":"o3"}"#,
            "https://gateway.ai.cloudflare.com/v1/acc/gw/openai/responses [o3]",
        ),
    ] {
        assert_eq!(outcome(&config, "POST", path, &[OPEN], body), expected, "{path} {body}");
    }
    let forward = forward(&config, "POST", "/api/openai/x", &[OPEN], r#"{"model":"m"}"#).unwrap();
    assert!(forward.edits.contains(&Edit::Set("cf-aig-authorization", "Bearer cf-token".into())));
}

#[test]
fn passed_through_ai_gateway() {
    let env = |name: &str| match name {
        "AUTH_KEY" => Some("open".to_owned()),
        "AI_GATEWAY" => Some("acc/gw".to_owned()),
        _ => None,
    };
    let json = br#"{"providers": {"azure-openai": {"openai_format": "passthrough"}}}"#;
    let config = Rc::new(Config::parse(json, env).unwrap());
    for (model, expected) in [
        (
            "azure-openai/res/dep",
            r#"https://gateway.ai.cloudflare.com/v1/acc/gw/azure-openai/res/dep/chat/completions?api-version=2024-10-21 [res/dep] {"model":"res/dep"}"#,
        ),
        ("azure-openai/dep", "400 no_openai_api"),
        ("azure-openai/res/..", "400 no_openai_api"),
        ("azure-openai/res/d?x=", "400 no_openai_api"),
        ("replicate/a/b", "400 no_openai_api"),
    ] {
        let body = format!(r#"{{"model":"{model}"}}"#);
        assert_eq!(outcome(&config, "POST", "/v1/chat/completions", &[OPEN], &body), expected, "{model}");
    }
}

/// What follows an upgrade is not read, so that there must be no body in which another model could be.
#[test]
fn an_upgrade_has_no_body() {
    let config = config(&[]);
    let path = "/api/google-ai-studio/v1beta/openai/chat/completions?model=gemini-2.0-flash";
    let host = Memory::default();
    host.now.set(START);
    let awaits_body = |method, length: Option<&str>| {
        let all = [(":method", method), (":path", path), TIGHT, ("upgrade", "websocket")].into_iter();
        let headers = Headers::from_iter(all.chain(length.map(|length| ("content-length", length))));
        match request::begin(&config, &host, headers, false) {
            Step::Proceed(pending) => Ok(pending.awaits_body),
            Step::Reply(reply, _) => Err(reply.status),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(awaits_body("GET", None), Ok(false));
    assert_eq!(awaits_body("GET", Some("0")), Ok(false));
    assert_eq!(awaits_body("GET", Some("20")), Ok(true), "it never ends, and so never goes up");
    assert_eq!(awaits_body("GET", Some("+20")), Ok(true));
    assert_eq!(awaits_body("POST", Some("20")), Err(405));
    assert_eq!(awaits_body("POST", None), Err(405));
}

#[test]
fn an_encoded_path_takes_the_same_key_header() {
    let native = Auth::Header("x-goog-api-key");
    for (path, auth) in [
        ("/api/google-ai-studio/v1beta/openai/models", Auth::Bearer),
        ("/api/google-ai-studio/v1beta/%6fpenai/models", Auth::Bearer),
        ("/api/google-ai-studio/v1beta/models", native),
    ] {
        assert_eq!(forward(&config(&[]), "GET", path, &[OPEN], "").unwrap().outgoing.auth, auth, "{path}");
    }
}

#[test]
fn older_versions_of_an_api_take_the_key_elsewhere() {
    let old = Auth::Header("x-api-key");
    for (header, query, auth, sent) in [
        (Some("2024-06-10"), "", old, None),
        (Some("2024-11-13"), "", old, None),
        (Some("2025-04-16"), "", Auth::Bearer, None),
        (Some("2026-03-01"), "?cartesia_version=2024-11-13", old, None),
        (Some("2024-11-13"), "?cartesia_version=2026-03-01", Auth::Bearer, None),
        (Some("1"), "", Auth::Bearer, None),
        (None, "", Auth::Bearer, Some("2025-04-16")),
    ] {
        let headers: Vec<_> = [OPEN].into_iter().chain(header.map(|version| ("cartesia-version", version))).collect();
        let path = format!("/api/cartesia/tts/bytes{query}");
        let forward = forward(&config(&[]), "POST", &path, &headers, r#"{"model_id":"sonic"}"#).unwrap();
        assert_eq!(forward.outgoing.auth, auth, "{header:?} {query}");
        let set = forward.edits.iter().find_map(|edit| match edit {
            Edit::Set("cartesia-version", value) => Some(&**value),
            _ => None,
        });
        assert_eq!(set, sent, "the API demands one");
    }
}

#[test]
fn the_gateways_compat_endpoint_takes_every_key_as_bearer() {
    let config = config(&[("AI_GATEWAY", "acc/gw")]);
    let auth = |path: &str, body: &str| forward(&config, "POST", path, &[OPEN], body).unwrap().outgoing.auth;
    let compat = auth("/v1/chat/completions", r#"{"model":"azure-openai/res/dep"}"#);
    assert_eq!(compat, Auth::Bearer);
    let native = auth("/api/azure-openai/res/dep/chat/completions", "{}");
    assert_eq!(native, Auth::Header("api-key"));
}

#[test]
fn what_does_not_go_up() {
    let headers = [
        ("authorization", "Bearer open"),
        ("x-goog-api-key", "open"),
        ("api-key", "x"),
        ("cookie", "a=b"),
        ("origin", "https://x"),
        ("referer", "https://x/?key=open"),
        ("x-forwarded-for", "1.2.3.4"),
        ("forwarded", "for=1"),
        ("cf-connecting-ip", "1.2.3.4"),
        ("x-envoy-max-retries", "99"),
        ("x-one-balance-retry", "1"),
        ("proxy-authorization", "Basic x"),
        ("openai-organization", "org-client"),
        ("openai-project", "proj_client"),
        ("cf-aig-authorization", "x"),
        ("x-stainless-lang", "python"),
        ("sec-websocket-protocol", "realtime, openai-insecure-api-key.open, openai-beta.realtime-v1"),
        ("x-forwarded-proto", "http"),
        ("anthropic-beta", "b"),
    ];
    let forward = forward(&config(&[]), "POST", "/api/anthropic/v1/messages", &headers, r#"{"model":"m"}"#).unwrap();
    let mut left: BTreeMap<&str, &str> = headers.into();
    for edit in &forward.edits {
        match edit {
            Edit::Remove(name) => left.remove(&**name),
            Edit::Set(name, value) => left.insert(name, value),
        };
    }
    let expected = BTreeMap::from([
        ("x-stainless-lang", "python"),
        ("anthropic-beta", "b"),
        ("anthropic-version", "2023-06-01"),
        ("accept-encoding", "identity"),
        (":scheme", "https"),
        (":authority", "api.anthropic.com"),
        (":path", "/v1/messages"),
        ("sec-websocket-protocol", "realtime, openai-beta.realtime-v1"),
        // Envoy's routing needs it; the upstream filter takes it out.
        ("x-forwarded-proto", "http"),
    ]);
    assert_eq!(left, expected);
}

#[test]
fn debug_holds_no_secret() {
    let config = config(&[("AI_GATEWAY", "acc/gw"), ("AI_GATEWAY_TOKEN", "cf-token")]);
    let forward = forward(&config, "POST", "/api/openai/x", &[OPEN], r#"{"model":"m"}"#).unwrap();
    let shown = format!("{forward:?} {:?}", one_balance::http::headers::Headers::from_iter([OPEN]));
    assert!(shown.contains("authorization") && !shown.contains("cf-token") && !shown.contains("open\""), "{shown}");
    assert!(!shown.contains("Bearer "), "{shown}");
}

/// What is left of a request's headers, and its path, after the downstream filter.
fn sent(path: &str, headers: &[(&'static str, &'static str)]) -> BTreeMap<String, String> {
    let mut all = vec![OPEN];
    all.extend(headers);
    let forward = forward(&config(&[]), "GET", path, &all, "").unwrap();
    let mut left: BTreeMap<String, String> =
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for edit in &forward.edits {
        match edit {
            Edit::Remove(name) => left.remove(&**name),
            Edit::Set(name, value) => left.insert((*name).to_owned(), value.to_string()),
        };
    }
    left
}

#[test]
fn no_provider_sees_a_trace_an_address_or_another_method() {
    for name in [
        "traceparent",
        "tracestate",
        "baggage",
        "b3",
        "x-b3-traceid",
        "x-amzn-trace-id",
        "x-cloud-trace-context",
        "x-datadog-trace-id",
        "uber-trace-id",
        "sentry-trace",
        "x-original-forwarded-for",
        "x-forwarded",
        "x-forwarded-host",
        "client-ip",
        "fastly-client-ip",
        "x-http-method-override",
    ] {
        for slug in ["openai", "google-ai-studio", "anthropic"] {
            let left = sent(&format!("/api/{slug}/v1/models"), &[(name, "x"), ("x-custom", "kept")]);
            assert_eq!(left.get(name), None, "{slug} {name}");
            assert_eq!(left["x-custom"], "kept");
        }
    }
}

#[test]
fn a_client_chooses_no_project_and_no_account() {
    let google = "/api/google-ai-studio/v1beta/models";
    let bedrock = "/api/aws-bedrock/bedrock-runtime/us-east-1/model/m/converse";
    for (path, name, removed) in [
        (google, "x-goog-user-project", true),
        (google, "x-goog-quota-user", true),
        (google, "x-goog-iam-authority-selector", true),
        (google, "x-goog-api-client", false),
        ("/api/openai/models", "x-goog-user-project", false),
        ("/api/azure-openai/res/dep/models", "ocp-apim-subscription-key", true),
        ("/api/huggingface/models", "x-hf-bill-to", true),
        (bedrock, "x-amz-security-token", true),
        // It chooses a guardrail, which is the request's matter.
        (bedrock, "x-amzn-bedrock-guardrailidentifier", false),
    ] {
        assert_eq!(!sent(path, &[(name, "x")]).contains_key(name), removed, "{path} {name}");
    }
    for (path, expected) in [
        ("/api/google-ai-studio/v1beta/models?$userProject=evil&pageSize=5", "/v1beta/models?pageSize=5"),
        ("/api/google-ai-studio/v1beta/models?%24userProject=evil&userProject=e", "/v1beta/models"),
        ("/api/google-ai-studio/v1beta/models?$httpMethod=DELETE&alt=json", "/v1beta/models?alt=json"),
        (
            "/api/aws-bedrock/bedrock-runtime/us-east-1/model/m/converse?X-Amz-Credential=x&x-amz-date=y&a=b",
            "/model/m/converse?a=b",
        ),
        ("/api/openai/models?userProject=x", "/v1/models?userProject=x"),
    ] {
        assert_eq!(sent(path, &[])[":path"], expected, "{path}");
    }
}

#[test]
fn no_websocket_protocol_chooses_an_organization() {
    for (protocols, left) in [
        ("realtime, openai-organization.org-1, openai-project.proj_1", Some("realtime")),
        ("openai-project.proj_1", None),
        ("realtime, openai-beta.realtime-v1", Some("realtime, openai-beta.realtime-v1")),
    ] {
        let left_of = sent("/api/openai/realtime?model=m", &[UPGRADE, ("sec-websocket-protocol", protocols)]);
        assert_eq!(left_of.get("sec-websocket-protocol").map(String::as_str), left, "{protocols}");
    }
}

#[test]
fn no_request_is_sent_where_credentials_are_made() {
    let config = config(&[("PROVIDER_BASE_URLS", "mine=http://h/base/v1")]);
    for (method, path, refused) in [
        ("GET", "/api/elevenlabs/v1/user", true),
        ("GET", "/api/elevenlabs/v1//user/", true),
        ("GET", "/api/elevenlabs/v1/%75ser", true),
        ("GET", "/api/elevenlabs/v1/user/subscription", false),
        ("GET", "/api/elevenlabs/v1/voices", false),
        ("POST", "/api/elevenlabs/v1/single-use-token/realtime_scribe", true),
        ("POST", "/api/elevenlabs/v1/service-accounts/x/api-keys", true),
        ("POST", "/api/openai/realtime/client_secrets", true),
        ("POST", "/api/openai/v1/realtime/sessions", true),
        ("GET", "/api/openai/v1/organization/admin_api_keys", true),
        ("GET", "/api/openai/v1/models", false),
        ("GET", "/api/openai/v1/files", false),
        ("POST", "/api/mine/base/v1/realtime/client_secrets", true),
        ("POST", "/api/mine/realtime/client_secrets", true),
        ("GET", "/api/mine/realtime", false),
        ("POST", "/api/cartesia/access-token", true),
        ("GET", "/api/openrouter/keys", true),
        ("GET", "/api/openrouter/api/v1/keys/x", true),
        ("POST", "/api/openrouter/v1/auth/keys", true),
        ("GET", "/api/openrouter/key", false),
        ("GET", "/api/anthropic/v1/organizations/me", true),
        ("GET", "/api/anthropic/v1/models", false),
        ("POST", "/api/google-ai-studio/v1alpha/auth_tokens", true),
        ("GET", "/api/google-ai-studio/v1beta/models", false),
        ("POST", "/api/perplexity-ai/generate_auth_token", true),
        ("GET", "/api/replicate/webhooks/default/secret", true),
    ] {
        let outcome = outcome(&config, method, path, &[OPEN], "");
        assert_eq!(outcome == "403 credential_endpoint", refused, "{method} {path}: {outcome}");
        assert!(refused || outcome.starts_with("http"), "{method} {path}: {outcome}");
    }
}
