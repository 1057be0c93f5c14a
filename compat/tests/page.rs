//! The page of the example `gateway`, in a real browser.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use example::watch;
use reqwest::Client;
use reqwest_opencode_session::testing::Gateway;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::runtime;
use tokio::time::{sleep, timeout};

#[allow(dead_code, reason = "here nobody calls its `main`")]
#[path = "../../examples/gateway.rs"]
mod example;

/// Chromium without a window, driven over WebDriver. It ends when this is dropped.
struct Browser {
    client: Client,
    session: String,
    _driver: Child,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Or it would outlive its driver. On a thread, because the test's own runtime waits here.
        let session = self.session.clone();
        let end = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            let end = async { plain_client().delete(session).send().await };
            runtime.unwrap().block_on(end).is_ok()
        });
        assert!(end.join().unwrap() || thread::panicking());
    }
}

fn plain_client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

impl Browser {
    async fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver is installed by page.sh");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next_line().await.unwrap().expect("it says its port");
            if let Some((_, port)) = line.split_once("successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        // It goes on writing, and would wait for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });

        let mut browser = Self {
            client: plain_client(),
            session: format!("http://127.0.0.1:{port}/session"),
            _driver: driver,
        };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ];
        let options = json!({"goog:chromeOptions": {"args": arguments}});
        let started = browser.post("", json!({"capabilities": {"alwaysMatch": options}}));
        let started = started.await["sessionId"].as_str().unwrap().to_owned();
        browser.session += &format!("/{started}");
        browser
    }

    async fn post(&self, command: &str, body: Value) -> Value {
        let answer = self.client.post(format!("{}{command}", self.session));
        let answer = answer.json(&body).send().await.unwrap();
        let mut answer: Value = answer.json().await.unwrap();
        assert!(answer["value"]["error"].is_null(), "{answer}");
        answer["value"].take()
    }

    async fn open(&self, url: &str) {
        self.post("/url", json!({"url": url})).await;
        self.until("document.getElementById('live').textContent === 'live'")
            .await;
    }

    /// The value of an expression on the page.
    async fn get(&self, expression: &str) -> Value {
        let script = json!({"script": format!("return {expression}"), "args": []});
        self.post("/execute/sync", script).await
    }

    /// Waits until an expression on the page is true.
    async fn until(&self, expression: &str) {
        let waiting = async {
            while self.get(expression).await != true {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = timeout(Duration::from_secs(20), waiting).await;
        waited.unwrap_or_else(|_| panic!("it never came true that {expression}"));
    }

    /// Makes the page this wide, with the colours of `light` or `dark`.
    async fn emulate(&self, width: u32, scheme: &str) {
        let scheme = json!({"name": "prefers-color-scheme", "value": scheme});
        for (command, parameters) in [
            (
                "Emulation.setDeviceMetricsOverride",
                json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false}),
            ),
            ("Emulation.setEmulatedMedia", json!({"features": [scheme]})),
        ] {
            let command = json!({"cmd": command, "params": parameters});
            self.post("/goog/cdp/execute", command).await;
        }
    }

    /// The rows of the table, the latest first: their classes, and their text.
    async fn rows(&self) -> Vec<(String, String)> {
        let rows =
            "[...document.querySelectorAll('#rows tr')].map(row => [row.className, row.innerText])";
        serde_json::from_value(self.get(rows).await).unwrap()
    }
}

/// A running tool, and a browser on its page.
struct Watched {
    client: Client,
    url: String,
    page: String,
    browser: Browser,
}

impl Watched {
    async fn start() -> Self {
        let gateway = Gateway::start().unwrap();
        let url = gateway.url("/zen/go/v1/chat/completions");
        let page = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", page.local_addr().unwrap());
        tokio::spawn(watch(gateway, page));
        let browser = Browser::start().await;
        browser.open(&address).await;
        Self {
            client: browser.client.clone(),
            url,
            page: address,
            browser,
        }
    }

