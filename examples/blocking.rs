//! A program without `async`: the session goes along as extra headers.
//!
//! `cargo run --example blocking --features testing`

use std::error::Error;

use reqwest::blocking::Client;
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let gateway = Gateway::start()?;
    let plugin = OpencodeSessionMiddleware::builder().target(gateway.target());
    let client = Client::builder()
        .user_agent("my-agent/1.0")
        // Without it, a redirect could carry the session to another host.
        .redirect(plugin.build()?.redirect_policy())
        .no_proxy()
        .build()?;

    let conversation = Session::new();
    for prompt in ["What is a monad?", "In one sentence, please."] {
        let turn = conversation.turn();
        let answer: Value = client
            .post(gateway.url("/zen/go/v1/chat/completions"))
            .bearer_auth(Gateway::KEY)
            .headers(turn.headers())
            .json(&json!({"model": "kimi-k3", "messages": [{"role": "user", "content": prompt}]}))
            .send()?
            .error_for_status()?
            .json()?;
        println!("{}", answer["choices"][0]["message"]["content"]);
    }
    gateway.assert_every_request_in(&conversation);
    Ok(())
}
