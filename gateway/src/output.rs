//! Where lines go: to the terminal, or to a file of JSON.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, LineWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use jiff::tz::TimeZone;
use reqwest_opencode_session::testing::SeenRequest;

use crate::json;
use crate::options::Options;
use crate::terminal;

/// Where each call is written.
pub enum Output {
    /// A line for people to read.
    Terminal {
        zone: TimeZone,
        writer: Box<dyn Write + Send>,
        /// Whether no line has been written yet.
        is_new: bool,
    },
    /// A line of JSON.
    Json(Box<dyn Write + Send>),
    /// Nowhere: only the result is printed.
    Nothing,
}

impl Output {
    pub fn of(options: &Options) -> Result<Self> {
        match &options.json {
            Some(path) => Self::json(path),
            None if options.check => Ok(Self::Nothing),
            None => Ok(Self::terminal()),
        }
    }

    fn terminal() -> Self {
        Self::Terminal {
            zone: TimeZone::system(),
            writer: Box::new(anstream::stdout()),
            is_new: true,
        }
    }

    /// Writes JSON to this file, or to standard output for `-`.
    fn json(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Json(Box::new(io::stdout())));
        }
        let file = File::create(path).with_context(|| {
            let directory = path
                .parent()
                .filter(|directory| !directory.as_os_str().is_empty());
            match directory.filter(|directory| !directory.is_dir()) {
                Some(directory) => format!(
                    "cannot write {}; create the directory {} first",
                    path.display(),
                    directory.display()
                ),
                None => format!("cannot write {}", path.display()),
            }
        })?;
        Ok(Self::Json(Box::new(LineWriter::new(file))))
    }

    /// Writes a call that has ended.
    pub fn call(&mut self, request: &SeenRequest) -> io::Result<()> {
        match self {
            Self::Terminal {
                zone,
                writer,
                is_new,
            } => {
                if std::mem::take(is_new) {
                    writeln!(writer, "\n{}", terminal::heading(width()))?;
                }
                writeln!(writer, "{}", terminal::line(request, zone, width()))
            }
            Self::Json(writer) => writeln!(writer, "{}", json::of_call(request)),
            Self::Nothing => Ok(()),
        }
    }
}

/// Returns the width of the terminal, or `None` if standard output is not a terminal.
pub fn width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let (width, _) = terminal_size::terminal_size()?;
    Some(width.0.into())
}

/// Where everything else is printed, so that it does not mix with lines of JSON, or with the output
/// of a command.
#[derive(Debug, Clone, Copy)]
pub enum Voice {
    Stdout,
    Stderr,
}

impl Voice {
    pub fn of(options: &Options) -> Self {
        match options.check || options.json.is_some() {
            true => Self::Stderr,
            false => Self::Stdout,
        }
    }

    /// Prints a text, and ignores an error: there may be no reader.
    pub fn say(self, text: &impl fmt::Display) {
        let _ = match self {
            Self::Stdout => write!(anstream::stdout(), "{text}"),
            Self::Stderr => write!(anstream::stderr(), "{text}"),
        };
    }
}
