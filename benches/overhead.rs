//! Wall time and heap allocations per request.

#[allow(dead_code, reason = "only the count of instructions compares cases")]
mod cases;

use std::sync::LazyLock;

use cases::*;
use divan::{AllocProfiler, Bencher};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

#[divan::bench(args = cases(Headers::Four), sample_count = 1000, sample_size = 100)]
fn four_headers(bencher: Bencher, case: &Case) {
    one_thread(bencher, case);
}

#[divan::bench(args = cases(Headers::None), sample_count = 1000, sample_size = 100)]
fn no_headers(bencher: Bencher, case: &Case) {
    one_thread(bencher, case);
}

fn one_thread(bencher: Bencher, case: &Case) {
    case.around(|| {
        bencher
            .with_inputs(|| case.prepare())
            .bench_local_values(|call| call());
    });
}

/// Two threads on one client. If they share nothing, each is as fast as one thread alone.
#[divan::bench(args = [EMPTY, EXTENSIONS, FALLBACK], sample_size = 1000, threads = [1, 2])]
fn threads(bencher: Bencher, name: &str) {
    static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| cases(Headers::Four));
    let case = CASES.iter().find(|case| case.name == name).unwrap();
    bencher
        .with_inputs(|| case.prepare())
        .bench_values(|call| call());
}

#[divan::bench(args = PARTS.map(|(name, _)| name))]
fn parts(bencher: Bencher, name: &str) {
    let (_, start) = PARTS.into_iter().find(|(part, _)| *part == name).unwrap();
    bencher.bench_local(start());
}
