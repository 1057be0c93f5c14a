//! A plain `reqwest::Client`, and the whole rule in front of it: the session goes to OpenCode
//! alone.
//!
//! `cargo run --example plain_client --features testing`

use std::error::Error;

use http::Extensions;
use reqwest::{Client, Request, Response};
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, WithSession};

/// The client of an application, which sends all its requests in one place.
struct Http {
    client: Client,
    plugin: OpencodeSessionMiddleware,
}

impl Http {
    fn new(plugin: OpencodeSessionMiddleware) -> reqwest::Result<Self> {
        let client = Client::builder().redirect(plugin.redirect_policy());
        let client = client.no_proxy().build()?;
        Ok(Self { client, plugin })
    }

    async fn send(&self, mut request: Request) -> Result<Response, Box<dyn Error>> {
        let url = request.url().clone();
        let headers = request.headers_mut();
        self.plugin.apply(&url, headers, &mut Extensions::new())?;
        Ok(self.client.execute(request).await?)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let gateway = Gateway::start()?;
    let plugin = OpencodeSessionMiddleware::builder()
        .user_agent("my-agent/1.0")
        .target(gateway.target());
    let http = Http::new(plugin.build()?)?;

    let conversation = Session::new();
    let request = http
        .client
        .post(gateway.url("/zen/go/v1/chat/completions"))
        .bearer_auth(Gateway::KEY)
        .body(r#"{"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}"#);
    let answer = http.send(request.build()?);
    let answer = answer.with_session(conversation.clone()).await?;
    println!("{}", answer.text().await?);

    gateway.assert_every_request_in(&conversation);
    Ok(())
}
