//! What one needs to know to begin.

use std::fmt;

use http::Uri;

use crate::bases;
use crate::options::Upstream;

pub struct Welcome<'a> {
    pub origin: &'a str,
    pub upstream: Option<&'a Upstream>,
    /// The proxy that leads there.
    pub proxy: Option<&'a Uri>,
    /// Whether other machines can reach it.
    pub is_public: bool,
    /// The key that the gateway takes, where it is one of ours.
    pub key: Option<&'a str>,
}

impl fmt::Display for Welcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.upstream, self.proxy) {
            (None, _) => writeln!(f, "A gateway that answers like OpenCode Zen and Go")?,
            (Some(upstream), None) => writeln!(f, "Calls go on to {upstream}")?,
            (Some(upstream), Some(proxy)) => {
                let host = proxy.authority().map_or("", |authority| authority.host());
                writeln!(f, "Calls go on to {upstream}, through the proxy at {host}")?;
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
                "Whoever reaches this address from another machine can see the calls."
            )?;
        }
        writeln!(
            f,
            "Each call needs x-opencode-session, the same id in all of a conversation."
        )?;
        writeln!(f, "Ctrl-C ends it with a summary.")
    }
}
