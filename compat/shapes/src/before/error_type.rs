//! A plain client that becomes a `ClientWithMiddleware`, and so gets errors of another type.

use anyhow::{Context as _, Result};
use reqwest::{Client, Response};
use serde_json::json;

type Http = Client;

pub fn client() -> Result<Http> {
    let http = Client::builder().user_agent("my-agent/1.0");
    Ok(http.build()?)
}

#[derive(Clone)]
pub struct Provider {
    pub http: Http,
    pub url: String,
    pub key: String,
    pub model: String,
}

impl Provider {
    /// Makes three attempts.
    pub async fn ask(&self, prompt: &str) -> Result<String> {
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

/// A conversation, or inside one, a subagent's.
pub async fn converse(provider: &Provider, prompts: &[&str]) -> Result<()> {
    for prompt in prompts {
        let work = answer(provider, prompt);
        work.await?;
    }
    Ok(())
}

/// Everything that is done for one prompt.
async fn answer(provider: &Provider, prompt: &str) -> Result<()> {
    let title = provider.clone();
    let title = async move { title.ask("A title, please.").await };
    let title = tokio::spawn(title);
    provider.ask(prompt).await?;
    if prompt.contains("research") {
        Box::pin(converse(provider, &["Find out.", "Sum up."])).await?;
    }
    title.await??;
    Ok(())
}
