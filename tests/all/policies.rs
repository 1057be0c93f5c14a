//! The redirect policies of each generation of reqwest: which chains they follow, also in front of
//! another policy or of another middleware's.

use std::error::Error as _;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::LOCATION;
use http::{StatusCode, Uri};
use reqwest_opencode_session::{OpencodeSessionMiddleware, RedirectRefused, Session, Target};

use crate::stack::reqwest::redirect::Policy;
use crate::stack::reqwest::{self, Response as Answer};
use crate::stack::reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error};
use crate::support::Elsewhere;

/// Servers that redirect to each other as the path says: `/1/0` redirects to server 1, and from
/// there to server 0.
struct Servers(Vec<Elsewhere>);

impl Servers {
    async fn start(count: usize) -> Self {
        let urls = Arc::new(std::sync::OnceLock::<Vec<String>>::new());
        let mut servers = vec![];
        for _ in 0..count {
            let urls = Arc::clone(&urls);
            let answer = move |head: &http::request::Parts| {
                let path = head.uri.path().trim_start_matches('/');
                let Some((to, rest)) = path.split_once('/') else {
                    return Response::default();
                };
                let to = &urls.get().unwrap()[to.parse::<usize>().unwrap()];
                let answer = Response::builder().status(StatusCode::TEMPORARY_REDIRECT);
                let answer = answer.header(LOCATION, format!("{to}/{rest}"));
                answer.body(Body::empty()).unwrap()
            };
            servers.push(Elsewhere::start(answer).await);
        }
        let servers = Self(servers);
        urls.set((0..count).map(|server| servers.url(server)).collect())
            .unwrap();
        servers
    }

    fn url(&self, server: usize) -> String {
        format!("http://{}", self.0[server].address)
    }

    fn target(&self, server: usize) -> Target {
        self.url(server).parse().unwrap()
    }

    /// The middleware with these servers as its targets.
    fn middleware(&self, targets: &[usize]) -> OpencodeSessionMiddleware {
        let targets = targets.iter().map(|server| self.target(*server));
        OpencodeSessionMiddleware::builder()
            .targets(targets)
            .build()
            .unwrap()
    }

