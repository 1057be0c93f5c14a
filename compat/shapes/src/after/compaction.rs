//! A conversation that is summed up when it grows long.

use anyhow::Result;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_opencode_session::Session;
use serde_json::{Value, json};

/// How many messages a conversation may have.
const LONGEST: usize = 3;

pub struct Conversation {
    pub http: ClientWithMiddleware,
    pub url: String,
    pub key: String,
    pub model: String,
    pub session: Session,
    pub history: Vec<Value>,
}

impl Conversation {
    pub async fn prompt(&mut self, text: &str) -> Result<()> {
        if self.history.len() >= LONGEST {
            self.session.turn().scope(self.compact()).await?;
        }
        self.session.turn().scope(self.answer(text)).await
    }

    async fn compact(&mut self) -> Result<()> {
        let summary = self.ask("Sum up what we said.").await?;
        self.history = vec![json!({"role": "user", "content": summary})];
        Ok(())
    }

    async fn answer(&mut self, text: &str) -> Result<()> {
        let answer = self.ask(text).await?;
        self.history
            .push(json!({"role": "assistant", "content": answer}));
        Ok(())
    }

    async fn ask(&mut self, prompt: &str) -> Result<String> {
        self.history
            .push(json!({"role": "user", "content": prompt}));
        let body = json!({"model": self.model, "messages": self.history});
        let call = self.http.post(&self.url).bearer_auth(&self.key).json(&body);
        let answer: Value = call.send().await?.error_for_status()?.json().await?;
        let text = &answer["choices"][0]["message"]["content"];
        Ok(text.as_str().unwrap_or_default().to_owned())
    }
}
