//! The splitter of event streams: cuts do not matter, and lines are those of the standard.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../src/translate/sse.rs"]
#[allow(dead_code)]
mod sse;

fn split<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let (mut splitter, mut events) = (sse::Splitter::default(), Vec::<Vec<u8>>::new());
    for piece in pieces {
        splitter.feed(piece, |data| events.push(data.to_vec())).expect("no input here is long");
    }
    splitter.finish(|data| events.push(data.to_vec()));
    events
}

/// The same events, found in the simplest way.
fn plainly(stream: &[u8]) -> Vec<Vec<u8>> {
    let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    // Latin-1 keeps every byte and can be split as text.
    let text: String = stream.iter().map(|&byte| char::from(byte)).collect();
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let bytes = |text: &str| text.chars().map(|char| char as u8).collect();
    let (mut events, mut data): (Vec<Vec<u8>>, Option<String>) = (Vec::new(), None);
    for line in text.split('\n') {
        if line.is_empty() {
            events.extend(data.take().as_deref().map(bytes));
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        if field == "data" {
            let value = value.strip_prefix(' ').unwrap_or(value);
            data = Some(data.map_or_else(|| value.to_owned(), |data| data + "\n" + value));
        }
    }
    events.extend(data.as_deref().map(bytes));
    events
}

fuzz_target!(|input: (Vec<u8>, &[u8])| {
    let (cuts, stream) = input;
    let expected = plainly(stream);
    assert_eq!(split(std::iter::once(stream)), expected);
    assert_eq!(split(stream.chunks(1)), expected);
    let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| usize::from(cut).min(stream.len())).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    assert_eq!(split(cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]])), expected);
});
