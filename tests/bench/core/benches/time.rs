//! Time of a request in the core, natively: `make bench-core`.

use bench_core::{Exchange, World};
use divan::{AllocProfiler, Bencher};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

#[divan::bench(args = Exchange::ALL.iter().map(|(name, _)| *name))]
fn exchange(bencher: Bencher, name: &str) {
    let (_, make) = Exchange::ALL.iter().find(|(kind, _)| *kind == name).expect("a kind of exchange");
    let (mut world, exchange) = (World::new(10), make());
    bencher.bench_local(|| world.serve(&exchange));
}

#[divan::bench(args = [10, 100, 1_000, 10_000])]
fn keys(bencher: Bencher, keys: usize) {
    let (mut world, exchange) = (World::new(keys), Exchange::native());
    bencher.bench_local(|| world.serve(&exchange));
}
