//! Translates `/v1/embeddings` to `batchEmbedContents` and back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::json::{Node, Text, Writer};
use crate::translate::conversation::strings;
use crate::translate::fields::{Fields, Refusal, refuse};

/// How many texts the API accepts in one request.
const MOST_TEXTS: usize = 100;

/// Writes the body, and returns the path and whether the client wants base64.
pub(in crate::translate) fn request(
    model: &str,
    mut fields: Fields,
    out: &mut Writer,
) -> Result<(String, bool), Refusal> {
    let input = fields.take("input").ok_or_else(|| refuse("input", "is missing"))?;
    let texts = strings(input).ok_or_else(|| {
        refuse("input", "must be a string or an array of strings: tokens mean nothing to another model")
    })?;
    if texts.is_empty() || texts.len() > MOST_TEXTS {
        return Err(refuse("input", format_args!("must have between 1 and {MOST_TEXTS} texts")));
    }
    let dimensions = fields.count("dimensions")?;
    let base64 = match fields.text("encoding_format")?.as_ref().map(Text::decoded).as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(refuse("encoding_format", "must be float or base64")),
    };
    fields.take("user");
    if let Some(name) = fields.rest().next() {
        return Err(refuse(name.decoded(), "has no equal at this provider"));
    }
    let name = format!("models/{model}");
    let request = |text: &Text, out: &mut Writer| {
        out.field("model", name.as_str());
        out.object_field("content", |out| {
            out.array_field("parts", |out| out.object(|out| out.field("text", text)));
        });
        out.field_if("outputDimensionality", dimensions);
    };
    out.object(|out| {
        out.array_field("requests", |out| texts.iter().for_each(|text| out.object(|out| request(text, out))));
    });
    Ok((super::path(model, "batchEmbedContents"), base64))
}

/// Writes the client's answer. `None` if the provider's is not an answer.
pub(in crate::translate) fn answer(model: &str, base64: bool, answer: Node, out: &mut Writer) -> Option<()> {
    let embeddings = answer.get("embeddings").filter(|list| list.is_array())?;
    out.object(|out| {
        out.field("object", "list");
        out.array_field("data", |out| {
            embeddings.items().enumerate().try_for_each(|(index, each)| embedding(index, each, base64, out))
        })?;
        out.field("model", model);
        // Not every model counts tokens.
        let tokens = answer.at(&["usageMetadata", "promptTokenCount"]).and_then(Node::as_u64).unwrap_or(0);
        out.object_field("usage", |out| {
            out.field("prompt_tokens", tokens);
            out.field("total_tokens", tokens);
        });
        Some(())
    })
}

fn embedding(index: usize, embedding: Node, base64: bool, out: &mut Writer) -> Option<()> {
    let values = embedding.get("values").filter(|list| list.is_array())?;
    out.object(|out| {
        out.field("object", "embedding");
        out.field("index", index as u64);
        if base64 {
            out.field("embedding", packed(values).as_str());
        } else {
            out.array_field("embedding", |out| values.items().for_each(|value| out.value(value)));
        }
    });
    Some(())
}

/// 32-bit little-endian floats in base64, which OpenAI's SDKs request by default.
fn packed(values: Node) -> String {
    let floats = values.items().map(|value| value.as_f64().unwrap_or(0.0) as f32);
    BASE64.encode(floats.flat_map(f32::to_le_bytes).collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Document;

    #[test]
    fn packs_floats() {
        // 1.0 is 00 00 80 3f, -2.0 is 00 00 00 c0; printf '\0\0\x80\x3f\0\0\0\xc0' | base64
        assert_eq!(packed(Document::read(b"[1.0, -2]").unwrap().root()), "AACAPwAAAMA=");
    }
}
