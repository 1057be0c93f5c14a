//! A program without `async`: one more line in each call.
//!
//! `cargo run -p blocking-client`

use std::error::Error;

use reqwest::blocking::Client;
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{OpencodeSessionMiddleware, RequestBuilderExt, Session};
use serde_json::{Value, json};

static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new();

/// An application's client, in which only one line knows about sessions.
struct Agent {
    http: Client,
    url: String,
}

impl Agent {
    fn ask(&self, prompt: &str) -> Result<String, Box<dyn Error>> {
        let answer: Value = self
            .http
            .post(&self.url)
            .bearer_auth(Gateway::KEY)
            .json(&json!({"model": "kimi-k3", "messages": [{"role": "user", "content": prompt}]}))
            .opencode_session(&OPENCODE)?
            .send()?
            .error_for_status()?
            .json()?;
        Ok(answer["choices"][0]["message"]["content"].to_string())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // While it runs, it is a target of every middleware in the process.
    let gateway = Gateway::start()?;
    let agent = Agent {
        http: Client::builder()
            .user_agent("my-agent/1.0")
            // Keeps the session on its targets.
            .redirect(OPENCODE.redirect_policy())
            .no_proxy()
            .build()?,
        url: gateway.url("/zen/go/v1/chat/completions"),
    };

    let (haskell, cooking) = (Session::new(), Session::new());
    let conversations = [
        (&haskell, "What is a monad?"),
        (&cooking, "How long does an egg take?"),
        (&haskell, "In one sentence, please."),
    ];
    for (conversation, prompt) in conversations {
        // Each prompt is a turn.
        let answer = conversation.turn().in_scope(|| agent.ask(prompt))?;
        println!("{prompt} {answer}");
    }

    println!("\nhaskell is session {}", haskell.id());
    println!("cooking is session {}", cooking.id());
    for request in gateway.requests() {
        println!("{request}");
    }
    Ok(())
}
