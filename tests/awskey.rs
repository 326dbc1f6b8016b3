//! The rotator awskey on moto (`lab/aws/server.py` says what that does not
//! prove): AWS makes the secret, so that a crash may leave a key that nobody
//! knows, and old and new overlap. AWS's own library tells which key works.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod world;

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    slice,
    time::Duration,
};

use lab::{AccessKey, Aws, process, wait_until};
use serde_json::{Value, json};
use world::{Fields, World};

/// What a user needs to rotate its own key.
const OWN: &[&str] = &["iam:*AccessKey*"];

struct Service {
    aws: Aws,
    world: World,
    /// The key that everything begins with.
    old: AccessKey,
}

impl Service {
    /// With one user who manages its own keys, and a record of it.
    fn with_app(more: &[&str]) -> Self {
        let service = Self::with_user(OWN);
        service.add("App", more);
        service
    }

    fn with_user(actions: &[&str]) -> Self {
        let aws = Aws::start(&["127.0.0.1"]).unwrap();
        aws.create_user("app", None).unwrap();
        aws.allow("app", actions).unwrap();
        let old = aws.create_key("app", None).unwrap();
        Self { aws, world: World::new(), old }
    }

    fn place(&self) -> Fields {
        Fields { login: "app".to_owned(), ..Fields::default() }
            .with("cmdr:plugin=awskey")
            .with(format!("turnlock:endpoint=https://127.0.0.1:{}", self.aws.port()))
            .with(format!("turnlock:ca={}", self.aws.ca_path().display()))
    }

    fn add(&self, title: &str, more: &[&str]) {
        let fields = self.place();
        let fields = fields
            .with(format!("cmdr:aws_key_id={}", self.old.id))
            .with(format!("cmdr:aws_key_secret={}", self.old.secret));
        let fields = more.iter().fold(fields, |fields, field| fields.with(*field));
        self.world.add(title, &fields, "Not-Its-Business-1");
    }

    /// The key in the vault.
    #[track_caller]
    fn current(&self) -> AccessKey {
        let field =
            |name: &str| self.world.json(&["show", "App", "--field", name])[0]["value"].as_str().unwrap().to_owned();
        AccessKey { id: field("cmdr:aws_key_id"), secret: field("cmdr:aws_key_secret"), active: true }
    }

    fn accepts(&self, key: &AccessKey) -> bool {
        self.aws.accepts(&key.id, &key.secret).unwrap()
    }

    fn keys(&self) -> Vec<AccessKey> {
        self.aws.keys("app").unwrap()
    }

    /// The vault's key is the user's only one, and works.
    #[track_caller]
    fn has_rotated(&self) -> AccessKey {
        let new = self.current();
        assert_ne!(new.id, self.old.id);
        assert!(self.accepts(&new), "AWS refuses what the vault holds");
        assert_eq!(self.keys(), slice::from_ref(&new), "{}", self.aws.log());
        self.world.nothing_is_open();
        new
    }

    /// Nothing changed, and nothing was staged.
    #[track_caller]
    fn refuses(&self, kind: &str, words: &[&str]) -> Value {
        let (before, keys) = (self.world.content(), self.keys());
        let refused = self.world.fails(3, &["rotate", "App"]);
        assert_eq!((&refused["kind"], &refused["state"]), (&json!(kind), &json!("unchanged")), "{refused}");
        for word in words {
            assert!(refused.to_string().contains(word), "{word}: {refused}");
        }
        assert_eq!((self.world.content(), self.keys()), (before, keys));
        refused
    }

    fn created(&self) -> usize {
        self.aws.log().lines().filter(|line| line.starts_with("CreateAccessKey")).count()
    }

    /// The credentials file of this world's home, with other profiles.
    fn credentials_file(&self, text: &str) -> PathBuf {
        let path = self.world.turnlock.home().join(".aws/credentials");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        process::write_file(&path, text).unwrap();
        path
    }
}

