//! Serves the page, and the data that it asks for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::{Stream, StreamExt, stream};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use reqwest_opencode_session::SessionId;
use reqwest_opencode_session::testing::{Price, SeenRequest};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::journal::{Conversation, Journal, stands_out_for};
use crate::json;
use crate::rules::{self, Rules};
use crate::setup::{self, Place};

/// What the page shows.
pub struct Page {
    pub journal: Journal,
    pub changes: broadcast::Sender<Arc<str>>,
    /// Where the program listens.
    pub origin: String,
    pub upstream: Option<String>,
    pub key: Option<String>,
    /// The session of the first call that the page proposes.
    pub session: SessionId,
}

/// Returns whether a request is for the page; all others are for the gateway.
pub fn is_for_the_page(path: &str) -> bool {
    matches!(
        path,
        "/" | "/page.css" | "/page.js" | "/favicon.svg" | "/favicon.ico"
    ) || ["state", "calls", "conversations", "events"]
        .iter()
        .any(|data| {
            let rest = path
                .strip_prefix("/api/")
                .and_then(|path| path.strip_prefix(data));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
}

impl Page {
    pub fn router(self) -> Router {
        let file = |text: &'static str, kind: &'static str| {
            get(async move || ([(CONTENT_TYPE, kind)], text))
        };
        Router::new()
            .route(
                "/",
                file(
                    include_str!("../page/page.html"),
                    "text/html; charset=utf-8",
                ),
            )
            .route(
                "/page.css",
                file(include_str!("../page/page.css"), "text/css; charset=utf-8"),
            )
            .route(
                "/page.js",
                file(
                    include_str!("../page/page.js"),
                    "text/javascript; charset=utf-8",
                ),
            )
            .route(
                "/favicon.svg",
                file(include_str!("../page/favicon.svg"), "image/svg+xml"),
            )
            .route("/api/state", get(state))
            .route("/api/calls", get(calls))
            .route("/api/calls/{number}", get(call))
            .route("/api/conversations", get(conversations))
            .route("/api/events", get(events))
            .with_state(Arc::new(self))
            .layer(axum::middleware::map_response(harden))
    }
}

/// Keeps other origins from running anything on the page, and browsers from storing it.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

/// The most calls or conversations in one response or event.
const MOST: usize = 100;

async fn state(State(page): State<Arc<Page>>) -> Json<Value> {
    let Page { journal, .. } = &*page;
    let rules = &journal.rules;
    let latest = |meets: &dyn Fn(&SeenRequest) -> bool| {
        page_of(MOST, |count| journal.log.latest(u64::MAX, count, meets))
    };
    let (calls, more_calls) = latest(&|_| true);
    let (standouts, more_standouts) = latest(&|call| journal.rules.stands_out(call));
    let (conversations, more_conversations) = page_of(MOST, |count| {
        journal.conversations(u64::MAX, count, |_| true)
    });
    let place = Place {
        origin: &page.origin,
        key: page.key.as_deref(),
    };
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "mode": if page.upstream.is_some() { "upstream" } else { "loopback" },
        "upstream": page.upstream,
        "address": page.origin,
        "prices": page.upstream.is_none().then_some(Price::AS_OF),
        "setups": setup::all(place),
        "try": setup::first_call(place, &page.session),
        "totals": journal.totals(),
        "conversations": conversations,
        "more_conversations": more_conversations,
        "calls": listed(calls, rules),
        "more_calls": more_calls,
        "standouts": listed(standouts, rules),
        "more_standouts": more_standouts,
    }))
}

#[derive(Deserialize)]
struct Search {
    before: Option<u64>,
    limit: Option<usize>,
    session: Option<String>,
    /// A reason for standing out, or any other word for all reasons.
    stands_out: Option<String>,
    q: Option<String>,
}

async fn calls(State(page): State<Arc<Page>>, Query(search): Query<Search>) -> Json<Value> {
    let words = Words::of(search.q.as_deref());
    let meets = |request: &SeenRequest| {
        (search.session.is_none() || request.session == search.session)
            && (search.stands_out.as_deref())
                .is_none_or(|reason| stands_out_for(request, &page.journal.rules, reason))
            && words.are_in_call(request)
    };
    let limit = search.limit.unwrap_or(MOST).min(MOST);
    let (calls, more) = page_of(limit, |count| {
        let before = search.before.unwrap_or(u64::MAX);
        page.journal.log.latest(before, count, meets)
    });
    Json(json!({"calls": listed(calls, &page.journal.rules), "more": more}))
}

async fn conversations(State(page): State<Arc<Page>>, Query(search): Query<Search>) -> Json<Value> {
    if let Some(session) = &search.session {
        return Json(json!({"conversations": page.journal.family(session), "more": false}));
    }
    let words = Words::of(search.q.as_deref());
    let limit = search.limit.unwrap_or(MOST).min(MOST);
    let (conversations, more) = page_of(limit, |count| {
        let before = search.before.unwrap_or(u64::MAX);
        let meets = |conversation: &Conversation| words.are_in_conversation(conversation);
        page.journal.conversations(before, count, meets)
    });
    Json(json!({"conversations": conversations, "more": more}))
}

