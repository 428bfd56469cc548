use bench_core::*;
fn main() {
    let n: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let e = match std::env::args().nth(2).as_deref() { Some("compat") => Exchange::compat(1024), Some("c64") => Exchange::compat(65536), Some("tr") => Exchange::translated(), _ => Exchange::native() };
    let mut w = World::new(10);
    let mut t = 0;
    for _ in 0..n { t += w.serve(&e); }
    println!("{t}");
}
