//! A rotator says what no rotator says. Without a permit the host knows that
//! nothing changed; with one it claims nothing that it was not told.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a broken expectation of a test is its failure")]

#[path = "../../tests/fuzz/near.rs"]
mod near;

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use near::near;
use proptest::prelude::*;
use serde_json::json;
use turnlock::child::{Conversation, Threshold};
use turnlock::formats::keeper::{Exporter, import};
use turnlock::formats::{Export as _, ImportError, Loss, Sink, Stopped};
use turnlock::record::Record;
use turnlock::rotators::{Program, Rotator};
use turnlock::stage::Process;
use turnlock_protocol::operation::ApplyResult;
use turnlock_protocol::{Applied, Credential, Fault, Operation};

const HELLO: &[u8] = b"{\"jsonrpc\":\"2.0\",\"method\":\"hello\",\"params\":{\"protocol\":[1],\"plugin\":\"parrot\",\"version\":\"0\",\"operations\":[]}}\n";

/// A rotator that says what lies beside it: one part at once, the other when it is asked.
fn parrot(home: &Path) -> Rotator {
    let program = home.join("turnlock-parrot");
    let mut file = File::create(&program).unwrap();
    writeln!(file, "#!/bin/sh\ncd \"${{0%/*}}\" && /bin/cat hello && read -r request && exec /bin/cat said").unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
    Rotator { plugin: "parrot".to_owned(), program: Program::File(program) }
}

fn put(home: &Path, name: &str, content: &[u8]) {
    File::create(home.join(name)).unwrap().write_all(content).unwrap();
}

#[derive(Default)]
struct Gate {
    permits: usize,
    gives: bool,
}

impl Threshold for Gate {
    async fn permit(&mut self, _rotator: &Process) -> bool {
        self.permits += usize::from(self.gives);
        self.gives
    }
    async fn minted(&mut self, _next: Credential) -> bool {
        false
    }
    fn progress(&mut self, _step: &str) {}
}

#[derive(Default)]
struct Records(Vec<Record>);

impl Sink for Records {
    fn record(&mut self, record: Record) -> Result<(), Stopped> {
        self.0.push(record);
        Ok(())
    }
    fn loss(&mut self, _loss: Loss) {}
}

fn imported(text: &[u8]) -> Result<Vec<Record>, ImportError> {
    let mut records = Records::default();
    import(text, &mut records)?;
    Ok(records.0)
}

fn exported(records: &[Record]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut exporter = Box::new(Exporter::start(&mut text).unwrap());
    for record in records {
        exporter.record(record).unwrap();
    }
    exporter.finish().unwrap();
    text
}

async fn conversed(rotator: &Rotator, gate: &mut Gate) -> Result<ApplyResult, Fault> {
    let mut conversation = Conversation::begin(rotator, &[]).await?;
    let outcome = conversation.call(Operation::Apply, &json!({"account": {}}), 5_000, gate).await;
    conversation.end().await;
    outcome
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fuzz_host(said in near("protocol/wire"), more in near("protocol/wire"), about_hello: bool, gives: bool) {
        let home = tempfile::tempdir().unwrap();
        let rotator = parrot(home.path());
        put(home.path(), "hello", if about_hello { &said } else { HELLO });
        put(home.path(), "said", &[said.as_slice(), b"\n", &more, b"\n"].concat());
        let mut gate = Gate { gives, ..Gate::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(conversed(&rotator, &mut gate));
        if let (Err(fault), 0) = (&outcome, gate.permits) {
            prop_assert_eq!(fault.applied, Applied::No, "{}", fault);
        }
    }

    /// Whatever can be imported can be exported and imported again.
    #[test]
    fn fuzz_import(text in near("orchestrator/fixtures/keeper")) {
        match imported(&text) {
            Err(error) => prop_assert!(!error.hint().is_empty() && !error.to_string().is_empty()),
            Ok(records) if records.iter().all(|record| record.validate().is_ok()) => {
                let written = exported(&records);
                let twice = exported(&imported(&written).unwrap());
                prop_assert!(written == twice, "{}", String::from_utf8_lossy(&written));
            }
            Ok(_) => {}
        }
    }
}
