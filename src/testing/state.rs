//! What the gateway knows, and how it decides on requests.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::panic::Location;
use std::time::SystemTime;

use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::answer::Usage;
use super::cache::{Conversations, Id};
use super::endpoint::{Asks, Call, Credential, Endpoint, Family, NotFound};
use super::failure::Failure;
use super::log::{Limits, Unrecorded};
use super::outcome::Outcome;
use super::prices::{PRICES, Price};
use super::prompt::Prompt;
use super::reply::{Completion, Reply, tokens};
use super::routing::{Provider, pick};
use super::seen::{SeenRequest, value};

/// Everything that the gateway knows, and what it was told to do.
#[derive(Debug)]
pub(super) struct State {
    pub keys: Vec<String>,
    /// The models that it has, or `None` if it has every model.
    pub models: Option<HashSet<String>>,
    /// The providers of models that have their own.
    pub providers: HashMap<String, Vec<Provider>>,
    /// The providers of every other model.
    pub default_providers: Vec<Provider>,
    failures: VecDeque<Scripted<FailTo>>,
    replies: VecDeque<Scripted<Reply>>,
    conditional: Vec<Scripted<ReplyTo>>,
    /// How many requests were redirected.
    pub redirected: usize,
    conversations: Conversations,
}

/// Something that a test told the gateway to do.
#[derive(Debug)]
struct Scripted<T> {
    what: T,
    /// How often it is still to happen.
    count: usize,
    /// The line of the test that said so.
    by: &'static Location<'static>,
}

/// What a call must meet.
pub(super) type Condition = Box<dyn Fn(&SeenRequest) -> bool + Send>;

/// A reply for each call that meets a condition.
struct ReplyTo {
    meets: Condition,
    reply: Reply,
}

/// A failure for calls that meet a condition, if there is one.
struct FailTo {
    meets: Option<Condition>,
    failure: Failure,
}

impl fmt::Debug for FailTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(f)
    }
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reply.fmt(f)
    }
}

impl<T: fmt::Debug> Scripted<T> {
    /// Describes what never happened.
    fn unused(&self, method: &str) -> Option<String> {
        let Self { what, count, by } = self;
        let often = match count {
            0 => return None,
            1 => String::new(),
            _ => format!(", {count} times"),
        };
        Some(format!("{method} at {by}: {what:?}{often}"))
    }
}

impl State {
    pub fn new(keys: Vec<String>, default_providers: Vec<Provider>, limits: &Limits) -> Self {
        Self {
            keys,
            models: None,
            providers: HashMap::new(),
            default_providers,
            failures: VecDeque::new(),
            replies: VecDeque::new(),
            conditional: vec![],
            redirected: 0,
            conversations: Conversations::new(limits.prompts, limits.cache),
        }
    }

    /// Applies a failure to the next `count` calls that would otherwise succeed, and that meet the
    /// condition, if there is one.
    pub fn fail(
        &mut self,
        count: usize,
        meets: Option<Condition>,
        failure: Failure,
        by: &'static Location<'static>,
    ) {
        let what = FailTo { meets, failure };
        let scripted = Scripted { what, count, by };
        self.failures.extend((count > 0).then_some(scripted));
    }

    /// Takes the first failure of those that are for a request.
    fn take_failure(&mut self, is_for: impl Fn(&FailTo) -> bool) -> Option<Failure> {
        let mut failures = self.failures.iter();
        let at = failures.position(|scripted| is_for(&scripted.what))?;
        let scripted = &mut self.failures[at];
        scripted.count -= 1;
        let failure = scripted.what.failure.clone();
        if scripted.count == 0 {
            self.failures.remove(at);
        }
        Some(failure)
    }

    /// Answers the next call that succeeds with this reply.
    pub fn reply_next(&mut self, what: Reply, by: &'static Location<'static>) {
        self.replies.push_back(Scripted { what, count: 1, by });
    }

    /// Answers each call that succeeds and meets a condition with this reply.
    pub fn reply_to(&mut self, meets: Condition, reply: Reply, by: &'static Location<'static>) {
        let what = ReplyTo { meets, reply };
        self.conditional.push(Scripted { what, count: 1, by });
    }

    /// Describes each failure and each reply that no call has met.
    pub fn unused(&self) -> Vec<String> {
        let failures = self.failures.iter().map(|it| match it.what.meets {
            None => it.unused("fail_next"),
            Some(_) => it.unused("fail_to"),
        });
        let replies = self.replies.iter().map(|it| it.unused("reply_next"));
        let conditional = self.conditional.iter().map(|it| it.unused("reply_to"));
        failures
            .chain(replies)
            .chain(conditional)
            .flatten()
            .collect()
    }

    /// Decides on a request.
    pub fn decide(&mut self, number: u64, head: &Parts, unrecorded: &Unrecorded) -> Outcome {
        self.answer(number, head, unrecorded)
            .unwrap_or_else(|refusal| *refusal)
    }

