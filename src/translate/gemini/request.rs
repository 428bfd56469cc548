//! Translates Chat Completions to `generateContent`.
//!
//! Three things differ by the model and come from [`Gemini`]. Models before 2.5 know only their own dialect
//! of JSON Schema. Models from 3 on give their calls ids, and refuse a turn whose first call has lost its
//! signature, so such a call gets Google's placeholder. And thinking is set by a level or by a budget.
//! Everything else has a field of its own in the API, where a value is passed on as the client wrote it.

use super::PROVIDER;
use crate::json::{Text, Writer};
use crate::translate::call_id;
use crate::translate::chat::{Chat, Effort, Format, Tool, ToolChoice};
use crate::translate::conversation::{Block, Call, Side, ToolResult, Turn, is_object};
use crate::translate::fields::{Refusal, refuse};
use crate::translate::media::{Media, Source};
use crate::translate::models::{Gemini, GeminiThinking};
use crate::translate::schema;

/// How many stop sequences the API accepts.
const MOST_STOPS: usize = 5;

/// The signature of a call that Gemini did not make itself, or whose signature the client lost. Google
/// documents it for this purpose (<https://ai.google.dev/gemini-api/docs/thought-signatures>).
const UNSIGNED: &str = "skip_thought_signature_validator";

/// Writes the body and returns the path.
pub(in crate::translate) fn request(model: &str, chat: &Chat, out: &mut Writer) -> Result<String, Refusal> {
    let abilities = Gemini::of(model);
    out.object(|out| {
        let mut turns = chat.conversation.turns.iter();
        out.array_field("contents", |out| turns.try_for_each(|turn| content(turn, abilities, out)))?;
        system_instruction(&chat.conversation.system, out);
        if !chat.tools.is_empty() {
            tools(chat, abilities, out)?;
            tool_config(&chat.tool_choice, out);
        }
        generation_config(chat, abilities, out)
    })?;
    let method = if chat.stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
    Ok(super::path(model, method))
}

fn system_instruction(system: &[Text], out: &mut Writer) {
    if system.is_empty() {
        return;
    }
    out.object_field("systemInstruction", |out| {
        out.array_field("parts", |out| {
            for text in system {
                out.object(|out| out.field("text", text));
            }
        });
    });
}

fn content(turn: &Turn, abilities: Gemini, out: &mut Writer) -> Result<(), Refusal> {
    let role = match turn.side {
        Side::User => "user",
        Side::Model => "model",
    };
    out.object(|out| {
        out.field("role", role);
        let mut blocks = turn.blocks.iter();
        out.array_field("parts", |out| {
            blocks.try_for_each(|block| out.object(|out| part_fields(block, abilities, out)))
        })
    })
}

fn part_fields(block: &Block, abilities: Gemini, out: &mut Writer) -> Result<(), Refusal> {
    match block {
        Block::Text(text, signature) => {
            out.field("text", text);
            out.field_if("thoughtSignature", signature.as_ref());
        }
        Block::Media(media) => media_part(media, out),
        Block::Call(call) => call_part(call, abilities, out),
        Block::Result(result) => result_part(result, abilities, out)?,
    }
    Ok(())
}

fn media_part(media: &Media, out: &mut Writer) {
    match &media.source {
        Source::Inline { mime, base64 } => out.object_field("inlineData", |out| {
            out.field("mimeType", mime.as_str());
            out.field("data", base64);
        }),
        Source::Link { mime, url } => out.object_field("fileData", |out| {
            out.field_if("mimeType", *mime);
            out.field("fileUri", url);
        }),
    }
}

fn call_part(call: &Call, abilities: Gemini, out: &mut Writer) {
    out.object_field("functionCall", |out| {
        out.field("name", &call.name);
        out.name("args");
        out.raw(&call.arguments);
        if abilities.signs_calls {
            out.field("id", call_id::plain(&call.id));
        }
    });
    if let Some(signature) = call.extra(&[PROVIDER, "thought_signature"]) {
        out.field("thoughtSignature", signature);
    } else if let Some(signature) = call.payload(PROVIDER) {
        out.field("thoughtSignature", signature.as_str());
    } else if abilities.signs_calls && call.first {
        out.field("thoughtSignature", UNSIGNED);
    }
}

