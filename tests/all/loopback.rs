//! Real host names on loopback: a certificate made by the test, and a client that trusts it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// Accepts connections on a free port until the test ends.
pub async fn serve<F: Future<Output = io::Result<()>> + Send>(
    handle: impl Fn(TcpStream) -> F + Clone + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handle = handle.clone();
            // Fails if the other side leaves.
            tokio::spawn(async move { handle(stream).await.ok() });
        }
    });
    address
}

/// The identity of a server: a certificate for some names, and its key.
pub struct Identity {
    names: Vec<String>,
    certified: CertifiedKey<rcgen::KeyPair>,
}

impl Identity {
    pub fn of(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let certified = rcgen::generate_simple_self_signed(names.clone()).unwrap();
        Self { names, certified }
    }

    pub fn pem(&self) -> String {
        self.certified.cert.pem()
    }

    /// The server side of TLS, which offers these protocols by ALPN.
    pub fn acceptor(&self, protocols: &[&str]) -> TlsAcceptor {
        let key = PrivateKeyDer::try_from(self.certified.signing_key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![self.certified.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|&name| name.into()).collect();
        Arc::new(config).into()
    }

    /// A client that resolves the certificate's names to this address; a port in the URL takes
    /// precedence.
    pub fn client(&self, address: SocketAddr) -> reqwest::ClientBuilder {
        let builder = trusting(&self.pem()).no_proxy();
        let names = self.names.iter();
        names.fold(builder, |builder, name| builder.resolve(name, address))
    }
}

/// A client that trusts only this certificate.
pub fn trusting(pem: &str) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(pem.as_bytes()).unwrap()])
}
