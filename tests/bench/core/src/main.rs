//! Serves one kind of exchange so many times: for callgrind, which counts its instructions.

use bench_core::{Exchange, World};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(times)) = (arguments.next(), arguments.next().and_then(|text| text.parse::<usize>().ok()))
    else {
        panic!("bench-core KIND TIMES")
    };
    let (_, make) = Exchange::ALL.iter().find(|(kind, _)| *kind == name).expect("a kind of exchange");
    let (mut world, exchange) = (World::new(10), make());
    let sizes: usize = (0..times).map(|_| world.serve(&exchange)).sum();
    std::hint::black_box(sizes);
}
