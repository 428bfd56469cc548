//! `/v1/embeddings` to `batchEmbedContents` and back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::super::completion::put;
use super::super::conversation::strings;
use super::super::fields::{Fields, Refusal, refuse};

/// More texts in one request are refused by the API.
const MOST_TEXTS: usize = 100;

/// The path, the body, and whether the client wants base64.
pub(in super::super) fn request(model: &str, mut fields: Fields) -> Result<(String, Value, bool), Refusal> {
    let input = fields.take("input").ok_or_else(|| refuse("input", "is missing"))?;
    let texts = strings(input).ok_or_else(|| {
        refuse("input", "must be a string or an array of strings: tokens mean nothing to another model")
    })?;
    if texts.is_empty() || texts.len() > MOST_TEXTS {
        return Err(refuse("input", format_args!("must have between 1 and {MOST_TEXTS} texts")));
    }
    let dimensions = fields.count("dimensions")?;
    let base64 = match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(refuse("encoding_format", "must be float or base64")),
    };
    fields.take("user");
    if let Some(name) = fields.rest().next() {
        return Err(refuse(name, "has no equal at this provider"));
    }
    let name = format!("models/{}", model.strip_prefix("models/").unwrap_or(model));
    let requests = texts.iter().map(|text| {
        let mut request = json!({"model": name, "content": {"parts": [{"text": text}]}});
        if let Some(dimensions) = dimensions {
            put(&mut request, "outputDimensionality", dimensions);
        }
        request
    });
    Ok((super::path(model, "batchEmbedContents"), json!({"requests": requests.collect::<Value>()}), base64))
}

/// `None` if it is no answer.
pub(in super::super) fn answer(model: &str, base64: bool, answer: &Value) -> Option<Value> {
    let embeddings = answer.get("embeddings")?.as_array()?;
    let data = embeddings.iter().enumerate().map(|(index, embedding)| {
        let values = embedding.get("values")?.as_array()?;
        let vector = if base64 { packed(values).into() } else { Value::Array(values.clone()) };
        Some(json!({"object": "embedding", "index": index, "embedding": vector}))
    });
    // Not every model counts.
    let tokens = answer.pointer("/usageMetadata/promptTokenCount").and_then(Value::as_u64).unwrap_or(0);
    Some(json!({
        "object": "list", "data": data.collect::<Option<Value>>()?, "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }))
}

/// 32-bit floats, little end first, in base64: what openai's SDKs ask for unless told otherwise.
fn packed(values: &[Value]) -> String {
    let floats = values.iter().map(|value| value.as_f64().unwrap_or(0.0) as f32);
    BASE64.encode(floats.flat_map(f32::to_le_bytes).collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_floats() {
        // 1.0 is 00 00 80 3f, -2.0 is 00 00 00 c0; printf '\0\0\x80\x3f\0\0\0\xc0' | base64
        assert_eq!(packed(&[json!(1.0), json!(-2)]), "AACAPwAAAMA=");
    }
}
