//! Every golden request and answer is translated as its file expects, and properties hold for any others.

// Helpers of tests may panic as tests do, but clippy.toml exempts only the test functions themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use one_balance::translate::{self, AnswerShape, Kind, Options, Stream, Target, Translated};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

const ID: &str = "chatcmpl-1";
const CREATED: u64 = 1_700_000_000;

/// A request or an answer, and its translation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    /// Where its parts come from.
    provenance: String,
    target: String,
    model: String,
    /// The client's request. Its translation is tested if there is an `expect_request` or `expect_refusal`.
    request: Value,
    /// The request is one for embeddings.
    #[serde(default)]
    embeddings: bool,
    #[serde(default)]
    drop: Vec<String>,
    expect_path: Option<String>,
    expect_request: Option<Value>,
    /// The field that is refused.
    expect_refusal: Option<String>,
    provider_answer: Option<Value>,
    expect_answer: Option<Value>,
    /// Status and body of an error answer.
    provider_error: Option<(u16, Value)>,
    expect_error: Option<Value>,
    /// The stream's text, line by line; lines are joined by line feeds.
    provider_stream: Option<Vec<String>>,
    /// The `data` of each chunk, without what all chunks have in common.
    expect_chunks: Option<Vec<Value>>,
}

static GOLDENS: LazyLock<Vec<(String, Golden)>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/translate");
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let golden: Golden =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
        (name, golden)
    };
    let mut goldens: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| read(entry.unwrap().path())).collect();
    goldens.sort_by(|(a, _), (b, _)| a.cmp(b));
    assert!(goldens.len() >= KNOWN, "only {} golden pairs found", goldens.len());
    goldens
});

/// How many there were when this was written.
const KNOWN: usize = 64;

impl Golden {
    fn target(&self) -> Target {
        match self.target.as_str() {
            "gemini" => Target::Gemini,
            "anthropic" => Target::Anthropic,
            other => panic!("no target {other}"),
        }
    }

    fn translate(&self) -> Result<Translated, translate::Refusal> {
        let options = Options { drop: self.drop.clone() };
        let translate = if self.embeddings { translate::embeddings } else { translate::request };
        translate(self.target(), &self.model, self.request.to_string().as_bytes(), &options)
    }

    fn shape(&self) -> AnswerShape {
        self.translate().unwrap_or_else(|refusal| panic!("the request was refused: {refusal}")).answer
    }

    fn stream(&self) -> Option<Vec<u8>> {
        Some(self.provider_stream.as_ref()?.join("\n").into_bytes())
    }
}

/// Compares in a way that shows where two values differ.
fn expect(name: &str, what: &str, actual: &Value, expected: &Value) {
    assert!(actual == expected, "{name}: {what} differs\n--- expected\n{expected:#}\n--- actual\n{actual:#}\n");
}

fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(bytes)))
}

fn run_stream(shape: AnswerShape, pieces: &[&[u8]]) -> Vec<u8> {
    let mut stream = Stream::new(shape, ID, CREATED);
    let mut out: Vec<u8> = pieces.iter().flat_map(|piece| stream.feed(piece)).collect();
    out.extend(stream.finish());
    assert!(stream.is_ended());
    assert_eq!((stream.feed(b"data: {}\n\n"), stream.finish()), (vec![], vec![]), "nothing comes after the end");
    out
}

/// The data of each event that was written. Every one is `data: …` and a blank line.
fn events(out: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(out).unwrap();
    text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").expect(event).to_owned()).collect()
}

/// The chunks without the fields that they have in common, which are checked here.
fn chunks(out: &[u8], shape: &AnswerShape) -> Vec<Value> {
    let short = |event: String| {
        if event == "[DONE]" {
            return json!("[DONE]");
        }
        let mut chunk = parse(event.as_bytes());
        let object = chunk.as_object_mut().unwrap();
        if !object.contains_key("error") {
            let common = ["id", "object", "created", "model"].map(|name| object.shift_remove(name).unwrap());
            assert_eq!(common, [json!(ID), json!("chat.completion.chunk"), json!(CREATED), json!(shape.model)]);
        }
        chunk
    };
    events(out).into_iter().map(short).collect()
}

