//! The entry points for other crates' types.

#[cfg(any(feature = "reqwest-012", feature = "reqwest-013"))]
pub mod reqwest;
#[cfg(feature = "tower")]
pub mod tower;
