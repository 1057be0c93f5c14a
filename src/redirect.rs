//! Which redirects may be followed: those that carry no session to an address that is no target.

use thiserror::Error;

use crate::error::impl_debug;
use crate::origin::{self, RequestUrl};
use crate::target::Targets;

/// A redirect that would carry a session to an address that may not have it.
///
/// It is the source of a `reqwest::Error` for which `is_redirect` is true.
#[derive(Clone, PartialEq, Eq, Hash, Error)]
#[error("the redirect{} to {to} was refused: {reason}", source_of(from))]
pub struct RedirectRefused {
    from: String,
    to: String,
    reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
enum Reason {
    #[error("the session may go only to targets; to allow that origin, add it as a `Target`")]
    NoTarget,
    #[error(
        "that target takes the session in another header, or without turn and client, and a \
         redirect cannot change the headers"
    )]
    OtherHeaders,
    #[error(
        "where the chain began is not known, and if that was a target, the session may go only to \
         targets; pass the URLs of all its requests"
    )]
    UnknownBeginning,
}

impl_debug!(RedirectRefused);

impl RedirectRefused {
    /// Returns the origin that redirected: empty, if it is not known.
    pub fn from_origin(&self) -> &str {
        &self.from
    }

    /// Returns the origin that it redirected to.
    pub fn to_origin(&self) -> &str {
        &self.to
    }
}

fn source_of(from: &str) -> String {
    match from {
        "" => String::new(),
        from => format!(" from {from}"),
    }
}

/// Decides on a redirect to `to`, after requests to `previous`, in order.
///
/// The first URL of the chain decides, because headers were set only there.
pub(crate) fn check<U: RequestUrl>(
    targets: &Targets,
    previous: &[U],
    to: &U,
) -> Result<(), RedirectRefused> {
    let is_known = |first: &&U| first.scheme().is_some() && first.host().is_some();
    let first = previous.first().filter(is_known);
    let carried = first.map(|first| targets.find(first));
    let reason = match (carried, targets.find(to)) {
        (Some(None), _) | (None, Some(_)) => return Ok(()),
        (Some(Some(carried)), Some(taken)) if carried == taken => return Ok(()),
        (Some(Some(_)), Some(_)) => Reason::OtherHeaders,
        (Some(Some(_)), None) => Reason::NoTarget,
        (None, None) => Reason::UnknownBeginning,
    };
    Err(RedirectRefused {
        from: previous.last().map(origin::origin).unwrap_or_default(),
        to: origin::origin(to),
        reason,
    })
}