    fn answer(
        &mut self,
        number: u64,
        head: &Parts,
        unrecorded: &Unrecorded,
    ) -> Result<Outcome, Box<Outcome>> {
        let (method, path) = (&head.method, head.uri.path());
        if method == Method::OPTIONS {
            return Ok(Outcome::preflight());
        }
        if Endpoint::is_call_by_websocket(head) {
            return Err(Outcome::upgrade_required().into());
        }
        let Some(endpoint) = Endpoint::of(method, path) else {
            let message = NotFound { method, path }.to_string();
            let refusal = Outcome::error(StatusCode::NOT_FOUND, "NotFoundError", &message);
            return Err(refusal.into());
        };
        match &endpoint.asks {
            Asks::Model(call) => self.complete(number, head, &endpoint, call, unrecorded),
            Asks::Models { key } => {
                if *key {
                    self.workspace(head, &endpoint)?;
                }
                let list = Outcome::json(&self.model_list());
                Ok(match endpoint.go {
                    true => list.for_any_origin(),
                    false => list,
                })
            }
            Asks::Usage => {
                let workspace = self.workspace(head, &endpoint)?;
                let refused = self
                    .take_failure(|it| it.failure == Failure::Entitlement && it.meets.is_none());
                if let Some(refusal) = refused.as_ref().and_then(Failure::outcome) {
                    return Err(refusal.into());
                }
                Ok(Outcome::json(&usage_of_limits(&workspace)))
            }
            Asks::SystemOne => {
                self.workspace(head, &endpoint)?;
                let label = json!({"object": "classification", "label": "none", "score": 0.0});
                Ok(Outcome::json(&label))
            }
            Asks::Gone => {
                let message = "The paths under /inference/v1 are gone. \
                    Use those under /inference/openai/v1 and /inference/anthropic/v1.";
                Err(Outcome::error(StatusCode::GONE, "GoneError", message).into())
            }
        }
    }

    /// Answers a call to a model.
    fn complete(
        &mut self,
        number: u64,
        head: &Parts,
        endpoint: &Endpoint,
        call: &Call,
        Unrecorded { request, prompt }: &Unrecorded,
    ) -> Result<Outcome, Box<Outcome>> {
        let prompt = prompt.as_ref().ok_or_else(Outcome::internal_error)?;
        let model = self.model(request)?;
        let has_key = !keys(head, endpoint).is_empty();
        let workspace = self.workspace(head, endpoint);
        // Reported: a wrong key is refused as such, and no key like a right one.
        if is_free(&model) && (workspace.is_ok() || !has_key) {
            return Err(Outcome::free_tier().into());
        }
        let workspace = workspace?;
        if request.session.is_none() && endpoint.go {
            return Err(Outcome::missing_session().into());
        }
        let sticky = request.session.clone().unwrap_or(workspace);
        let id = Id { model, sticky };
        let provider = self.provider(&id);
        let provider = provider.ok_or_else(|| model_error("No provider available"))?;

        let failure = self.take_failure(|it| match &it.meets {
            None => true,
            Some(meets) => meets(request),
        });
        if let Some(mut outcome) = failure.as_ref().and_then(Failure::outcome) {
            outcome.answer.provider = Some(provider);
            outcome.answer.failure = failure.as_ref().map(Failure::to_string);
            self.redirected += usize::from(matches!(failure, Some(Failure::Redirect { .. })));
            return Err(outcome.into());
        }
        let mut conditional = self.conditional.iter_mut();
        let reply = match conditional.find(|scripted| (scripted.what.meets)(request)) {
            Some(scripted) => {
                scripted.count = 0;
                scripted.what.reply.clone()
            }
            None => match self.replies.pop_front() {
                Some(scripted) => scripted.what,
                None => Reply::of_call(number),
            },
        };
        let mut usage = self.usage(&id, &provider, prompt);
        usage.output = reply.tokens();
        let completion = Completion {
            family: endpoint.family,
            format: call.format,
            number,
            created: seconds_since_1970(),
            cost: cost(&id.model, usage),
            model: &id.model,
            reply: &reply,
            usage,
        };
        let mut outcome = match call.stream || prompt.stream {
            true => Outcome::stream(completion.stream()),
            false => Outcome::json(&completion.json()),
        };
        if endpoint.family == Family::Inference {
            outcome = outcome.with_headers([
                ("x-opencode-log-id", &format!("log_{number}")),
                ("x-opencode-endpoint-id", &provider),
                ("x-opencode-upstream-model-id", &id.model),
            ]);
        }
        // The answer of a model without a known price says 0, as the real gateway's does.
        let has_price = Price::of(&id.model).is_some();
        outcome.answer.cost = completion.cost.parse().ok().filter(|_| has_price);
        outcome.answer.provider = Some(provider);
        outcome.answer.failure = failure.as_ref().map(Failure::to_string);
        outcome.answer.usage = Some(usage);
        outcome.answer.id = Some(completion.answer_id());
        outcome.answer.tool_calls.extend(completion.tool_call());
        if let Reply::Text(text) = &reply {
            outcome.answer.say(text);
        }
        match failure {
            Some(Failure::Delay(delay)) => outcome.delay = delay,
            Some(Failure::CloseMidAnswer) => outcome.cut = true,
            _ => {}
        }
        Ok(outcome)
    }

