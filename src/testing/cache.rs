//! What providers remember of conversations: their prompts, and who answered.

use std::collections::{BTreeMap, HashMap};

/// The conversations that providers remember: the most recently used ones.
#[derive(Debug)]
pub(super) struct Conversations {
    /// How many there may be, and how many bytes their prompts may have in total.
    limits: (usize, usize),
    known: HashMap<Id, Conversation>,
    /// Their ids, by their last use.
    used: BTreeMap<u64, Id>,
    uses: u64,
    bytes: usize,
}

/// What identifies a conversation to the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub model: String,
    /// The session, or the workspace of the key.
    pub sticky: String,
}

#[derive(Debug, Default)]
struct Conversation {
    /// The provider that answered last.
    provider: Option<String>,
    /// The prompts that each provider has seen, without those that another one begins with.
    prompts: HashMap<String, Vec<String>>,
    used: u64,
}

impl Conversations {
    pub fn new(count: usize, bytes: usize) -> Self {
        Self {
            limits: (count, bytes),
            known: HashMap::new(),
            used: BTreeMap::new(),
            uses: 0,
            bytes: 0,
        }
    }

    /// Returns the provider that answered this conversation last.
    pub fn provider(&self, id: &Id) -> Option<&str> {
        self.known.get(id)?.provider.as_deref()
    }

    /// Remembers that a provider answered this prompt; returns how many bytes of its start the
    /// provider had already seen in this conversation.
    pub fn answer(&mut self, id: &Id, provider: &str, prompt: &str) -> usize {
        let conversation = self.known.entry(id.clone()).or_default();
        self.used.remove(&conversation.used);
        self.uses += 1;
        conversation.used = self.uses;
        self.used.insert(self.uses, id.clone());

        conversation.provider = Some(provider.to_owned());
        let prompts = conversation.prompts.entry(provider.to_owned()).or_default();
        let seen = prompts.iter().map(|seen| common_prefix(seen, prompt)).max();
        let seen = seen.unwrap_or_default();
        let (count, bytes) = self.limits;
        // A prompt that exceeds the limit on its own would evict all others.
        if seen < prompt.len() && prompt.len() <= bytes {
            let before: usize = prompts.iter().map(String::len).sum();
            prompts.retain(|seen| !prompt.starts_with(seen.as_str()));
            prompts.push(prompt.to_owned());
            let after: usize = prompts.iter().map(String::len).sum();
            self.bytes = self.bytes + after - before;
        }
        while self.known.len() > count || self.bytes > bytes {
            self.forget_the_oldest();
        }
        seen
    }

    fn forget_the_oldest(&mut self) {
        let oldest = self.used.pop_first();
        if let Some(conversation) = oldest.and_then(|(_, id)| self.known.remove(&id)) {
            let prompts = conversation.prompts.values().flatten();
            self.bytes -= prompts.map(String::len).sum::<usize>();
        }
    }
}

/// Returns how many bytes two texts have in common at their start.
fn common_prefix(one: &str, other: &str) -> usize {
    // Block by block first, because a processor compares whole blocks fast.
    const BLOCK: usize = 4096;
    let blocks = one
        .as_bytes()
        .chunks(BLOCK)
        .zip(other.as_bytes().chunks(BLOCK));
    let same = BLOCK * blocks.take_while(|(one, other)| one == other).count();
    // The last block may be a short one.
    let same = same.min(one.len());
    let bytes = one.bytes().zip(other.bytes()).skip(same);
    same + bytes.take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(sticky: &str) -> Id {
        let model = "m".to_owned();
        let sticky = sticky.to_owned();
        Id { model, sticky }
    }

    #[test]
    fn the_longest_start_of_any_earlier_prompt_counts() {
        let mut conversations = Conversations::new(10, 1000);
        let a = &id("a");
        assert_eq!(conversations.answer(a, "one", "main: 1"), 0);
        assert_eq!(conversations.answer(a, "one", "title of 1"), 0);
        assert_eq!(conversations.answer(a, "one", "main: 1, 2"), 7);
        assert_eq!(conversations.answer(a, "two", "main: 1, 2"), 0);
        assert_eq!(conversations.answer(&id("b"), "one", "main: 1, 2"), 0);
        assert_eq!(conversations.answer(a, "one", "main: 1, 2"), 10);
        assert_eq!(conversations.provider(a), Some("one"));
    }

    #[test]
    fn the_oldest_is_forgotten_and_no_byte_is_counted_twice() {
        let mut conversations = Conversations::new(2, 30);
        for (sticky, prompt) in [
            ("a", "0123456789"),
            ("b", "0123456789"),
            ("a", "01234567890"),
            // Another prompt begins with it.
            ("a", "01234"),
        ] {
            conversations.answer(&id(sticky), "one", prompt);
        }
        assert_eq!((conversations.bytes, conversations.known.len()), (21, 2));
        conversations.answer(&id("c"), "one", "x");
        assert_eq!((conversations.bytes, conversations.known.len()), (12, 2));
        assert_eq!(conversations.provider(&id("b")), None);
        conversations.answer(&id("c"), "one", &"y".repeat(29));
        assert_eq!((conversations.bytes, conversations.known.len()), (30, 1));
        conversations.answer(&id("d"), "one", &"z".repeat(31));
        assert_eq!((conversations.bytes, conversations.known.len()), (30, 2));
        assert_eq!(conversations.used.len(), conversations.known.len());
    }

    #[test]
    fn a_common_start_is_counted_to_the_byte() {
        let long = "x".repeat(10_000);
        for at in [0, 1, 4095, 4096, 4097, 8192, 9999] {
            let mut other = long.clone();
            other.replace_range(at..=at, "y");
            assert_eq!(common_prefix(&long, &other), at);
            assert_eq!(common_prefix(&long, &long[..at]), at);
        }
        assert_eq!(common_prefix(&long, &long), 10_000);
    }
    #[test]
    fn an_empty_prompt_is_taken_too() {
        let mut conversations = Conversations::new(2, 30);
        assert_eq!(conversations.answer(&id("a"), "one", ""), 0);
        assert_eq!(conversations.answer(&id("a"), "one", ""), 0);
        assert_eq!(conversations.bytes, 0);
        assert_eq!(conversations.provider(&id("a")), Some("one"));
    }
}
