//! Both generations of reqwest in one program.

use reqwest_opencode_session::Session;
use reqwest_opencode_session::testing::Gateway;

use crate::support::{CHAT, chat, client_with, middleware_for};

#[tokio::test]
async fn one_middleware_serves_clients_of_both_generations() {
    let gateway = Gateway::start().unwrap();
    let middleware = middleware_for(&gateway).build().unwrap();
    let older = client_with(middleware.clone());
    let builder = reqwest::Client::builder().no_proxy();
    let newer = middleware.clone().into_client(builder).unwrap();

    chat(&older, &gateway).send().await.unwrap();
    newer.post(gateway.url(CHAT)).send().await.unwrap();

    assert_eq!(gateway.requests().len(), 2);
    gateway.assert_every_request_in(&Session::process());
}
