//! The base URL for each kind of SDK, and the environment variables that it reads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest_opencode_session::SessionId;
use serde::Serialize;

/// What one kind of SDK needs to know.
#[derive(Debug, Clone, Serialize)]
pub struct Base {
    pub sdk: &'static str,
    /// The environment variable for the base URL.
    pub variable: &'static str,
    pub url: String,
    /// The environment variables for the key.
    pub key_variables: &'static [&'static str],
}

/// Returns the base URLs of OpenCode Go, which refuses calls without a session.
pub fn bases(origin: &str) -> [Base; 4] {
    let base = |sdk, variable, path, key_variables| Base {
        sdk,
        variable,
        url: format!("{origin}{path}"),
        key_variables,
    };
    [
        base(
            "OpenAI SDKs",
            "OPENAI_BASE_URL",
            "/zen/go/v1",
            &["OPENAI_API_KEY"],
        ),
        // Under `/zen`, the newest ones would be refused: messages there take only `x-api-key`.
        base(
            "Anthropic SDKs",
            "ANTHROPIC_BASE_URL",
            "/inference/go/anthropic",
            &["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"],
        ),
        base(
            "Google SDKs",
            "GOOGLE_GEMINI_BASE_URL",
            "/inference/go/google",
            &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
        ),
        base(
            "OpenCode clients",
            "OPENCODE_BASE_URL",
            "/zen/go/v1",
            &["OPENCODE_API_KEY"],
        ),
    ]
}

/// Returns the origin at which a client on this machine reaches this address.
pub fn origin(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
}

/// Returns a command that makes a first call, in this session.
pub fn first_call(origin: &str, key: Option<&str>, session: &SessionId) -> String {
    let key = key.unwrap_or("$OPENCODE_API_KEY");
    let body = r#"{"model": "glm-5.2", "messages": [{"role": "user", "content": "Hello"}]}"#;
    format!(
        "curl {origin}/zen/go/v1/chat/completions -H \"Authorization: Bearer {key}\" \
        -H 'x-opencode-session: {session}' -H 'Content-Type: application/json' -d '{body}'"
    )
}
