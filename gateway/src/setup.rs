//! How each client is told to use this gateway.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::ValueEnum;
use reqwest_opencode_session::SessionId;
use serde_json::{Value, json};

/// A client that can be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Client {
    Openai,
    Anthropic,
    Google,
    Opencode,
    Pi,
    Codex,
    ClaudeCode,
    GeminiCli,
    QwenCode,
    Aider,
}

/// Where the gateway is, and with which key it is called.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub origin: &'a str,
    /// The key of the test gateway, or `None` if calls go on to the real one with the user's own.
    pub key: Option<&'a str>,
}

/// What a client is told.
#[derive(Debug)]
pub struct Setup {
    /// What its user should know.
    notes: &'static [&'static str],
    pub variables: Vec<(&'static str, String)>,
    /// Shell commands for what setting a variable does not do.
    commands: Option<String>,
    /// A first call.
    example: &'static str,
}

/// The base URLs of OpenCode Go, which refuses calls without a session.
mod base {
    pub const OPENAI: &str = "/zen/go/v1";
    /// Under `/zen`, the newest SDKs would be refused: messages there take only `x-api-key`.
    pub const ANTHROPIC: &str = "/inference/go/anthropic";
    pub const GOOGLE: &str = "/inference/go/google";
}

/// The environment variable of the user's own key.
pub const KEY_VARIABLE: &str = "OPENCODE_API_KEY";

impl Client {
    /// Returns its name, as in `--setup NAME`.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or(String::new(), |value| value.get_name().to_owned())
    }

    /// Returns what people call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Openai => "OpenAI SDKs",
            Self::Anthropic => "Anthropic SDKs",
            Self::Google => "Google SDKs",
            Self::Opencode => "opencode",
            Self::Pi => "pi",
            Self::Codex => "Codex",
            Self::ClaudeCode => "Claude Code",
            Self::GeminiCli => "Gemini CLI",
            Self::QwenCode => "Qwen Code",
            Self::Aider => "aider",
        }
    }

    /// Returns what it is told.
    pub fn setup(self, place: Place<'_>) -> Setup {
        let Place { origin, key } = place;
        let url = |path: &str| format!("{origin}{path}");
        let key = || key.map_or(format!("${KEY_VARIABLE}"), str::to_owned);
        let (notes, variables, commands, example): (&[&str], _, _, _) = match self {
            Self::Openai => (
                &[],
                vec![
                    ("OPENAI_BASE_URL", url(base::OPENAI)),
                    ("OPENAI_API_KEY", key()),
                ],
                None,
                "python my_agent.py",
            ),
            Self::Anthropic => (
                &[],
                vec![
                    ("ANTHROPIC_BASE_URL", url(base::ANTHROPIC)),
                    ("ANTHROPIC_API_KEY", key()),
                ],
                // An SDK would send that token along with the key.
                Some("unset ANTHROPIC_AUTH_TOKEN\n".to_owned()),
                "python my_agent.py",
            ),
            Self::Google => (
                &[],
                vec![
                    ("GOOGLE_GEMINI_BASE_URL", url(base::GOOGLE)),
                    // Otherwise, the newest one in Python asks for `v1`.
                    ("GOOGLE_GENAI_API_VERSION", "v1beta".to_owned()),
                    ("GEMINI_API_KEY", key()),
                    ("GOOGLE_API_KEY", key()),
                ],
                None,
                "python my_agent.py",
            ),
            Self::Opencode => (
                &["Both of opencode's own providers, Zen and Go, are at the gateway."],
                vec![("OPENCODE_CONFIG_CONTENT", opencode(place).to_string())],
                None,
                "opencode run --model opencode-go/kimi-k3 Hello",
            ),
            Self::Pi => (
                &[
                    "pi reads this from a file, which is put into a directory of its own, so that",
                    "your settings stay as they are. Take a model of chat completions or responses.",
                ],
                vec![],
                Some(pi(place)),
                "pi --model opencode-go/kimi-k3 --print Hello",
            ),
            Self::Codex => (
                &[],
                vec![(CODEX_KEY, key())],
                Some(codex(origin)),
                "codex exec --skip-git-repo-check --model gpt-6-luna Hello",
            ),
            Self::ClaudeCode => (
                &[],
                vec![
                    ("ANTHROPIC_BASE_URL", url(base::ANTHROPIC)),
                    ("ANTHROPIC_AUTH_TOKEN", key()),
                    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
                ],
                // Claude Code would send that key along with the token.
                Some("unset ANTHROPIC_API_KEY\n".to_owned()),
                "claude --model qwen4-max --print Hello",
            ),
            Self::GeminiCli => (
                &["Gemini CLI sends no session, which OpenCode Go refuses; --add-session helps."],
                vec![
                    ("GOOGLE_GEMINI_BASE_URL", url(base::GOOGLE)),
                    ("GEMINI_API_KEY", key()),
                ],
                Some(gemini_cli()),
                "gemini --skip-trust --model gemini-4-argon --prompt Hello",
            ),
            Self::QwenCode => (
                &["Qwen Code sends no session, which OpenCode Go refuses; --add-session helps."],
                vec![
                    ("OPENAI_BASE_URL", url(base::OPENAI)),
                    ("OPENAI_API_KEY", key()),
                ],
                None,
                "qwen --auth-type openai --model kimi-k3 --prompt Hello",
            ),
            Self::Aider => (
                &["aider sends no session, which OpenCode Go refuses; --add-session helps."],
                vec![
                    // One that is set for another program would come first.
                    ("OPENAI_BASE_URL", url(base::OPENAI)),
                    ("OPENAI_API_BASE", url(base::OPENAI)),
                    ("OPENAI_API_KEY", key()),
                ],
                None,
                "aider --model openai/kimi-k3 --message Hello",
            ),
        };
        Setup {
            notes,
            variables,
            commands,
            example,
        }
    }
}

