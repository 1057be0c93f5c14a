//! A gateway that takes the session in the body.

use anyhow::Result;
use reqwest::Client;
use reqwest_opencode_session::Session;
use serde_json::{Value, json};

/// Puts the session where this API looks for it.
pub fn name_session(body: &mut Value, api: Api, session: &Session) {
    match api {
        Api::OpenAi => body["prompt_cache_key"] = json!(session.id()),
        Api::Anthropic => body["metadata"]["user_id"] = json!(session.id()),
    }
}

#[derive(Clone, Copy)]
pub enum Api {
    OpenAi,
    Anthropic,
}

pub async fn ask(http: &Client, url: &str, key: &str, session: &Session) -> Result<String> {
    let messages = [json!({"role": "user", "content": "Hello"})];
    let mut body = json!({"model": "kimi-k3", "messages": messages});
    name_session(&mut body, Api::OpenAi, session);
    let call = http.post(url).bearer_auth(key).json(&body);
    Ok(call.send().await?.error_for_status()?.text().await?)
}
