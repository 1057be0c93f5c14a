//! Runs the command of `--check`.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitStatus;

use reqwest_opencode_session::SessionId;
use tokio::process::{Child, Command};

use crate::setup::{self, Place};
use crate::signals::{Signal, Signals};

/// How the command ended.
#[derive(Debug)]
pub enum Exit {
    NotStarted(io::Error),
    Ended {
        status: ExitStatus,
        /// Whether the command or the check was told to stop.
        stopped: bool,
    },
}

/// The command, and what it is told about the gateway.
pub struct Agent<'a> {
    pub command: &'a [OsString],
    pub place: Place<'a>,
    /// The key that its calls carry.
    pub key: &'a str,
}

/// A directory with the settings of clients. It is removed when this is dropped.
#[derive(Debug)]
pub struct Settings {
    directory: PathBuf,
    variables: Vec<(&'static str, PathBuf)>,
}

impl Settings {
    /// Writes the settings into a new directory, which nobody else may read.
    ///
    /// # Errors
    ///
    /// Returns an error if a file or a directory cannot be written.
    pub fn write(place: Place<'_>) -> io::Result<Self> {
        let name = format!("opencode-gateway-{}", SessionId::new());
        let builder = DirBuilder::new();
        #[cfg(unix)]
        let builder = {
            use std::os::unix::fs::DirBuilderExt;
            let mut builder = builder;
            builder.mode(0o700);
            builder
        };
        let mut settings = Self {
            directory: env::temp_dir().join(name),
            variables: Vec::new(),
        };
        builder.create(&settings.directory)?;
        for file in setup::files(place) {
            let path = settings.directory.join(file.path);
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(path, file.content)?;
            let named = settings.directory.join(file.named);
            settings.variables.push((file.variable, named));
        }
        Ok(settings)
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // A process that the command left behind may write there.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Agent<'_> {
    /// Runs the command with these settings until it ends.
    ///
    /// # Errors
    ///
    /// Returns an error if signals cannot be handled, or the command cannot be waited for.
    pub async fn run(&self, settings: Settings) -> io::Result<Exit> {
        let (program, arguments) = self
            .command
            .split_first()
            .ok_or(io::ErrorKind::InvalidInput)?;
        // Before the command starts: from now on, no signal ends the program without a report.
        let mut signals = Signals::new()?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(environment(self.place.origin, self.key))
            .envs(settings.variables.iter().cloned());
        // Tokens of another service, which SDKs would send along with the key, and pi instead of it.
        for name in ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_OAUTH_TOKEN"] {
            command.env_remove(name);
        }
        if self.place.key.is_some() {
            // It is a key of the real gateway, where a client may send it by itself.
            command.env_remove(setup::KEY_VARIABLE);
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Ok(Exit::NotStarted(error)),
        };
        let mut stopped = false;
        loop {
            tokio::select! {
                status = child.wait() => return Ok(Exit::Ended { status: status?, stopped }),
                signal = signals.next() => {
                    pass_on(signal, stopped, &mut child)?;
                    stopped = true;
                }
            }
        }
    }
}

/// Writes the command as one would type it, or the beginning of it.
impl fmt::Display for Agent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 100;
        let words = self.command.iter().map(|word| {
            let word = word.to_string_lossy();
            let plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
            match !word.is_empty() && word.chars().all(plain) {
                true => word.into_owned(),
                false => format!("'{}'", word.replace('\'', r"'\''")),
            }
        });
        let mut line = words.collect::<Vec<_>>().join(" ");
        line = line.replace(char::is_control, " ");
        if let Some((end, _)) = line.char_indices().nth(LONGEST) {
            line.truncate(end);
            line.push('…');
        }
        f.write_str(&line)
    }
}

fn pass_on(signal: Signal, again: bool, child: &mut Child) -> io::Result<()> {
    match signal {
        Signal::Interrupt if again => child.start_kill(),
        // A terminal also sends Ctrl-C to the command.
        Signal::Interrupt if io::stdin().is_terminal() => Ok(()),
        signal => send(signal, child),
    }
}

fn send(signal: Signal, child: &mut Child) -> io::Result<()> {
    #[cfg(unix)]
    {
        use rustix::process::{Pid, kill_process};
        let signal = match signal {
            Signal::Interrupt => rustix::process::Signal::INT,
            Signal::Terminate => rustix::process::Signal::TERM,
        };
        let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        // `None` if it has already ended.
        pid.map_or(Ok(()), |pid| Ok(kill_process(pid, signal)?))
    }
    #[cfg(windows)]
    {
        let Signal::Interrupt = signal;
        child.start_kill()
    }
}

/// Returns the variables that clients read, and no proxy for this machine.
fn environment(origin: &str, key: &str) -> Vec<(&'static str, OsString)> {
    let variables = setup::variables(origin, key).into_iter();
    let mut variables: Vec<(&str, OsString)> = variables
        .map(|(name, value)| (name, value.into()))
        .collect();
    for name in ["NO_PROXY", "no_proxy"] {
        let mut hosts = env::var_os(name).unwrap_or_default();
        if !hosts.is_empty() {
            hosts.push(",");
        }
        hosts.push("127.0.0.1,localhost,::1");
        variables.push((name, hosts));
    }
    variables
}

impl Exit {
    /// Returns the exit code that a shell would return.
    pub fn code(&self) -> u8 {
        match self {
            Self::NotStarted(error) if error.kind() == io::ErrorKind::NotFound => 127,
            Self::NotStarted(_) => 126,
            Self::Ended { status, .. } => match (status.code(), signal_of(*status)) {
                (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
                (None, Some(signal)) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
                (None, None) => u8::MAX,
            },
        }
    }

    /// Notes that the check was told to stop after the command had ended.
    pub fn stop(&mut self) {
        if let Self::Ended { stopped, .. } = self {
            *stopped = true;
        }
    }

    pub fn was_stopped(&self) -> bool {
        matches!(self, Self::Ended { stopped: true, .. })
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(error) if error.kind() == io::ErrorKind::NotFound => {
                f.write_str("the command was not found")
            }
            Self::NotStarted(error) => write!(f, "the command could not be run: {error}"),
            Self::Ended { status, .. } => match signal_of(*status) {
                Some(signal) => write!(f, "the command was killed by signal {signal}"),
                None => write!(f, "the command exited with {}", self.code()),
            },
        }
    }
}

fn signal_of(status: ExitStatus) -> Option<i32> {
    #[cfg(unix)]
    return std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(windows)]
    return status.code().and(None);
}
