//! A plain client that sends in many places, with three wire formats.

use anyhow::Result;
use reqwest::Client;
use serde_json::{Value, json};

pub fn client() -> Result<Client> {
    let http = Client::builder().user_agent("my-agent/1.0");
    Ok(http.build()?)
}

/// An agent on one model.
pub struct Agent {
    pub http: Client,
    pub base_url: String,
    pub key: String,
    pub model: String,
}

impl Agent {
    /// A conversation, or inside one, a subagent's.
    pub async fn converse(&self, prompts: &[&str]) -> Result<()> {
        for prompt in prompts {
            let work = self.answer(prompt);
            work.await?;
        }
        Ok(())
    }

    /// Everything that is done for one prompt.
    async fn answer(&self, prompt: &str) -> Result<()> {
        let title = self
            .http
            .post(format!("{}/responses", self.base_url))
            .bearer_auth(&self.key)
            .json(&json!({"model": self.model, "input": "A title, please."}))
            .send();
        let title = tokio::spawn(title);

        let answer = self
            .http
            .post(format!("{}/chat/completions", self.base_url))
            .bearer_auth(&self.key)
            .json(&self.messages(prompt))
            .send();
        answer.await?.error_for_status()?.text().await?;

        if prompt.contains("research") {
            Box::pin(self.converse(&["Find out.", "Sum up."])).await?;
        }

        let summary = self
            .http
            .post(format!("{}/messages", self.base_url))
            .header("x-api-key", &self.key)
            .json(&self.messages("A summary, please."))
            .send();
        summary.await?.error_for_status()?.text().await?;
        title.await??.error_for_status()?.text().await?;
        Ok(())
    }

    fn messages(&self, text: &str) -> Value {
        json!({"model": self.model, "messages": [{"role": "user", "content": text}]})
    }
}
