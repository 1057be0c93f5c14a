//! The paths of the gateway, in the two families that are in use.

use std::fmt;

use http::header::{SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Method};

/// The wire formats of calls to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    ChatCompletions,
    Responses,
    Messages,
    GenerateContent,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub family: Family,
    /// Whether it is a path of OpenCode Go, which refuses calls without a session.
    pub go: bool,
    pub asks: Asks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Zen,
    Inference,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asks {
    /// An answer of a model.
    Model(Call),
    /// The list of models, which may need a key.
    Models { key: bool },
    /// How much of Go's limits is used.
    Usage,
    /// The classifier.
    SystemOne,
    /// A path that is no longer served.
    Gone,
}

/// A call to a model, as far as the path describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub format: Format,
    /// The model, if the path names it.
    pub model: Option<String>,
    /// Whether the path asks for a stream.
    pub stream: bool,
}

impl Call {
    /// Returns the call that a path ends in, with any beginning.
    pub fn at_end_of(path: &str) -> Option<Self> {
        let (before, last) = path.rsplit_once('/')?;
        let format = match last {
            "completions" if before.ends_with("/chat") => Format::ChatCompletions,
            "responses" => Format::Responses,
            "messages" => Format::Messages,
            _ => return Self::generate_content(last).filter(|_| before.ends_with("/models")),
        };
        Some(Self {
            format,
            model: None,
            stream: false,
        })
    }

    fn generate_content(segment: &str) -> Option<Self> {
        let (model, action) = segment.split_once(':')?;
        let stream = match action {
            "generateContent" => false,
            "streamGenerateContent" => true,
            _ => return None,
        };
        Some(Self {
            format: Format::GenerateContent,
            model: Some(model.to_owned()),
            stream,
        })
    }
}

impl Endpoint {
    pub fn of(method: &Method, path: &str) -> Option<Self> {
        let (family, rest) = match path.strip_prefix("/zen/") {
            Some(rest) => (Family::Zen, rest),
            None => (Family::Inference, path.strip_prefix("/inference/")?),
        };
        let (go, rest) = match rest.strip_prefix("go/") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let asks = match (family, method) {
            (_, &Method::GET) if rest == "v1/models" => Asks::Models { key: false },
            (_, &Method::GET) if rest == "v1/usage" && go => Asks::Usage,
            (Family::Inference, _) if rest.starts_with("v1/") && !go => Asks::Gone,
            // That it needs a key is reported; the documented path above needs none.
            (Family::Inference, &Method::GET) if rest == "openai/v1/models" => {
                Asks::Models { key: true }
            }
            (Family::Inference, &Method::POST) if rest == "systemone/v1/systemone" => {
                Asks::SystemOne
            }
            (Family::Inference, &Method::POST) => {
                let call = Call::at_end_of(path)?;
                let base = match call.format {
                    Format::ChatCompletions | Format::Responses => "openai/v1",
                    Format::Messages => "anthropic/v1",
                    Format::GenerateContent => "google/v1beta",
                };
                Asks::Model(call.directly_below(base, rest)?)
            }
            (Family::Zen, &Method::POST) if rest == "v1/systemone" => Asks::SystemOne,
            (Family::Zen, &Method::POST) => {
                let call = Call::at_end_of(path)?;
                if go && call.format == Format::GenerateContent {
                    return None;
                }
                Asks::Model(call.directly_below("v1", rest)?)
            }
            _ => return None,
        };
        Some(Self { family, go, asks })
    }

    /// Returns whether a request that opens a WebSocket does so on a path of calls.
    pub fn is_call_by_websocket(head: &Parts) -> bool {
        let upgrade = head.headers.get(UPGRADE).map(HeaderValue::as_bytes);
        // A proxy takes away the first header, and leaves the second.
        let is_websocket = upgrade.is_some_and(|it| it.eq_ignore_ascii_case(b"websocket"))
            || head.headers.contains_key(SEC_WEBSOCKET_KEY);
        head.method == Method::GET
            && is_websocket
            && Self::of(&Method::POST, head.uri.path())
                .is_some_and(|endpoint| matches!(endpoint.asks, Asks::Model(_)))
    }

    /// Returns the headers that may carry the key.
    pub fn key_headers(&self) -> &'static [Credential] {
        match (self.family, &self.asks) {
            (Family::Inference, _) => &[
                Credential::Authorization,
                Credential::XApiKey,
                Credential::XGoogApiKey,
            ],
            (Family::Zen, Asks::Model(call)) => match call.format {
                Format::ChatCompletions | Format::Responses => &[Credential::Authorization],
                Format::Messages => &[Credential::XApiKey],
                Format::GenerateContent => &[Credential::XGoogApiKey],
            },
            (Family::Zen, _) => &[Credential::Authorization],
        }
    }
}

impl Call {
    fn directly_below(self, base: &str, rest: &str) -> Option<Self> {
        let call = rest.strip_prefix(base)?.strip_prefix('/')?;
        let segments = match self.format {
            Format::ChatCompletions | Format::GenerateContent => 2,
            Format::Responses | Format::Messages => 1,
        };
        (call.split('/').count() == segments).then_some(self)
    }
}

