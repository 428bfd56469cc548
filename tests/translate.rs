//! Every golden pair of requests and answers, and what must hold for any.

// A helper of a test fails by panicking, too; clippy.toml exempts only the test functions themselves.
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

/// A request, and what it becomes, or an answer, and what becomes of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    /// Where its parts come from.
    provenance: String,
    target: String,
    model: String,
    /// The client's request. Its way out is tested if there is an `expect_request` or `expect_refusal`.
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
    assert!(goldens.len() >= MOST_KNOWN, "only {} golden pairs found", goldens.len());
    goldens
});

/// So many there were when this was written.
const MOST_KNOWN: usize = 1;

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

/// Chunks without what they have in common, which is checked.
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
fn requests() {
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
fn answers() {
    for (name, golden) in GOLDENS.iter() {
        let Some(answer) = &golden.provider_answer else { continue };
        let (Ok(answer) | Err(answer)) = translate::answer(&golden.shape(), ID, CREATED, answer.to_string().as_bytes());
        expect(name, "the answer", &parse(&answer), golden.expect_answer.as_ref().expect(name));
    }
}

#[test]
fn errors() {
    for (name, golden) in GOLDENS.iter() {
        let Some((status, body)) = &golden.provider_error else { continue };
        let body = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
        let error = parse(&translate::error(*status, body.as_bytes()));
        expect(name, "the error", &error, golden.expect_error.as_ref().expect(name));
    }
}

#[test]
fn streams() {
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
        let whole = run_stream(golden.shape(), &[&stream]);
        for at in 0..=stream.len() {
            let (one, two) = stream.split_at(at);
            assert!(run_stream(golden.shape(), &[one, two]) == whole, "{name}: cut at {at}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert!(run_stream(golden.shape(), &bytes) == whole, "{name}: byte by byte");
        let crlf = String::from_utf8(stream).unwrap().replace('\n', "\r\n");
        assert!(run_stream(golden.shape(), &[crlf.as_bytes()]) == whole, "{name}: with CRLF");
    }
}

/// A stream that stops anywhere ends with an error event or `[DONE]`, and never with both.
#[test]
fn a_broken_stream_says_so() {
    for (name, golden) in GOLDENS.iter() {
        let Some(stream) = golden.stream() else { continue };
        for at in 0..stream.len() {
            let events = events(&run_stream(golden.shape(), &[&stream[..at]]));
            let ends = |event: &String| event == "[DONE]" || event.starts_with("{\"error\":");
            assert_eq!(events.iter().filter(|event| ends(event)).count(), 1, "{name}: cut at {at}");
            assert!(events.last().is_some_and(ends), "{name}: cut at {at}");
        }
    }
}
