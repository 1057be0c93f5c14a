//! Shows which of an agent's calls miss their session: a test gateway that answers like
//! OpenCode Zen and Go, or a proxy of the real one, with a line and a page for each call.

mod add_session;
mod answer;
mod check;
mod command;
mod copy;
mod decode;
mod exchange;
mod journal;
mod json;
mod options;
mod output;
mod page;
mod rules;
mod server;
mod service;
mod setup;
mod signals;
mod summary;
mod terminal;
mod upstream;
mod watch;
mod welcome;

use std::env;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::{self, ExitCode};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use clap::error::ErrorKind;
use reqwest_opencode_session::SessionId;
use reqwest_opencode_session::testing::Gateway;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::sync::watch::Receiver;

use crate::check::{Check, Left};
use crate::command::{Agent, Settings};
use crate::journal::Journal;
use crate::options::{Options, Upstream};
use crate::output::{Output, Voice};
use crate::page::Page;
use crate::rules::Rules;
use crate::server::Server;
use crate::service::Service;
use crate::setup::Place;
use crate::signals::Signals;
use crate::summary::Summary;
use crate::watch::{Watch, Watching};
use crate::welcome::Welcome;

/// The exit code if the program itself fails, the same as that of `env` and `timeout`.
const FAILURE: u8 = 125;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) if error.use_stderr() => {
            complain(&one_line(&error));
            return FAILURE.into();
        }
        Err(help) => {
            // A pipe may be closed before all of it is written.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    match run(options) {
        Ok(code) => code.into(),
        Err(error) => {
            complain(&format!("error: {error:#}"));
            FAILURE.into()
        }
    }
}

fn complain(message: &str) {
    let _ = writeln!(anstream::stderr(), "{message}");
}

/// Returns what is wrong with the arguments, without what `--help` says better.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim);
    let lines =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let problem = lines.join(" ");
    // Nothing comes after -- but a command.
    let problem = problem.split(" tip: to pass ").next().unwrap_or_default();
    let problem = problem.replace(" tip: ", "; tip: ");
    let has = |name: &str| env::args_os().any(|argument| argument == name);
    let hint = match error.kind() {
        ErrorKind::UnknownArgument if has("--check") && !has("--") => {
            format!("; a command comes after --, {}", options::EXAMPLE_OF_CHECK)
        }
        ErrorKind::UnknownArgument if has("--json") => {
            "; a file is named as --json=FILE".to_owned()
        }
        _ => String::new(),
    };
    format!("{problem}{hint}; for more information, try --help")
}

#[tokio::main]
async fn run(options: Options) -> Result<u8> {
    if let Some(client) = options.setup {
        let origin = setup::origin(options.address());
        let key = options.upstream.is_none().then_some(Gateway::KEY);
        let origin = &origin;
        Voice::Stdout.say(&client.setup(Place { origin, key }));
        return Ok(0);
    }
    // The arguments are checked first, before anything is started.
    let rules = Rules::new(&options.allow).denying(&options.deny);
    let output = Output::of(&options, rules.clone())?;
    let key = options.key_of_check()?;
    let listener = listen(options.address()).await?;
    let address = listener.local_addr()?;
    if let Some(upstream) = &options.upstream {
        ensure!(
            !upstream.is_at(address),
            "the upstream {upstream} is this program itself; use the real gateway, such as \
            https://opencode.ai"
        );
    }
    let origin = setup::origin(address);
    let service = Service::start(&options, &rules)?;

    let voice = Voice::of(&options);
    let own_key = service.gateway.as_ref().map(|_| Gateway::KEY);
    let welcome = Welcome {
        address,
        origin: &origin,
        upstream: options.upstream.as_ref(),
        adds: options.add_session,
        proxy: service.forward.proxy(),
        key: own_key,
    };
    if !options.check {
        voice.say(&welcome);
    }
    let journal = Journal::new(service.log.clone(), rules);
    let (changes, _) = broadcast::channel(16);
    let page = Page {
        journal: journal.clone(),
        changes: changes.clone(),
        origin: origin.clone(),
        upstream: options.upstream.as_ref().map(Upstream::to_string),
        adds: options.add_session,
        key: own_key.map(str::to_owned),
        session: SessionId::new(),
    };
    let under_way = service.forward.under_way();
    let server = Server {
        page: page.router(),
        forward: service.forward,
        names: options.allow_host.clone(),
    };
    tokio::spawn(server.run(listener));
    let running = Running {
        watching: Watch::start(journal.clone(), output, changes),
        journal,
        voice,
    };
    match &key {
        None => running.serve().await,
        Some(key) => {
            let place = Place {
                origin: &origin,
                key: own_key,
            };
            let settings = Settings::write(place).with_context(|| {
                let directory = env::temp_dir();
                format!("cannot write clients' settings in {}", directory.display())
            })?;
            let agent = Agent {
                command: &options.command,
                place,
                key,
            };
            running.check(&agent, settings, under_way).await
        }
    }
}

/// The program while it serves calls.
struct Running {
    journal: Journal,
    watching: Watching,
    voice: Voice,
}

impl Running {
    /// Serves until a signal comes, or until nobody reads the output any more.
    async fn serve(mut self) -> Result<u8> {
        let mut signals = Signals::new().context("cannot wait for Ctrl-C")?;
        tokio::select! {
            error = self.watching.failed() => match error.kind() {
                io::ErrorKind::BrokenPipe => return Ok(0),
                _ => return Err(anyhow!(error).context("cannot write a call")),
            },
            _ = signals.next() => {}
        }
        tokio::select! {
            finished = self.watching.finish() => drop(finished?),
            // Its reader may have stopped reading, so the rest of the output is not waited for.
            _ = signals.next() => process::exit(130),
        }
        self.voice
            .say(&format!("\n{}", Summary(self.journal.totals())));
        Ok(0)
    }

    /// Runs the command of `--check`, and judges its calls.
    async fn check(
        self,
        agent: &Agent<'_>,
        settings: Settings,
        under_way: Receiver<usize>,
    ) -> Result<u8> {
        self.voice.say(&format!(
            "opencode-gateway: running {agent}\nopencode-gateway: see its calls at {}\n",
            agent.place.origin
        ));
        let end = agent.run(settings).await;
        let before_end = self.journal.last();
        let mut end = end.with_context(|| format!("cannot wait for {agent}"))?;
        let mut signals = Signals::new().context("cannot wait for Ctrl-C")?;
        let finished = async { (check::settle(under_way).await, self.watching.finish().await) };
        let (left, (last, unwritten), stopped) = tokio::select! {
            (left, finished) = finished => (left, finished?, false),
            _ = signals.next() => (Left::default(), (self.journal.last(), None), true),
        };
        if stopped {
            end.stop();
        }
        if let Some(error) = &unwritten {
            self.voice
                .say(&format!("error: cannot write all calls: {error}\n"));
        }
        let check = Check {
            journal: &self.journal,
            end,
            origin: agent.place.origin,
            before_end,
            last,
            left,
            unwritten,
        };
        self.voice.say(&check);
        if stopped {
            // Its reader may have stopped reading, so the rest of the output is not waited for.
            process::exit(check.code().into());
        }
        Ok(check.code())
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there, perhaps another opencode-gateway; stop it, or \
                choose another port with --listen"
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address; choose another with --listen"
            }
            io::ErrorKind::PermissionDenied => "choose a port above 1023 with --listen",
            _ => {
                let problem = format!("cannot listen on {address}; choose another with --listen");
                return anyhow!(error).context(problem);
            }
        };
        anyhow!("cannot listen on {address}: {hint}")
    })
}
