//! Answers in one piece: each becomes a completion or an error that SDKs understand, with the same text as
//! a stream of one event. A header byte chooses the kind of request.

#![no_main]

mod support;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use one_balance::translate::{self, Kind, Stream, Target};
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let Some((&header, body)) = input.split_first() else { return };
    support::sound_error(&parse(&translate::error(400 + u16::from(header), body)));

    let embeddings = support::shape(header & !1, Kind::Embeddings { base64: header & 8 != 0 });
    match translate::answer(&embeddings, "id", 0, body) {
        Ok(answer) => assert!(parse(&answer)["data"].is_array()),
        Err(error) => support::sound_error(&parse(&error)),
    }

    let shape = support::shape(header, Kind::Chat);
    match translate::answer(&shape, "id", 0, body) {
        Ok(answer) => {
            let whole = support::sound_completion(&parse(&answer), &shape);
            if shape.target == Target::Gemini {
                // A stream may report that it broke off where a completion can only be empty.
                assert!(streamed(header, body).is_none_or(|streamed| streamed == whole));
            }
        }
        Err(error) => support::sound_error(&parse(&error)),
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    support::mutate(data, size, max_size, seed, 1)
});

fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

/// The same body as the only event of a stream. Line ends in JSON are white space.
fn streamed(header: u8, body: &[u8]) -> Option<Vec<(u64, String)>> {
    let shape = support::shape(header, Kind::ChatStream);
    let mut stream = Stream::new(shape.clone(), "id", 0);
    let line: Vec<u8> = body.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }).collect();
    let mut out = stream.feed(&[b"data: ".as_slice(), &line, b"\n\n"].concat());
    out.extend(stream.finish());
    support::sound_stream(&out, &shape)
}
