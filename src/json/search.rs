//! Finds a few top-level fields in a JSON body without building any of it.
//!
//! The whole body is read before anything is sent, for two reasons. A second `model` further down must
//! not smuggle another model past the permission check: providers take the last one, and a quick search
//! finds the first. And a broken body is answered here instead of costing an attempt.

use core::ops::Range;

use super::reader::Reader;

/// Why fields could not be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The body is not one JSON object. Line and column (from 1) of the first fault.
    Broken(usize, usize),
    /// The body has more than one field of this name, which is one that was searched for.
    Duplicate(&'static str),
    /// A name differs from that of this field in upper and lower case only. Some parsers take it for the field.
    OtherCase(&'static str),
}

/// The ranges of the values of the top-level fields `names`, in the order of the names.
///
/// # Errors
/// The body is not one JSON object, or has one of the fields twice.
pub(crate) fn fields<const N: usize>(
    body: &[u8],
    names: [&'static str; N],
) -> Result<[Option<Range<usize>>; N], Unreadable> {
    Search::new(body, names).finish()
}

/// The same, but a name that differs from one of these in upper and lower case only is refused: Go's parser, for
/// one, takes `MODEL` for `model`, and the last of them counts.
///
/// # Errors
/// As [`fields`], or [`Unreadable::OtherCase`].
pub(crate) fn fields_in_exact_case<const N: usize>(
    body: &[u8],
    names: [&'static str; N],
) -> Result<[Option<Range<usize>>; N], Unreadable> {
    Search { exact_case: true, ..Search::new(body, names) }.finish()
}

/// A search for top-level fields that can be looked into before the whole body is read.
#[derive(Debug)]
pub(crate) struct Search<'b, const N: usize> {
    body: &'b [u8],
    reader: Reader<'b>,
    names: [&'static str; N],
    found: [Option<Range<usize>>; N],
    exact_case: bool,
    refused: Option<Unreadable>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Outside,
    Inside,
    Ended,
    Broken,
}

impl<'b, const N: usize> Search<'b, N> {
    pub(crate) fn new(body: &'b [u8], names: [&'static str; N]) -> Self {
        let (reader, found) = (Reader::new(body), [const { None }; N]);
        Search { body, reader, names, found, exact_case: false, refused: None, state: State::Outside }
    }

    /// Reads on until one of the fields is found, and returns the range of its value. What follows it is
    /// not known yet.
    pub(crate) fn first(&mut self) -> Option<Range<usize>> {
        while self.found.iter().all(Option::is_none) && self.is_unfinished() {
            self.advance();
        }
        self.found.iter().flatten().next().cloned()
    }

    /// Reads the rest, and returns what [`fields`] returns.
    ///
    /// # Errors
    /// Those of [`fields`].
    pub(crate) fn finish(mut self) -> Result<[Option<Range<usize>>; N], Unreadable> {
        while self.is_unfinished() {
            self.advance();
        }
        match (self.refused, self.state) {
            (Some(refused), _) => Err(refused),
            (None, State::Ended) => Ok(self.found),
            (None, _) => {
                let (line, column) = self.reader.position();
                Err(Unreadable::Broken(line, column))
            }
        }
    }

    fn is_unfinished(&self) -> bool {
        matches!(self.state, State::Outside | State::Inside)
    }

    fn advance(&mut self) {
        let next = if self.state == State::Outside { self.begin() } else { self.field() };
        self.state = next.unwrap_or(State::Broken);
    }

    fn begin(&mut self) -> Option<State> {
        self.reader.take(b'{')?;
        if self.reader.peek()? == b'}' { self.end() } else { Some(State::Inside) }
    }

    fn field(&mut self) -> Option<State> {
        let key = self.body.get(self.reader.key()?).unwrap_or_default();
        let escaped = self.reader.flags().escaped;
        let slot = self.names.iter().zip(&mut self.found).find(|(name, _)| is_key(key, escaped, name));
        let value = self.reader.value()?;
        if let Some((name, slot)) = slot {
            if slot.is_some() {
                self.refused = Some(Unreadable::Duplicate(name));
                return None;
            }
            core::str::from_utf8(self.body.get(value.clone())?).ok()?;
            *slot = Some(value);
        } else if self.exact_case
            && let Some(name) = self.names.iter().find(|name| is_key_in_any_case(key, name))
        {
            self.refused = Some(Unreadable::OtherCase(name));
            return None;
        }
        if self.reader.peek()? != b',' {
            return self.end();
        }
        self.reader.take(b',')?;
        // JSON allows no comma before the end.
        (self.reader.peek()? == b'"').then_some(State::Inside)
    }

    fn end(&mut self) -> Option<State> {
        self.reader.take(b'}')?;
        self.reader.is_at_end().then_some(State::Ended)
    }
}

/// Whether a quoted key is this name. It is decoded, because every parser reads `"mod\u0065l"` as `model`.
fn is_key(quoted: &[u8], escaped: bool, name: &str) -> bool {
    if escaped {
        return serde_json::from_slice::<String>(quoted).is_ok_and(|key| key == name);
    }
    quoted.get(1..quoted.len().saturating_sub(1)) == Some(name.as_bytes())
}

/// Whether a quoted key is this name to a parser that takes no notice of case. Two letters beyond ASCII fold into
/// it: `ſ` (U+017F) into s, and the Kelvin sign (U+212A) into k.
fn is_key_in_any_case(quoted: &[u8], name: &str) -> bool {
    // No letter of a key is written with fewer bytes than the letter of the name.
    if quoted.len() < name.len() + 2 {
        return false;
    }
    let Ok(key) = serde_json::from_slice::<String>(quoted) else { return false };
    let folded = key.chars().map(|letter| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    });
    folded.eq(name.chars())
}

/// The text of a value, if it is a JSON string.
pub(crate) fn string(body: &[u8], value: Range<usize>) -> Option<String> {
    serde_json::from_slice(body.get(value)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn model(body: &str) -> Result<Option<String>, Unreadable> {
        let found = fields(body.as_bytes(), ["model"]);
        found.map(|[value]| value.and_then(|value| string(body.as_bytes(), value)))
    }

    #[test]
    fn finds_the_top_level_field_only() {
        for (body, expected) in [
            (r#"{"model":"a"}"#, Some("a")),
            (r#" { "x" : [{"model":"inner"}], "model" : "a\u002fb" } "#, Some("a/b")),
            (r#"{"mod\u0065l":"a"}"#, Some("a")),
            (r#"{"messages":["\"model\":\"x\""]}"#, None),
            (r#"{"model":7}"#, None),
            ("{}", None),
        ] {
            assert_eq!(model(body), Ok(expected.map(str::to_owned)), "{body}");
        }
    }

    #[test]
    fn refuses_what_could_be_read_in_two_ways() {
        for body in [r#"{"model":"a","model":"b"}"#, r#"{"model":"a","x":1,"mod\u0065l":"a"}"#] {
            assert_eq!(model(body), Err(Unreadable::Duplicate("model")), "{body}");
        }
        for body in
            ["", "[]", "null", "\"model\"", "{", r#"{"model":"a""#, r#"{"model":"a"}x"#, r#"{"a":1,}"#, "{'a':1}"]
        {
            assert!(matches!(model(body), Err(Unreadable::Broken(..))), "{body}");
        }
        assert!(matches!(fields(b"{\"model\":\"\xff\"}", ["model"]), Err(Unreadable::Broken(..))));
    }

    #[test]
    fn the_first_field_is_found_before_the_end_is_read() {
        let mut search = Search::new(br#"{"x":1,"model":"a","y":[}"#, ["model"]);
        assert_eq!(search.first(), Some(15..18));
        assert_eq!(search.first(), Some(15..18));
        assert_eq!(search.finish(), Err(Unreadable::Broken(1, 25)));
        for (body, result) in [("{}", Ok([None])), ("{\"x\":1", Err(Unreadable::Broken(1, 7)))] {
            let mut search = Search::new(body.as_bytes(), ["model"]);
            assert_eq!((search.first(), search.finish()), (None, result), "{body}");
        }
    }

    #[test]
    fn any_depth_is_skipped_without_a_stack() {
        let deep = format!(r#"{{"x":{}{},"model":"m"}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(model(&deep), Ok(Some("m".to_owned())));
    }

    #[test]
    fn a_name_in_another_case_is_refused_on_request() {
        for (body, other) in [
            (r#"{"model":"a","MODEL":"b"}"#, "model"),
            (r#"{"Model":"b"}"#, "model"),
            (r#"{"mod\u0045l":"b"}"#, "model"),
            (r#"{"model":"a","modelſ":["b"]}"#, "models"),
        ] {
            let found = fields_in_exact_case(body.as_bytes(), ["model", "models"]);
            assert_eq!(found, Err(Unreadable::OtherCase(other)), "{body}");
            assert!(fields(body.as_bytes(), ["model", "models"]).is_ok(), "{body}");
        }
        let body = br#"{"model":"a","modelx":"b","x":{"MODEL":"c"},"mo":1,"\ud800":2}"#;
        assert_eq!(fields_in_exact_case(body, ["model", "models"]), Ok([Some(9..12), None]));
    }

    proptest! {
        #[test]
        fn positions_are_the_values(before in "[ -~]{0,20}", name in "[ -~]{1,20}") {
            let body = serde_json::json!({"a": before, "model": name, "z": 1}).to_string();
            let [value] = fields(body.as_bytes(), ["model"]).unwrap();
            prop_assert_eq!(Search::new(body.as_bytes(), ["model"]).first(), value.clone());
            prop_assert_eq!(&body[value.unwrap()], serde_json::to_string(&name).unwrap());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = fields(&body, ["model", "user"]);
        }
    }
}
