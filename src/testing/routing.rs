//! How a session picks a provider.

/// One of the providers that serve a model.
///
/// The gateway takes those of the lowest priority, repeats each by its weight, and uses the
/// session's hash as an index into that list. A provider that answered the session before goes
/// first. Budgets and speed, which the real gateway also looks at, are left out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Provider {
    pub(super) name: String,
    weight: usize,
    priority: u32,
}

impl Provider {
    /// Creates a provider of weight 1 and priority 0.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            weight: 1,
            priority: 0,
        }
    }

    /// Sets how often it appears in the list that sessions pick from. With weight 0, it gets no new
    /// session, and keeps those that it answered before.
    #[must_use]
    pub fn weight(mut self, weight: u8) -> Self {
        self.weight = weight.into();
        self
    }

    /// Sets its priority. Only enabled providers of the lowest priority are picked.
    #[must_use]
    pub fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }
}

/// Returns the provider that this sticky id picks.
pub(super) fn pick<'a>(providers: &'a [Provider], sticky_id: &str) -> Option<&'a Provider> {
    let enabled = || providers.iter().filter(|provider| provider.weight > 0);
    let lowest = enabled().map(|provider| provider.priority).min()?;
    let candidates: Vec<_> = enabled()
        .filter(|provider| provider.priority == lowest)
        .flat_map(|provider| std::iter::repeat_n(provider, provider.weight))
        .collect();
    Some(candidates[hash(sticky_id) as usize % candidates.len()])
}

/// The gateway's hash: JavaScript's 32-bit arithmetic over the last four UTF-16 units.
fn hash(id: &str) -> u32 {
    let units: Vec<u16> = id.encode_utf16().collect();
    units[units.len().saturating_sub(4)..]
        .iter()
        .fold(0, |hash: u32, &unit| {
            hash.wrapping_mul(31).wrapping_add(unit.into())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_and_the_choice_agree_with_the_gateways_own_arithmetic() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/routing-vectors.json"))
                .unwrap();
        let vectors = vectors.as_array().unwrap();
        assert!(!vectors.is_empty());
        for vector in vectors {
            let id = vector["id"].as_str().unwrap();
            assert_eq!(
                u64::from(hash(id)),
                vector["hash"].as_u64().unwrap(),
                "{id}"
            );
            for (length, index) in vector["index"].as_object().unwrap() {
                let providers: Vec<_> = (0..length.parse().unwrap())
                    .map(|number: u64| Provider::new(number.to_string()))
                    .collect();
                let picked = pick(&providers, id).unwrap();
                assert_eq!(picked.name, index.to_string(), "{id} of {length}");
            }
        }
    }

    #[test]
    fn a_disabled_provider_is_never_picked() {
        let providers = [
            Provider::new("off").weight(0),
            Provider::new("on").priority(7),
        ];
        assert_eq!(pick(&providers, "any").unwrap().name, "on");
        assert_eq!(pick(&providers[..1], "any"), None);
        assert_eq!(pick(&[], "any"), None);
    }

    #[test]
    fn only_the_lowest_priority_is_picked_from_and_weights_repeat_a_provider() {
        let providers = [
            Provider::new("spare").priority(1),
            Provider::new("heavy").weight(3),
            Provider::new("light"),
        ];
        let picked = |id| pick(&providers, id).unwrap().name.as_str();
        // The hash of one character is its code: 96 is a multiple of four.
        assert_eq!(
            ["`", "a", "b", "c"].map(picked),
            ["heavy", "heavy", "heavy", "light"]
        );
    }
}
