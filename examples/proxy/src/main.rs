//! Two tenants behind the proxy, in front of a test gateway: `cargo run -p proxy`.

use std::error::Error;
use std::net::SocketAddr;

use proxy::{Settings, opaque, router};
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{Session, SessionId};
use tokio::net::TcpListener;

const SECRET: &str = "a long random string, kept with the other secrets";

const CONVERSATION: &str = "chat-1";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let gateway = Gateway::start()?;
    let tenants = ["ada", "ben"].map(|name| (format!("key-of-{name}"), name.to_owned()));
    let proxy = router(Settings {
        upstream: gateway.url(""),
        key: Gateway::KEY.to_owned(),
        secret: SECRET.to_owned(),
        tenants: tenants.into(),
    })?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async { axum::serve(listener, proxy).await });

    let claimed = Session::from(SessionId::try_from(CONVERSATION)?);
    for (tenant, header) in [
        ("ada", "x-opencode-session"),
        ("ben", "x-claude-code-session-id"),
    ] {
        call(address, &format!("key-of-{tenant}"), header).await?;
        let session = opaque(SECRET, tenant, &claimed);
        println!("{tenant}'s {CONVERSATION} is session {}", session.id());
    }
    for request in gateway.requests() {
        println!("{request}");
    }
    Ok(())
}

/// Calls the proxy as a tenant's client does, with the header that it happens to use. That client
/// talks only to the proxy, so it needs no redirect policy.
async fn call(proxy: SocketAddr, key: &str, header: &str) -> reqwest::Result<()> {
    reqwest::Client::builder()
        .no_proxy()
        .build()?
        .post(format!("http://{proxy}/zen/go/v1/chat/completions"))
        .bearer_auth(key)
        .header(header, CONVERSATION)
        .body(r#"{"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}"#)
        .send()
        .await?
        .error_for_status()?;
    Ok(())
}
