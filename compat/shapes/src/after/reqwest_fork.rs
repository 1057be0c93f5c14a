//! A fork of reqwest, whose types this crate does not know.

use anyhow::Result;
use reqwest_fork::{Client, Url, redirect};
use reqwest_opencode_session::OpencodeSessionMiddleware;

static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new();

pub fn client() -> Result<Client> {
    let policy = redirect::Policy::custom(|attempt| {
        match OPENCODE.check_redirect(attempt.previous(), attempt.url()) {
            Err(refused) => attempt.error(refused),
            Ok(()) if attempt.previous().len() > 10 => attempt.error("too many redirects"),
            Ok(()) => attempt.follow(),
        }
    });
    Ok(Client::builder().redirect(policy).build()?)
}

pub async fn ask(http: &Client, url: Url, key: &str, body: String) -> Result<String> {
    let session = OPENCODE.headers_for(&url)?;
    let call = http.post(url).bearer_auth(key).body(body);
    // Last, so that nothing of another session stays.
    let call = call.headers(session);
    Ok(call.send().await?.error_for_status()?.text().await?)
}
