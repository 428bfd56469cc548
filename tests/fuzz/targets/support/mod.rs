//! What the targets share: inputs with a header byte, a mutator that knows JSON, and what a client
//! may rely on.

#![allow(dead_code)]

use fastrand::Rng;
use one_balance::translate::{AnswerShape, Kind, Target};
use serde_json::{Map, Value, json};

/// One model of each generation that has a translation of its own.
const MODELS: [(Target, &str); 10] = [
    (Target::Gemini, "gemini-2.0-flash"),
    (Target::Gemini, "gemini-2.5-pro"),
    (Target::Gemini, "gemini-3-flash-preview"),
    (Target::Gemini, "tuned/é"),
    (Target::Anthropic, "claude-3-haiku-20240307"),
    (Target::Anthropic, "claude-3-7-sonnet-latest"),
    (Target::Anthropic, "claude-sonnet-4-20250514"),
    (Target::Anthropic, "claude-haiku-4-5"),
    (Target::Anthropic, "claude-opus-4-6"),
    (Target::Anthropic, "claude-opus-5-5"),
];

/// The model that a header byte names.
pub fn model(header: u8) -> (Target, &'static str) {
    MODELS[usize::from(header) % MODELS.len()]
}

/// The shape that a header byte names.
pub fn shape(header: u8, kind: Kind) -> AnswerShape {
    let bit = |number: u8| header & (1 << number) != 0;
    let target = if bit(0) { Target::Anthropic } else { Target::Gemini };
    AnswerShape { target, model: "m".to_owned(), kind, include_usage: bit(1), single_call: bit(2) && !bit(0) }
}

/// Checks that a client's stream keeps OpenAI's documented rules, and returns the text of each choice if the
/// stream has no error.
pub fn sound_stream(out: &[u8], shape: &AnswerShape) -> Option<Vec<(u64, String)>> {
    let text = std::str::from_utf8(out).expect("UTF-8");
    let mut events: Vec<&str> = text.split_terminator("\n\n").collect();
    assert!(events.iter().all(|event| event.starts_with("data: ") && !event.contains(['\n', '\r'])), "{text}");
    assert!(text.ends_with("\n\n"), "{text}");
    let last = events.pop().expect("a stream has an end");
    let (mut choices, mut usages): (Vec<ChoiceSoFar>, usize) = (Vec::new(), 0);
    for event in events {
        let chunk: Value = serde_json::from_str(&event["data: ".len()..]).expect("JSON");
        assert!(chunk.get("error").is_none(), "an error is the last event: {text}");
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(usages, 0, "usage comes last: {text}");
        assert_eq!(chunk["model"], shape.model.as_str());
        let parts = chunk["choices"].as_array().expect("choices");
        if chunk.get("usage").is_some_and(|usage| !usage.is_null()) {
            usages += 1;
            assert!(shape.include_usage && parts.is_empty(), "{text}");
        }
        for part in parts {
            let index = part["index"].as_u64().expect("index");
            let at = choices.iter().position(|choice| choice.index == index).unwrap_or_else(|| {
                assert_eq!(part["delta"]["role"], "assistant", "{text}");
                choices.push(ChoiceSoFar { index, ..ChoiceSoFar::default() });
                choices.len() - 1
            });
            choices[at].add(part);
        }
    }
    if last != "data: [DONE]" {
        let error: Value = serde_json::from_str(&last["data: ".len()..]).expect("JSON");
        sound_error(&error);
        return None;
    }
    assert_eq!(usages, usize::from(shape.include_usage), "{text}");
    assert!(!choices.is_empty() && choices.iter().all(|choice| choice.finished), "{text}");
    Some(choices.into_iter().map(|choice| (choice.index, choice.text)).collect())
}

/// One choice of a stream.
#[derive(Default)]
struct ChoiceSoFar {
    index: u64,
    calls: u64,
    finished: bool,
    text: String,
}

impl ChoiceSoFar {
    fn add(&mut self, part: &Value) {
        assert!(!self.finished, "nothing comes behind a finish reason");
        let delta = part["delta"].as_object().expect("a delta is an object");
        self.text.push_str(delta.get("content").and_then(Value::as_str).unwrap_or_default());
        for call in delta.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            if call.get("id").is_some() {
                assert_eq!(call["index"], self.calls, "calls are numbered from 0");
                assert!(call["type"] == "function" && call["function"]["name"].is_string());
                self.calls += 1;
            }
            assert_eq!(call["index"].as_u64().map(|index| index + 1), Some(self.calls), "only the newest call grows");
            assert!(call["function"]["arguments"].is_string());
        }
        if let Some(reason) = part["finish_reason"].as_str() {
            sound_finish(reason, self.calls > 0);
            self.finished = true;
        }
    }
}