    async fn call(&self, headers: &[(&str, &str)], model: &str) {
        let mut call = self.client.post(&self.url).bearer_auth(Gateway::KEY);
        for (name, value) in headers {
            call = call.header(*name, *value);
        }
        let body = json!({"model": model, "messages": []});
        call.json(&body).send().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs Chromium, which page.sh installs"]
async fn a_call_without_a_session_shows_up_as_such_within_a_second() {
    let watched = Watched::start().await;
    let mut fastest = Duration::MAX;
    // The fastest of several, because a busy machine can be slow at any one.
    for count in 1..=5 {
        let called = Instant::now();
        watched
            .call(&[("x-opencode-client", "my-agent")], "kimi-k3")
            .await;
        let shown = format!("document.querySelectorAll('#rows tr.missing').length === {count}");
        watched.browser.until(&shown).await;
        fastest = fastest.min(called.elapsed());
    }
    assert!(fastest < Duration::from_secs(1), "it took {fastest:?}");

    let (_, text) = &watched.browser.rows().await[0];
    for shown in [
        "no session",
        "400",
        "my-agent",
        "POST /zen/go/v1/chat/completions",
    ] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
    assert_eq!(watched.browser.get("document.title").await, "(5) Calls");
}

#[tokio::test]
#[ignore = "needs Chromium, which page.sh installs"]
async fn changed_sessions_stand_out_and_subagents_do_not() {
    let watched = Watched::start().await;
    let client = ("x-opencode-client", "my-agent");
    let parent = ("x-parent-session-id", "first");
    let session = |id| ("x-opencode-session", id);
    watched.call(&[client, session("first")], "kimi-k3").await;
    watched.call(&[client, session("first")], "kimi-k3").await;
    watched
        .call(&[client, session("helper"), parent], "kimi-k3")
        .await;
    watched.call(&[client, session("second")], "kimi-k3").await;
    watched.call(&[client, session("first")], "kimi-k3").await;
    watched.call(&[session("another-client")], "kimi-k3").await;
    watched
        .browser
        .until("document.querySelectorAll('#rows tr').length === 6")
        .await;

    let mut rows = watched.browser.rows().await;
    rows.reverse();
    let changed: Vec<_> = rows
        .iter()
        .map(|(class, _)| class.contains("changed"))
        .collect();
    assert_eq!(changed, [false, false, false, true, false, false]);
    assert!(rows[2].1.contains("subagent"));
    assert!(rows[3].1.contains("changed"));

    watched.browser.open(&watched.page).await;
    watched
        .browser
        .until("document.querySelectorAll('#rows tr').length === 6")
        .await;
}

#[tokio::test]
#[ignore = "needs Chromium, which page.sh installs"]
async fn the_page_fits_a_phone_and_follows_light_and_dark() {
    let watched = Watched::start().await;
    let browser = &watched.browser;
    let session = "01a20360-f6d2-7083-9a19-5a139a403ac6";
    watched
        .call(&[("x-opencode-session", session)], "kimi-k3")
        .await;
    watched.call(&[], "<img src=x>").await;
    watched
        .call(&[("x-opencode-session", "other")], "<img src=x>")
        .await;
    browser
        .until("document.querySelectorAll('#rows tr').length === 3")
        .await;

    let paper = "getComputedStyle(document.body).backgroundColor";
    let fits = "document.documentElement.scrollWidth <= innerWidth";
    let mut papers = vec![];
    for (width, scheme) in [
        (1280, "light"),
        (1280, "dark"),
        (390, "light"),
        (390, "dark"),
    ] {
        browser.emulate(width, scheme).await;
        assert_eq!(browser.get("innerWidth").await, width);
        assert_eq!(browser.get(fits).await, true, "at {width} pixels");
        papers.push(browser.get(paper).await);
    }
    assert_ne!(papers[0], papers[1]);
    assert_eq!(papers[..2], papers[2..]);

    // What a client sends is text, whatever it looks like.
    assert!(browser.rows().await[0].1.contains("<img src=x>"));
    assert_eq!(browser.get("document.images.length").await, 0);
}
