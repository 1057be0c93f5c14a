//! Redirects that never carry a session off its targets.

use reqwest::redirect::Policy;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};

use crate::error::RedirectRefused;
use crate::middleware::OpencodeSessionMiddleware;

impl OpencodeSessionMiddleware {
    /// A redirect policy that never carries a session off its targets.
    ///
    /// It follows what reqwest's default policy follows, at most ten redirects, but for one that leads from a
    /// target to an address that is none. That one is refused with an error that names both origins.
    /// Without this policy reqwest sends the session, and the body where the status asks for it, to any host
    /// that the gateway names: redirects happen below every middleware, and only credentials are taken away.
    ///
    /// ```
    /// use reqwest_middleware::ClientBuilder;
    /// use reqwest_opencode_session::OpencodeSessionMiddleware;
    ///
    /// let middleware = OpencodeSessionMiddleware::new();
    /// let client = reqwest::Client::builder().redirect(middleware.redirect_policy()).build()?;
    /// let client = ClientBuilder::new(client).with(middleware).build();
    /// # Ok::<(), reqwest::Error>(())
    /// ```
    pub fn redirect_policy(&self) -> Policy {
        let middleware = self.clone();
        Policy::custom(move |attempt| {
            if middleware.is_target(attempt.url()) {
                return Policy::default().redirect(attempt);
            }
            match attempt
                .previous()
                .iter()
                .rfind(|url| middleware.is_target(*url))
            {
                None => Policy::default().redirect(attempt),
                Some(from) => {
                    let refused = RedirectRefused::new(from, attempt.url());
                    attempt.error(refused)
                }
            }
        })
    }

    /// A client with this plugin and its [redirect policy](Self::redirect_policy) in place.
    ///
    /// The policy replaces the one that the builder has. To put other middlewares on the chain, too, go on with
    /// [`reqwest_middleware::ClientBuilder::from_client`].
    ///
    /// # Errors
    ///
    /// What [`reqwest::ClientBuilder::build`] fails with.
    ///
    /// ```
    /// use reqwest_opencode_session::OpencodeSessionMiddleware;
    ///
    /// let client = OpencodeSessionMiddleware::new().into_client(reqwest::Client::builder())?;
    /// # Ok::<(), reqwest::Error>(())
    /// ```
    pub fn into_client(
        self,
        builder: reqwest::ClientBuilder,
    ) -> reqwest::Result<ClientWithMiddleware> {
        let client = builder.redirect(self.redirect_policy()).build()?;
        Ok(ClientBuilder::new(client).with(self).build())
    }
}