/// Returns opencode's configuration for its own two providers.
fn opencode(Place { origin, key }: Place<'_>) -> Value {
    let provider = |path: &str| {
        let mut options = json!({"baseURL": format!("{origin}{path}")});
        if let Some(key) = key {
            options["apiKey"] = key.into();
        }
        json!({"options": options})
    };
    json!({"provider": {"opencode": provider("/zen/v1"), "opencode-go": provider("/zen/go/v1")}})
}

/// The directory for the files of clients that no variable sets up, in a shell.
const FILES: &str = "\"${XDG_CACHE_HOME:-$HOME/.cache}/opencode-gateway\"";

/// The environment variable of pi's directory.
const PI_DIRECTORY: &str = "PI_CODING_AGENT_DIR";

/// Returns pi's models for OpenCode's providers.
fn pi_models(Place { origin, key }: Place<'_>) -> Value {
    let provider = |path: &str| {
        let mut provider = json!({"baseUrl": format!("{origin}{path}")});
        if let Some(key) = key {
            provider["apiKey"] = key.into();
        }
        provider
    };
    json!({"providers": {
        "opencode": provider("/inference/openai/v1"),
        "opencode-go": provider("/inference/go/openai/v1"),
    }})
}

/// Returns the commands that give pi its models at the gateway.
fn pi(place: Place<'_>) -> String {
    let models = pi_models(place);
    format!(
        "export {PI_DIRECTORY}={FILES}/pi\n\
        mkdir -p \"${PI_DIRECTORY}\"\n\
        cat > \"${PI_DIRECTORY}/models.json\" <<'END'\n{models:#}\nEND\n"
    )
}

/// Returns the commands by which Gemini CLI uses an API key: at a base URL from the environment, it
/// chooses a way that it then refuses.
fn gemini_cli() -> String {
    let settings = gemini_cli_settings();
    format!(
        "export {GEMINI_CLI_FILE}={FILES}/gemini-cli.json\n\
        mkdir -p {FILES}\n\
        echo '{settings}' > \"${GEMINI_CLI_FILE}\"\n"
    )
}

/// The environment variable of a file of Gemini CLI's settings.
const GEMINI_CLI_FILE: &str = "GEMINI_CLI_SYSTEM_SETTINGS_PATH";

fn gemini_cli_settings() -> Value {
    json!({"security": {"auth": {"selectedType": "gemini-api-key"}}})
}

/// The environment variable from which Codex is told to take the key.
const CODEX_KEY: &str = "OPENCODE_GATEWAY_KEY";

/// Returns the command that gives Codex a provider of its own.
fn codex(origin: &str) -> String {
    let provider = codex_provider(origin);
    format!(
        "codex() {{\n  command codex -c model_provider=opencode-gateway \\\n    \
        -c model_providers.opencode-gateway='{provider}' \"$@\"\n}}\n"
    )
}

