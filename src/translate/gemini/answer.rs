//! `GenerateContentResponse` to what the client sees. A stream is a sequence of such answers, so one
//! reader serves both.

use serde_json::{Value, json};

use super::super::call_id;
use super::super::completion::{Call, Delta, Event, Finish, Reason, Usage, put};
use super::super::error;
use super::PROVIDER;

/// Whether this is an answer at all, be it an empty one.
pub(in super::super) fn is_answer(answer: &Value) -> bool {
    ["candidates", "promptFeedback", "usageMetadata"].iter().any(|field| answer.get(field).is_some())
}

/// Reads answers in order.
#[derive(Debug)]
pub(in super::super) struct Reader {
    /// Where derived call ids begin.
    id: String,
    calls: u64,
}

impl Reader {
    pub fn new(id: &str) -> Self {
        Reader { id: id.strip_prefix("chatcmpl-").unwrap_or(id).to_owned(), calls: 0 }
    }

    /// The events of one answer.
    pub fn read(&mut self, answer: &Value, events: &mut Vec<Event>) {
        if let Some(error) = error::of(answer) {
            events.push(Event::Error(error));
            return;
        }
        let candidates = answer.get("candidates").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for (place, candidate) in candidates.iter().enumerate() {
            let number = candidate.get("index").and_then(Value::as_u64).unwrap_or(place as u64);
            self.candidate(candidate, |delta| events.push(Event::Choice(number, delta)));
        }
        if let Some(feedback) = answer.get("promptFeedback").filter(|_| candidates.is_empty()) {
            blocked(feedback, |delta| events.push(Event::Choice(0, delta)));
        }
        events.extend(answer.get("usageMetadata").map(usage).map(Event::Usage));
    }

    fn candidate(&mut self, candidate: &Value, mut push: impl FnMut(Delta)) {
        let parts = candidate.pointer("/content/parts").and_then(Value::as_array);
        for part in parts.map(Vec::as_slice).unwrap_or_default() {
            self.part(part, &mut push);
        }
        let logprobs = candidate.get("logprobsResult").map(logprobs).unwrap_or_default();
        if !logprobs.is_empty() {
            push(Delta::Logprobs(logprobs));
        }
        if let Some(reason) = candidate.get("finishReason").and_then(Value::as_str) {
            push(Delta::Finish(finish(reason)));
        }
    }

    fn part(&mut self, part: &Value, push: &mut impl FnMut(Delta)) {
        let signature = part.get("thoughtSignature").and_then(Value::as_str);
        if let Some(function) = part.get("functionCall") {
            push(Delta::Call(self.call(function, signature)));
            return;
        }
        let is_thought = part.get("thought").and_then(Value::as_bool) == Some(true);
        match part.get("text").and_then(Value::as_str).filter(|text| !text.is_empty()) {
            Some(text) if is_thought => push(Delta::Reasoning(text.to_owned())),
            Some(text) => push(Delta::Text(text.to_owned())),
            None => {}
        }
        let inline = |field| part.get("inlineData").and_then(|data| data.get(field)).and_then(Value::as_str);
        if let (Some(mime), Some(data)) = (inline("mimeType"), inline("data")) {
            push(Delta::Image(format!("data:{mime};base64,{data}")));
        }
        if let Some(signature) = signature.filter(|_| !is_thought) {
            push(Delta::Extra(json!({PROVIDER: {"thought_signature": signature}})));
        }
    }

    fn call(&mut self, function: &Value, signature: Option<&str>) -> Call {
        let id = match function.get("id").and_then(Value::as_str) {
            Some(id) if !id.is_empty() => id.to_owned(),
            _ => format!("call_{}_{}", self.id, self.calls),
        };
        self.calls = self.calls.saturating_add(1);
        Call {
            id: signature.map_or(id.clone(), |signature| call_id::join(&id, PROVIDER, signature)),
            name: function.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
            arguments: function.get("args").filter(|args| !args.is_null()).map_or("{}".to_owned(), Value::to_string),
            extra: signature.map(|signature| json!({PROVIDER: {"thought_signature": signature}})),
        }
    }
}

/// A prompt that was not let through: a choice that says why.
fn blocked(feedback: &Value, mut push: impl FnMut(Delta)) {
    let word = |field: &str| feedback.get(field).and_then(Value::as_str);
    let Some(reason) = word("blockReason") else { return };
    push(Delta::Refusal(format!("The prompt was blocked: {}", word("blockReasonMessage").unwrap_or(reason))));
    push(Delta::Finish(Finish { reason: Reason::ContentFilter, provider: Some(reason.to_owned()) }));
}

fn finish(reason: &str) -> Finish {
    let provider = Some(reason.to_owned());
    match reason {
        "STOP" => Finish { reason: Reason::Stop, provider: None },
        "MAX_TOKENS" => Finish { reason: Reason::Length, provider: None },
        "SAFETY"
        | "RECITATION"
        | "LANGUAGE"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION" => Finish { reason: Reason::ContentFilter, provider },
        // MALFORMED_FUNCTION_CALL, OTHER, and what is yet to come: whatever was said stands.
        _ => Finish { reason: Reason::Stop, provider },
    }
}

fn usage(usage: &Value) -> Usage {
    let count = |field: &str| usage.get(field).and_then(Value::as_u64).unwrap_or(0);
    let reasoning = count("thoughtsTokenCount");
    Usage {
        prompt: count("promptTokenCount").saturating_add(count("toolUsePromptTokenCount")),
        cached: count("cachedContentTokenCount"),
        completion: count("candidatesTokenCount").saturating_add(reasoning),
        reasoning,
    }
}

/// `chosenCandidates` with the `topCandidates` of the same place.
fn logprobs(result: &Value) -> Vec<Value> {
    let list = |field: &str| result.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let top = |place: usize| list("topCandidates").get(place).and_then(|top| top.get("candidates")?.as_array());
    list("chosenCandidates")
        .iter()
        .enumerate()
        .map(|(place, chosen)| {
            let mut entry = token(chosen);
            let others = top(place).map(Vec::as_slice).unwrap_or_default();
            put(&mut entry, "top_logprobs", others.iter().map(token).collect::<Value>());
            entry
        })
        .collect()
}

fn token(candidate: &Value) -> Value {
    let token = candidate.get("token").and_then(Value::as_str).unwrap_or_default();
    let logprob = candidate.get("logProbability").and_then(Value::as_f64).unwrap_or(0.0);
    json!({"token": token, "logprob": logprob, "bytes": token.as_bytes()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finish_reasons() {
        for (word, reason, says_all) in [
            ("STOP", Reason::Stop, true),
            ("MAX_TOKENS", Reason::Length, true),
            ("SAFETY", Reason::ContentFilter, false),
            ("RECITATION", Reason::ContentFilter, false),
            ("LANGUAGE", Reason::ContentFilter, false),
            ("PROHIBITED_CONTENT", Reason::ContentFilter, false),
            ("SPII", Reason::ContentFilter, false),
            ("BLOCKLIST", Reason::ContentFilter, false),
            ("MALFORMED_FUNCTION_CALL", Reason::Stop, false),
            ("OTHER", Reason::Stop, false),
            ("NEW_IN_2027", Reason::Stop, false),
        ] {
            let provider = (!says_all).then(|| word.to_owned());
            assert_eq!(finish(word), Finish { reason, provider }, "{word}");
        }
    }
}
