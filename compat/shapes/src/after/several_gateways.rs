//! One client for several gateways, each with its own session header and its own ids.

use anyhow::Result;
use reqwest::Client;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, Target, WithSession as _};
use serde_json::json;

/// Where a model is served.
#[derive(Clone)]
pub struct Provider {
    /// Its name: the ids that it sees are derived for it.
    pub name: String,
    pub url: String,
    pub key: String,
}

/// `openrouter` is `https://openrouter.ai`. OpenCode is a target by default.
pub fn client(openrouter: &str) -> Result<ClientWithMiddleware> {
    let openrouter: Target = openrouter.parse()?;
    let client = OpencodeSessionMiddleware::builder()
        .target(openrouter.session_header("x-session-id")?)
        .build()?
        .into_client(Client::builder())?;
    Ok(client)
}

/// Gets an answer, in a session that no other gateway sees.
pub async fn answer(
    http: &ClientWithMiddleware,
    provider: &Provider,
    session: &Session,
    secret: &str,
    prompt: &str,
) -> Result<String> {
    let messages = [json!({"role": "user", "content": prompt})];
    let body = json!({"model": "kimi-k3", "messages": messages});
    let call = http.post(&provider.url).bearer_auth(&provider.key);
    let session = session.derived(format!("{secret}/{}", provider.name));
    let answer = call.json(&body).send().with_session(session).await?;
    Ok(answer.error_for_status()?.text().await?)
}
