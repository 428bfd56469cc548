//! Base URLs from the configuration, and what a request's path and query may contain.

use std::borrow::Cow;

/// A base URL in the parts that a request needs: `https://api.openai.com/v1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Whether the connection is TLS.
    pub tls: bool,
    /// Host and port, as `:authority` will say them.
    pub authority: String,
    /// The path without a slash at its end; empty or beginning with one.
    pub path: String,
}

impl Url {
    /// Parses `http://host[:port][/path]` or the same with https.
    ///
    /// # Errors
    /// What is wrong with it; it holds no secret, so the message may quote it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (tls, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (true, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (false, rest)
        } else {
            return Err("it must begin with https:// or http://");
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let host_bytes = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        if authority.is_empty() || !authority.bytes().all(host_bytes) {
            return Err("its host is missing or has characters that no host has");
        }
        if !path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte)) {
            return Err("its path must not have a query, a fragment or blanks");
        }
        Ok(Url { tls, authority: authority.to_owned(), path: path.trim_end_matches('/').to_owned() })
    }

    /// The scheme's name.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

/// Whether a path could mean another place to the provider than it means here: dot segments,
/// encoded slashes, backslashes, a NUL or raw bytes. Envoy's own normalisation is off, so that the permission
/// check and the provider see the same bytes; what could be read in two ways is refused.
#[must_use]
pub fn is_ambiguous(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'\\' | b'#');
    let mut before = b'/';
    // A dot at a segment's beginning is looked at more closely.
    let suspicious = |byte: u8| {
        let begins = core::mem::replace(&mut before, byte) == b'/';
        !plain(byte) || (begins && byte == b'.')
    };
    if !path.bytes().any(suspicious) {
        return false;
    }
    let lower = path.to_ascii_lowercase();
    let hidden = ["%2f", "%5c", "%00", "\\", "#"].iter().any(|bad| lower.contains(bad));
    // A double encoding is resolved by nobody we know, but costs nothing to refuse.
    let dots = lower.replace("%25", "%").replace("%2e", ".");
    let dots = dots.split('/').any(|segment| segment == "." || segment == ".." || segment.starts_with("..;"));
    hidden || dots || !path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Resolves `%XX`; what is no valid escape stays as it is, and bytes that are no UTF-8 are replaced.
#[must_use]
pub fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut rest = bytes.clone();
        let hex = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match (byte, hex(rest.next()), hex(rest.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                bytes = rest;
            }
            _ => out.push(byte),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// The decoded value of the first query parameter of this name.
#[must_use]
pub fn query_value<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    if query.is_empty() {
        return None;
    }
    query_values(query, name).next()
}

/// The decoded values of all query parameters of this name.
pub fn query_values<'a>(query: &'a str, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
    pairs(query).filter(move |(key, _)| percent_decode(key) == name).map(|(_, value)| percent_decode(value))
}

/// The query without the parameters whose decoded name is unwanted.
#[must_use]
pub fn without_parameters(query: &str, unwanted: impl Fn(&str) -> bool) -> String {
    if query.is_empty() {
        return String::new();
    }
    let kept = query.split('&').filter(|part| {
        let key = part.split_once('=').map_or(*part, |(key, _)| key);
        !unwanted(&percent_decode(key))
    });
    kept.collect::<Vec<_>>().join("&")
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|part| part.split_once('=').unwrap_or((part, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        let url = Url::parse("https://api.openai.com/v1/").unwrap();
        assert_eq!((url.scheme(), url.authority.as_str(), url.path.as_str()), ("https", "api.openai.com", "/v1"));
        let url = Url::parse("http://127.0.0.1:9000").unwrap();
        assert_eq!((url.scheme(), url.authority.as_str(), url.path.as_str()), ("http", "127.0.0.1:9000", ""));
        for bad in ["", "ftp://x", "https://", "https:///v1", "https://a b/", "https://u@h/", "https://h/?q", "//h"] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ambiguous_paths() {
        for bad in [
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/%2e%2e/b",
            "/%2E./b",
            "/a%2fb",
            "/a%2Fb",
            "/a\\b",
            "/a%5cb",
            "/a%00",
            "/%252e%252e/b",
            "/..;/b",
            "/a b",
            "/a\u{e9}",
            "/a#b",
        ] {
            assert!(is_ambiguous(bad), "{bad}");
        }
        for good in ["/", "/v1/models/gemini-2.0-flash:generateContent", "/a..b/c", "/a%20b", "/.well-known/x", "//"] {
            assert!(!is_ambiguous(good), "{good}");
        }
    }

    #[test]
    fn queries() {
        assert_eq!(query_value("a=1&key=x%2Fy&key=z", "key").unwrap(), "x/y");
        assert_eq!(query_value("%6bey=x", "key").unwrap(), "x");
        assert_eq!(query_value("keys=x", "key"), None);
        for (query, rest) in [
            ("key=x", ""),
            ("alt=sse&key=x", "alt=sse"),
            ("key=x&alt=sse&%6Bey=y&key", "alt=sse"),
            ("monkey=1", "monkey=1"),
            ("", ""),
        ] {
            assert_eq!(without_parameters(query, |name| name == "key"), rest, "{query}");
        }
    }

    #[test]
    fn percent() {
        for (text, plain) in
            [("a%20b", "a b"), ("%", "%"), ("%zz", "%zz"), ("%4", "%4"), ("%e2%82%ac", "€"), ("%ff", "\u{fffd}")]
        {
            assert_eq!(percent_decode(text), plain, "{text}");
        }
    }
}
