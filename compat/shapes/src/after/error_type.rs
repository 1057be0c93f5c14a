//! A plain client that becomes a `ClientWithMiddleware`, and so gets errors of another type.

use std::error::Error; // new

use anyhow::{Context as _, Result};
use reqwest::{Client, Response};
use reqwest_middleware::ClientWithMiddleware; // new
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, WithSession as _}; // new
use serde_json::json;

type Http = ClientWithMiddleware; // new

pub fn client() -> Result<Http> {
    let http = Client::builder().user_agent("my-agent/1.0");
    Ok(OpencodeSessionMiddleware::new().into_client(http)?) // new
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
        .filter_map(http_error) // new
        .any(|error| error.is_request() || error.status().is_some_and(|it| it.is_server_error()))
}

// new: the function below
/// Finds reqwest's error: inside reqwest-middleware's or, if a `Response` returned it, on its own.
fn http_error<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a reqwest::Error> {
    match cause.downcast_ref() {
        Some(reqwest_middleware::Error::Reqwest(error)) => Some(error),
        _ => cause.downcast_ref(),
    }
}

/// A conversation, or inside one, a subagent's.
pub async fn converse(provider: &Provider, prompts: &[&str]) -> Result<()> {
    let session = Session::new().with_parent(Session::current()); // new
    for prompt in prompts {
        let work = answer(provider, prompt);
        let work = work.with_session(session.turn()); // new
        work.await?;
    }
    Ok(())
}

/// Everything that is done for one prompt.
async fn answer(provider: &Provider, prompt: &str) -> Result<()> {
    let title = provider.clone();
    let title = async move { title.ask("A title, please.").await };
    let title = title.with_current_session(); // new
    let title = tokio::spawn(title);
    provider.ask(prompt).await?;
    if prompt.contains("research") {
        Box::pin(converse(provider, &["Find out.", "Sum up."])).await?;
    }
    title.await??;
    Ok(())
}
