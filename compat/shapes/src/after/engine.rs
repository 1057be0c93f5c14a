//! An engine behind `&mut self`, whose conversation changes while it lives.

use anyhow::Result;
use reqwest::{Client, RequestBuilder};
use reqwest_opencode_session::{OpencodeSessionMiddleware, RequestBuilderExt as _, Session}; // new
use serde_json::{Value, json};

static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new(); // new

/// What a user types.
pub enum Input {
    Prompt(&'static str),
    /// Another conversation, from now on: the file that it is stored in.
    Open(String),
    /// Work for a subagent, with a file of its own.
    Delegate(String, &'static str),
}

pub fn client() -> Result<Client> {
    let http = Client::builder().user_agent("my-agent/1.0");
    let http = http.redirect(OPENCODE.redirect_policy()); // new
    Ok(http.build()?)
}

#[derive(Clone)]
pub struct Engine {
    pub http: Client,
    pub url: String,
    pub key: String,
    pub model: String,
    pub file: String,
    pub history: Vec<Value>,
}

impl Engine {
    pub async fn run(&mut self, inputs: Vec<Input>) -> Result<()> {
        for input in inputs {
            match input {
                Input::Prompt(text) => self.prompt(text, None).await?,
                Input::Open(file) => (self.file, self.history) = (file, vec![]),
                Input::Delegate(file, text) => self.prompt(text, Some(file)).await?,
            }
        }
        Ok(())
    }

    async fn prompt(&mut self, text: &str, subagent: Option<String>) -> Result<()> {
        let session = Session::derive("my-agent", &self.file); // new
        let turn = session.with_parent(Session::current()).turn(); // new
        let work = self.answer(text, subagent);
        let work = turn.scope(work); // new
        work.await
    }

    /// Everything that is done for one prompt.
    async fn answer(&mut self, text: &str, subagent: Option<String>) -> Result<()> {
        let title = self.call(&[json!({"role": "user", "content": "A title, please."})])?;
        let title = tokio::spawn(title.send());
        if let Some(file) = subagent {
            let history = vec![];
            let mut subagent = Self {
                file,
                history,
                ..self.clone()
            };
            Box::pin(subagent.prompt(text, None)).await?;
        }
        self.history.push(json!({"role": "user", "content": text}));
        let answer = self.call(&self.history)?.send().await?;
        let answer: Value = answer.error_for_status()?.json().await?;
        self.history.push(answer["choices"][0]["message"].clone());
        title.await??.error_for_status()?.text().await?;
        Ok(())
    }

    fn call(&self, messages: &[Value]) -> Result<RequestBuilder> {
        let body = json!({"model": self.model, "messages": messages});
        let call = self.http.post(&self.url).bearer_auth(&self.key).json(&body);
        let call = call.opencode_session(&OPENCODE)?; // new
        Ok(call)
    }
}
