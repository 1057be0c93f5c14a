//! A plain `reqwest::Client`: one more line in each call.
//!
//! `cargo run -p plain-client`

use std::error::Error;

use reqwest::Client;
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{
    OpencodeSessionMiddleware, RequestBuilderExt, Session, WithSession,
};
use serde_json::{Value, json};

static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new();

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// An application's client, in which only one line knows about sessions.
#[derive(Clone)]
struct Agent {
    http: Client,
    url: String,
}

impl Agent {
    async fn ask(self, prompt: &str) -> Result<String> {
        let answer: Value = self
            .http
            .post(self.url)
            .bearer_auth(Gateway::KEY)
            .json(&json!({"model": "kimi-k3", "messages": [{"role": "user", "content": prompt}]}))
            .opencode_session(&OPENCODE)?
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        Ok(answer["choices"][0]["message"]["content"].to_string())
    }

    /// An answer, and a title on a task of its own.
    async fn converse(self, prompt: &str) -> Result<()> {
        let title = self.clone().ask("A title, please.").with_current_session();
        let title = tokio::spawn(title);
        println!("{prompt}: {}", self.ask(prompt).await?);
        title.await??;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
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

    let (lisbon, oslo) = (Session::new(), Session::new());
    tokio::try_join!(
        agent.clone().converse("Lisbon").with_session(lisbon.turn()),
        agent.converse("Oslo").with_session(oslo.turn()),
    )?;

    println!("\nLisbon is session {}", lisbon.id());
    println!("Oslo is session   {}", oslo.id());
    for request in gateway.requests() {
        println!("{request}");
    }
    Ok(())
}
