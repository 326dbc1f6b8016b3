#![expect(clippy::disallowed_methods, reason = "the tests look at what was read")]

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use turnlock_protocol::Secret;

use super::*;
use crate::formats::{Export as _, ImportError, Imported};
use crate::record::{Body, CustomField, Field, FieldValue, Place, Record, Typed, Uid, Untyped};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../fixtures/keeper/", $name, ".json"))
    };
}

fn try_read(text: &[u8]) -> Result<Imported, ImportError> {
    let mut imported = Imported::default();
    import(text, &mut imported).map(|()| imported)
}

fn read(text: &str) -> Imported {
    try_read(text.as_bytes()).unwrap()
}

fn error_of(text: &str) -> ImportError {
    try_read(text.as_bytes()).unwrap_err()
}

fn written(records: &[Record]) -> String {
    let mut text = Vec::new();
    let mut exporter = Box::new(Exporter::start(&mut text).unwrap());
    records.iter().for_each(|record| assert!(exporter.record(record).unwrap().is_empty()));
    exporter.finish().unwrap();
    String::from_utf8(text).unwrap()
}

fn written_raw(records: &[Record]) -> String {
    let mut text = Vec::new();
    let mut exporter = Box::new(RawExporter::start(&mut text).unwrap());
    records.iter().for_each(|record| assert!(exporter.record(record).unwrap().is_empty()));
    exporter.finish().unwrap();
    String::from_utf8(text).unwrap()
}

fn plain(records: &[Record]) -> Vec<Value> {
    records.iter().map(|record| serde_json::to_value(record).unwrap()).collect()
}

fn option(record: &Record, name: &str) -> Vec<String> {
    let options = record.options().into_iter().filter(|option| option.field() == name);
    options.flat_map(|option| option.values).map(|value| value.expose().to_owned()).collect()
}

#[track_caller]
fn survives(text: &str) -> Imported {
    let first = read(text);
    let exported = written(&first.records);
    let second = read(&exported);
    assert_eq!(plain(&first.records), plain(&second.records));
    assert_eq!(written(&second.records), exported);
    assert_eq!(plain(&first.records), plain(&read(&written_raw(&first.records)).records));
    first
}

#[test]
fn an_export_of_untyped_records_is_read_and_survives() {
    let imported = survives(fixture!("v2"));
    let record = &imported.records[0];
    assert_eq!((record.uid.as_str(), record.title.as_str()), ("AAAAAAAAAAAAAAAAAAAAAA", "mysql v2"));
    assert_eq!(record.login().unwrap().value.expose(), "app");
    assert_eq!(record.url().unwrap().value.expose(), "mysql://db");
    assert_eq!(option(record, "cmdr:host"), ["db1", "db2"]);
    assert_eq!(option(record, "cmdr:port"), ["3307"], "a number where Keeper writes text");
    assert_eq!(record.folder_paths(), ["Infra/DB/prod", "back\\\\slash/sl\\/ash"]);
    assert_eq!(record.folders[0].extra.get("can_edit"), Some(&json!(true)));
    assert_eq!(record.extra.get("last_modified"), Some(&json!(1_750_000_000)));
    let endpoints = imported.records[1].endpoints();
    assert_eq!(endpoints[1].name.as_deref(), Some("1"), "the predecessor's import drops this name");
    assert_eq!(endpoints[1].description.as_deref(), Some("first"));
    let losses: Vec<&str> = imported.losses.iter().map(|loss| loss.what.as_str()).collect();
    assert_eq!(losses, ["of this shared folder: uid, can_edit, permissions"]);
}

