//! The arguments.

#![allow(rustdoc::bare_urls, reason = "these comments are the text of `--help`")]

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use http::uri::{Authority, Scheme};
use http::{StatusCode, Uri};
use reqwest_opencode_session::testing::{Fault, Gateway, Reply};
use serde_json::Value;

const EXAMPLES: &str = "\
Examples:
  opencode-gateway
      A gateway on this machine. It prints its page, its base URLs and its key, and each call as it
      comes. It refuses what OpenCode Go refuses: first of all, a call without a session.

  OPENAI_BASE_URL=http://127.0.0.1:8787/zen/go/v1 OPENAI_API_KEY=loopback-key python my_agent.py
      Your agent calls it, from another terminal.

  opencode-gateway --upstream https://opencode.ai
      The real gateway behind it: what your agent really caches, and what it pays. Calls go on as
      they came, with your own key, which is never shown or stored.

  opencode-gateway --check -- npm test
      For your CI. It runs the command with the base URLs and keys of the OpenAI, Anthropic and
      Google SDKs in its environment, and fails where a call misses or changes its session.

  opencode-gateway --fail 503 --reply 'tool:get_weather={\"city\":\"Oslo\"}' --reply 'It rains.'
      One failure, then a tool's call, then an answer: see in which session your agent tries again.

Exit status of --check:
  1    a call had no session, or changed it
  2    no call was seen, or not every call could be judged and counted
  125  the gateway could not start: a bad argument, or an address in use; or not write all calls
  126  the command could not be run
  127  there is no such command
  130  the check was stopped before its end, by Ctrl-C or a signal
  else the command's own, which is 128 and its number where a signal ended it

Environment: HTTPS_PROXY, ALL_PROXY and NO_PROXY count for --upstream, and for nothing else.
NO_COLOR turns colours off. On Linux, SSL_CERT_FILE names the certificates that are trusted.";

/// Shows which calls of an agent miss their session.
///
/// OpenCode Zen and Go route a conversation to one provider by the header `x-opencode-session`. Point
/// your client at this gateway, whatever its language: calls appear as they come, and those without
/// a session, or with another one than before, stand out in red, with the reason. Its page in the
/// browser shows each conversation, and each call with its headers.
#[derive(Debug, Parser)]
#[command(name = "opencode-gateway", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Options {
    /// Where to listen: a port, or an address with a port [default: 127.0.0.1:8787, and with
    /// --check a free port]
    #[arg(short, long, value_name = "ADDRESS", value_parser = listen)]
    pub listen: Option<SocketAddr>,

    /// Another name that clients may call this machine by, such as host.docker.internal; it is
    /// refused otherwise, so that no web page can read the calls
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,

    /// Send each call on to the real gateway, such as https://opencode.ai, and only look at it
    #[arg(long, value_name = "URL", value_parser = Upstream::parse)]
    pub upstream: Option<Upstream>,

    /// Take this key, too, besides loopback-key
    #[arg(long, conflicts_with = "upstream")]
    pub key: Vec<String>,

    /// Know these models alone, separated by commas; any other one is refused [default: all]
    #[arg(
        long,
        value_name = "MODEL",
        value_delimiter = ',',
        conflicts_with = "upstream"
    )]
    pub models: Vec<String>,

    /// Let the next call go wrong: a status such as 503, `rate-limit:SECONDS`, `go-limit`,
    /// `free-limit`, `delay:SECONDS`, `close` (no answer), `cut` (half an answer) or
    /// `redirect:URL`; before it, how often: `3x503`. Several wait in line
    #[arg(long, value_name = "FAULT", value_parser = Fail::parse, conflicts_with = "upstream")]
    pub fail: Vec<Fail>,

    /// Answer the next call with this text, or with `tool:NAME=ARGUMENTS`, a call of a tool.
    /// Several wait in line. `title:TEXT` answers each call that asks for a title
    #[arg(long, value_name = "REPLY", value_parser = Answer::parse, conflicts_with = "upstream")]
    pub reply: Vec<Answer>,

    /// Run the command after `--`, and fail where one of its calls misses or changes its session
    #[arg(long)]
    pub check: bool,

    /// Take a conversation that goes on in a new session for a fork, which is right
    #[arg(long)]
    pub allow_forks: bool,

    /// Print a line of JSON for each call, on standard output or into a file
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    pub json: Option<PathBuf>,

    /// How many calls to keep for the page; those that stand out are dropped last
    #[arg(long, value_name = "CALLS", default_value = "20000")]
    pub keep: NonZeroUsize,

    /// The command that --check runs, with its arguments
    #[arg(last = true)]
    pub command: Vec<OsString>,
}