/// A header that a key is sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credential {
    Authorization,
    XApiKey,
    XGoogApiKey,
}

impl Credential {
    pub fn name(self) -> &'static str {
        match self {
            Self::Authorization => "authorization",
            Self::XApiKey => "x-api-key",
            Self::XGoogApiKey => "x-goog-api-key",
        }
    }
}

/// The message for an unknown path, which names the nearest known one.
pub(super) struct NotFound<'a> {
    pub method: &'a Method,
    pub path: &'a str,
}

impl fmt::Display for NotFound<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, path } = self;
        let is_cut = path.chars().nth(Self::LONGEST).is_some();
        write!(
            f,
            "There is no {method} {path:.longest$}{rest}.",
            longest = Self::LONGEST,
            rest = if is_cut { "…" } else { "" },
        )?;
        let Some((nearest_method, nearest)) = self.nearest() else {
            return Ok(());
        };
        write!(f, " The nearest path is {nearest_method} {nearest}")?;
        // The base URL is right if the call itself is wrong.
        let is_call = path.rsplit('/').next() == nearest.rsplit('/').next();
        let call = Call::at_end_of(&nearest).filter(|_| is_call);
        match call.map(|call| call.format) {
            Some(Format::ChatCompletions | Format::Responses) => {
                f.write_str(": the base URL of an OpenAI SDK ends in /v1.")
            }
            Some(Format::Messages) => {
                f.write_str(": the base URL of an Anthropic SDK ends before /v1.")
            }
            Some(Format::GenerateContent) => {
                let zen = nearest.starts_with("/zen/");
                let version = if zen { "v1" } else { "v1beta" };
                write!(
                    f,
                    ": the base URL of a Google SDK ends before the version, \
                    which google-genai takes from HttpOptions(api_version=\"{version}\").",
                )
            }
            None => f.write_str("."),
        }
    }
}

impl NotFound<'_> {
    /// How much of a path is compared and shown, in characters.
    const LONGEST: usize = 200;

    /// Returns the nearest path, unless it is for something else.
    fn nearest(&self) -> Option<(Method, String)> {
        let model = self
            .path
            .rsplit('/')
            .next()
            .and_then(Call::generate_content)
            .and_then(|call| call.model);
        let model = model.as_deref().unwrap_or("{model}");
        let action = match self.path.contains("streamGenerateContent") {
            true => "streamGenerateContent",
            false => "generateContent",
        };
        let mut paths = vec![];
        // Of equally near ones, the first: a missing segment is more likely than a wrong one.
        for go in ["/go", ""] {
            for (method, call) in [
                (Method::POST, "chat/completions"),
                (Method::POST, "responses"),
                (Method::POST, "messages"),
                (Method::GET, "models"),
                (Method::POST, "systemone"),
            ] {
                paths.push((method, format!("/zen{go}/v1/{call}")));
            }
            for (method, call) in [
                (Method::POST, "openai/v1/chat/completions"),
                (Method::POST, "openai/v1/responses"),
                (Method::POST, "anthropic/v1/messages"),
                (Method::GET, "v1/models"),
                (Method::GET, "openai/v1/models"),
                (Method::POST, "systemone/v1/systemone"),
            ] {
                paths.push((method, format!("/inference{go}/{call}")));
            }
            let google = format!("/inference{go}/google/v1beta/models/{model}:{action}");
            paths.push((Method::POST, google));
        }
        paths.push((Method::POST, format!("/zen/v1/models/{model}:{action}")));
        for family in ["zen", "inference"] {
            paths.push((Method::GET, format!("/{family}/go/v1/usage")));
        }
        // An encoded slash counts as a slash.
        let own: String = self.path.chars().take(Self::LONGEST).collect();
        let own = own.to_ascii_lowercase().replace("%2f", "/");
        let nearest = paths.into_iter().min_by_key(|(method, path)| {
            let (segments, letters) = distance(&own, &path.to_ascii_lowercase());
            (segments, letters, method != self.method)
        });
        nearest.filter(|(_, path)| is_related(&own, &path.to_ascii_lowercase()))
    }
}

/// Returns whether two paths end in nearly the same segment.
fn is_related(one: &str, other: &str) -> bool {
    let last = |path: &str| {
        path.trim_end_matches('/')
            .rsplit('/')
            .next()
            .map(str::to_owned)
    };
    let ends = last(one).zip(last(other));
    ends.is_some_and(|(one, other)| strsim::normalized_levenshtein(&one, &other) > 0.5)
}

/// Returns how many segments must be added, removed or changed, and how many letters of the last
/// one. The first and the last segment count twice: they name the family and the kind of call.
fn distance(one: &str, other: &str) -> (usize, usize) {
    let segments = |path| -> Vec<&str> { str::trim_matches(path, '/').split('/').collect() };
    let (one, other) = (segments(one), segments(other));
    let distance = strsim::generic_levenshtein(&one, &other)
        + usize::from(one.first() != other.first())
        + usize::from(one.last() != other.last());
    let last = one.last().zip(other.last());
    let letters = last.map_or(0, |(one, other)| strsim::levenshtein(one, other));
    (distance, letters)
}
