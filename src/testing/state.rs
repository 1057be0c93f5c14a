//! What the gateway knows, and how it decides on requests.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::time::SystemTime;

use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::answer::Usage;
use super::cache::{Conversations, Id};
use super::endpoint::{Asks, Call, Credential, Endpoint, NotFound};
use super::log::{Limits, SeenRequest, Unrecorded, value};
use super::outcome::{Fault, Outcome};
use super::prompt::Prompt;
use super::reply::{Completion, Reply, tokens};
use super::routing::{Provider, pick};

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
    pub faults: VecDeque<Fault>,
    pub rules: Vec<Rule>,
    pub replies: VecDeque<Reply>,
    /// How many requests were redirected.
    pub redirected: usize,
    /// How many answers it has given, so that each one gets an id of its own.
    answered: usize,
    conversations: Conversations,
}

/// A reply for each request that meets a condition.
pub(super) struct Rule {
    pub meets: Box<dyn Fn(&SeenRequest) -> bool + Send>,
    pub reply: Reply,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Rule");
        debug.field("reply", &self.reply).finish_non_exhaustive()
    }
}

impl State {
    pub fn new(keys: Vec<String>, default_providers: Vec<Provider>, limits: &Limits) -> Self {
        Self {
            keys,
            models: None,
            providers: HashMap::new(),
            default_providers,
            faults: VecDeque::new(),
            rules: vec![],
            replies: VecDeque::new(),
            redirected: 0,
            answered: 0,
            conversations: Conversations::new(limits.prompts, limits.cache),
        }
    }

    /// Returns how many conversations providers had to forget.
    pub fn forgotten(&self) -> u64 {
        self.conversations.forgotten()
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

        let fault = self.faults.pop_front();
        if let Some(mut outcome) = fault.as_ref().and_then(Fault::outcome) {
            outcome.answer.provider = Some(provider);
            self.redirected += usize::from(matches!(fault, Some(Fault::Redirect { .. })));
            return Err(outcome.into());
        }
        let rule = self.rules.iter().find(|rule| (rule.meets)(request));
        let reply = match rule {
            Some(rule) => rule.reply.clone(),
            None => self.replies.pop_front().unwrap_or_else(|| {
                let model = &id.model;
                Reply::Text(format!(
                    "The loopback gateway answers for {model} by {provider}."
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
        if let Reply::Text(text) = reply {
            outcome.answer.text = Some(text);
        }
        match fault {
            Some(Fault::Delay(delay)) => outcome.delay = delay,
            Some(Fault::CloseMidAnswer) => outcome.cut = true,
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

/// Prices in US dollars per million tokens: of the prompt, of its cached part, and of the answer.
/// Source: <https://opencode.ai/docs/go/>, in November 2026.
const PRICES: [(&str, [f64; 3]); 3] = [
    ("deepseek-v4.1-flash", [0.15, 0.003, 0.60]),
    ("glm-5.2", [1.40, 0.26, 4.40]),
    ("kimi-k3", [3.0, 0.30, 15.0]),
];

/// Returns what a call costs, as the gateway writes it. A model without a price costs nothing.
fn cost(model: &str, usage: Usage) -> String {
    let price = PRICES.iter().find(|(known, _)| *known == model);
    let Some((_, [prompt, cached, output])) = price else {
        return "0".to_owned();
    };
    let tokens = |count: u64, price: f64| count as f64 * price / 1e6;
    let cost = tokens(usage.prompt - usage.cached, *prompt)
        + tokens(usage.cached, *cached)
        + tokens(usage.output, *output);
    let cost = format!("{cost:.8}");
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
