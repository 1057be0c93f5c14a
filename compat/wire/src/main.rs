//! Checks whether the newest opencode and pi still send what `tests/fixtures/captures.jsonl`
//! contains.
//!
//! It installs them from npm into the target directory, holds those conversations with a loopback
//! gateway, and prints each difference: which headers, and which of their values are equal. Each
//! client has its own home directory, and reaches only the gateway.

mod client;
mod compare;
mod install;
mod opencode;
mod pi;
mod wire;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::timeout;

use crate::install::Installed;
use crate::wire::Wire;

/// Where the clients are installed, and where their home directories are.
const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/wire");

/// How long all the conversations of a client may take.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

#[tokio::main]
async fn main() -> ExitCode {
    let directory = Path::new(DIRECTORY);
    let installed = install::opencode(&directory.join("opencode")).await;
    let opencode = check("opencode", installed, opencode::hold).await;
    let installed = install::pi(&directory.join("pi")).await;
    let pi = check("pi", installed, pi::hold).await;
    for line in install::not_compared().await {
        println!("not compared: {line}");
    }
    match (opencode, pi) {
        // Neither client could be installed, or one of them stood out.
        (None, None) | (Some(false), _) | (_, Some(false)) => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Holds a client's conversations, and prints what stands out. Returns whether nothing did, or
/// `None` if the client cannot be installed.
async fn check(
    name: &str,
    installed: Result<Installed>,
    conversations: impl AsyncFnOnce(Installed, PathBuf) -> Result<Wire>,
) -> Option<bool> {
    let installed = match installed {
        Ok(installed) => installed,
        Err(error) => {
            println!("not compared: {name} cannot be installed or run: {error:#}");
            return None;
        }
    };
    println!("{name} {}", installed.version);
    let home = Path::new(DIRECTORY).join(format!("{name}-home"));
    let held = timeout(PATIENCE, conversations(installed, home)).await;
    let held = held.with_context(|| format!("not done after {PATIENCE:?}"));
    match held.and_then(|held| held) {
        Ok(wire) => Some(wire.report()),
        Err(error) => {
            println!("  not held: {error:#}");
            Some(false)
        }
    }
}
