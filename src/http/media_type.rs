//! What kind of body the headers announce, where it can be read in one way only.
//!
//! Servers differ in which of two headers or parameters counts, and in what they make of a quote in a strange place.
//! So everything is refused that the grammar of RFC 9110 does not have, although most servers would take it:
//!
//! ```text
//! type/subtype *( OWS ";" OWS name "=" ( token / DQUOTE text DQUOTE ) )
//! ```

use super::headers::Headers;

/// What a body is read as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// JSON in UTF-8, or nothing is said of it.
    Json,
    /// A multipart form with this boundary.
    Form(String),
}

impl MediaType {
    /// The kind of body that the headers announce. `None` if it is another one, or could be read as two.
    pub fn of(headers: &Headers) -> Option<MediaType> {
        let mut stated = headers.all("content-type");
        let Some(only) = stated.next() else { return Some(MediaType::Json) };
        if stated.next().is_some() {
            return None;
        }
        let text = core::str::from_utf8(only).ok()?.trim_matches([' ', '\t']);
        let (kind, parameters) = text.split_at(text.find(';').unwrap_or(text.len()));
        let parameters = parameters_of(parameters)?;
        let mut boundary = None;
        for (name, value) in parameters {
            match name.to_ascii_lowercase().as_str() {
                // In UTF-7, for one, other bytes make a quote.
                "charset" if ["utf-8", "utf8", "us-ascii"].iter().any(|known| value.eq_ignore_ascii_case(known)) => {}
                "boundary" if boundary.is_none() => boundary = Some(value),
                _ => return None,
            }
        }
        let is = |known: &str| kind.trim_end_matches([' ', '\t']).eq_ignore_ascii_case(known);
        match boundary {
            None if is("application/json") => Some(MediaType::Json),
            Some(boundary) if is("multipart/form-data") && is_boundary(boundary) => {
                Some(MediaType::Form(boundary.to_owned()))
            }
            _ => None,
        }
    }
}

/// Name and value of each parameter of a header's value, from its first semicolon on. `None` if the grammar has no
/// such text. A quoted value must have no escape and no semicolon, which not every server knows to skip.
pub(super) fn parameters_of(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut parameters = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t']);
    while let Some(behind) = rest.strip_prefix(';') {
        let (name, behind) = behind.trim_start_matches([' ', '\t']).split_once('=')?;
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').filter(|(value, _)| value.chars().all(is_quotable))?,
            None => {
                let (value, behind) = behind.split_at(behind.find([';', ' ', '\t']).unwrap_or(behind.len()));
                (is_token(value).then_some(value)?, behind)
            }
        };
        parameters.push((is_token(name).then_some(name)?, value));
        rest = behind.trim_start_matches([' ', '\t']);
    }
    rest.is_empty().then_some(parameters)
}

fn is_quotable(letter: char) -> bool {
    !letter.is_control() && !matches!(letter, '\\' | ';')
}

pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// RFC 2046, without the blank that it allows.
fn is_boundary(text: &str) -> bool {
    (1..=70).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_body_is_read_as() {
        let form = |boundary: &str| Some(MediaType::Form(boundary.to_owned()));
        for (stated, expected) in [
            (&[][..], Some(MediaType::Json)),
            (&["application/json"], Some(MediaType::Json)),
            (&["Application/JSON ; charset=\"UTF-8\""], Some(MediaType::Json)),
            (&["application/json;charset=utf-8"], Some(MediaType::Json)),
            (&["multipart/form-data; boundary=----WebKitFormBoundaryx1"], form("----WebKitFormBoundaryx1")),
            (&["multipart/form-data; boundary=\"a=b/c\""], form("a=b/c")),
            (&["multipart/form-data;charset=utf-8;BOUNDARY=b"], form("b")),
            (&["application/json", "application/json"], None),
            (&["application/json, multipart/form-data; boundary=b"], None),
            (&["application/json; charset=utf-7"], None),
            (&["application/json; charset=utf-8; charset=utf-7"], None),
            (&["application/json; boundary=b"], None),
            (&["application/json;"], None),
            (&["application/json; x"], None),
            (&["application/x-www-form-urlencoded"], None),
            (&["text/plain"], None),
            (&["application/sdp"], None),
            (&[""], None),
            (&["multipart/form-data"], None),
            (&["multipart/mixed; boundary=b"], None),
            (&["multipart/form-data; boundary=a; boundary=b"], None),
            (&["multipart/form-data; boundary=a, multipart/form-data; boundary=b"], None),
            (&["multipart/form-data; x=y\"; boundary=a; z=\"; boundary=b"], None),
            (&["multipart/form-data; x=\"y; boundary=a; z=\"; boundary=b"], None),
            (&["multipart/form-data; x=\"\\\"; boundary=a; z=\\\"\"; boundary=b"], None),
            (&["multipart/form-data; boundary*=utf-8''a; boundary=b"], None),
            (&["multipart/form-data; boundary=\"a b\""], None),
            (&["multipart/form-data; boundary=\"a\"b"], None),
            (&["multipart/form-data; boundary=\"\""], None),
        ] {
            let headers: Headers = stated.iter().map(|value| ("content-type", value)).collect();
            assert_eq!(MediaType::of(&headers), expected, "{stated:?}");
        }
    }
}
