//! What a call costs.

use super::answer::Usage;

/// What a model costs, in US dollars per million tokens, off-peak.
///
/// Source: <https://opencode.ai/docs/go/>, as of [`AS_OF`](Self::AS_OF).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Price {
    /// The tokens of a prompt that the provider did not have in its cache.
    pub prompt: f64,
    /// The tokens of a prompt that it had there.
    pub cached: f64,
    /// The tokens of an answer.
    pub output: f64,
}

/// The models whose prices are known.
pub(super) const PRICES: [(&str, Price); 3] = [
    ("deepseek-v4.1-flash", Price::new(0.15, 0.003, 0.60)),
    ("glm-5.2", Price::new(1.40, 0.26, 4.40)),
    ("kimi-k3", Price::new(3.0, 0.30, 15.0)),
];

impl Price {
    /// The month of the prices.
    pub const AS_OF: &str = "November 2026";

    const fn new(prompt: f64, cached: f64, output: f64) -> Self {
        Self {
            prompt,
            cached,
            output,
        }
    }

    /// Returns the price of this model, if it is known.
    pub fn of(model: &str) -> Option<Self> {
        let known = PRICES.iter().find(|(known, _)| *known == model);
        known.map(|(_, price)| *price)
    }

    /// Returns what a call costs that used this many tokens, in US dollars.
    pub fn cost(&self, usage: Usage) -> f64 {
        let tokens = |count: u64, price: f64| count as f64 * price / 1e6;
        tokens(usage.prompt.saturating_sub(usage.cached), self.prompt)
            + tokens(usage.cached, self.cached)
            + tokens(usage.output, self.output)
    }
}
