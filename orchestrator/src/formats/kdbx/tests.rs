#![expect(clippy::disallowed_methods, reason = "the tests look at what was read")]

use std::io::Write as _;

use keepass::config::KdfConfig;
use proptest::prelude::*;
use serde_json::json;
use turnlock_protocol::Secret;

use super::*;
use crate::formats::keeper::tests::records;
use crate::formats::loss::differences;
use crate::formats::{Export as _, ImportError, Imported};
use crate::record::{Body, Earlier, Record, Untyped};

macro_rules! fixture {
    ($name:literal) => {
        &include_bytes!(concat!("../../../fixtures/kdbx/", $name))[..]
    };
}

fn key(passphrase: &str) -> Key {
    Key { passphrase: Some(Secret::new(passphrase.to_owned())), key_file: None }
}

fn try_read(file: &[u8], passphrase: &str) -> Result<Imported, ImportError> {
    let mut imported = Imported::default();
    import(file, &key(passphrase), &mut imported).map(|()| imported)
}

fn read_fixture(file: &[u8]) -> Imported {
    try_read(file, std::str::from_utf8(fixture!("passphrase.txt")).unwrap().trim()).unwrap()
}

/// A file that costs nothing to open.
fn written(records: &[Record]) -> (Vec<u8>, Vec<Vec<String>>) {
    let mut file = Vec::new();
    let mut exporter = Box::new(Exporter::start(&mut file, key("p")));
    exporter.cost(KdfConfig::Aes { rounds: 1 });
    let losses = records.iter().map(|record| exporter.record(record).unwrap()).collect();
    exporter.finish().unwrap();
    (file, losses)
}

fn custom(record: &Record) -> Vec<(String, String)> {
    let Body::Untyped(body) = &record.body else { panic!("untyped") };
    body.custom.iter().map(|field| (field.name.clone(), field.value.expose().to_owned())).collect()
}

fn passwords(record: &Record) -> Vec<String> {
    let password = |body: &Body| match body {
        Body::Untyped(body) => body.password.as_ref().map(|text| text.expose().to_owned()).unwrap_or_default(),
        Body::Typed(_) => panic!("untyped"),
    };
    record.earlier.iter().map(|earlier| password(&earlier.body)).chain([password(&record.body)]).collect()
}

#[test]
fn a_file_made_by_pykeepass_is_read_whole() {
    let mut imported = read_fixture(fixture!("pykeepass.kdbx"));
    imported.records.sort_by(|one, other| one.title.cmp(&other.title));
    let [keys, orders, refers] = imported.records.as_slice() else { panic!("three records") };

    assert_eq!(orders.uid.as_str(), "AAECAwQFBgcICQoLDA0ODw", "the UUID's bytes");
    assert_eq!(orders.folder_paths(), ["Team"]);
    assert_eq!(orders.login().unwrap().value.expose(), "app");
    assert_eq!(orders.url().unwrap().value.expose(), "postgres://db1:5433/orders");
    assert_eq!(orders.notes.as_ref().unwrap().expose(), "line 1\nline 2");
    assert_eq!(passwords(orders), ["first", "second", "third <&> \"'ß🔒"], "with its history, oldest first");
    let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        custom(orders),
        [
            text("PIN", "4712"),
            text("Server #1", "no second of anything"),
            text("cmdr:host", "db1"),
            text("cmdr:host", "db2"),
            text("cmdr:plugin", "postgresql"),
        ]
    );
    assert_eq!(orders.extra[KEEPASS], json!({"tags": ["prod", "db"], "expires": "2030-01-02T03:04:05Z"}));

    assert_eq!(keys.folder_paths(), ["Team/back\\\\slash \\/ and"]);
    assert_eq!(keys.record_type(), Some("sshKeys"));
    assert_eq!(keys.key_pair().unwrap().private.unwrap().expose(), "-----BEGIN\nKEY\n-----END\n");
    let Body::Typed(body) = &keys.body else { panic!("typed") };
    assert!(body.custom.iter().any(|field| field.kind == "oneTimeCode"), "what makes one-time codes");

    assert_eq!(refers.login().unwrap().value.expose(), "app", "a reference by number");
    assert_eq!(refers.password().unwrap().value.expose(), "third <&> \"'ß🔒", "a reference by title");
    let losses: Vec<String> = imported.losses.iter().map(|loss| loss.what.clone()).collect();
    assert!(losses.contains(&"attached file 'note.txt'".to_owned()), "{losses:?}");
    assert!(losses.contains(&"a reference that leads nowhere: kept as text".to_owned()), "{losses:?}");
    assert!(losses.contains(&"1 deleted entries".to_owned()), "{losses:?}");
}

