//! Translates Chat Completions to `/v1/messages`.
//!
//! The API is stricter than OpenAI's. It refuses empty texts, an unknown field and a value out of range,
//! so anything that it would refuse is left out or mapped here if the answer means the same, and otherwise
//! refused with OpenAI's name of the field, because Anthropic's own refusal would name a field that the
//! client never sent. What depends on the model is in [`Claude`], and everything about thinking is in
//! [`super::thinking`].

use std::borrow::Cow;

use super::thinking::{Thinking, forces_call, thinking, thoughts};
use crate::json::{Text, Writer};
use crate::translate::call_id;
use crate::translate::chat::{Chat, Format, Tool, ToolChoice};
use crate::translate::conversation::{Block, Call, Side, ToolResult, Turn};
use crate::translate::fields::{Refusal, refuse};
use crate::translate::media::{Media, Source};
use crate::translate::models::Claude;
use crate::translate::schema;

const PATH: &str = "/v1/messages";

/// The instruction in place of `json_object`, because the API has no mode for JSON without a schema.
const JSON_ONLY: &str = "Answer with one valid JSON object and nothing else: no other text, no code fence.";

/// Writes the body and returns the path.
pub(in crate::translate) fn request(model: &str, chat: &Chat, out: &mut Writer) -> Result<String, Refusal> {
    let abilities = Claude::of(model);
    refuse_impossible(chat, abilities)?;
    let thinking = thinking(chat, abilities)?;
    out.object(|out| {
        out.field("model", model);
        out.field("max_tokens", chat.max_tokens.unwrap_or(abilities.max_tokens));
        messages(&chat.conversation.turns, out)?;
        system(chat, out);
        if !chat.tools.is_empty() {
            out.array_field("tools", |out| chat.tools.iter().for_each(|each| tool(each, out)));
            tool_choice(chat, out);
        }
        if !chat.stop.is_empty() {
            out.array_field("stop_sequences", |out| chat.stop.iter().for_each(|text| out.value(text)));
        }
        if let Some(user) = &chat.user {
            out.object_field("metadata", |out| out.field("user_id", user));
        }
        if abilities.sampling && !thinking.is_on() {
            sampling(chat, abilities, out);
        }
        output_config(chat, abilities, &thinking, out)?;
        if let Some(config) = thinking.config {
            config.write(out);
        }
        if chat.stream {
            out.field("stream", true);
        }
        Ok(())
    })?;
    Ok(PATH.to_owned())
}

fn system(chat: &Chat, out: &mut Writer) {
    let json_only = matches!(chat.format, Format::Json);
    if chat.conversation.system.is_empty() && !json_only {
        return;
    }
    out.array_field("system", |out| {
        chat.conversation.system.iter().for_each(|text| text_block(text, out));
        if json_only {
            text_block(&Text::escaped(JSON_ONLY), out);
        }
    });
}

/// Refuses what the API or the model cannot do. Penalties and `seed` are dropped instead, because they change
/// the odds of words and not what is requested.
fn refuse_impossible(chat: &Chat, abilities: Claude) -> Result<(), Refusal> {
    if forces_call(chat) && !abilities.forced_calls {
        return Err(refuse("tool_choice", "must be auto or none: this model cannot be made to call a tool"));
    }
    let asked = [
        ("n", chat.n != 1),
        ("logprobs", chat.logprobs),
        ("top_logprobs", chat.top_logprobs.is_some_and(|top| top > 0)),
    ];
    match asked.into_iter().find(|(_, asked)| *asked) {
        Some((field, _)) => {
            Err(refuse(field, "is more than this provider can do: it has one choice, without probabilities"))
        }
        None => Ok(()),
    }
}

/// OpenAI's temperature goes up to 2, and Anthropic's up to 1. Where only one of temperature and `top_p` is
/// allowed, the temperature is kept, because it is the one that clients set on purpose.
fn sampling(chat: &Chat, abilities: Claude, out: &mut Writer) {
    if let Some(temperature) = chat.temperature {
        match temperature.as_f64() {
            Some(high) if high > 1.0 => out.field("temperature", 1u64),
            _ => out.field("temperature", temperature),
        }
    }
    out.field_if("top_p", chat.top_p.filter(|_| abilities.both_samplers || chat.temperature.is_none()));
    out.field_if("top_k", chat.top_k);
}

fn output_config(chat: &Chat, abilities: Claude, thinking: &Thinking, out: &mut Writer) -> Result<(), Refusal> {
    out.object_field_unless_empty("output_config", |out| {
        if let Format::Schema(schema) = &chat.format {
            if !abilities.json_schema {
                return Err(refuse("response_format", "cannot have a schema with this model; use a tool instead"));
            }
            let schema = schema::for_anthropic(&schema.to_value(), "response_format.json_schema.schema")?;
            out.object_field("format", |out| {
                out.field("type", "json_schema");
                out.field("schema", schema);
            });
        }
        out.field_if("effort", thinking.effort);
        Ok(())
    })
}

fn messages(turns: &[Turn], out: &mut Writer) -> Result<(), Refusal> {
    out.array_field("messages", |out| {
        let mut numbered = turns.iter().enumerate();
        numbered.try_for_each(|(index, turn)| message(turn, index + 1 == turns.len(), out))
    })
}