fn result_part(result: &ToolResult, abilities: Gemini, out: &mut Writer) -> Result<(), Refusal> {
    let name = result.name.as_ref().ok_or_else(|| refuse(result.field(), "is the id of no call before it"))?;
    out.object_field("functionResponse", |out| {
        out.field("name", name);
        // `response` must be an object. A result that is one is sent as it is.
        let text = result.text.decoded();
        if is_object(&text) {
            out.name("response");
            out.raw(&text);
        } else {
            out.object_field("response", |out| out.field("output", &result.text));
        }
        if abilities.signs_calls {
            out.field("id", call_id::plain(&result.id));
        }
    });
    Ok(())
}

fn tools(chat: &Chat, abilities: Gemini, out: &mut Writer) -> Result<(), Refusal> {
    let mut tools = chat.tools.iter().enumerate();
    let mut declarations = |out: &mut Writer| {
        tools.try_for_each(|(index, tool)| out.object(|out| declaration(index, tool, abilities, out)))
    };
    out.array_field("tools", |out| out.object(|out| out.array_field("functionDeclarations", |out| declarations(out))))
}

fn tool_config(choice: &ToolChoice, out: &mut Writer) {
    let (mode, only) = match choice {
        ToolChoice::Default => return,
        ToolChoice::Auto => ("AUTO", None),
        ToolChoice::None => ("NONE", None),
        ToolChoice::Required => ("ANY", None),
        ToolChoice::Named(name) => ("ANY", Some(name)),
    };
    out.object_field("toolConfig", |out| {
        out.object_field("functionCallingConfig", |out| {
            out.field("mode", mode);
            if let Some(name) = only {
                out.array_field("allowedFunctionNames", |out| out.value(name));
            }
        });
    });
}

fn declaration(index: usize, tool: &Tool, abilities: Gemini, out: &mut Writer) -> Result<(), Refusal> {
    out.field("name", &tool.name);
    out.field_if("description", tool.description.as_ref());
    // Gemini's own dialect refuses an object without properties, and it means nothing anyway.
    let parameters = tool.parameters.filter(|schema| {
        schema.get("properties").is_some_and(|properties| properties.fields().next().is_some())
            || schema.get("$ref").is_some()
    });
    match parameters {
        Some(schema) if abilities.json_schema => out.field("parametersJsonSchema", schema),
        Some(schema) => {
            let field = format!("tools[{index}].function.parameters");
            out.field("parameters", schema::for_gemini(&schema.to_value(), &field)?);
        }
        None => {}
    }
    Ok(())
}

fn generation_config(chat: &Chat, abilities: Gemini, out: &mut Writer) -> Result<(), Refusal> {
    if chat.stop.len() > MOST_STOPS {
        return Err(refuse("stop", format_args!("must not have more than {MOST_STOPS} sequences")));
    }
    out.object_field_unless_empty("generationConfig", |out| {
        out.field_if("temperature", chat.temperature);
        out.field_if("topP", chat.top_p);
        out.field_if("seed", chat.seed);
        out.field_if("presencePenalty", chat.presence_penalty);
        out.field_if("frequencyPenalty", chat.frequency_penalty);
        out.field_if("topK", chat.top_k);
        out.field_if("maxOutputTokens", chat.max_tokens);
        out.field_if("candidateCount", Some(chat.n).filter(|choices| *choices != 1));
        if !chat.stop.is_empty() {
            out.array_field("stopSequences", |out| chat.stop.iter().for_each(|text| out.value(text)));
        }
        if chat.logprobs {
            out.field("responseLogprobs", true);
            out.field_if("logprobs", chat.top_logprobs);
        }
        response_format(&chat.format, abilities, out)?;
        if let Some(effort) = chat.effort
            && let Some(thinking) = thinking(effort, abilities.thinking)?
        {
            thinking.write(out);
        }
        Ok(())
    })
}

