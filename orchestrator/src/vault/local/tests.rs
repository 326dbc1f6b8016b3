//! Outcomes, each on a real file.
#![expect(clippy::disallowed_methods, reason = "tests look at secrets, start themselves again and write plain files")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use turnlock_protocol::{Policy, Secret, Traits};
use zeroize::Zeroizing;

use super::*;
use crate::plan::Plan;
use crate::record::{Body, CustomField, Field, FieldValue, Folder, Typed, Untyped};
use crate::stage::Process;
use crate::vault::{Owner, RecordState};

struct House {
    directory: TempDir,
    host: HostState,
}

impl House {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let host = HostState::named(directory.path().join("state"), "machine one").unwrap();
        Self { directory, host }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.at("vault")
    }

    fn create(&self) -> LocalVault {
        LocalVault::create(&self.file(), &[key()], &self.host).unwrap()
    }

    fn open(&self) -> LocalVault {
        LocalVault::open(&self.file(), &key(), &self.host).unwrap()
    }
}

fn key() -> Key {
    Key::Raw(Zeroizing::new([7; 32]))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn uid(n: usize) -> Uid {
    Uid::new(format!("uid-canary-{n}"))
}

fn identity(n: usize) -> Identity {
    Identity {
        plugin: "postgresql".into(),
        host: "db.canary-host".into(),
        port: 5432,
        login: format!("login-canary-{n}"),
        record: None,
    }
}

fn record(n: usize, password: &str) -> Record {
    Record {
        uid: uid(n),
        title: format!("Title-canary {n}"),
        notes: Some(Secret::new("notes-canary".into())),
        folders: vec![Folder { shared: Some("Team".into()), path: Some("a\\b".into()), extra: Default::default() }],
        body: Body::Untyped(Untyped {
            login: Some(Secret::new(format!("login-canary-{n}"))),
            password: Some(Secret::new(password.into())),
            link: None,
            custom: vec![
                CustomField { name: "cmdr:plugin:Prod".into(), value: Secret::new("mysql".into()), kind: None },
                CustomField {
                    name: "cmdr:plugin:Prod:description".into(),
                    value: Secret::new("the shop".into()),
                    kind: None,
                },
            ],
        }),
        writable: true,
        extra: Default::default(),
        earlier: Vec::new(),
    }
}

fn password(record: &Record) -> &str {
    let Body::Untyped(body) = &record.body else { panic!("untyped") };
    body.password.as_ref().unwrap().expose()
}

fn set_password(record: &mut Record, password: &str) -> Result<(), String> {
    let Body::Untyped(body) = &mut record.body else {
        return Err("typed".into());
    };
    body.password = Some(Secret::new(password.into()));
    Ok(())
}

fn secret(text: &str) -> Credential {
    Credential::password(Secret::new(text.into()))
}

fn attempt(name: &str, n: usize, candidate: &str) -> Attempt {
    Attempt {
        format: STAGE_FORMAT,
        id: name.into(),
        staged_at: now(),
        candidate: Some(secret(candidate)),
        plan: Plan {
            plugin: "postgresql".into(),
            endpoint: None,
            account: Default::default(),
            identity: identity(n),
            current: secret("old-canary"),
            admin: None,
            admin_uid: None,
            policy: Policy::default(),
            supplied: None,
            write_back: Vec::new(),
            basis: Default::default(),
            deadline_ms: 30_000,
            traits: Traits::password(),
            decisions: Vec::new(),
            remarks: vec!["remark-canary".into()],
        },
        existing: vec!["id-1".into()],
        duplicates: vec![uid(9)],
        tell: Vec::new(),
        permit: None,
        parked: None,
        excluded: Vec::new(),
    }
}

fn process() -> Process {
    Process { boot: "boot".into(), namespace: "pid:[1]".into(), pid: 42, started: 7 }
}

fn permit() -> PermitGiven {
    PermitGiven { at: now(), rotator: process(), until: now() }
}

fn wish(n: usize) -> LeaseRequest {
    LeaseRequest {
        records: vec![uid(n)],
        account: Some(identity(n)),
        admin: None,
        owner: Owner { process: process(), machine: "owner-canary".into(), run: "run".into() },
        ttl_ms: 1000,
    }
}

fn granted(acquired: Acquired) -> Lease {
    match acquired {
        Acquired::Granted(lease) => lease,
        Acquired::Busy(holders) => panic!("busy: {holders:?}"),
    }
}

fn busy(acquired: Acquired) -> Vec<Holder> {
    match acquired {
        Acquired::Busy(holders) => holders,
        Acquired::Granted(_) => panic!("granted"),
    }
}

fn with_record(vault: &LocalVault, n: usize) -> Lease {
    vault.put(&record(n, "old-canary"), None, &[identity(n)], false).unwrap();
    granted(vault.acquire(&wish(n)).unwrap())
}

fn what(vault: &LocalVault) -> Vec<String> {
    let mut all = Vec::new();
    vault
        .audit_rows(1, &mut |row| {
            all.push(row.event.what);
            true
        })
        .unwrap();
    all
}

/// A vault in which something of every kind lies.
fn furnished(house: &House) -> LocalVault {
    let vault = house.create();
    for n in 0..4 {
        let lease = with_record(&vault, n);
        for (name, candidate) in [("first", "abandoned-canary"), ("second", "new-canary")] {
            vault.stage(&lease, &uid(n), 1, &attempt(name, n, candidate)).unwrap();
        }
        vault.permit(&lease, &uid(n), "first", &permit()).unwrap();
        vault.abandon(&lease, &uid(n), "first", "the target said no", None).unwrap();
        if n > 0 {
            let commit =
                Commit { uid: &uid(n), duplicates: &[], attempt: "second", unverified: false, finish_due: Some(now()) };
            vault.commit(&lease, &commit, &|record| set_password(record, "new-canary")).unwrap();
        }
        if n != 3 {
            vault.release(&lease).unwrap();
        }
    }
    vault.spend(&identity(0), 60_000, 9).unwrap();
    vault
}

// ── making and opening ──────────────────────────────────────────────────────

#[test]
fn a_new_vault_belongs_to_its_owner_and_opens_with_each_of_its_keys_only() {
    let house = House::new();
    let path = house.at("deep/er/vault");
    make_key_file(&house.at("key")).unwrap();
    let printed = make_recovery_key().unwrap();
    let keys = [
        Key::Passphrase(Secret::new("correct horse".into())),
        Key::KeyFile(house.at("key")),
        Key::Recovery(printed.duplicate()),
        key(),
    ];
    let cheap = Cost { memory_kib: 64, passes: 1, lanes: 1 };
    let vault = LocalVault::create_at_cost(&path, &keys, &house.host, cheap).unwrap();
    assert_eq!(vault.slots().unwrap().len(), 4);
    drop(vault);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&house.at("deep/er")), 0o700);
    assert_eq!(
        fs::read_dir(house.at("deep/er")).unwrap().filter(|e| e.as_ref().unwrap().file_name() == *"vault").count(),
        1
    );
    for key in &keys {
        LocalVault::open(&path, key, &house.host).unwrap();
    }

    let before = fs::read(&path).unwrap();
    for wrong in [
        Key::Passphrase(Secret::new("wrong horse".into())),
        Key::Raw(Zeroizing::new([8; 32])),
        Key::Recovery(make_recovery_key().unwrap()),
    ] {
        assert!(matches!(LocalVault::open(&path, &wrong, &house.host), Err(VaultError::WrongKey(_))));
    }
    assert!(matches!(LocalVault::create(&path, &[self::key()], &house.host), Err(VaultError::Exists(_))));
    assert!(matches!(LocalVault::open(&house.at("nowhere"), &self::key(), &house.host), Err(VaultError::Missing(_))));
    assert_eq!(fs::read(&path).unwrap(), before);

    fs::set_permissions(house.at("key"), fs::Permissions::from_mode(0o640)).unwrap();
    let error = LocalVault::open(&path, &keys[1], &house.host).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
}