/// Checks a completion, and returns the text of each choice.
pub fn sound_completion(completion: &Value, shape: &AnswerShape) -> Vec<(u64, String)> {
    assert_eq!(completion["object"], "chat.completion");
    assert_eq!(completion["model"], shape.model.as_str());
    assert!(completion["usage"]["total_tokens"].is_u64());
    let choices = completion["choices"].as_array().expect("choices");
    assert!(!choices.is_empty(), "{completion}");
    let text = |choice: &Value| {
        let message = &choice["message"];
        assert_eq!(message["role"], "assistant");
        let calls: Vec<_> = message.get("tool_calls").and_then(Value::as_array).into_iter().flatten().collect();
        for call in &calls {
            assert!(call["id"].is_string() && call["type"] == "function", "{call}");
            assert!(call["function"]["name"].is_string() && call["function"]["arguments"].is_string(), "{call}");
        }
        assert!(!shape.single_call || calls.len() <= 1);
        sound_finish(choice["finish_reason"].as_str().expect("a finish reason"), !calls.is_empty());
        (choice["index"].as_u64().expect("index"), message["content"].as_str().unwrap_or_default().to_owned())
    };
    choices.iter().map(text).collect()
}

fn sound_finish(reason: &str, has_calls: bool) {
    assert!(["stop", "length", "tool_calls", "content_filter"].contains(&reason), "{reason}");
    assert!(has_calls || reason != "tool_calls", "no calls, but {reason}");
}

/// Checks an error, of which SDKs read these four fields.
pub fn sound_error(body: &Value) {
    let error = &body["error"];
    assert!(error["message"].is_string() && error["type"].is_string(), "{body}");
    assert!(
        ["param", "code"].iter().all(|name| error.get(name).is_some_and(|v| v.is_null() || v.is_string())),
        "{body}"
    );
}

/// Mutates `header` bytes and JSON, or a stream with JSON in its `data` lines. One time in four it mutates
/// bytes; otherwise it moves, removes and replaces values, so that JSON stays JSON.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32, header: usize) -> usize {
    let mut rng = Rng::with_seed(seed.into());
    let text = data.get(header..size).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let mutated = if rng.u8(..4) == 0 { None } else { text.and_then(|text| mutate_text(&mut rng, text)) };
    match mutated {
        Some(text) if header + text.len() <= max_size => {
            data[header..header + text.len()].copy_from_slice(text.as_bytes());
            header + text.len()
        }
        _ => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
    }
}

fn mutate_text(rng: &mut Rng, text: &str) -> Option<String> {
    if let Ok(mut value) = serde_json::from_str(text) {
        mutate_value(rng, &mut value);
        return Some(value.to_string());
    }
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let at = rng.usize(..lines.len());
    match rng.u8(..4) {
        0 => drop(lines.remove(at)),
        1 => {
            let line = lines[at].clone();
            lines.insert(rng.usize(..lines.len()), line);
        }
        _ => {
            let mut value = serde_json::from_str(lines[at].strip_prefix("data: ")?).ok()?;
            mutate_value(rng, &mut value);
            lines[at] = format!("data: {value}");
        }
    }
    Some(lines.join("\n"))
}

fn mutate_value(rng: &mut Rng, root: &mut Value) {
    let other = nth(root, rng.usize(..count(root))).clone();
    let place = nth(root, rng.usize(..count(root)));
    match (rng.u8(..8), place) {
        (0, place) => *place = other,
        (1, Value::Array(values)) => values.insert(rng.usize(..=values.len()), other),
        (2, Value::Array(values)) if !values.is_empty() => drop(values.remove(rng.usize(..values.len()))),
        (3, Value::Array(values)) => rng.shuffle(values),
        (1 | 4, Value::Object(fields)) => {
            if let Some(name) = some_name(rng, fields) {
                fields.insert(name, other);
            }
        }
        (2 | 5, Value::Object(fields)) => {
            if let Some(name) = some_name(rng, fields) {
                fields.shift_remove(&name);
            }
        }
        (3 | 6, Value::String(text)) => {
            text.push_str(rng.choice(["", " ", "x", "\u{1f600}", "\0", "{}", "/"]).unwrap_or(""))
        }
        (_, place) => {
            let large = json!(u64::MAX);
            let leaves =
                [Value::Null, json!(true), json!(0), json!(-1), json!(0.5), large, json!(""), json!([]), json!({})];
            *place = leaves[rng.usize(..leaves.len())].clone();
        }
    }
}

fn some_name(rng: &mut Rng, fields: &Map<String, Value>) -> Option<String> {
    rng.choice(fields.keys()).cloned()
}

/// How many values a value has in it, including itself.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(values) => values.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// The value at this position when all are counted.
fn nth(value: &mut Value, at: usize) -> &mut Value {
    if at == 0 {
        return value;
    }
    let mut left = at - 1;
    let children: Box<dyn Iterator<Item = &mut Value>> = match value {
        Value::Array(values) => Box::new(values.iter_mut()),
        Value::Object(fields) => Box::new(fields.values_mut()),
        _ => unreachable!("a leaf has one value"),
    };
    for child in children {
        let size = count(child);
        if left < size {
            return nth(child, left);
        }
        left -= size;
    }
    unreachable!("the place is below the count")
}
