//! A proxy: the session arrives with one request and leaves with another.

use anyhow::Result;
use http::HeaderMap;
use reqwest::{Client, Response};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_opencode_session::{Fallback, OpencodeSessionMiddleware, Session};

pub struct Proxy {
    pub http: ClientWithMiddleware,
    pub url: String,
    pub key: String,
    /// A reader of it can work out which session a tenant's id became.
    pub secret: String,
}

pub fn client() -> Result<ClientWithMiddleware> {
    // A request without a session stays without one, and the gateway refuses it.
    let opencode = OpencodeSessionMiddleware::builder().fallback(Fallback::Omit);
    Ok(opencode.build()?.into_client(Client::builder())?)
}

impl Proxy {
    /// Sends a tenant's request on, with none of its headers but the session's, the turn's and the
    /// parent's.
    pub async fn forward(
        &self,
        tenant: &str,
        headers: &HeaderMap,
        body: String,
    ) -> Result<Response> {
        let mut call = self.http.post(&self.url).bearer_auth(&self.key).body(body);
        if let Some(session) = Session::from_headers(headers) {
            call = call.with_extension(session.derived(format!("{}/{tenant}", self.secret)));
        }
        Ok(call.send().await?)
    }
}
