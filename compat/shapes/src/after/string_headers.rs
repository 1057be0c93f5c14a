//! An application that keeps its headers as pairs of strings.

use anyhow::{Context, Result};
use futures::TryStreamExt;
use reqwest::{Client, Response, Url};
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, WithSession, header};
use serde_json::json;

static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new();

/// A call of whatever provider.
struct Call {
    url: Url,
    headers: Vec<(String, String)>,
    body: String,
}

/// A provider, with headers of the user's own.
#[derive(Clone)]
pub struct Provider {
    http: Client,
    base_url: String,
    model: String,
    headers: Vec<(String, String)>,
}

impl Provider {
    pub fn new(base_url: &str, model: &str, headers: Vec<(String, String)>) -> Result<Self> {
        let http = Client::builder()
            .no_proxy()
            .user_agent("my-agent/1.0")
            .redirect(OPENCODE.redirect_policy())
            .build()?;
        Ok(Self {
            http,
            base_url: base_url.to_owned(),
            model: model.to_owned(),
            headers,
        })
    }

    fn call(&self, prompt: &str, stream: bool) -> Result<Call> {
        let url = Url::parse(&format!("{}/chat/completions", self.base_url))?;
        let messages = [json!({"role": "user", "content": prompt})];
        let body = json!({"model": self.model, "stream": stream, "messages": messages});
        let mut headers = self.headers.clone();
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
        if !headers.iter().any(|(own, _)| header::SESSION == **own) {
            for (name, value) in &OPENCODE.headers_for(&url)? {
                headers.push((name.to_string(), value.to_str()?.to_owned()));
            }
        }
        Ok(Call {
            url,
            headers,
            body: body.to_string(),
        })
    }

    async fn send(self, call: Call) -> Result<Response> {
        let mut request = self.http.post(call.url).body(call.body);
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        Ok(request.send().await?.error_for_status()?)
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
        let title = provider.call("A title, please.", false)?;
        let title = tokio::spawn(provider.clone().send(title));
        let answer = provider.call(prompt, true)?;
        let mut pieces = provider.clone().send(answer).await?.bytes_stream();
        while pieces.try_next().await?.is_some() {}
        if prompt.contains("research") {
            Box::pin(converse(provider, &["Find out.", "Sum up."])).await?;
        }
        title.await??;
    }
    Ok(())
}
