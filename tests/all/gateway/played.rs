//! Calls as a log sees them, and what they say in each wire format.

use http::{HeaderName, Request, StatusCode};
use reqwest_opencode_session::testing::Mark;
use reqwest_opencode_session::testing::record::{Answer, Log, ToolCall};
use serde_json::{Value, json};

/// One call as a log sees it.
#[derive(Debug, Clone)]
pub struct Call {
    pub session: String,
    pub parent: Option<String>,
    agent: Option<String>,
    path: &'static str,
    pub body: Value,
    status: StatusCode,
    pub answer: Said,
    id: Option<String>,
}

impl Call {
    pub fn new(session: &str, body: Value) -> Self {
        Self {
            session: session.to_owned(),
            parent: None,
            agent: None,
            path: "/zen/v1/chat/completions",
            body,
            status: StatusCode::OK,
            answer: Said::default(),
            id: None,
        }
    }

    /// A call in a wire format.
    pub fn in_format(session: &str, format: Format, system: &str, messages: &[Message]) -> Self {
        let path = format.path();
        let body = format.body(system, messages);
        Self {
            path,
            ..Self::new(session, body)
        }
    }

    pub fn answered(self, answer: impl Into<Said>) -> Self {
        let answer = answer.into();
        Self { answer, ..self }
    }

    /// Gives the answer an id.
    pub fn with_id(self, id: &str) -> Self {
        let id = Some(id.to_owned());
        Self { id, ..self }
    }

    pub fn refused(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    pub fn parent(self, parent: &str) -> Self {
        let parent = Some(parent.to_owned());
        Self { parent, ..self }
    }

    pub fn agent(self, agent: &str) -> Self {
        let agent = Some(agent.to_owned());
        Self { agent, ..self }
    }

    /// Records the call, and returns its number.
    pub fn of(self, log: &Log) -> u64 {
        self.record(log)
    }

    pub fn record(&self, log: &Log) -> u64 {
        let mut request = Request::post(self.path);
        let session = Some(&self.session).filter(|session| !session.is_empty());
        for (name, value) in [
            ("x-opencode-session", session),
            ("x-parent-session-id", self.parent.as_ref()),
            ("x-claude-code-agent-id", self.agent.as_ref()),
        ] {
            if let Some(value) = value {
                request = request.header(HeaderName::from_static(name), value);
            }
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let number = log.record(&head, self.body.to_string());
        let mut answer = Answer::with_status(self.status);
        log.answer(number, &answer);
        if self.status.is_success() {
            // As a proxy does when the stream has ended.
            answer.text = Some(self.answer.text.clone());
            answer.tool_calls = self.answer.calls.iter().map(Tool::as_answered).collect();
            answer.id.clone_from(&self.id);
            log.answer(number, &answer);
        }
        number
    }
}

/// Something that the model says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Said {
    pub text: String,
    pub calls: Vec<Tool>,
}

impl From<&str> for Said {
    fn from(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            calls: vec![],
        }
    }
}

impl From<Tool> for Said {
    fn from(call: Tool) -> Self {
        Self {
            text: String::new(),
            calls: vec![call],
        }
    }
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    pub id: String,
    pub name: String,
    pub arguments: Value,
}

impl Tool {
    pub fn new(id: &str, name: &str, arguments: Value) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            arguments,
        }
    }

    fn as_answered(&self) -> ToolCall {
        let mut call = ToolCall::default();
        call.id = Some(self.id.clone()).filter(|id| !id.is_empty());
        call.name.clone_from(&self.name);
        call.arguments = self.arguments.to_string();
        call
    }
}

/// What a prompt consists of, after the system prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    User(String),
    Model(Said),
    /// What tools answered.
    Results(Vec<(Tool, String)>),
}

pub fn asks(text: &str) -> Message {
    Message::User(text.to_owned())
}

pub fn says(said: impl Into<Said>) -> Message {
    Message::Model(said.into())
}

pub fn result(call: &Tool, text: &str) -> Message {
    Message::Results(vec![(call.clone(), text.to_owned())])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Chat,
    Responses,
    Messages,
    Generate,
}

