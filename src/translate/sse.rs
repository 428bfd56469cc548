//! Reads server-sent events from bytes that may be cut anywhere.
//!
//! Lines are split as bytes and never decoded in pieces, because a character may be cut in two. Only `data`
//! matters here, because both providers repeat in it what the `event` field says.
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>

use memchr::memchr2;

/// The longest line, and the most data of one event. Text needs some kilobytes, but an image of a Gemini
/// model is one event.
pub(super) const LINE_LIMIT: usize = 8 * 1024 * 1024;

/// A line or an event was longer than [`LINE_LIMIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// How much memory for data is kept from one event to the next, so that most events allocate nothing.
const KEPT: usize = 64 * 1024;

/// Collects lines into events.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// The beginning of a line that was cut.
    line: Vec<u8>,
    /// The data of the event so far, without the line feed behind it.
    data: Vec<u8>,
    /// The event has data, even if it is only an empty line.
    has_data: bool,
    /// The last byte was a carriage return: a line feed right behind it belongs to it.
    after_return: bool,
    /// The first line has been seen, which may begin with a byte order mark.
    begun: bool,
}

impl Splitter {
    /// Takes the next piece and calls `each` with the data of every event that ends in it. An event or line
    /// that is too long ends the reading.
    pub fn feed(&mut self, mut piece: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), TooLong> {
        while !piece.is_empty() {
            if core::mem::take(&mut self.after_return) && piece.first() == Some(&b'\n') {
                piece = piece.get(1..).unwrap_or_default();
                continue;
            }
            let end = memchr2(b'\n', b'\r', piece);
            let part = piece.get(..end.unwrap_or(piece.len())).unwrap_or_default();
            if self.line.len().saturating_add(part.len()) > LINE_LIMIT {
                return Err(TooLong);
            }
            let Some(end) = end else {
                self.line.extend_from_slice(part);
                break;
            };
            self.after_return = piece.get(end) == Some(&b'\r');
            if self.line.is_empty() {
                self.end_line(part, &mut each)?;
            } else {
                let mut line = core::mem::take(&mut self.line);
                line.extend_from_slice(part);
                self.end_line(&line, &mut each)?;
            }
            piece = piece.get(end + 1..).unwrap_or_default();
        }
        Ok(())
    }

    /// Calls `each` with the last event, if the blank line that ends it is missing.
    pub fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        let line = core::mem::take(&mut self.line);
        // After an event that is too long the stream has ended with an error, so nothing is left to report.
        let _ = self.end_line(&line, &mut each);
        self.end_event(&mut each);
    }

    /// Ends the line. A blank line ends the event.
    fn end_line(&mut self, mut line: &[u8], each: &mut impl FnMut(&[u8])) -> Result<(), TooLong> {
        if !core::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            self.end_event(each);
        } else if let Some(value) = data_of(line) {
            // The lines of an event are joined, including empty ones.
            let separator: &[u8] = if self.has_data { b"\n" } else { b"" };
            if self.data.len().saturating_add(separator.len()).saturating_add(value.len()) > LINE_LIMIT {
                return Err(TooLong);
            }
            self.has_data = true;
            self.data.extend_from_slice(separator);
            self.data.extend_from_slice(value);
        }
        Ok(())
    }

    fn end_event(&mut self, each: &mut impl FnMut(&[u8])) {
        if !core::mem::take(&mut self.has_data) {
            return;
        }
        each(&self.data);
        self.data.clear();
        self.data.shrink_to(KEPT);
    }
}

/// The text after `data:`, without the one blank that may precede it. A bare `data` is an empty line.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    let value = line.strip_prefix(b"data")?;
    let value = if value.is_empty() { value } else { value.strip_prefix(b":")? };
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(pieces: &[&[u8]]) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut events = Vec::new();
        let mut keep = |event: &[u8]| events.push(String::from_utf8(event.to_vec()).unwrap());
        pieces.iter().for_each(|piece| splitter.feed(piece, &mut keep).unwrap());
        splitter.finish(&mut keep);
        events
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
            ("data:\ndata: a\ndata\ndata:\ndatax\n\n", vec!["\na\n\n"]),
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
        let data = [b"data: ".as_slice(), &half[1..], b"\n"].concat();
        for (allowed, too_long) in [(&half, b"x".as_slice()), (&data, b"data: x\n")] {
            let (mut splitter, mut events) = (Splitter::default(), Vec::new());
            // An event in the same piece is not lost.
            let piece = [b"data: a\n\n".as_slice(), allowed, allowed, too_long].concat();
            assert_eq!(splitter.feed(&piece, |event| events.push(event.to_vec())), Err(TooLong));
            assert_eq!(events, [b"a"]);

            let mut splitter = Splitter::default();
            assert_eq!(splitter.feed(&[allowed.as_slice(), allowed].concat(), |_| ()), Ok(()));
            assert_eq!(splitter.feed(too_long, |_| ()), Err(TooLong));
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
