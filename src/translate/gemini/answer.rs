//! Translates `GenerateContentResponse` to events for the client. A stream is a sequence of such answers, so
//! one reader serves both.

use super::PROVIDER;
use crate::json::{Node, Text, Writer};
use crate::translate::call_id;
use crate::translate::completion::{Call, Delta, Event, Finish, Reason, Usage};
use crate::translate::error;

/// Whether this is an answer at all, even an empty one.
pub(in crate::translate) fn is_answer(answer: Node) -> bool {
    ["candidates", "promptFeedback", "usageMetadata"].iter().any(|field| answer.get(field).is_some())
}

/// Reads answers in order.
#[derive(Debug)]
pub(in crate::translate) struct Reader {
    /// The beginning of derived call ids.
    id: String,
    calls: u64,
}

impl Reader {
    pub fn new(id: &str) -> Self {
        Reader { id: id.strip_prefix("chatcmpl-").unwrap_or(id).to_owned(), calls: 0 }
    }

    /// Reads one answer, and calls `say` with its events.
    pub fn read<'d>(&mut self, answer: Node<'d>, say: &mut dyn FnMut(Event<'d>)) {
        if let Some(error) = error::of(answer) {
            return say(Event::Error(error));
        }
        let mut any = false;
        for (position, candidate) in answer.get("candidates").into_iter().flat_map(Node::items).enumerate() {
            any = true;
            let index = candidate.get("index").and_then(Node::as_u64).unwrap_or(position as u64);
            self.candidate(candidate, &mut |delta| say(Event::Choice(index, delta)));
        }
        if !any && let Some(feedback) = answer.get("promptFeedback") {
            blocked(feedback, &mut |delta| say(Event::Choice(0, delta)));
        }
        if let Some(counts) = answer.get("usageMetadata") {
            say(Event::Usage(usage(counts)));
        }
    }

    fn candidate<'d>(&mut self, candidate: Node<'d>, push: &mut dyn FnMut(Delta<'d>)) {
        for part in candidate.at(&["content", "parts"]).into_iter().flat_map(Node::items) {
            self.part(part, push);
        }
        let logprobs = candidate.get("logprobsResult").map(logprobs).unwrap_or_default();
        if !logprobs.is_empty() {
            push(Delta::Logprobs(logprobs));
        }
        if let Some(reason) = candidate.get("finishReason").and_then(Node::as_text) {
            push(Delta::Finish(finish(&reason.decoded())));
        }
    }

    fn part<'d>(&mut self, part: Node<'d>, push: &mut dyn FnMut(Delta<'d>)) {
        let signature = part.get("thoughtSignature").and_then(Node::as_text);
        if let Some(function) = part.get("functionCall") {
            return push(Delta::Call(Box::new(self.call(function, signature))));
        }
        let is_thought = part.get("thought").and_then(Node::as_bool) == Some(true);
        match part.get("text").and_then(Node::as_text).filter(|text| !text.is_empty()) {
            Some(text) if is_thought => push(Delta::Reasoning(text)),
            Some(text) => push(Delta::Text(text)),
            None => {}
        }
        if let Some(data) = part.get("inlineData") {
            let inline = |field| data.get(field).and_then(Node::as_text);
            if let (Some(mime), Some(data)) = (inline("mimeType"), inline("data")) {
                push(Delta::Image(Text::joined(&["data:", mime.as_escaped(), ";base64,", data.as_escaped()])));
            }
        }
        if let Some(signature) = signature.filter(|_| !is_thought) {
            push(Delta::Extra(extra(&signature)));
        }
    }

    fn call<'d>(&mut self, function: Node<'d>, signature: Option<Text<'d>>) -> Call<'d> {
        let id = match function.get("id").and_then(Node::as_text) {
            Some(id) if !id.is_empty() => id.decoded(),
            _ => format!("call_{}_{}", self.id, self.calls).into(),
        };
        self.calls = self.calls.saturating_add(1);
        Call {
            id: match &signature {
                Some(signature) => Text::of(call_id::join(&id, PROVIDER, &signature.decoded())),
                None => Text::of(id),
            },
            name: function.get("name").and_then(Node::as_text).unwrap_or_default(),
            arguments: match function.get("args").filter(|args| !args.is_null()) {
                Some(args) => Text::of(args.compact()),
                None => Text::escaped("{}"),
            },
            extra: signature.as_ref().map(extra),
        }
    }
}

/// `extra_content` with a signature.
fn extra(signature: &Text) -> String {
    let mut out = Writer::default();
    out.object(|out| out.object_field(PROVIDER, |out| out.field("thought_signature", signature)));
    out.finish()
}

/// A prompt that was blocked becomes a choice that says why.
#[cold]
fn blocked<'d>(feedback: Node<'d>, push: &mut dyn FnMut(Delta<'d>)) {
    let word = |field: &str| feedback.get(field).and_then(Node::as_text);
    let Some(reason) = word("blockReason") else { return };
    let message = word("blockReasonMessage").unwrap_or_else(|| reason.clone());
    push(Delta::Refusal(Text::joined(&["The prompt was blocked: ", message.as_escaped()])));
    push(Delta::Finish(Finish { reason: Reason::ContentFilter, provider: Some(reason.decoded().into_owned()) }));
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
        // MALFORMED_FUNCTION_CALL, OTHER, and reasons that do not exist yet: the text so far is kept.
        _ => Finish { reason: Reason::Stop, provider },
    }
}

fn usage(usage: Node) -> Usage {
    let count = |field: &str| usage.get(field).and_then(Node::as_u64).unwrap_or(0);
    let reasoning = count("thoughtsTokenCount");
    Usage {
        prompt: count("promptTokenCount").saturating_add(count("toolUsePromptTokenCount")),
        cached: count("cachedContentTokenCount"),
        completion: count("candidatesTokenCount").saturating_add(reasoning),
        reasoning,
    }
}

/// `chosenCandidates`, each with the `topCandidates` of the same position, as entries separated by commas.
fn logprobs(result: Node) -> String {
    let mut out = Writer::default();
    let mut top = result.get("topCandidates").into_iter().flat_map(Node::items);
    for chosen in result.get("chosenCandidates").into_iter().flat_map(Node::items) {
        out.object(|out| {
            token_fields(chosen, out);
            out.array_field("top_logprobs", |out| {
                for other in top.next().and_then(|top| top.get("candidates")).into_iter().flat_map(Node::items) {
                    out.object(|out| token_fields(other, out));
                }
            });
        });
    }
    out.finish()
}

/// Writes the fields that OpenAI has for a token, whether it was chosen or only likely.
fn token_fields(candidate: Node, out: &mut Writer) {
    let token = candidate.get("token").and_then(Node::as_text).unwrap_or_default();
    out.field("token", &token);
    let logprob = candidate.get("logProbability").filter(|number| number.is_number());
    out.name("logprob");
    out.raw(logprob.map_or("0.0", Node::raw));
    out.array_field("bytes", |out| token.decoded().bytes().for_each(|byte| out.value(u64::from(byte))));
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