#[test]
fn a_file_made_by_keepassxc_is_read_whole() {
    let imported = read_fixture(fixture!("keepassxc.kdbx"));
    let [one] = imported.records.as_slice() else { panic!("one record") };
    assert_eq!((one.title.as_str(), one.folder_paths()), ("one", vec!["Servers".to_owned()]));
    assert_eq!(one.login().unwrap().value.expose(), "admin");
    assert_eq!(passwords(one), ["first", "second", "third \"<&>"]);
    assert_eq!(imported.losses, []);
}

#[test]
fn a_wrong_key_and_a_file_that_is_none_are_told_apart() {
    assert_eq!(try_read(fixture!("keepassxc.kdbx"), "wrong").unwrap_err(), ImportError::WrongKey);
    assert_eq!(try_read(&written(&[]).0, "wrong").unwrap_err(), ImportError::WrongKey, "of KDBX 4, too");
    assert!(matches!(try_read(b"{}", "x").unwrap_err(), ImportError::NotKdbx(_)));
    let cut = &fixture!("keepassxc.kdbx")[..1000];
    assert!(matches!(try_read(cut, "x").unwrap_err(), ImportError::NotKdbx(_) | ImportError::WrongKey));
}

#[test]
fn strings_behind_a_history_are_refused_for_they_would_become_rubbish() {
    let passphrase = std::str::from_utf8(fixture!("passphrase.txt")).unwrap().trim();
    assert_eq!(try_read(fixture!("disordered.kdbx"), passphrase).unwrap_err(), ImportError::Disordered);
}

#[test]
fn a_key_file_opens_with_and_without_a_passphrase() {
    let record = || Record {
        uid: Uid::new("UID"),
        title: "t".into(),
        notes: None,
        folders: Vec::new(),
        body: Body::Untyped(Untyped { password: Some(Secret::new("pw".into())), ..Untyped::default() }),
        writable: true,
        extra: serde_json::Map::new(),
        earlier: Vec::new(),
    };
    let key_file = || Some(Zeroizing::new(b"any content".to_vec()));
    for passphrase in [None, Some("p")] {
        let key = || Key { passphrase: passphrase.map(|text| Secret::new(text.to_owned())), key_file: key_file() };
        let mut file = Vec::new();
        let mut exporter = Box::new(Exporter::start(&mut file, key()));
        exporter.cost(KdfConfig::Aes { rounds: 1 });
        assert_eq!(exporter.record(&record()).unwrap(), Vec::<String>::new());
        exporter.finish().unwrap();
        let mut read = Imported::default();
        import(file.as_slice(), &key(), &mut read).unwrap();
        assert_eq!(read.records[0].uid.as_str(), "UID");
        assert_eq!(try_read(&file, "p").unwrap_err(), ImportError::WrongKey);
    }
}

#[test]
fn an_import_is_exported_and_imported_again_the_same() {
    // A reference that leads nowhere is one still.
    let of_pykeepass = (fixture!("pykeepass.kdbx"), &["a reference that leads nowhere: kept as text"][..]);
    for (file, told) in [of_pykeepass, (fixture!("keepassxc.kdbx"), &[][..])] {
        let first = read_fixture(file);
        let (file, losses) = written(&first.records);
        assert!(losses.concat().is_empty(), "{losses:?}");
        let second = try_read(&file, "p").unwrap();
        let losses: Vec<&str> = second.losses.iter().map(|loss| loss.what.as_str()).collect();
        assert_eq!(losses, told);
        for record in &first.records {
            let there = second.records.iter().find(|there| there.uid == record.uid).unwrap();
            assert_eq!(differences(record, there), Vec::<String>::new());
        }
    }
}

#[test]
fn a_sink_of_bytes_that_fails_is_told() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut full = Full;
    assert!(full.write(b"x").is_err());
    let mut exporter = Box::new(Exporter::start(full, key("p")));
    exporter.cost(KdfConfig::Aes { rounds: 1 });
    assert!(exporter.finish().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was not told as lost is there again, earlier versions included.
    #[test]
    fn nothing_is_lost_without_being_told(mut records in records()) {
        prop_assume!(records.iter().all(|record| record.validate().is_ok()));
        if let Some(Record { title, notes, body, .. }) = records.pop()
            && let Some(last) = records.last_mut()
        {
            last.earlier = vec![Earlier { at: "2024-05-06T07:08:09Z".parse().ok(), title, notes, body }];
        }
        let (file, losses) = written(&records);
        let read = try_read(&file, "p").unwrap();
        prop_assert_eq!(read.records.len(), records.len());
        for (record, told) in records.iter().zip(losses) {
            let there = read.records.iter().find(|there| there.uid == record.uid).unwrap();
            prop_assert_eq!(differences(record, there), told);
        }
    }
}
