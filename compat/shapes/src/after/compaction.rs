//! A conversation that is summarized when it grows long.

use anyhow::Result;
use reqwest_middleware::{ClientWithMiddleware, RequestBuilder};
use reqwest_opencode_session::{Session, WithSession};
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
            let turn = self.session.turn();
            self.compact().with_session(turn).await?;
        }
        let turn = self.session.turn();
        self.answer(text).with_session(turn).await
    }

    async fn answer(&mut self, text: &str) -> Result<()> {
        let title = vec![json!({"role": "user", "content": "A title, please."})];
        let title = self.request(&title, false).send();
        let title = tokio::spawn(title.with_current_session());
        self.history.push(json!({"role": "user", "content": text}));
        let answer = self.ask(true).await?;
        self.history
            .push(json!({"role": "assistant", "content": answer}));
        title.await??.error_for_status()?;
        Ok(())
    }

    async fn compact(&mut self) -> Result<()> {
        self.history
            .push(json!({"role": "user", "content": "Sum up what we said."}));
        let summary = self.ask(false).await?;
        self.history = vec![json!({"role": "user", "content": summary})];
        Ok(())
    }

    async fn ask(&self, stream: bool) -> Result<String> {
        let request = self.request(&self.history, stream);
        Ok(request.send().await?.error_for_status()?.text().await?)
    }

    fn request(&self, messages: &[Value], stream: bool) -> RequestBuilder {
        let body = json!({"model": self.model, "stream": stream, "messages": messages});
        self.http.post(&self.url).bearer_auth(&self.key).json(&body)
    }
}