/// Returns Codex's provider, in TOML.
fn codex_provider(origin: &str) -> String {
    let path = base::OPENAI;
    format!(
        "{{name = \"opencode-gateway\", base_url = \"{origin}{path}\", \
        env_key = \"{CODEX_KEY}\", wire_api = \"responses\"}}"
    )
}

/// A file of a client that takes keys, but no address, from variables.
#[derive(Debug)]
pub struct File {
    /// The variable that names the file or its directory.
    pub variable: &'static str,
    /// What the variable names, in a directory of this program's.
    pub named: &'static str,
    pub path: &'static str,
    pub content: String,
}

/// Returns the files of a check, by which these clients send no key of its variables to another
/// address. The user's own key is in none of them.
pub fn files(place: Place<'_>) -> [File; 4] {
    let origin = place.origin;
    let mut models = pi_models(place);
    for (provider, path) in [
        ("openai", base::OPENAI),
        ("anthropic", base::ANTHROPIC),
        ("google", &format!("{}/v1beta", base::GOOGLE)),
    ] {
        models["providers"][provider] = json!({"baseUrl": format!("{origin}{path}")});
    }
    // It would choose one of those, to which it sends no session.
    let default = json!({"defaultProvider": "opencode-go", "defaultModel": "kimi-k3"});
    let codex = format!(
        "model_provider = \"opencode-gateway\"\nmodel_providers.opencode-gateway = {}\n",
        codex_provider(origin)
    );
    let file = |variable, named, path, content| File {
        variable,
        named,
        path,
        content,
    };
    [
        file(PI_DIRECTORY, "pi", "pi/models.json", models.to_string()),
        file(PI_DIRECTORY, "pi", "pi/settings.json", default.to_string()),
        file("CODEX_HOME", "codex", "codex/config.toml", codex),
        file(
            GEMINI_CLI_FILE,
            "gemini-cli.json",
            "gemini-cli.json",
            gemini_cli_settings().to_string(),
        ),
    ]
}

/// Writes it as commands for a POSIX shell, in which the client then runs as usual.
impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in self.notes {
            writeln!(f, "# {note}")?;
        }
        for (name, value) in &self.variables {
            writeln!(f, "export {name}={}", quoted(value))?;
        }
        f.write_str(self.commands.as_deref().unwrap_or_default())?;
        writeln!(f, "# Then, for example:\n# {}", self.example)
    }
}

