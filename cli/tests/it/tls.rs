//! The command line and a server behind a proxy with TLS, which a few lines stand for here.

use crate::lab::{Lab, SOON, eventually, server::VMYARD, shown::Shown};
use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// Makes a certificate for localhost, which is its own authority; returns its path.
fn certificate(dir: &Path) -> String {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let done = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    cert.display().to_string()
}

/// Passes what comes by TLS on to a server, which isn't told; returns the port.
fn proxy(runtime: &tokio::runtime::Runtime, dir: &Path, server: String) -> u16 {
    let certs = CertificateDer::pem_file_iter(dir.join("cert.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(certs, key).unwrap()));
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime.spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, server) = (acceptor.clone(), server.clone());
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect(server).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    port
}

#[test]
fn the_command_line_speaks_tls_on_a_console_too() {
    let lab = Lab::own();
    let vm = lab.create("far").start().ready();
    let cert = certificate(&lab.dir.path);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let port = proxy(&runtime, &lab.dir.path, lab.server.url.trim_start_matches("http://").to_owned());
    let command = |cert: Option<&str>| {
        let mut command = Command::new(VMYARD);
        command.args(["--url", &format!("https://localhost:{port}"), "--token", &lab.server.token]);
        command.env_remove("SSL_CERT_DIR").env("SSL_CERT_FILE", cert.unwrap_or("/dev/null"));
        command
    };
    let listed = command(Some(&cert)).args(["vm", "list"]).output().unwrap();
    assert!(listed.status.success() && String::from_utf8_lossy(&listed.stdout).contains(&vm.name), "{listed:?}");
    // A certificate that nobody vouches for.
    let refused = command(None).args(["vm", "list"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");

    let mut console = command(Some(&cert))
        .args(["vm", "console", &vm.name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (shown, mut keys) = (Shown::of(&mut console), console.stdin.take().unwrap());
    shown.wait_for("tiny: ready");
    keys.write_all(b"\r").unwrap();
    shown.wait_for("login: ");
    vm.ok("stop-vm", serde_json::json!({"force": true}));
    eventually("it ends", SOON, || console.try_wait().unwrap());
    let said = console.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("the VM is off"), "{said:?}");
}