    fn model(&self, request: &SeenRequest) -> Result<String, Box<Outcome>> {
        let model = request.model.as_ref();
        let model = model.ok_or_else(|| model_error("The body has no `model`."))?;
        match &self.models {
            Some(models) if !models.contains(model) => {
                Err(model_error(&format!("Model {model} is not supported.")))
            }
            _ => Ok(model.clone()),
        }
    }

    fn model_list(&self) -> Value {
        let mut models: Vec<_> = match &self.models {
            Some(models) => models.iter().map(String::as_str).collect(),
            None => {
                let own = self.providers.keys().map(String::as_str);
                own.chain(PRICES.map(|(model, _)| model)).collect()
            }
        };
        models.sort_unstable();
        models.dedup();
        let created = seconds_since_1970();
        let model =
            |id| json!({"id": id, "object": "model", "created": created, "owned_by": "opencode"});
        let data: Vec<_> = models.into_iter().map(model).collect();
        json!({"object": "list", "data": data})
    }

    /// Returns the workspace of the request's key.
    fn workspace(&self, head: &Parts, endpoint: &Endpoint) -> Result<String, Box<Outcome>> {
        let keys = keys(head, endpoint);
        let known = |key| self.keys.iter().position(|known| known == key);
        keys.iter()
            .find_map(known)
            .map(|index| format!("workspace-{index}"))
            .ok_or_else(|| {
                let problem = match keys[..] {
                    [] => "Missing API key: found none in",
                    _ => "Invalid API key in",
                };
                let names = endpoint.key_headers().iter();
                let names: Vec<_> = names.map(|name| name.name()).collect();
                let message = format!("{problem} {}.", names.join(", "));
                let status = StatusCode::UNAUTHORIZED;
                Box::new(Outcome::error(status, "AuthError", &message))
            })
    }

    fn provider(&self, id: &Id) -> Option<String> {
        let providers = self.providers.get(&id.model);
        let providers = providers.unwrap_or(&self.default_providers);
        let recorded = self.conversations.provider(id);
        // The real gateway prefers the hashed one where its budget or its speed speaks for it.
        let recorded = providers
            .iter()
            .find(|provider| Some(provider.name.as_str()) == recorded);
        let provider = recorded.or_else(|| pick(providers, &id.sticky))?;
        Some(provider.name.clone())
    }

    /// Counts the prompt's tokens. Those at its start that the provider has already seen in the
    /// conversation are cached.
    fn usage(&mut self, id: &Id, provider: &str, prompt: &Prompt) -> Usage {
        let text = &prompt.text;
        let seen = self.conversations.answer(id, provider, text);
        Usage {
            prompt: tokens(text),
            cached: match seen == text.len() {
                true => tokens(text),
                false => seen as u64 / 4,
            },
            output: 0,
        }
    }
}

/// Returns the keys that a request has in the headers that count.
fn keys(head: &Parts, endpoint: &Endpoint) -> Vec<String> {
    let names = endpoint.key_headers().iter();
    names.filter_map(|name| name.read(head)).collect()
}

fn model_error(message: &str) -> Box<Outcome> {
    Outcome::error(StatusCode::UNAUTHORIZED, "ModelError", message).into()
}

impl Credential {
    /// Returns the key that a request has in this header.
    fn read(self, head: &Parts) -> Option<String> {
        let value = value(&head.headers, &http::HeaderName::from_static(self.name()))?;
        match self {
            // Any scheme is accepted.
            Self::Authorization => value.split(' ').nth(1).map(str::to_owned),
            Self::XApiKey | Self::XGoogApiKey => Some(value),
        }
    }
}

fn is_free(model: &str) -> bool {
    model.ends_with("-free")
}

/// Returns what a call costs, as the gateway writes it. A model without a price costs nothing.
fn cost(model: &str, usage: Usage) -> String {
    let Some(price) = Price::of(model) else {
        return "0".to_owned();
    };
    let cost = format!("{:.8}", price.cost(usage));
    cost.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Returns the usage of Go's limits, of which nothing is used.
fn usage_of_limits(workspace: &str) -> Value {
    let limit = |hours: u64| {
        let resets = seconds_since_1970() + hours * 3600;
        json!({"status": "ok", "percent": 0, "resetsAt": iso_8601(resets)})
    };
    json!({
        "workspaceID": workspace,
        "userID": "user-0",
        "usage": {"rolling": limit(5), "weekly": limit(7 * 24), "monthly": limit(30 * 24)},
    })
}

/// Returns a time as JavaScript's `toISOString` does.
fn iso_8601(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Eras of 400 years, which begin on the first of March.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.000Z",
        era * 400 + year + next,
        second / 3600,
        second / 60 % 60,
        second % 60,
    )
}

fn seconds_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_javascript_writes_them() {
        for (seconds, written) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000Z"),
            (1_798_761_600, "2027-01-01T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(iso_8601(seconds), written);
        }
    }
}
