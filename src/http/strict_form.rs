//! A multipart form that every server reads in the same way (RFC 7578), or a refusal.
//!
//! [`super::multipart`] finds a field as lenient servers do. That is not enough where a right depends on the
//! field, because lenient servers differ: some take a delimiter after a bare line feed, some take two names for one
//! part, some undo an encoding. A client that means what it says sends nothing of the kind:
//!
//! ```text
//! form   = 1*( "--" boundary CRLF part CRLF ) "--" boundary "--" [CRLF]
//! part   = disposition *header CRLF body    ; each header in one line, none twice
//! ```

use memchr::memmem;

use super::media_type::{is_token, parameters_of};

/// A part of a form.
#[derive(Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The name of its field.
    pub name: &'a str,
    /// Its text; `None` if it is a file or another kind of text.
    pub text: Option<&'a str>,
}

/// What is ambiguous in a form; a text for the client.
pub type Ambiguous = &'static str;

/// The parts of a form.
///
/// # Errors
/// When two servers could read it in two ways.
pub fn parts<'a>(body: &'a [u8], boundary: &str) -> Result<Vec<Part<'a>>, Ambiguous> {
    let delimiter = format!("--{boundary}");
    let mut parts = Vec::new();
    // Where the part begins that is being read: behind the CRLF of its delimiter.
    let mut begins = None;
    let mut ended = false;
    for at in memmem::find_iter(body, delimiter.as_bytes()) {
        let (before, behind) = body.split_at_checked(at).unwrap_or_default();
        if !(before.is_empty() || before.ends_with(b"\n") || before.ends_with(b"\r")) {
            continue;
        }
        let behind = behind.get(delimiter.len()..).unwrap_or_default();
        if ended || !(before.is_empty() || before.ends_with(b"\r\n")) {
            return Err("a line begins like a delimiter and is none");
        }
        if let Some(begin) = begins {
            let part = body.get(begin..at.saturating_sub(2)).ok_or("a part has no headers")?;
            parts.push(read_part(part)?);
        } else if at != 0 {
            return Err("something is before its first delimiter");
        }
        if behind.starts_with(b"\r\n") {
            begins = Some(at + delimiter.len() + 2);
        } else if matches!(behind, b"--" | b"--\r\n") {
            ended = true;
        } else {
            return Err("a line begins like a delimiter and is none, or something is behind the last one");
        }
    }
    if ended { Ok(parts) } else { Err("it does not end with a delimiter") }
}

fn read_part(part: &[u8]) -> Result<Part<'_>, Ambiguous> {
    let head = memmem::find(part, b"\r\n\r\n").ok_or("a part has no headers")?;
    let (head, text) = part.split_at_checked(head).unwrap_or_default();
    let head = core::str::from_utf8(head).map_err(|_| "a part's headers are not UTF-8")?;
    let (mut disposition, mut kind) = (None, None);
    for line in head.split("\r\n") {
        if line.chars().any(|letter| letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}')) {
            return Err("a part's headers have control characters");
        }
        let (name, value) = line.split_once(':').ok_or("a part has a line that is no header")?;
        let value = value.trim_matches(' ');
        match name.to_ascii_lowercase().as_str() {
            "content-disposition" if disposition.is_none() => disposition = Some(value),
            "content-type" if kind.is_none() => kind = Some(value),
            "content-length" => {}
            // Some servers undo the other ones.
            "content-transfer-encoding"
                if ["binary", "8bit", "7bit"].iter().any(|plain| value.eq_ignore_ascii_case(plain)) => {}
            _ => return Err("a part has a header that forms do not need, or one twice"),
        }
    }
    let (name, is_file) = disposition.and_then(read_disposition).ok_or("a part does not name its field plainly")?;
    let is_text = !is_file && kind.is_none_or(is_plain_text);
    let text = text.get(4..).filter(|_| is_text).and_then(|text| core::str::from_utf8(text).ok());
    Ok(Part { name, text })
}

/// The field's name, and whether the part is a file.
fn read_disposition(value: &str) -> Option<(&str, bool)> {
    let (kind, parameters) = value.split_at(value.find(';')?);
    if !kind.trim_end_matches(' ').eq_ignore_ascii_case("form-data") {
        return None;
    }
    let (mut name, mut is_file) = (None, false);
    for (parameter, value) in parameters_of(parameters)? {
        match parameter {
            "name" if name.is_none() => name = Some(value),
            "filename" | "filename*" => is_file = true,
            _ => return None,
        }
    }
    // A browser writes a quote as `%22`, and nobody knows who undoes that.
    let name = name.filter(|name| name.is_ascii() && !name.contains(['%', '&', '=', '\'']) && *name != "_charset_")?;
    Some((name, is_file))
}