fn message(turn: &Turn, is_last: bool, out: &mut Writer) -> Result<(), Refusal> {
    let role = match turn.side {
        Side::User => "user",
        Side::Model => "assistant",
    };
    // The API refuses a last turn of the model that ends in white space, because the answer continues it.
    let is_prefill = is_last && turn.side == Side::Model;
    out.object(|out| {
        out.field("role", role);
        out.array_field("content", |out| {
            // The thoughts of a first call come before everything else that the model said.
            for block in &turn.blocks {
                if let Block::Call(call) = block
                    && call.first
                {
                    thoughts(call, |thought| out.value(thought));
                }
            }
            turn.blocks.iter().try_for_each(|block| content_block(block, is_prefill, out))
        })
    })
}

fn content_block(block: &Block, is_prefill: bool, out: &mut Writer) -> Result<(), Refusal> {
    match block {
        Block::Text(text, _) if is_prefill => {
            let text = trimmed(text);
            if !text.is_empty() {
                text_block(&text, out);
            }
        }
        Block::Text(text, _) => text_block(text, out),
        Block::Media(media) => media_block(media, out)?,
        Block::Call(call) => {
            if !call.first {
                thoughts(call, |thought| out.value(thought));
            }
            call_block(call, out);
        }
        Block::Result(result) => result_block(result, out),
    }
    Ok(())
}

fn trimmed<'d>(text: &Text<'d>) -> Text<'d> {
    Text::of(text.decoded().trim_end().to_owned())
}

fn text_block(text: &Text, out: &mut Writer) {
    out.object(|out| {
        out.field("type", "text");
        out.field("text", text);
    });
}

fn call_block(call: &Call, out: &mut Writer) {
    out.object(|out| {
        out.field("type", "tool_use");
        out.field("id", &*id(&call.id));
        out.field("name", &call.name);
        out.name("input");
        out.raw(&call.arguments);
    });
}

/// An id without its payload, and without the characters in other providers' ids that Anthropic refuses.
fn id(id: &str) -> Cow<'_, str> {
    let id = call_id::plain(id);
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if id.chars().all(allowed) { id.into() } else { id.replace(|c| !allowed(c), "_").into() }
}

fn result_block(result: &ToolResult, out: &mut Writer) {
    out.object(|out| {
        out.field("type", "tool_result");
        out.field("tool_use_id", &*id(&result.id));
        if !result.text.is_empty() {
            out.field("content", &result.text);
        }
    });
}

fn media_block(media: &Media, out: &mut Writer) -> Result<(), Refusal> {
    let kind_of = |mime: &str| match mime {
        "image/jpeg" | "image/png" | "image/gif" | "image/webp" => Some("image"),
        "application/pdf" => Some("document"),
        _ => None,
    };
    let kind = match &media.source {
        Source::Inline { mime, .. } => kind_of(mime),
        Source::Link { mime: Some(mime), .. } => kind_of(mime),
        // A link without a known ending is an image if the client said so.
        Source::Link { mime: None, .. } => {
            Some(if media.field.ends_with("image_url.url") { "image" } else { "document" })
        }
    };
    let kind = kind.ok_or_else(|| {
        refuse(&media.field, "must be a JPEG, PNG, GIF or WebP image or a PDF: this provider takes no other media")
    })?;
    out.object(|out| {
        out.field("type", kind);
        out.object_field("source", |out| match &media.source {
            Source::Inline { mime, base64 } => {
                out.field("type", "base64");
                out.field("media_type", mime.as_str());
                out.field("data", base64);
            }
            Source::Link { url, .. } => {
                out.field("type", "url");
                out.field("url", url);
            }
        });
        out.field_if("title", media.name.as_ref().filter(|_| kind == "document"));
    });
    Ok(())
}

fn tool(tool: &Tool, out: &mut Writer) {
    out.object(|out| {
        out.field("name", &tool.name);
        out.field_if("description", tool.description.as_ref());
        match tool.parameters {
            Some(schema) if schema.get("type").is_some() => out.field("input_schema", schema),
            parameters => out.object_field("input_schema", |out| {
                match parameters {
                    Some(schema) => {
                        for (key, value) in schema.fields() {
                            out.field(key.as_text().unwrap_or_default().as_escaped(), value);
                        }
                    }
                    None => out.object_field("properties", |_| ()),
                }
                out.field("type", "object");
            }),
        }
    });
}

fn tool_choice(chat: &Chat, out: &mut Writer) {
    let (kind, name) = match &chat.tool_choice {
        ToolChoice::Default if !chat.single_call => return,
        ToolChoice::Default | ToolChoice::Auto => ("auto", None),
        ToolChoice::None => ("none", None),
        ToolChoice::Required => ("any", None),
        ToolChoice::Named(name) => ("tool", Some(name)),
    };
    out.object_field("tool_choice", |out| {
        out.field("type", kind);
        out.field_if("name", name);
        if chat.single_call && kind != "none" {
            out.field("disable_parallel_tool_use", true);
        }
    });
}
