//! Which answers a prompt quotes, found in a time that depends on the prompt alone.
//!
//! This is winnowing (Schleimer, Wilkerson and Aiken, 2003). Of the hashes of all pieces of 16
//! bytes, those are kept that are the smallest of some nine in a row. So two texts that have 24
//! bytes in a row in common keep a piece in common. Only letters and digits count.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// The length of a piece, in bytes.
const PIECE: usize = 16;

/// How many pieces in a row the smallest is taken from.
const WINDOW: usize = 9;

/// How many pieces of an answer are kept.
const SKETCH: usize = 8;

/// The shortest answer that is looked for, in letters and digits.
pub(super) const SHORTEST: usize = 24;

/// How much of a prompt is searched, in bytes of letters and digits.
pub(super) const SEARCHED: usize = 256 << 10;

/// Appends the letters and digits of a text, up to a length.
pub(super) fn append_letters(text: &str, letters: &mut String, longest: usize) {
    for character in text.chars().filter(|character| character.is_alphanumeric()) {
        if letters.len() + character.len_utf8() > longest {
            return;
        }
        letters.push(character);
    }
}

/// Returns the pieces of a text of letters and digits by which it is found, in their order.
pub(super) fn pieces(letters: &str) -> Vec<u64> {
    const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
    let bytes = letters.as_bytes();
    let first_factor = (1..PIECE).fold(1, |factor: u64, _| factor.wrapping_mul(BASE));
    let mut rolling: u64 = 0;
    // The hashes of the latest pieces, and where the smallest of them is.
    let mut window = [u64::MAX; WINDOW];
    let mut smallest = 0;
    let mut taken = None;
    let mut pieces = Vec::with_capacity(letters.len() / (WINDOW / 2));
    for (at, byte) in bytes.iter().enumerate() {
        if let Some(first) = at.checked_sub(PIECE) {
            let first = u64::from(bytes[first]).wrapping_mul(first_factor);
            rolling = rolling.wrapping_sub(first);
        }
        rolling = rolling.wrapping_mul(BASE).wrapping_add(u64::from(*byte));
        let Some(piece) = (at + 1).checked_sub(PIECE) else {
            continue;
        };
        let hash = mixed(rolling);
        window[piece % WINDOW] = hash;
        if smallest + WINDOW == piece {
            // It has left the window.
            let others = piece + 1 - WINDOW..=piece;
            smallest = others
                .min_by_key(|other| window[other % WINDOW])
                .unwrap_or(piece);
        } else if piece == 0 || hash < window[smallest % WINDOW] {
            smallest = piece;
        }
        let is_last = at + 1 == bytes.len();
        let is_full = piece + 1 >= WINDOW;
        if taken != Some(smallest) && (is_full || is_last) {
            taken = Some(smallest);
            pieces.push(window[smallest % WINDOW]);
        }
    }
    pieces
}

/// Returns a few pieces from all over an answer, without those that its own prompt contains. There
/// are none if most of it repeats its prompt.
pub(super) fn sketch(answer: &str, prompt: [&[u64]; 2]) -> Vec<u64> {
    if answer.chars().nth(SHORTEST - 1).is_none() {
        return vec![];
    }
    let mut all = pieces(answer);
    let count = all.len();
    let mut repeated: HashSet<u64, Hashed> = all.iter().copied().collect();
    let own: HashSet<u64, Hashed> = (prompt.into_iter().flatten().copied())
        .filter(|piece| repeated.contains(piece))
        .collect();
    // Each of them once.
    all.retain(|piece| !own.contains(piece) && repeated.remove(piece));
    if 2 * all.len() < count {
        return vec![];
    }
    let length = all.len().min(SKETCH);
    (0..length)
        .map(|number| all[number * all.len() / length])
        .collect()
}

/// Spreads the bits of a hash.
pub(super) fn mixed(hash: u64) -> u64 {
    // The end of MurmurHash3.
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// A map whose keys are hashes already.
pub(super) type HashedMap<V> = HashMap<u64, V, Hashed>;
pub(super) type Hashed = BuildHasherDefault<AsItIs>;

#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = self.0.rotate_left(5) ^ hash;
    }
}

/// Which calls gave something: a piece of an answer, an answer, or a call of a tool.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The latest call of a session that gave it, by its hash with the session.
    own: HashedMap<u64>,
    any: HashedMap<Givers>,
}

/// The latest calls that gave something, of two sessions.
#[derive(Debug, Default)]
struct Givers {
    /// The numbers of the calls; 0 is none.
    calls: [u64; 2],
    /// Whether there are, or were, more sessions than that.
    more: bool,
}

/// Who gave something, as a session sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Giver {
    /// A call of that session.
    Own(u64),
    /// A call of the only session that gave it, which is another.
    Other(u64),
}

impl Given {
    /// Notes that a call of a session gave something.
    pub fn add(&mut self, hash: u64, call: u64, session: u64) {
        let before = self.own.insert(with(hash, session), call);
        let givers = self.any.entry(hash).or_default();
        let mut calls = givers.calls.iter_mut();
        match calls.find(|other| **other == 0 || Some(**other) == before) {
            Some(place) => *place = call,
            None => givers.more |= before.is_none(),
        }
    }

    /// Returns who gave something, unless that is nobody, or several other sessions.
    pub fn giver(&self, hash: u64, session: u64) -> Option<Giver> {
        let Givers { calls, more } = self.any.get(&hash)?;
        match (self.own.get(&with(hash, session)), calls) {
            (Some(own), _) => Some(Giver::Own(*own)),
            (None, [other, 0]) if !more => Some(Giver::Other(*other)),
            _ => None,
        }
    }

    /// Forgets that a call of a session gave something.
    pub fn remove(&mut self, hash: u64, call: u64, session: u64) {
        let own = self.own.entry(with(hash, session));
        if let Entry::Occupied(own) = own {
            if *own.get() == call {
                own.remove();
            }
        }
        if let Entry::Occupied(mut entry) = self.any.entry(hash) {
            let calls = &mut entry.get_mut().calls;
            if calls[0] == call {
                *calls = [calls[1], 0];
            } else if calls[1] == call {
                calls[1] = 0;
            }
            if calls[0] == 0 {
                entry.remove();
            }
        }
    }
}

/// Returns a hash of two hashes.
pub(super) fn with(hash: u64, other: u64) -> u64 {
    mixed(hash.rotate_left(23) ^ mixed(other))
}
