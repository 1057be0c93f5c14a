//! Which redirects may be followed: those that never carry a session off its targets.

use thiserror::Error;

use crate::origin::{self, RequestUrl};
use crate::target::Targets;

/// A redirect that would carry a session off its targets.
///
/// It is the source of a `reqwest::Error` for which `is_redirect` is true.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Error)]
#[error("the redirect from {from} to {to} was refused: {reason}")]
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
}

impl RedirectRefused {
    /// Returns the origin that redirected.
    pub fn from_origin(&self) -> &str {
        &self.from
    }

    /// Returns the origin that it redirected to.
    pub fn to_origin(&self) -> &str {
        &self.to
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
    let ([first, ..], [.., last]) = (previous, previous) else {
        return Ok(());
    };
    let Some(carried) = targets.find(first) else {
        return Ok(());
    };
    let reason = match targets.find(to) {
        Some(taken) if taken == carried => return Ok(()),
        Some(_) => Reason::OtherHeaders,
        None => Reason::NoTarget,
    };
    Err(RedirectRefused {
        from: origin::origin(last),
        to: origin::origin(to),
        reason,
    })
}
