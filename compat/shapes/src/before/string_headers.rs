//! A client that holds headers as pairs of strings.

use anyhow::Result;
use reqwest::{Client, Response, Url};
use serde_json::json;

pub fn client() -> Result<Client> {
    let http = Client::builder().user_agent("my-agent/1.0");
    Ok(http.build()?)
}

/// A call that is ready to be sent.
struct Call {
    headers: Vec<(String, String)>,
    body: String,
}

/// A provider, with the headers that the user has configured.
#[derive(Clone)]
pub struct Provider {
    pub http: Client,
    pub url: Url,
    pub model: String,
    pub headers: Vec<(String, String)>,
}

impl Provider {
    fn call(&self, prompt: &str) -> Result<Call> {
        let mut headers = self.headers.clone();
        headers.push(("content-type".to_owned(), "application/json".to_owned()));

        let messages = [json!({"role": "user", "content": prompt})];
        let body = json!({"model": self.model, "messages": messages}).to_string();
        Ok(Call { headers, body })
    }

    async fn send(self, call: Call) -> Result<Response> {
        let mut request = self.http.post(self.url).body(call.body);
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        Ok(request.send().await?.error_for_status()?)
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
    // The session is read here, so the task needs none.
    let title = provider.call("A title, please.")?;
    let title = tokio::spawn(provider.clone().send(title));
    let answer = provider.call(prompt)?;
    provider.clone().send(answer).await?.text().await?;
    if prompt.contains("research") {
        Box::pin(converse(provider, &["Find out.", "Sum up."])).await?;
    }
    title.await??.text().await?;
    Ok(())
}
