//! A process that does one job: `worker BASE_URL KEY`. It reads the job from standard input, and
//! writes what is left of it to standard output.

use std::env::args;
use std::io::{stdin, stdout};

use anyhow::{Context, Result};
use reqwest_opencode_session_shapes::after::job_queue::Worker;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = args().skip(1);
    let (base_url, key) = args.next().zip(args.next()).context("BASE_URL KEY")?;
    let worker = Worker::new(&base_url, &key)?;
    let left = worker.work(serde_json::from_reader(stdin())?).await?;
    Ok(serde_json::to_writer(stdout(), &left)?)
}
