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
use super::endpoint::{Asks, Call, Credential, Endpoint, NotFound};
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
    failures: VecDeque<Scripted<Failure>>,
    replies: VecDeque<Scripted<Reply>>,
    conditional: Vec<Scripted<ReplyTo>>,
    /// How many requests were redirected.
    pub redirected: usize,
    /// How many answers it has given, so that each one gets an id of its own.
    answered: usize,
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

/// A reply for each request that meets a condition.
struct ReplyTo {
    meets: Box<dyn Fn(&SeenRequest) -> bool + Send>,
    reply: Reply,
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

/// Takes the first one of a queue.
fn take_next<T: Clone>(queue: &mut VecDeque<Scripted<T>>) -> Option<T> {
    let first = queue.front_mut()?;
    first.count -= 1;
    let what = first.what.clone();
    if first.count == 0 {
        queue.pop_front();
    }
    Some(what)
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
            answered: 0,
            conversations: Conversations::new(limits.prompts, limits.cache),
        }
    }

    /// Applies a failure to the next `count` calls that would otherwise succeed.
    pub fn fail_next(&mut self, count: usize, what: Failure, by: &'static Location<'static>) {
        let scripted = Scripted { what, count, by };
        self.failures.extend((count > 0).then_some(scripted));
    }

    /// Answers the next call that succeeds with this reply.
    pub fn reply_next(&mut self, what: Reply, by: &'static Location<'static>) {
        self.replies.push_back(Scripted { what, count: 1, by });
    }

    /// Answers each call that succeeds and meets a condition with this reply.
    pub fn reply_to(
        &mut self,
        meets: Box<dyn Fn(&SeenRequest) -> bool + Send>,
        reply: Reply,
        by: &'static Location<'static>,
    ) {
        let what = ReplyTo { meets, reply };
        self.conditional.push(Scripted { what, count: 1, by });
    }

    /// Describes each failure and each reply that no call has met.
    pub fn unused(&self) -> Vec<String> {
        let failures = self.failures.iter().map(|it| it.unused("fail_next"));
        let replies = self.replies.iter().map(|it| it.unused("reply_next"));
        let conditional = self.conditional.iter().map(|it| it.unused("reply_to"));
        failures
            .chain(replies)
            .chain(conditional)
            .flatten()
            .collect()
    }

    /// Decides on a request.
    pub fn decide(&mut self, head: &Parts, unrecorded: &Unrecorded) -> Outcome {
        self.answer(head, unrecorded)
            .unwrap_or_else(|refusal| *refusal)
    }

    fn answer(&mut self, head: &Parts, unrecorded: &Unrecorded) -> Result<Outcome, Box<Outcome>> {
        let (method, path) = (&head.method, head.uri.path());
        if method == Method::OPTIONS {
            return Ok(Outcome::preflight());
        }
        let Some(endpoint) = Endpoint::of(method, path) else {
            let message = NotFound { method, path }.to_string();
            let refusal = Outcome::error(StatusCode::NOT_FOUND, "NotFoundError", &message);
            return Err(refusal.into());
        };
        let plain = match &endpoint.asks {
            Asks::Model(call) => return self.complete(head, &endpoint, call, unrecorded),
            Asks::Models if !endpoint.lists_models_with_a_key() => {
                return Ok(Outcome::json(&self.model_list()));
            }
            Asks::Models => self.model_list(),
            Asks::Usage => usage_of_limits(),
            Asks::SystemOne => json!({"object": "classification", "label": "none", "score": 0.0}),
            Asks::Gone => {
                let message = "The paths under /inference/v1 are gone. \
                    Use those under /inference/openai/v1 and /inference/anthropic/v1.";
                let refusal = Outcome::error(StatusCode::GONE, "GoneError", message);
                return Err(refusal.into());
            }
        };
        self.workspace(head, &endpoint)?;
        Ok(Outcome::json(&plain))
    }

    /// Answers a call to a model.
    fn complete(
        &mut self,
        head: &Parts,
        endpoint: &Endpoint,
        call: &Call,
        Unrecorded { request, prompt }: &Unrecorded,
    ) -> Result<Outcome, Box<Outcome>> {
        let prompt = prompt.as_ref().ok_or_else(Outcome::internal_error)?;
        let model = self.model(request)?;
        let workspace = self.workspace(head, endpoint)?;
        if request.session.is_none() && (endpoint.go || is_free(&model)) {
            return Err(Outcome::missing_session().into());
        }
        let sticky = request.session.clone().unwrap_or(workspace);
        let id = Id { model, sticky };
        let provider = self.provider(&id).ok_or_else(Outcome::unavailable)?;

        let failure = take_next(&mut self.failures);
        if let Some(mut outcome) = failure.as_ref().and_then(Failure::outcome) {
            outcome.answer.provider = Some(provider);
            self.redirected += usize::from(matches!(failure, Some(Failure::Redirect { .. })));
            return Err(outcome.into());
        }
        let mut conditional = self.conditional.iter_mut();
        let reply = match conditional.find(|scripted| (scripted.what.meets)(request)) {
            Some(scripted) => {
                scripted.count = 0;
                scripted.what.reply.clone()
            }
            None => take_next(&mut self.replies).unwrap_or_else(|| {
                let model = &id.model;
                Reply::Text(format!(
                    "The test gateway answers for {model} by {provider}."
                ))
            }),
        };
        let mut usage = self.usage(&id, &provider, prompt);
        usage.output = reply.tokens();
        self.answered += 1;
        let completion = Completion {
            family: endpoint.family,
            format: call.format,
            number: self.answered,
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
        outcome.answer.cost = completion.cost.parse().ok();
        outcome.answer.provider = Some(provider);
        outcome.answer.usage = Some(usage);
        outcome.answer.id = Some(completion.answer_id());
        outcome.answer.tool_calls.extend(completion.tool_call());
        if let Reply::Text(text) = reply {
            outcome.answer.text = Some(text);
        }
        match failure {
            Some(Failure::Delay(delay)) => outcome.delay = delay,
            Some(Failure::CloseMidAnswer) => outcome.cut = true,
            _ => {}
        }
        Ok(outcome)
    }

    fn model(&self, request: &SeenRequest) -> Result<String, Box<Outcome>> {
        let refusal = |message: String| {
            Box::new(Outcome::error(
                StatusCode::UNAUTHORIZED,
                "ModelError",
                &message,
            ))
        };
        let model = request.model.as_ref();
        let model = model.ok_or_else(|| refusal("The body names no `model`.".to_owned()))?;
        match &self.models {
            Some(models) if !models.contains(model) => {
                Err(refusal(format!("Model {model} is not supported.")))
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
        let names = endpoint.key_headers();
        let keys: Vec<String> = names.iter().filter_map(|name| name.read(head)).collect();
        let known = |key| self.keys.iter().position(|known| known == key);
        keys.iter()
            .find_map(known)
            .map(|index| format!("workspace-{index}"))
            .ok_or_else(|| {
                let problem = match keys[..] {
                    [] => "Missing API key: found none in",
                    _ => "Invalid API key in",
                };
                let names: Vec<_> = names.iter().map(|name| name.name()).collect();
                let message = format!("{problem} {}.", names.join(", "));
                let status = StatusCode::UNAUTHORIZED;
                Box::new(Outcome::error(status, "AuthError", &message))
            })
    }

    fn provider(&self, id: &Id) -> Option<String> {
        let recorded = self.conversations.provider(id).map(str::to_owned);
        recorded.or_else(|| {
            let providers = self.providers.get(&id.model);
            let providers = providers.unwrap_or(&self.default_providers);
            pick(providers, &id.sticky).map(|provider| provider.name.clone())
        })
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

fn usage_of_limits() -> Value {
    let limit = json!({"status": "ok", "usagePercent": 0, "resetInSec": 3600});
    json!({"rollingUsage": limit, "weeklyUsage": limit, "monthlyUsage": limit})
}

fn seconds_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
