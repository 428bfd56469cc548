//! Base URLs from the configuration, and the paths and queries of requests.
//!
//! The `url` crate is not used, because it normalises: it resolves dot segments and re-encodes paths. A
//! request's path must reach the provider byte for byte as it was checked, so the question here is not
//! what a path means but whether it could mean two things ([`is_ambiguous`]). A client's permissions are
//! checked on the path that it sent. If the provider resolved that path to another one, the client would
//! reach what it may not use, and so an ambiguous path is refused. What is left of URLs is a scheme, a
//! host and a query, which need little code; the crate would bring the tables of international names.

use std::borrow::Cow;

/// A base URL in the parts that a request needs: `https://api.openai.com/v1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Whether the connection is TLS.
    pub tls: bool,
    /// Host and port, as the `:authority` header will have them.
    pub authority: String,
    /// The path without a slash at its end. It is empty or begins with a slash.
    pub path: String,
}

impl Url {
    /// Parses `http://host[:port][/path]` or the same with https.
    ///
    /// # Errors
    /// What is wrong with the URL.
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

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

/// Whether the provider could resolve a path to another one than was checked here, because it has dot
/// segments, encoded slashes, backslashes, a NUL or raw bytes. Envoy's own normalisation is off, so that the
/// permission check and the provider see the same bytes.
pub fn is_ambiguous(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'\\' | b'#');
    let mut before = b'/';
    // A dot at the beginning of a segment needs the closer look below.
    let suspicious = |byte: u8| {
        let begins = core::mem::replace(&mut before, byte) == b'/';
        !plain(byte) || (begins && byte == b'.')
    };
    if !path.bytes().any(suspicious) {
        return false;
    }
    let lower = path.to_ascii_lowercase();
    let hidden = ["%2f", "%5c", "%00", "\\", "#"].iter().any(|bad| lower.contains(bad));
    // No provider that we know resolves a double encoding, but refusing it costs nothing.
    let dots = lower.replace("%25", "%").replace("%2e", ".");
    let dots = dots.split('/').any(|segment| segment == "." || segment == ".." || segment.starts_with("..;"));
    hidden || dots || !path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Resolves `%XX`. An invalid escape stays as it is, and bytes that are not UTF-8 are replaced.
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
    fn base_urls_are_parsed() {
        let url = Url::parse("https://api.openai.com/v1/").unwrap();
        assert_eq!((url.scheme(), url.authority.as_str(), url.path.as_str()), ("https", "api.openai.com", "/v1"));
        let url = Url::parse("http://127.0.0.1:9000").unwrap();
        assert_eq!((url.scheme(), url.authority.as_str(), url.path.as_str()), ("http", "127.0.0.1:9000", ""));
        for bad in ["", "ftp://x", "https://", "https:///v1", "https://a b/", "https://u@h/", "https://h/?q", "//h"] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_that_could_mean_two_things_are_ambiguous() {
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
    fn query_parameters_are_found_and_removed_by_decoded_name() {
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
    fn percent_escapes_are_resolved() {
        for (text, plain) in
            [("a%20b", "a b"), ("%", "%"), ("%zz", "%zz"), ("%4", "%4"), ("%e2%82%ac", "€"), ("%ff", "\u{fffd}")]
        {
            assert_eq!(percent_decode(text), plain, "{text}");
        }
    }
}