fn response_format(format: &Format, abilities: Gemini, out: &mut Writer) -> Result<(), Refusal> {
    match format {
        Format::Text => {}
        Format::Json => out.field("responseMimeType", "application/json"),
        Format::Schema(schema) => {
            out.field("responseMimeType", "application/json");
            if abilities.json_schema {
                out.field("responseJsonSchema", schema);
            } else {
                let field = "response_format.json_schema.schema";
                out.field("responseSchema", schema::for_gemini(&schema.to_value(), field)?);
            }
        }
    }
    Ok(())
}

/// `thinkingConfig`. The flag is whether the client sees the thoughts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Thinking {
    Level(&'static str, bool),
    Budget(u64, bool),
}

impl Thinking {
    fn write(self, out: &mut Writer) {
        let (Thinking::Level(_, shown) | Thinking::Budget(_, shown)) = self;
        out.object_field("thinkingConfig", |out| {
            match self {
                Thinking::Level(level, _) => out.field("thinkingLevel", level),
                Thinking::Budget(budget, _) => out.field("thinkingBudget", budget),
            }
            if shown {
                out.field("includeThoughts", true);
            }
        });
    }
}

/// Chooses how a model thinks. The thoughts are shown unless the effort is `none`.
fn thinking(effort: Effort, thinking: GeminiThinking) -> Result<Option<Thinking>, Refusal> {
    let shown = effort != Effort::None;
    Ok(Some(match (thinking, effort) {
        (GeminiThinking::None, Effort::None) => return Ok(None),
        (GeminiThinking::None, _) => return Err(refuse("reasoning_effort", "must be none: this model does not think")),
        (GeminiThinking::Level { minimal, medium }, effort) => {
            let level = match effort {
                Effort::None | Effort::Minimal if minimal => "minimal",
                Effort::None | Effort::Minimal | Effort::Low => "low",
                Effort::Medium if medium => "medium",
                Effort::Medium | Effort::High | Effort::XHigh | Effort::Max => "high",
            };
            Thinking::Level(level, shown)
        }
        (GeminiThinking::Budget { least }, Effort::None) => Thinking::Budget(least, shown),
        (GeminiThinking::Budget { .. }, effort) => Thinking::Budget(effort.budget(), shown),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn efforts() {
        for (model, effort, expected) in [
            ("gemini-2.5-flash", Effort::None, Thinking::Budget(0, false)),
            ("gemini-2.5-pro", Effort::None, Thinking::Budget(128, false)),
            ("gemini-2.5-flash", Effort::Minimal, Thinking::Budget(1024, true)),
            ("gemini-2.5-flash", Effort::Low, Thinking::Budget(1024, true)),
            ("gemini-2.5-flash", Effort::Medium, Thinking::Budget(8192, true)),
            ("gemini-2.5-pro", Effort::High, Thinking::Budget(24576, true)),
            ("gemini-3-flash", Effort::None, Thinking::Level("minimal", false)),
            ("gemini-3-pro", Effort::None, Thinking::Level("low", false)),
            ("gemini-3-pro", Effort::Medium, Thinking::Level("high", true)),
            ("gemini-3.1-pro", Effort::Medium, Thinking::Level("medium", true)),
            ("gemini-3-flash", Effort::Max, Thinking::Level("high", true)),
        ] {
            assert_eq!(thinking(effort, Gemini::of(model).thinking), Ok(Some(expected)), "{model} {effort:?}");
        }
        assert_eq!(thinking(Effort::None, GeminiThinking::None), Ok(None));
        assert_eq!(thinking(Effort::Low, GeminiThinking::None).unwrap_err().field, "reasoning_effort");
    }
}
