//! Ids: what they are, what they are made from, and what is refused.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashSet};
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use reqwest_opencode_session::{InvalidValue, SessionId, TurnId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// What both kinds of id can do.
pub trait Id:
    FromStr<Err = InvalidValue>
    + for<'a> TryFrom<&'a str, Error = InvalidValue>
    + TryFrom<String, Error = InvalidValue>
    + for<'a> TryFrom<&'a HeaderValue, Error = InvalidValue>
    + TryFrom<HeaderValue, Error = InvalidValue>
    + From<Uuid>
    + Into<HeaderValue>
    + AsRef<str>
    + PartialEq<str>
    + for<'a> PartialEq<&'a str>
    + PartialEq<String>
    + Borrow<str>
    + Into<String>
    + Display
    + Debug
    + Clone
    + Ord
    + Hash
    + Send
    + Sync
    + Serialize
    + DeserializeOwned
    + 'static
{
    const NAME: &str;

    fn make() -> Self;
}

impl Id for SessionId {
    const NAME: &str = "SessionId";

    fn make() -> Self {
        Self::new()
    }
}

impl Id for TurnId {
    const NAME: &str = "TurnId";

    fn make() -> Self {
        Self::new()
    }
}

/// A test of both kinds of id.
macro_rules! for_both {
    ($(fn $test:ident<$id:ident>() $body:block)*) => {$(
        #[test]
        fn $test() {
            fn test<$id: Id>() $body

            test::<SessionId>();
            test::<TurnId>();
        }
    )*};
}

for_both! {
    fn a_new_id_is_a_hyphenated_uuid_of_version_7<I>() {
        let id = I::make();
        let uuid: Uuid = id.as_ref().parse().unwrap();
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(id.as_ref(), uuid.hyphenated().to_string());
    }

    fn new_ids_are_all_different_and_sort_in_the_order_in_which_they_were_made<I>() {
        let ids: Vec<_> = (0..1000)
            .map(|_| {
                // More than a quarter of a microsecond.
                let made = SystemTime::now();
                while made.elapsed().is_ok_and(|since| since < Duration::from_micros(1)) {}
                I::make()
            })
            .collect();
        assert!(ids.is_sorted());
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    }

    fn an_id_has_the_time_with_the_fraction_of_the_millisecond_in_twelve_bits<I>() {
        // RFC 9562, section 6.2, method 3.
        let time = |id: &I| {
            let bits = id.as_ref().parse::<Uuid>().unwrap().as_u128();
            let (milliseconds, fraction) = (bits >> 80, (bits >> 64) & 0xfff);
            (milliseconds << 12) | fraction
        };
        let now = || {
            let nanoseconds = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
            let (milliseconds, rest) = (nanoseconds / 1_000_000, nanoseconds % 1_000_000);
            (milliseconds << 12) | ((rest << 12) / 1_000_000)
        };
        for _ in 0..1000 {
            let (before, id, after) = (now(), I::make(), now());
            assert!((before..=after).contains(&time(&id)), "{before} {id} {after}");
        }
    }

    fn ids_that_were_made_at_the_same_time_are_different_in_all_their_random_bits<I>() {
        let mut random = [0_u64; 2];
        for _ in 0..1000 {
            let (_, bits) = I::make().as_ref().parse::<Uuid>().unwrap().as_u64_pair();
            assert_eq!(bits >> 62, 0b10, "the variant of RFC 9562");
            random[0] |= bits;
            random[1] |= !bits;
        }
        // Each of the 62 bits was 1 once, and 0 once.
        assert_eq!(random, [(0b10 << 62) | (u64::MAX >> 2), u64::MAX >> 1]);
    }

    fn a_map_with_ids_as_keys_is_searched_for_a_string<I>() {
        let (one, two): (I, I) = ("one".parse().unwrap(), "two".parse().unwrap());
        let keys = HashSet::from([one.clone(), two.clone()]);
        assert_eq!(keys.get("one"), Some(&one));
        assert!(!keys.contains("three"));
        let sorted = BTreeSet::from([one, two.clone()]);
        assert_eq!(sorted.get("two"), Some(&two));
    }

    fn every_visible_ascii_character_may_stand_in_an_id<I>() {
        let all: String = ('!'..='~').collect();
        assert_eq!(all.parse::<I>().unwrap().as_ref(), all);
    }

    fn an_id_of_128_characters_is_accepted_and_one_of_129_is_not<I>() {
        let longest = "x".repeat(128);
        assert_eq!(longest.parse::<I>().unwrap().as_ref(), longest);
        let error = "x".repeat(129).parse::<I>().unwrap_err();
        assert!(matches!(error, InvalidValue::TooLong { length: 129, .. }), "{error:?}");
    }

    fn a_header_value_is_held_to_the_same_rule<I>() {
        let value = HeaderValue::from_static("abc");
        let id = I::try_from(&value).unwrap();
        assert_eq!(id, I::try_from(value.clone()).unwrap());
        assert_eq!(id.as_ref(), "abc");
        let sent: HeaderValue = id.into();
        assert_eq!(sent, value);
        for bytes in [&b""[..], b"a b", b"caf\xe9", "caf\u{e9}".as_bytes(), &[b'x'; 129]] {
            let value = HeaderValue::from_bytes(bytes).unwrap();
            assert!(I::try_from(&value).is_err(), "{bytes:?}");
            assert!(I::try_from(value).is_err(), "{bytes:?}");
        }
    }

    fn an_id_can_be_made_of_a_uuid_and_is_printed_as_it_is_sent<I>() {
        let uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let text = "01234567-89ab-cdef-0123-456789abcdef";
        let id = I::from(uuid);
        assert_eq!(id.to_string(), text);
        assert_eq!(format!("{id:?}"), format!("{}({text:?})", I::NAME));
        assert_eq!(format!("{id:>38}|"), format!("  {text}|"));
    }

    fn an_id_is_compared_with_strings<I>() {
        let id: I = "abc".parse().unwrap();
        assert!(id == *"abc" && id == "abc" && id != "abd");
        let same = String::from("abc");
        assert!(id == same);
        let text: String = id.into();
        assert_eq!(text, "abc");
    }

    fn a_stored_id_is_read_back_and_one_that_breaks_the_rules_is_an_error<I>() {
        let id = I::make();
        let stored = serde_json::to_string(&id).unwrap();
        assert_eq!(stored, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<I>(&stored).unwrap(), id);
        assert_eq!(serde_json::from_value::<I>(id.to_string().into()).unwrap(), id);

        let error = serde_json::from_str::<I>("\"two words\"").unwrap_err().to_string();
        assert!(error.starts_with("character 4 of the value is ' '"), "{error}");
        assert!(serde_json::from_str::<I>("17").is_err());
    }
}

#[test]
fn the_last_four_characters_of_new_ids_vary_so_that_providers_share_the_load() {
    let tails: HashSet<String> = (0..1000)
        .map(|_| SessionId::new().as_str()[32..].to_owned())
        .collect();
    // Among 65,536 possible tails, a thousand random ones are almost all different.
    assert!(tails.len() > 900, "{} of 1,000", tails.len());
}

#[test]
fn a_derived_id_is_the_same_everywhere() {
    // uuid.uuid5(uuid.uuid5(uuid.UUID(int=0), "my-agent"), "notes") in Python
    assert_eq!(
        SessionId::derive("my-agent", "notes").as_str(),
        "d8a2bf09-907a-5042-b637-9eedce66b1af"
    );
}

#[test]
fn a_derived_id_depends_on_where_the_scope_ends_and_the_name_begins() {
    let ids = [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", "")]
        .map(|(scope, name)| SessionId::derive(scope, name));
    assert_eq!(HashSet::from(ids).len(), 4);
}

#[test]
fn the_errors_say_what_to_do() {
    let message = |text: &str| text.parse::<SessionId>().unwrap_err().to_string();
    assert_eq!(
        message("caf\u{e9}"),
        "character 4 of the value is 'é', and only visible ASCII is allowed; \
         `SessionId::derive` derives a valid id from any text"
    );
    assert_eq!(
        message(&"x".repeat(200)),
        "the value has 200 characters, and at most 128 are allowed; \
         `SessionId::derive` derives a valid id from any text"
    );
    assert_eq!(
        message("the-id-in-a-file\n"),
        "trim the value: character 17 of the value is '\\n'"
    );
    assert_eq!(
        message(""),
        "the value is empty; give it 1 to 128 visible ASCII characters"
    );
}
