//! TLS: who the server must be.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use headless_abstractions::ErrorKind;
use headless_harness::{
    Unavailable,
    services::{PrivatePostgres, private_postgres},
};
use headless_postgres::{Postgres, PostgresConfig};
use tempfile::TempDir;

use crate::world::{World, eventually, present};

const ON: &str = include_str!("sql/tls_on.sql");
const RELOAD: &str = include_str!("sql/reload.sql");

/// Makes `<name>.pem` and `<name>.key`, signed by itself unless the arguments say otherwise.
fn certificate(folder: &Path, name: &str, arguments: &[&str]) -> Result<PathBuf, Unavailable> {
    let certificate = folder.join(format!("{name}.pem"));
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
        .arg(folder.join(format!("{name}.key")))
        .arg("-out")
        .arg(&certificate)
        .output()
        .map_err(|error| Unavailable::Absent(format!("no certificates for a test: openssl: {error}")))?;
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr);
        return Err(Unavailable::Broken(format!("openssl: {said}")));
    }
    Ok(certificate)
}

/// Gives the server a certificate for `localhost`, and answers those of its authority and of another one.
fn certify(server: &PrivatePostgres, folder: &Path) -> Result<[PathBuf; 2], Unavailable> {
    let ca = certificate(folder, "ca", &[])?;
    let other = certificate(folder, "other", &[])?;
    let key = folder.join("ca.key");
    let signed = [
        "-CA",
        ca.to_str().unwrap(),
        "-CAkey",
        key.to_str().unwrap(),
        "-addext",
        "subjectAltName=DNS:localhost",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ];
    certificate(folder, "server", &signed)?;
    let data = server.data_dir();
    let owner = fs::metadata(&data).unwrap();
    for (from, to) in [("server.pem", "server.crt"), ("server.key", "server.key")] {
        let to = data.join(to);
        fs::copy(folder.join(from), &to).unwrap();
        chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
    }
    Ok([ca, other])
}

#[tokio::test]
async fn should_trust_the_server_of_its_authority_and_name_alone_when_tls_is_to_be_verified() {
    let Some(server) = present(private_postgres()) else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let Some([ca, other]) = present(certify(&server, folder.path())) else {
        return;
    };
    World::run_at(server.url(), async |world| {
        world.raw(ON).await;
        world.raw(RELOAD).await;
        let config = |host: &str, mode: &str, ca: &Path| {
            let url = world.url.replace("127.0.0.1", host);
            let ca = ca.to_str().unwrap();
            PostgresConfig::new(&format!(
                "{url}?sslmode={mode}&sslrootcert={ca}&schema={}",
                world.schema
            ))
            .unwrap()
        };
        // The server reads its new settings in its own time.
        let postgres = eventually("TLS", async || {
            Postgres::connect_with(config("localhost", "verify-full", &ca))
                .await
                .ok()
        })
        .await;
        drop(postgres);
        for (what, config) in [
            ("another name", config("127.0.0.1", "verify-full", &ca)),
            ("another authority", config("localhost", "verify-full", &other)),
            (
                "another authority, whatever its name",
                config("127.0.0.1", "verify-ca", &other),
            ),
        ] {
            let error = Postgres::connect_with(config).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{what}: {error:?}");
            assert!(!error.is_retryable(), "{what}: {error:?}");
            assert!(error.to_string().contains("TLS"), "{what}: {error}");
        }
        // Only the name differs, which this mode does not look at.
        Postgres::connect_with(config("127.0.0.1", "verify-ca", &ca))
            .await
            .unwrap();
    })
    .await;
}
