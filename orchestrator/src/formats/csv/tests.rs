#![expect(clippy::disallowed_methods, reason = "the tests look at what was read")]

use proptest::prelude::*;

use super::*;
use crate::formats::keeper::tests::records;
use crate::formats::{Imported, keeper};
use crate::record::Body;

fn read(text: &str) -> Imported {
    let mut imported = Imported::default();
    import(text.as_bytes(), &mut imported).unwrap();
    imported
}

fn written(records: &[Record]) -> (String, Vec<Vec<String>>) {
    let mut text = Vec::new();
    let mut exporter = Box::new(Exporter::start(&mut text));
    let losses = records.iter().map(|record| exporter.record(record).unwrap()).collect();
    exporter.finish().unwrap();
    (String::from_utf8(text).unwrap(), losses)
}

fn lost(imported: &Imported) -> Vec<String> {
    imported.losses.iter().map(ToString::to_string).collect()
}

#[test]
fn a_row_of_commanders_is_read() {
    let imported = read(concat!(
        "\u{feff}Infra\\DB,Orders,app, pw ,postgres://db,\"two\nlines\",Shared#edit#reshare,",
        "$record_uid,AAAAAAAAAAAAAAAAAAAAAA,cmdr:host,a,cmdr:host,b,empty,\r\n",
        ",Keys,rot,pp,,,,$record_uid,BBBBBBBBBBBBBBBBBBBBBB,$type,sshKeys,$keyPair,-----BEGIN,",
        "$keyPair#publicKey,ssh-ed25519 AAAA,$host,h:22,cmdr:plugin,sshkey,TFC:Keeper,otpauth://x\r\n",
    ));
    assert_eq!(lost(&imported), Vec::<String>::new());
    let [untyped, typed] = imported.records.as_slice() else { panic!("two records") };
    assert_eq!(untyped.uid.as_str(), "AAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(untyped.password().unwrap().value.expose(), " pw ", "spaces are part of a password");
    assert_eq!(untyped.notes.as_ref().unwrap().expose(), "two\nlines");
    assert_eq!(untyped.folder_paths(), ["Shared/Infra/DB"]);
    assert_eq!(untyped.folders[0].extra.len(), 2);
    assert_eq!(untyped.options().len(), 2);
    assert_eq!(typed.record_type(), Some("sshKeys"));
    let keys = typed.key_pair().unwrap();
    assert_eq!(keys.private.unwrap().expose(), "-----BEGIN");
    assert_eq!(keys.public.unwrap().expose(), "ssh-ed25519 AAAA");
    assert_eq!(typed.hosts()[0].port.as_ref().unwrap().expose(), "22");
    let Body::Typed(body) = &typed.body else { panic!("typed") };
    assert!(body.custom.iter().any(|field| field.kind == "oneTimeCode"));
}

#[test]
fn what_is_no_row_is_told_or_refused() {
    let imported = read("a,b\n,Title,l,p,,,,name only\n");
    assert_eq!(
        lost(&imported),
        [
            "'line 1': a row of fewer than 6 columns",
            "'Title': its last field, which has a name only",
            "'the file': which records they are: 1 without a UID will be new ones at every import",
        ]
    );
    let mut sink = Imported::default();
    let refused = import(&b",ok,l,p,,\n,CANARY\xff,l,p,,\n"[..], &mut sink).unwrap_err();
    assert_eq!(refused, ImportError::NotText { line: 2 });
    let twice = ",a,,,,,,$record_uid,SAME\n,b,,,,,,$record_uid,SAME\n";
    let refused = import(twice.as_bytes(), &mut Imported::default()).unwrap_err();
    assert_eq!(refused.to_string(), "record 2 'b' (SAME): record 1 has the same UID");
    let archive = import(&b"PK\x03\x04"[..], &mut Imported::default()).unwrap_err();
    assert_eq!(archive, ImportError::Archive);
}

#[test]
fn what_csv_does_not_keep_is_told() {
    let mut keeper = Imported::default();
    keeper::import(&include_bytes!("../../../fixtures/keeper/mixed.json")[..], &mut keeper).unwrap();
    let (_, losses) = written(&keeper.records);
    assert_eq!(
        losses.concat(),
        ["'extra'", "the order and kinds of its custom fields", "the rules of field 'password'"],
        "and nothing else"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was not told as lost is there again.
    #[test]
    fn nothing_is_lost_without_being_told(records in records()) {
        prop_assume!(records.iter().all(|record| record.validate().is_ok()));
        let (text, losses) = written(&records);
        let mut read = Imported::default();
        import(text.as_bytes(), &mut read).unwrap();
        prop_assert_eq!(read.records.len(), records.len());
        for ((record, read), told) in records.iter().zip(&read.records).zip(losses) {
            prop_assert_eq!(differences(record, read), told);
        }
    }

    #[test]
    fn no_text_makes_the_import_panic(text in "[\\PC\n\r\",]{0,60}") {
        let _ = import(text.as_bytes(), &mut Imported::default());
    }
}
