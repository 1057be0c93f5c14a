//! Redirects that never carry a session off its targets.

use reqwest::Url;

use crate::error::RedirectRefused;
use crate::middleware::OpencodeSessionMiddleware;

impl OpencodeSessionMiddleware {
    /// A redirect policy that never carries a session off its targets.
    ///
    /// It follows what reqwest's default policy follows, at most ten redirects, but for one that
    /// leads from a target to an address that is none. That one is refused with an error that names
    /// both origins: `is_redirect` is true of it, and its source is a [`RedirectRefused`]. (A
    /// reqwest-retry that stands outside wraps errors; there, look further down the sources.)
    ///
    /// Without this policy reqwest sends the session, and the body where the status asks for it, to
    /// any host that the gateway names: redirects happen below every middleware, and only
    /// credentials are taken away.
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
    pub fn redirect_policy(&self) -> reqwest::redirect::Policy {
        use reqwest::redirect::Policy;

        let middleware = self.clone();
        Policy::custom(
            move |attempt| match middleware.refuses(attempt.previous(), attempt.url()) {
                Some(refused) => attempt.error(refused),
                None => Policy::default().redirect(attempt),
            },
        )
    }

    /// A client with this plugin and its [redirect policy](Self::redirect_policy) in place.
    ///
    /// The policy replaces the one that the builder has. To put other middlewares on the chain,
    /// too, go on with [`reqwest_middleware::ClientBuilder::from_client`].
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
    ) -> reqwest::Result<reqwest_middleware::ClientWithMiddleware> {
        let client = builder.redirect(self.redirect_policy()).build()?;
        Ok(reqwest_middleware::ClientBuilder::new(client)
            .with(self)
            .build())
    }

    /// Where `to` is no target, and the last target that redirected towards it is known: the
    /// refusal.
    fn refuses(&self, previous: &[Url], to: &Url) -> Option<RedirectRefused> {
        if self.is_target(to) {
            return None;
        }
        let from = previous.iter().rfind(|url| self.is_target(*url))?;
        Some(RedirectRefused::new(from, to))
    }
}

/// The same for reqwest 0.12 with reqwest-middleware 0.4.
#[cfg(feature = "reqwest-012")]
impl OpencodeSessionMiddleware {
    /// [`redirect_policy`](Self::redirect_policy) for reqwest 0.12.
    pub fn redirect_policy_012(&self) -> reqwest_012::redirect::Policy {
        use reqwest_012::redirect::Policy;

        let middleware = self.clone();
        Policy::custom(
            move |attempt| match middleware.refuses(attempt.previous(), attempt.url()) {
                Some(refused) => attempt.error(refused),
                None => Policy::default().redirect(attempt),
            },
        )
    }

    /// [`into_client`](Self::into_client) for reqwest 0.12 and reqwest-middleware 0.4.
    ///
    /// # Errors
    ///
    /// What [`reqwest_012::ClientBuilder::build`] fails with.
    ///
    /// ```
    /// # use reqwest_012 as reqwest;
    /// use reqwest_opencode_session::OpencodeSessionMiddleware;
    ///
    /// let client = OpencodeSessionMiddleware::new().into_client_012(reqwest::Client::builder())?;
    /// # Ok::<(), reqwest::Error>(())
    /// ```
    pub fn into_client_012(
        self,
        builder: reqwest_012::ClientBuilder,
    ) -> reqwest_012::Result<reqwest_middleware_04::ClientWithMiddleware> {
        let client = builder.redirect(self.redirect_policy_012()).build()?;
        Ok(reqwest_middleware_04::ClientBuilder::new(client)
            .with(self)
            .build())
    }
}