#[test]
fn an_export_of_typed_records_is_read_and_survives() {
    let imported = survives(fixture!("v3"));
    let record = &imported.records[0];
    assert_eq!(record.record_type(), Some("sshKeys"));
    assert_eq!(record.key_pair().unwrap().private.unwrap().expose(), "-----BEGIN");
    assert_eq!(option(record, "cmdr:plugin"), ["sshkey"]);
    assert_eq!(option(record, "cmdr:plugin:1"), ["ssh"], "split at the first colon only");
    let hosts: Vec<_> = record.hosts().into_iter().map(|host| (host.host.expose().to_owned(), host.labelled)).collect();
    assert_eq!(hosts, [("h".to_owned(), false), ("h2".to_owned(), true)]);
    let Body::Typed(body) = &record.body else { panic!("typed") };
    let kinds: Vec<&str> = body.fields.iter().map(|field| field.kind.as_str()).collect();
    assert_eq!(kinds, ["login", "keyPair", "password", "host"], "a standard type's fields in their order");
    assert!(body.custom.iter().any(|field| field.kind == "oneTimeCode"), "TOTP stays a field");
    let Body::Typed(own) = &imported.records[1].body else { panic!("typed") };
    assert_eq!(own.fields.len(), 3, "as its schema says");
    assert_eq!(option(&imported.records[1], "cmdr:host"), ["h1", "h2"]);
    let losses: Vec<&str> = imported.losses.iter().map(|loss| loss.what.as_str()).collect();
    assert_eq!(losses, ["attached files", "attached files (their references are kept)"]);
}

#[test]
fn raw_records_of_both_shapes_are_read_beside_exported_ones_and_survive() {
    let imported = survives(fixture!("mixed"));
    let [v2, v3, exported] = imported.records.as_slice() else { panic!("three records") };
    assert_eq!(v2.password().unwrap().value.expose(), "pw");
    let Body::Untyped(body) = &v2.body else { panic!("untyped") };
    let names: Vec<&str> = body.custom.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["cmdr:host", "other", "cmdr:host"], "order and kinds are kept");
    assert_eq!(body.custom[1].kind, None);
    assert_eq!(v3.uid.as_str(), "GGGGGGGGGGGGGGGGGGGGGG");
    assert_eq!(v3.password_extra("complexity"), Some(&json!({ "length": 24, "caps": 2 })));
    let Body::Typed(body) = &v3.body else { panic!("typed") };
    assert_eq!((body.fields.len(), body.custom.len()), (5, 4));
    assert_eq!(body.custom[2].label.as_deref(), Some("Old root"));
    assert_eq!(exported.uid.as_str().len(), 22, "a UID was made");
}

#[test]
fn one_record_or_a_wrapped_list_will_do() {
    assert_eq!(survives(fixture!("single")).records[0].password().unwrap().value.expose(), "p");
    assert_eq!(survives(fixture!("wrapped")).records[0].login().unwrap().value.expose(), "u");
    assert!(read("[]").records.is_empty());
    assert_eq!(read("\u{feff}[{\"title\":\"bom\"}]").records.len(), 1);
}

#[test]
fn malformed_files_are_refused_with_their_place_and_never_a_value() {
    let cases = [
        (fixture!("broken"), "this is not JSON: line 3, column 36"),
        (fixture!("duplicate-key"), "a key is there twice: line 2, column 35"),
        (fixture!("duplicate-uid"), "record 3 'z' (SAME): record 1 has the same UID"),
        (fixture!("bad-password"), "record 2 'y' (B), password: a text belongs here"),
        (fixture!("bad-custom-fields"), "record 1 'x' (A), custom_fields: an object belongs here"),
        (fixture!("bad-field"), "record 1 'x' (A), fields: a field {type, label, value} belongs here"),
        (
            fixture!("bad-uid"),
            "record 1 'x' (with space): the UID is empty, longer than 256 bytes, or holds spaces or control characters",
        ),
        (fixture!("not-records"), "record 1: a record belongs here"),
        (fixture!("not-keeper"), "this is neither an export of Keeper nor a record nor a list of records"),
        ("{\"records\": {}}", "the file, records: a list belongs here"),
        ("\"CANARY\"", "this is neither an export of Keeper nor a record nor a list of records"),
        ("", "this is not JSON: line 1, column 0"),
    ];
    for (text, wanted) in cases {
        let error = error_of(text);
        assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
        assert!(!error.hint().is_empty());
        assert_eq!(error.to_string(), wanted);
    }
    assert!(matches!(try_read(b"[{\"title\":\"\xff\"}]").unwrap_err(), ImportError::Syntax { .. }));
    let deep = "[".repeat(100_000);
    assert!(matches!(error_of(&deep), ImportError::Syntax { .. }));
}

