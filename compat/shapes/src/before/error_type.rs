//! A plain client, and retries that match its errors.

use anyhow::{Context, Result};
use reqwest::{Client, Response};
use serde_json::json;

#[derive(Clone)]
pub struct Provider {
    http: Client,
    url: String,
    key: String,
    model: String,
}

impl Provider {
    pub fn new(base_url: &str, key: &str, model: &str) -> Result<Self> {
        let http = Client::builder();
        let http = http.no_proxy();
        let http = http.build()?;
        Ok(Self {
            http,
            url: format!("{base_url}/chat/completions"),
            key: key.to_owned(),
            model: model.to_owned(),
        })
    }

    /// Three attempts.
    pub async fn answer(&self, prompt: &str) -> Result<String> {
        let mut answer = self.attempt(prompt).await;
        for _ in 0..2 {
            if !answer.as_ref().is_err_and(is_transient) {
                break;
            }
            answer = self.attempt(prompt).await;
        }
        Ok(answer?.text().await?)
    }

    async fn attempt(&self, prompt: &str) -> Result<Response> {
        let messages = [json!({"role": "user", "content": prompt})];
        let body = json!({"model": self.model, "messages": messages});
        let request = self.http.post(&self.url).bearer_auth(&self.key).json(&body);
        let answer = request.send().await.context("the model is out of reach")?;
        Ok(answer.error_for_status()?)
    }
}

/// Returns whether another attempt may help.
pub fn is_transient(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<reqwest::Error>())
        .any(|error| error.is_request() || error.status().is_some_and(|it| it.is_server_error()))
}

/// An agent's conversation. A subagent's runs inside it.
pub async fn converse(provider: &Provider, prompts: &[&str]) -> Result<()> {
    answer_all(provider, prompts)
        .await
        .with_context(|| format!("the conversation with {} broke off", provider.model))
}

async fn answer_all(provider: &Provider, prompts: &[&str]) -> Result<()> {
    for prompt in prompts {
        let title = provider.clone();
        let title = async move { title.answer("A title, please.").await };
        let title = tokio::spawn(title);
        provider.answer(prompt).await?;
        if prompt.contains("research") {
            Box::pin(converse(provider, &["Find out.", "Sum up."])).await?;
        }
        title.await??;
    }
    Ok(())
}
