//! What the middleware is applied to: a request, or its parts.

use http::{Extensions, HeaderMap, Uri};

use crate::origin::RequestUrl;

/// A request that the middleware can be applied to: the `reqwest::Request` of either version, that
/// of `reqwest::blocking`, [`http::Request`] or [`http::request::Parts`].
///
/// This trait is sealed: it is implemented only for these types, and for reqwest's only with their
/// features.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a request that a session can be applied to",
    note = "`http::Request<B>` and `http::request::Parts` are, and so is the `reqwest::Request` of \
            each version whose feature is on: `reqwest-013`, `reqwest-012`, `blocking`, `blocking-012`",
    note = "for other types, use `apply_parts` or `headers_for`"
)]
pub trait HttpRequest: sealed::HttpRequest {}

impl HttpRequest for http::request::Parts {}
impl<B> HttpRequest for http::Request<B> {}

pub(crate) mod sealed {
    use http::{Extensions, HeaderMap};

    use crate::origin::RequestUrl;

    pub trait HttpRequest {
        type Url: RequestUrl + ?Sized;

        fn url(&self) -> &Self::Url;

        /// Calls `edit` with the headers and, if they are accessible, the extensions.
        fn edit<T>(&mut self, edit: impl FnOnce(&mut HeaderMap, Option<&mut Extensions>) -> T)
        -> T;
    }
}

/// A request in parts.
pub(crate) struct RequestParts<'a, U: ?Sized> {
    pub url: &'a U,
    pub headers: &'a mut HeaderMap,
    pub extensions: &'a mut Extensions,
}

impl<U: RequestUrl + ?Sized> sealed::HttpRequest for RequestParts<'_, U> {
    type Url = U;

    fn url(&self) -> &U {
        self.url
    }

    fn edit<T>(&mut self, edit: impl FnOnce(&mut HeaderMap, Option<&mut Extensions>) -> T) -> T {
        edit(self.headers, Some(self.extensions))
    }
}

impl sealed::HttpRequest for http::request::Parts {
    type Url = Uri;

    fn url(&self) -> &Uri {
        &self.uri
    }

    fn edit<T>(&mut self, edit: impl FnOnce(&mut HeaderMap, Option<&mut Extensions>) -> T) -> T {
        edit(&mut self.headers, Some(&mut self.extensions))
    }
}

impl<B> sealed::HttpRequest for http::Request<B> {
    type Url = Uri;

    fn url(&self) -> &Uri {
        self.uri()
    }

    fn edit<T>(&mut self, edit: impl FnOnce(&mut HeaderMap, Option<&mut Extensions>) -> T) -> T {
        /// Lends the extensions beside the headers, and gives them back, even after a panic.
        struct Lent<'a, B> {
            request: &'a mut http::Request<B>,
            extensions: Extensions,
        }

        impl<B> Drop for Lent<'_, B> {
            fn drop(&mut self) {
                std::mem::swap(self.request.extensions_mut(), &mut self.extensions);
            }
        }

        let extensions = std::mem::take(self.extensions_mut());
        let mut lent = Lent {
            request: self,
            extensions,
        };
        edit(lent.request.headers_mut(), Some(&mut lent.extensions))
    }
}
