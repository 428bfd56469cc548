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
    let config = config(&[("AUTH_KEY", "open;tight=openai,gpt-4o&google-ai-studio,g")]);
    let chat = "/api/openai/chat/completions?model=gpt-4o";
    let (went_up, refused) =
        ("https://api.openai.com/v1/chat/completions?model=gpt-4o [gpt-4o]", "403 model_not_allowed");
    for (method, path, headers, body, expected) in [
        ("POST", chat, vec![TIGHT], r#"{"model":"gpt-4o"}"#, went_up),
        // The name in the query is the model of an upgrade, where nothing else can name one.
        ("POST", chat, vec![TIGHT], "v=0", "400 invalid_json"),
        ("POST", chat, vec![TIGHT], "", "400 invalid_json"),
        ("POST", chat, vec![OPEN], "v=0", went_up),
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

/// A key for some models of every provider, and the same for all of them.
fn restricted() -> Rc<Config> {
    let slugs = [
        "openai",
        "google-ai-studio",
        "anthropic",
        "azure-openai",
        "openrouter",
        "groq",
        "mistral",
        "deepseek",
        "grok",
        "cohere",
        "perplexity",
        "replicate",
        "cartesia",
        "elevenlabs",
        "google-vertex-ai",
        "aws-bedrock",
        "own",
    ];
    let some: Vec<_> = slugs.iter().map(|slug| format!("{slug},allowed,too,a/b")).collect();
    let keys = format!("open;every={};lim={}", slugs.join("&"), some.join("&"));
    config(&[("AUTH_KEY", &keys), ("PROVIDER_BASE_URLS", "own=http://own:8000")])
}

const LIM: (&str, &str) = ("authorization", "Bearer lim");
const EVERY: (&str, &str) = ("authorization", "Bearer every");
const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=b");
const URLENCODED: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// Where a request of the restricted key goes: to the provider, or the code that refuses it.
fn judged(config: &Rc<Config>, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let headers: Vec<_> = [LIM].into_iter().chain(headers.iter().copied()).collect();
    match outcome(config, method, path, &headers, body) {
        sent if sent.starts_with("http") => "sent".to_owned(),
        refused => refused,
    }
}

/// The same request of a key that may use all models of the provider is never refused for its rights.
fn assert_free_for_all_models(config: &Rc<Config>, method: &str, path: &str, headers: &[(&str, &str)], body: &str) {
    for key in [OPEN, EVERY] {
        let headers: Vec<_> = [key].into_iter().chain(headers.iter().copied()).collect();
        let free = outcome(config, method, path, &headers, body);
        assert!(free.starts_with("http") || free.starts_with("400"), "{method} {path} {body}: {free}");
    }
}

fn part(head: &str, value: &str) -> String {
    format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n")
}

/// What clients of one model really send.
#[test]
fn honest_requests_of_a_restricted_key_pass() {
    let config = restricted();
    let (json, id) = (r#"{"model":"allowed"}"#, r#"{"model_id":"allowed"}"#);
    let upload =
        format!("{}{}--b--\r\n", part("name=\"file\"; filename=\"a.wav\"", "RIFF"), part("name=\"model\"", "allowed"));
    let speech = upload.replace("\"model\"", "\"model_id\"");
    let tools = r#"{"model":"allowed","tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"model":{"type":"string"}}}}}]}"#;
    let vertex = "/api/google-vertex-ai/v1/projects/p/locations/us-central1";
    for (method, path, headers, body) in [
        ("POST", "/v1/chat/completions", vec![JSON], r#"{"model":"openai/allowed"}"#),
        ("POST", "/v1/chat/completions", vec![URLENCODED], r#"{"model":"own/allowed"}"#),
        (
            "POST",
            "/v1/chat/completions",
            vec![],
            r#"{"model":"google-ai-studio/allowed","messages":[{"role":"user","content":"x"}]}"#,
        ),
        (
            "POST",
            "/v1/chat/completions",
            vec![JSON],
            r#"{"model":"openrouter/allowed","models":["too","a/b"],"route":"fallback"}"#,
        ),
        ("POST", "/v1/embeddings", vec![JSON], r#"{"model":"openai/allowed","input":"x"}"#),
        ("POST", "/api/openai/chat/completions", vec![JSON], tools),
        ("POST", "/api/openai/v1/chat/completions", vec![], json),
        ("POST", "/api/openai/responses", vec![JSON], json),
        (
            "POST",
            "/api/openai/v1/responses",
            vec![JSON],
            r#"{"model":"allowed","tools":[{"type":"image_generation","model":"too"}]}"#,
        ),
        ("POST", "/api/openai/completions?model=allowed", vec![JSON], json),
        ("POST", "/api/openai/embeddings", vec![JSON], json),
        ("POST", "/api/openai/moderations", vec![JSON], json),
        ("POST", "/api/openai/audio/speech", vec![JSON], json),
        ("POST", "/api/openai/audio/transcriptions", vec![FORM], &upload),
        ("POST", "/api/openai/images/generations", vec![JSON], json),
        ("POST", "/api/openai/images/edits", vec![FORM], &upload.replace("\"file\"", "\"image[]\"")),
        ("POST", "/api/openai/images/edits", vec![JSON], json),
        ("GET", "/api/openai/realtime?model=allowed", vec![UPGRADE], ""),
        ("GET", "/api/grok/v1/realtime?model=allowed", vec![UPGRADE], ""),
        ("GET", "/api/openai/models", vec![], ""),
        ("HEAD", "/api/openai/v1/models", vec![], ""),
        ("GET", "/api/openai/models/allowed", vec![], ""),
        ("POST", "/api/google-ai-studio/v1beta/models/allowed:generateContent", vec![JSON], "{}"),
        ("POST", "/api/google-ai-studio/v1beta/models/allowed:streamGenerateContent?alt=sse", vec![JSON], "{}"),
        ("POST", "/api/google-ai-studio/v1/models/allowed:countTokens", vec![JSON], "{}"),
        ("POST", "/api/google-ai-studio/v1beta/models/allowed:embedContent", vec![JSON], "{}"),
        ("POST", "/api/google-ai-studio/v1beta/models/allowed:batchEmbedContents", vec![JSON], "{}"),
        ("POST", "/api/google-ai-studio/v1beta/openai/chat/completions", vec![JSON], r#"{"model":"models/allowed"}"#),
        ("GET", "/api/google-ai-studio/v1beta/models?pageSize=5", vec![], ""),
        ("GET", "/api/google-ai-studio/v1beta/models/allowed", vec![], ""),
        ("POST", "/api/anthropic/v1/messages", vec![JSON, ("anthropic-version", "2023-06-01")], json),
        ("POST", "/api/anthropic/v1/messages?beta=true", vec![JSON], json),
        ("POST", "/api/anthropic/v1/messages/count_tokens", vec![JSON], json),
        ("GET", "/api/anthropic/v1/models?limit=20", vec![], ""),
        ("POST", "/api/azure-openai/res/allowed/chat/completions?api-version=1", vec![JSON], r#"{"model":"x"}"#),
        ("POST", "/api/azure-openai/res/allowed/audio/transcriptions", vec![FORM], &upload),
        (
            "POST",
            "/api/openrouter/chat/completions",
            vec![JSON],
            r#"{"model":"allowed","models":["too",{"model":"a/b"}]}"#,
        ),
        (
            "POST",
            "/api/openrouter/api/v1/chat/completions",
            vec![JSON],
            r#"{"model":"allowed","models":null,"preset":null,"plugins":[{"id":"web"}]}"#,
        ),
        ("GET", "/api/openrouter/models/a/b/endpoints", vec![], ""),
        ("POST", "/api/groq/openai/v1/chat/completions", vec![JSON], json),
        ("POST", "/api/mistral/v1/fim/completions", vec![JSON], json),
        ("POST", "/api/deepseek/anthropic/v1/messages", vec![JSON], json),
        ("POST", "/api/cohere/v2/chat", vec![JSON], json),
        ("POST", "/api/perplexity/chat/completions", vec![JSON], json),
        ("POST", "/api/replicate/models/a/b/predictions", vec![JSON, ("prefer", "wait")], r#"{"input":{}}"#),
        ("POST", "/api/replicate/predictions", vec![JSON], r#"{"version":"allowed","input":{}}"#),
        ("POST", "/api/cartesia/tts/bytes", vec![JSON], id),
        ("POST", "/api/elevenlabs/v1/text-to-speech/voice?output_format=mp3_44100", vec![JSON], id),
        ("POST", "/api/elevenlabs/v1/speech-to-text", vec![FORM], &speech),
        (
            "GET",
            "/api/elevenlabs/v1/text-to-speech/v/stream-input?model_id=allowed&output_format=pcm_16000",
            vec![UPGRADE],
            "",
        ),
        ("POST", &format!("{vertex}/publishers/google/models/allowed:generateContent"), vec![JSON], "{}"),
        ("POST", &format!("{vertex}/publishers/anthropic/models/allowed:streamRawPredict"), vec![JSON], "{}"),
        ("POST", &format!("{vertex}/endpoints/openapi/chat/completions"), vec![JSON], json),
        ("POST", "/api/aws-bedrock/bedrock-runtime/us-east-1/model/allowed/converse", vec![JSON], "{}"),
        ("POST", "/api/own/v1/chat/completions", vec![JSON], json),
        ("POST", "/api/own/v1/messages", vec![JSON], json),
        ("POST", "/api/own/v1/rerank", vec![JSON], json),
        ("POST", "/api/own/api/chat", vec![JSON], json),
        ("GET", "/api/own/v1/models", vec![], ""),
    ] {
        assert_eq!(judged(&config, method, path, &headers, body), "sent", "{method} {path} {headers:?} {body}");
        assert_free_for_all_models(&config, method, path, &headers, body);
        // The pool counts it under the model that was judged.
        let counted = forward(&config, method, path, &[&[LIM], &*headers].concat(), body).unwrap().outgoing.model;
        assert!(method != "POST" || ["allowed", "a/b"].contains(&counted.as_str()), "{path}: {counted}");
    }
}

/// The model that is judged is the model that the provider will use.
#[test]
fn a_restricted_key_has_no_way_around_its_models() {
    let config = restricted();
    const MODEL: &str = "403 model_not_allowed";
    const FIELD: &str = "400 duplicate_field";
    let (chat, json) = ("/api/own/v1/chat/completions", r#"{"model":"allowed"}"#);
    let audio = "/api/own/v1/audio/transcriptions";
    let form = |parts: &[&str]| format!("{}--b--\r\n", parts.concat());
    let (allowed, forbidden) = (part("name=\"model\"", "allowed"), part("name=\"model\"", "forbidden"));
    let as_form = |content_type| vec![("content-type", content_type)];
    let twice = form(&[&forbidden.replace("--b", "--a"), &allowed]);
    let bare = |end: &str| forbidden.replace("\r\n", end);
    let urlencoded = r#"{"model":"allowed","x":"&model=forbidden&prompt=hi&y="}"#;
    for (kind, expected, method, path, headers, body) in [
        // a. The boundary twice.
        ("a", MODEL, "POST", audio, as_form("multipart/form-data; boundary=b; boundary=a"), twice.as_str()),
        ("a", MODEL, "POST", audio, as_form("multipart/form-data; x=y\"; boundary=b; z=\"; boundary=a"), &twice),
        ("a", MODEL, "POST", audio, as_form("multipart/form-data; boundary=\"b\\\"; boundary=a\""), &twice),
        ("a", MODEL, "POST", audio, vec![FORM, ("content-type", "multipart/form-data; boundary=a")], &twice),
        // b. A form that looks like JSON.
        ("b", MODEL, "POST", chat, vec![URLENCODED], urlencoded),
        ("b", MODEL, "POST", audio, vec![URLENCODED], urlencoded),
        ("b", MODEL, "POST", chat, vec![JSON, URLENCODED], urlencoded),
        ("b", MODEL, "POST", chat, as_form("application/json; charset=utf-7"), json),
        ("b", MODEL, "POST", chat, as_form("text/plain"), json),
        ("b", MODEL, "POST", chat, vec![FORM], json),
        (
            "b",
            MODEL,
            "POST",
            "/api/google-ai-studio/v1beta/models/allowed:generateContent",
            vec![URLENCODED],
            "model=x",
        ),
        // c. A body that begins like a session description.
        (
            "c",
            MODEL,
            "POST",
            "/api/own/v1/chat/completions?model=allowed",
            vec![URLENCODED],
            "v=0&model=forbidden&prompt=hi",
        ),
        ("c", "400 invalid_json", "POST", "/api/own/v1/chat/completions?model=allowed", vec![], "v=0&model=forbidden"),
        ("c", MODEL, "POST", "/api/openai/realtime?model=allowed", as_form("application/sdp"), "v=0\r\n"),
        // d. A delimiter that not every server sees.
        ("d", MODEL, "POST", audio, vec![FORM], &format!("{}{}", bare("\n"), form(&[&allowed]))),
        (
            "d",
            MODEL,
            "POST",
            audio,
            vec![FORM],
            &form(&[&part("name=\"prompt\"", &format!("x\n{}", bare("\n"))), &allowed]),
        ),
        (
            "d",
            MODEL,
            "POST",
            audio,
            vec![FORM],
            &form(&[&part("name=\"prompt\"", &format!("x\r{}", bare("\r"))), &allowed]),
        ),
        ("d", MODEL, "POST", audio, vec![FORM], &format!("{}{}", form(&[&allowed]), form(&[&forbidden]))),
        ("d", MODEL, "POST", audio, vec![FORM], &format!("x\r\n{}", form(&[&allowed]))),
        ("d", FIELD, "POST", audio, vec![FORM], &form(&[&allowed, &forbidden])),
        ("d", MODEL, "POST", audio, vec![FORM], &form(&[&forbidden])),
        (
            "d",
            MODEL,
            "POST",
            audio,
            vec![FORM],
            &form(&[&allowed.replace("\r\n\r\n", "\r\nContent-Transfer-Encoding: base64\r\n\r\n")]),
        ),
        // e. A name in another case.
        ("e", FIELD, "POST", chat, vec![JSON], r#"{"model":"allowed","MODEL":"forbidden"}"#),
        ("e", FIELD, "POST", chat, vec![JSON], r#"{"Model":"allowed"}"#),
        ("e", FIELD, "POST", "/v1/chat/completions", vec![JSON], r#"{"model":"own/allowed","MODEL":"forbidden"}"#),
        (
            "e",
            "400 unsupported_field",
            "POST",
            "/v1/chat/completions",
            vec![JSON],
            r#"{"model":"google-ai-studio/allowed","messages":[{"role":"user","content":"x"}],"MODEL":"forbidden"}"#,
        ),
        ("e", MODEL, "POST", audio, vec![FORM], &form(&[&allowed, &part("name=\"MODEL\"", "forbidden")])),
        ("e", MODEL, "POST", audio, vec![FORM], &form(&[&allowed, &part("name=\"model[]\"", "forbidden")])),
        ("e", MODEL, "POST", "/api/own/v1/chat/completions?MODEL=forbidden", vec![JSON], json),
        ("e", MODEL, "POST", "/api/own/v1/chat/completions?model=forbidden", vec![JSON], json),
        // f. Other models beside it.
        (
            "f",
            MODEL,
            "POST",
            "/api/openrouter/chat/completions",
            vec![JSON],
            r#"{"model":"allowed","models":["forbidden/expensive"]}"#,
        ),
        (
            "f",
            MODEL,
            "POST",
            "/v1/chat/completions",
            vec![JSON],
            r#"{"model":"openrouter/allowed","models":["too","forbidden"]}"#,
        ),
        (
            "f",
            MODEL,
            "POST",
            "/api/openrouter/chat/completions",
            vec![JSON],
            r#"{"model":"allowed","models":"forbidden"}"#,
        ),
        ("f", MODEL, "POST", "/api/openrouter/chat/completions", vec![JSON], r#"{"models":["allowed"]}"#),
        ("f", MODEL, "POST", "/api/openrouter/chat/completions", vec![JSON], r#"{"model":"allowed","preset":"mine"}"#),
        ("f", MODEL, "POST", "/v1/chat/completions", vec![JSON], r#"{"model":"openrouter/allowed","preset":"mine"}"#),
        (
            "f",
            MODEL,
            "POST",
            "/api/openrouter/chat/completions",
            vec![JSON],
            r#"{"model":"allowed","route":"fallback"}"#,
        ),
        ("f", MODEL, "POST", "/api/openrouter/chat/completions", vec![JSON], r#"{"model":"allowed@preset/mine"}"#),
        (
            "f",
            FIELD,
            "POST",
            "/api/openrouter/chat/completions",
            vec![JSON],
            r#"{"model":"allowed","Models":["forbidden"]}"#,
        ),
        ("f", MODEL, "POST", chat, vec![JSON], r#"{"model":"allowed","fallbacks":[{"model":"forbidden"}]}"#),
        ("f", MODEL, "POST", chat, vec![JSON], r#"{"model":"allowed","fallbacks":[{"allowed":["forbidden"]}]}"#),
        (
            "f",
            MODEL,
            "POST",
            "/api/openai/responses",
            vec![JSON],
            r#"{"model":"allowed","tools":[{"type":"image_generation","model":"forbidden"}]}"#,
        ),
        (
            "f",
            MODEL,
            "POST",
            "/api/anthropic/v1/messages",
            vec![JSON],
            r#"{"model":"allowed","tools":[{"type":"advisor_20260301","name":"advisor","model":"forbidden"}]}"#,
        ),
        // g. A name in the query of a request without a body.
        ("g", MODEL, "DELETE", "/api/openai/v1/files/file-abc?model=allowed", vec![], ""),
        ("g", MODEL, "DELETE", "/api/openai/v1/models/ft:x?model=allowed", vec![], ""),
        ("g", MODEL, "DELETE", "/api/openai/v1/models/allowed", vec![], ""),
        ("g", MODEL, "POST", "/api/openai/v1/responses/resp_1/cancel?model=allowed", vec![], ""),
        ("g", MODEL, "GET", "/api/openai/v1/files?model=allowed", vec![], ""),
        // h. An endpoint that names its model elsewhere.
        (
            "h",
            MODEL,
            "POST",
            "/api/aws-bedrock/bedrock-runtime/us-east-1/async-invoke",
            vec![JSON],
            r#"{"modelId":"amazon.nova-reel-v1:1","model":"allowed"}"#,
        ),
        (
            "h",
            MODEL,
            "POST",
            "/api/anthropic/v1/messages/batches",
            vec![JSON],
            r#"{"model":"allowed","requests":[{"params":{"model":"forbidden"}}]}"#,
        ),
        ("h", MODEL, "POST", "/api/openai/v1/batches", vec![JSON], json),
        ("h", MODEL, "POST", "/api/openai/v1/evals", vec![JSON], json),
        ("h", MODEL, "POST", "/api/openai/v1/realtime/client_secrets", vec![JSON], json),
        (
            "h",
            MODEL,
            "POST",
            "/api/openai/v1/realtime/calls",
            vec![FORM],
            &form(&[&part("name=\"session\"", "{\"model\":\"forbidden\"}"), &allowed]),
        ),
        (
            "h",
            MODEL,
            "POST",
            "/api/google-ai-studio/v1beta/dynamic/X:generateContent",
            vec![JSON],
            r#"{"model":"allowed"}"#,
        ),
        ("h", MODEL, "POST", "/api/google-ai-studio/v1beta/models/allowed:batchGenerateContent", vec![JSON], "{}"),
        (
            "h",
            MODEL,
            "POST",
            "/api/mistral/v1/agents/completions",
            vec![JSON],
            r#"{"agent_id":"ag","model":"allowed"}"#,
        ),
        ("h", MODEL, "POST", "/api/azure-openai/v1/res/allowed/chat/completions", vec![JSON], "{}"),
        // i. Upgrades whose model nobody sees.
        (
            "i",
            MODEL,
            "GET",
            "/api/google-ai-studio/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent?model=allowed",
            vec![UPGRADE],
            "",
        ),
        ("i", MODEL, "GET", "/api/own/v1/realtime?model=allowed", vec![UPGRADE], ""),
        ("i", MODEL, "GET", "/api/openai/responses?model=allowed", vec![UPGRADE], ""),
        ("i", MODEL, "GET", "/api/openai/realtime?model=forbidden", vec![UPGRADE], ""),
        ("i", MODEL, "GET", "/api/openai/realtime?model=allowed&model=forbidden", vec![UPGRADE], ""),
        ("i", MODEL, "GET", "/api/openai/realtime?model=allowed&call_id=rtc_1", vec![UPGRADE], ""),
        ("i", MODEL, "GET", "/api/openai/realtime?model=allowed", vec![("upgrade", "h2c")], ""),
        ("i", MODEL, "GET", "/api/openai/models", vec![UPGRADE], ""),
        ("i", MODEL, "GET", "/api/elevenlabs/v1/convai/conversation?model_id=allowed&agent_id=x", vec![UPGRADE], ""),
        // j. Reads of the account, and methods behind a method.
        ("j", MODEL, "GET", "/api/openai/v1/files", vec![], ""),
        ("j", MODEL, "GET", "/api/openai/v1/files/file-abc/content", vec![], ""),
        ("j", MODEL, "GET", "/api/openai/v1/responses/resp_1", vec![], ""),
        ("j", MODEL, "GET", "/api/openai/v1/batches", vec![], ""),
        ("j", MODEL, "GET", "/api/elevenlabs/v1/history", vec![], ""),
        ("j", MODEL, "GET", "/api/elevenlabs/v1/user", vec![], ""),
        ("j", MODEL, "GET", "/api/anthropic/v1/organizations/users", vec![], ""),
        ("j", MODEL, "GET", "/api/openrouter/key", vec![], ""),
        ("j", MODEL, "GET", "/api/replicate/predictions/p1", vec![], ""),
        ("j", MODEL, "GET", "/api/google-ai-studio/v1beta/files", vec![], ""),
        ("j", MODEL, "GET", "/api/google-ai-studio/v1beta/models/forbidden", vec![], ""),
        ("j", MODEL, "HEAD", "/api/azure-openai/x/allowed/chat/completions", vec![], ""),
        ("j", MODEL, "GET", "/api/openai/models", vec![JSON], json),
        ("j", MODEL, "GET", "/api/google-ai-studio/v1beta/models", vec![("x-http-method-override", "DELETE")], ""),
        (
            "j, and the parameter is removed",
            "sent",
            "GET",
            "/api/google-ai-studio/v1beta/models/allowed?$httpMethod=DELETE",
            vec![],
            "",
        ),
        (
            "j, and the parameter is removed",
            "sent",
            "GET",
            "/api/google-ai-studio/v1beta/models/allowed?%24httpMethod=DELETE",
            vec![],
            "",
        ),
        ("j", MODEL, "POST", chat, vec![JSON, ("x-http-method-override", "DELETE")], json),
        (
            "j",
            MODEL,
            "POST",
            "/v1/chat/completions",
            vec![JSON, ("x-http-method-override", "DELETE")],
            r#"{"model":"own/allowed"}"#,
        ),
    ] {
        let result = judged(&config, method, path, &headers, body);
        // Where credentials are handed out, nobody is let in, whatever the rights.
        if result == "403 credential_endpoint" {
            continue;
        }
        assert_eq!(result, expected, "{kind}: {method} {path} {headers:?} {body}");
        assert_free_for_all_models(&config, method, path, &headers, body);
    }
}

#[test]
fn a_request_that_cannot_be_judged_is_told_why() {
    let config = restricted();
    for (method, path, headers, body, why) in [
        ("GET", "/api/openai/files", vec![LIM], "", "cannot be seen at this path"),
        ("POST", "/api/openai/chat/completions", vec![LIM, URLENCODED], "{}", "application/json"),
        ("POST", "/api/openai/chat/completions", vec![LIM, JSON], "{}", "names no model"),
        ("POST", "/api/openai/audio/translations", vec![LIM, FORM], "x", "its form"),
    ] {
        let reply = forward(&config, method, path, &headers, body).unwrap_err();
        assert!(reply.message.contains(why) && reply.message.contains("all of them"), "{}", reply.message);
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
