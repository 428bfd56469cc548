//! Server-sent events out of bytes that come cut anywhere.
//!
//! Lines are split as bytes and never decoded in pieces: a character may be cut in two. Only `data`
//! matters here, for both providers say in it what the `event` field says once more.
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>

use memchr::memchr2;

/// The longest line, and the most data of one event. Text needs some kB, but an image of a Gemini
/// model is one event.
pub(super) const LINE_LIMIT: usize = 8 * 1024 * 1024;

/// A line or an event was longer than [`LINE_LIMIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Collects lines to events.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// The line so far.
    line: Vec<u8>,
    /// The data of the event so far, without the line feed behind it.
    data: Option<Vec<u8>>,
    /// The last byte was a carriage return: a line feed right behind it belongs to it.
    after_return: bool,
    /// The first line has been seen, which may begin with a byte order mark.
    begun: bool,
}

impl Splitter {
    /// Takes the next piece and adds the data of the events that end in it, up to a line too long.
    pub fn feed(&mut self, mut piece: &[u8], events: &mut Vec<Vec<u8>>) -> Result<(), TooLong> {
        while !piece.is_empty() {
            if core::mem::take(&mut self.after_return) && piece.first() == Some(&b'\n') {
                piece = piece.get(1..).unwrap_or_default();
                continue;
            }
            let end = memchr2(b'\n', b'\r', piece);
            self.extend(piece.get(..end.unwrap_or(piece.len())).unwrap_or_default())?;
            let Some(end) = end else { break };
            self.after_return = piece.get(end) == Some(&b'\r');
            events.extend(self.end_line()?);
            piece = piece.get(end + 1..).unwrap_or_default();
        }
        Ok(())
    }

    /// The last event, if the blank line behind it is missing.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        // Both can only be an event's data if they are not too long, so there is nothing to report.
        let last = self.end_line().ok().flatten();
        last.or_else(|| self.data.take())
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.line.len().saturating_add(bytes.len()) > LINE_LIMIT {
            return Err(TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// Ends the line; a blank one ends the event.
    fn end_line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let mut line = self.line.as_slice();
        if !core::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        let event = if line.is_empty() { self.data.take() } else { None };
        if let Some(value) = data_of(line) {
            let data = self.data.get_or_insert_default();
            if data.len().saturating_add(value.len()) > LINE_LIMIT {
                return Err(TooLong);
            }
            if !data.is_empty() {
                data.push(b'\n');
            }
            data.extend_from_slice(value);
        }
        self.line.clear();
        Ok(event)
    }
}

/// What stands behind `data:`, without the one blank that may follow.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    let value = line.strip_prefix(b"data:")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(pieces: &[&[u8]]) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut events = Vec::new();
        pieces.iter().for_each(|piece| splitter.feed(piece, &mut events).unwrap());
        events.extend(splitter.finish());
        events.into_iter().map(|event| String::from_utf8(event).unwrap()).collect()
    }

    #[test]
    fn events() {
        for (stream, expected) in [
            ("data: a\n\ndata: b\n\n", vec!["a", "b"]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", vec!["a", "b"]),
            ("data: a\r\rdata: b\r\r", vec!["a", "b"]),
            ("data: a\r\n\ndata: b\n\r\n", vec!["a", "b"]),
            ("data: a\ndata: b\n\n", vec!["a\nb"]),
            ("data: a\r\ndata: b\r\n\r\n", vec!["a\nb"]),
            (": comment\nevent: x\nid: 1\ndata:a\n\n", vec!["a"]),
            ("data:  a\n\n", vec![" a"]),
            ("\u{feff}data: ü\n\n", vec!["ü"]),
            ("data: a\n\ndata: no end", vec!["a", "no end"]),
            ("data: a\n\ndata: no end\n", vec!["a", "no end"]),
            ("event: ping\n\n\n\n", vec![]),
            ("{\"error\":{}}\n", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(split(&[stream.as_bytes()]), expected, "{stream:?}");
            for at in 0..=stream.len() {
                let (one, two) = stream.as_bytes().split_at(at);
                assert_eq!(split(&[one, two]), expected, "{stream:?} at {at}");
            }
        }
    }

    #[test]
    fn a_line_is_bounded() {
        let half = vec![b'x'; LINE_LIMIT / 2];
        let data = [b"data: ".as_slice(), &half, b"\n"].concat();
        for (allowed, too_long) in [(&half, b"x".as_slice()), (&data, b"data: x\n")] {
            let (mut splitter, mut events) = (Splitter::default(), Vec::new());
            // An event in the same piece is not lost.
            let piece = [b"data: a\n\n".as_slice(), allowed, allowed, too_long].concat();
            assert_eq!(splitter.feed(&piece, &mut events), Err(TooLong));
            assert_eq!(events, [b"a"]);

            let mut splitter = Splitter::default();
            assert_eq!(splitter.feed(&[allowed.as_slice(), allowed].concat(), &mut events), Ok(()));
            assert_eq!(splitter.feed(too_long, &mut events), Err(TooLong));
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in "(data: ?|[a-z: \r\n])*", cuts in proptest::collection::vec(0usize..60, 0..6)) {
            let whole = split(&[bytes.as_bytes()]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(split(&pieces), whole);
        }
    }
}
