//! An application that has an ambient session of its own, which it changes.

use std::sync::{Arc, Mutex};

use anyhow::Result;
use reqwest::Client;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use serde_json::json;

tokio::task_local! {
    /// The conversation that this task is in, by the application's own id. `/new` changes it.
    pub static CURRENT: Arc<Mutex<String>>;
}

fn current() -> Option<String> {
    CURRENT.try_with(|id| id.lock().unwrap().clone()).ok()
}

pub fn client() -> Result<ClientWithMiddleware> {
    let http = Client::builder().user_agent("my-agent/1.0");
    let http = ClientBuilder::new(http.build()?);
    let retries = ExponentialBackoff::builder().build_with_max_retries(2);
    let http = http.with(RetryTransientMiddleware::new_with_policy(retries));
    Ok(http.build())
}

/// Asks the model, with a title that is made by a task of its own.
pub async fn ask(http: &ClientWithMiddleware, url: &str, key: &str, model: &str) -> Result<()> {
    let call = |prompt| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": prompt}]});
        http.post(url).bearer_auth(key).json(&body).send()
    };
    let (title, answer) = (call("A title, please."), call("Hello"));
    let title = match current() {
        Some(id) => tokio::spawn(CURRENT.scope(Arc::new(Mutex::new(id)), title)),
        None => tokio::spawn(title),
    };
    answer.await?.error_for_status()?.text().await?;
    title.await??.error_for_status()?.text().await?;
    Ok(())
}
