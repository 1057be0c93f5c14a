//! Many conversations through one middleware, each with a scope, a turn and a request.

use std::process::{self, ExitCode};
use std::sync::Arc;

use futures::FutureExt;
use reqwest::Url;
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, WithSession};

use crate::Bar;
use crate::cases::{self, Headers, TARGET};
use crate::valgrind;

/// The argument that makes this program run conversations.
pub const CONVERSATIONS: &str = "conversations";

const COUNTS: [u64; 3] = [1, 1_000, 1_000_000];

/// Runs this many conversations, and exits before the client is dropped.
pub fn run(count: u64) -> ExitCode {
    let client = cases::client(vec![Arc::new(OpencodeSessionMiddleware::new())]);
    let url: Url = TARGET.parse().expect("it is a URL");
    for _ in 0..count {
        let request = cases::request(Headers::Four, url.clone());
        let call = client.execute(request).with_session(Session::new().turn());
        drop(call.now_or_never().expect("nothing waits"));
    }
    process::exit(0)
}

/// What this many conversations cost.
pub struct Conversations {
    count: u64,
    /// Includes making the session, the turn and the request.
    instructions_each: u64,
    bytes_held: u64,
}

pub fn measure() -> [Conversations; 3] {
    // All of the same length, because the program stores its arguments.
    let digits = |count: u64| format!("{count:07}");
    // For the first conversation of a process, everything is cold.
    let instructions =
        |count: u64| valgrind::profile(&[CONVERSATIONS, &digits(count)]).instructions;
    let bytes = |count: u64| valgrind::bytes_held(&[CONVERSATIONS, &digits(count)]);
    let (one, held_after_one) = (instructions(1), bytes(1));
    COUNTS.map(|count| Conversations {
        count,
        instructions_each: (instructions(count + 1) - one) / count,
        bytes_held: bytes(count + 1).saturating_sub(held_after_one),
    })
}

pub fn table(all: &[Conversations]) -> String {
    let mut table =
        "| conversations | instructions for each | bytes held after them |\n".to_owned();
    table += "|--:|--:|--:|\n";
    for Conversations {
        count,
        instructions_each,
        bytes_held,
    } in all
    {
        table += &format!("| {count} | {instructions_each} | {bytes_held} |\n");
    }
    table
}

pub fn bars(all: &[Conversations; 3]) -> [Bar; 2] {
    let [_, thousand, million] = all;
    [
        (
            "a million conversations: 1.02 × a thousand, each".to_owned(),
            million.instructions_each,
            thousand.instructions_each * 102 / 100,
        ),
        (
            "a million conversations: bytes held after them".to_owned(),
            million.bytes_held,
            0,
        ),
    ]
}
