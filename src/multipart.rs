//! One field of a multipart form, for audio uploads that name their model in it (RFC 7578).
//!
//! Only as much of the format is read as finding a small text field takes; the form goes up as it
//! came.

use memchr::memmem;

use crate::headers::Headers;
use crate::json::Unreadable;

/// The boundary, if the request is a multipart form.
#[must_use]
pub fn boundary(headers: &Headers) -> Option<String> {
    let content_type = headers.text("content-type")?;
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    parameter(parameters, "boundary").filter(|boundary| !boundary.is_empty())
}

/// The value of the form's text field `name`.
///
/// # Errors
/// [`Unreadable::Duplicate`] when the form has the field more than once.
pub fn field(body: &[u8], boundary: &str, name: &'static str) -> Result<Option<String>, Unreadable> {
    let delimiter = format!("--{boundary}");
    let starts: Vec<usize> = memmem::find_iter(body, delimiter.as_bytes()).collect();
    let mut found = None;
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(body.len());
        let part = body.get(start + delimiter.len()..end).unwrap_or_default();
        let Some(head) = memmem::find(part, b"\r\n\r\n") else { continue };
        let (head, value) = part.split_at(head);
        if !names(head, name) {
            continue;
        }
        if found.is_some() {
            return Err(Unreadable::Duplicate(name));
        }
        let value = value.get(4..).unwrap_or_default();
        let value = value.strip_suffix(b"\r\n").unwrap_or(value);
        found = core::str::from_utf8(value).ok().map(|text| text.trim().to_owned());
    }
    Ok(found)
}

fn names(head: &[u8], name: &str) -> bool {
    let Ok(head) = core::str::from_utf8(head) else { return false };
    head.lines().any(|line| {
        let Some((header, value)) = line.split_once(':') else { return false };
        header.trim().eq_ignore_ascii_case("content-disposition") && parameter(value, "name").as_deref() == Some(name)
    })
}

fn parameter(text: &str, name: &str) -> Option<String> {
    text.split(';').find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(parts: &[(&str, &str)]) -> String {
        let parts = parts
            .iter()
            .map(|(head, value)| format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n"));
        format!("{}--b--\r\n", parts.collect::<String>())
    }

    #[test]
    fn finds_the_field() {
        let body = form(&[
            ("name=\"file\"; filename=\"model\"\r\nContent-Type: audio/wav", "name=\"model\"\r\n\r\nnot me"),
            ("name=\"model\"", "whisper-1"),
        ]);
        assert_eq!(field(body.as_bytes(), "b", "model"), Ok(Some("whisper-1".to_owned())));
        assert_eq!(field(body.as_bytes(), "b", "language"), Ok(None));
        assert_eq!(field(b"nonsense", "b", "model"), Ok(None));
        let twice = form(&[("name=\"model\"", "a"), ("name=model", "b")]);
        assert_eq!(field(twice.as_bytes(), "b", "model"), Err(Unreadable::Duplicate("model")));
    }

    #[test]
    fn boundaries() {
        for (content_type, expected) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data; charset=x; boundary=\"a b\"", Some("a b")),
            ("multipart/form-data", None),
            ("application/json; boundary=x", None),
        ] {
            assert_eq!(boundary(&Headers::from_iter([("content-type", content_type)])).as_deref(), expected);
        }
    }
}