/// What stands in front of a port alone.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Options {
    /// The address to listen on.
    pub fn address(&self) -> SocketAddr {
        let port = if self.check { 0 } else { 8787 };
        self.listen.unwrap_or((LOOPBACK, port).into())
    }
}

impl Options {
    /// The key that the command of `--check` is given; none where there is no check.
    pub fn key_of_check(&self) -> Result<Option<String>> {
        const VARIABLE: &str = "OPENCODE_API_KEY";
        let example = "as in opencode-gateway --check -- npm test";
        match (self.check, self.command.is_empty()) {
            (true, true) => bail!("--check needs a command behind --, {example}"),
            (false, false) => bail!("a command needs --check in front of --, {example}"),
            (false, true) => return Ok(None),
            (true, false) => {}
        }
        if self.upstream.is_none() {
            return Ok(Some(Gateway::KEY.to_owned()));
        }
        // No other variable is taken: the key of another service must not be sent there.
        let key = std::env::var(VARIABLE).ok().filter(|key| !key.is_empty());
        let hint = || format!("--check with --upstream needs a key: set {VARIABLE}");
        key.with_context(hint).map(Some)
    }
}

fn listen(value: &str) -> Result<SocketAddr> {
    if let Ok(port) = value.trim_start_matches(':').parse() {
        return Ok((LOOPBACK, port).into());
    }
    let named = value
        .strip_prefix("localhost:")
        .map(|port| format!("{LOOPBACK}:{port}"));
    let address = named.as_deref().unwrap_or(value).parse();
    address
        .context("name a port, such as 9000, or an address, such as 127.0.0.1:9000 or [::1]:9000")
}

/// The origin of the real gateway.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub scheme: Scheme,
    pub authority: Authority,
}

impl Upstream {
    /// A gateway in this program.
    pub fn loopback(address: SocketAddr) -> Result<Self> {
        Ok(Self {
            scheme: Scheme::HTTP,
            authority: address.to_string().parse()?,
        })
    }

    fn parse(value: &str) -> Result<Self> {
        const ORIGIN: &str = "name a scheme and a host, such as https://opencode.ai";
        let uri: Uri = value.parse().context(ORIGIN)?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            bail!(ORIGIN);
        };
        let path = parts
            .path_and_query
            .map_or(String::new(), |path| path.to_string());
        ensure!(
            matches!(&*path, "" | "/"),
            "leave out the path {path}, which belongs to the client's base URL"
        );
        ensure!(
            !authority.as_str().contains('@'),
            "leave out the user name: a client sends its own key"
        );
        ensure!(
            scheme == Scheme::HTTPS || scheme == Scheme::HTTP && is_loopback(authority.host()),
            "only https, because keys are sent there; http is for addresses of this machine"
        );
        Ok(Self { scheme, authority })
    }

    /// Whether it is what this program itself listens on.
    pub fn is_at(&self, address: SocketAddr) -> bool {
        is_loopback(self.authority.host()) && self.authority.port_u16() == Some(address.port())
    }
}

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// The IP address that a host of a URL is, if it is one.
pub fn ip_of(host: &str) -> Option<IpAddr> {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address.parse().ok()
}

