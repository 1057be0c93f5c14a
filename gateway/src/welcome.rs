//! What a user needs to know to begin.

use std::fmt;
use std::net::SocketAddr;

use http::Uri;

use crate::options::{Options, Upstream};
use crate::setup::{self, Client, Place};

pub struct Welcome<'a> {
    pub address: SocketAddr,
    pub origin: &'a str,
    pub upstream: Option<&'a Upstream>,
    /// Whether a session is added to calls that carry none.
    pub adds: bool,
    /// The proxy on the way to the upstream.
    pub proxy: Option<&'a Uri>,
    /// The key that the gateway accepts, if it is this program's own gateway.
    pub key: Option<&'a str>,
}

impl Welcome<'_> {
    /// Returns the command that prints how to set up a client for this gateway.
    fn setup_command(&self) -> String {
        let mut command = String::from("opencode-gateway --setup NAME");
        if !Options::is_default(self.address) {
            command.push_str(&format!(" --listen {}", self.address));
        }
        if let Some(upstream) = self.upstream {
            command.push_str(&format!(" --upstream {upstream}"));
        }
        format!("{command}, with one of {}", setup::names())
    }
}

impl fmt::Display for Welcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.upstream, self.proxy) {
            (None, _) => writeln!(f, "A gateway that answers like OpenCode Zen and Go")?,
            (Some(upstream), None) => writeln!(f, "Forwarding calls to {upstream}")?,
            (Some(upstream), Some(proxy)) => {
                let host = proxy.authority().map_or("", |authority| authority.host());
                writeln!(
                    f,
                    "Forwarding calls to {upstream} through the proxy at {host}"
                )?;
            }
        }
        let mut row = |name: &str, value: &str| writeln!(f, "  {name:<17} {value}");
        row("page", self.origin)?;
        row(
            "key",
            self.key
                .unwrap_or("your own, which is never shown or stored"),
        )?;
        let (origin, key) = (self.origin, self.key);
        for client in [Client::Openai, Client::Anthropic, Client::Google] {
            let base = client.setup(Place { origin, key }).variables.swap_remove(0);
            row(client.title(), &format!("{}={}", base.0, base.1))?;
        }
        row("other clients", &self.setup_command())?;
        if !self.address.ip().is_loopback() {
            writeln!(
                f,
                "Anyone who reaches this address from another machine can see the calls."
            )?;
        }
        let session = match self.adds {
            true => "A call without a session gets that of its conversation, or a new one.",
            false => "Each call needs the header x-opencode-session: one id for each conversation.",
        };
        writeln!(f, "{session}")?;
        writeln!(f, "Press Ctrl-C to stop, with a summary.")
    }
}
