//! The floor of the benchmark: what a rotation costs when nothing but the
//! driver does it. Connect, change, connect again; the same TLS verification,
//! authority and client-side SCRAM verifier as `turnlock-postgresql`, and no
//! code of Turnlock.
//!
//! `lab-floor HOST PORT CA_FILE JOBS`, accounts as JSON `[["login", "password"], …]`
//! on standard input. Each account keeps its password, under a new salt.
//! Prints `{"accounts", "wall_ms", "median_ms"}`.

#![expect(clippy::print_stdout, reason = "its result")]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Semaphore;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

type Failed = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, ca, jobs] = arguments.as_slice() else {
        return Err("usage: lab-floor HOST PORT CA_FILE JOBS".into());
    };
    let accounts: Vec<(String, String)> = serde_json::from_reader(std::io::stdin())?;
    let server = Arc::new(Server { host: host.clone(), port: port.parse()?, tls: trusting(ca)? });

    let places = Arc::new(Semaphore::new(jobs.parse()?));
    let begun = Instant::now();
    let mut running = Vec::new();
    for (login, password) in accounts {
        let place = Arc::clone(&places).acquire_owned().await?;
        let server = Arc::clone(&server);
        running.push(tokio::spawn(async move {
            let _place = place;
            let begun = Instant::now();
            server.rotate(&login, &password).await.map(|()| begun.elapsed())
        }));
    }
    let mut each = Vec::new();
    for one in running {
        each.push(one.await??);
    }
    let wall = begun.elapsed();
    each.sort();
    let median = each.get(each.len() / 2).ok_or("no accounts")?;
    println!(
        "{}",
        serde_json::json!({"accounts": each.len(), "wall_ms": wall.as_secs_f64() * 1e3, "median_ms": median.as_secs_f64() * 1e3})
    );
    Ok(())
}

fn trusting(ca: &str) -> Result<MakeRustlsConnect, Failed> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

struct Server {
    host: String,
    port: u16,
    tls: MakeRustlsConnect,
}

impl Server {
    async fn rotate(&self, login: &str, password: &str) -> Result<(), Failed> {
        let client = self.connect(login, password).await?;
        let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
        client.batch_execute(&format!("ALTER ROLE \"{login}\" PASSWORD '{verifier}'")).await?;
        self.connect(login, password).await.map(drop)
    }

    async fn connect(&self, login: &str, password: &str) -> Result<Client, Failed> {
        let mut config = Config::new();
        config.host(&self.host).port(self.port).user(login).password(password).dbname("postgres");
        let (client, connection) = config.ssl_mode(SslMode::Require).connect(self.tls.clone()).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}
