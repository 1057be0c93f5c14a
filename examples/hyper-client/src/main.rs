//! hyper-util's client: `apply` works on any `http::Request`.
//!
//! `cargo run -p hyper-client`

use std::error::Error;

use http::Request;
use http::header::AUTHORIZATION;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session};
use serde_json::Value;

const PROMPT: &str = r#"{"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // While it runs, it is a target of every middleware in the process.
    let gateway = Gateway::start()?;
    let opencode = OpencodeSessionMiddleware::builder()
        .user_agent("my-agent/1.0")
        .build()?;
    // It follows no redirects, so there are none to check.
    let client = Client::builder(TokioExecutor::new()).build_http();

    let conversation = Session::new();
    for session in [conversation.turn(), conversation.subagent()] {
        let mut request = Request::post(gateway.url("/zen/go/v1/chat/completions"))
            .header(AUTHORIZATION, format!("Bearer {}", Gateway::KEY))
            .extension(session)
            .body(PROMPT.to_owned())?;
        opencode.apply(&mut request)?;
        let answer = client.request(request).await?;
        let answer = answer.into_body().collect().await?.to_bytes();
        let answer: Value = serde_json::from_slice(&answer)?;
        println!("{}", answer["choices"][0]["message"]["content"]);
    }

    println!("\nthe conversation is session {}", conversation.id());
    for request in gateway.requests() {
        let parent = request.parent.iter();
        let parent: String = parent.map(|id| format!(", a subagent of {id}")).collect();
        println!("{request}{parent}");
    }
    Ok(())
}
