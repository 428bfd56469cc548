//! Chat Completions to `generateContent`.

use serde_json::{Map, Value, json};

use super::super::call_id;
use super::super::chat::{Chat, Effort, Format, Tool, ToolChoice};
use super::super::completion::put;
use super::super::conversation::{Block, Call, Conversation, Side, ToolResult, Turn};
use super::super::fields::{Refusal, refuse};
use super::super::media::{Media, Source};
use super::super::models::{Gemini, GeminiThinking};
use super::super::schema;
use super::PROVIDER;

/// More stop sequences are refused by the API.
const MOST_STOPS: usize = 5;

/// What stands in for the signature of a call that Gemini did not make itself, or whose signature a
/// client lost; Google's own word for it (<https://ai.google.dev/gemini-api/docs/thought-signatures>).
const UNSIGNED: &str = "skip_thought_signature_validator";

/// The path and the body.
pub(in super::super) fn request(model: &str, chat: &Chat) -> Result<(String, Value), Refusal> {
    let abilities = Gemini::of(model);
    let mut body = json!({"contents": contents(&chat.conversation, abilities)?});
    if !chat.conversation.system.is_empty() {
        let parts: Value = chat.conversation.system.iter().map(|text| json!({"text": text})).collect();
        put(&mut body, "systemInstruction", json!({"parts": parts}));
    }
    if !chat.tools.is_empty() {
        let declarations = chat.tools.iter().enumerate().map(|(number, tool)| declaration(number, tool, abilities));
        put(&mut body, "tools", json!([{"functionDeclarations": declarations.collect::<Result<Value, _>>()?}]));
    }
    if let Some(config) = function_calling(&chat.tool_choice).filter(|_| !chat.tools.is_empty()) {
        put(&mut body, "toolConfig", json!({"functionCallingConfig": config}));
    }
    let config = generation_config(chat, abilities)?;
    if !config.is_empty() {
        put(&mut body, "generationConfig", config);
    }
    let method = if chat.stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
    Ok((super::path(model, method), body))
}

fn contents(conversation: &Conversation, abilities: Gemini) -> Result<Value, Refusal> {
    conversation.turns.iter().map(|turn| content(turn, abilities)).collect()
}

fn content(turn: &Turn, abilities: Gemini) -> Result<Value, Refusal> {
    let role = match turn.side {
        Side::User => "user",
        Side::Model => "model",
    };
    let parts = turn.blocks.iter().map(|block| part(block, abilities)).collect::<Result<Value, _>>()?;
    Ok(json!({"role": role, "parts": parts}))
}

fn part(block: &Block, abilities: Gemini) -> Result<Value, Refusal> {
    Ok(match block {
        Block::Text(text) => {
            let mut part = json!({"text": text.text});
            if let Some(signature) = &text.signature {
                put(&mut part, "thoughtSignature", signature.as_str());
            }
            part
        }
        Block::Media(media) => media_part(media),
        Block::Call(call) => call_part(call, abilities),
        Block::Result(result) => result_part(result, abilities)?,
    })
}

fn media_part(media: &Media) -> Value {
    match &media.source {
        Source::Inline { mime, base64 } => json!({"inlineData": {"mimeType": mime, "data": base64}}),
        Source::Link { mime: Some(mime), url } => json!({"fileData": {"mimeType": mime, "fileUri": url}}),
        Source::Link { mime: None, url } => json!({"fileData": {"fileUri": url}}),
    }
}

fn call_part(call: &Call, abilities: Gemini) -> Value {
    let mut function = json!({"name": call.name, "args": call.arguments});
    if abilities.signs_calls {
        put(&mut function, "id", call_id::plain(&call.id));
    }
    let mut part = json!({"functionCall": function});
    let signature = call.payload(PROVIDER, "/google/thought_signature");
    let stand_in = || (abilities.signs_calls && call.first).then(|| UNSIGNED.into());
    if let Some(signature) = signature.or_else(stand_in) {
        put(&mut part, "thoughtSignature", signature);
    }
    part
}

fn result_part(result: &ToolResult, abilities: Gemini) -> Result<Value, Refusal> {
    let name = result.name.as_deref().ok_or_else(|| refuse(&result.field, "is the id of no call before it"))?;
    // `response` is an object: a result that is one goes as it is.
    let response = match serde_json::from_str::<Map<String, Value>>(&result.text) {
        Ok(object) => Value::Object(object),
        Err(_) => json!({"output": result.text}),
    };
    let mut function = json!({"name": name, "response": response});
    if abilities.signs_calls {
        put(&mut function, "id", call_id::plain(&result.id));
    }
    Ok(json!({"functionResponse": function}))
}

fn declaration(number: usize, tool: &Tool, abilities: Gemini) -> Result<Value, Refusal> {
    let mut declaration = json!({"name": tool.name});
    if let Some(description) = &tool.description {
        put(&mut declaration, "description", description.as_str());
    }
    // An object without properties is refused where it is not JSON Schema, and says nothing anyway.
    let parameters = tool.parameters.as_ref().filter(|schema| {
        schema.get("properties").and_then(Value::as_object).is_some_and(|properties| !properties.is_empty())
            || schema.get("$ref").is_some()
    });
    match parameters {
        Some(schema) if abilities.json_schema => put(&mut declaration, "parametersJsonSchema", schema.clone()),
        Some(schema) => {
            let field = format!("tools[{number}].function.parameters");
            put(&mut declaration, "parameters", schema::for_gemini(schema, &field)?);
        }
        None => {}
    }
    Ok(declaration)
}

