//! What the middleware adds to a whole call over loopback HTTP, with and without it in turn.
//!
//! `cargo bench --features testing --bench end_to_end`

use std::time::{Duration, Instant};

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, WithSession, header};

const ROUNDS: usize = 100;
const CALLS: usize = 200;
const PROMPT: &str = r#"{"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gateway = Gateway::start()?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let without = ClientBuilder::new(http.clone()).build();
    let with = ClientBuilder::new(http)
        .with(OpencodeSessionMiddleware::new())
        .build();
    let session = Session::new();

    let mut calls = [vec![], vec![]];
    for round in 0..=ROUNDS {
        for call in 0..CALLS {
            // Both sides go first equally often.
            for side in [call % 2, (call + 1) % 2] {
                let taken = match side {
                    0 => measure(&without, &gateway, Some(&session)).await?,
                    _ => {
                        measure(&with, &gateway, None)
                            .with_session(session.clone())
                            .await?
                    }
                };
                // The first round is only a warm-up.
                if round > 0 {
                    calls[side].push(taken);
                }
            }
        }
        gateway.assert_every_request_in(&session);
        gateway.take_requests();
    }

    println!("| | calls/s | p50 | p99 |");
    println!("|---|---|---|---|");
    let medians =
        [("header inserted by hand", 0), ("with the middleware", 1)].map(|(name, side)| {
            let calls = &mut calls[side];
            calls.sort_unstable();
            let at = |share: f64| calls[(calls.len() as f64 * share) as usize].as_secs_f64() * 1e6;
            let rate = calls.len() as f64 / calls.iter().sum::<Duration>().as_secs_f64();
            println!(
                "| {name} | {rate:.0} | {:.1} µs | {:.1} µs |",
                at(0.5),
                at(0.99)
            );
            at(0.5)
        });
    println!("\nRatio of the medians: {:.3}", medians[1] / medians[0]);
    Ok(())
}

/// Returns how long a call takes.
async fn measure(
    client: &ClientWithMiddleware,
    gateway: &Gateway,
    by_hand: Option<&Session>,
) -> reqwest_middleware::Result<Duration> {
    let start = Instant::now();
    let mut request = client.post(gateway.url("/zen/go/v1/chat/completions"));
    if let Some(session) = by_hand {
        request = request.header(header::SESSION, session.id().as_str());
    }
    request
        .bearer_auth(Gateway::KEY)
        .body(PROMPT)
        .send()
        .await?
        .bytes()
        .await?;
    Ok(start.elapsed())
}
