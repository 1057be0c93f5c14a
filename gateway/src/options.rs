//! The command line.

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
use reqwest_opencode_session::testing::{Failure, Gateway, Reply};
use serde_json::Value;

use crate::rules::Allow;
use crate::setup;

const EXAMPLES: &str = "\
Examples:
  opencode-gateway
      Starts a gateway on this machine. It prints the address of its page, its base URLs and its
      key, then each call as it ends. It refuses what OpenCode Go refuses, above all a call without
      a session.

  eval \"$(opencode-gateway --setup codex)\"; codex
      Points a client at it, from another terminal: openai, anthropic or google for programs with
      these SDKs, or opencode, pi, codex, claude-code, gemini-cli, qwen-code or aider. Without eval,
      it only prints the commands.

  opencode-gateway --upstream https://opencode.ai
      Forwards the calls to the real gateway, to show what your agent really caches and pays. They
      are forwarded as they came, with your own key, which is never shown or stored.

  opencode-gateway --upstream https://opencode.ai --add-session
      Helps a client that sends no session and cannot be changed. Others pin one id for a whole
      installation; this gives each conversation its own.

  opencode-gateway --check -- npm test
      Checks your agent in CI. It runs the command with base URLs and keys for the OpenAI, Anthropic
      and Google SDKs in its environment, and fails if a call misses or changes its session.

  opencode-gateway --fail 503 --reply 'tool:get_weather={\"city\":\"Oslo\"}' --reply 'It rains.'
      Answers with a failure, then a tool call, then a text, to show in which session your agent
      retries.

Exit status of --check:
  1    a call had no valid session, or not the one of its conversation
  2    no call to a model was seen, or not every call could be judged and counted, such as one that
       came after the command had ended
  125  the gateway could not start, as with a bad argument, or could not write every call
  126  the command could not be run
  127  the command was not found
  130  Ctrl-C or a signal stopped the check before it finished
  else the command's own; 128 plus the signal's number if a signal killed it

Environment:
  HTTPS_PROXY, ALL_PROXY, NO_PROXY   the proxy for --upstream, and for nothing else
  OPENCODE_API_KEY                   your key, for --check with --upstream
  NO_COLOR                           turns colours off
  SSL_CERT_FILE                      a file of trusted certificates, on Linux";

/// Shows which of an agent's calls miss their session.
///
/// OpenCode Zen and Go use the header `x-opencode-session` to route each conversation to one
/// provider. Point your client, in any language, at this gateway: a call stands out, with the
/// reason, if it has no session or a different one from the rest of its conversation. The gateway's
/// page, in your browser, shows each conversation, and each call with its headers.
#[derive(Debug, Parser)]
#[command(name = "opencode-gateway", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Options {
    /// Print what to set for this client, as shell commands, and exit: nothing is written or
    /// started. --listen and --upstream are those of the gateway that it should use
    #[arg(
        long,
        value_name = "NAME",
        hide_possible_values = true,
        conflicts_with = "check"
    )]
    pub setup: Option<setup::Client>,

    /// Listen on this port, or on this address and port [default: 127.0.0.1:8787, or a free port
    /// with --check]
    #[arg(short, long, value_name = "ADDRESS", value_parser = listen)]
    pub listen: Option<SocketAddr>,

    /// Also accept calls to this host name, such as host.docker.internal; other names are refused,
    /// so that no web page can read the calls
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,

    /// Forward each call to the real gateway, such as https://opencode.ai, and only observe it
    #[arg(long, value_name = "URL", value_parser = Upstream::parse)]
    pub upstream: Option<Upstream>,

    /// With --upstream, add a session to each call that carries none: that of the conversation that
    /// it continues or quotes, or else a new one. Only calls with the same key are compared, so
    /// users who share a key and are to be kept apart name sessions of their own. After a restart, a
    /// conversation begins a new session
    #[arg(long, requires = "upstream")]
    pub add_session: bool,

    /// Accept this key as well as loopback-key
    #[arg(long, conflicts_with = "upstream")]
    pub key: Vec<String>,

    /// Accept only these models, separated by commas, and refuse any other [default: all]
    #[arg(
        long,
        value_name = "MODEL",
        value_delimiter = ',',
        conflicts_with = "upstream"
    )]
    pub models: Vec<String>,

    /// Make the next call go wrong: a status such as 503, a refusal of the gateway's
    /// (`rate-limit:SECONDS`, `go-limit`, `free-limit`, `unknown-model`, `model-protocol`,
    /// `model-unavailable`, `free-tier`, `entitlement`), `delay:SECONDS`, `close` (no answer), `cut`
    /// (half an answer) or `redirect:URL`. `3x503` affects the next three calls. Several failures
    /// happen in the order given
    #[arg(long, value_name = "FAILURE", value_parser = Fail::parse, conflicts_with = "upstream")]
    pub fail: Vec<Fail>,

    /// Answer the next call with this text, or with a tool call, `tool:NAME=ARGUMENTS`. Several
    /// replies are sent in the order given. `title:TEXT` answers every call that asks for a title
    #[arg(long, value_name = "REPLY", value_parser = CannedReply::parse, conflicts_with = "upstream")]
    pub reply: Vec<CannedReply>,

    /// Run the command after `--`, and fail if one of its calls misses or changes its session
    #[arg(long)]
    pub check: bool,

    /// Treat a conversation that continues in a new session as a fork, which is not a fault
    #[arg(long)]
    pub allow_forks: bool,

    /// Treat a second conversation in a session as an edit of the first one's beginning, which is not a
    /// fault, unless the two take turns
    #[arg(long)]
    pub allow_edits: bool,

    /// Count a mark that is no fault as one: quotes, for a client that passes nothing on from one
    /// conversation to another
    #[arg(long, value_name = "MARK", value_parser = deny)]
    pub deny: Vec<String>,

    /// Accept a known mark: missing, doubled, malformed, moved, shared or quotes. `shared:my-agent` accepts
    /// it of one client alone, by its name or user agent, and `shared:/zen/v1` below one path
    #[arg(long, value_name = "MARK[:CLIENT]", value_parser = Allow::parse)]
    pub allow: Vec<Allow>,

    /// Write each call as a line of JSON, to standard output or to a file
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "-"
    )]
    pub json: Option<PathBuf>,

    /// Keep this many calls for the page; those that stand out are dropped last [default: 20000]
    #[arg(
        long,
        value_name = "CALLS",
        default_value = "20000",
        hide_default_value = true,
        allow_negative_numbers = true,
        value_parser = keep
    )]
    pub keep: NonZeroUsize,

    /// The command for --check to run, with its arguments
    #[arg(last = true)]
    pub command: Vec<OsString>,
}