async fn call(State(page): State<Arc<Page>>, Path(number): Path<u64>) -> Response {
    match page.journal.log.get(number) {
        Some(request) => Json(json::of_call(&request, &page.journal.rules)).into_response(),
        None => {
            let message = json!({"error": format!("call {number} is not kept")});
            (StatusCode::NOT_FOUND, Json(message)).into_response()
        }
    }
}

/// How long the page waits before it reconnects.
const RETRY: Duration = Duration::from_secs(1);

async fn events(
    State(page): State<Arc<Page>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = stream::unfold(page.changes.subscribe(), async |mut changes| {
        let event = match changes.recv().await {
            Ok(change) => Event::default().event("change").data(&*change),
            Err(RecvError::Lagged(_)) => Event::default().event("reload").data("{}"),
            Err(RecvError::Closed) => return None,
        };
        Some((event, changes))
    });
    let numbered = changes.enumerate();
    let numbered = numbered.map(|(number, event)| event.id(number.to_string()));
    let retry = Event::default().retry(RETRY);
    let events = stream::iter([retry]).chain(numbered).map(Ok);
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// Returns at most `limit` items, and whether there are more.
fn page_of<T>(limit: usize, find: impl FnOnce(usize) -> Vec<T>) -> (Vec<T>, bool) {
    let mut found = find(limit + 1);
    let more = found.len() > limit;
    found.truncate(limit);
    (found, more)
}

/// The words of a search.
struct Words(Vec<String>);

impl Words {
    fn of(words: Option<&str>) -> Self {
        let words = words.unwrap_or_default().split_whitespace();
        // An id or a prompt may be sought as the page prints it, with what it leaves out.
        let words = words.flat_map(|word| word.split('…'));
        let words = words.filter(|word| !word.is_empty());
        Self(words.map(str::to_lowercase).collect())
    }

    fn are_in_call(&self, request: &SeenRequest) -> bool {
        self.0.is_empty() || {
            let status = request.status.map(|status| status.as_u16().to_string());
            let marks: Vec<String> = request.marks.iter().map(ToString::to_string).collect();
            let client = rules::client(request);
            let mut texts = vec![request.kind(), &request.path];
            texts.extend(client.as_deref());
            texts.extend(marks.iter().map(String::as_str));
            texts.extend(request.tools.iter().map(String::as_str));
            let fields = [
                &request.session,
                &request.turn,
                &request.project,
                &request.parent,
                &request.model,
                &request.system,
                &request.prompt,
                &request.provider,
                &request.error,
                &request.error_message,
                &status,
            ];
            texts.extend(fields.into_iter().flatten().map(String::as_str));
            self.are_in(&texts)
        }
    }

    fn are_in_conversation(&self, conversation: &Conversation) -> bool {
        let mut texts = vec![&*conversation.session];
        let fields = [
            &conversation.parent,
            &conversation.client,
            &conversation.title,
        ];
        texts.extend(fields.into_iter().flatten().map(String::as_str));
        self.are_in(&texts)
    }

    fn are_in(&self, texts: &[&str]) -> bool {
        let texts = texts.join("\n").to_lowercase();
        self.0.iter().all(|word| texts.contains(word))
    }
}

/// Returns what the page is told about calls and conversations that are new or have changed.
pub fn change(journal: &Journal, mut numbers: Vec<u64>, sessions: &[String]) -> Value {
    numbers.sort_unstable();
    numbers.dedup();
    let calls = numbers.iter().rev().take(MOST);
    let calls = calls
        .filter_map(|number| journal.log.get(*number))
        .collect();
    let conversations = sessions
        .iter()
        .filter_map(|session| journal.conversation(session));
    let mut conversations: Vec<Conversation> = conversations.collect();
    conversations.sort_unstable_by_key(|conversation| std::cmp::Reverse(conversation.last));
    let more = numbers.len() > MOST || conversations.len() > MOST;
    conversations.truncate(MOST);
    json!({
        "calls": listed(calls, &journal.rules),
        "conversations": conversations,
        "totals": journal.totals(),
        "more": more,
    })
}

/// Returns calls as a list shows them: without headers, and with long texts cut.
fn listed(requests: Vec<SeenRequest>, rules: &Rules) -> Vec<Value> {
    let calls = requests.iter();
    calls.map(|request| in_list(request, rules)).collect()
}

fn in_list(request: &SeenRequest, rules: &Rules) -> Value {
    let mut call = json::of_call(request, rules);
    call["tool_count"] = request.tools.len().into();
    if let Value::Object(fields) = &mut call {
        fields.remove("headers");
        fields.remove("tools");
    }
    shorten(&mut call);
    call
}

fn shorten(value: &mut Value) {
    const LONGEST: usize = 300;
    match value {
        Value::String(text) => {
            if let Some((end, _)) = text.char_indices().nth(LONGEST) {
                text.truncate(end);
                text.push('…');
            }
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        _ => {}
    }
}
