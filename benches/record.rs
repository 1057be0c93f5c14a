//! What it costs to judge a call: the time before and under the lock of the log, and the memory that
//! each call is remembered with.
//!
//! `cargo bench --features testing --bench record`

use std::fs;
use std::time::{Duration, Instant};

use http::{Request, StatusCode};
use reqwest_opencode_session::testing::Limits;
use reqwest_opencode_session::testing::record::{Answer, Log};
use serde_json::json;

/// As many as a log remembers by default.
const CALLS: usize = 20_000;
const MEASURED: usize = 2_000;

fn main() {
    let before = resident();
    let log = Log::with_limits(Limits::default().requests(1).bodies(0).prompts(CALLS));
    let mut words = Words(1);
    for _ in 0..CALLS {
        call(&log, &mut words, 1 << 10);
    }
    let remembered = resident().zip(before);
    if let Some((after, before)) = remembered {
        let each = after.saturating_sub(before) / CALLS;
        println!("{CALLS} calls are remembered with {each} bytes each");
    }
    println!(
        "\n| a call of | read, before the lock | judged, under the lock | answer | \n|--:|--:|--:|--:|"
    );
    for kib in [1, 10, 100, 1000] {
        let measured = MEASURED.min(20_000 / kib);
        let mut times = [(); 3].map(|()| vec![]);
        for _ in 0..measured {
            let taken = call(&log, &mut words, kib << 10);
            times
                .iter_mut()
                .zip(taken)
                .for_each(|(times, taken)| times.push(taken));
        }
        let [read, judged, answer] = times.map(|mut times| {
            times.sort_unstable();
            times[times.len() / 2].as_nanos() as f64 / 1e3
        });
        println!("| {kib} KiB | {read:.1} µs | {judged:.1} µs | {answer:.1} µs |");
    }
}

/// Makes a call that continues nothing, and returns how long its steps take.
fn call(log: &Log, words: &mut Words, bytes: usize) -> [Duration; 3] {
    let session = words.take(16);
    let messages = json!([{"role": "user", "content": words.take(bytes)}]);
    let body = json!({"model": "kimi-k3", "messages": messages}).to_string();
    let request = Request::post("/zen/go/v1/chat/completions");
    let request = request.header("x-opencode-session", session.replace(' ', "-"));
    let (head, ()) = request.body(()).expect("it is a request").into_parts();
    let mut answer = Answer::default();
    answer.text = Some(words.take(1 << 10));

    let start = Instant::now();
    let number = log.record(&head, body);
    let read = start.elapsed();
    let start = Instant::now();
    log.answer(number, &Answer::with_status(StatusCode::OK));
    let judged = start.elapsed();
    let start = Instant::now();
    log.answer(number, &answer);
    [read, judged, start.elapsed()]
}

/// Words that are never the same twice.
struct Words(u64);

impl Words {
    fn take(&mut self, bytes: usize) -> String {
        let mut text = String::new();
        while text.len() < bytes {
            // SplitMix64
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let letters = (0..3 + bits % 6).map(|at| b'a' + (bits >> (8 * at)) as u8 % 26);
            text.extend(letters.map(char::from));
            text.push(' ');
        }
        text.truncate(bytes);
        text
    }
}

/// Returns how many bytes of memory this process uses, where that can be read.
fn resident() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: usize = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}