    /// Sends a request along these servers.
    async fn send(
        &self,
        client: &ClientWithMiddleware,
        route: &[usize],
    ) -> Result<Answer, RedirectRefused> {
        let [first, rest @ ..] = route else {
            panic!("the route is empty")
        };
        let rest = rest.iter().map(|server| format!("{server}/"));
        let url = format!("{}/{}", self.url(*first), rest.collect::<String>());
        match client.post(url).body("the prompt").send().await {
            Ok(answer) => Ok(answer),
            Err(Error::Reqwest(error)) => {
                assert!(error.is_redirect(), "{error:?}");
                let refused = error.source().unwrap().downcast_ref::<RedirectRefused>();
                Err(refused.unwrap_or_else(|| panic!("{error:?}")).clone())
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// How many requests each server has seen.
    fn counts(&self) -> Vec<usize> {
        self.0
            .iter()
            .map(|server| server.requests().len())
            .collect()
    }

    fn sessions(&self, server: usize) -> Vec<String> {
        let requests = self.0[server].requests();
        let sessions = requests
            .iter()
            .filter_map(|seen| seen.headers.get("x-opencode-session"));
        sessions.map(|id| id.to_str().unwrap().to_owned()).collect()
    }
}

fn client(policy: Policy) -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(policy)
        .build()
        .unwrap()
}

fn with(
    client: reqwest::Client,
    middlewares: &[&OpencodeSessionMiddleware],
) -> ClientWithMiddleware {
    let chain = middlewares
        .iter()
        .fold(ClientBuilder::new(client), |chain, middleware| {
            chain.with((*middleware).clone())
        });
    chain.build()
}

const TARGET: usize = 0;
const OTHER_TARGET: usize = 1;
const STRANGER: usize = 2;
const OTHER_STRANGER: usize = 3;

#[tokio::test]
async fn the_first_address_of_a_chain_decides_whether_it_may_leave_the_targets() {
    const FOLLOWED: [&[usize]; 7] = [
        &[TARGET, TARGET],
        &[TARGET, OTHER_TARGET, TARGET],
        &[STRANGER, TARGET],
        &[STRANGER, OTHER_STRANGER],
        &[STRANGER, TARGET, STRANGER],
        &[STRANGER, TARGET, OTHER_STRANGER],
        &[STRANGER, TARGET, OTHER_TARGET, STRANGER, TARGET],
    ];
    // With the number of servers that each chain reaches.
    const REFUSED: [(&[usize], usize); 5] = [
        (&[TARGET, STRANGER], 1),
        (&[TARGET, STRANGER, TARGET], 1),
        (&[TARGET, OTHER_TARGET, STRANGER], 2),
        (&[TARGET, TARGET, TARGET, STRANGER, OTHER_STRANGER], 3),
        (&[OTHER_TARGET, TARGET, OTHER_STRANGER], 2),
    ];
    let servers = Servers::start(4).await;
    let middleware = servers.middleware(&[TARGET, OTHER_TARGET]);
    let builder = || reqwest::Client::builder().no_proxy();
    let clients = [
        with(client(middleware.redirect_policy()), &[&middleware]),
        middleware.clone().into_client(builder()).unwrap(),
        // `into_client` replaces the builder's own policy.
        middleware
            .clone()
            .into_client(builder().redirect(Policy::none()))
            .unwrap(),
    ];
    for client in clients {
        for route in FOLLOWED {
            let before: usize = servers.counts().iter().sum();
            let answer = servers.send(&client, route).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{route:?}");
            let after: usize = servers.counts().iter().sum();
            assert_eq!(after - before, route.len(), "{route:?}");
        }
        for (route, reached) in REFUSED {
            let before: usize = servers.counts().iter().sum();
            let refused = servers.send(&client, route).await.unwrap_err();
            let hop = |index: usize| servers.url(route[index]);
            assert_eq!(refused.from_origin(), hop(reached - 1), "{route:?}");
            assert_eq!(refused.to_origin(), hop(reached), "{route:?}");
            let after: usize = servers.counts().iter().sum();
            assert_eq!(after - before, reached, "{route:?}");
        }
    }
    for stranger in [STRANGER, OTHER_STRANGER] {
        assert_eq!(servers.sessions(stranger), [""; 0]);
    }
}

#[test]
fn check_redirect_is_the_same_decision_for_other_stacks_and_both_types_of_url() {
    let middleware = OpencodeSessionMiddleware::new();
    let [target, staging, stranger] = [
        "https://opencode.ai/",
        "https://dev.opencode.ai/",
        "https://example.com/",
    ];
    for (previous, to, followed) in [
        (&[target][..], staging, true),
        (&[target], stranger, false),
        (&[target, staging], stranger, false),
        (&[stranger], stranger, true),
        (&[stranger, target], stranger, true),
    ] {
        let uris: Vec<Uri> = previous.iter().map(|url| url.parse().unwrap()).collect();
        let urls: Vec<reqwest::Url> = previous.iter().map(|url| url.parse().unwrap()).collect();
        let by_uri = middleware.check_redirect(&uris, &to.parse().unwrap());
        let by_url = middleware.check_redirect(&urls, &to.parse().unwrap());
        assert_eq!(by_uri.is_ok(), followed, "{previous:?} to {to}");
        assert_eq!(by_uri, by_url);
    }
}

#[test]
fn a_chain_whose_beginning_is_not_known_may_go_to_targets_alone() {
    let middleware = OpencodeSessionMiddleware::new();
    let uris = |uris: &[&'static str]| uris.iter().copied().map(Uri::from_static).collect();
    let [path, host]: [Vec<Uri>; 2] = [uris(&["/zen/v1/messages"]), uris(&["opencode.ai:443"])];
    let later: Vec<Uri> = uris(&["/zen/v1/messages", "https://dev.opencode.ai/"]);
    for (previous, from) in [
        (vec![], ""),
        (path, ""),
        (host, "opencode.ai:443"),
        (later, "https://dev.opencode.ai"),
    ] {
        let to = |to| middleware.check_redirect(&previous, &Uri::from_static(to));
        assert_eq!(to("https://dev.opencode.ai/"), Ok(()));
        let refused = to("https://example.com/").unwrap_err();
        assert_eq!(refused.from_origin(), from);
        let message = refused.to_string();
        assert!(
            message.contains("https://example.com was refused"),
            "{message}"
        );
        assert!(
            message.contains("where the chain began is not known"),
            "{message}"
        );
        assert_eq!(
            message.starts_with("the redirect from "),
            !from.is_empty(),
            "{message}"
        );
    }
    let unknown: &[reqwest::Url] = &[];
    let stranger = "https://example.com/".parse().unwrap();
    middleware.check_redirect(unknown, &stranger).unwrap_err();
}

#[test]
fn a_refusal_names_origins_and_no_secrets_and_says_what_to_do() {
    let call = Uri::from_static("https://user:secret@opencode.ai/zen?key=secret");
    let stranger = Uri::from_static("https://user:secret@example.com:8443/next?key=secret");
    let middleware = OpencodeSessionMiddleware::new();
    let refused = middleware.check_redirect(&[call], &stranger).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the redirect from https://opencode.ai to https://example.com:8443 was refused: \
         the session may go only to targets; to allow that origin, add it as a `Target`"
    );
    assert!(!format!("{refused:?}").contains("secret"));
}

// Over another policy

#[tokio::test]
async fn over_a_policy_that_follows_nothing_a_redirect_off_the_targets_is_an_error() {
    let servers = Servers::start(4).await;
    let middleware = servers.middleware(&[TARGET, OTHER_TARGET]);
    let client = client(middleware.redirect_policy_over(Policy::none()));
    let client = with(client, &[&middleware]);
    for (route, answered) in [
        (&[TARGET, OTHER_TARGET], true),
        (&[STRANGER, OTHER_STRANGER], true),
        (&[STRANGER, TARGET], true),
        (&[TARGET, STRANGER], false),
    ] {
        let before: usize = servers.counts().iter().sum();
        let status = servers
            .send(&client, route)
            .await
            .map(|answer| answer.status());
        assert_eq!(status.is_ok(), answered, "{route:?}");
        assert_eq!(
            status.unwrap_or(StatusCode::TEMPORARY_REDIRECT),
            307,
            "{route:?}"
        );
        let after: usize = servers.counts().iter().sum();
        assert_eq!(after - before, 1, "{route:?}");
    }
}

#[tokio::test]
async fn over_a_limit_of_the_users_own_that_limit_holds() {
    let servers = Servers::start(1).await;
    let middleware = servers.middleware(&[TARGET]);
    let client = client(middleware.redirect_policy_over(Policy::limited(2)));
    let client = with(client, &[&middleware]);
    servers.send(&client, &[TARGET; 3]).await.unwrap();
    let url = format!("{}/0/0/0/", servers.url(TARGET));
    let error = client.get(url).send().await.unwrap_err();
    assert!(error.is_redirect());
    assert!(error.to_string().contains("redirect"), "{error}");
    assert_eq!(servers.counts(), [6]);
}

#[tokio::test]
async fn two_middlewares_on_one_client_guard_each_others_targets() {
    let servers = Servers::start(3).await;
    let (one, two) = (Session::new(), Session::new());
    let of_one = servers.middleware(&[TARGET]).bound_to(&one);
    let of_two = servers.middleware(&[OTHER_TARGET]).bound_to(&two);
    let policies: [Policy; 2] = [
        of_one.redirect_policy_over(of_two.redirect_policy()),
        of_two.redirect_policy_over(of_one.redirect_policy()),
    ];
    for policy in policies {
        let client = with(client(policy), &[&of_one, &of_two]);
        for route in [
            [TARGET, STRANGER],
            [OTHER_TARGET, STRANGER],
            [TARGET, OTHER_TARGET],
            [OTHER_TARGET, TARGET],
        ] {
            servers.send(&client, &route).await.unwrap_err();
        }
        for route in [[TARGET; 2], [OTHER_TARGET; 2], [STRANGER, TARGET]] {
            servers.send(&client, &route).await.unwrap();
        }
    }
    assert_eq!(servers.sessions(STRANGER), [""; 0]);
    assert!(
        servers
            .sessions(TARGET)
            .iter()
            .all(|id| one.id() == id.as_str())
    );
    assert!(
        servers
            .sessions(OTHER_TARGET)
            .iter()
            .all(|id| two.id() == id.as_str())
    );
}

// Targets with session headers of their own

#[tokio::test]
async fn a_redirect_between_targets_is_followed_where_they_take_the_session_in_the_same_header() {
    let servers = Servers::start(3).await;
    let own = |server| {
        servers
            .target(server)
            .session_header("x-session-id")
            .unwrap()
    };
    let session = Session::new();
    for (targets, followed) in [
        ([own(TARGET), own(OTHER_TARGET)], true),
        ([servers.target(TARGET), servers.target(OTHER_TARGET)], true),
        ([own(TARGET), servers.target(OTHER_TARGET)], false),
        ([servers.target(TARGET), own(OTHER_TARGET)], false),
    ] {
        let middleware = OpencodeSessionMiddleware::builder()
            .targets(targets)
            .build()
            .unwrap();
        let middleware = middleware.bound_to(&session);
        let client = with(client(middleware.redirect_policy()), &[&middleware]);
        let before = servers.counts();
        let answer = servers.send(&client, &[TARGET, OTHER_TARGET]).await;
        assert_eq!(answer.is_ok(), followed);
        assert_eq!(
            servers.counts()[OTHER_TARGET] - before[OTHER_TARGET],
            usize::from(followed)
        );
        if let Err(refused) = answer {
            assert!(refused.to_string().contains("another header"), "{refused}");
        }
        // A redirect off the targets is refused in any case.
        servers
            .send(&client, &[TARGET, STRANGER])
            .await
            .unwrap_err();
    }
    assert_eq!(servers.counts()[STRANGER], 0);
}
