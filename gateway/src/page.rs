//! Serves the page, and the data that it asks for.

use std::cell::RefCell;
use std::collections::HashSet;
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
use reqwest_opencode_session::testing::record::Log;
use reqwest_opencode_session::testing::{Mark, Price, SeenRequest};
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
    /// Whether a session is added to calls that carry none.
    pub adds: bool,
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
    /// Returns the conversations with a call in which these words are.
    fn conversations_with_calls(&self, words: &Words) -> HashSet<u64> {
        let found = RefCell::new(vec![]);
        self.journal.log.latest(u64::MAX, usize::MAX, |call| {
            if words.are_in_call(call) {
                found.borrow_mut().push((call.number, call.session.clone()));
            }
            // None is copied.
            false
        });
        let ids = self.journal.conversations_with(&found.into_inner());
        ids.into_iter().collect()
    }

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
        "adds": page.adds,
        "address": page.origin,
        "prices": page.upstream.is_none().then_some(Price::AS_OF),
        "setups": setup::all(place),
        "try": setup::first_call(place, &page.session),
        "totals": journal.totals(),
        "conversations": conversations,
        "more_conversations": more_conversations,
        "calls": listed(calls, journal),
        "more_calls": more_calls,
        "standouts": listed(standouts, journal),
        "more_standouts": more_standouts,
    }))
}

#[derive(Deserialize)]
struct Search {
    before: Option<u64>,
    limit: Option<usize>,
    session: Option<String>,
    conversation: Option<u64>,
    /// A reason for standing out, or any other word for all reasons.
    stands_out: Option<String>,
    q: Option<String>,
}

async fn calls(State(page): State<Arc<Page>>, Query(search): Query<Search>) -> Json<Value> {
    let words = Words::of(search.q.as_deref());
    let is_member = search.conversation.map(|id| page.journal.members(id));
    let meets = |request: &SeenRequest| {
        is_member
            .as_ref()
            .is_none_or(|is_member| is_member(request))
            && (search.session.is_none() || request.session == search.session)
            && (search.stands_out.as_deref())
                .is_none_or(|reason| stands_out_for(request, &page.journal.rules, reason))
            && words.are_in_call(request)
    };
    let limit = search.limit.unwrap_or(MOST).min(MOST);
    let (calls, more) = page_of(limit, |count| {
        let before = search.before.unwrap_or(u64::MAX);
        page.journal.log.latest(before, count, meets)
    });
    Json(json!({"calls": listed(calls, &page.journal), "more": more}))
}

async fn conversations(State(page): State<Arc<Page>>, Query(search): Query<Search>) -> Json<Value> {
    if let Some(id) = search.conversation {
        return Json(json!({"conversations": page.journal.family(id), "more": false}));
    }
    let words = Words::of(search.q.as_deref());
    let with_calls = match words.0.is_empty() {
        true => HashSet::new(),
        false => page.conversations_with_calls(&words),
    };
    let limit = search.limit.unwrap_or(MOST).min(MOST);
    let (conversations, more) = page_of(limit, |count| {
        let before = search.before.unwrap_or(u64::MAX);
        let meets = |conversation: &Conversation| {
            words.are_in_conversation(conversation) || with_calls.contains(&conversation.id)
        };
        page.journal.conversations(before, count, meets)
    });
    Json(json!({"conversations": conversations, "more": more}))
}

async fn call(State(page): State<Arc<Page>>, Path(number): Path<u64>) -> Response {
    match page.journal.log.get(number) {
        Some(request) => Json(whole(&request, &page.journal)).into_response(),
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
        let stretches = conversation.stretches.iter();
        let sessions = stretches.filter_map(|stretch| stretch.session.as_deref());
        let mut texts: Vec<&str> = sessions.collect();
        let fields = [
            &conversation.session,
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
pub fn change(journal: &Journal, mut numbers: Vec<u64>, conversations: &[u64]) -> Value {
    numbers.sort_unstable();
    numbers.dedup();
    let calls = numbers.iter().rev().take(MOST);
    let calls = calls
        .filter_map(|number| journal.log.get(*number))
        .collect();
    let conversations = conversations.iter();
    let conversations = conversations.filter_map(|id| journal.conversation(*id));
    let mut conversations: Vec<Conversation> = conversations.collect();
    conversations.sort_unstable_by_key(|conversation| std::cmp::Reverse(conversation.last));
    let more = numbers.len() > MOST || conversations.len() > MOST;
    conversations.truncate(MOST);
    json!({
        "calls": listed(calls, journal),
        "conversations": conversations,
        "totals": journal.totals(),
        "more": more,
    })
}

/// Returns a call as the page shows it alone: with what proves its marks.
fn whole(request: &SeenRequest, journal: &Journal) -> Value {
    let mut call = json::of_call(request, &journal.rules);
    let own = std::slice::from_ref(request);
    call["conversation"] = journal
        .conversations_of(own)
        .first()
        .copied()
        .flatten()
        .into();
    for (json, mark) in call["marks"]
        .as_array_mut()
        .into_iter()
        .flatten()
        .zip(&request.marks)
    {
        json["proof"] = proof(request, mark, &journal.log);
    }
    call
}

/// Returns the two calls that prove a mark, each with the words that do, which are excerpts.
fn proof(request: &SeenRequest, mark: &Mark, log: &Log) -> Value {
    let said = |what: &'static str, call: &SeenRequest, words: &Option<String>| json!({"call": call.number, "session": call.session, "what": what, "words": words});
    let begins = |number: u64| {
        log.get(number)
            .map(|call| said("begins with", &call, &call.prompt))
    };
    let pair = match mark {
        Mark::Moved { continues, .. } => log.get(*continues).map(|before| {
            let earlier = match &before.said {
                Some(_) => said("was answered", &before, &before.said),
                None => said("asked", &before, &before.prompt),
            };
            let later = match &request.recalls {
                Some(_) => said("goes on after", request, &request.recalls),
                None => said("asks", request, &request.prompt),
            };
            [earlier, later]
        }),
        Mark::Quotes { call, .. } => log.get(*call).map(|quoted| {
            let earlier = said("was answered", &quoted, &quoted.said);
            [earlier, said("quotes that in", request, &request.prompt)]
        }),
        Mark::Shared {
            conversation,
            other,
            ..
        } => begins(*other)
            .zip(begins(*conversation))
            .map(|(other, own)| [other, own]),
        _ => None,
    };
    pair.map_or(Value::Null, |pair| pair.to_vec().into())
}

/// Returns calls as a list shows them: without headers, and with long texts cut.
fn listed(requests: Vec<SeenRequest>, journal: &Journal) -> Vec<Value> {
    let conversations = journal.conversations_of(&requests);
    let calls = requests.iter().zip(conversations).map(|(request, id)| {
        let mut call = in_list(request, &journal.rules);
        call["conversation"] = id.into();
        call
    });
    calls.collect()
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
