//! An application with its own ambient session, which may change in the middle.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use futures::TryStreamExt;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, SessionId};
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use serde_json::json;
use tokio::task::JoinHandle;
use uuid::Uuid;

tokio::task_local! {
    /// The conversation that this task is in. `/new` puts another one here.
    static CURRENT: Arc<Mutex<Uuid>>;
}

fn current() -> Option<Uuid> {
    let lock = |id: &Arc<Mutex<Uuid>>| *id.lock().unwrap_or_else(PoisonError::into_inner);
    CURRENT.try_with(lock).ok()
}

/// Runs in the conversation, whatever comes of its task's.
fn spawn(work: impl Future<Output = Result<()>> + Send + 'static) -> JoinHandle<Result<()>> {
    let id = current().unwrap_or_else(Uuid::now_v7);
    tokio::spawn(CURRENT.scope(Arc::new(Mutex::new(id)), work))
}

/// What a user types.
pub enum Input {
    Prompt(&'static str),
    /// Another conversation, from now on.
    New(Uuid),
    /// Work for a subagent: a new one, or one that has worked before.
    Subagent(Uuid, &'static str),
}

#[derive(Clone)]
pub struct Agent {
    http: ClientWithMiddleware,
    url: String,
    key: String,
    model: String,
}

impl Agent {
    pub fn new(base_url: &str, key: &str, model: &str) -> Result<Self> {
        let opencode = OpencodeSessionMiddleware::builder()
            .session_from(|| Some(Session::from(SessionId::from(current()?))))
            .build()?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .user_agent("my-agent/1.0")
            .redirect(opencode.redirect_policy())
            .build()?;
        let retries = ExponentialBackoff::builder().build_with_max_retries(2);
        let http = ClientBuilder::new(http)
            .with(RetryTransientMiddleware::new_with_policy(retries))
            .with(opencode)
            .build();
        Ok(Self {
            http,
            url: format!("{base_url}/chat/completions"),
            key: key.to_owned(),
            model: model.to_owned(),
        })
    }

    pub async fn run(&self, conversation: Uuid, inputs: &[Input]) -> Result<()> {
        let current = Arc::new(Mutex::new(conversation));
        let inputs = inputs.iter();
        let work = async {
            for input in inputs {
                match input {
                    Input::Prompt(text) => self.answer(text).await?,
                    Input::New(id) => {
                        CURRENT.with(|current| *current.lock().expect("no panic") = *id)
                    }
                    Input::Subagent(id, text) => {
                        let current = Arc::new(Mutex::new(*id));
                        CURRENT.scope(current, self.answer(text)).await?;
                    }
                }
            }
            Ok(())
        };
        CURRENT.scope(current, work).await
    }

    async fn answer(&self, prompt: &str) -> Result<()> {
        let title = spawn(self.clone().title());
        let answer = self.call(prompt, true).await?;
        let mut pieces = answer.error_for_status()?.bytes_stream();
        while pieces.try_next().await?.is_some() {}
        title.await?
    }

    async fn title(self) -> Result<()> {
        let answer = self.call("A title, please.", false).await?;
        answer.error_for_status()?.bytes().await?;
        Ok(())
    }

    async fn call(&self, prompt: &str, stream: bool) -> Result<reqwest::Response> {
        let messages = [json!({"role": "user", "content": prompt})];
        let body = json!({"model": self.model, "stream": stream, "messages": messages});
        let request = self.http.post(&self.url).bearer_auth(&self.key).json(&body);
        Ok(request.send().await?)
    }
}