fn is_plain_text(kind: &str) -> bool {
    let (kind, parameters) = kind.split_at(kind.find(';').unwrap_or(kind.len()));
    let is_known = |charset: &str| {
        ["utf-8", "us-ascii", "iso-8859-1"].iter().any(|known| charset.eq_ignore_ascii_case(known)) && is_token(charset)
    };
    kind.trim_end_matches(' ').eq_ignore_ascii_case("text/plain")
        && parameters_of(parameters).is_some_and(|parameters| {
            parameters.iter().all(|(name, value)| name.eq_ignore_ascii_case("charset") && is_known(value))
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MODEL: &str = "Content-Disposition: form-data; name=\"model\"";

    fn read(body: &str) -> Result<Vec<(String, Option<String>)>, Ambiguous> {
        let owned = |part: Part| (part.name.to_owned(), part.text.map(str::to_owned));
        parts(body.as_bytes(), "b").map(|parts| parts.into_iter().map(owned).collect())
    }

    #[test]
    fn plain_forms() {
        let file = "Content-Disposition: form-data; name=\"file\"; filename=\"Ä b.wav\"\r\nContent-Type: audio/wav";
        for (body, expected) in [
            (format!("--b\r\n{MODEL}\r\n\r\nw\r\n--b--\r\n"), vec![("model", Some("w"))]),
            (format!("--b\r\n{MODEL}\r\n\r\n\r\n--b--"), vec![("model", Some(""))]),
            (
                format!("--b\r\n{file}\r\n\r\nRIFF\r\nx--b\r\n\r\n-b\r\n--b\r\n{MODEL}\r\n\r\nw\r\n--b--\r\n"),
                vec![("file", None), ("model", Some("w"))],
            ),
            (
                format!(
                    "--b\r\ncontent-type: text/plain; charset=UTF-8\r\n{MODEL}\r\ncontent-length: 1\r\n\r\nw\r\n--b--"
                ),
                vec![("model", Some("w"))],
            ),
            (format!("--b\r\n{MODEL}; filename=\"x\"\r\n\r\nw\r\n--b--"), vec![("model", None)]),
            (
                format!("--b\r\n{MODEL}\r\ncontent-type: text/plain; charset=utf-7\r\n\r\nw\r\n--b--"),
                vec![("model", None)],
            ),
            ("--b--\r\n".to_owned(), vec![]),
        ] {
            let expected =
                expected.into_iter().map(|(name, text)| (name.to_owned(), text.map(str::to_owned))).collect();
            assert_eq!(read(&body), Ok(expected), "{body}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways() {
        let form = |head: &str| format!("--b\r\n{head}\r\n\r\nw\r\n--b--\r\n");
        let disposition = |rest: &str| form(&format!("Content-Disposition: form-data; {rest}"));
        for body in [
            String::new(),
            "nonsense".to_owned(),
            form(MODEL).replace("--b--\r\n", ""),
            form(MODEL).replacen("--b\r\n", "--b\n", 1),
            format!("--b\n{MODEL}\n\nfake\n{}", form(MODEL)),
            format!("--b\r\n{MODEL}\r\n\r\nw\n--b\n{MODEL}\n\nfake\r\n--b--"),
            format!("--b\r\n{MODEL}\r\n\r\nw\r--b\r\n{MODEL}\r\n\r\nfake\r\n--b--"),
            format!("--b\r\n{MODEL}\r\n\r\nw\r\n--b \r\n{MODEL}\r\n\r\nfake\r\n--b--"),
            format!("--b\r\n{MODEL}\r\n\r\nw\r\n--bb\r\n\r\n--b--"),
            format!("preamble\r\n{}", form(MODEL)),
            format!("\r\n{}", form(MODEL)),
            format!("{}epilogue", form(MODEL)),
            format!("{}--b\r\n{MODEL}\r\n\r\nw\r\n--b--", form(MODEL)),
            "--b\r\n--b--".to_owned(),
            "--b\r\n\r\n--b--".to_owned(),
            form("Content-Type: text/plain"),
            form(&format!("{MODEL}\r\n{MODEL}")),
            form(&format!("{MODEL}\r\n x=y")),
            form(&format!("{MODEL}\nX: y")),
            form(&format!("{MODEL}\r\nX: y")),
            form(&format!("{MODEL}\r\nContent-Transfer-Encoding: base64")),
            form("Content-Disposition : form-data; name=model"),
            form("Content-Disposition: attachment; name=model"),
            disposition("name=\"a\"; name=\"model\""),
            disposition("name=\"a\"; NAME=\"model\""),
            disposition("name*=utf-8''m%6fdel"),
            disposition("name*0=mo; name*1=del"),
            disposition("name=\"m%6fdel\""),
            disposition("name=\"mo\\del\""),
            disposition("name=\"_charset_\""),
            disposition("filename=\"a\\\"; name=\\\"model\"; name=\"file\""),
            disposition("filename=\"a; name=model; b\"; name=\"file\""),
            disposition("filename=\"a\u{2028}b\"; name=\"file\""),
        ] {
            assert!(read(&body).is_err(), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer(body: Vec<u8>, cut in 0_usize..200) {
            let _ = parts(&body, "b");
            let whole = format!("--b\r\n{MODEL}\r\n\r\nw\r\n--b\r\n{MODEL}\r\n\r\nv\r\n--b--\r\n");
            let cut = &whole.as_bytes()[..cut.min(whole.len())];
            // The last line break may be missing, but not half of it.
            let is_whole = [whole.len(), whole.len() - 2].contains(&cut.len());
            prop_assert_eq!(parts(cut, "b").is_ok(), is_whole);
        }
    }
}