#[test]
fn slots_come_and_go_and_the_last_one_stays() {
    let house = House::new();
    let vault = house.create();
    let other = Key::Raw(Zeroizing::new([9; 32]));
    assert_eq!(vault.add_slot(&other).unwrap(), 2);
    vault.remove_slot(1).unwrap();
    assert!(vault.remove_slot(2).is_err());
    drop(vault);
    assert!(matches!(LocalVault::open(&house.file(), &key(), &house.host), Err(VaultError::WrongKey(_))));
    LocalVault::open(&house.file(), &other, &house.host).unwrap();
}

#[test]
fn a_file_that_is_no_vault_is_refused_and_left_alone() {
    let house = House::new();
    for content in [&b""[..], b"hello", &[0; 5000], b"SQLite format 3\0 and then nothing that makes any sense at all"] {
        fs::write(house.file(), content).unwrap();
        let refused = LocalVault::open(&house.file(), &key(), &house.host);
        assert!(matches!(refused, Err(VaultError::Damaged { .. })), "{refused:?}");
        assert_eq!(fs::read(house.file()).unwrap(), content);
    }
}

#[test]
fn a_newer_format_is_told_and_left_alone() {
    let house = House::new();
    drop(house.create());
    let outside = Connection::open(house.file()).unwrap();
    outside.execute_batch("UPDATE meta SET format = 2; PRAGMA user_version = 2").unwrap();
    drop(outside);
    let before = fs::read(house.file()).unwrap();
    let refused = LocalVault::open(&house.file(), &key(), &house.host);
    assert!(matches!(refused, Err(VaultError::NewerFormat { found: 2, known: 1 })), "{refused:?}");
    assert_eq!(fs::read(house.file()).unwrap(), before);
}

/// Everything a reader can see, or the first error.
fn look_at_all(path: &Path, host: &HostState) -> Result<Vec<String>, VaultError> {
    let vault = LocalVault::open(path, &key(), host)?;
    let mut seen = Vec::new();
    let mut uids = Vec::new();
    vault.list(&mut |summary| {
        seen.push(format!("{summary:?}"));
        uids.push(summary.uid);
        true
    })?;
    for uid in uids {
        let stored = vault.read(&uid)?;
        seen.push(serde_json::to_string(&stored.record).unwrap());
        seen.push(serde_json::to_string(&stored.stage).unwrap());
        seen.push(serde_json::to_string(&stored.pending).unwrap());
        seen.push(serde_json::to_string(&vault.history(&uid)?).unwrap());
    }
    seen.push(format!("{:?}", vault.open_items()?));
    seen.push(format!("{:?}", vault.audit_verify()?));
    let checked = vault.check()?;
    if let Some(problem) = checked.problems.first() {
        return Err(VaultError::Damaged { path: path.to_owned(), what: problem.clone() });
    }
    seen.push(format!("{checked:?}"));
    Ok(seen)
}

#[test]
fn a_flipped_byte_is_found_or_harmless_and_never_written_over() {
    let house = House::new();
    drop(furnished(&house));
    let whole = fs::read(house.file()).unwrap();
    let expected = look_at_all(&house.file(), &house.host).unwrap();
    let copy = house.at("copy");
    let (mut found, mut harmless) = (0, 0);
    // Every byte of the header, then a stride that reaches every page.
    for at in (0..100).chain((100..whole.len()).step_by(211)) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(file::beside(&copy, suffix));
        }
        fs::write(&copy, &flipped).unwrap();
        match look_at_all(&copy, &house.host) {
            Ok(seen) => {
                assert_eq!(seen, expected, "byte {at} changed what is read");
                harmless += 1;
            }
            Err(VaultError::WrongKey(_)) => panic!("byte {at}: damage was taken for a wrong key"),
            Err(_) => found += 1,
        }
        assert_eq!(fs::read(&copy).unwrap(), flipped, "byte {at}: the damaged file was written");
    }
    assert!(found > harmless / 4, "found {found}, harmless {harmless}");
}

#[test]
fn a_truncated_file_is_damaged_and_left_alone() {
    let house = House::new();
    drop(furnished(&house));
    let whole = fs::read(house.file()).unwrap();
    let copy = house.at("copy");
    for length in (0..whole.len()).step_by(997).chain([whole.len() - 1, whole.len() - 4096, 100, 512]) {
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(file::beside(&copy, suffix));
        }
        fs::write(&copy, &whole[..length]).unwrap();
        let seen = LocalVault::open(&copy, &key(), &house.host);
        assert!(matches!(seen, Err(VaultError::Damaged { .. })), "{length}: {seen:?}");
        assert_eq!(fs::read(&copy).unwrap(), &whole[..length]);
    }
}

#[test]
fn nothing_in_the_files_can_be_read() {
    let house = House::new();
    let vault = furnished(&house);
    vault.learn(&granted(vault.acquire(&wish(0)).unwrap()), &uid(0), &PasswordLimits::default()).unwrap();
    let contains = |when: &str| {
        for entry in fs::read_dir(house.directory.path()).unwrap().chain(fs::read_dir(house.at("state")).unwrap()) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let bytes = fs::read(&path).unwrap().to_ascii_lowercase();
            for canary in [&b"canary"[..], b"postgresql", b"team", b"machine one", b"staged", b"the target said"] {
                assert!(!bytes.windows(canary.len()).any(|part| part == canary), "{when}: {path:?} holds {canary:?}");
            }
        }
    };
    contains("open");
    drop(vault);
    contains("closed");
}

// ── records ─────────────────────────────────────────────────────────────────

