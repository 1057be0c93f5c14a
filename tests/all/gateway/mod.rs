//! The test gateway, to a client without any middleware.

mod answers;
mod assertions;
mod cache;
mod continuity;
mod load;
mod log;
mod played;
mod quotes;
mod rules;
mod seen;
mod support;
