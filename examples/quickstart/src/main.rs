//! Two conversations with OpenCode at once, each in a session of its own.
//!
//! `cargo run -p quickstart` talks to the test gateway, and ends with a table of what the gateway
//! saw.
//!
//! `cargo run -p quickstart --features live -- --live` holds one conversation with OpenCode Go
//! instead, with the key in `OPENCODE_API_KEY`. `OPENCODE_BASE_URL` names a gateway other than
//! `https://opencode.ai/zen/go/v1`.

use std::env;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_opencode_session::testing::{Gateway, Price, SeenRequest};
use reqwest_opencode_session::{
    OpencodeSessionMiddleware, OpencodeSessionMiddlewareBuilder, Session, WithSession,
};
use serde_json::{Value, json};

const MODEL: &str = "deepseek-v4.1-flash";

/// The longest answer that is asked for, in tokens.
const LONGEST_ANSWER: u32 = 200;

const QUESTIONS: [&str; 3] = [
    "What should I see there?",
    "And if it rains?",
    "Which of that is free?",
];

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => with_test_gateway().await,
        ["--live"] if cfg!(feature = "live") => live().await,
        ["--live"] => Err(anyhow::anyhow!(
            "`--live` needs TLS: cargo run -p quickstart --features live -- --live"
        )),
        _ => Err(anyhow::anyhow!("the only argument is `--live`")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn with_test_gateway() -> Result<()> {
    // While it runs, it is a target of every middleware in the process.
    let gateway = Gateway::start().context("cannot start the test gateway")?;
    let agent = Agent {
        client: opencode()
            .build()?
            .into_client(reqwest::Client::builder().no_proxy())?,
        base_url: gateway.url("/zen/go/v1"),
        key: Gateway::KEY.to_owned(),
    };

    println!("A client without the middleware:");
    // It carries no session, so it needs no redirect policy.
    let plain = reqwest::Client::builder().no_proxy().build()?;
    let refusal = plain
        .post(gateway.url("/zen/go/v1/chat/completions"))
        .bearer_auth(Gateway::KEY)
        .json(&json!({"model": MODEL, "messages": [{"role": "user", "content": QUESTIONS[0]}]}))
        .send()
        .await?;
    println!("  {}: {}\n", refusal.status(), refusal.text().await?);
    gateway.take_requests();

    println!("A client with it, in two conversations at once (the answers are made-up words):");
    let (lisbon, oslo) = (Session::new(), Session::new());
    tokio::try_join!(
        agent.conversation("Lisbon", &lisbon, true),
        agent.conversation("Oslo", &oslo, false),
    )?;

    println!("\nWhat the gateway saw:");
    print_table(&gateway.requests(), &[("Lisbon", &lisbon), ("Oslo", &oslo)]);
    Ok(())
}

async fn live() -> Result<()> {
    let key = env::var("OPENCODE_API_KEY").context("`--live` needs a key in OPENCODE_API_KEY")?;
    let base_url = env::var("OPENCODE_BASE_URL");
    let base_url = base_url
        .as_deref()
        .unwrap_or("https://opencode.ai/zen/go/v1");
    let base_url = base_url.trim_end_matches('/').to_owned();
    let origin = reqwest::Url::parse(&base_url)
        .context("OPENCODE_BASE_URL is not a URL")?
        .origin();
    let agent = Agent {
        client: opencode()
            .target(origin.ascii_serialization())
            .build()?
            .into_client(reqwest::Client::builder())?,
        base_url,
        key,
    };
    let calls = QUESTIONS.len() as f64;
    // A token has about four characters; each turn adds a question and an answer to the prompt.
    let prompt = guide("Lisbon").len() as f64 / 4.0 + calls * f64::from(LONGEST_ANSWER);
    let price = Price::of(MODEL).context("the model has no known price")?;
    let dollars = calls * (prompt * price.prompt + f64::from(LONGEST_ANSWER) * price.output) / 1e6;
    println!(
        "{calls} turns with {MODEL} at {}, for ${dollars:.4} at most at off-peak prices:",
        agent.base_url,
    );
    let session = Session::new();
    agent.conversation("Lisbon", &session, false).await?;
    println!("All of it was in session {}", session.id());
    Ok(())
}

fn opencode() -> OpencodeSessionMiddlewareBuilder {
    OpencodeSessionMiddleware::builder()
        .client_name("quickstart")
        .user_agent("quickstart/1.0")
}

/// An agent whose calls know nothing about sessions.
struct Agent {
    client: ClientWithMiddleware,
    base_url: String,
    key: String,
}

impl Agent {
    /// Holds a conversation of several turns. A researcher, if there is one, helps with the first.
    async fn conversation(&self, city: &str, session: &Session, researcher: bool) -> Result<()> {
        let mut messages = vec![json!({"role": "system", "content": guide(city)})];
        for (number, question) in QUESTIONS.into_iter().enumerate() {
            messages.push(json!({"role": "user", "content": question}));
            // Everything that is done for one prompt is one turn.
            let turn = session.turn();
            let answer = self.ask(&messages).with_session(turn.clone()).await?;
            println!("  {city}, turn {}: {answer}", number + 1);
            messages.push(json!({"role": "assistant", "content": answer.text}));
            if researcher && number == 0 {
                let task = [json!({"role": "user", "content": format!("Opening hours in {city}")})];
                let answer = self.ask(&task).with_session(turn.subagent().turn()).await?;
                println!("  {city}, researcher: {answer}");
            }
        }
        Ok(())
    }

    /// Streams the model's answer.
    async fn ask(&self, messages: &[Value]) -> Result<Answer> {
        let url = format!("{}/chat/completions", self.base_url);
        let mut response = self
            .client
            .post(&url)
            .bearer_auth(&self.key)
            .json(&json!({
                "model": MODEL,
                "messages": messages,
                "max_tokens": LONGEST_ANSWER,
                "stream": true,
                "stream_options": {"include_usage": true},
            }))
            .send()
            .await
            .with_context(|| format!("cannot reach the gateway at {}", self.base_url))?;
        if !response.status().is_success() {
            bail!(
                "the gateway answered {}: {}",
                response.status(),
                response.text().await?
            );
        }
        let (mut answer, mut buffer) = (Answer::default(), vec![]);
        while let Some(chunk) = response.chunk().await.context("the answer broke off")? {
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                answer.add(&line)?;
            }
        }
        Ok(answer)
    }
}