/// Quotes a value for a shell, where that is necessary; the name of a variable is still replaced.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if value.chars().all(plain) {
        return value.to_owned();
    }
    if value.strip_prefix('$') == Some(KEY_VARIABLE) {
        return format!("\"{value}\"");
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// Returns the variables of a check, for every client, and for programs of one's own that read
/// `OPENCODE_BASE_URL`. A key is only in those beside which a client reads an address.
pub fn variables(origin: &str, key: &str) -> Vec<(&'static str, String)> {
    let place = Place {
        origin,
        key: Some(key),
    };
    let mut variables = vec![
        ("OPENCODE_BASE_URL", format!("{origin}{}", base::OPENAI)),
        // LiteLLM, which is in aider, takes Google's key with no other address.
        (
            "GEMINI_API_BASE",
            format!("{origin}{}/v1beta", base::GOOGLE),
        ),
    ];
    for client in Client::value_variants() {
        variables.extend(client.setup(place).variables);
    }
    // Next to it, an SDK would send the key twice.
    variables.retain(|(name, _)| *name != "ANTHROPIC_AUTH_TOKEN");
    variables
}

/// Returns what the page shows of each client.
pub fn all(place: Place<'_>) -> Vec<Value> {
    let clients = Client::value_variants().iter();
    let shown = clients.map(|client| {
        json!({
            "name": client.name(),
            "title": client.title(),
            "commands": client.setup(place).to_string(),
        })
    });
    shown.collect()
}

/// Returns the names of all clients, as in `--setup NAME`.
pub fn names() -> String {
    let mut names = String::new();
    for client in Client::value_variants() {
        let separator = if names.is_empty() { "" } else { ", " };
        let _ = write!(names, "{separator}{}", client.name());
    }
    names
}

/// Returns the origin at which a client on this machine reaches this address.
pub fn origin(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
}

/// Returns a command that makes a first call, in this session.
pub fn first_call(Place { origin, key }: Place<'_>, session: &SessionId) -> String {
    let key = key.map_or(format!("${KEY_VARIABLE}"), str::to_owned);
    let path = base::OPENAI;
    let body = r#"{"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}"#;
    format!(
        "curl {origin}{path}/chat/completions -H \"Authorization: Bearer {key}\" \
        -H 'x-opencode-session: {session}' -H 'Content-Type: application/json' -d '{body}'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "http://127.0.0.1:8787";

    #[test]
    fn every_client_is_told_the_gateway_and_its_key() {
        for client in Client::value_variants() {
            let loopback = client.setup(Place {
                origin: ORIGIN,
                key: Some("loopback-key"),
            });
            let told = loopback.to_string();
            assert!(told.contains(&format!("{ORIGIN}/")), "{told}");
            assert!(told.contains("loopback-key"), "{told}");
            assert!(!told.contains(KEY_VARIABLE), "{told}");
        }
    }

    #[test]
    fn with_an_upstream_no_key_is_told_but_the_variable_of_the_users_own() {
        for client in Client::value_variants() {
            let upstream = client.setup(Place {
                origin: ORIGIN,
                key: None,
            });
            let told = upstream.to_string();
            assert!(!told.contains("loopback-key"), "{told}");
            // opencode and pi read that variable, or their own store, by themselves.
            let reads_it_alone = matches!(client, Client::Opencode | Client::Pi);
            let names_it = told.contains(&format!("\"${KEY_VARIABLE}\""));
            assert_eq!(names_it, !reads_it_alone, "{told}");
        }
    }

    #[test]
    fn a_key_for_another_address_is_unset_where_it_would_be_sent_along() {
        let place = Place {
            origin: ORIGIN,
            key: None,
        };
        for (client, unset) in [
            (Client::Anthropic, "\nunset ANTHROPIC_AUTH_TOKEN\n"),
            (Client::ClaudeCode, "\nunset ANTHROPIC_API_KEY\n"),
        ] {
            let told = client.setup(place).to_string();
            assert!(told.contains(unset), "{told}");
        }
    }

    #[test]
    fn the_files_of_a_check_name_the_gateway_and_never_the_users_own_key() {
        let text = |key| {
            let files = files(Place {
                origin: ORIGIN,
                key,
            });
            files.map(|file| file.content).concat()
        };
        for (key, count) in [(Some("loopback-key"), 2), (None, 0)] {
            let text = text(key);
            assert_eq!(text.matches("http").count(), 6, "{text}");
            assert_eq!(text.matches(&format!("{ORIGIN}/")).count(), 6, "{text}");
            assert_eq!(text.matches("loopback-key").count(), count, "{text}");
        }
    }

    #[test]
    fn a_check_gives_no_key_but_beside_an_address() {
        for client in Client::value_variants() {
            let place = Place {
                origin: ORIGIN,
                key: Some("loopback-key"),
            };
            let variables = client.setup(place).variables;
            let has_address = variables.iter().any(|(_, value)| value.contains(ORIGIN));
            // Those of Codex are in a file.
            let has_file = *client == Client::Codex;
            let has_key = variables
                .iter()
                .any(|(_, value)| value.contains("loopback-key"));
            assert!(!has_key || has_address || has_file, "{variables:?}");
        }
        let variables = variables(ORIGIN, "loopback-key");
        assert!(!variables.iter().any(|(name, _)| *name == KEY_VARIABLE));
    }

    #[test]
    fn a_check_gives_no_variable_two_values() {
        let mut variables = variables(ORIGIN, "loopback-key");
        variables.sort_unstable();
        variables.dedup();
        let mut names: Vec<_> = variables.iter().map(|(name, _)| *name).collect();
        names.dedup();
        assert_eq!(names.len(), variables.len(), "{variables:?}");
    }

    #[test]
    fn values_are_quoted_for_a_shell() {
        assert_eq!(quoted("http://127.0.0.1:1/v1"), "http://127.0.0.1:1/v1");
        assert_eq!(quoted(r#"{"it's": 1}"#), r#"'{"it'\''s": 1}'"#);
        assert_eq!(quoted("$OPENCODE_API_KEY"), "\"$OPENCODE_API_KEY\"");
        assert_eq!(quoted("$HOME"), "'$HOME'");
    }
}
