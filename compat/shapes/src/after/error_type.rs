//! A `ClientWithMiddleware`, and retries that match its errors.

use std::error::Error;

use anyhow::{Context, Result};
use reqwest::{Client, Response};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, WithSession};
use serde_json::json;

#[derive(Clone)]
pub struct Provider {
    http: ClientWithMiddleware,
    url: String,
    key: String,
    model: String,
}

impl Provider {
    pub fn new(base_url: &str, key: &str, model: &str) -> Result<Self> {
        let http = Client::builder();
        let http = http.no_proxy();
        let http = OpencodeSessionMiddleware::new().into_client(http)?;
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
        .filter_map(http_error)
        .any(|error| error.is_request() || error.status().is_some_and(|it| it.is_server_error()))
}

/// Finds reqwest's error: inside reqwest-middleware's or, if a `Response` returned it, on its own.
fn http_error<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a reqwest::Error> {
    match cause.downcast_ref() {
        Some(reqwest_middleware::Error::Reqwest(error)) => Some(error),
        _ => cause.downcast_ref(),
    }
}

/// An agent's conversation. A subagent's runs inside it.
pub async fn converse(provider: &Provider, prompts: &[&str]) -> Result<()> {
    answer_all(provider, prompts)
        .with_session(Session::new().with_parent(Session::current()))
        .await
        .with_context(|| format!("the conversation with {} broke off", provider.model))
}

async fn answer_all(provider: &Provider, prompts: &[&str]) -> Result<()> {
    for prompt in prompts {
        let title = provider.clone();
        let title = async move { title.answer("A title, please.").await };
        let title = tokio::spawn(title.with_current_session());
        provider.answer(prompt).await?;
        if prompt.contains("research") {
            Box::pin(converse(provider, &["Find out.", "Sum up."])).await?;
        }
        title.await??;
    }
    Ok(())
}
