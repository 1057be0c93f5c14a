//! The test gateway, to a client without any middleware.

mod answers;
mod assertions;
mod cache;
mod clients;
mod continuity;
mod load;
mod log;
mod played;
mod quotes;
mod random;
mod rules;
mod seen;
mod support;
