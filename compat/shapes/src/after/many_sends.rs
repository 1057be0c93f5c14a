//! A plain client that calls `.send()` in many places.

use anyhow::{Context, Result};
use futures::TryStreamExt;
use reqwest::Client;
use reqwest_opencode_session::{OpencodeSessionMiddleware, RequestBuilderExt};
use reqwest_opencode_session::{Session, WithSession};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new();

/// An agent on one model.
#[derive(Clone)]
pub struct Agent {
    http: Client,
    base_url: String,
    key: String,
    model: String,
}

impl Agent {
    pub fn new(base_url: &str, key: &str, model: &str) -> Result<Self> {
        let http = Client::builder()
            .no_proxy()
            .user_agent("my-agent/1.0")
            .redirect(OPENCODE.redirect_policy())
            .build()?;
        Ok(Self {
            http,
            base_url: base_url.to_owned(),
            key: key.to_owned(),
            model: model.to_owned(),
        })
    }

    /// An agent's conversation. A subagent's runs inside it.
    pub async fn converse(&self, prompts: &[&str]) -> Result<()> {
        self.answer_all(prompts)
            .with_session(Session::new().with_parent(Session::current()))
            .await
            .with_context(|| format!("the conversation with {} broke off", self.model))
    }

    async fn answer_all(&self, prompts: &[&str]) -> Result<()> {
        for prompt in prompts {
            self.turn(prompt).await?;
        }
        Ok(())
    }

    /// All that is done for one prompt.
    async fn turn(&self, prompt: &str) -> Result<()> {
        let title = self.title()?;
        self.answer(prompt).await?;
        if prompt.contains("research") {
            Box::pin(self.converse(&["Find out.", "Sum up."])).await?;
        }
        title.await??;
        self.summary().await
    }

    async fn answer(&self, prompt: &str) -> Result<()> {
        let response = self
            .http
            .post(format!("{}/chat/completions", self.base_url))
            .bearer_auth(&self.key)
            .json(&self.messages(prompt, true))
            .opencode_session(&OPENCODE)?
            .send()
            .await?;
        let mut pieces = response.error_for_status()?.bytes_stream();
        while pieces.try_next().await?.is_some() {}
        Ok(())
    }

    /// Another wire format.
    fn title(&self) -> Result<JoinHandle<Result<String>>> {
        let body = json!({"model": self.model, "input": "A title, please."});
        let request = self
            .http
            .post(format!("{}/responses", self.base_url))
            .bearer_auth(&self.key)
            .json(&body)
            .opencode_session(&OPENCODE)?
            .send();
        Ok(tokio::spawn(async {
            let response = request.await?;
            Ok(response.error_for_status()?.text().await?)
        }))
    }

    /// And a third one.
    async fn summary(&self) -> Result<()> {
        let response = self
            .http
            .post(format!("{}/messages", self.base_url))
            .header("x-api-key", &self.key)
            .json(&self.messages("A summary, please.", false))
            .opencode_session(&OPENCODE)?
            .send()
            .await?;
        response.error_for_status()?.bytes().await?;
        Ok(())
    }

    fn messages(&self, text: &str, stream: bool) -> Value {
        let messages = [json!({"role": "user", "content": text})];
        json!({"model": self.model, "stream": stream, "messages": messages})
    }
}