/// What a model answered, piece by piece.
#[derive(Default)]
struct Answer {
    text: String,
    pieces: usize,
    cached: u64,
    prompt: u64,
}

impl Answer {
    /// Takes one line of the stream.
    fn add(&mut self, line: &[u8]) -> Result<()> {
        let Some(data) = line
            .strip_prefix(b"data: ")
            .filter(|data| !data.starts_with(b"[DONE]"))
        else {
            return Ok(());
        };
        let chunk: Value = serde_json::from_slice(data).context("the answer is not JSON")?;
        if let Some(piece) = chunk["choices"][0]["delta"]["content"].as_str() {
            self.text += piece;
            self.pieces += 1;
        }
        if let Some(prompt) = chunk["usage"]["prompt_tokens"].as_u64() {
            self.prompt = prompt;
            let details = &chunk["usage"]["prompt_tokens_details"];
            self.cached = details["cached_tokens"].as_u64().unwrap_or(0);
        }
        Ok(())
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cached = share(self.cached, self.prompt);
        write!(
            f,
            "\"{}\" ({} pieces, {cached} of the prompt cached)",
            self.text.trim(),
            self.pieces
        )
    }
}

/// A prompt that is long enough to make a cache worthwhile.
fn guide(city: &str) -> String {
    let rules = "Name places by their local names, and say how to reach them on foot. ".repeat(80);
    format!("You are a guide to {city}. Answer in one sentence. {rules}")
}

fn print_table(requests: &[SeenRequest], conversations: &[(&str, &Session)]) {
    let name_of = |id: &Option<String>| {
        let named = |(_, session): &&(&str, &Session)| id.as_deref() == Some(session.id().as_str());
        conversations.iter().find(named).map(|(name, _)| *name)
    };
    println!(
        "  {:<20} {:<6} {:<8} {:>7}   session",
        "conversation", "turn", "provider", "cached"
    );
    let mut turns: Vec<(&Option<String>, &Option<String>)> = vec![];
    for request in requests {
        let (session, turn) = (&request.session, &request.turn);
        if !turns.contains(&(session, turn)) {
            turns.push((session, turn));
        }
        let number = turns.iter().filter(|(other, _)| *other == session).count();
        let conversation = match (name_of(session), name_of(&request.parent)) {
            (Some(name), _) => name.to_owned(),
            (None, Some(parent)) => format!("{parent}'s researcher"),
            (None, None) => "none".to_owned(),
        };
        println!(
            "  {conversation:<20} {number:<6} {:<8} {:>7}   {}",
            request.provider.as_deref().unwrap_or("none"),
            share(request.cached_tokens, request.prompt_tokens),
            session.as_deref().unwrap_or("none"),
        );
    }
}

fn share(part: u64, whole: u64) -> String {
    format!("{} %", part * 100 / whole.max(1))
}