/// The address for a port without one.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The port to listen on, unless another is named.
const DEFAULT_PORT: u16 = 8787;

/// How to run a check.
pub const EXAMPLE_OF_CHECK: &str = "as in `opencode-gateway --check -- npm test`";

impl Options {
    /// Returns the address to listen on.
    pub fn address(&self) -> SocketAddr {
        let port = if self.check { 0 } else { DEFAULT_PORT };
        self.listen.unwrap_or((LOOPBACK, port).into())
    }

    /// Returns whether this is the address without `--listen` and `--check`.
    pub fn is_default(address: SocketAddr) -> bool {
        address == (LOOPBACK, DEFAULT_PORT).into()
    }
}

impl Options {
    /// Returns the key for the command of `--check`, or `None` without a check.
    pub fn key_of_check(&self) -> Result<Option<String>> {
        const VARIABLE: &str = setup::KEY_VARIABLE;
        match (self.check, self.command.is_empty()) {
            (true, true) => bail!("--check needs a command after --, {EXAMPLE_OF_CHECK}"),
            (false, false) => bail!("a command needs --check before --, {EXAMPLE_OF_CHECK}"),
            (false, true) => return Ok(None),
            (true, false) => {}
        }
        if self.upstream.is_none() {
            return Ok(Some(Gateway::KEY.to_owned()));
        }
        // No other variable is read: the key of another service must not be sent there.
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
    address.context(
        "expected a port, such as 9000, or an address, such as 127.0.0.1:9000 or [::1]:9000",
    )
}

fn deny(value: &str) -> Result<String> {
    ensure!(
        value == "quotes",
        "expected quotes, the only mark that is no fault"
    );
    Ok(value.to_owned())
}

fn keep(value: &str) -> Result<NonZeroUsize> {
    value
        .parse()
        .context("expected a number of calls, 1 or more")
}

/// The origin of the real gateway.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub scheme: Scheme,
    pub authority: Authority,
}

impl Upstream {
    /// Returns the origin of a gateway in this program.
    pub fn loopback(address: SocketAddr) -> Result<Self> {
        Ok(Self {
            scheme: Scheme::HTTP,
            authority: address.to_string().parse()?,
        })
    }

