//! A turn that is continued in other processes: the session travels with the job.

use anyhow::Result;
use reqwest::{Client, Url};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_opencode_session::{Fallback, OpencodeSessionMiddleware, Session, WithSession as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A job in the queue.
#[derive(Serialize, Deserialize)]
pub struct Job {
    pub session: Session,
    pub model: String,
    /// This job's prompt, and those that come after it.
    pub prompts: Vec<String>,
}

impl Job {
    /// Makes the first job for a user's prompt, which begins a turn.
    pub fn new(conversation: &Session, model: &str, prompts: &[&str]) -> Self {
        let prompts = prompts.iter().map(ToString::to_string).collect();
        let (session, model) = (conversation.turn(), model.to_owned());
        Self {
            session,
            model,
            prompts,
        }
    }
}

pub struct Worker {
    http: ClientWithMiddleware,
    base_url: String,
    key: String,
}

impl Worker {
    pub fn new(base_url: &str, key: &str) -> Result<Self> {
        let http = OpencodeSessionMiddleware::builder()
            .target(Url::parse(base_url)?.origin().ascii_serialization())
            .fallback(Fallback::Reject)
            .build()?
            .into_client(Client::builder())?;
        let (base_url, key) = (base_url.to_owned(), key.to_owned());
        Ok(Self {
            http,
            base_url,
            key,
        })
    }

    /// Does a job in its session, and returns what goes back to the queue, if anything is left.
    pub async fn work(&self, mut job: Job) -> Result<Option<Job>> {
        let prompt = job.prompts.remove(0);
        async {
            let answer = self.ask(&job.model, &prompt);
            let title = self.ask(&job.model, "A title, please.");
            tokio::try_join!(answer, title)
        }
        .with_session(&job.session)
        .await?;
        Ok((!job.prompts.is_empty()).then_some(job))
    }

    async fn ask(&self, model: &str, prompt: &str) -> Result<String> {
        let messages = [json!({"role": "user", "content": prompt})];
        let url = format!("{}/chat/completions", self.base_url);
        let call = self.http.post(url).bearer_auth(&self.key);
        let call = call.json(&json!({"model": model, "messages": messages}));
        Ok(call.send().await?.error_for_status()?.text().await?)
    }
}
