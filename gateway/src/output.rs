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
use crate::rules::Rules;
use crate::terminal::{self, Lines};

/// Where each call is written.
#[derive(Default)]
pub struct Output {
    /// Lines for people to read.
    terminal: Option<Terminal>,
    /// Lines of JSON.
    json: Option<Box<dyn Write + Send>>,
    rules: Rules,
}

struct Terminal {
    lines: Lines,
    writer: Box<dyn Write + Send>,
    /// Whether no line has been written yet.
    is_new: bool,
}

impl Output {
    pub fn of(options: &Options) -> Result<Self> {
        let json = options.json.as_deref().map(json_into).transpose()?;
        // A check prints only its result.
        let terminal = (!options.check && !has_json_on_stdout(options)).then(|| Terminal {
            lines: Lines::new(TimeZone::system()),
            writer: Box::new(anstream::stdout()),
            is_new: true,
        });
        Ok(Self {
            terminal,
            json,
            rules: Rules::new(&options.allow).denying(&options.deny),
        })
    }

    /// Writes a call that has ended.
    pub fn call(&mut self, request: &SeenRequest) -> io::Result<()> {
        if let Some(writer) = &mut self.json {
            writeln!(writer, "{}", json::of_call(request, &self.rules))?;
        }
        let Some(Terminal {
            lines,
            writer,
            is_new,
        }) = &mut self.terminal
        else {
            return Ok(());
        };
        if std::mem::take(is_new) {
            writeln!(writer, "\n{}", terminal::heading(width()))?;
        }
        writeln!(writer, "{}", lines.line(request, &self.rules, width()))
    }
}

fn has_json_on_stdout(options: &Options) -> bool {
    options.json.as_deref() == Some(Path::new("-"))
}

/// Writes JSON to this file, or to standard output for `-`.
fn json_into(path: &Path) -> Result<Box<dyn Write + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdout()));
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
    Ok(Box::new(LineWriter::new(file)))
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
        match options.check || has_json_on_stdout(options) {
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