#[test]
fn goldens_say_where_they_come_from() {
    for (name, golden) in GOLDENS.iter() {
        assert!(golden.provenance.len() > 20, "{name}: no provenance");
    }
}

#[test]
fn golden_requests() {
    for (name, golden) in GOLDENS.iter() {
        match (golden.translate(), &golden.expect_refusal) {
            (Ok(translated), None) => {
                if let Some(expected) = &golden.expect_request {
                    expect(name, "the request", &parse(&translated.body), expected);
                }
                if let Some(path) = &golden.expect_path {
                    assert_eq!(&translated.path, path, "{name}");
                }
            }
            (Err(refusal), Some(field)) => {
                assert_eq!(&refusal.field, field, "{name}: {refusal}");
                assert!(refusal.message.starts_with(&format!("`{field}` ")), "{name}: {refusal}");
            }
            (Ok(_), Some(field)) => panic!("{name}: {field} should be refused"),
            (Err(refusal), None) => panic!("{name}: {refusal}"),
        }
    }
}

#[test]
fn golden_answers() {
    for (name, golden) in GOLDENS.iter() {
        let Some(answer) = &golden.provider_answer else { continue };
        let (Ok(answer) | Err(answer)) = translate::answer(&golden.shape(), ID, CREATED, answer.to_string().as_bytes());
        expect(name, "the answer", &parse(&answer), golden.expect_answer.as_ref().expect(name));
    }
}

#[test]
fn golden_errors() {
    for (name, golden) in GOLDENS.iter() {
        let Some((status, body)) = &golden.provider_error else { continue };
        let body = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
        let error = parse(&translate::error(*status, body.as_bytes()));
        expect(name, "the error", &error, golden.expect_error.as_ref().expect(name));
    }
}

#[test]
fn golden_streams() {
    for (name, golden) in GOLDENS.iter() {
        let Some(stream) = golden.stream() else { continue };
        let shape = golden.shape();
        let out = run_stream(shape.clone(), &[&stream]);
        let expected = Value::Array(golden.expect_chunks.clone().expect(name));
        expect(name, "the stream", &Value::Array(chunks(&out, &shape)), &expected);
    }
}

