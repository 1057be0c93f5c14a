//! The newest official SDKs of OpenAI, Anthropic and Google, unmodified, with the gateway of
//! `testing`: on both families of addresses, whole, streamed and with tools, and refused without a
//! session. The scripts that use them are in `sdk/`.
//!
//! They are installed from PyPI and npm into the target directory. If a registry or an interpreter
//! is missing, a line says so and the test is skipped.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use std::{fs, io};

use reqwest_opencode_session::testing::{Gateway, Reply, SeenRequest};
use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sdk");

/// An empty directory for one of the tests.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // It may not exist yet.
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Runs a command until it exits. If it fails, the error contains its standard error.
async fn run(
    program: impl AsRef<OsStr>,
    arguments: &[&str],
    directory: &Path,
) -> Result<Output, String> {
    let name = program.as_ref().to_string_lossy().into_owned();
    let command = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env("NO_PROXY", "127.0.0.1")
        .env("no_proxy", "127.0.0.1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(Duration::from_secs(300), command).await;
    let output = output.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} {arguments:?}: {}\n{text}", output.status))
}

/// Prints a line that is visible even if the test passes.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A gateway whose model uses the clock once for each question.
fn gateway() -> Gateway {
    let gateway = Gateway::start().unwrap();
    let asks_the_time = |call: &SeenRequest| {
        let body = call.body.as_deref().unwrap_or_default();
        !call.tools.is_empty() && !String::from_utf8_lossy(body).contains("It is noon.")
    };
    let tool = Reply::ToolCall {
        name: "clock".to_owned(),
        arguments: json!({"zone": "UTC"}),
    };
    gateway.reply_to(asks_the_time, tool);
    gateway
}

/// Runs a script with its own gateway, and asserts that the gateway saw what it should.
async fn hold(interpreter: &Path, script: &Path) {
    let gateway = gateway();
    let arguments = [script.to_str().unwrap(), &gateway.url(""), Gateway::KEY];
    let directory = script.parent().unwrap();
    let ran = run(interpreter, &arguments, directory).await;
    let output = ran.unwrap_or_else(|error| panic!("{error}"));
    // An SDK prints a warning if it does not like an answer.
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert_eq!(warnings, "", "{}", script.display());

    let (mut held, mut missed, mut free) = (0, 0, 0);
    for request in gateway.requests() {
        let is_free = request.model.as_deref() == Some("kimi-k3-free");
        let (count, refused) = match request.session {
            Some(_) if is_free => (&mut free, Some("FreeTierError")),
            Some(_) => (&mut held, None),
            None if request.path.contains("/go/") => (&mut missed, Some("MissingSessionID")),
            None => (&mut held, None),
        };
        *count += 1;
        assert_eq!(request.error.as_deref(), refused, "{request}");
        assert_eq!(request.status.unwrap().is_success(), refused.is_none());
        // The SDKs that stop reading at the end of a stream have the whole answer.
        let is_whole = request.prompt_tokens > 0 && request.output_tokens > 0;
        assert_eq!(
            is_whole && request.cost.is_some(),
            refused.is_none(),
            "{request}"
        );
    }
    assert!(
        held >= 20 && missed >= 2 && free >= 6,
        "{held}, {missed}, {free}"
    );
    gateway.assert_conversations_keep_their_session();
}

#[tokio::test]
async fn the_sdks_for_python_are_served() {
    let directory = directory("sdk-python");
    let python = directory.join("bin/python");
    let packages = ["openai", "anthropic", "google-genai"];
    let install = async {
        run("python3", &["-m", "venv", "."], &directory).await?;
        let mut arguments = vec!["-m", "pip", "install", "--quiet"];
        arguments.extend(packages);
        run(&python, &arguments, &directory).await?;
        run(&python, &["-m", "pip", "freeze"], &directory).await
    };
    let installed = match install.await {
        Ok(installed) => String::from_utf8(installed.stdout).unwrap(),
        Err(error) => return say(&format!("skipped: no SDKs for Python: {error}")),
    };
    let versions: Vec<_> = installed
        .lines()
        .filter(|line| {
            packages
                .iter()
                .any(|name| line.starts_with(&format!("{name}==")))
        })
        .collect();
    say(&format!("SDKs for Python: {}", versions.join(", ")));
    for script in ["openai_sdk.py", "anthropic_sdk.py", "google_sdk.py"] {
        hold(&python, &Path::new(SCRIPTS).join(script)).await;
    }
}

#[tokio::test]
async fn the_sdks_for_javascript_are_served() {
    let directory = directory("sdk-javascript");
    fs::write(directory.join("package.json"), "{}").unwrap();
    let packages = ["openai", "@anthropic-ai/sdk", "@google/genai"];
    let install = async {
        run("node", &["--version"], &directory).await?;
        let mut arguments = vec!["install", "--silent", "--no-audit", "--no-fund"];
        arguments.extend(packages);
        run("npm", &arguments, &directory).await
    };
    if let Err(error) = install.await {
        return say(&format!("skipped: no SDKs for JavaScript: {error}"));
    }
    let versions: Vec<_> = packages
        .iter()
        .map(|name| {
            let manifest = directory
                .join("node_modules")
                .join(name)
                .join("package.json");
            let manifest = fs::read_to_string(manifest).unwrap();
            let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
            format!("{name} {}", manifest["version"].as_str().unwrap())
        })
        .collect();
    say(&format!("SDKs for JavaScript: {}", versions.join(", ")));
    for script in ["openai.mjs", "anthropic.mjs", "google.mjs"] {
        // Node.js looks for modules next to the script.
        let copy = directory.join(script);
        fs::copy(Path::new(SCRIPTS).join(script), &copy).unwrap();
        hold(Path::new("node"), &copy).await;
    }
}