#[test]
fn records_are_found_by_every_name_and_replaced_only_by_who_read_them() {
    let house = House::new();
    let vault = house.create();
    assert_eq!(vault.put(&record(1, "one"), None, &[identity(1)], false).unwrap(), 1);
    vault.put(&record(2, "one"), None, &[identity(1)], false).unwrap();
    for name in ["uid-canary-1", "TITLE-canary 1", "team/A/b/title-Canary 1"] {
        let found = vault.find(name).unwrap();
        assert_eq!((found.len(), &found[0].uid), (1, &uid(1)), "{name}");
    }
    let found = vault.find("prod").unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].endpoints, [("Prod".to_owned(), "mysql".to_owned(), Some("the shop".to_owned()))]);
    assert!(vault.find("UID-CANARY-1").unwrap().is_empty());
    assert_eq!(vault.same_account(&identity(1)).unwrap().len(), 2);

    assert!(matches!(vault.put(&record(1, "x"), None, &[], false), Err(VaultError::Stale(_))));
    assert!(matches!(vault.put(&record(1, "x"), Some(9), &[], false), Err(VaultError::Stale(_))));
    assert!(matches!(vault.put(&record(7, "x"), Some(1), &[], false), Err(VaultError::NoRecord(_))));
    assert_eq!(vault.put(&record(1, "two"), Some(1), &[identity(3)], false).unwrap(), 2);
    assert_eq!(vault.same_account(&identity(1)).unwrap(), [uid(2)]);
    let history = vault.history(&uid(1)).unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!((history[0].kind, history[0].reason.as_str()), (PastKind::Previous, "edited"));
    assert!(history[0].credential.same_as(&secret("one")));
    vault.put(&record(1, "two"), Some(2), &[], false).unwrap();
    assert_eq!(vault.history(&uid(1)).unwrap().len(), 1);

    vault.delete(&uid(1), 3).unwrap();
    assert!(matches!(vault.read(&uid(1)), Err(VaultError::NoRecord(_))));
    assert!(vault.find("title-canary 1").unwrap().is_empty());
    assert_eq!(vault.check().unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_typed_over_private_key_goes_into_the_history() {
    let house = House::new();
    let vault = house.create();
    let typed = |key: &str| Record {
        body: Body::Typed(Typed {
            record_type: "sshKeys".into(),
            fields: vec![Field {
                kind: "keyPair".into(),
                label: None,
                value: vec![FieldValue::Parts(vec![
                    ("privateKey".into(), FieldValue::Text(Secret::new(key.into()))),
                    ("publicKey".into(), FieldValue::Text(Secret::new("public".into()))),
                ])],
                extra: Default::default(),
            }],
            custom: Vec::new(),
        }),
        ..record(1, "")
    };
    vault.put(&typed("old key"), None, &[], false).unwrap();
    vault.put(&typed("new key"), Some(1), &[], false).unwrap();
    let history = vault.history(&uid(1)).unwrap();
    assert_eq!(history[0].credential.get("private_key").unwrap().expose(), "old key");
}

#[test]
fn adopting_keeps_every_field_it_writes_over() {
    let house = House::new();
    let vault = house.create();
    let lease = with_record(&vault, 1);
    let merge = |record: &mut Record| {
        let Body::Untyped(body) = &mut record.body else {
            return Err("typed".into());
        };
        body.custom[1].value = Secret::new("another".into());
        set_password(record, "adopted")
    };
    vault.adopt(&lease, &uid(1), &secret("adopted"), "it logs in", None, &merge).unwrap();
    let history = vault.history(&uid(1)).unwrap();
    assert_eq!((history.len(), history[0].reason.as_str()), (1, "it logs in"));
    let past = &history[0].credential;
    assert_eq!(past.get("password").unwrap().expose(), "old-canary");
    let field = past.get("cmdr:plugin:Prod:description").unwrap();
    assert_eq!(field.expose(), "the shop");
}

#[test]
fn an_open_rotation_keeps_its_record() {
    let house = House::new();
    let vault = house.create();
    let lease = with_record(&vault, 1);
    vault.stage(&lease, &uid(1), 1, &attempt("a", 1, "new")).unwrap();
    assert!(matches!(vault.delete(&uid(1), 1), Err(VaultError::OpenRotation(_))));
    assert!(matches!(vault.put(&record(1, "x"), Some(1), &[], false), Err(VaultError::OpenRotation(_))));
    let mut import = vault.import().unwrap();
    import.put(&record(2, "x"), &[]).unwrap();
    import.put(&record(1, "x"), &[]).unwrap();
    assert!(matches!(import.commit(), Err(VaultError::OpenRotation(_))));
    assert!(matches!(vault.read(&uid(2)), Err(VaultError::NoRecord(_))));
    vault.put(&record(1, "old-canary"), Some(1), &[], true).unwrap();
}

// ── one rotation ────────────────────────────────────────────────────────────

#[test]
fn a_staged_attempt_survives_a_crash_and_is_committed_after_it() {
    let house = House::new();
    let vault = house.create();
    let lease = with_record(&vault, 1);
    let staged = attempt("a", 1, "new");
    assert!(matches!(vault.stage(&lease, &uid(1), 2, &staged), Err(VaultError::Stale(_))));
    vault.stage(&lease, &uid(1), 1, &staged).unwrap();
    let back = vault.read_back(&uid(1), "a").unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), serde_json::to_string(&staged).unwrap());
    vault.permit(&lease, &uid(1), "a", &permit()).unwrap();
    std::mem::forget(vault);

    let vault = house.open();
    assert_eq!(vault.adopt_required(), None);
    let stored = vault.read(&uid(1)).unwrap();
    assert_eq!((stored.stage.len(), stored.revision), (1, 1));
    assert_eq!(stored.stage[0].permit.as_ref().unwrap().rotator, process());
    assert!(matches!(vault.erase(&lease, &uid(1), "a", "x"), Err(VaultError::Conflict { .. })));
    let commit = Commit { uid: &uid(1), duplicates: &[], attempt: "a", unverified: true, finish_due: Some(now()) };
    let conflict = vault.commit(&lease, &commit, &|_| Err("the host was edited".into()));
    assert!(matches!(conflict, Err(VaultError::Conflict { .. })));
    assert_eq!(vault.commit(&lease, &commit, &|record| set_password(record, "new")).unwrap(), 2);

    let stored = vault.read(&uid(1)).unwrap();
    assert_eq!(password(&stored.record), "new");
    assert!(stored.stage.is_empty() && stored.unverified && stored.rotated_at.is_some());
    assert!(stored.pending[0].previous.same_as(&secret("old-canary")));
    let history = vault.history(&uid(1)).unwrap();
    assert_eq!((history.len(), history[0].attempt.as_str()), (1, "a"));
    assert!(matches!(vault.delete(&uid(1), 2), Err(VaultError::OpenRotation(_))));
    vault.finished(&lease, &uid(1), "a", CleanUp::Failed("still in use")).unwrap();
    assert_eq!(vault.open_items().unwrap()[0].reason.as_deref(), Some("still in use"));
    vault.finished(&lease, &uid(1), "a", CleanUp::Waits).unwrap();
    let waiting = vault.open_items().unwrap();
    assert_eq!((waiting.len(), waiting[0].state, &waiting[0].reason), (1, RecordState::Finishing, &None));
    vault.finished(&lease, &uid(1), "a", CleanUp::Done).unwrap();
    assert!(vault.open_items().unwrap().is_empty());
    vault.release(&lease).unwrap();
    assert_eq!(
        what(&vault),
        ["created", "added", "staged", "permitted", "committed", "not finished", "published", "finished"]
    );
    assert_eq!(vault.check().unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_commit_covers_the_duplicates_and_keeps_edits_made_meanwhile() {
    let house = House::new();
    let vault = house.create();
    vault.put(&record(2, "old-canary"), None, &[identity(1)], false).unwrap();
    vault.put(&record(1, "old-canary"), None, &[identity(1)], false).unwrap();
    let lease = granted(vault.acquire(&LeaseRequest { records: vec![uid(1), uid(2)], ..wish(1) }).unwrap());
    vault.stage(&lease, &uid(1), 1, &attempt("a", 1, "new")).unwrap();
    let (others, alone) = ([uid(2)], granted(vault.acquire(&wish(5)).unwrap()));
    let commit = Commit { uid: &uid(1), duplicates: &others, attempt: "a", unverified: false, finish_due: None };
    assert!(matches!(vault.commit(&alone, &commit, &|r| set_password(r, "new")), Err(VaultError::Fenced)));
    // Somebody edits between the merge and the write: merged again.
    let edited = std::cell::Cell::new(false);
    let merge = |record: &mut Record| {
        if !edited.replace(true) {
            let mut other = self::record(1, "old-canary");
            other.title = "Edited".into();
            vault.put(&other, Some(1), &[identity(1)], true).unwrap();
        }
        set_password(record, "new")
    };
    assert_eq!(vault.commit(&lease, &commit, &merge).unwrap(), 3);
    let stored = vault.read(&uid(1)).unwrap();
    assert_eq!((stored.record.title.as_str(), password(&stored.record)), ("Edited", "new"));
    assert_eq!(password(&vault.read(&uid(2)).unwrap().record), "new");
    assert_eq!(vault.history(&uid(2)).unwrap().len(), 1);
}

#[test]
fn candidates_are_erased_without_permit_and_kept_with_one() {
    let house = House::new();
    let vault = house.create();
    let lease = with_record(&vault, 1);
    vault.stage(&lease, &uid(1), 1, &attempt("a", 1, "never sent")).unwrap();
    vault.erase(&lease, &uid(1), "a", "cancelled").unwrap();
    assert!(vault.history(&uid(1)).unwrap().is_empty());
    let mut minted = attempt("b", 1, "");
    minted.candidate = None;
    vault.stage(&lease, &uid(1), 1, &minted).unwrap();
    vault.permit(&lease, &uid(1), "b", &permit()).unwrap();
    vault.minted(&lease, &uid(1), "b", &secret("minted")).unwrap();
    vault.minted(&lease, &uid(1), "b", &secret("minted")).unwrap();
    assert!(matches!(vault.minted(&lease, &uid(1), "b", &secret("other")), Err(VaultError::Conflict { .. })));
    let others = [Excluded::Current, Excluded::Abandoned("a".into())];
    for one in [&Excluded::Candidate].into_iter().chain(&others).chain(&others) {
        vault.exclude(&lease, &uid(1), "b", one).unwrap();
    }
    assert_eq!(vault.read_back(&uid(1), "b").unwrap().excluded, others);
    vault.park(&lease, &uid(1), Some("b"), "look").unwrap();
    assert_eq!(vault.open_items().unwrap()[0].state, RecordState::Parked);
    vault.abandon(&lease, &uid(1), "b", "refused", None).unwrap();
    assert!(matches!(vault.abandon(&lease, &uid(1), "b", "again", None), Err(VaultError::NoAttempt(_))));
    let history = vault.history(&uid(1)).unwrap();
    assert_eq!((history[0].kind, history[0].reason.as_str()), (PastKind::Abandoned, "refused"));
    assert!(history[0].credential.same_as(&secret("minted")) && history[0].plan.is_some());

    vault.stage(&lease, &uid(1), 1, &attempt("c", 1, "third")).unwrap();
    vault.park(&lease, &uid(1), None, "a person has to look").unwrap();
    assert_eq!(vault.read(&uid(1)).unwrap().parked.as_deref(), Some("a person has to look"));
    vault
        .adopt(&lease, &uid(1), &secret("minted"), "it logs in", None, &|record| set_password(record, "minted"))
        .unwrap();
    let stored = vault.read(&uid(1)).unwrap();
    assert_eq!((password(&stored.record), stored.parked, stored.stage.len()), ("minted", None, 0));
    let kinds: Vec<_> = vault.history(&uid(1)).unwrap().iter().map(|past| past.kind).collect();
    assert_eq!(kinds, [PastKind::Abandoned, PastKind::Previous, PastKind::Abandoned]);
    let terminal = ["committed", "erased", "abandoned", "adopted"];
    let ends: Vec<_> = what(&vault).into_iter().filter(|what| terminal.contains(&what.as_str())).collect();
    assert_eq!(ends, ["erased", "abandoned", "abandoned", "adopted"]);
    assert!(vault.find("prod").unwrap()[0].state == RecordState::Settled);
}

#[test]
fn what_an_abandoned_attempt_left_at_the_target_waits_to_be_removed() {
    let house = House::new();
    let vault = house.create();
    let lease = with_record(&vault, 1);
    vault.stage(&lease, &uid(1), 1, &attempt("a", 1, "minted")).unwrap();
    vault.permit(&lease, &uid(1), "a", &permit()).unwrap();
    let left = LeftBehind { credential: secret("minted"), due: now() };
    vault.abandon(&lease, &uid(1), "a", "the target did not take it", Some(&left)).unwrap();
    let stored = vault.read(&uid(1)).unwrap();
    assert!(stored.stage.is_empty() && stored.pending[0].previous.same_as(&secret("minted")));
    assert_eq!(vault.open_items().unwrap()[0].due, Some(left.due));
    assert_eq!(vault.history(&uid(1)).unwrap()[0].kind, PastKind::Abandoned);
    vault.finished(&lease, &uid(1), "a", CleanUp::Done).unwrap();
    assert!(vault.open_items().unwrap().is_empty());
    assert_eq!(vault.check().unwrap().problems, Vec::<String>::new());
}

#[test]
fn young_credentials_are_never_pruned_by_count() {
    let house = House::new();
    let vault = house.create();
    vault.put(&record(1, "0"), None, &[], false).unwrap();
    for n in 1..40_u64 {
        vault.put(&record(1, &n.to_string()), Some(n), &[], false).unwrap();
    }
    assert_eq!(vault.history(&uid(1)).unwrap().len(), 39);
    // Forty days later only the newest twenty are left.
    let outside = Connection::open(house.file()).unwrap();
    outside.execute("UPDATE history SET at = at - 3456000000", ()).unwrap();
    vault.put(&record(1, "last"), Some(40), &[], false).unwrap();
    let history = vault.history(&uid(1)).unwrap();
    assert_eq!((history.len(), history[0].number), (20, 40));
}

#[test]
fn the_budget_counts_within_its_window_and_outlives_the_process() {
    let house = House::new();
    let vault = house.create();
    for _ in 0..3 {
        vault.spend(&identity(1), 60_000, 3).unwrap();
    }
    drop(vault);
    let vault = house.open();
    let Err(VaultError::BudgetSpent { until }) = vault.spend(&identity(1), 60_000, 3) else { panic!("spent") };
    let left = until.duration_since(now()).as_secs();
    assert!((50..=60).contains(&left), "{left}");
    vault.spend(&identity(2), 60_000, 3).unwrap();
    vault.refund(&identity(1)).unwrap();
    vault.spend(&identity(1), 60_000, 3).unwrap();
    assert!(vault.spend(&identity(1), 60_000, 3).is_err());
    vault.forgive(&identity(1)).unwrap();
    vault.spend(&identity(1), 60_000, 1).unwrap();
    assert!(vault.spend(&identity(1), 60_000, 1).is_err());
    let start = Instant::now();
    while vault.spend(&identity(1), 200, 1).is_err() {
        assert!(start.elapsed() < Duration::from_secs(5));
        std::thread::yield_now();
    }
    assert!(vault.spend(&identity(3), 60_000, 0).is_err());
}

#[test]
fn what_is_learned_adds_up() {
    let house = House::new();
    let vault = house.create();
    let lease = with_record(&vault, 1);
    vault.learn(&lease, &uid(1), &PasswordLimits { max_length: Some(30), ..Default::default() }).unwrap();
    vault
        .learn(&lease, &uid(1), &PasswordLimits { max_length: Some(20), forbidden: "@".into(), ..Default::default() })
        .unwrap();
    let learned = vault.read(&uid(1)).unwrap().learned;
    assert_eq!((learned.max_length, learned.forbidden.as_str()), (Some(20), "@"));
}

// ── leases ──────────────────────────────────────────────────────────────────

#[test]
fn leases_are_all_or_none_and_an_admin_is_shared() {
    let house = House::new();
    let vault = house.create();
    let first = granted(vault.acquire(&LeaseRequest { admin: Some(uid(9)), ..wish(1) }).unwrap());
    let holders = busy(vault.acquire(&LeaseRequest { records: vec![uid(2), uid(1)], ..wish(2) }).unwrap());
    assert_eq!((holders.len(), holders[0].fence, holders[0].owner.machine.as_str()), (1, first.fence, "owner-canary"));
    let second = granted(vault.acquire(&LeaseRequest { admin: Some(uid(9)), ..wish(2) }).unwrap());
    assert!(second.fence > first.fence);
    assert_eq!(busy(vault.acquire(&wish(9)).unwrap()).len(), 2);
    vault.release(&first).unwrap();
    vault.release(&first).unwrap();
    vault.release(&second).unwrap();
    let alone = granted(vault.acquire(&wish(9)).unwrap());
    busy(vault.acquire(&LeaseRequest { admin: Some(uid(9)), ..wish(3) }).unwrap());
    vault.renew(&alone).unwrap();
    assert!(matches!(vault.renew(&first), Err(VaultError::Fenced)));
}

#[test]
fn only_a_holder_that_stands_still_is_replaced_and_then_writes_nothing() {
    let house = House::new();
    let (ours, theirs) = (house.create(), house.open());
    let old = with_record(&ours, 1);
    ours.stage(&old, &uid(1), 1, &attempt("a", 1, "new")).unwrap();
    let seen = busy(theirs.acquire(&wish(1)).unwrap());
    ours.renew(&old).unwrap();
    let moved = busy(theirs.seize(&wish(1), &seen).unwrap());
    assert_eq!(moved[0].renewal, 1);
    let new = granted(theirs.seize(&wish(1), &moved).unwrap());
    let commit = Commit { uid: &uid(1), duplicates: &[], attempt: "a", unverified: false, finish_due: None };
    for refused in [
        ours.renew(&old).err(),
        ours.stage(&old, &uid(1), 1, &attempt("b", 1, "x")).err(),
        ours.permit(&old, &uid(1), "a", &permit()).err(),
        ours.minted(&old, &uid(1), "a", &secret("x")).err(),
        ours.commit(&old, &commit, &|_| Ok(())).err(),
        ours.erase(&old, &uid(1), "a", "x").err(),
        ours.abandon(&old, &uid(1), "a", "x", None).err(),
        ours.park(&old, &uid(1), None, "x").err(),
        ours.unpark(&old, &uid(1)).err(),
        ours.adopt(&old, &uid(1), &secret("x"), "x", None, &|_| Ok(())).err(),
        ours.finished(&old, &uid(1), "a", CleanUp::Done).err(),
        ours.learn(&old, &uid(1), &PasswordLimits::default()).err(),
        ours.told(&old, &uid(1), None, "x").err(),
    ] {
        assert!(matches!(refused, Some(VaultError::Fenced)), "{refused:?}");
    }
    ours.release(&old).unwrap();
    theirs.commit(&new, &commit, &|record| set_password(record, "new")).unwrap();
}

#[test]
fn hooks_are_owed_with_the_commit_and_stand_beside_nothing() {
    let house = House::new();
    let vault = house.create();
    vault.put(&record(1, "old-canary"), None, &[identity(1)], false).unwrap();
    let lease = granted(vault.acquire(&wish(1)).unwrap());
    let revision = vault.read(&uid(1)).unwrap().revision;
    let staged = Attempt { tell: vec![uid(1)], duplicates: Vec::new(), ..attempt("a", 1, "new") };
    vault.stage(&lease, &uid(1), revision, &staged).unwrap();
    let commit = Commit { uid: &uid(1), duplicates: &[], attempt: "a", unverified: false, finish_due: None };
    vault.commit(&lease, &commit, &|record| set_password(record, "new")).unwrap();
    vault.release(&lease).unwrap();
    drop(vault);

    let vault = house.open();
    let owed = |vault: &LocalVault| {
        assert_eq!(vault.check().unwrap().problems, Vec::<String>::new());
        vault.open_items().unwrap().iter().map(|item| (item.state, item.attempt.clone())).collect::<Vec<_>>()
    };
    let expected = [(RecordState::Hooks, Some("a".to_owned()))];
    assert_eq!(owed(&vault), expected);
    vault.rekey_at_cost(&[key()], Cost::DEFAULT).unwrap();
    assert_eq!(owed(&vault), expected);
    // An edit is not in their way, nor they in the way of an edit.
    let stored = vault.read(&uid(1)).unwrap();
    vault.put(&stored.record, Some(stored.revision), &[identity(1)], false).unwrap();
    let mut untold = vault.read(&uid(1)).unwrap().untold.unwrap();
    assert_eq!((untold.identity.clone(), untold.tries), (identity(1), 0));
    untold.last_failure = Some("no".into());
    let lease = granted(vault.acquire(&wish(1)).unwrap());
    vault.told(&lease, &uid(1), Some(&untold), "one failed").unwrap();
    assert_eq!(vault.open_items().unwrap()[0].reason.as_deref(), Some("no"));
    vault.told(&lease, &uid(1), None, "all run").unwrap();
    assert_eq!(owed(&vault), []);
    vault.audit_verify().unwrap();
}

#[test]
fn of_many_that_race_for_a_record_one_gets_it() {
    let house = House::new();
    let vaults = [house.create(), house.open(), house.open()];
    let won: usize = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..12)
            .map(|n| {
                let vault = &vaults[n % vaults.len()];
                scope.spawn(move || {
                    (0..5).filter(|_| matches!(vault.acquire(&wish(1)).unwrap(), Acquired::Granted(_))).count()
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).sum()
    });
    assert_eq!(won, 1);
}

#[test]
fn two_processes_race_and_one_that_is_killed_leaves_everything_in_place() {
    const CHILD: &str = "TURNLOCK_TEST_VAULT";
    if let Some(directory) = std::env::var_os(CHILD) {
        let host = HostState::named(PathBuf::from(&directory).join("state"), "machine one").unwrap();
        let vault = LocalVault::open(&PathBuf::from(&directory).join("vault"), &key(), &host).unwrap();
        for n in 0.. {
            if let Acquired::Granted(lease) = vault.acquire(&wish(n)).unwrap() {
                vault.put(&record(n, "old-canary"), None, &[identity(n)], false).unwrap();
                vault.stage(&lease, &uid(n), 1, &attempt("a", n, "new")).unwrap();
                fs::write(PathBuf::from(&directory).join(format!("done-{n}")), "").unwrap();
            }
        }
    }
    let house = House::new();
    let vault = house.create();
    let name = std::thread::current().name().unwrap().to_owned();
    let mut children: Vec<_> = (0..2)
        .map(|_| {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args([&name, "--exact", "--nocapture"])
                .env(CHILD, house.directory.path())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let start = Instant::now();
    while !house.at("done-15").exists() && start.elapsed() < Duration::from_secs(30) {
        std::thread::yield_now();
    }
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let checked = vault.check().unwrap();
    assert_eq!(checked.problems, Vec::<String>::new());
    assert!(checked.records >= 15);
    for n in 0.. {
        if !house.at(&format!("done-{n}")).exists() {
            break;
        }
        assert_eq!(vault.read(&uid(n)).unwrap().stage.len(), 1, "what was answered is there");
    }
    drop(vault);
    assert_eq!(house.open().adopt_required(), None);
}

#[test]
fn writers_that_wait_together_share_a_flush() {
    let house = House::new();
    let vault = Arc::new(house.create());
    let leases: Vec<_> = (0..16).map(|n| with_record(&vault, n)).collect();
    let before = vault.commits();
    std::thread::scope(|scope| {
        for (n, lease) in leases.iter().enumerate() {
            let vault = &vault;
            scope.spawn(move || {
                for turn in 0..50 {
                    vault.stage(lease, &uid(n), 1, &attempt(&format!("a{turn}"), n, "new")).unwrap();
                }
            });
        }
    });
    let commits = vault.commits() - before;
    assert!(commits < 800, "{commits}");
    assert_eq!(vault.check().unwrap().attempts, 800);
}

#[test]
fn a_job_that_fails_takes_nothing_else_with_it() {
    let house = House::new();
    let vault = house.create();
    let lease = with_record(&vault, 0);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (vault, lease) = (&vault, &lease);
            scope.spawn(move || {
                for turn in 0..20 {
                    let revision = 1 + (n % 2) as u64;
                    let done = vault.stage(lease, &uid(0), revision, &attempt(&format!("a{n}-{turn}"), 0, "new"));
                    assert_eq!(done.is_ok(), n % 2 == 0);
                }
            });
        }
    });
    assert_eq!(vault.read(&uid(0)).unwrap().stage.len(), 80);
    assert_eq!(vault.check().unwrap().problems, Vec::<String>::new());
}

