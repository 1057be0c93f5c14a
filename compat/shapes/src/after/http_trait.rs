//! An application with its own HTTP trait, over `http::Request`.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, WithSession};
use serde_json::json;

static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new();

/// What the application knows of HTTP.
pub trait Http: Send + Sync {
    fn send(&self, request: Request<String>) -> BoxFuture<'_, Result<Response<String>>>;
}

/// The implementation that it ships.
pub struct Reqwest(reqwest::Client);

impl Reqwest {
    pub fn new() -> Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .user_agent("my-agent/1.0")
            .redirect(OPENCODE.redirect_policy())
            .build()?;
        Ok(Self(client))
    }
}

impl Http for Reqwest {
    fn send(&self, mut request: Request<String>) -> BoxFuture<'_, Result<Response<String>>> {
        Box::pin(async move {
            request.headers_mut().remove("x-internal");
            OPENCODE.apply(&mut request)?;
            let answer = self.0.execute(request.try_into()?).await?;
            let status = answer.status();
            Ok(Response::builder()
                .status(status)
                .body(answer.text().await?)?)
        })
    }
}

#[derive(Clone)]
pub struct Provider {
    pub http: Arc<dyn Http>,
    pub base_url: String,
    pub key: String,
    pub model: String,
}

impl Provider {
    async fn answer(self, prompt: String, stream: bool) -> Result<()> {
        let messages = [json!({"role": "user", "content": prompt})];
        let body = json!({"model": self.model, "stream": stream, "messages": messages});
        let request = Request::post(format!("{}/chat/completions", self.base_url))
            .header(AUTHORIZATION, format!("Bearer {}", self.key))
            .body(body.to_string())?;
        let answer = self.http.send(request).await?;
        ensure!(answer.status().is_success(), "{}", answer.body());
        Ok(())
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
        let title = provider.clone().answer("A title, please.".into(), false);
        let title = tokio::spawn(title.with_current_session());
        provider.clone().answer(prompt.to_string(), true).await?;
        if prompt.contains("research") {
            Box::pin(converse(provider, &["Find out.", "Sum up."])).await?;
        }
        title.await??;
    }
    Ok(())
}
