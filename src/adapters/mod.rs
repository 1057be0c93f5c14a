//! The entry points for other crates' types.

#[cfg(feature = "_reqwest")]
pub mod reqwest;
#[cfg(feature = "tower")]
pub mod tower;
