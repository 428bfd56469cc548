//! Gemini's dialect: `generateContent`, `streamGenerateContent`, `batchEmbedContents`.
//!
//! Source: <https://ai.google.dev/api/generate-content> and the pages it links to.

pub(super) mod answer;
pub(super) mod embeddings;
pub(super) mod request;

/// The name under which Gemini's signatures are found in `extra_content` and call ids.
const PROVIDER: &str = "google";

/// The path of a model's method. The model's name comes from the client, so every unusual character is
/// escaped.
fn path(model: &str, method: &str) -> String {
    let mut path = String::with_capacity(64);
    path.push_str("/v1beta/models/");
    for byte in model.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path.push(':');
    path.push_str(method);
    path
}
