//! Runs the program `opencode-gateway`.

use std::env;
use std::ffi::OsStr;
#[cfg(unix)]
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
#[cfg(unix)]
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The program with these arguments, without proxies or a key from the environment.
pub fn command<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_opencode-gateway"));
    command.args(arguments);
    for name in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "OPENCODE_API_KEY",
    ] {
        command.env_remove(name);
        command.env_remove(name.to_lowercase());
    }
    command.stdin(Stdio::null());
    command
}

/// A client without a proxy from the environment.
pub fn client() -> reqwest::blocking::Client {
    let builder = reqwest::blocking::Client::builder().no_proxy();
    builder.build().unwrap()
}

/// Runs the program until it exits.
pub fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    command(arguments).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The running program, on a free port. It is killed when this is dropped.
pub struct Program {
    /// `None` after it was waited for.
    child: Option<Child>,
    /// `None` after it was closed.
    stdout: Option<BufReader<Box<dyn Read + Send + Sync>>>,
    /// What it prints before the address of its page.
    pub greeting: String,
    pub origin: String,
}

impl Program {
    pub fn start<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        Self::started(command(arguments))
    }

    /// Starts it as a proxy to this upstream.
    pub fn proxy(upstream: &str) -> Self {
        Self::start(["--upstream", upstream])
    }

    /// Starts it on this address.
    pub fn listening(address: &str) -> Self {
        Self::spawn(command(["--listen", address]), Stream::Output)
    }

    /// Starts it with JSON on standard output.
    pub fn json() -> Self {
        Self::spawn(command(["--listen", "0", "--json"]), Stream::Error)
    }

    /// Starts it with JSON in this file.
    pub fn json_into(path: &Path) -> Self {
        let json = format!("--json={}", path.display());
        Self::spawn(command(["--listen", "0", &json]), Stream::Output)
    }

    pub fn started(mut command: Command) -> Self {
        command.args(["--listen", "0"]);
        Self::spawn(command, Stream::Output)
    }

    /// Starts it. `told` is the stream on which it prints the address of its page.
    fn spawn(mut command: Command, told: Stream) -> Self {
        command.stdout(Stdio::piped());
        if let Stream::Error = told {
            command.stderr(Stdio::piped());
        }
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        Self::reading(child, Box::new(stdout), told)
    }

    /// Starts it with a terminal of this many columns as standard output.
    #[cfg(unix)]
    pub fn in_terminal(columns: u16) -> Self {
        let (screen, terminal) = terminal(columns);
        let mut command = command(["--listen", "0"]);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        let child = command.stdout(terminal).spawn().unwrap();
        Self::reading(child, Box::new(screen), Stream::Output)
    }

    /// Reads the address of its page from the stream `told`.
    fn reading(mut child: Child, stdout: Box<dyn Read + Send + Sync>, told: Stream) -> Self {
        let mut stdout = BufReader::new(stdout);
        let (greeting, origin) = match told {
            Stream::Output => origin(&mut stdout),
            // Keeps reading, so that a full pipe never blocks the program.
            Stream::Error => {
                let mut stderr = BufReader::new(child.stderr.take().unwrap());
                let told = origin(&mut stderr);
                thread::spawn(move || while line_of(&mut stderr).is_some() {});
                told
            }
        };
        Self {
            child: Some(child),
            stdout: Some(stdout),
            greeting,
            origin,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    pub fn address(&self) -> &str {
        self.origin.strip_prefix("http://").unwrap()
    }

    /// Reads its output up to the next line that meets a condition.
    pub fn line(&mut self, meets: impl Fn(&str) -> bool) -> String {
        loop {
            let line = line_of(self.stdout.as_mut().unwrap())
                .expect("the output ended before such a line");
            if meets(&line) {
                return line;
            }
        }
    }

    /// Reads its output up to the next line of a call.
    pub fn call_line(&mut self) -> String {
        self.line(|line| line.trim_start().starts_with('#'))
    }

    /// Fetches data of its page.
    pub fn data(&self, path: &str) -> Value {
        let response = client().get(self.url(path)).send().unwrap();
        serde_json::from_str(&response.text().unwrap()).unwrap()
    }

    /// Waits until the call with this number meets a condition.
    pub fn call(&self, number: u64, meets: impl Fn(&Value) -> bool) -> Value {
        self.data_once(&format!("/api/calls/{number}"), meets)
    }

    /// Waits until data of its page meets a condition.
    pub fn data_once(&self, path: &str, meets: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let data = self.data(path);
            if meets(&data) {
                return data;
            }
            assert!(Instant::now() < until, "it is still {data}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends it a signal, waits until it exits, and returns the rest of its output.
    #[cfg(unix)]
    pub fn end_by(mut self, signal: rustix::process::Signal) -> (ExitStatus, String) {
        let mut child = self.child.take().unwrap();
        let id = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(id, signal).unwrap();
        let mut rest = String::new();
        let stdout = self.stdout.as_mut().unwrap();
        stdout.read_to_string(&mut rest).unwrap();
        (child.wait().unwrap(), rest)
    }

    /// Closes the pipe of its standard output.
    pub fn close_output(&mut self) {
        self.stdout = None;
    }

    /// Waits until it exits.
    pub fn wait_with_output(mut self) -> Output {
        self.child.take().unwrap().wait_with_output().unwrap()
    }
}

/// A terminal with this many columns: the user's side, and the program's.
#[cfg(unix)]
pub fn terminal(columns: u16) -> (File, OwnedFd) {
    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{Winsize, tcsetwinsize};

    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let path = ptsname(&screen, vec![]).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let terminal = rustix::fs::open(path, flags, Mode::empty()).unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&terminal, size).unwrap();
    (screen.into(), terminal)
}

enum Stream {
    Output,
    Error,
}

/// Returns what the program prints before the address of its page, and that address.
fn origin(lines: &mut impl BufRead) -> (String, String) {
    let mut greeting = String::new();
    loop {
        let line = line_of(lines).expect("the output ended before the address of the page");
        if let Some(origin) = line.trim().strip_prefix("page") {
            return (greeting, origin.trim().to_owned());
        }
        greeting.push_str(&line);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have exited on its own.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn line_of(stdout: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let length = stdout.read_line(&mut line).unwrap();
    (length > 0).then_some(line)
}

/// The body of a call: a system prompt and the messages, by turns of user and assistant.
pub fn chat(system: &str, said: &[&str]) -> Value {
    let mut messages = vec![json!({"role": "system", "content": system})];
    for (at, text) in said.iter().enumerate() {
        let role = if at % 2 == 0 { "user" } else { "assistant" };
        messages.push(json!({"role": role, "content": text}));
    }
    json!({"model": "glm-5.2", "messages": messages})
}

/// The path of this test executable.
pub fn this_executable() -> String {
    env::current_exe()
        .unwrap()
        .into_os_string()
        .into_string()
        .unwrap()
}
