//! A header list as it came, with names in lower case and values as bytes.
//!
//! Values are bytes because any client can send bytes that are not UTF-8. It is a list because a map
//! would lose all but one of repeated headers. It stays in the one piece in which proxy-wasm passes it,
//! because two strings for each header would be most of a request's allocations:
//!
//! ```text
//! count, then for each header the sizes of its name and value; all 32-bit, little-endian
//! for each header: name, 0, value, 0
//! ```

/// Header names and values in the order of the wire. Envoy gives names in lower case.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    bytes: Vec<u8>,
    fields: Vec<Field>,
}

/// The offset of a header, and the sizes of its name and value.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Field {
    start: usize,
    name: usize,
    value: usize,
}

impl Headers {
    /// Reads a header list in the host's form. Headers beyond the end of the bytes are left out.
    pub fn decode(bytes: Vec<u8>) -> Self {
        let mut numbers = bytes.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four) as usize);
        let count = numbers.next().unwrap_or_default();
        // A false count must not allocate more than the bytes can hold.
        let count = count.min(bytes.len() / 8);
        let mut start = 4 + 8 * count;
        let mut fields = Vec::with_capacity(count);
        while fields.len() < count
            && let (Some(name), Some(value)) = (numbers.next(), numbers.next())
        {
            fields.push(Field { start, name, value });
            start = start.saturating_add(name).saturating_add(value).saturating_add(2);
            if start > bytes.len() {
                fields.pop();
                break;
            }
        }
        Headers { bytes, fields }
    }

    /// The status of a response. `None` if it is missing or not a number.
    pub fn status(&self) -> Option<u16> {
        self.text(":status")?.parse().ok()
    }

    fn name(&self, field: &Field) -> &[u8] {
        self.bytes.get(field.start..field.start + field.name).unwrap_or_default()
    }

    fn value(&self, field: &Field) -> &[u8] {
        let start = field.start + field.name + 1;
        self.bytes.get(start..start + field.value).unwrap_or_default()
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (self.name(field), self.value(field)))
    }

    fn is(&self, field: &Field, name: &str) -> bool {
        field.name == name.len() && self.name(field) == name.as_bytes()
    }

    /// All values of the header `name` (lower case).
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |field| self.is(field, name)).map(|field| self.value(field))
    }

    /// The first value of the header `name` (lower case).
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|field| self.is(field, name)).map(|field| self.value(field))
    }

    /// The first value of the header `name` if it is UTF-8, without white space around it.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| core::str::from_utf8(value.trim_ascii()).ok())
    }

    /// Whether the header is there at all.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether the body is compressed.
    pub fn is_encoded(&self) -> bool {
        let plain = |coding: &[u8]| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity");
        !self.all("content-encoding").all(|coding| plain(coding.trim_ascii()))
    }
}

/// Shows the names only, because a client's headers hold its AUTH_KEY.
impl core::fmt::Debug for Headers {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| String::from_utf8_lossy(name))).finish()
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let (mut sizes, mut data, mut count) = (Vec::new(), Vec::new(), 0_u32);
        for (name, value) in pairs {
            for part in [name.as_ref(), value.as_ref()] {
                sizes.extend(u32::try_from(part.len()).unwrap_or_default().to_le_bytes());
                data.extend(part);
                data.push(0);
            }
            count += 1;
        }
        Headers::decode([&count.to_le_bytes(), sizes.as_slice(), data.as_slice()].concat())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(headers: &Headers) -> Vec<(Vec<u8>, Vec<u8>)> {
        headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
    }

    #[test]
    fn values_are_found_by_name() {
        let headers: Headers = [("a", " x "), ("b", ""), ("a", "y")].into_iter().collect();
        assert_eq!(headers.all("a").collect::<Vec<_>>(), [b" x ".as_slice(), b"y"]);
        assert_eq!((headers.text("a"), headers.get("b"), headers.get("c")), (Some("x"), Some(b"".as_slice()), None));
        let bytes: Headers = [("a", b"\xff")].into_iter().collect();
        assert_eq!((bytes.has("a"), bytes.text("a")), (true, None));
        assert_eq!(format!("{headers:?}"), r#"["a", "b", "a"]"#);
    }

    #[test]
    fn what_is_compressed() {
        for (codings, encoded) in
            [(&[][..], false), (&[""], false), (&["Identity "], false), (&["gzip"], true), (&["identity", "br"], true)]
        {
            let headers: Headers = codings.iter().map(|coding| ("content-encoding", coding)).collect();
            assert_eq!(headers.is_encoded(), encoded, "{codings:?}");
        }
        assert!(Headers::from_iter([("content-encoding", b"\xff")]).is_encoded());
    }

    proptest! {
        #[test]
        fn the_hosts_form_is_read_back(list: Vec<(String, Vec<u8>)>) {
            let headers: Headers = list.iter().map(|(name, value)| (name, value)).collect();
            let expected: Vec<_> = list.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
            prop_assert_eq!(listed(&headers), expected);
        }

        #[test]
        fn anything_is_read(bytes: Vec<u8>, lie: u32, cut: usize) {
            listed(&Headers::decode(bytes.clone()));
            let mut lied = lie.to_le_bytes().to_vec();
            lied.extend(&bytes);
            listed(&Headers::decode(lied));
            let whole: Headers = [("name", &bytes), ("other", &bytes)].into_iter().collect();
            let mut short = whole.bytes.clone();
            short.truncate(cut % (short.len() + 1));
            prop_assert!(listed(&Headers::decode(short)).len() <= 2);
        }
    }
}