#[test]
fn the_cut_of_a_stream_does_not_matter() {
    for (name, golden) in GOLDENS.iter() {
        let Some(stream) = golden.stream() else { continue };
        let shape = golden.shape();
        let whole = run_stream(shape.clone(), &[&stream]);
        for at in 0..=stream.len() {
            let (one, two) = stream.split_at(at);
            assert!(run_stream(shape.clone(), &[one, two]) == whole, "{name}: cut at {at}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert!(run_stream(shape.clone(), &bytes) == whole, "{name}: byte by byte");
        for ends in ["\r\n", "\r"] {
            let other = String::from_utf8(stream.clone()).unwrap().replace('\n', ends);
            assert!(run_stream(shape.clone(), &[other.as_bytes()]) == whole, "{name}: with {ends:?}");
        }
    }
}

/// A stream that stops anywhere ends with an error event or `[DONE]`, and never with both.
#[test]
fn a_broken_stream_says_so() {
    for (name, golden) in GOLDENS.iter() {
        let Some(stream) = golden.stream() else { continue };
        let shape = golden.shape();
        for at in 0..stream.len() {
            let events = events(&run_stream(shape.clone(), &[&stream[..at]]));
            let ends = |event: &String| event == "[DONE]" || event.starts_with("{\"error\":");
            assert_eq!(events.iter().filter(|event| ends(event)).count(), 1, "{name}: cut at {at}");
            assert!(events.last().is_some_and(ends), "{name}: cut at {at}");
        }
    }
}

/// Adds the chunks of a stream up to one completion.
fn fold(out: &[u8]) -> Value {
    let mut whole = json!({"object": "chat.completion", "choices": []});
    for event in events(out) {
        if event == "[DONE]" {
            continue;
        }
        let chunk = parse(event.as_bytes());
        for name in ["id", "created", "model", "usage"] {
            if let Some(value) = chunk.get(name) {
                whole[name] = value.clone();
            }
        }
        for choice in chunk["choices"].as_array().unwrap() {
            let choices = whole["choices"].as_array_mut().unwrap();
            let at = choices.iter().position(|known| known["index"] == choice["index"]).unwrap_or_else(|| {
                assert_eq!(choice["delta"]["role"], "assistant", "the first delta has the role");
                let message = json!({"role": "assistant", "content": "", "refusal": null});
                choices.push(json!({"index": choice["index"], "message": message, "logprobs": null}));
                choices.len() - 1
            });
            fold_choice(&mut choices[at], choice);
        }
    }
    for choice in whole["choices"].as_array_mut().unwrap() {
        let message = &mut choice["message"];
        if message["content"] == "" && message.get("tool_calls").is_some() {
            message["content"] = Value::Null;
        }
    }
    whole
}

fn append(text: &mut Value, more: &Value) {
    *text = json!(text.as_str().unwrap_or_default().to_owned() + more.as_str().unwrap());
}

fn fold_choice(whole: &mut Value, choice: &Value) {
    assert!(whole.get("finish_reason").is_none(), "nothing comes behind a finish reason");
    if !choice["finish_reason"].is_null() {
        whole["finish_reason"] = choice["finish_reason"].clone();
    }
    if let Some(word) = choice.get("provider_finish_reason") {
        whole["provider_finish_reason"] = word.clone();
    }
    if let Some(logprobs) = choice.get("logprobs") {
        whole["logprobs"] = logprobs.clone();
    }
    for (name, value) in choice["delta"].as_object().unwrap() {
        let message = whole["message"].as_object_mut().unwrap();
        match name.as_str() {
            "role" => {}
            "content" if value.is_null() => {}
            "content" | "reasoning_content" | "refusal" => append(message.entry(name).or_insert(Value::Null), value),
            "extra_content" => {
                message.insert(name.clone(), value.clone());
            }
            "images" => message
                .entry(name)
                .or_insert(json!([]))
                .as_array_mut()
                .unwrap()
                .extend(value.as_array().unwrap().clone()),
            "tool_calls" => {
                let calls = message.entry(name).or_insert(json!([])).as_array_mut().unwrap();
                value.as_array().unwrap().iter().for_each(|call| fold_call(calls, call));
            }
            other => panic!("a delta has {other}"),
        }
    }
}

fn fold_call(calls: &mut Vec<Value>, call: &Value) {
    let mut call = call.clone();
    let index = call.as_object_mut().unwrap().shift_remove("index").unwrap().as_u64().unwrap() as usize;
    if call.get("id").is_some() {
        assert_eq!(index, calls.len(), "calls are numbered from 0");
        calls.push(call);
    } else {
        assert_eq!(index + 1, calls.len(), "only the newest call grows");
        append(&mut calls[index]["function"]["arguments"], &call["function"]["arguments"]);
    }
}

/// A golden that has an answer in both forms is the same in both.
#[test]
fn golden_streams_add_up_to_golden_answers() {
    let mut both = 0;
    for (name, golden) in GOLDENS.iter() {
        let (Some(stream), Some(answer)) = (golden.stream(), &golden.expect_answer) else { continue };
        let shape = AnswerShape { include_usage: true, ..golden.shape() };
        let mut folded = fold(&run_stream(shape, &[&stream]));
        if golden.expect_chunks.as_ref().unwrap().iter().all(|chunk| chunk.get("usage").is_none()) {
            // These goldens are about something else.
            folded["usage"] = answer["usage"].clone();
        }
        expect(name, "the stream added up", &folded, answer);
        both += 1;
    }
    assert!(both >= 10, "only {both} pairs have both forms");
}

/// One thing that a model says, in pieces.
#[derive(Clone, Debug)]
enum Said {
    Thought(Vec<String>),
    Text(Vec<String>),
    Call { name: String, input: Value, signature: Option<String> },
}

fn said() -> impl Strategy<Value = Said> {
    // Both forms leave an empty piece out, and it does not end a block.
    let pieces = || proptest::collection::vec("[a-zé€😀\"\\\\\n ]{1,6}", 1..4);
    let input = proptest::collection::vec(("[a-z]{1,3}", "[ -~é]{0,5}"), 0..3);
    prop_oneof![
        pieces().prop_map(Said::Thought),
        pieces().prop_map(Said::Text),
        ("[a-z]{1,5}", input, proptest::option::of("[a-zA-Z0-9+/=]{1,9}")).prop_map(|(name, input, signature)| {
            let input = input.into_iter().map(|(name, value)| (name, json!(value))).collect();
            Said::Call { name, input, signature }
        }),
    ]
}

/// Reason, prompt and answer tokens of an answer.
type Ending = (usize, u32, u32);

fn gemini_answer(parts: Vec<Value>, ending: Option<Ending>) -> Value {
    let mut answer = json!({"candidates": [{"content": {"role": "model", "parts": parts}, "index": 0}]});
    if let Some((reason, input, output)) = ending {
        answer["candidates"][0]["finishReason"] = json!(["STOP", "MAX_TOKENS", "SAFETY", "OTHER"][reason]);
        answer["usageMetadata"] =
            json!({"promptTokenCount": input, "candidatesTokenCount": output, "thoughtsTokenCount": 3});
    }
    answer
}

fn gemini_parts(said: &Said) -> Vec<Value> {
    match said {
        Said::Thought(pieces) => pieces.iter().map(|piece| json!({"text": piece, "thought": true})).collect(),
        Said::Text(pieces) => pieces.iter().map(|piece| json!({"text": piece})).collect(),
        Said::Call { name, input, signature } => {
            let mut part = json!({"functionCall": {"name": name, "args": input}});
            if let Some(signature) = signature {
                part["thoughtSignature"] = json!(signature);
            }
            vec![part]
        }
    }
}

fn gemini_forms(said: &[Said], ending: Ending) -> (Value, Vec<Value>) {
    let parts: Vec<Value> = said.iter().flat_map(gemini_parts).collect();
    let mut stream: Vec<Value> = parts.iter().map(|part| gemini_answer(vec![part.clone()], None)).collect();
    stream.push(gemini_answer(vec![], Some(ending)));
    (gemini_answer(parts, Some(ending)), stream)
}

fn anthropic_forms(said: &[Said], (reason, input, output): Ending) -> (Value, Vec<Value>) {
    let usage = json!({"input_tokens": input, "cache_read_input_tokens": 2, "output_tokens": output});
    let reason = ["end_turn", "max_tokens", "refusal", "pause_turn"][reason];
    let mut content = vec![];
    let mut stream =
        vec![json!({"type": "message_start", "message": {"usage": {"input_tokens": input, "output_tokens": 1}}})];
    for (index, said) in said.iter().enumerate() {
        let (start, whole, deltas) = match said {
            Said::Thought(pieces) => (
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                json!({"type": "thinking", "thinking": pieces.concat(), "signature": "s"}),
                pieces
                    .iter()
                    .map(|piece| json!({"type": "thinking_delta", "thinking": piece}))
                    .chain([json!({"type": "signature_delta", "signature": "s"})])
                    .collect(),
            ),
            Said::Text(pieces) => (
                json!({"type": "text", "text": ""}),
                json!({"type": "text", "text": pieces.concat()}),
                pieces.iter().map(|piece| json!({"type": "text_delta", "text": piece})).collect::<Vec<_>>(),
            ),
            Said::Call { name, input, .. } => {
                let text = input.to_string();
                let cut = text.char_indices().nth(text.chars().count() / 2).unwrap().0;
                let pieces = if input == &json!({}) { vec![] } else { vec!["", &text[..cut], &text[cut..]] };
                let id = format!("toolu_{index}");
                (
                    json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
                    json!({"type": "tool_use", "id": id, "name": name, "input": input}),
                    pieces
                        .into_iter()
                        .map(|piece| json!({"type": "input_json_delta", "partial_json": piece}))
                        .collect(),
                )
            }
        };
        stream.push(json!({"type": "content_block_start", "index": index, "content_block": start}));
        stream.extend(
            deltas.into_iter().map(|delta| json!({"type": "content_block_delta", "index": index, "delta": delta})),
        );
        stream.push(json!({"type": "content_block_stop", "index": index}));
        content.push(whole);
    }
    stream.push(json!({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}));
    stream.push(json!({"type": "message_stop"}));
    (json!({"type": "message", "content": content, "stop_reason": reason, "usage": usage}), stream)
}

fn shape(target: Target, kind: Kind, single_call: bool) -> AnswerShape {
    AnswerShape { target, model: "m".to_owned(), kind, include_usage: true, single_call }
}

/// Any JSON made of the words that the readers look for.
fn any_json() -> impl Strategy<Value = Value> {
    let words = || {
        proptest::sample::select(vec![
            "messages",
            "role",
            "user",
            "assistant",
            "tool",
            "system",
            "content",
            "text",
            "type",
            "image_url",
            "url",
            "file",
            "function",
            "name",
            "arguments",
            "{}",
            "tools",
            "tool_calls",
            "tool_call_id",
            "id",
            "parameters",
            "properties",
            "$ref",
            "#",
            "enum",
            "anyOf",
            "items",
            "stop",
            "n",
            "max_tokens",
            "response_format",
            "json_schema",
            "schema",
            "candidates",
            "parts",
            "functionCall",
            "args",
            "index",
            "finishReason",
            "usageMetadata",
            "promptTokenCount",
            "promptFeedback",
            "blockReason",
            "error",
            "message",
            "code",
            "details",
            "content_block_start",
            "content_block",
            "delta",
            "tool_use",
            "content_block_delta",
            "input_json_delta",
            "partial_json",
            "message_delta",
            "usage",
            "thinking",
            "stop_reason",
            "embeddings",
            "values",
            "input",
            "extra_content",
            "x~google~AA",
            "",
        ])
    };
    let leaf = prop_oneof![
        words().prop_map(|word| json!(word)),
        any::<i64>().prop_map(|number| json!(number)),
        any::<u64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        any::<bool>().prop_map(|flag| json!(flag)),
        Just(Value::Null),
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec((words(), inner), 0..6)
                .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

const TARGETS: [Target; 2] = [Target::Gemini, Target::Anthropic];

/// Passes bytes to every function that takes bytes from outside, and checks that the results are well-formed.
fn feed_everything(bytes: &[u8]) {
    let options = Options::default();
    parse(&translate::error(418, bytes));
    for target in TARGETS {
        for translate in [translate::request, translate::embeddings] {
            if let Ok(translated) = translate(target, "gemini-2.0-flash", bytes, &options) {
                parse(&translated.body);
            }
        }
        for kind in [Kind::Chat, Kind::ChatStream, Kind::Embeddings { base64: true }] {
            let (Ok(answer) | Err(answer)) = translate::answer(&shape(target, kind, true), ID, CREATED, bytes);
            parse(&answer);
        }
        let line = [b"data: ", bytes, b"\n\n"].concat();
        for stream in [bytes, line.as_slice()] {
            let out = run_stream(shape(target, Kind::ChatStream, false), &[stream]);
            events(&out).iter().filter(|event| *event != "[DONE]").for_each(|event| drop(parse(event.as_bytes())));
        }
    }
}

proptest! {
    #[test]
    fn a_stream_adds_up_to_the_answer(
        said in proptest::collection::vec(said(), 0..6),
        ending in (0usize..4, 0u32..1000, 0u32..1000),
        single in any::<bool>(),
        cut in any::<proptest::sample::Index>(),
    ) {
        for target in TARGETS {
            let (whole, stream) = match target {
                Target::Gemini => gemini_forms(&said, ending),
                Target::Anthropic => anthropic_forms(&said, ending),
            };
            let text: String = stream.iter().map(|event| format!("data: {event}\n\n")).collect();
            let (one, two) = text.as_bytes().split_at(cut.index(text.len()));
            let folded = fold(&run_stream(shape(target, Kind::ChatStream, single), &[one, two]));
            let answer = translate::answer(&shape(target, Kind::Chat, single), ID, CREATED, whole.to_string().as_bytes());
            prop_assert_eq!(&folded, &parse(&answer.unwrap()), "{:?}: {:#}", target, whole);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        feed_everything(&bytes);
    }

    #[test]
    fn no_json_panics(json in any_json()) {
        feed_everything(json.to_string().as_bytes());
    }

    #[test]
    fn no_messages_panic(messages in proptest::collection::vec(any_json(), 0..4), more in any_json()) {
        let mut body = json!({"messages": messages, "tools": more, "input": more});
        feed_everything(body.to_string().as_bytes());
        body["response_format"] = json!({"type": "json_schema", "json_schema": {"schema": more}});
        body["tools"] = Value::Null;
        feed_everything(body.to_string().as_bytes());
    }

    /// A call that the client sends back means the same to the model as the one that the client got.
    #[test]
    fn signatures_survive_a_client(signature in "[ -~]{1,40}", keeps_extensions in any::<bool>()) {
        let answer = gemini_answer(
            vec![json!({"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": signature})],
            Some((0, 1, 1)),
        );
        let answer = translate::answer(&shape(Target::Gemini, Kind::Chat, false), ID, CREATED, answer.to_string().as_bytes());
        let mut message = parse(&answer.unwrap())["choices"][0]["message"].clone();
        let id = message["tool_calls"][0]["id"].clone();
        if !keeps_extensions {
            message["tool_calls"][0].as_object_mut().unwrap().shift_remove("extra_content");
        }
        let result = json!({"role": "tool", "tool_call_id": id, "content": "{}"});
        let body = json!({"messages": [{"role": "user", "content": "x"}, message, result]}).to_string();
        let request = translate::request(Target::Gemini, "gemini-3-flash", body.as_bytes(), &Options::default()).unwrap();
        let contents = parse(&request.body)["contents"].clone();
        prop_assert_eq!(&contents[1]["parts"][0]["thoughtSignature"], &json!(signature));
        prop_assert_eq!(&contents[2]["parts"][0]["functionResponse"]["id"], &contents[1]["parts"][0]["functionCall"]["id"]);
    }
}

/// A model writes its properties in the schema's order: thoughts before the verdict.
#[test]
fn the_order_of_a_schema_is_kept() {
    let body = r#"{"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":
        {"name":"n","schema":{"type":"object","properties":{"thoughts":{"type":"string"},"answer":{"type":"string"}}}}}}"#;
    for (target, model) in
        [(Target::Gemini, "gemini-2.5-pro"), (Target::Gemini, "gemini-2.0-flash"), (Target::Anthropic, "claude-opus-5")]
    {
        let request = translate::request(target, model, body.as_bytes(), &Options::default()).unwrap();
        let text = String::from_utf8(request.body).unwrap();
        assert!(text.contains(r#"{"thoughts":{"type":"string"},"answer":{"type":"string"}}"#), "{model}: {text}");
    }
}

/// Anthropic accepts neither an empty text nor white space at the end of a last turn of the model.
#[test]
fn a_last_turn_of_white_space_only_is_left_out() {
    let body = br#"{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"text","text":"a "},{"type":"text","text":" \n"}]}]}"#;
    let request = translate::request(Target::Anthropic, "claude-opus-4-5", body, &Options::default()).unwrap();
    assert_eq!(parse(&request.body)["messages"][1]["content"], json!([{"type": "text", "text": "a"}]));
}

/// A model's name comes from outside and goes into a path.
#[test]
fn a_models_name_cannot_leave_its_path_segment() {
    let body = br#"{"messages":[{"role":"user","content":"x"}]}"#;
    for (model, path) in [
        ("gemini-2.5-pro", "/v1beta/models/gemini-2.5-pro:generateContent"),
        ("../a/b?c#d:e", "/v1beta/models/..%2Fa%2Fb%3Fc%23d%3Ae:generateContent"),
        ("é", "/v1beta/models/%C3%A9:generateContent"),
    ] {
        assert_eq!(translate::request(Target::Gemini, model, body, &Options::default()).unwrap().path, path);
    }
}
