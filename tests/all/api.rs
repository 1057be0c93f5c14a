//! What every type of this crate can do.

use std::error::Error;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::str::FromStr;

use reqwest_opencode_session::testing::{
    Failure, Gateway, GatewayBuilder, Provider, Reply, SeenRequest,
};
use reqwest_opencode_session::{
    Applied, BuildError, ExistingHeader, Fallback, HttpRequest, InSession, IntoSession,
    InvalidTarget, InvalidValue, MissingSession, OpencodeSessionLayer, OpencodeSessionMiddleware,
    OpencodeSessionMiddlewareBuilder, OpencodeSessionService, RedirectPolicy, RedirectRefused,
    RequestBuilderError, RequestBuilderExt, RequestUrl, ReqwestClientBuilder, ResponseFuture,
    Session, SessionId, Source, Target, TurnId,
};

use crate::ids::Id;

fn crosses_threads<T: Send + Sync + Unpin + Debug + 'static>() {}
fn is_copied<T: Clone>() {}
fn is_value<T: Clone + Eq>() {}
fn is_key<T: Clone + Eq + Hash>() {}
fn is_error<T: Error + Clone + Eq + Hash>() {}

#[test]
fn every_type_goes_to_another_thread_and_is_printed() {
    crosses_threads::<Applied>();
    crosses_threads::<BuildError>();
    crosses_threads::<ExistingHeader>();
    crosses_threads::<Fallback>();
    crosses_threads::<InSession<()>>();
    crosses_threads::<InvalidTarget>();
    crosses_threads::<InvalidValue>();
    crosses_threads::<MissingSession>();
    crosses_threads::<OpencodeSessionLayer>();
    crosses_threads::<OpencodeSessionMiddleware>();
    crosses_threads::<OpencodeSessionMiddlewareBuilder>();
    crosses_threads::<OpencodeSessionService<()>>();
    crosses_threads::<RedirectRefused>();
    crosses_threads::<RequestBuilderError<reqwest::Error>>();
    crosses_threads::<ResponseFuture<()>>();
    crosses_threads::<Session>();
    crosses_threads::<SessionId>();
    crosses_threads::<Source>();
    crosses_threads::<Target>();
    crosses_threads::<TurnId>();
    crosses_threads::<Failure>();
    crosses_threads::<Gateway>();
    crosses_threads::<GatewayBuilder>();
    crosses_threads::<Provider>();
    crosses_threads::<Reply>();
    crosses_threads::<SeenRequest>();
}

#[test]
fn values_are_values_and_what_names_a_thing_is_a_key() {
    fn is_text<T: Display + FromStr + for<'a> TryFrom<&'a str> + TryFrom<String>>() {}
    fn is_made_of_an_id<
        T: FromStr + for<'a> TryFrom<&'a str> + TryFrom<String> + From<SessionId>,
    >() {
    }
    fn is_id<T: Id>() {}
    fn is_stored<T: serde::Serialize + serde::de::DeserializeOwned>() {}

    is_copied::<OpencodeSessionMiddleware>();
    is_copied::<OpencodeSessionMiddlewareBuilder>();
    is_copied::<OpencodeSessionLayer>();
    is_copied::<OpencodeSessionService<()>>();
    is_value::<Failure>();
    is_key::<Applied>();
    is_key::<ExistingHeader>();
    is_key::<Fallback>();
    is_key::<Provider>();
    is_key::<Session>();
    is_key::<Source>();
    is_key::<Target>();
    is_id::<SessionId>();
    is_id::<TurnId>();
    is_made_of_an_id::<Session>();
    is_text::<Target>();
    is_stored::<Session>();
    is_stored::<Target>();
}

#[test]
fn every_error_is_an_error() {
    fn is_the_builders_error<T: Error>() {}

    is_error::<BuildError>();
    is_error::<InvalidTarget>();
    is_error::<InvalidValue>();
    is_error::<MissingSession>();
    is_error::<RedirectRefused>();
    is_the_builders_error::<RequestBuilderError<reqwest::Error>>();
}