#[test]
fn a_key_rotates_itself_and_the_old_one_goes() {
    let service = Service::with_app(&[]);
    // It takes AWS some time to know a new key everywhere.
    service.aws.set(json!({"delay": 1.5})).unwrap();
    let rotated = service.world.ok(&["rotate", "App"]);
    assert!(rotated.stdout.contains("proven by a new log-in"), "{}", rotated.stdout);
    let new = service.has_rotated();
    assert!(!service.accepts(&service.old));
    assert_eq!(service.world.password("App"), "Not-Its-Business-1", "the record's password is none of ours");
    let past = &service.world.history("App")[0]["credential"];
    assert_eq!(past["access_key_id"], json!(service.old.id));
    service.aws.set(json!({"delay": 0})).unwrap();
    let failures = service.aws.failures();
    service.world.ok(&["rotate", "App"]);
    assert!(!service.accepts(&new) && service.has_rotated() != new);
    service.world.ok(&["verify", "App"]);
    assert_eq!(service.aws.failures(), failures + 1, "only the old key, asked for here, was refused");
    // Nothing that was said or written holds a secret.
    let mut said = service.aws.log() + &rotated.stdout + &rotated.stderr;
    for command in [&["check", "App"][..], &["show", "App", "--history"], &["explain", "App"], &["audit", "export"]] {
        let output = service.world.ok(command);
        said += &(output.stdout + &output.stderr);
    }
    for secret in [&service.old.secret, &new.secret, &service.current().secret] {
        assert!(!said.contains(secret.as_str()), "{said}");
    }
}

#[test]
fn check_and_verify_change_nothing_and_tell_what_is_wrong() {
    let service = Service::with_app(&[]);
    let before = service.world.content();
    let found = service.world.json(&["check", "App"])[0]["findings"].to_string();
    for word in ["certificate and name verified", r#""authenticated":true"#, &service.old.id, "days old"] {
        assert!(found.contains(word), "{word}: {found}");
    }
    assert_eq!(service.world.json(&["verify", "App"])[0]["outcome"], "accepted");
    service.world.ok(&["rotate", "App", "--dry-run"]);
    service.aws.set_key(&service.old.id, json!({"status": "Inactive"})).unwrap();
    let drift = service.world.fails(3, &["verify", "App"]);
    assert!(drift["error"].as_str().unwrap().contains("refuses"), "{drift}");
    service.refuses("authentication", &["app", &service.old.id]);
    service.aws.set_key(&service.old.id, json!({"status": "Active"})).unwrap();
    assert_eq!((service.world.content(), service.created()), (before, 0));

    // A wrong secret, and a right one at a wrong time: only one of them is wrong.
    service.world.ok(&["edit", "App", "--set", "cmdr:aws_key_secret=Wrong-Wrong-Wrong"]);
    service.refuses("authentication", &["SignatureDoesNotMatch"]);
    service.aws.set(json!({"skew": 3600})).unwrap();
    let asked = service.world.fails(3, &["verify", "App"]);
    assert!(asked.to_string().contains("clock is 60 minutes off"), "{asked}");
    service.aws.set(json!({"skew": 0})).unwrap();

    // Somebody else's key, and somebody else's account.
    service.world.ok(&["edit", "App", "--set", &format!("cmdr:aws_key_secret={}", service.old.secret)]);
    service.world.ok(&["edit", "App", "--set", "turnlock:aws_account_id=999999999999"]);
    let other = service.world.fails(3, &["verify", "App"]);
    assert!(other.to_string().contains(lab::aws::ACCOUNT), "{other}");
    service.world.ok(&["edit", "App", "--unset", "turnlock:aws_account_id"]);
    service.aws.create_user("colleague", None).unwrap();
    let theirs = service.aws.create_key("colleague", None).unwrap();
    service.world.ok(&["edit", "App", "--set", &format!("cmdr:aws_key_id={}", theirs.id)]);
    service.world.ok(&["edit", "App", "--set", &format!("cmdr:aws_key_secret={}", theirs.secret)]);
    let wrong = service.world.fails(3, &["verify", "App"]);
    assert!(wrong.to_string().contains("user/colleague"), "{wrong}");
}