/// Whether a host of a URL is this machine's loopback interface.
pub fn is_loopback(host: &str) -> bool {
    match ip_of(host) {
        Some(address) => address.is_loopback(),
        None => {
            let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

/// How often a fault may happen, so that they fit into memory.
const MOST_FAULTS: usize = 10_000;

/// A fault, and how often it happens.
#[derive(Debug, Clone)]
pub struct Fail {
    pub count: usize,
    pub fault: Fault,
}

impl Fail {
    fn parse(value: &str) -> Result<Self> {
        let counted = value
            .split_once('x')
            .and_then(|(count, fault)| Some((count.parse().ok()?, fault)));
        let (count, fault) = counted.unwrap_or((1, value));
        ensure!(
            (1..=MOST_FAULTS).contains(&count),
            "a failure is repeated 1 to {MOST_FAULTS} times"
        );
        let (name, argument) = match fault.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (fault, None),
        };
        let fault = match (name, argument) {
            ("rate-limit", Some(seconds)) => {
                let retry_after = duration(seconds)?;
                Fault::RateLimit { retry_after }
            }
            ("go-limit", None) => Fault::GoUsageLimit,
            ("free-limit", None) => Fault::FreeUsageLimit,
            ("redirect", Some(location)) => {
                let location = location.to_owned();
                location
                    .parse::<Uri>()
                    .context("name a URL to redirect to")?;
                ensure!(
                    location.contains("://") || location.starts_with('/'),
                    "name a URL to redirect to, such as https://example.com"
                );
                Fault::Redirect { location }
            }
            ("delay", Some(seconds)) => Fault::Delay(duration(seconds)?),
            ("close", None) => Fault::CloseBeforeAnswer,
            ("cut", None) => Fault::CloseMidAnswer,
            (status, None) if status.parse::<u16>().is_ok() => {
                let status = StatusCode::from_bytes(status.as_bytes())?;
                ensure!(
                    status.is_client_error() || status.is_server_error(),
                    "a failure has a status from 400 to 599"
                );
                Fault::Status(status)
            }
            _ => bail!("there is no such fault; --help lists them"),
        };
        Ok(Self { count, fault })
    }
}

fn duration(seconds: &str) -> Result<Duration> {
    let number = seconds.strip_suffix('s').unwrap_or(seconds);
    let number = number.parse().context("name seconds, such as 2 or 0.5")?;
    Duration::try_from_secs_f64(number).context("name seconds, such as 2 or 0.5")
}

/// What to answer, and to which calls.
#[derive(Debug, Clone)]
pub enum Answer {
    Next(Reply),
    Title(String),
}

impl Answer {
    fn parse(value: &str) -> Result<Self> {
        if let Some(title) = value.strip_prefix("title:") {
            return Ok(Self::Title(title.to_owned()));
        }
        let Some(call) = value.strip_prefix("tool:") else {
            return Ok(Self::Next(Reply::Text(value.to_owned())));
        };
        let (name, arguments) = call.split_once('=').unwrap_or((call, "{}"));
        let arguments: Value = serde_json::from_str(arguments)
            .context("a tool's arguments are a JSON object, such as {\"city\":\"Oslo\"}")?;
        ensure!(
            arguments.is_object(),
            "a tool's arguments are a JSON object"
        );
        let name = name.to_owned();
        Ok(Self::Next(Reply::ToolCall { name, arguments }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_listens_on_loopback_unless_another_address_is_named() {
        for (arguments, address) in [
            (&[][..], "127.0.0.1:8787"),
            (&["--check", "--", "true"], "127.0.0.1:0"),
            (&["--listen", "9000"], "127.0.0.1:9000"),
            (&["--listen", "0.0.0.0:9000"], "0.0.0.0:9000"),
        ] {
            let arguments = ["opencode-gateway"].iter().chain(arguments);
            let options = Options::try_parse_from(arguments).unwrap();
            assert_eq!(options.address().to_string(), address);
        }
    }
}