#[test]
fn an_edited_export_falls_back_to_commanders_rules_and_says_so() {
    let first = read(fixture!("mixed"));
    let text = written(&first.records);
    let edited = text.replace("\"$text:cmdr:db\":\"app\"", "\"$text:cmdr:db\":\"app\",\"$text:new\":\"n\"");
    assert_ne!(text, edited);
    let second = read(&edited);
    let losses: Vec<&str> = second.losses.iter().map(|loss| loss.what.as_str()).collect();
    assert_eq!(losses, ["the lists and labels of its fields, which were edited since the export"]);
    assert_eq!(option(&second.records[1], "cmdr:db"), ["app"]);
    assert_eq!(second.records[1].password().unwrap().value.expose(), "pw");
}

#[test]
fn what_cannot_be_kept_is_reported() {
    let imported = read(
        r#"{"records":[{"title":"a\tb","uid":"A","custom_fields":{"x":[],"y":{"k":"v"},"z":null}},
            {"title":"t","uid":"B","secret1":"l","custom":[{"name":"n","value":"v","more":1}],"password":"p","fields":7}],
            "teams":[{"name":"t"}],"vendor":1}"#,
    );
    let losses: Vec<String> = imported.losses.iter().map(ToString::to_string).collect();
    assert_eq!(
        losses,
        [
            "'a b' (A): control characters in the title",
            "'a b' (A): custom field 'x', an empty list",
            "'a b' (A): the shape of custom field 'y': kept as text",
            "'t' (B): 'more' of custom field 'n'",
            "'t' (B): 'fields', which has no meaning in a raw record",
            "'teams': teams and their members",
            "'vendor': an unknown part of the file",
        ]
    );
}

#[test]
fn commander_finds_what_it_needs_in_our_export() {
    // The keys its own import reads, whatever we write beside them.
    let text = written(&read(fixture!("mixed")).records);
    let json: Value = serde_json::from_str(&text).unwrap();
    let pg = &json["records"][1];
    assert_eq!(
        (&pg["$type"], &pg["login"], &pg["password"]),
        (&json!("databaseCredentials"), &json!("app"), &json!("pw"))
    );
    assert_eq!(pg["custom_fields"]["$host"], json!({ "hostName": "10.0.0.5", "port": "5432" }));
    assert_eq!(pg["custom_fields"]["$text:cmdr:plugin"], json!("postgresql"));
    assert_eq!(pg["custom_fields"]["$password:Old root"], json!("second"));
    let v2 = &json["records"][0];
    assert_eq!(v2["custom_fields"]["cmdr:host"], json!(["a", "b"]));
    assert_eq!((&json["teams"], &json["shared_folders"]), (&json!([]), &json!([])));
    // Records that Commander's form tells whole carry nothing of ours.
    let simple = written(&read(fixture!("v3")).records);
    assert!(!simple.contains("\"turnlock\""), "{simple}");
}

// ---- properties ----

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![".{0,12}", "[ -~]{0,12}", Just("\u{0}\n\t\"\\/".to_owned()), Just("\u{1F512}\u{202E}é".to_owned())]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => proptest::sample::select(vec![
            "cmdr:plugin", "cmdr:plugin:1", "cmdr:host", "a:b:c", "", ":", "$text:x", "$", "login", "$login", "__proto__", "é",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,6}",
    ]
}

fn kind() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => proptest::sample::select(vec![
            "login", "password", "url", "text", "secret", "host", "pamHostname", "keyPair", "fileRef", "oneTimeCode", "checkbox",
        ]).prop_map(str::to_owned),
        1 => proptest::sample::select(vec!["", "a:b", "$x"]).prop_map(str::to_owned),
    ]
}

fn other() -> impl Strategy<Value = FieldValue> {
    proptest::sample::select(vec![
        json!(null),
        json!(true),
        json!(22),
        json!(-1),
        json!([]),
        json!([1, "x", ["y"]]),
        json!([{ "a": "b" }]),
    ])
    .prop_map(FieldValue::Other)
}

fn value() -> impl Strategy<Value = FieldValue> {
    let text = hostile().prop_map(|text| FieldValue::Text(Secret::new(text)));
    let leaf = || prop_oneof![hostile().prop_map(|text| FieldValue::Text(Secret::new(text))), other()];
    let parts = proptest::collection::btree_map(name(), leaf(), 0..3);
    prop_oneof![4 => text, 1 => other(), 2 => parts.prop_map(|parts| FieldValue::Parts(parts.into_iter().collect()))]
}