fn function_calling(choice: &ToolChoice) -> Option<Value> {
    Some(match choice {
        ToolChoice::Default => return None,
        ToolChoice::Auto => json!({"mode": "AUTO"}),
        ToolChoice::None => json!({"mode": "NONE"}),
        ToolChoice::Required => json!({"mode": "ANY"}),
        ToolChoice::Named(name) => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
    })
}

fn generation_config(chat: &Chat, abilities: Gemini) -> Result<Map<String, Value>, Refusal> {
    let mut config = Map::new();
    let numbers = [
        ("temperature", &chat.temperature),
        ("topP", &chat.top_p),
        ("seed", &chat.seed),
        ("presencePenalty", &chat.presence_penalty),
        ("frequencyPenalty", &chat.frequency_penalty),
    ];
    for (name, number) in numbers {
        config.extend(number.clone().map(|number| (name.to_owned(), Value::Number(number))));
    }
    let mut set = |name: &str, value: Option<Value>| config.extend(value.map(|value| (name.to_owned(), value)));
    set("topK", chat.top_k.map(Value::from));
    set("maxOutputTokens", chat.max_tokens.map(Value::from));
    set("candidateCount", (chat.n != 1).then(|| chat.n.into()));
    if chat.stop.len() > MOST_STOPS {
        return Err(refuse("stop", format_args!("must not have more than {MOST_STOPS} sequences")));
    }
    set("stopSequences", (!chat.stop.is_empty()).then(|| chat.stop.clone().into()));
    set("responseLogprobs", chat.logprobs.then(|| true.into()));
    set("logprobs", chat.top_logprobs.filter(|_| chat.logprobs).map(Value::from));
    match &chat.format {
        Format::Text => {}
        Format::Json => set("responseMimeType", Some("application/json".into())),
        Format::Schema(schema) => {
            set("responseMimeType", Some("application/json".into()));
            if abilities.json_schema {
                set("responseJsonSchema", Some(schema.clone()));
            } else {
                set("responseSchema", Some(schema::for_gemini(schema, "response_format.json_schema.schema")?));
            }
        }
    }
    if let Some(effort) = chat.effort {
        set("thinkingConfig", thinking(effort, abilities.thinking)?);
    }
    Ok(config)
}

/// Thoughts are shown if they were asked for; without `reasoning_effort` the model does as it likes.
fn thinking(effort: Effort, thinking: GeminiThinking) -> Result<Option<Value>, Refusal> {
    let mut config = match (thinking, effort) {
        (GeminiThinking::None, Effort::None) => return Ok(None),
        (GeminiThinking::None, _) => return Err(refuse("reasoning_effort", "must be none: this model does not think")),
        (GeminiThinking::Level { minimal, medium }, effort) => {
            json!({"thinkingLevel": match effort {
                Effort::None | Effort::Minimal if minimal => "minimal",
                Effort::None | Effort::Minimal | Effort::Low => "low",
                Effort::Medium if medium => "medium",
                Effort::Medium | Effort::High | Effort::XHigh | Effort::Max => "high",
            }})
        }
        (GeminiThinking::Budget { least }, Effort::None) => json!({"thinkingBudget": least}),
        (GeminiThinking::Budget { .. }, effort) => json!({"thinkingBudget": effort.budget()}),
    };
    if effort != Effort::None {
        put(&mut config, "includeThoughts", true);
    }
    Ok(Some(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn efforts() {
        for (model, effort, expected) in [
            ("gemini-2.5-flash", Effort::None, json!({"thinkingBudget": 0})),
            ("gemini-2.5-pro", Effort::None, json!({"thinkingBudget": 128})),
            ("gemini-2.5-flash", Effort::Minimal, json!({"thinkingBudget": 1024, "includeThoughts": true})),
            ("gemini-2.5-flash", Effort::Low, json!({"thinkingBudget": 1024, "includeThoughts": true})),
            ("gemini-2.5-flash", Effort::Medium, json!({"thinkingBudget": 8192, "includeThoughts": true})),
            ("gemini-2.5-pro", Effort::High, json!({"thinkingBudget": 24576, "includeThoughts": true})),
            ("gemini-3-flash", Effort::None, json!({"thinkingLevel": "minimal"})),
            ("gemini-3-pro", Effort::None, json!({"thinkingLevel": "low"})),
            ("gemini-3-pro", Effort::Medium, json!({"thinkingLevel": "high", "includeThoughts": true})),
            ("gemini-3.1-pro", Effort::Medium, json!({"thinkingLevel": "medium", "includeThoughts": true})),
            ("gemini-3-flash", Effort::Max, json!({"thinkingLevel": "high", "includeThoughts": true})),
        ] {
            assert_eq!(thinking(effort, Gemini::of(model).thinking), Ok(Some(expected)), "{model} {effort:?}");
        }
        assert_eq!(thinking(Effort::None, GeminiThinking::None), Ok(None));
        assert_eq!(thinking(Effort::Low, GeminiThinking::None).unwrap_err().field, "reasoning_effort");
    }
}
