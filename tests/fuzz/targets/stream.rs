//! Answers as streams: sound for a client whatever comes, and the same however they are cut. Two header bytes
//! choose the kind of request and the cuts.

#![no_main]

mod support;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use one_balance::translate::{AnswerShape, Kind, Stream};

fuzz_target!(|input: &[u8]| {
    let [header, cuts, bytes @ ..] = input else { return };
    let shape = support::shape(*header, Kind::ChatStream);
    let whole = run(&shape, std::iter::once(bytes));
    support::sound_stream(&whole, &shape);
    let mut rng = fastrand::Rng::with_seed((*cuts).into());
    let mut left = bytes;
    let pieces = std::iter::from_fn(|| {
        let (piece, rest) = left.split_at(rng.usize(1..40).min(left.len()));
        left = rest;
        (!piece.is_empty()).then_some(piece)
    });
    assert_eq!(run(&shape, pieces), whole);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    support::mutate(data, size, max_size, seed, 2)
});

fn run<'a>(shape: &AnswerShape, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut stream = Stream::new(shape.clone(), "id", 0);
    let mut out: Vec<u8> = pieces.flat_map(|piece| stream.feed(piece)).collect();
    out.extend(stream.finish());
    assert!(stream.is_ended());
    out
}
