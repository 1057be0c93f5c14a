//! What every type of this crate can do.

use std::error::Error;
use std::fmt::{Debug, Display};
use std::hash::Hash;

use reqwest_opencode_session::testing::{
    Fault, Gateway, GatewayBuilder, Provider, Reply, SeenRequest,
};
use reqwest_opencode_session::{
    BuildError, ExistingHeader, Fallback, InSession, InvalidSessionId, InvalidTarget,
    MissingSession, OpencodeSessionMiddleware, OpencodeSessionMiddlewareBuilder, RedirectRefused,
    Session, SessionId, Target,
};

fn crosses_threads<T: Send + Sync + Unpin + Debug + 'static>() {}
fn is_value<T: Clone + Eq>() {}
fn is_key<T: Clone + Eq + Hash>() {}
fn is_error<T: Error + Clone + Eq + Hash>() {}

#[test]
fn every_type_goes_to_another_thread_and_is_printed() {
    crosses_threads::<BuildError>();
    crosses_threads::<ExistingHeader>();
    crosses_threads::<Fallback>();
    crosses_threads::<InSession<()>>();
    crosses_threads::<InvalidSessionId>();
    crosses_threads::<InvalidTarget>();
    crosses_threads::<MissingSession>();
    crosses_threads::<OpencodeSessionMiddleware>();
    crosses_threads::<OpencodeSessionMiddlewareBuilder>();
    crosses_threads::<RedirectRefused>();
    crosses_threads::<Session>();
    crosses_threads::<SessionId>();
    crosses_threads::<Target>();
    crosses_threads::<Fault>();
    crosses_threads::<Gateway>();
    crosses_threads::<GatewayBuilder>();
    crosses_threads::<Provider>();
    crosses_threads::<Reply>();
    crosses_threads::<SeenRequest>();
}

#[test]
fn values_are_values_and_what_names_a_thing_is_a_key() {
    fn is_text<T: Display + std::str::FromStr + for<'a> TryFrom<&'a str>>() {}

    is_value::<Fallback>();
    is_value::<ExistingHeader>();
    is_value::<Fault>();
    is_key::<Session>();
    is_key::<SessionId>();
    is_key::<Target>();
    is_key::<Provider>();
    is_text::<SessionId>();
    is_text::<Target>();
}

#[test]
fn every_error_is_an_error() {
    is_error::<BuildError>();
    is_error::<InvalidSessionId>();
    is_error::<InvalidTarget>();
    is_error::<MissingSession>();
    is_error::<RedirectRefused>();
}

#[test]
fn sessions_and_ids_are_as_small_as_a_pointer_and_a_header_value() {
    assert_eq!(size_of::<Session>(), size_of::<usize>());
    assert_eq!(size_of::<SessionId>(), size_of::<http::HeaderValue>());
}

#[test]
fn an_id_can_be_made_of_a_uuid() {
    let uuid = uuid::Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    let id = SessionId::from(uuid);
    assert_eq!(id.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
    assert_eq!(
        format!("{id:?}"),
        "SessionId(\"01234567-89ab-cdef-0123-456789abcdef\")"
    );
    assert_eq!(
        format!("{id:>38}|"),
        "  01234567-89ab-cdef-0123-456789abcdef|"
    );
}

#[test]
fn a_session_prints_what_it_sends() {
    let id: SessionId = "abc".parse().unwrap();
    assert_eq!(AsRef::<str>::as_ref(&id), "abc");
    let session = Session::from(id);
    assert_eq!(
        format!("{session:?}"),
        r#"Session { id: SessionId("abc"), parent: None, request_id: None }"#
    );
}