    fn parse(value: &str) -> Result<Self> {
        const ORIGIN: &str = "expected a scheme and a host, such as https://opencode.ai";
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
            "leave out the path {path}, which belongs in the client's base URL"
        );
        ensure!(
            !authority.as_str().contains('@'),
            "leave out the user name: clients send their own key"
        );
        ensure!(
            scheme == Scheme::HTTPS || scheme == Scheme::HTTP && is_loopback(authority.host()),
            "expected https, because keys are sent there; http is allowed only on this machine"
        );
        Ok(Self { scheme, authority })
    }

    /// Returns whether this program itself listens there.
    pub fn is_at(&self, address: SocketAddr) -> bool {
        is_loopback(self.authority.host()) && self.authority.port_u16() == Some(address.port())
    }
}

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// Returns the IP address in a URL's host, if it is one.
pub fn ip_of(host: &str) -> Option<IpAddr> {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address.parse().ok()
}

/// Returns whether a URL's host is this machine's loopback interface.
pub fn is_loopback(host: &str) -> bool {
    match ip_of(host) {
        Some(address) => address.is_loopback(),
        None => {
            let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

/// How often a failure may happen, so that all of them fit into memory.
const MOST_FAILURES: usize = 10_000;

/// A failure, and how often it happens.
#[derive(Debug, Clone)]
pub struct Fail {
    pub count: usize,
    pub failure: Failure,
}

impl Fail {
    fn parse(value: &str) -> Result<Self> {
        let counted = value
            .split_once('x')
            .and_then(|(count, failure)| Some((count.parse().ok()?, failure)));
        let (count, failure) = counted.unwrap_or((1, value));
        ensure!(
            (1..=MOST_FAILURES).contains(&count),
            "a failure can happen 1 to {MOST_FAILURES} times"
        );
        let (name, argument) = match failure.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (failure, None),
        };
        let failure = match (name, argument) {
            ("rate-limit", Some(seconds)) => {
                let retry_after = duration(seconds)?;
                Failure::RateLimit { retry_after }
            }
            ("go-limit", None) => Failure::GoUsageLimit,
            ("free-limit", None) => Failure::FreeUsageLimit,
            ("unknown-model", None) => Failure::UnknownModel,
            ("model-protocol", None) => Failure::ProtocolUnsupported,
            ("model-unavailable", None) => Failure::ModelUnavailable,
            ("free-tier", None) => Failure::FreeTier,
            ("entitlement", None) => Failure::Entitlement,
            ("redirect", Some(location)) => {
                let location = location.to_owned();
                location
                    .parse::<Uri>()
                    .context("expected a URL to redirect to")?;
                ensure!(
                    location.contains("://") || location.starts_with('/'),
                    "expected a URL to redirect to, such as https://example.com"
                );
                Failure::Redirect { location }
            }
            ("delay", Some(seconds)) => Failure::Delay(duration(seconds)?),
            ("close", None) => Failure::CloseBeforeAnswer,
            ("cut", None) => Failure::CloseMidAnswer,
            (status, None) if status.parse::<u16>().is_ok() => {
                let status = StatusCode::from_bytes(status.as_bytes())?;
                ensure!(
                    status.is_client_error() || status.is_server_error(),
                    "expected a status from 400 to 599"
                );
                Failure::Status(status)
            }
            _ => bail!("expected a failure, such as 503, rate-limit:2 or close"),
        };
        Ok(Self { count, failure })
    }
}

fn duration(seconds: &str) -> Result<Duration> {
    const SECONDS: &str = "expected seconds, such as 2 or 0.5";
    let number = seconds.strip_suffix('s').unwrap_or(seconds);
    let number = number.parse().context(SECONDS)?;
    Duration::try_from_secs_f64(number).context(SECONDS)
}

/// What to answer, and to which calls.
#[derive(Debug, Clone)]
pub enum CannedReply {
    Next(Reply),
    Title(String),
}

impl CannedReply {
    fn parse(value: &str) -> Result<Self> {
        if let Some(title) = value.strip_prefix("title:") {
            return Ok(Self::Title(title.to_owned()));
        }
        let Some(call) = value.strip_prefix("tool:") else {
            return Ok(Self::Next(Reply::Text(value.to_owned())));
        };
        const OBJECT: &str =
            "expected the tool's arguments as a JSON object, such as {\"city\":\"Oslo\"}";
        let (name, arguments) = call.split_once('=').unwrap_or((call, "{}"));
        let arguments: Value = serde_json::from_str(arguments).context(OBJECT)?;
        ensure!(arguments.is_object(), OBJECT);
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
