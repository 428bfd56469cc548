//! One field of a multipart form, for audio uploads that name their model in it (RFC 7578).
//!
//! Only as much of the format is read as it takes to find a small text field, and the form is sent to the
//! provider as it came. The crates for this format are made for asynchronous streams and split a form
//! into its parts as one parser sees them. What matters here is that no provider's parser can find another
//! model in the form than was checked, so this reader counts every part that any parser could take for
//! the field, and refuses the form if there are several.

use memchr::memmem;

use crate::http::headers::Headers;
use crate::json::Unreadable;

/// The boundary, if the request is a multipart form.
pub(crate) fn boundary(headers: &Headers) -> Option<String> {
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
pub(crate) fn field(body: &[u8], boundary: &str, name: &'static str) -> Result<Option<String>, Unreadable> {
    let delimiter = format!("--{boundary}");
    let is_delimiter = |start: &usize| {
        let (before, behind) = body.split_at_checked(*start).unwrap_or_default();
        begins_line(before) && ends_delimiter(behind.get(delimiter.len()..).unwrap_or_default())
    };
    let starts: Vec<usize> = memmem::find_iter(body, delimiter.as_bytes()).filter(is_delimiter).collect();
    let (mut found, mut met) = (None, false);
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(body.len());
        let part = body.get(start + delimiter.len()..end).unwrap_or_default();
        let Some(head) = memmem::find(part, b"\r\n\r\n") else { continue };
        let (head, value) = part.split_at(head);
        if !could_be_named(head, name) {
            continue;
        }
        if met {
            return Err(Unreadable::Duplicate(name));
        }
        met = true;
        let value = value.get(4..).unwrap_or_default();
        let value = value.strip_suffix(b"\r\n").unwrap_or(value);
        found = core::str::from_utf8(value).ok().map(|text| text.trim().to_owned());
    }
    Ok(found)
}

/// Within a line a delimiter is text, and so is one that other characters follow. A value that contains one
/// must not look like a field here, because the provider does not see a field in it.
fn begins_line(before: &[u8]) -> bool {
    before.is_empty() || before.ends_with(b"\r\n")
}

fn ends_delimiter(behind: &[u8]) -> bool {
    let blanks = behind.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    behind.starts_with(b"--") || behind.get(blanks..).unwrap_or_default().starts_with(b"\r\n")
}

/// Whether a part could be the field. If it has several names, each counts, and so does one in another
/// encoding (`name*`), which no form needs. Whichever name the provider takes, no second field can hide
/// behind it.
fn could_be_named(head: &[u8], name: &str) -> bool {
    // A line that begins with a blank continues the line before it.
    let head = String::from_utf8_lossy(head).replace("\r\n ", " ").replace("\r\n\t", " ");
    head.lines().any(|line| {
        let Some((header, value)) = line.split_once(':') else { return false };
        let is_name =
            |(key, value): (&str, String)| (key.eq_ignore_ascii_case("name") && value == name) || is_extended(key);
        header.trim().eq_ignore_ascii_case("content-disposition") && parameters(value).any(is_name)
    })
}

fn is_extended(key: &str) -> bool {
    key.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("name*"))
}

fn parameter(text: &str, name: &str) -> Option<String> {
    parameters(text).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The parameters of a header, `key=value` or `key="value"` between semicolons.
fn parameters(text: &str) -> impl Iterator<Item = (&str, String)> {
    let mut rest = text;
    core::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let end = rest.find(['=', ';']).unwrap_or(rest.len());
            let (key, behind) = rest.split_at(end);
            let Some(value) = behind.strip_prefix('=') else {
                rest = behind.get(1..).unwrap_or_default();
                continue;
            };
            let (value, behind) = parameter_value(value.trim_start());
            rest = behind;
            return Some((key.trim(), value));
        }
    })
}

/// The value that a text begins with, and what follows its semicolon.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, behind) = text.split_once(';').unwrap_or((text, ""));
        return (value.trim().to_owned(), behind);
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => value.extend(characters.next()),
            other => value.push(other),
        }
    }
    let behind = characters.as_str();
    (value, behind.split_once(';').map_or("", |(_, behind)| behind))
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
    fn the_field_is_found() {
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
    fn the_boundary_is_a_parameter_of_the_content_type() {
        for (content_type, expected) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data; charset=x; boundary=\"a b\"", Some("a b")),
            ("multipart/form-data", None),
            ("application/json; boundary=x", None),
        ] {
            assert_eq!(boundary(&Headers::from_iter([("content-type", content_type)])).as_deref(), expected);
        }
    }

    /// The provider reads `name="model"` with the value `o`. The rest tries to look like another model here.
    #[test]
    fn no_field_hides_behind_another() {
        let prompt = |head: &str, value: &str| form(&[(head, value), ("name=\"model\"", "o")]);
        let fake = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nfake";
        for (body, why) in [
            (prompt("name=\"prompt\"", &format!("x{fake}")), "a delimiter within a line"),
            (prompt("name=\"prompt\"", &format!("\r\n{}", fake.replacen("--b", "--bb", 1))), "another delimiter"),
            (prompt("x=\";name=model;\"; name=\"prompt\"", "fake"), "a quoted semicolon"),
            (form(&[("x=\"--b\"; name=\"model\"", "o")]), "a delimiter in a header"),
            (form(&[("x=\"a;name=n\"; name=\"model\"", "o")]), "another name in quotes"),
            (form(&[("x=\"\\\";name=n;\"; name=\"mo\\del\"", "o")]), "escapes"),
            (form(&[("\r\n name=\"model\"", "o")]), "a folded header"),
        ] {
            assert_eq!(field(body.as_bytes(), "b", "model"), Ok(Some("o".to_owned())), "{why}");
        }
        for (one, why) in [
            ("name=\"n\"; name=\"model\"", "which of two names counts is not known"),
            ("name*=utf-8''m%6fdel", "nor who decodes this"),
            ("name*0=mo; name*1=del", "or this"),
        ] {
            let body = form(&[(one, "fake"), ("name=\"model\"", "o")]);
            assert_eq!(field(body.as_bytes(), "b", "model"), Err(Unreadable::Duplicate("model")), "{why}");
        }
        let mut strange = form(&[("x=\"?\"; name=\"model\"", "o")]).into_bytes();
        let place = strange.iter().position(|byte| *byte == b'?').unwrap();
        strange[place] = 0xff;
        assert_eq!(field(&strange, "b", "model"), Ok(Some("o".to_owned())));
        let mut unreadable = form(&[("name=\"model\"", "?"), ("name=\"model\"", "o")]).into_bytes();
        let place = unreadable.iter().position(|byte| *byte == b'?').unwrap();
        unreadable[place] = 0xff;
        assert_eq!(field(&unreadable, "b", "model"), Err(Unreadable::Duplicate("model")));
    }
}