// ── storage that fails ──────────────────────────────────────────────────────

#[test]
fn a_lock_that_is_held_too_long_is_told_as_such() {
    let house = House::new();
    let vault = house.create();
    let other = Connection::open(house.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = vault.spend(&identity(1), 1000, 3).unwrap_err();
    assert!(error.to_string().contains("another program"), "{error}");
    vault.find("reading goes on").unwrap();
    other.execute_batch("ROLLBACK").unwrap();
    vault.spend(&identity(1), 1000, 3).unwrap();
}

#[test]
fn a_full_disk_changes_nothing_and_everything_can_still_be_read() {
    let house = House::new();
    let small = Small::mount(&house, "size=600k");
    let path = small.0.join("vault");
    let vault = LocalVault::create(&path, &[key()], &house.host).unwrap();
    let lease = with_record(&vault, 1);
    let mut staged = 0;
    let error = loop {
        let mut big = attempt(&format!("a{staged}"), 1, "new");
        big.existing = vec!["x".repeat(20_000)];
        match vault.stage(&lease, &uid(1), 1, &big) {
            Ok(()) => staged += 1,
            Err(error) => break error,
        }
        assert!(staged < 1000);
    };
    assert!(matches!(error, VaultError::Storage { .. }), "{error:?}");
    assert_eq!(vault.read(&uid(1)).unwrap().stage.len(), staged);
    let (rows, _) = vault.audit_verify().unwrap();
    assert_eq!(rows as usize, 2 + staged);
    drop(vault);
    let vault = LocalVault::open(&path, &key(), &house.host).unwrap();
    assert_eq!(vault.read(&uid(1)).unwrap().stage.len(), staged);
}

#[test]
fn a_read_only_vault_can_be_read_or_says_why_not() {
    let house = House::new();
    let small = Small::mount(&house, "size=2m");
    let path = small.0.join("vault");
    let vault = LocalVault::create(&path, &[key()], &house.host).unwrap();
    with_record(&vault, 1);
    drop(vault);
    let _ = LocalVault::open(&path, &key(), &house.host).unwrap();
    assert!(small.run("mount", &["-o", "remount,ro"]));
    match LocalVault::open(&path, &key(), &house.host) {
        Ok(vault) => {
            assert_eq!(vault.read(&uid(1)).unwrap().revision, 1);
            let error = vault.acquire(&wish(2)).unwrap_err();
            assert!(matches!(error, VaultError::Storage { .. }), "{error:?}");
        }
        Err(error) => {
            assert!(matches!(error, VaultError::Storage { .. }), "{error:?}");
        }
    }
}

/// A small file system of its own; only root can make one.
struct Small(PathBuf);

impl Small {
    #[track_caller]
    fn mount(house: &House, size: &str) -> Self {
        let small = Self(house.at("small"));
        fs::create_dir(&small.0).unwrap();
        assert!(small.run("mount", &["-t", "tmpfs", "-o", size, "none"]), "this test mounts a tmpfs: run it as root");
        small
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        let mut command = std::process::Command::new(program);
        command.args(arguments).arg(&self.0).stderr(std::process::Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        self.run("umount", &["-l"]);
    }
}

#[test]
fn a_file_replaced_under_an_open_vault_is_noticed_before_anything_is_lost_in_it() {
    let house = House::new();
    let vault = house.create();
    vault.spend(&identity(1), 1000, 3).unwrap();
    fs::rename(house.file(), house.at("moved")).unwrap();
    let error = vault.spend(&identity(1), 1000, 3).unwrap_err();
    assert!(error.to_string().contains("replaced or removed"), "{error}");
}

#[test]
fn without_the_machines_memory_no_lease_is_granted() {
    let house = House::new();
    let vault = house.create();
    granted(vault.acquire(&wish(1)).unwrap());
    fs::rename(house.at("state"), house.at("gone")).unwrap();
    fs::write(house.at("state"), "not a directory").unwrap();
    assert!(vault.acquire(&wish(2)).is_err());
    fs::remove_file(house.at("state")).unwrap();
    fs::rename(house.at("gone"), house.at("state")).unwrap();
    granted(vault.acquire(&wish(2)).unwrap());
}

// ── copies ──────────────────────────────────────────────────────────────────

fn refused(vault: &LocalVault) -> String {
    match vault.acquire(&wish(77)) {
        Err(VaultError::NotAdopted(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_backup_says_that_it_is_one_until_it_is_adopted() {
    let house = House::new();
    let vault = furnished(&house);
    vault.backup(&house.at("backup")).unwrap();
    assert!(matches!(vault.backup(&house.at("backup")), Err(VaultError::Exists(_))));
    assert_eq!(mode(&house.at("backup")), 0o600);
    let fence = granted(vault.acquire(&wish(50)).unwrap()).fence;
    drop(vault);
    let backup = LocalVault::open(&house.at("backup"), &key(), &house.host).unwrap();
    assert_eq!(backup.check().unwrap(), Checked { problems: vec![], ..backup.check().unwrap() });
    assert_eq!(refused(&backup), "a backup");
    backup.put(&record(60, "x"), None, &[], false).unwrap();
    assert_eq!(refused(&backup), "a backup");
    backup.adopt_vault().unwrap();
    assert_eq!(backup.adopt_required(), None);
    assert!(granted(backup.acquire(&wish(77)).unwrap()).fence > fence);
    assert_eq!(refused(&house.open()), "a copy of a vault that is used elsewhere");
}

#[test]
fn an_older_file_in_the_same_place_is_noticed_even_after_it_was_written() {
    for crashed in [false, true] {
        let house = House::new();
        let vault = house.create();
        with_record(&vault, 1);
        drop(vault);
        let old = fs::read(house.file()).unwrap();
        let vault = house.open();
        granted(vault.acquire(&wish(2)).unwrap());
        if crashed {
            // Nobody remembered anything after the lease was granted. (The
            // forgotten handle keeps the file itself, so the old one comes
            // back as another.)
            std::mem::forget(vault);
            for suffix in ["-wal", "-shm", ""] {
                fs::remove_file(file::beside(&house.file(), suffix)).unwrap();
            }
        } else {
            drop(vault);
        }
        fs::write(house.file(), &old).unwrap();

        let vault = house.open();
        assert_eq!(refused(&vault), "a restored backup");
        assert_eq!(password(&vault.read(&uid(1)).unwrap().record), "old-canary");
        for n in 10..30 {
            vault.put(&record(n, "x"), None, &[], false).unwrap();
        }
        drop(vault);
        let vault = house.open();
        assert_eq!(refused(&vault), "a restored backup");
        vault.adopt_vault().unwrap();
        granted(vault.acquire(&wish(77)).unwrap());
        drop(vault);
        assert_eq!(house.open().adopt_required(), None);
    }
}

#[test]
fn copies_are_told_from_moves_and_from_other_machines() {
    let house = House::new();
    let vault = house.create();
    granted(vault.acquire(&wish(1)).unwrap());
    drop(vault);
    fs::copy(house.file(), house.at("copy")).unwrap();
    let copy = LocalVault::open(&house.at("copy"), &key(), &house.host).unwrap();
    assert_eq!(refused(&copy), "a copy of a vault that is used elsewhere");
    drop(copy);
    let elsewhere = HostState::named(house.at("other"), "machine two").unwrap();
    let there = LocalVault::open(&house.at("copy"), &key(), &elsewhere).unwrap();
    assert_eq!(refused(&there), "a copy made on another machine");
    there.adopt_vault().unwrap();
    granted(there.acquire(&wish(1)).unwrap());

    fs::rename(house.file(), house.at("moved")).unwrap();
    let moved = LocalVault::open(&house.at("moved"), &key(), &house.host).unwrap();
    assert_eq!(moved.adopt_required(), None);
    granted(moved.acquire(&wish(77)).unwrap());
}

#[test]
fn what_one_program_adopts_the_other_takes_for_adopted() {
    let house = House::new();
    house.create().backup(&house.at("backup")).unwrap();
    let open = || LocalVault::open(&house.at("backup"), &key(), &house.host).unwrap();
    let (one, other) = (open(), open());
    one.adopt_vault().unwrap();
    other.put(&record(1, "x"), None, &[], false).unwrap();
    granted(other.acquire(&wish(1)).unwrap());
    granted(one.acquire(&wish(2)).unwrap());
}

#[test]
fn a_log_left_behind_is_not_played_into_a_new_vault() {
    let house = House::new();
    fs::write(house.at("vault-wal"), "whatever").unwrap();
    assert!(matches!(LocalVault::create(&house.file(), &[key()], &house.host), Err(VaultError::Exists(_))));
}

#[test]
fn no_key_shows_itself() {
    assert_eq!(format!("{:?}", key()), "Raw(..)");
}

#[test]
fn a_killed_process_leaves_a_note_of_its_last_commit() {
    let house = House::new();
    let vault = house.create();
    let lease = with_record(&vault, 1);
    let mark = |vault: &LocalVault| vault.read_view(|view| Ok(Meta::read(view.connection)?.mark())).unwrap();
    let before = mark(&vault);
    vault.stage(&lease, &uid(1), 1, &attempt("a", 1, "new")).unwrap();
    let after = mark(&vault);
    let (id, file) = (vault.shared.keys().vault, vault.shared.file.clone());
    std::mem::forget(vault);
    assert_eq!(house.host.judge(&id, true, &file, &after), None);
    assert_eq!(house.host.judge(&id, true, &file, &before), Some(Doubt::Restored));
    // A torn note counts for nothing.
    let note = house.at("state").join(format!("{}.mark", seal::hex(&id)));
    let mut torn = fs::read(&note).unwrap();
    torn[20] ^= 1;
    fs::write(&note, torn).unwrap();
    assert_eq!(house.host.judge(&id, true, &file, &before), None);
}

#[test]
fn a_log_that_was_damaged_after_a_kill_is_not_passed_over_in_silence() {
    const CHILD: &str = "TURNLOCK_TEST_VAULT_LOG";
    if let Some(directory) = std::env::var_os(CHILD) {
        let directory = PathBuf::from(directory);
        let host = HostState::named(directory.join("state"), "machine one").unwrap();
        let vault = LocalVault::open(&directory.join("vault"), &key(), &host).unwrap();
        let lease = with_record(&vault, 1);
        vault.stage(&lease, &uid(1), 1, &attempt("a", 1, "new")).unwrap();
        fs::write(directory.join("done"), "").unwrap();
        loop {
            std::thread::park();
        }
    }
    let house = House::new();
    drop(house.create());
    let name = std::thread::current().name().unwrap().to_owned();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([&name, "--exact", "--nocapture"])
        .env(CHILD, house.directory.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !house.at("done").exists() && start.elapsed() < Duration::from_secs(30) {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let log = file::beside(&house.file(), "-wal");
    let mut bytes = fs::read(&log).unwrap();
    assert!(!bytes.is_empty());
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&log, bytes).unwrap();
    let vault = house.open();
    assert!(vault.read(&uid(1)).unwrap().stage.is_empty());
    assert_eq!(refused(&vault), "a restored backup");
}

// ── keys and audit ──────────────────────────────────────────────────────────

#[test]
fn new_keys_seal_everything_again_and_the_old_one_opens_nothing() {
    let house = House::new();
    let vault = furnished(&house);
    let other = house.open();
    let before = (vault.audit_verify().unwrap(), serde_json::to_string(&vault.history(&uid(2)).unwrap()).unwrap());
    vault.rekey(&[Key::Raw(Zeroizing::new([1; 32])), Key::Raw(Zeroizing::new([2; 32]))]).unwrap();
    let (rows, _) = vault.audit_verify().unwrap();
    assert_eq!(rows, before.0.0 + 1);
    assert_eq!(serde_json::to_string(&vault.history(&uid(2)).unwrap()).unwrap(), before.1);
    assert_eq!(vault.check().unwrap().problems, Vec::<String>::new());
    assert_eq!(vault.find("prod").unwrap().len(), 4);
    assert_eq!(vault.same_account(&identity(1)).unwrap(), [uid(1)]);
    busy(vault.acquire(&wish(3)).unwrap());
    granted(vault.acquire(&wish(0)).unwrap());
    vault.read_back(&uid(0), "second").unwrap();
    let error = other.read(&uid(1)).unwrap_err().to_string();
    assert!(error.contains("new keys"), "{error}");
    assert!(other.refund(&identity(1)).unwrap_err().to_string().contains("new keys"));
    drop(vault);
    assert!(matches!(LocalVault::open(&house.file(), &key(), &house.host), Err(VaultError::WrongKey(_))));
    let vault = LocalVault::open(&house.file(), &Key::Raw(Zeroizing::new([2; 32])), &house.host).unwrap();
    assert_eq!(vault.adopt_required(), None);
    assert!(matches!(vault.rekey(&[]), Err(VaultError::Storage { .. })));
}

#[test]
fn the_audit_chain_notices_whatever_is_done_to_the_file() {
    for tampering in [
        "DELETE FROM audit WHERE number = 3",
        "DELETE FROM audit WHERE number = (SELECT max(number) FROM audit)",
        "UPDATE audit SET body = (SELECT body FROM audit WHERE number = 2) WHERE number = 3",
        "UPDATE audit SET body = zeroblob(200) WHERE number = 1",
        "UPDATE meta SET audit = audit - 1",
    ] {
        let house = House::new();
        let vault = furnished(&house);
        let (length, head) = vault.audit_verify().unwrap();
        let mut last = None;
        vault
            .audit_rows(length, &mut |row| {
                last = Some(row);
                true
            })
            .unwrap();
        assert_eq!(last.unwrap().chain, head);
        Connection::open(house.file()).unwrap().execute_batch(tampering).unwrap();
        assert!(matches!(vault.audit_verify(), Err(VaultError::Damaged { .. })), "{tampering}");
        assert!(!vault.check().unwrap().problems.is_empty());
    }
}

#[test]
fn cells_cannot_be_moved_to_other_rows() {
    for tampering in [
        "UPDATE records SET body = (SELECT body FROM records WHERE id = 2) WHERE id = 1",
        "UPDATE records SET revision = revision + 1",
        "UPDATE history SET body = (SELECT body FROM history WHERE id = 1) WHERE id = 3",
        "UPDATE attempts SET record = 2",
        "UPDATE names SET record = 2 WHERE record = 1 AND name NOT IN (SELECT name FROM names WHERE record = 2)",
        "UPDATE records SET uid = zeroblob(16) WHERE id = 3",
        "UPDATE records SET state = 0",
        "UPDATE history SET at = 0 WHERE id = 1",
    ] {
        let house = House::new();
        let vault = furnished(&house);
        Connection::open(house.file()).unwrap().execute_batch(tampering).unwrap();
        assert!(!vault.check().unwrap().problems.is_empty(), "{tampering}");
    }
}

#[test]
fn rotators_that_come_later_find_the_records_that_are_there() {
    let house = House::new();
    let vault = house.create();
    for n in 0..3 {
        vault.put(&record(n, "old-canary"), None, &[], false).unwrap();
    }
    let found = |n| vault.same_account(&identity(n)).unwrap();
    assert!(found(1).is_empty());
    let resolves = |record: &Record| (0..3).filter(|n| record.uid == uid(*n)).map(identity).collect();
    vault.find_again("postgresql 1\n", &resolves).unwrap();
    assert_eq!(found(1), [uid(1)]);
    assert_eq!(password(&vault.read(&uid(1)).unwrap().record), "old-canary");
    assert!(vault.check().unwrap().problems.is_empty());
    // One that is missing makes nobody forget what it knew…
    vault.find_again("", &|_| Vec::new()).unwrap();
    assert_eq!(found(1), [uid(1)]);
    // …and without another one nobody is asked.
    vault.find_again("", &|_| panic!("asked again")).unwrap();
}
