//! An HTTP trait of the application's own, over `http::Request`.

use std::sync::Arc;

use anyhow::{Result, ensure};
use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use serde_json::json;

/// What the application knows of HTTP.
pub trait Http: Send + Sync {
    fn send(&self, request: Request<String>) -> BoxFuture<'_, Result<Response<String>>>;
}

/// The implementation that it ships.
pub struct Reqwest(reqwest::Client);

impl Reqwest {
    pub fn new() -> Result<Self> {
        let http = reqwest::Client::builder().user_agent("my-agent/1.0");
        Ok(Self(http.build()?))
    }
}

impl Http for Reqwest {
    fn send(&self, mut request: Request<String>) -> BoxFuture<'_, Result<Response<String>>> {
        Box::pin(async move {
            request.headers_mut().remove("x-internal");
            let answer = self.0.execute(request.try_into()?).await?;
            let response = Response::builder().status(answer.status());
            Ok(response.body(answer.text().await?)?)
        })
    }
}

#[derive(Clone)]
pub struct Provider {
    pub http: Arc<dyn Http>,
    pub url: String,
    pub key: String,
    pub model: String,
}

impl Provider {
    async fn ask(self, prompt: &str) -> Result<()> {
        let messages = [json!({"role": "user", "content": prompt})];
        let body = json!({"model": self.model, "messages": messages});
        let request = Request::post(&self.url)
            .header(AUTHORIZATION, format!("Bearer {}", self.key))
            .body(body.to_string())?;
        let answer = self.http.send(request).await?;
        ensure!(answer.status().is_success(), "{}", answer.body());
        Ok(())
    }
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
    let title = provider.clone().ask("A title, please.");
    let title = tokio::spawn(title);
    provider.clone().ask(prompt).await?;
    if prompt.contains("research") {
        Box::pin(converse(provider, &["Find out.", "Sum up."])).await?;
    }
    title.await??;
    Ok(())
}
