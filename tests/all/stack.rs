//! The generation of reqwest under test. The target `reqwest_012` runs the same modules with
//! another.

pub use {reqwest, reqwest_middleware, reqwest_retry};

use reqwest_opencode_session::OpencodeSessionMiddleware;

pub fn redirect_policy(plugin: &OpencodeSessionMiddleware) -> reqwest::redirect::Policy {
    plugin.redirect_policy()
}

pub fn into_client(
    plugin: OpencodeSessionMiddleware,
    builder: reqwest::ClientBuilder,
) -> reqwest::Result<reqwest_middleware::ClientWithMiddleware> {
    plugin.into_client(builder)
}
