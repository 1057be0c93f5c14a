//! hyper-util's client: the rule works on the parts of any `http::Request`.
//!
//! `cargo run --example hyper_client --features testing`

use std::error::Error;

use http::Request;
use http::header::AUTHORIZATION;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session};

const PROMPT: &str = r#"{"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let gateway = Gateway::start()?;
    let plugin = OpencodeSessionMiddleware::builder()
        .user_agent("my-agent/1.0")
        .target(gateway.target())
        .build()?;
    let client = Client::builder(TokioExecutor::new()).build_http();

    let conversation = Session::new();
    let request = Request::post(gateway.url("/zen/go/v1/chat/completions"))
        .header(AUTHORIZATION, format!("Bearer {}", Gateway::KEY))
        .extension(conversation.clone())
        .body(PROMPT.to_owned())?;
    let (mut head, body) = request.into_parts();
    plugin.apply(&head.uri, &mut head.headers, &mut head.extensions)?;
    let answer = client.request(Request::from_parts(head, body)).await?;
    let answer = answer.into_body().collect().await?.to_bytes();
    println!("{}", String::from_utf8_lossy(&answer));

    gateway.assert_every_request_in(&conversation);
    Ok(())
}
