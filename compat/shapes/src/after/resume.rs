//! A conversation that is stored, and resumed by the next process.

use std::fs;
use std::path::Path;

use anyhow::Result;
use reqwest_opencode_session::Session;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A conversation's file. In a subagent's, the session names its parent.
#[derive(Serialize, Deserialize)]
pub struct Conversation {
    pub session: Session,
    pub history: Vec<Value>,
}

impl Conversation {
    pub fn store(&self, file: &Path) -> Result<()> {
        Ok(fs::write(file, serde_json::to_vec(self)?)?)
    }

    pub fn resume(file: &Path) -> Result<Self> {
        Ok(serde_json::from_slice(&fs::read(file)?)?)
    }
}

/// Makes a session from ids that are stored as text.
pub fn session(id: &str, parent: Option<&str>) -> Result<Session> {
    let parent = parent.map(str::parse::<Session>).transpose()?;
    Ok(id.parse::<Session>()?.with_parent(parent))
}
