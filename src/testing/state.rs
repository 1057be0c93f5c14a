//! What the gateway knows, and how it decides on a request.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use http::request::Parts;
use http::{Method, StatusCode};
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, Usage};
use super::endpoint::Format;
use super::log::{self, Log, SeenRequest, Unrecorded};
use super::reply::{Completion, Reply, tokens};
use super::routing::{Provider, pick};

/// Something that goes wrong with a request that is otherwise in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The answer has this status and an error as its body.
    Status(StatusCode),
    /// The answer comes this much later.
    Delay(Duration),
    /// The connection is closed without an answer.
    CloseBeforeAnswer,
    /// The connection is closed half way through the answer's body.
    CloseMidAnswer,
}

/// What the connection is to do with a request.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub delay: Duration,
    /// Where there is none, the connection is closed.
    pub status: Option<StatusCode>,
    pub content_type: &'static str,
    /// The body, in the pieces that it is sent in.
    pub frames: Vec<Bytes>,
    /// Whether the connection is closed half way through them.
    pub cut: bool,
}

impl Outcome {
    fn json(status: StatusCode, body: impl ToString) -> Self {
        Self {
            status: Some(status),
            content_type: "application/json",
            frames: vec![body.to_string().into()],
            ..Self::default()
        }
    }

    fn error(status: StatusCode, kind: &str, message: &str) -> Self {
        let [kind, message] = [kind, message].map(Value::from);
        // Written out, because the fields have this order.
        let error = format!(r#"{{"type":{kind},"message":{message}}}"#);
        Self::json(status, format!(r#"{{"type":"error","error":{error}}}"#))
    }
}

const X_API_KEY: http::HeaderName = http::HeaderName::from_static("x-api-key");
const X_GOOG_API_KEY: http::HeaderName = http::HeaderName::from_static("x-goog-api-key");

/// The answer of OpenCode Go to a request without a session.
const MISSING_SESSION: &str = "Error from provider (Console Go): Request is missing \
    x-opencode-session and cannot be routed efficiently. \
    Please see https://opencode.ai/docs/go/#where-can-i-use-it";

/// Everything that the gateway knows, and what it was told to do.
#[derive(Debug, Default)]
pub(super) struct State {
    pub keys: Vec<String>,
    /// The providers of the models that have providers of their own.
    pub models: HashMap<String, Vec<Provider>>,
    /// The providers of every other model.
    providers: Vec<Provider>,
    pub faults: VecDeque<Fault>,
    pub replies: VecDeque<Reply>,
    pub log: Log,
    /// How many answers it has given, so that each one gets another id.
    answered: usize,
    /// The provider that answered a model and sticky id before.
    routes: HashMap<(String, String), String>,
    /// The last prompt that a provider saw of a model and sticky id, part by part.
    prompts: HashMap<(String, String, String), Vec<String>>,
}

impl State {
    pub fn new(key: &str, providers: Vec<Provider>) -> Self {
        Self {
            keys: vec![key.to_owned()],
            providers,
            ..Self::default()
        }
    }

    /// Decides on a request and records it.
    pub fn receive(&mut self, head: &Parts, body: &[u8]) -> Outcome {
        let body = &Bytes::copy_from_slice(body);
        let mut unrecorded = Unrecorded::read(head, Some(body));
        let outcome = self
            .decide(head, body, &mut unrecorded.request)
            .unwrap_or_else(|refusal| refusal);
        let answer = Answer {
            status: outcome.status,
            ..Answer::default()
        };
        self.log.push(unrecorded, Some(&answer));
        outcome
    }

    fn decide(
        &mut self,
        head: &Parts,
        body: &[u8],
        request: &mut SeenRequest,
    ) -> Result<Outcome, Outcome> {
        let Some(endpoint) = Endpoint::of(&head.method, head.uri.path()) else {
            return Err(Outcome::error(
                StatusCode::NOT_FOUND,
                "NotFoundError",
                "Not found.",
            ));
        };
        let Endpoint::Generate {
            go,
            format,
            model,
            stream,
        } = endpoint
        else {
            return Ok(Outcome::json(StatusCode::OK, self.model_list()));
        };
        let workspace = self.workspace(head, format)?;
        if go && request.session.is_none() {
            let status = StatusCode::BAD_REQUEST;
            return Err(Outcome::error(status, "MissingSessionID", MISSING_SESSION));
        }
        let prompt: Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(model) = model.or(prompt["model"].as_str().map(str::to_owned)) else {
            let message = "The body is no JSON object with a `model`.";
            return Err(Outcome::error(
                StatusCode::BAD_REQUEST,
                "ModelError",
                message,
            ));
        };
        request.model = Some(model.clone());
        let sticky_id = request.session.clone().unwrap_or(workspace);
        let Some(provider) = self.provider(&model, &sticky_id) else {
            let message = "No provider of the model is enabled.";
            return Err(Outcome::error(
                StatusCode::BAD_REQUEST,
                "ModelError",
                message,
            ));
        };
        request.provider = Some(provider.clone());

        let fault = self.faults.pop_front();
        match fault {
            Some(Fault::CloseBeforeAnswer) => return Err(Outcome::default()),
            Some(Fault::Status(status)) => {
                let message = "The gateway was told to fail.";
                return Err(Outcome::error(status, "Error", message));
            }
            _ => {}
        }
        self.routes
            .insert((model.clone(), sticky_id.clone()), provider.clone());
        let usage = self.usage(&provider, &model, sticky_id, &prompt);
        (request.prompt_tokens, request.cached_tokens) = (usage.prompt, usage.cached);
        let reply = self.replies.pop_front().unwrap_or_else(|| {
            Reply::Text(format!(
                "The loopback gateway answers for {model} by {provider}."
            ))
        });
        let number = self.answered;
        self.answered += 1;
        let answer = Completion {
            format,
            number,
            model: &model,
            reply,
            usage,
        };
        let mut outcome = if stream || prompt["stream"] == true {
            Outcome {
                status: Some(StatusCode::OK),
                content_type: "text/event-stream",
                frames: answer.stream(),
                ..Outcome::default()
            }
        } else {
            Outcome::json(StatusCode::OK, answer.json())
        };
        match fault {
            Some(Fault::Delay(delay)) => outcome.delay = delay,
            Some(Fault::CloseMidAnswer) => outcome.cut = true,
            _ => {}
        }
        Ok(outcome)
    }

    fn model_list(&self) -> Value {
        let mut models: Vec<_> = self.models.keys().map(String::as_str).collect();
        models.extend(["deepseek-v4.1-flash", "glm-5.2", "kimi-k3"]);
        models.sort_unstable();
        models.dedup();
        let model = |id| json!({"id": id, "object": "model", "created": 0, "owned_by": "opencode"});
        let data: Vec<_> = models.into_iter().map(model).collect();
        json!({"object": "list", "data": data})
    }

    /// The workspace of the request's key.
    fn workspace(&self, head: &Parts, format: Format) -> Result<String, Outcome> {
        let refusal = |message| Outcome::error(StatusCode::UNAUTHORIZED, "AuthError", message);
        let value = |name| log::value(&head.headers, &name);
        let key = match format {
            Format::ChatCompletions | Format::Responses => value(http::header::AUTHORIZATION)
                .and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned)),
            Format::Messages => value(X_API_KEY),
            Format::GenerateContent => value(X_GOOG_API_KEY),
        };
        let key = key.ok_or_else(|| refusal("Missing API key."))?;
        let known = self.keys.iter().position(|known| *known == key);
        known
            .map(|index| format!("workspace-{index}"))
            .ok_or_else(|| refusal("Invalid API key."))
    }

    fn provider(&self, model: &str, sticky_id: &str) -> Option<String> {
        let recorded = self.routes.get(&(model.to_owned(), sticky_id.to_owned()));
        recorded.cloned().or_else(|| {
            let providers = self.models.get(model).unwrap_or(&self.providers);
            pick(providers, sticky_id).map(|provider| provider.name.clone())
        })
    }

    /// Counts the prompt's tokens: those at its start are cached that the provider has seen of the
    /// conversation before.
    fn usage(&mut self, provider: &str, model: &str, sticky_id: String, prompt: &Value) -> Usage {
        let parts = prompt_parts(prompt);
        let conversation = (provider.to_owned(), model.to_owned(), sticky_id);
        let before = self.prompts.entry(conversation).or_default();
        let count = |parts: &[String]| parts.iter().map(|part| tokens(part)).sum();
        let same = parts
            .iter()
            .zip(before.iter())
            .take_while(|(now, then)| now == then)
            .count();
        let usage = Usage {
            prompt: count(&parts),
            cached: count(&parts[..same]),
            output: 0,
        };
        *before = parts;
        usage
    }
}

/// What a provider reads of a request, from the first part on, in whichever wire format.
fn prompt_parts(prompt: &Value) -> Vec<String> {
    [
        "tools",
        "system",
        "instructions",
        "systemInstruction",
        "messages",
        "input",
        "contents",
    ]
    .iter()
    .flat_map(|field| match &prompt[field] {
        Value::Null => vec![],
        Value::Array(parts) => parts.iter().map(Value::to_string).collect(),
        part => vec![part.to_string()],
    })
    .collect()
}

/// What a request asks for.
enum Endpoint {
    Models,
    Generate {
        /// Whether it is OpenCode Go that is asked, which refuses a request without a session.
        go: bool,
        format: Format,
        /// The model, where the path names it.
        model: Option<String>,
        /// Whether the path asks for a stream.
        stream: bool,
    },
}

impl Endpoint {
    fn of(method: &Method, path: &str) -> Option<Self> {
        let (go, call) = match path.strip_prefix("/zen/go/v1/") {
            Some(call) => (true, call),
            None => (false, path.strip_prefix("/zen/v1/")?),
        };
        let generate = |format| Self::Generate {
            go,
            format,
            model: None,
            stream: false,
        };
        match (method, call) {
            (&Method::GET, "models") => Some(Self::Models),
            (&Method::POST, "chat/completions") => Some(generate(Format::ChatCompletions)),
            (&Method::POST, "responses") => Some(generate(Format::Responses)),
            (&Method::POST, "messages") => Some(generate(Format::Messages)),
            (&Method::POST, _) if !go => {
                let (model, action) = call.strip_prefix("models/")?.split_once(':')?;
                let stream = match action {
                    "generateContent" => false,
                    "streamGenerateContent" => true,
                    _ => return None,
                };
                let format = Format::GenerateContent;
                Some(Self::Generate {
                    go,
                    format,
                    model: Some(model.to_owned()),
                    stream,
                })
            }
            _ => None,
        }
    }
}
