//! Which of my calls miss the session?
//!
//! `cargo run --example gateway --features testing` starts a gateway on loopback that answers like
//! OpenCode. Point your client at it, whatever its language: the calls appear in the terminal, and
//! on a page in the browser, as they come. Those without a session stand out, and so do those whose
//! session is suddenly another one.
//!
//! Options, each with a value: `--gateway 127.0.0.1:4141`, `--page 127.0.0.1:4142`, and `--key KEY`
//! for a key that it takes besides its own.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::error::Error;
use std::io::{IsTerminal, stdout};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::response::sse::{Event, Sse};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use futures::{Stream, StreamExt, stream};
use http::Method;
use http::header::USER_AGENT;
use reqwest_opencode_session::testing::{Gateway, SeenRequest};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

const PAGE: &str = include_str!("gateway.html");

const HEADINGS: [&str; 10] = [
    "time UTC", "status", "session", "", "turn", "cached", "model", "provider", "client", "call",
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut gateway = Gateway::builder().address(SocketAddr::from(([127, 0, 0, 1], 4141)));
    let mut page = SocketAddr::from(([127, 0, 0, 1], 4142));
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or("each option has a value")?;
        match option.as_str() {
            "--gateway" => gateway = gateway.address(value.parse()?),
            "--page" => page = value.parse()?,
            "--key" => gateway = gateway.key(value),
            _ => return Err(format!("there is no option {option}").into()),
        }
    }
    let gateway = gateway.start()?;
    let page = TcpListener::bind(page).await?;
    println!("OpenCode Go is at  {}", gateway.url("/zen/go/v1"));
    println!("Its key is         {}", Gateway::KEY);
    println!("The calls are at   http://{}\n", page.local_addr()?);
    watch(gateway, page).await?;
    Ok(())
}

/// Shows the gateway's calls in the terminal and on the page, for ever.
pub async fn watch(gateway: Gateway, page: TcpListener) -> std::io::Result<Infallible> {
    let (calls, shown) = watch::channel(Vec::new());
    let start = json!({"url": gateway.url("/zen/go/v1"), "key": Gateway::KEY});
    let events = get(async move || Sse::new(events(start.clone(), shown.clone())));
    let router = Router::new()
        .route("/", get(async || Html(PAGE).into_response()))
        .route("/calls", events);
    tokio::spawn(axum::serve(page, router).into_future());

    println!("{}", row(HEADINGS));
    let mut clients = Clients::default();
    let colors = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    loop {
        for request in gateway.take_requests() {
            let call = Call::new(request, &mut clients);
            println!("{}", call.line(colors));
            calls.send_modify(|calls| calls.push(call.json()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a page gets: where the gateway is, then all calls so far, then each one as it comes.
fn events(
    start: Value,
    calls: watch::Receiver<Vec<Value>>,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let start = Event::default().event("start").data(start.to_string());
    let calls = stream::unfold((calls, 0), async |(mut calls, sent)| {
        let all = calls.wait_for(|calls| calls.len() > sent).await.ok()?;
        let event = Event::default().data(Value::from(&all[sent..]).to_string());
        let sent = all.len();
        drop(all);
        Some((event, (calls, sent)))
    });
    stream::iter([start]).chain(calls).map(Ok)
}

/// The sessions that each client was in.
type Clients = HashMap<String, HashSet<String>>;

/// What there is to say about a call's session.
#[derive(Clone, Copy)]
enum Remark {
    /// There is none.
    Missing,
    /// The client was in another session before, and never in this one.
    Changed,
    /// It is a subagent's, and names its parent.
    Subagent,
}

impl Remark {
    fn of(request: &SeenRequest, client: &str, clients: &mut Clients) -> Option<Self> {
        let Some(session) = &request.session else {
            return (request.method == Method::POST).then_some(Self::Missing);
        };
        let known = clients.entry(client.to_owned()).or_default();
        let first = known.is_empty();
        let new = known.insert(session.clone());
        if request.parent.is_some() {
            Some(Self::Subagent)
        } else {
            (new && !first).then_some(Self::Changed)
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "no session",
            Self::Changed => "changed",
            Self::Subagent => "subagent",
        }
    }
}

/// One call, as it is shown.
struct Call {
    request: SeenRequest,
    client: String,
    remark: Option<Remark>,
}

impl Call {
    fn new(request: SeenRequest, clients: &mut Clients) -> Self {
        let user_agent = request.headers.get(USER_AGENT);
        let user_agent = user_agent.map(|value| String::from_utf8_lossy(value.as_bytes()));
        let client = request.client.clone();
        let client = client.or(user_agent.map(Into::into)).unwrap_or_default();
        let remark = Remark::of(&request, &client, clients);
        Self {
            request,
            client,
            remark,
        }
    }

    fn milliseconds(&self) -> u64 {
        let since = self.request.at.duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    }

    /// How much of the prompt was cached, in percent.
    fn cached(&self) -> Option<u64> {
        (self.request.cached_tokens * 100).checked_div(self.request.prompt_tokens)
    }

    /// The call for the page.
    fn json(&self) -> Value {
        let request = &self.request;
        json!({
            "at": self.milliseconds(),
            "call": format!("{} {}", request.method, request.path),
            "status": request.status.map(|status| status.as_u16()),
            "session": request.session,
            "remark": self.remark.map(Remark::as_str),
            "turn": request.turn,
            "cached": self.cached(),
            "model": request.model,
            "provider": request.provider,
            "client": self.client,
        })
    }

    /// The call for the terminal.
    fn line(&self, colors: bool) -> String {
        let request = &self.request;
        let second = self.milliseconds() / 1000;
        let [hour, minute, second] = [second / 3600 % 24, second / 60 % 60, second % 60];
        let line = row([
            &format!("{hour:02}:{minute:02}:{second:02}"),
            &request
                .status
                .map_or("closed".to_owned(), |status| status.as_str().to_owned()),
            &short(request.session.as_deref()),
            self.remark.map_or("", Remark::as_str),
            &short(request.turn.as_deref()),
            &self
                .cached()
                .map_or(String::new(), |share| format!("{share} %")),
            request.model.as_deref().unwrap_or_default(),
            request.provider.as_deref().unwrap_or_default(),
            &self.client,
            &format!("{} {}", request.method, request.path),
        ]);
        match self.remark {
            Some(Remark::Missing) if colors => format!("\x1b[1;31m{line}\x1b[0m"),
            Some(Remark::Changed) if colors => format!("\x1b[33m{line}\x1b[0m"),
            _ => line,
        }
    }
}

/// The last characters of an id, which are the ones that tell it from others.
fn short(id: Option<&str>) -> String {
    let id: Vec<char> = id.unwrap_or_default().chars().collect();
    match id.len() {
        0..=9 => id.into_iter().collect(),
        length => ['…'].iter().chain(&id[length - 8..]).collect(),
    }
}

/// A line of the terminal's table. Nothing in it can command the terminal.
fn row(cells: [&str; 10]) -> String {
    const WIDTHS: [usize; 10] = [8, 6, 9, 10, 9, 6, 20, 8, 20, 0];
    let cells = cells.iter().zip(WIDTHS).map(|(cell, width)| {
        let cell = cell.replace(char::is_control, "\u{fffd}");
        format!("{cell:width$}")
    });
    cells.collect::<Vec<_>>().join("  ")
}