#[test]
fn two_keys_are_told_apart_and_the_records_own_is_never_the_one_that_goes() {
    let service = Service::with_app(&[]);
    let second = service.aws.create_key("app", None).unwrap();
    service.aws.set_key(&second.id, json!({"age": 3 * 86_400, "used": "s3"})).unwrap();
    service.refuses("conflict", &[&service.old.id, &second.id, "last used", "for s3", "3 days old"]);
    service.world.ok(&["edit", "App", "--set", "turnlock:aws_evict=unused"]);
    service.refuses("conflict", &["2 access keys already"]);
    // Never used, but young: somebody may be about to.
    service.aws.set_key(&second.id, json!({"age": 60, "used": ""})).unwrap();
    service.refuses("conflict", &["never used"]);
    // Even a record's key that looks unused stays.
    service.aws.set_key(&service.old.id, json!({"age": 3 * 86_400})).unwrap();
    service.refuses("conflict", &["never used"]);
    let check = service.world.run(&["check", "App", "-o", "json"]);
    assert!(check.stdout.contains(r#""may_rotate":"no""#), "{}", check.stdout);
    service.aws.set_key(&second.id, json!({"age": 2 * 86_400, "used": ""})).unwrap();
    let rotated = service.world.ok(&["rotate", "App"]);
    assert!((rotated.stdout + &rotated.stderr).contains(&second.id));
    service.has_rotated();
}

#[test]
fn managers_sign_by_record_profile_process_and_role() {
    let service = Service::with_user(&["sts:GetCallerIdentity"]);
    service.add("App", &[]);
    service.aws.create_user("manager", None).unwrap();
    service.aws.allow("manager", &["iam:*", "sts:AssumeRole"]).unwrap();
    let manager = service.aws.create_key("manager", None).unwrap();
    service.refuses("permission", &["iam:ListAccessKeys", "app"]);

    // A record of its own, with the secret in its field.
    let fields = Fields { login: "manager".to_owned(), ..Fields::default() }
        .with(format!("cmdr:aws_key_id={}", manager.id))
        .with(format!("cmdr:aws_key_secret={}", manager.secret));
    service.world.add("Manager", &fields, "unused");
    service.world.ok(&["edit", "App", "--set", "turnlock:admin=Manager"]);
    service.world.ok(&["rotate", "App"]);
    service.has_rotated();
    service.world.ok(&["edit", "App", "--unset", "turnlock:admin"]);

    // A profile of the shared files.
    let file = service.credentials_file(&format!(
        "[ops]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        manager.id, manager.secret
    ));
    service.world.ok(&["edit", "App", "--set", "cmdr:aws_profile=ops"]);
    service.world.ok(&["rotate", "App"]);
    service.has_rotated();
    service.world.ok(&["edit", "App", "--set", "cmdr:aws_profile=nobody"]);
    service.refuses("authentication", &["nobody"]);

    // Where the variables say that the files are; and a program that knows the key.
    let elsewhere = service.world.turnlock.home().join("aws-config");
    let told = json!({"Version": 1, "AccessKeyId": manager.id, "SecretAccessKey": manager.secret});
    let json_file = service.world.turnlock.home().join("told.json");
    process::write_file(&json_file, told.to_string()).unwrap();
    let config = format!(
        "[profile process]\ncredential_process = cat {}\n[profile broken]\n\
         credential_process = sh -c 'echo canary-of-the-process >&2; exit 1'\n",
        json_file.display()
    );
    process::write_file(&elsewhere, config).unwrap();
    fs::remove_file(&file).unwrap();
    let rotate = |profile: &str| {
        service.world.ok(&["edit", "App", "--set", &format!("cmdr:aws_profile={profile}")]);
        let mut command = service.world.command(&["rotate", "App", "-o", "json"]);
        process::run(command.env("AWS_CONFIG_FILE", &elsewhere), b"").unwrap()
    };
    let rotated = rotate("process");
    assert_eq!(rotated.status, 0, "{}{}", rotated.stdout, rotated.stderr);
    service.has_rotated();
    let broken = rotate("broken");
    assert_eq!(broken.status, 3);
    let told = broken.stdout + &broken.stderr;
    assert!(told.contains("broken") && !told.contains("canary"), "{told}");
    service.world.ok(&["edit", "App", "--unset", "cmdr:aws_profile", "--set", "turnlock:admin=Manager"]);

    // A role that asks for an external id.
    let role = service.aws.create_role("rotator", "manager", Some("turnlock-1"), &["iam:*"]).unwrap();
    service.aws.allow("manager", &["sts:AssumeRole"]).unwrap();
    service.refuses("permission", &["iam:ListAccessKeys", "manager"]);
    service.world.ok(&["edit", "App", "--set", &format!("cmdr:aws_assume_role={role}")]);
    service.refuses("permission", &[&role, "sts:AssumeRole", "aws_external_id"]);
    service.world.ok(&["edit", "App", "--set", "turnlock:aws_external_id=turnlock-1"]);
    service.world.ok(&["edit", "App", "--set", "turnlock:aws_session_name=rotation-of-app"]);
    service.world.ok(&["rotate", "App"]);
    service.has_rotated();
}

#[test]
fn a_profile_may_rotate_the_key_it_signs_with() {
    let service = Service::with_app(&["cmdr:aws_profile=app", "cmdr:aws_sync_profile=app"]);
    let old = &service.old;
    let text = format!("[app]\naws_access_key_id = {}\naws_secret_access_key = {}\n", old.id, old.secret);
    let file = service.credentials_file(&text);
    service.world.ok(&["rotate", "App"]);
    service.has_rotated();
    assert!(service.aws.accepts_profile(&file, "app").unwrap());
    // Even where the profile keeps the key that goes.
    service.world.ok(&["edit", "App", "--unset", "cmdr:aws_sync_profile"]);
    let current = service.current();
    service.world.ok(&["rotate", "App"]);
    assert!(service.has_rotated() != current && !service.aws.accepts_profile(&file, "app").unwrap());
}

#[test]
fn a_first_key_is_made_only_where_that_is_asked_for() {
    let service = Service::with_user(&["sts:GetCallerIdentity"]);
    service.aws.create_user("manager", None).unwrap();
    service.aws.allow("manager", &["iam:*"]).unwrap();
    let manager = service.aws.create_key("manager", Some("The-Managers-Secret-1")).unwrap();
    let fields =
        Fields { login: "manager".to_owned(), ..Fields::default() }.with(format!("cmdr:aws_key_id={}", manager.id));
    service.world.add("Manager", &fields, "The-Managers-Secret-1");
    let fields = service.place().with("turnlock:admin=Manager").with("cmdr:aws_sync_profile=app");
    service.world.add("App", &fields, "unused");
    let refused = service.world.fails(3, &["rotate", "App"]);
    assert!(refused.to_string().contains("aws_create_key"), "{refused}");
    assert_eq!(service.keys(), slice::from_ref(&service.old));
    service.world.ok(&["edit", "App", "--set", "turnlock:aws_create_key=true"]);
    service.world.ok(&["rotate", "App"]);
    let first = service.current();
    assert!(service.accepts(&first) && service.accepts(&service.old), "a key that is not the record's stays");
    let file = service.world.turnlock.home().join(".aws/credentials");
    assert!(service.aws.accepts_profile(&file, "app").unwrap());
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    service.world.nothing_is_open();
}

#[test]
fn an_old_key_that_cannot_be_deleted_is_at_least_inactive() {
    let service = Service::with_app(&[]);
    service.aws.allow_all_but("app", &["iam:DeleteAccessKey"]).unwrap();
    let rotated = service.world.ok(&["rotate", "App"]);
    let told = rotated.stdout + &rotated.stderr;
    assert!(told.contains("inactive, but still there") && told.contains("iam:DeleteAccessKey"), "{told}");
    let new = service.current();
    assert!(service.accepts(&new) && !service.accepts(&service.old) && service.keys().len() == 2);
    assert_eq!(service.world.run(&["status"]).status, 3);
    service.aws.allow("app", OWN).unwrap();
    service.world.ok(&["recover"]);
    service.has_rotated();
}

#[test]
fn in_its_grace_the_old_key_works_and_the_new_one_is_published() {
    let before = "# by hand\n[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = d\n\n\
                  [app]\naws_access_key_id = AKIAOLD\naws_secret_access_key = old\nregion = eu-west-1\n";
    let service = Service::with_app(&["turnlock:grace=3", "cmdr:aws_sync_profile=app"]);
    let file = service.credentials_file(before);
    service.world.ok(&["rotate", "App"]);
    let new = service.current();
    assert!(service.accepts(&new) && service.accepts(&service.old));
    assert!(service.aws.accepts_profile(&file, "app").unwrap());
    let expected = before
        .replace("AKIAOLD", &new.id)
        .replace("aws_secret_access_key = old", &format!("aws_secret_access_key = {}", new.secret));
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    assert_eq!(fs::read_to_string(file.with_file_name("credentials.turnlock.bak")).unwrap(), before);
    for path in [file.clone(), file.with_file_name("credentials.turnlock.bak")] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let waiting = service.world.json(&["status"]);
    assert_eq!((waiting.len(), &waiting[0]["state"]), (1, &json!("finishing")), "{waiting:?}");
    // Neither recovering nor another rotation ends it.
    service.world.ok(&["recover"]);
    service.refuses("conflict", &["recover --finish-now"]);
    assert!(service.accepts(&service.old));
    service.world.ok(&["recover", "App", "--finish-now"]);
    assert_eq!(service.has_rotated(), new);
}

#[test]
fn the_old_key_stays_until_the_new_one_is_in_the_file() {
    for obstacle in ["locked", "read-only", "twice", "missing"] {
        let service = Service::with_app(&["cmdr:aws_sync_profile=app"]);
        let text = match obstacle {
            "twice" => "[app]\n[other]\nx = 1\n[app]\n",
            _ => "[other]\naws_access_key_id = AKIAOTHER\n",
        };
        let file = service.credentials_file(text);
        let mut held = None;
        match obstacle {
            "locked" => {
                let locked = File::open(&file).unwrap();
                locked.lock().unwrap();
                held = Some(locked);
            }
            "read-only" => fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap(),
            "missing" => fs::remove_dir_all(file.parent().unwrap()).unwrap(),
            _ => {}
        }
        let rotated = service.world.ok(&["rotate", "App"]);
        if obstacle != "missing" {
            let told = rotated.stdout + &rotated.stderr;
            assert!(told.contains(obstacle) && told.contains("credentials"), "{obstacle}: {told}");
            assert!(service.accepts(&service.old) && service.accepts(&service.current()), "{obstacle}");
            assert_eq!(fs::read_to_string(&file).unwrap(), text, "{obstacle}");
            assert_eq!(service.world.run(&["status"]).status, 3, "{obstacle}");
            assert_ne!(service.world.run(&["recover"]).status, 0, "{obstacle}");
            drop(held);
            fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
            if obstacle == "twice" {
                process::write_file(&file, "[app]\n").unwrap();
            }
            service.world.ok(&["recover"]);
        }
        service.has_rotated();
        assert!(service.aws.accepts_profile(&file, "app").unwrap(), "{obstacle}");
    }
}

/// Both are killed while AWS holds the one request that makes a key, before
/// or after it has made one. Nobody hears of it.
fn killed_at_create(service: &Service, held: &str) {
    service.aws.fault("CreateAccessKey", json!({"what": held}), 1).unwrap();
    let running = service.world.start(&["rotate", "App"]);
    let rotator = running.rotator();
    let keys = if held == "hold after" { 2 } else { 1 };
    wait_until("AWS to hold the request", Duration::from_secs(60), || {
        (service.aws.log().contains(held) && service.keys().len() == keys).then_some(())
    })
    .unwrap();
    process::signal(running.id(), "KILL");
    process::signal(rotator, "KILL");
    running.end();
    assert!(service.accepts(&service.old), "the old key works");
}

#[test]
fn an_orphan_is_made_inactive_and_later_removed() {
    let service = Service::with_app(&[]);
    killed_at_create(&service, "hold after");
    let recovered = service.world.ok(&["recover"]);
    assert!(recovered.stdout.contains("its old credential is the current one"), "{}", recovered.stdout);
    let orphan = service.keys().into_iter().find(|key| key.id != service.old.id).unwrap();
    assert!(!orphan.active && service.accepts(&service.old));
    assert_eq!(service.current().id, service.old.id);
    let waiting = service.world.json(&["status"]);
    assert_eq!((waiting.len(), &waiting[0]["state"]), (1, &json!("finishing")), "{waiting:?}");
    service.world.ok(&["recover"]);
    assert_eq!(service.keys().len(), 2, "not before its time");
    service.world.ok(&["recover", "--finish-now"]);
    assert_eq!(service.keys(), slice::from_ref(&service.old));
    service.world.nothing_is_open();
    service.world.ok(&["rotate", "App"]);
    service.has_rotated();
}

#[test]
fn an_orphan_that_somebody_takes_up_stays() {
    let service = Service::with_app(&[]);
    killed_at_create(&service, "hold after");
    service.world.ok(&["recover"]);
    let orphan = service.keys().into_iter().find(|key| key.id != service.old.id).unwrap();
    service.aws.set_key(&orphan.id, json!({"status": "Active"})).unwrap();
    service.world.ok(&["recover", "--finish-now"]);
    assert!(service.accepts(&orphan) && service.accepts(&service.old));
    service.world.nothing_is_open();
}

#[test]
fn a_colleagues_key_is_never_touched() {
    for theirs in [json!({"age": 3600, "used": ""}), json!({"age": 1, "used": "s3"})] {
        let service = Service::with_app(&[]);
        // The change never arrives, and whoever knew that is gone.
        killed_at_create(&service, "hold before");
        let colleague = service.aws.create_key("app", None).unwrap();
        service.aws.set_key(&colleague.id, theirs.clone()).unwrap();
        service.world.run(&["recover", "--finish-now"]);
        assert!(service.accepts(&colleague) && service.accepts(&service.old), "{theirs}");
        assert_eq!(service.current().id, service.old.id);
        service.world.nothing_is_open();
    }
}

#[test]
fn a_change_is_sent_once_and_a_question_again() {
    let service = Service::with_app(&[]);
    // Lost on its way back: AWS has made a key, and nobody knows its secret.
    service.aws.fault("CreateAccessKey", json!({"what": "cut after"}), 1).unwrap();
    let lost = service.world.fails(3, &["rotate", "App"]);
    assert_eq!((&lost["state"], service.created()), (&json!("unchanged"), 1), "{lost}");
    let keys = service.keys();
    assert!(keys.len() == 2 && keys.iter().any(|key| !key.active) && service.accepts(&service.old));
    service.world.ok(&["recover", "--finish-now"]);
    assert_eq!(service.keys(), slice::from_ref(&service.old));

    let refusal = |status: u16, code: &str| json!({"what": "status", "status": status, "code": code});
    for (status, code, kind) in [
        (400, "Throttling", "rate_limited"),
        (409, "LimitExceeded", "conflict"),
        (403, "AccessDenied", "permission"),
        (500, "ServiceFailure", "unreachable"),
        (503, "ServiceUnavailable", "unreachable"),
    ] {
        service.aws.fault("CreateAccessKey", refusal(status, code), 1).unwrap();
        let created = service.created();
        service.refuses(kind, &[]);
        assert_eq!(service.created(), created + 1, "{code}");
        service.world.nothing_is_open();
    }
    for code in ["ServiceUnavailable", "Throttling"] {
        service.aws.fault("ListAccessKeys", refusal(503, code), 2).unwrap();
        service.world.ok(&["rotate", "App"]);
        service.has_rotated();
    }
    // Nobody is followed, and nothing that is not AWS is believed.
    for fault in [
        json!({"what": "redirect", "to": "https://127.0.0.1:1/"}),
        json!({"what": "body", "body": "<html>proxy</html>", "status": 502}),
        json!({"what": "body", "body": "{}"}),
    ] {
        service.aws.fault("ListAccessKeys", fault, 3).unwrap();
        let refused = service.world.fails(3, &["rotate", "App"]);
        assert_eq!(refused["state"], "unchanged", "{refused}");
        service.aws.heal().unwrap();
    }
}

/// Every log line that any library would ever write, with the SDK's own at
/// every level: none holds a secret.
#[test]
fn no_library_logs_a_secret_at_any_level() {
    let service = Service::with_user(&["iam:*", "sts:AssumeRole"]);
    let role = service.aws.create_role("rotator", "app", None, &["iam:*"]).unwrap();
    let mut seen = 0;
    for with in ["role", "no role", "wrong", "refused"] {
        service.aws.only_key("app", &service.old.id).unwrap();
        let secret = if with == "wrong" { "canary+WRONG/77=Yellow%Bird" } else { &service.old.secret };
        let mut params = json!({
            "account": {
                "login": "app", "endpoint": format!("https://127.0.0.1:{}", service.aws.port()),
                "ca": service.aws.ca_path(),
            },
            "current": {"access_key_id": service.old.id, "secret_access_key": secret},
            "attempt": "1",
        });
        if with == "role" {
            params["account"]["aws_assume_role"] = json!(role);
        }
        if with == "refused" {
            let refused = json!({"what": "status", "status": 400, "code": "Throttling"});
            service.aws.fault("CreateAccessKey", refused, 1).unwrap();
        }
        for operation in ["check", "apply"] {
            let mut program = service.world.turnlock.program("examples/awskey-talkative", &[operation]).unwrap();
            let output = process::run(&mut program, params.to_string().as_bytes()).unwrap();
            seen +=
                output.stderr.lines().filter(|line| line.starts_with("TRACE ") || line.starts_with("DEBUG ")).count();
            let made = service.keys().into_iter().map(|key| key.secret);
            for canary in made.chain([secret.to_owned(), "Yellow".to_owned(), "FQoGZXIvYXdz".to_owned()]) {
                let found: Vec<&str> = output.stderr.lines().filter(|line| line.contains(&canary)).collect();
                assert!(found.is_empty(), "{with}, {operation}: {canary} in {found:?}");
            }
        }
    }
    assert!(seen > 50, "only {seen} lines were logged: the sweep proves nothing");
}
