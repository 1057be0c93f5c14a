//! What a user needs to know to begin.

use std::fmt;

use http::Uri;

use crate::bases;
use crate::options::Upstream;

pub struct Welcome<'a> {
    pub origin: &'a str,
    pub upstream: Option<&'a Upstream>,
    /// The proxy on the way to the upstream.
    pub proxy: Option<&'a Uri>,
    /// Whether other machines can reach the gateway.
    pub is_public: bool,
    /// The key that the gateway accepts, if it is this program's own gateway.
    pub key: Option<&'a str>,
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
        for base in bases::bases(self.origin) {
            row(base.sdk, &format!("{}={}", base.variable, base.url))?;
        }
        if self.is_public {
            writeln!(
                f,
                "Anyone who reaches this address from another machine can see the calls."
            )?;
        }
        writeln!(
            f,
            "Each call needs the header x-opencode-session: one id for each conversation."
        )?;
        writeln!(f, "Press Ctrl-C to stop, with a summary.")
    }
}
