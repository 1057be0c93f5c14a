//! An engine behind `&mut self`, whose conversation changes while it lives.

use anyhow::Result;
use reqwest::Client;
use reqwest_opencode_session::{OpencodeSessionMiddleware, RequestBuilderExt, Session};
use serde_json::{Value, json};

static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new();

/// What a user types.
pub enum Input {
    Prompt(&'static str),
    /// Another conversation, from now on: the file that it is stored in.
    Open(String),
    /// Work for a subagent, with a file of its own.
    Delegate(String, &'static str),
}

pub struct Engine {
    http: Client,
    url: String,
    key: String,
    model: String,
    file: String,
    history: Vec<Value>,
}

impl Engine {
    pub fn new(url: &str, key: &str, model: &str, file: &str) -> Result<Self> {
        let http = Client::builder()
            .no_proxy()
            .user_agent("my-agent/1.0")
            .redirect(OPENCODE.redirect_policy())
            .build()?;
        Ok(Self {
            http,
            url: url.to_owned(),
            key: key.to_owned(),
            model: model.to_owned(),
            file: file.to_owned(),
            history: vec![],
        })
    }

    pub async fn run(&mut self, inputs: Vec<Input>) -> Result<()> {
        for input in inputs {
            match input {
                Input::Prompt(text) => self.prompt(text, None).await?,
                Input::Open(file) => {
                    self.file = file;
                    self.history.clear();
                }
                Input::Delegate(file, text) => self.prompt(text, Some(file)).await?,
            }
        }
        Ok(())
    }

    /// Everything that is done for one prompt.
    async fn prompt(&mut self, text: &str, subagents: Option<String>) -> Result<()> {
        let session = Session::derive("my-agent", &self.file).with_parent(Session::current());
        session.turn().scope(self.answer(text, subagents)).await
    }

    async fn answer(&mut self, text: &str, subagents: Option<String>) -> Result<()> {
        if let Some(file) = subagents {
            let mut subagent = Self::new(&self.url, &self.key, &self.model, &file)?;
            Box::pin(subagent.prompt(text, None)).await?;
        }
        let title = self.call(json!([{"role": "user", "content": "A title, please."}]))?;
        let title = tokio::spawn(title.send());
        self.history.push(json!({"role": "user", "content": text}));
        let answer = self.call(self.history.clone().into())?.send().await?;
        let answer: Value = answer.error_for_status()?.json().await?;
        self.history.push(answer["choices"][0]["message"].clone());
        title.await??.error_for_status()?;
        Ok(())
    }

    fn call(&self, messages: Value) -> Result<reqwest::RequestBuilder> {
        let body = json!({"model": self.model, "messages": messages});
        let request = self.http.post(&self.url).bearer_auth(&self.key).json(&body);
        Ok(request.opencode_session(&OPENCODE)?)
    }
}
