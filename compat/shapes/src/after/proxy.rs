//! A proxy that forwards its tenants' sessions under opaque ids.

use anyhow::Result;
use http::HeaderMap;
use reqwest::{Client, Response};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_opencode_session::{Fallback, OpencodeSessionMiddleware, Session};

pub struct Proxy {
    http: ClientWithMiddleware,
    url: String,
    key: String,
    /// Without it, nobody can tell which tenant's id became which session.
    secret: String,
}

impl Proxy {
    pub fn new(base_url: &str, key: &str, secret: &str) -> Result<Self> {
        let builder = Client::builder();
        let builder = builder.no_proxy();
        let http = OpencodeSessionMiddleware::builder()
            // A request without a session stays without one, and the gateway refuses it.
            .fallback(Fallback::Omit)
            .build()?
            .into_client(builder)?;
        Ok(Self {
            http,
            url: format!("{base_url}/chat/completions"),
            key: key.to_owned(),
            secret: secret.to_owned(),
        })
    }

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
