//! A job queue: a turn begins in one process and continues in another.

use anyhow::Result;
use reqwest::{Client, Url};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_opencode_session::{Fallback, OpencodeSessionMiddleware, Session, WithSession};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A job in the queue.
#[derive(Serialize, Deserialize)]
pub struct Job {
    pub session: Session,
    pub model: String,
    pub prompt: String,
    /// The prompts that come after it.
    pub next: Vec<String>,
}

impl Job {
    /// Makes the first job for a user's prompt, which begins a turn.
    pub fn new(conversation: &Session, model: &str, prompt: &str, next: &[&str]) -> Self {
        Self {
            session: conversation.turn(),
            model: model.to_owned(),
            prompt: prompt.to_owned(),
            next: next.iter().map(|prompt| prompt.to_string()).collect(),
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
        let origin = Url::parse(base_url)?.origin().ascii_serialization();
        let builder = Client::builder();
        let builder = builder.no_proxy();
        let http = OpencodeSessionMiddleware::builder()
            .target(origin)
            .fallback(Fallback::Reject)
            .build()?
            .into_client(builder)?;
        Ok(Self {
            http,
            base_url: base_url.to_owned(),
            key: key.to_owned(),
        })
    }

    /// Does a job in its session, and returns what goes back to the queue, if anything is left.
    pub async fn work(&self, job: Job) -> Result<Option<Job>> {
        let session = job.session.clone();
        self.run(job).with_session(session).await
    }

    async fn run(&self, mut job: Job) -> Result<Option<Job>> {
        let answer = self.ask(&job.model, &job.prompt, true);
        let title = self.ask(&job.model, "A title, please.", false);
        tokio::try_join!(answer, title)?;
        if job.next.is_empty() {
            return Ok(None);
        }
        job.prompt = job.next.remove(0);
        Ok(Some(job))
    }

    async fn ask(&self, model: &str, prompt: &str, stream: bool) -> Result<String> {
        let messages = [json!({"role": "user", "content": prompt})];
        let url = format!("{}/chat/completions", self.base_url);
        let request = self.http.post(url).bearer_auth(&self.key);
        let request =
            request.json(&json!({"model": model, "stream": stream, "messages": messages}));
        Ok(request.send().await?.error_for_status()?.text().await?)
    }
}
