//! The generation of reqwest under test, under the names of the other one.

pub use reqwest_012 as reqwest;
pub use reqwest_middleware_04 as reqwest_middleware;
pub use reqwest_retry_07 as reqwest_retry;