impl Format {
    pub const ALL: [Self; 4] = [Self::Chat, Self::Responses, Self::Messages, Self::Generate];

    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/zen/go/v1/chat/completions",
            Self::Responses => "/zen/go/v1/responses",
            Self::Messages => "/zen/go/v1/messages",
            Self::Generate => "/zen/v1/models/kimi-k3:generateContent",
        }
    }

    pub fn body(self, system: &str, messages: &[Message]) -> Value {
        let messages: Vec<Value> = messages.iter().flat_map(|it| self.message(it)).collect();
        match self {
            Self::Chat => {
                let system = json!({"role": "system", "content": system});
                let messages: Vec<_> = [system].into_iter().chain(messages).collect();
                json!({"model": "kimi-k3", "messages": messages})
            }
            Self::Responses => {
                json!({"model": "kimi-k3", "instructions": system, "input": messages})
            }
            Self::Messages => json!({"model": "kimi-k3", "system": system, "messages": messages}),
            Self::Generate => json!({
                "systemInstruction": {"parts": [{"text": system}]},
                "contents": messages,
            }),
        }
    }

    fn message(self, message: &Message) -> Vec<Value> {
        match message {
            Message::User(text) => vec![match self {
                Self::Chat => json!({"role": "user", "content": text}),
                Self::Responses => json!({
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": text}],
                }),
                Self::Messages => {
                    json!({"role": "user", "content": [{"type": "text", "text": text}]})
                }
                Self::Generate => json!({"role": "user", "parts": [{"text": text}]}),
            }],
            Message::Model(said) => self.said(said),
            Message::Results(results) => self.results(results),
        }
    }

    fn said(self, Said { text, calls }: &Said) -> Vec<Value> {
        let text = Some(text).filter(|text| !text.is_empty());
        match self {
            Self::Chat => {
                let mut message = json!({"role": "assistant", "content": text});
                if !calls.is_empty() {
                    let call = |call: &Tool| {
                        let arguments = call.arguments.to_string();
                        json!({
                            "id": call.id,
                            "type": "function",
                            "function": {"name": call.name, "arguments": arguments},
                        })
                    };
                    message["tool_calls"] = calls.iter().map(call).collect();
                }
                vec![message]
            }
            Self::Responses => {
                let text = text.map(|text| {
                    json!({
                        "type": "message",
                        "role": "assistant",
                        "content": [{"type": "output_text", "text": text, "annotations": []}],
                    })
                });
                let calls = calls.iter().map(|call| {
                    json!({
                        "type": "function_call",
                        "call_id": call.id,
                        "name": call.name,
                        "arguments": call.arguments.to_string(),
                    })
                });
                text.into_iter().chain(calls).collect()
            }
            Self::Messages => {
                let text = text.map(|text| json!({"type": "text", "text": text}));
                let calls = calls.iter().map(|call| {
                    let Tool {
                        id,
                        name,
                        arguments,
                    } = call;
                    json!({"type": "tool_use", "id": id, "name": name, "input": arguments})
                });
                let content: Vec<_> = text.into_iter().chain(calls).collect();
                vec![json!({"role": "assistant", "content": content})]
            }
            Self::Generate => {
                let text = text.map(|text| json!({"text": text}));
                let calls = calls.iter().map(
                    |call| json!({"functionCall": {"name": call.name, "args": call.arguments}}),
                );
                let parts: Vec<_> = text.into_iter().chain(calls).collect();
                vec![json!({"role": "model", "parts": parts})]
            }
        }
    }

    fn results(self, results: &[(Tool, String)]) -> Vec<Value> {
        let each = results.iter().map(|(call, text)| match self {
            Self::Chat => json!({"role": "tool", "tool_call_id": call.id, "content": text}),
            Self::Responses => json!({
                "type": "function_call_output",
                "call_id": call.id,
                "output": text,
            }),
            Self::Messages => json!({
                "type": "tool_result",
                "tool_use_id": call.id,
                "content": [{"type": "text", "text": text}],
            }),
            Self::Generate => json!({
                "functionResponse": {"name": call.name, "response": {"output": text}},
            }),
        });
        match self {
            Self::Chat | Self::Responses => each.collect(),
            Self::Messages => vec![json!({"role": "user", "content": each.collect::<Vec<_>>()})],
            Self::Generate => vec![json!({"role": "user", "parts": each.collect::<Vec<_>>()})],
        }
    }
}

/// The numbers of the calls that each call continues.
pub fn continued(log: &Log) -> Vec<Option<u64>> {
    let requests = log.requests().into_iter();
    requests.map(|request| request.continues).collect()
}

pub fn marked(log: &Log) -> Vec<(u64, Vec<Mark>)> {
    let requests = log.requests().into_iter();
    let marks = requests.map(|request| (request.number, request.marks));
    marks.filter(|(_, marks)| !marks.is_empty()).collect()
}

pub fn moved(continues: u64, from: &str, back: bool) -> Vec<Mark> {
    let from = from.to_owned();
    vec![Mark::Moved {
        continues,
        from,
        back,
    }]
}

pub fn shared(conversation: u64, other: u64) -> Vec<Mark> {
    vec![Mark::Shared {
        conversation,
        other,
        back: other > conversation,
    }]
}

pub fn quotes(call: u64, session: &str) -> Vec<Mark> {
    let session = session.to_owned();
    vec![Mark::Quotes { call, session }]
}
