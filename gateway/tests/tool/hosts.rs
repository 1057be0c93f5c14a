//! No web page of another origin can read the calls, whatever host name points to this machine.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::program::{Program, client};

/// Returns the status of the answer to a request with this `Host` line.
fn status(program: &Program, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(program.address()).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\n{host}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_foreign_host_is_refused_on_every_path() {
    let program = Program::start(["--allow-host", "host.docker.internal"]);
    for path in ["/", "/api/state", "/api/events", "/zen/go/v1/models"] {
        for host in [
            "host: rebound.example.com\r\n",
            "host: 127.0.0.1.example.com\r\n",
            "host: localhost.example.com\r\n",
            "host: notlocalhost\r\n",
            "host: 192.0.2.1\r\n",
            "host: 127.0.0.1\r\nhost: rebound.example.com\r\n",
            "host:\r\n",
            "",
        ] {
            let status = status(&program, path, host);
            assert!(
                matches!(&*status, "421" | "400"),
                "{status} for {host:?} on {path}"
            );
        }
    }
    let absolute = status(
        &program,
        "http://rebound.example.com/api/state",
        "host: localhost\r\n",
    );
    assert_eq!(absolute, "421");
    for host in [
        "localhost",
        "LOCALHOST:8787",
        "a.localhost",
        "127.0.0.1:9",
        "127.1.2.3",
        "[::1]:9",
    ] {
        assert_eq!(
            status(&program, "/api/state", &format!("host: {host}\r\n")),
            "200",
            "{host}"
        );
    }
    let allowed = "host: host.docker.internal:8787\r\n";
    assert_eq!(status(&program, "/zen/go/v1/models", allowed), "200");
}

#[test]
fn the_pages_data_is_for_its_own_origin_alone() {
    let program = Program::start([""; 0]);
    for path in ["/", "/api/state", "/api/calls", "/api/conversations"] {
        let client = client();
        let call = client
            .get(program.url(path))
            .header("origin", "https://example.com");
        let response = call.send().unwrap();
        let headers = response.headers();
        assert!(
            !headers.contains_key("access-control-allow-origin"),
            "{path}"
        );
        assert_eq!(headers["cache-control"], "no-store", "{path}");
        assert!(
            headers["content-security-policy"]
                .to_str()
                .unwrap()
                .starts_with("default-src 'self'")
        );
    }
}

#[test]
fn it_is_no_proxy_for_other_addresses() {
    let program = Program::start([""; 0]);
    let mut stream = TcpStream::connect(program.address()).unwrap();
    let request = b"CONNECT localhost:9 HTTP/1.1\r\nhost: localhost:9\r\nconnection: close\r\n\r\n";
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}
