//! TLS: who the server must be, and who the client.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use headless_abstractions::{Error, ErrorKind, TopicOrder, Transport};
use headless_harness::{
    Unavailable,
    services::{self, PrivateRabbitMq},
};
use headless_rabbitmq::{RabbitMq, RabbitMqConfig};
use tempfile::TempDir;

use crate::shop::{Shop, config_at, message, send_all, there, work};

/// Certificates of an authority of our own, for this test.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Result<Self, Unavailable> {
        let folder = TempDir::new().unwrap();
        // The server is another user of the machine.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let made = Self(folder);
        made.certificate("ca", &[])?;
        made.certificate("other-ca", &[])?;
        for (name, alternative) in [("server", "DNS:localhost"), ("client", "DNS:client")] {
            let (ca, key) = (made.path("ca.pem"), made.path("ca.key"));
            made.certificate(
                name,
                &[
                    "-CA",
                    ca.to_str().unwrap(),
                    "-CAkey",
                    key.to_str().unwrap(),
                    "-addext",
                    &format!("subjectAltName={alternative}"),
                    "-addext",
                    "basicConstraints=critical,CA:FALSE",
                ],
            )?;
        }
        Ok(made)
    }

    /// Makes `<name>.pem` and `<name>.key`, signed by itself unless the arguments say otherwise.
    fn certificate(&self, name: &str, arguments: &[&str]) -> Result<(), Unavailable> {
        let key = self.path(&format!("{name}.key"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-days", "2", "-subj", &format!("/CN={name}")])
            .args(arguments)
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(self.path(&format!("{name}.pem")))
            .output()
            .map_err(|error| Unavailable::Absent(format!("no certificates for a test: openssl: {error}")))?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr);
            return Err(Unavailable::Broken(format!("openssl: {said}")));
        }
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        Ok(())
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }
}

/// Lets the server listen for TLS as well, with these options more, and answers on which port.
fn listen(server: &PrivateRabbitMq, certificates: &Certificates, options: &str) -> u16 {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let file = |path: &Path| format!("{:?}", path.to_str().unwrap());
    let listen = format!(
        "application:ensure_all_started(ssl), ok = rabbit_networking:start_ssl_listener({{\"127.0.0.1\", {port}}}, \
         [{{cacertfile, {}}}, {{certfile, {}}}, {{keyfile, {}}}, {options}], 1).",
        file(&certificates.path("ca.pem")),
        file(&certificates.path("server.pem")),
        file(&certificates.path("server.key")),
    );
    server.ctl(&["eval", &listen]).unwrap();
    port
}

fn at(host: &str, port: u16) -> RabbitMqConfig {
    config_at(&format!("amqps://guest:guest@{host}:{port}"))
}

/// An error with all that it was made from.
fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

async fn assert_denied(what: &str, config: RabbitMqConfig, because: &str) {
    let error = RabbitMq::connect_with(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{what}: {error:?}");
    assert!(!error.is_retryable(), "{what}: {error:?}");
    assert!(error.to_string().contains("certificate"), "{what}: {error}");
    assert!(whole(&error).contains(because), "{what}: {}", whole(&error));
}

async fn assert_works(config: RabbitMqConfig) {
    let shop = Shop::open_with(config, TopicOrder::Unordered).await;
    let member = shop.join().await;
    send_all(&shop.rabbitmq, &[message("a:0")]).await;
    assert_eq!(work(&*member, 1).await, ["a:0"]);
    assert!(shop.rabbitmq.info().endpoint.starts_with("amqps://"));
    member.close().await.unwrap();
    shop.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_trust_the_server_of_its_authority_and_name_alone_when_tls_is_asked_for() {
    let Some(server) = there(services::private_rabbitmq()) else {
        return;
    };
    let Some(certificates) = there(Certificates::new()) else {
        return;
    };
    let port = listen(&server, &certificates, "{verify, verify_none}");
    let ca = certificates.path("ca.pem");
    assert_works(at("localhost", port).with_ca_file(&ca)).await;

    let wrong_name = at("127.0.0.1", port).with_ca_file(&ca);
    assert_denied("a wrong name", wrong_name, "not valid for name").await;
    let no_authority = at("localhost", port);
    assert_denied("no authority", no_authority, "UnknownIssuer").await;
    let other = at("localhost", port).with_ca_file(certificates.path("other-ca.pem"));
    assert_denied("another authority", other, "UnknownIssuer").await;
    // A port that speaks no TLS is no way to it.
    let plain = at("localhost", server.port()).with_ca_file(&ca);
    let error = RabbitMq::connect_with(plain).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", whole(&error));

    for (what, file) in [("absent", "none.pem"), ("no certificate", "server.key")] {
        let config = at("localhost", port).with_ca_file(certificates.path(file));
        let error = RabbitMq::connect_with(config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{what}: {}", whole(&error));
        assert!(error.to_string().contains("ca_file"), "{what}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_show_its_certificate_when_the_server_asks_for_one() {
    let Some(server) = there(services::private_rabbitmq()) else {
        return;
    };
    let Some(certificates) = there(Certificates::new()) else {
        return;
    };
    let asks = "{verify, verify_peer}, {fail_if_no_peer_cert, true}";
    let port = listen(&server, &certificates, asks);
    let config = at("localhost", port).with_ca_file(certificates.path("ca.pem"));
    let client = (certificates.path("client.pem"), certificates.path("client.key"));
    assert_works(config.clone().with_identity(&client.0, &client.1)).await;

    // Its handshake is over when the server looks at what it did not show: what the server says of it and the end of the
    // connection run against each other.
    let error = RabbitMq::connect_with(config).await.unwrap_err();
    let kinds = [ErrorKind::Denied, ErrorKind::Unavailable];
    assert!(kinds.contains(&error.kind()), "{}", whole(&error));
}