#[test]
fn the_entry_points_are_for_these_types() {
    fn is_request<T: HttpRequest>() {}
    fn is_url<T: RequestUrl>() {}
    fn is_request_builder<T: RequestBuilderExt<BuildError = E>, E>() {}
    fn is_client_builder<T: ReqwestClientBuilder<Client = C, Error = E>, C, E>() {}
    fn is_policy<T: RedirectPolicy>() {}
    fn names_a_session<T: IntoSession>() {}

    is_request::<http::Request<()>>();
    is_request::<http::request::Parts>();
    is_request::<reqwest::Request>();
    is_request::<reqwest::blocking::Request>();
    is_url::<reqwest::Url>();
    is_url::<http::Uri>();
    is_request_builder::<reqwest::RequestBuilder, reqwest::Error>();
    is_request_builder::<reqwest::blocking::RequestBuilder, reqwest::Error>();
    is_client_builder::<
        reqwest::ClientBuilder,
        reqwest_middleware::ClientWithMiddleware,
        reqwest::Error,
    >();
    is_policy::<reqwest::redirect::Policy>();
    names_a_session::<Session>();
    names_a_session::<&Session>();
    names_a_session::<SessionId>();
    names_a_session::<&SessionId>();
    names_a_session::<Option<Session>>();
    names_a_session::<Option<&SessionId>>();
}

#[test]
fn a_client_holds_the_middleware_in_a_static() {
    static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new();

    let url = http::Uri::from_static("https://opencode.ai/zen/v1/messages");
    let headers = OPENCODE.headers_for(&url).unwrap();
    assert_eq!(headers, Session::process().headers());
}

#[test]
fn a_middleware_prints_its_settings_and_what_it_is_bound_to() {
    let session = Session::new();
    let middleware = OpencodeSessionMiddleware::builder()
        .client_name("my-agent")
        .session_from(|| None)
        .build()
        .unwrap()
        .bound_to(&session);
    let printed = format!("{middleware:?}");
    for part in [
        "OpencodeSessionMiddleware",
        "my-agent",
        "Fn() -> Option<Session>",
        session.id().as_str(),
    ] {
        assert!(printed.contains(part), "{part} in {printed}");
    }
}

#[test]
fn sessions_and_ids_are_as_small_as_a_pointer_and_a_header_value() {
    assert_eq!(size_of::<Session>(), size_of::<usize>());
    assert_eq!(
        size_of::<OpencodeSessionMiddleware>(),
        2 * size_of::<usize>()
    );
    assert_eq!(size_of::<SessionId>(), size_of::<http::HeaderValue>());
    assert_eq!(size_of::<TurnId>(), size_of::<http::HeaderValue>());
}

/// As `main` prints it: by `Debug`.
#[test]
fn an_error_that_main_returns_says_what_to_do() {
    let printed = |error: Box<dyn std::error::Error>| format!("Error: {error:?}");
    let strict = OpencodeSessionMiddleware::builder()
        .fallback(Fallback::Reject)
        .build()
        .unwrap();
    let call = "https://opencode.ai/zen/go/v1/messages";
    let url = http::Uri::from_static(call);
    let missing = strict.headers_for(&url).unwrap_err();
    let builder = reqwest::Client::new().post(call);
    let plain = builder.opencode_session(&strict).unwrap_err();
    let broken = reqwest::Client::new().post("opencode.ai");
    let broken = broken.opencode_session(&strict).unwrap_err();
    let stranger = http::Uri::from_static("https://example.com");
    let refused = strict.check_redirect(&[url], &stranger).unwrap_err();
    let id = "an id\n".parse::<SessionId>().unwrap_err();
    let target = "opencode.ai".parse::<Target>().unwrap_err();
    let setting = OpencodeSessionMiddleware::builder().client_name("");
    let setting = setting.build().unwrap_err();
    for (error, says) in [
        (
            missing.into(),
            "run the call inside `.with_session(session)`",
        ),
        (plain.into(), "run the call inside `.with_session(session)`"),
        (Box::from(broken), "check its URL and headers"),
        (refused.into(), "add it as a `Target`"),
        (id.into(), "derives a valid id from any text"),
        (target.into(), "write it as in `https://opencode.ai`"),
        (setting.into(), "give it 1 to 128 visible ASCII characters"),
    ] {
        let printed = printed(error);
        assert!(printed.lines().next().unwrap().contains(says), "{printed}");
    }
}
