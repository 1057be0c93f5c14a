//! Who sends a request: the client's name, the project and the user agent.

use reqwest_opencode_session::{
    ExistingHeader, OpencodeSessionMiddleware, Session, Target, WithSession, header,
};

use crate::stack::reqwest;
use crate::stack::reqwest_middleware::ClientBuilder;
use crate::support::{Elsewhere, chat, client_with, middleware_for, only, start, values};

#[tokio::test]
async fn client_project_and_user_agent_are_set_only_where_they_were_given() {
    let gateway = start();
    chat(
        &client_with(middleware_for(&gateway).build().unwrap()),
        &gateway,
    )
    .send()
    .await
    .unwrap();
    let seen = only(&gateway);
    assert_eq!((seen.client, seen.project), (None, None));
    assert!(!seen.headers.contains_key("user-agent"));
}

#[tokio::test]
async fn the_callers_own_client_project_and_user_agent_stay() {
    let gateway = start();
    let middleware = middleware_for(&gateway)
        .client_name("my-agent")
        .project("my-project")
        .user_agent("my agent/1.0")
        .build()
        .unwrap();
    let request = chat(&client_with(middleware), &gateway)
        .header(header::CLIENT, "own-client")
        .header(header::PROJECT, "own-project")
        .header("user-agent", "own/1");
    request.send().await.unwrap();
    let seen = only(&gateway);
    assert_eq!(seen.client.as_deref(), Some("own-client"));
    assert_eq!(seen.project.as_deref(), Some("own-project"));
    assert_eq!(values(&seen, "user-agent"), [b"own/1"]);
}

#[tokio::test]
async fn replace_and_malformed_headers_put_the_middlewares_client_and_project_in_place() {
    let gateway = start();
    for (existing, value) in [
        (ExistingHeader::Replace, "own"),
        (ExistingHeader::Keep, "two words"),
    ] {
        gateway.take_requests();
        let middleware = middleware_for(&gateway)
            .client_name("my-agent")
            .project("my-project")
            .existing_header(existing)
            .build()
            .unwrap();
        let request = chat(&client_with(middleware), &gateway)
            .header(header::CLIENT, value)
            .header(header::PROJECT, value);
        request.send().await.unwrap();
        let seen = only(&gateway);
        assert_eq!(values(&seen, "x-opencode-client"), [b"my-agent"]);
        assert_eq!(values(&seen, "x-opencode-project"), [b"my-project"]);
    }
}

#[tokio::test]
async fn the_middlewares_user_agent_wins_over_the_clients_own() {
    let gateway = start();
    let client = reqwest::Client::builder()
        .no_proxy()
        .user_agent("the-clients/1")
        .build()
        .unwrap();
    let middleware = middleware_for(&gateway)
        .user_agent("the-middlewares/1")
        .build()
        .unwrap();
    let client = ClientBuilder::new(client).with(middleware).build();
    chat(&client, &gateway).send().await.unwrap();
    assert_eq!(
        values(&only(&gateway), "user-agent"),
        [b"the-middlewares/1"]
    );
}

#[tokio::test]
async fn nothing_is_set_on_a_request_to_another_host_even_inside_a_session() {
    let elsewhere = Elsewhere::quiet().await;
    let middleware = OpencodeSessionMiddleware::builder()
        .client_name("my-agent")
        .project("my-project")
        .user_agent("my-agent/1.0")
        .build()
        .unwrap();
    let request = client_with(middleware)
        .post(format!("http://{}/", elsewhere.address))
        .body("Hello")
        .with_extension(Session::new())
        .send();
    request.with_session(Session::new()).await.unwrap();
    let seen = elsewhere.requests();
    assert_eq!(seen[0].opencode_headers(), [""; 0]);
    assert!(!seen[0].headers.contains_key("user-agent"));
    assert_eq!(seen[0].body, "Hello");
}

#[test]
fn the_builder_refuses_bad_values_and_says_which() {
    let builder = OpencodeSessionMiddleware::builder;
    for (builder, expected) in [
        (
            builder().client_name(""),
            "`client_name` was refused: the value is empty",
        ),
        (
            builder().project("/home/me\n"),
            "`project` was refused: trim the value: character 9 of the value is '\\n'",
        ),
        (
            builder().user_agent("x".repeat(129)),
            "`user_agent` was refused: the value has 129 characters",
        ),
        (
            builder().user_agent("agent/1 "),
            "`user_agent` was refused: trim the value: character 8 of the value is ' '",
        ),
        // The first bad value is named, and a later good one does not hide it.
        (
            builder().client_name("").project("\n").client_name("fine"),
            "`client_name` was refused: the value is empty",
        ),
        (
            builder().target("opencode.ai").client_name(""),
            "a target was refused: the target has no scheme",
        ),
        (builder().targets::<Target>([]), "`targets` is empty"),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let agent = "my-agent/1.0 (Linux; x86)";
    assert!(builder().user_agent(agent).build().is_ok());
}
