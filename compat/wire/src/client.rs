//! A client, run as its users run it, in its own home directory.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::install::Installed;

/// How long one call of a client may take.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct Client {
    pub installed: Installed,
    /// The directory of its settings and of its conversations.
    directory: PathBuf,
    /// What it is told in its environment.
    environment: Vec<(&'static str, String)>,
    proxy: Proxy,
}

impl Client {
    /// A client with an empty home.
    pub async fn new(
        installed: Installed,
        directory: PathBuf,
        environment: Vec<(&'static str, String)>,
    ) -> Result<Self> {
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(directory.join("home"))?;
        let proxy = Proxy::start().await?;
        Ok(Self {
            installed,
            directory,
            environment,
            proxy,
        })
    }

    /// The places that it tried to reach besides the gateway.
    pub fn refused(&self) -> Vec<String> {
        self.proxy
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn home(&self) -> PathBuf {
        self.directory.join("home")
    }

    fn command(&self, program: &Path, folder: &str) -> Result<Command> {
        let folder = self.directory.join(folder);
        fs::create_dir_all(&folder)?;
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            // The proxy refuses everything that is not on loopback.
            .env("NO_PROXY", "127.0.0.1,localhost")
            .env("no_proxy", "127.0.0.1,localhost");
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env(name, &self.proxy.1);
        }
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(folder)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    fn own(&self, folder: &str, arguments: &[&str]) -> Result<Command> {
        let [program, first @ ..] = &self.installed.command[..] else {
            bail!("there is no program");
        };
        let mut command = self.command(program, folder)?;
        command.args(first).args(arguments);
        Ok(command)
    }

    /// Runs it until it exits or its time is up.
    pub async fn run(&self, folder: &str, arguments: &[&str]) -> Result<()> {
        done(self.own(folder, arguments)?).await
    }

    /// Starts its server, and returns the origin on which it listens.
    pub async fn serve(&self, folder: &str, arguments: &[&str]) -> Result<(Child, String)> {
        let mut command = self.own(folder, arguments)?;
        let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = command.spawn()?;
        let origin = found(&mut server, |line| {
            let at = line.find("http://127.0.0.1:")?;
            Some(line[at..].trim().to_owned())
        });
        let origin = origin.await?;
        Ok((server, origin))
    }

    /// Writes it one line of JSON, and returns the answer to this command.
    pub async fn ask(&self, folder: &str, arguments: &[&str], question: &Value) -> Result<Value> {
        let mut command = self.own(folder, arguments)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = command.stderr(Stdio::null()).spawn()?;
        let mut input = client.stdin.take().context("it has no input")?;
        input.write_all(format!("{question}\n").as_bytes()).await?;
        let answer = found(&mut client, |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["command"] == question["type"]).then_some(line)
        });
        let answer = answer.await?;
        client.kill().await?;
        Ok(answer)
    }

    /// Makes a repository without a commit, so that the client does not look above its folder.
    pub async fn repository(&self, folder: &str) -> Result<()> {
        self.git(folder, &["init", "--quiet"]).await
    }

    /// Makes the first commit of a repository.
    pub async fn commit(&self, folder: &str) -> Result<()> {
        for (name, value) in [
            ("user.name", "wire"),
            ("user.email", "wire@localhost"),
            // Maintenance would run on in the background.
            ("maintenance.auto", "false"),
        ] {
            self.git(folder, &["config", name, value]).await?;
        }
        // A different commit for each folder, so that each is its own project.
        let commit = ["commit", "--quiet", "--allow-empty", "-m", folder];
        self.git(folder, &commit).await
    }

    async fn git(&self, folder: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.command(Path::new("git"), folder)?;
        command.args(arguments);
        done(command).await
    }
}

/// Reads a program's output until something is found in it.
async fn found<T>(program: &mut Child, find: impl Fn(&str) -> Option<T>) -> Result<T> {
    let output = program.stdout.as_mut().context("it has no output")?;
    let mut lines = BufReader::new(output).lines();
    let found = async {
        while let Some(line) = lines.next_line().await? {
            if let Some(found) = find(&line) {
                return Ok(found);
            }
        }
        bail!("it ended before it said what was asked")
    };
    timeout(PATIENCE, found).await?
}

/// Waits until a command is done, or ends it.
async fn done(mut command: Command) -> Result<()> {
    let output = timeout(PATIENCE, command.output()).await;
    let output = output.with_context(|| format!("not done after {PATIENCE:?}"))??;
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.trim().lines().next_back().unwrap_or_default();
    ensure!(output.status.success(), "{}: {last}", output.status);
    Ok(())
}

/// A proxy that takes note of where it should lead, and leads nowhere.
#[derive(Debug)]
struct Proxy(Arc<Mutex<Vec<String>>>, String);

impl Proxy {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let origin = format!("http://{}", listener.local_addr()?);
        let asked = Arc::new(Mutex::new(vec![]));
        let shared = asked.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(note(connection, shared.clone()));
            }
        });
        Ok(Self(asked, origin))
    }
}

async fn note(connection: TcpStream, asked: Arc<Mutex<Vec<String>>>) {
    let mut line = String::new();
    let mut connection = BufReader::new(connection);
    // Whoever says nothing asks for nothing.
    let _ = timeout(PATIENCE, connection.read_line(&mut line)).await;
    let Some(place) = line.split_whitespace().nth(1).map(str::to_owned) else {
        return;
    };
    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    if !asked.contains(&place) {
        asked.push(place);
    }
}