fn field() -> impl Strategy<Value = Field> {
    let extra = prop_oneof![
        4 => Just(Map::new()),
        1 => Just(Map::from_iter([("complexity".to_owned(), json!({ "length": 20 }))])),
    ];
    (kind(), proptest::option::of(name()), proptest::collection::vec(value(), 0..3), extra)
        .prop_map(|(kind, label, value, extra)| Field { kind, label, value, extra })
}

fn secret() -> impl Strategy<Value = Option<Secret>> {
    proptest::option::of(hostile().prop_map(Secret::new))
}

fn body() -> impl Strategy<Value = Body> {
    let types = proptest::sample::select(vec!["login", "databaseCredentials", "sshKeys", "pamDatabase", "Our Own", ""]);
    let fields = || proptest::collection::vec(field(), 0..6);
    let typed = (types, fields(), fields()).prop_map(|(record_type, fields, custom)| {
        Body::Typed(Typed { record_type: record_type.into(), fields, custom })
    });
    let custom = (name(), hostile(), proptest::sample::select(vec![Some("text"), Some("text"), None, Some("url")]));
    let custom = custom.prop_map(|(name, value, kind)| CustomField {
        name,
        value: Secret::new(value),
        kind: kind.map(str::to_owned),
    });
    let untyped = (secret(), secret(), secret(), proptest::collection::vec(custom, 0..8))
        .prop_map(|(login, password, link, custom)| Body::Untyped(Untyped { login, password, link, custom }));
    prop_oneof![typed, untyped]
}

pub(in crate::formats) fn records() -> impl Strategy<Value = Vec<Record>> {
    let path = || proptest::option::of("[a-z/\\\\ é]{0,8}".prop_map(|path| path_from_keeper(&path)));
    let folder = (path(), path()).prop_map(|(shared, path)| Folder { shared, path, extra: Map::new() });
    let folders = proptest::collection::vec(folder, 0..3);
    let extra = prop_oneof![Just(Map::new()), Just(Map::from_iter([("last_modified".to_owned(), json!(1))]))];
    let record = ("\\PC{0,8}", secret(), folders, body(), extra).prop_map(|(title, notes, folders, body, extra)| {
        Record { uid: Uid::new("x"), title, notes, folders, body, writable: true, extra, earlier: Vec::new() }
    });
    proptest::collection::vec(record, 0..4).prop_map(|mut records| {
        for (at, record) in records.iter_mut().enumerate() {
            record.uid = Uid::new(format!("uid{at}"));
        }
        records
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(1500), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn export_and_import_give_the_same_records(records in records()) {
        prop_assume!(records.iter().all(|record| record.validate().is_ok()));
        let text = written(&records);
        let imported = try_read(text.as_bytes()).unwrap();
        prop_assert_eq!(plain(&imported.records), plain(&records), "{}", text);
        prop_assert!(imported.losses.is_empty(), "{:?}", imported.losses);
        prop_assert_eq!(written(&imported.records), text);
        let raw = try_read(written_raw(&records).as_bytes()).unwrap();
        prop_assert_eq!(plain(&raw.records), plain(&records));
    }

    #[test]
    fn paths_survive(path in "[a/\\\\é ]{0,12}") {
        prop_assert_eq!(path_to_keeper(&path_from_keeper(&path)), path);
    }

    #[test]
    fn no_text_makes_the_import_panic(text in "\\PC{0,40}", cut in any::<prop::sample::Index>()) {
        let _ = try_read(text.as_bytes());
        let whole = fixture!("mixed");
        let cut = (0..=cut.index(whole.len())).rev().find(|at| whole.is_char_boundary(*at)).unwrap();
        let _ = try_read(&whole.as_bytes()[..cut]);
    }
}

#[test]
fn a_place_in_an_imported_record_can_be_written() {
    let mut imported = read(fixture!("mixed"));
    let record = &mut imported.records[1];
    let place = record.password().unwrap().place;
    record.set(&place, Secret::new("new".into())).unwrap();
    assert_eq!(record.password().unwrap().value.expose(), "new");
    assert_eq!(record.password_extra("complexity"), Some(&json!({ "length": 24, "caps": 2 })), "beside its value");
    assert!(record.set(&Place::Password, Secret::new("x".into())).is_err(), "a place of the other shape");
}
