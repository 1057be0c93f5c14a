//! The generation of reqwest under test, under the names of the other one.

pub use reqwest_012 as reqwest;
pub use reqwest_middleware_04 as reqwest_middleware;
pub use reqwest_retry_07 as reqwest_retry;

use reqwest_opencode_session::OpencodeSessionMiddleware;

pub fn redirect_policy(plugin: &OpencodeSessionMiddleware) -> reqwest::redirect::Policy {
    plugin.redirect_policy_012()
}

pub fn into_client(
    plugin: OpencodeSessionMiddleware,
    builder: reqwest::ClientBuilder,
) -> reqwest::Result<reqwest_middleware::ClientWithMiddleware> {
    plugin.into_client_012(builder)
}
