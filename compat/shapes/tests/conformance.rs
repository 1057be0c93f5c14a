use anyhow::Result;
use reqwest::{Client, StatusCode};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_opencode_session::testing::{Failure, Gateway};
use reqwest_opencode_session::{Fallback, OpencodeSessionMiddleware, Session, WithSession as _};
use serde_json::json;

/// A little agent, in place of yours.
#[derive(Clone)]
struct Agent {
    http: ClientWithMiddleware,
    url: String,
}

impl Agent {
    fn new(gateway: &Gateway) -> Result<Self> {
        let opencode = OpencodeSessionMiddleware::builder()
            .client_name("my-agent")
            // In the test, no fallback hides a call that was missed.
            .fallback(Fallback::Omit)
            .build()?;
        let http = opencode.into_client(Client::builder().no_proxy())?;
        let url = gateway.url("/zen/go/v1/chat/completions");
        Ok(Self { http, url })
    }

    async fn call(&self, prompt: &str) -> Result<StatusCode> {
        let messages = [json!({"role": "user", "content": prompt})];
        let body = json!({"model": "kimi-k3", "messages": messages});
        let call = self.http.post(&self.url).bearer_auth(Gateway::KEY);
        Ok(call.json(&body).send().await?.status())
    }

    async fn answer(&self, prompt: &str) -> Result<()> {
        let agent = self.clone();
        let title = async move { agent.call("A title, please.").await };
        // Without `with_current_session`, the title would be the call that is missed.
        let title = tokio::spawn(title.with_current_session());
        while self.call(prompt).await? == StatusCode::SERVICE_UNAVAILABLE {}
        title.await??;
        Ok(())
    }
}

/// Something goes wrong, because a retry is one more place that may forget the session.
#[tokio::test]
async fn every_call_of_a_conversation_is_in_its_session() -> Result<()> {
    let gateway = Gateway::start()?;
    gateway.fail_next(1, Failure::Unavailable);
    let (agent, session) = (Agent::new(&gateway)?, Session::new());
    agent.answer("Hello").with_session(session.turn()).await?;

    gateway.assert_every_request_in(&session);
    gateway.assert_every_client_is("my-agent");
    gateway.assert_every_failure_used();
    Ok(())
}

#[tokio::test]
async fn conversations_at_once_stay_apart() -> Result<()> {
    let gateway = Gateway::start()?;
    let agent = Agent::new(&gateway)?;
    let sessions = [Session::new(), Session::new()];
    let [one, other] = &sessions;
    tokio::try_join!(
        agent.answer("Hello").with_session(one.turn()),
        agent.answer("Good morning").with_session(other.turn()),
    )?;

    let requests = gateway.requests();
    for session in &sessions {
        let id = Some(session.id().to_string());
        assert_eq!(requests.iter().filter(|seen| seen.session == id).count(), 2);
    }
    gateway.assert_no_session_missing();
    gateway.assert_conversations_keep_their_session();
    gateway.assert_no_fallback();
    Ok(())
}

#[tokio::test]
async fn no_redirect_takes_the_session_to_another_host() -> Result<()> {
    let gateway = Gateway::start()?;
    let location = gateway.elsewhere("/")?;
    gateway.fail_next(1, Failure::Redirect { location });
    let agent = Agent::new(&gateway)?;
    let call = agent.call("Hello").with_session(Session::new()).await;

    assert!(call.is_err());
    gateway.assert_every_failure_used();
    gateway.assert_no_request_escaped();
    Ok(())
}
