//! The crash matrix: kill -9 at every durable operation and around every
//! message, enumerated and not sampled, with and without losing what was not
//! synced. After each kill a credential that the target accepts must be in the
//! vault; after `recover`, vault and target must agree.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken expectation of a test program is its failure"
)]

use std::fs;
use std::path::{Path, PathBuf};

use lab::interposer::{Interposer, Kill, MessageDirection, Victim, When};
use lab::shim::{self, Cut, Shim};
use lab::{
    AccessKey, Aws, DomainController, DomainOptions, Entra, MysqlServer, OracleOptions, OracleServer, Output,
    Postgresql, RemoteLogin, SmbOptions, SmbServer, SqlServer, SqlServerOptions, Turnlock, UnixHost, UnixHostOptions,
    process,
};
use serde_json::Value;

/// The password every round begins with.
const BEGIN: &str = "Begin-With-This-1";
/// How a shell, and the lab, tells of a process that SIGKILL ended.
const KILLED: i32 = 128 + 9;
/// The record's title.
const RECORD: &str = "Crash";
/// The login every round rotates.
const LOGIN: &str = "crash_app";

/// A target of the matrix.
trait Target {
    /// The plugin's name.
    fn plugin(&self) -> &'static str;
    /// `turnlock add` arguments that make a record of it.
    fn fields(&self) -> Vec<String>;
    /// Puts the account back to [`BEGIN`].
    fn reset(&self);
    /// Whether the target accepts this password, said by its own client.
    fn accepts(&self, password: &str) -> bool;
    /// The record's field with the secret, and the credential's.
    fn secret(&self) -> (&'static str, &'static str) {
        ("password", "password")
    }
    /// What every round begins with.
    fn begin(&self) -> String {
        BEGIN.to_owned()
    }
    /// The home from which it can be reached.
    fn turnlock(&self) -> Turnlock {
        Turnlock::new().unwrap()
    }
    /// Whether it can be asked at all.
    fn can_be_asked(&self) -> bool {
        true
    }
    /// Whether Turnlock can ask it. Where it cannot, a change whose answer was
    /// lost is sent again, and a refusal then needs a person.
    fn can_be_proven(&self) -> bool {
        self.can_be_asked()
    }
}

/// How a round that nobody kills ends.
#[derive(Clone, Copy, PartialEq)]
enum Story {
    /// It rotates.
    Succeeds,
    /// The record's password is wrong.
    WrongCurrent,
    /// The admin that shall do it has no right to.
    NoPermission,
    /// Nobody listens at the record's port.
    Unreachable,
}

/// A home with a vault that was set up once, put back before every round, and
/// a copy of `turnlock` beside the stand-in for the rotator.
struct Stage<'a, T: Target> {
    target: &'a T,
    story: Story,
    turnlock: Turnlock,
    program: PathBuf,
    interposer: Interposer,
    rotator: PathBuf,
    shim: Shim,
}

impl<'a, T: Target> Stage<'a, T> {
    fn new(target: &'a T, story: Story) -> Self {
        let turnlock = target.turnlock();
        let program = turnlock.own_program(&lab::bin("turnlock").unwrap()).unwrap();
        let rotator = lab::bin(&format!("turnlock-{}", target.plugin())).unwrap();
        let interposer = Interposer::beside(&program, &rotator, None).unwrap();
        let stage = Self { target, story, turnlock, program, interposer, rotator, shim: Shim::build().unwrap() };

        assert_eq!(stage.run(&["vault", "init"], &[]).status, 0);
        let mut arguments = vec!["add".to_owned(), RECORD.to_owned()];
        if target.secret().0 == "password" {
            arguments.extend(["--password", "-"].map(str::to_owned));
        }
        arguments.extend(target.fields());
        match story {
            Story::Succeeds | Story::WrongCurrent => {}
            Story::NoPermission => {
                let admin = ["add", "Admin", "--login", "crash_admin", "--password", "-"];
                assert_eq!(stage.run_with(&admin, BEGIN, &[]).status, 0);
                arguments.extend(["--set".to_owned(), "turnlock:admin=Admin".to_owned()]);
            }
            Story::Unreachable => {
                let nobody = format!("postgres://127.0.0.1:{}", lab::ports::free().unwrap());
                let url = arguments.iter().position(|argument| argument == "--url").unwrap() + 1;
                arguments[url] = nobody;
            }
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let password = if story == Story::WrongCurrent { "Not-The-Right-One-1" } else { BEGIN };
        let added = stage.run_with(&arguments, password, &[]);
        assert_eq!(added.status, 0, "{}", added.stderr);
        // Describes the rotator, so that a round's first process is the rotation's.
        assert_eq!(stage.run(&["explain", RECORD], &[]).status, 0);
        copy_tree(&stage.turnlock.vault_directory(), &stage.kept("vault"));
        copy_tree(&stage.turnlock.state_directory(), &stage.kept("state"));
        stage
    }

    fn kept(&self, what: &str) -> PathBuf {
        self.turnlock.home().join("kept").join(what)
    }

    fn run(&self, arguments: &[&str], environment: &[(String, String)]) -> Output {
        self.run_with(arguments, "", environment)
    }

    fn run_with(&self, arguments: &[&str], stdin: &str, environment: &[(String, String)]) -> Output {
        let mut command = self.turnlock.program_at(&self.program, arguments);
        command.env("TURNLOCK_KEY_FILE", self.turnlock.key_file());
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        process::run(&mut command, stdin.as_bytes()).unwrap()
    }

    /// Everything as it was at the beginning, with new orders for the killers.
    fn begin_round(&self, kill: Option<Kill>, cut: Option<Cut>) -> Vec<(String, String)> {
        self.target.reset();
        for (kept, place) in [("vault", self.turnlock.vault_directory()), ("state", self.turnlock.state_directory())] {
            fs::remove_dir_all(&place).unwrap();
            copy_tree(&self.kept(kept), &place);
        }
        self.interposer.configure(&self.rotator, kill).unwrap();
        let vault = self.turnlock.vault_directory();
        self.shim.environment(&vault, &self.kept("shadow"), cut, &self.kept("count")).unwrap()
    }

    /// How many syncs and how many messages each way a whole round has.
    fn measure(&self) -> (u32, u64, u64) {
        let environment = self.begin_round(None, None);
        fs::remove_file(self.kept("count")).ok();
        let before = self.interposer.log().unwrap().len();
        let outcome = self.run(&["rotate", RECORD, "--timeout", "10"], &environment);
        let expected = if self.story == Story::Succeeds { 0 } else { 3 };
        assert_eq!(outcome.status, expected, "{}", outcome.stderr);
        let messages = self.interposer.log().unwrap().split_off(before);
        let count = |direction| messages.iter().filter(|one| one.direction == direction).map(|one| one.number).max();
        let syncs = u32::try_from(shim::syncs(&self.kept("count")).len()).unwrap();
        let to = count(MessageDirection::ToRotator).unwrap_or(0);
        let from = count(MessageDirection::FromRotator).unwrap_or(0);
        assert!(syncs >= 4 && to >= 2 && from >= 2, "a round has {syncs} syncs, {to} and {from} messages");
        (syncs, to, from)
    }

    fn values(&self, arguments: &[&str], key: &str) -> Vec<String> {
        let shown = self.run(arguments, &[]);
        assert_eq!(shown.status, 0, "{}", shown.stderr);
        shown
            .stdout
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter_map(|row| row[key][self.target.secret().1].as_str().map(str::to_owned))
            .collect()
    }

    fn current(&self) -> String {
        let shown = self.run(&["show", RECORD, "--field", self.target.secret().0], &[]);
        assert_eq!(shown.status, 0, "{}", shown.stderr);
        shown.stdout.trim_end_matches('\n').to_owned()
    }

    /// The promise itself, at this instant: something in the vault opens the account.
    fn assert_nothing_is_lost(&self, round: &str) {
        if self.story == Story::WrongCurrent {
            assert!(
                self.target.accepts(&self.target.begin()),
                "{round}: the account was changed although no one could log in"
            );
            return;
        }
        let mut secrets = vec![self.current()];
        secrets.extend(self.values(&["show", RECORD, "--stage", "--reveal", "-o", "json"], "candidate"));
        secrets.extend(self.values(&["show", RECORD, "--history", "--reveal", "-o", "json"], "credential"));
        assert!(
            secrets.iter().any(|secret| self.target.accepts(secret)),
            "{round}: the target accepts none of the {} secrets in the vault",
            secrets.len()
        );
    }

    /// After `recover`: nothing open, and the vault's current credential works.
    fn assert_converges(&self, round: &str) {
        let mut recovered = self.run(&["recover"], &[]);
        if self.story == Story::NoPermission && !self.target.can_be_proven() && recovered.status != 0 {
            assert_eq!(recovered.status, 5, "{round}: recover said {}{}", recovered.stdout, recovered.stderr);
            recovered = self.run(&["resolve", RECORD, "--use", "current", "--unverified"], &[]);
        }
        // An account that nobody can log in to, or reach, stays open until somebody can.
        if self.story == Story::Succeeds || self.story == Story::NoPermission {
            assert_eq!(recovered.status, 0, "{round}: recover said {}{}", recovered.stdout, recovered.stderr);
            let status = self.run(&["status"], &[]);
            assert_eq!(status.status, 0, "{round}: {}", status.stdout);
            assert!(self.target.accepts(&self.current()), "{round}: vault and target do not agree");
        }
        let check = self.run(&["vault", "check"], &[]);
        assert_eq!(check.status, 0, "{round}: {}{}", check.stdout, check.stderr);
        if self.target.can_be_asked() && self.story == Story::Succeeds {
            let begin = self.target.begin();
            assert_ne!(
                self.target.accepts(&begin),
                self.current().trim() != begin.trim(),
                "{round}: old and new both work, or neither"
            );
        }
    }
}

/// Kills the orchestrator before and after every sync, with and without
/// taking away what was not synced.
fn every_durable_operation(target: &impl Target, story: Story) {
    let stage = Stage::new(target, story);
    let (syncs, ..) = stage.measure();
    for number in 1..=syncs {
        for cut in [Cut::Before(number), Cut::After(number)] {
            for power_lost in [false, true] {
                let round = format!("killed at sync {cut:?} of {syncs}, power lost: {power_lost}");
                let environment = stage.begin_round(None, Some(cut));
                let outcome = stage.run(&["rotate", RECORD, "--timeout", "10"], &environment);
                assert_eq!(outcome.status, KILLED, "{round}: {}", outcome.stderr);
                if power_lost {
                    stage.wait_for_rotators();
                    shim::roll_back(&stage.turnlock.vault_directory(), &stage.kept("shadow")).unwrap();
                }
                stage.assert_nothing_is_lost(&round);
                stage.assert_converges(&round);
            }
        }
    }
}

/// Kills orchestrator or rotator before and after every message.
fn every_message(target: &impl Target, story: Story, whens: &[When]) {
    let stage = Stage::new(target, story);
    let (_, to, from) = stage.measure();
    for (direction, count) in [(MessageDirection::ToRotator, to), (MessageDirection::FromRotator, from)] {
        for number in 1..=count {
            for victim in [Victim::Rotator, Victim::Orchestrator] {
                for &when in whens {
                    let kill = Kill { victim, direction, number, when };
                    let round = format!("{kill:?} of {count}");
                    let environment = stage.begin_round(Some(kill), None);
                    let outcome = stage.run(&["rotate", RECORD, "--timeout", "10"], &environment);
                    assert!(stage.interposer.has_killed(), "{round}: nobody was killed");
                    if victim == Victim::Orchestrator {
                        assert_eq!(outcome.status, KILLED, "{round}: {}", outcome.stderr);
                    }
                    stage.assert_nothing_is_lost(&round);
                    stage.assert_converges(&round);
                }
            }
        }
    }
}

impl<T: Target> Stage<'_, T> {
    /// A machine that loses its power takes its rotators with it; here they
    /// have to end before the disk is rolled back.
    fn wait_for_rotators(&self) {
        let here = self.program.parent().unwrap().to_owned();
        lab::wait_until("the rotators to end", std::time::Duration::from_secs(15), || {
            let alive = fs::read_dir("/proc")
                .unwrap()
                .flatten()
                .any(|entry| fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe.starts_with(&here)));
            (!alive).then_some(())
        })
        .unwrap();
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let name = entry.file_name();
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to.join(name));
        } else {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

/// No target behind it: whatever the vault holds is right.
struct Noop;

impl Target for Noop {
    fn plugin(&self) -> &'static str {
        "noop"
    }
    fn fields(&self) -> Vec<String> {
        ["--login", LOGIN, "--set", "cmdr:plugin=noop"].map(str::to_owned).to_vec()
    }
    fn reset(&self) {}
    fn accepts(&self, password: &str) -> bool {
        !password.is_empty()
    }
    fn can_be_asked(&self) -> bool {
        false
    }
}

struct Postgres(Postgresql);

impl Postgres {
    fn start() -> Self {
        let server = Postgresql::start(lab::PostgresqlOptions::default()).unwrap();
        server.create_role(LOGIN, BEGIN).unwrap();
        server.create_role("crash_admin", BEGIN).unwrap();
        Self(server)
    }
}

impl Target for Postgres {
    fn plugin(&self) -> &'static str {
        "postgresql"
    }
    fn fields(&self) -> Vec<String> {
        let url = format!("postgres://{}:{}/postgres", self.0.host(), self.0.port());
        let ca = format!("turnlock:ca={}", self.0.ca_path().display());
        ["--login", LOGIN, "--url", &url, "--set", &ca].map(str::to_owned).to_vec()
    }
    fn reset(&self) {
        self.0.set_password(LOGIN, BEGIN).unwrap();
    }
    fn accepts(&self, password: &str) -> bool {
        self.0.accepts(LOGIN, password).unwrap()
    }
}

/// An account at a host, by its password.
struct Ssh(UnixHost);

impl Ssh {
    fn start() -> Self {
        let host = UnixHost::start(UnixHostOptions::default()).unwrap();
        host.create_user(LOGIN, BEGIN).unwrap();
        Self(host)
    }
}

impl Target for Ssh {
    fn plugin(&self) -> &'static str {
        "ssh"
    }
    fn fields(&self) -> Vec<String> {
        let url = format!("ssh://{}:{}", self.0.host(), self.0.port());
        let known = format!("turnlock:known_host={}", self.0.fingerprint().unwrap());
        ["--login", LOGIN, "--url", &url, "--set", &known].map(str::to_owned).to_vec()
    }
    fn reset(&self) {
        self.0.set_password(LOGIN, BEGIN).unwrap();
    }
    fn accepts(&self, password: &str) -> bool {
        self.0.accepts(LOGIN, password).unwrap()
    }
}

/// An account of a box, changed by root within it.
struct Local(UnixHost);

impl Local {
    fn start() -> Self {
        let options = UnixHostOptions { remote_login: RemoteLogin::None, ..UnixHostOptions::default() };
        let host = UnixHost::start(options).unwrap();
        host.create_user(LOGIN, BEGIN).unwrap();
        Self(host)
    }
}

impl Target for Local {
    fn plugin(&self) -> &'static str {
        "unixpasswd"
    }
    fn fields(&self) -> Vec<String> {
        ["--login", LOGIN, "--set", "cmdr:plugin=unixpasswd"].map(str::to_owned).to_vec()
    }
    fn reset(&self) {
        self.0.set_password(LOGIN, BEGIN).unwrap();
    }
    fn accepts(&self, password: &str) -> bool {
        self.0.accepts(LOGIN, password).unwrap()
    }
    fn turnlock(&self) -> Turnlock {
        Turnlock::within(&self.0, None).unwrap()
    }
}

/// The same account, by its key.
struct SshKey {
    host: UnixHost,
    keys: tempfile::TempDir,
}

impl SshKey {
    fn start() -> Self {
        let host = UnixHost::start(UnixHostOptions::default()).unwrap();
        host.create_user(LOGIN, BEGIN).unwrap();
        let keys = tempfile::tempdir().unwrap();
        let mut keygen = process::clean_command("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "begin", "-f"]).arg(keys.path().join("begin"));
        assert_eq!(process::run(&mut keygen, b"").unwrap().status, 0);
        Self { host, keys }
    }
}

impl Target for SshKey {
    fn plugin(&self) -> &'static str {
        "sshkey"
    }
    fn fields(&self) -> Vec<String> {
        let host = format!("cmdr:host={}:{}", self.host.host(), self.host.port());
        let known = format!("turnlock:known_host={}", self.host.fingerprint().unwrap());
        let key = format!("cmdr:private_key={}", self.begin());
        ["--login", LOGIN, "--set", "cmdr:plugin=sshkey", "--set", &host, "--set", &known, "--set", &key]
            .map(str::to_owned)
            .to_vec()
    }
    fn reset(&self) {
        self.host.authorize(LOGIN, fs::read(self.keys.path().join("begin.pub")).unwrap()).unwrap();
    }
    fn secret(&self) -> (&'static str, &'static str) {
        ("cmdr:private_key", "private_key")
    }
    fn begin(&self) -> String {
        fs::read_to_string(self.keys.path().join("begin")).unwrap()
    }
    fn accepts(&self, key: &str) -> bool {
        let path = self.keys.path().join("asked");
        process::write_file(&path, format!("{}\n", key.trim())).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        self.host.accepts_key(LOGIN, &path).unwrap()
    }
}

struct Mysql(MysqlServer);

impl Mysql {
    fn on(server: MysqlServer) -> Self {
        server.create_account(LOGIN, "%", BEGIN, lab::AccountOptions::default()).unwrap();
        Self(server)
    }
}

impl Target for Mysql {
    fn plugin(&self) -> &'static str {
        "mysql"
    }
    fn fields(&self) -> Vec<String> {
        let url = format!("mysql://{}:{}", self.0.host(), self.0.port());
        let ca = format!("turnlock:ca={}", self.0.ca_path().display());
        ["--login", LOGIN, "--url", &url, "--set", &ca].map(str::to_owned).to_vec()
    }
    fn reset(&self) {
        self.0.set_password(LOGIN, BEGIN).unwrap();
    }
    fn accepts(&self, password: &str) -> bool {
        self.0.accepts(LOGIN, password).unwrap()
    }
}

const BOTH: &[When] = &[When::Before, When::After];

struct Directory(DomainController);

impl Directory {
    /// A domain that locks an account at the third wrong password.
    fn start() -> Self {
        let policy = vec![("lockoutThreshold", "3"), ("minPwdAge", "0")];
        let controller = DomainController::start(DomainOptions { policy, ..DomainOptions::default() }).unwrap();
        controller.create(LOGIN, BEGIN).unwrap();
        Self(controller)
    }
}

impl Target for Directory {
    fn plugin(&self) -> &'static str {
        "adpasswd"
    }
    fn fields(&self) -> Vec<String> {
        let url = format!("ldaps://{}", self.0.host());
        let ca = format!("turnlock:ca={}", self.0.ca_path().display());
        ["--login", LOGIN, "--url", &url, "--set", &ca].map(str::to_owned).to_vec()
    }
    fn reset(&self) {
        self.0.set_password(LOGIN, BEGIN).unwrap();
        self.0.modify(&self.0.dn(LOGIN), "lockoutTime", &["0"]).unwrap();
    }
    fn accepts(&self, password: &str) -> bool {
        // An account that Turnlock has locked is an error, and so a failure.
        let accepted = self.0.accepts(LOGIN, password).unwrap();
        self.0.modify(&self.0.dn(LOGIN), "lockoutTime", &["0"]).unwrap();
        accepted
    }
}

struct Mssql(SqlServer);

impl Mssql {
    /// A server that locks a login at the third wrong password.
    fn start() -> Self {
        let server = SqlServer::start(SqlServerOptions::default()).unwrap();
        server.set_policy(serde_json::json!({"threshold": 3})).unwrap();
        server.create(LOGIN, BEGIN).unwrap();
        Self(server)
    }
}

impl Target for Mssql {
    fn plugin(&self) -> &'static str {
        "mssql"
    }
    fn fields(&self) -> Vec<String> {
        let url = format!("mssql://{}:{}", self.0.host(), self.0.port());
        let ca = format!("turnlock:ca={}", self.0.ca_path().display());
        ["--login", LOGIN, "--url", &url, "--set", &ca].map(str::to_owned).to_vec()
    }
    fn reset(&self) {
        self.0.set(LOGIN, serde_json::json!({"password": BEGIN, "failures": 0})).unwrap();
    }
    fn accepts(&self, password: &str) -> bool {
        // A login that Turnlock has locked is an error, and so a failure.
        let accepted = self.0.accepts(LOGIN, password).unwrap();
        self.0.set(LOGIN, serde_json::json!({"failures": 0, "locked": false})).unwrap();
        accepted
    }
}

struct Oracle(OracleServer);

impl Oracle {
    /// A server that locks a user at the third wrong password.
    fn start() -> Self {
        let server = OracleServer::start(OracleOptions::default()).unwrap();
        server.set_profile(serde_json::json!({"attempts": 3})).unwrap();
        server.create_user(&LOGIN.to_uppercase(), BEGIN).unwrap();
        Self(server)
    }
}

impl Target for Oracle {
    fn plugin(&self) -> &'static str {
        "oracle"
    }
    fn fields(&self) -> Vec<String> {
        let url = format!("oracle://127.0.0.1:{}", self.0.secure_port());
        let ca = format!("turnlock:ca={}", self.0.ca_path().display());
        let db = format!("cmdr:db={}", OracleServer::SERVICE);
        ["--login", LOGIN, "--url", &url, "--set", &ca, "--set", &db].map(str::to_owned).to_vec()
    }
    fn reset(&self) {
        let fresh = serde_json::json!({"password": BEGIN, "failures": 0, "locked": null});
        self.0.set(&LOGIN.to_uppercase(), fresh).unwrap();
    }
    fn accepts(&self, password: &str) -> bool {
        // A user that Turnlock has locked is an error, and so a failure.
        let accepted = self.0.accepts(&LOGIN.to_uppercase(), password).unwrap();
        self.0.set(&LOGIN.to_uppercase(), serde_json::json!({"failures": 0, "locked": null})).unwrap();
        accepted
    }
}

/// A user of a tenant, which tells nobody whether a password is right.
struct Tenant {
    entra: Entra,
    /// Whether the record names the application itself, or leaves that to an admin's record.
    has_application: bool,
}

impl Tenant {
    fn start(has_application: bool) -> Self {
        let entra = Entra::start(&["127.0.0.1"]).unwrap();
        entra.create_user(LOGIN, BEGIN).unwrap();
        entra.create_application("crash_admin", BEGIN).unwrap();
        if !has_application {
            entra.set_application("crash_admin", serde_json::json!({"permissions": [], "roles": []})).unwrap();
        }
        Self { entra, has_application }
    }
}

impl Target for Tenant {
    fn plugin(&self) -> &'static str {
        "azureadpwd"
    }
    fn fields(&self) -> Vec<String> {
        let place = format!("https://127.0.0.1:{}", self.entra.port());
        let mut set = vec![
            "cmdr:plugin=azureadpwd".to_owned(),
            format!("cmdr:azure_tenant_id={}", lab::entra::TENANT),
            format!("turnlock:login_endpoint={place}"),
            format!("turnlock:graph_endpoint={place}"),
            format!("turnlock:ca={}", self.entra.ca_path().display()),
        ];
        if self.has_application {
            set.extend(["cmdr:azure_client_id=crash_admin".to_owned(), format!("cmdr:azure_secret={BEGIN}")]);
        }
        let login = ["--login", LOGIN].map(str::to_owned);
        login.into_iter().chain(set.into_iter().flat_map(|field| ["--set".to_owned(), field])).collect()
    }
    fn reset(&self) {
        self.entra.set_user(LOGIN, serde_json::json!({"password": BEGIN})).unwrap();
    }
    fn accepts(&self, password: &str) -> bool {
        self.entra.accepts(LOGIN, password).unwrap()
    }
    fn can_be_proven(&self) -> bool {
        false
    }
}

/// An IAM user, by its access key, which AWS makes.
struct IamKey(Aws, AccessKey);

impl IamKey {
    fn start() -> Self {
        let aws = Aws::start(&["127.0.0.1"]).unwrap();
        aws.create_user(LOGIN, None).unwrap();
        aws.allow(LOGIN, &["iam:*AccessKey*"]).unwrap();
        let key = aws.create_key(LOGIN, None).unwrap();
        Self(aws, key)
    }
}

impl Target for IamKey {
    fn plugin(&self) -> &'static str {
        "awskey"
    }
    fn fields(&self) -> Vec<String> {
        signed_by("awskey", &self.0, &self.1)
    }
    fn reset(&self) {
        self.0.only_key(LOGIN, &self.1.id).unwrap();
    }
    fn secret(&self) -> (&'static str, &'static str) {
        ("cmdr:aws_key_secret", "secret_access_key")
    }
    fn begin(&self) -> String {
        self.1.secret.clone()
    }
    fn accepts(&self, secret: &str) -> bool {
        self.0.accepts_secret(LOGIN, secret).unwrap()
    }
}

/// The same user's console password, which somebody else sets.
struct IamPassword(Aws, AccessKey);

impl IamPassword {
    fn start() -> Self {
        let aws = Aws::start(&["127.0.0.1"]).unwrap();
        aws.create_user(LOGIN, Some(BEGIN)).unwrap();
        aws.create_user("manager", None).unwrap();
        aws.allow("manager", &["iam:*"]).unwrap();
        let key = aws.create_key("manager", None).unwrap();
        Self(aws, key)
    }
}

impl Target for IamPassword {
    fn plugin(&self) -> &'static str {
        "awspswd"
    }
    fn fields(&self) -> Vec<String> {
        signed_by("awspswd", &self.0, &self.1)
    }
    fn reset(&self) {
        self.0.set_password(LOGIN, Some(BEGIN)).unwrap();
    }
    fn accepts(&self, password: &str) -> bool {
        self.0.password(LOGIN).unwrap().as_deref() == Some(password)
    }
    fn can_be_proven(&self) -> bool {
        false
    }
}

fn signed_by(plugin: &str, aws: &Aws, key: &AccessKey) -> Vec<String> {
    let set = [
        format!("cmdr:plugin={plugin}"),
        format!("turnlock:endpoint=https://127.0.0.1:{}", aws.port()),
        format!("turnlock:ca={}", aws.ca_path().display()),
        format!("cmdr:aws_key_id={}", key.id),
        format!("cmdr:aws_key_secret={}", key.secret),
    ];
    let login = ["--login", LOGIN].map(str::to_owned);
    login.into_iter().chain(set.into_iter().flat_map(|field| ["--set".to_owned(), field])).collect()
}

/// A machine, and the plugin that serves it.
struct Machine(SmbServer, &'static str);

impl Machine {
    /// A machine that locks an account at the third wrong password.
    fn start(plugin: &'static str) -> Self {
        let policy = vec![("bad lockout attempt", "3")];
        let server = SmbServer::start(SmbOptions { policy, ..SmbOptions::default() }).unwrap();
        server.create(LOGIN, BEGIN).unwrap();
        Self(server, plugin)
    }
}

impl Target for Machine {
    fn plugin(&self) -> &'static str {
        self.1
    }
    fn fields(&self) -> Vec<String> {
        let (plugin, host) = (format!("cmdr:plugin={}", self.1), format!("cmdr:host={}", self.0.host()));
        ["--login", LOGIN, "--set", &plugin, "--set", &host].map(str::to_owned).to_vec()
    }
    fn reset(&self) {
        self.0.set_password(LOGIN, BEGIN).unwrap();
        self.0.unlock(LOGIN).unwrap();
    }
    fn accepts(&self, password: &str) -> bool {
        // An account that Turnlock has locked is an error, and so a failure.
        let accepted = self.0.accepts(LOGIN, password).unwrap();
        self.0.unlock(LOGIN).unwrap();
        accepted
    }
}

#[test]
fn noop_killed_at_every_durable_operation() {
    every_durable_operation(&Noop, Story::Succeeds);
}

#[test]
fn noop_killed_at_every_message() {
    every_message(&Noop, Story::Succeeds, BOTH);
}

#[test]
fn postgresql_killed_at_every_durable_operation() {
    every_durable_operation(&Postgres::start(), Story::Succeeds);
}

#[test]
fn postgresql_killed_at_every_message() {
    every_message(&Postgres::start(), Story::Succeeds, BOTH);
}

#[test]
fn postgresql_without_permission_killed_at_every_durable_operation() {
    every_durable_operation(&Postgres::start(), Story::NoPermission);
}

#[test]
fn postgresql_without_permission_killed_at_every_message() {
    every_message(&Postgres::start(), Story::NoPermission, BOTH);
}

#[test]
fn postgresql_with_a_wrong_password_killed_at_every_durable_operation() {
    every_durable_operation(&Postgres::start(), Story::WrongCurrent);
}

#[test]
fn postgresql_with_a_wrong_password_killed_at_every_message() {
    every_message(&Postgres::start(), Story::WrongCurrent, BOTH);
}

#[test]
fn postgresql_out_of_reach_killed_at_every_durable_operation() {
    every_durable_operation(&Postgres::start(), Story::Unreachable);
}

#[test]
fn postgresql_out_of_reach_killed_at_every_message() {
    every_message(&Postgres::start(), Story::Unreachable, BOTH);
}

#[test]
fn ssh_killed_at_every_message() {
    every_message(&Ssh::start(), Story::Succeeds, BOTH);
}

#[test]
fn ssh_with_a_wrong_password_killed_at_every_message() {
    every_message(&Ssh::start(), Story::WrongCurrent, &[When::After]);
}

#[test]
fn unixpasswd_killed_at_every_message() {
    every_message(&Local::start(), Story::Succeeds, &[When::After]);
}

#[test]
fn sshkey_killed_at_every_message() {
    every_message(&SshKey::start(), Story::Succeeds, BOTH);
}

#[test]
fn sshkey_killed_at_every_durable_operation() {
    every_durable_operation(&SshKey::start(), Story::Succeeds);
}

#[test]
fn active_directory_killed_at_every_message() {
    every_message(&Directory::start(), Story::Succeeds, &[When::Before, When::After]);
}

#[test]
fn active_directory_with_a_wrong_password_killed_at_every_message() {
    every_message(&Directory::start(), Story::WrongCurrent, &[When::Before, When::After]);
}

#[test]
fn active_directory_killed_at_every_durable_operation() {
    every_durable_operation(&Directory::start(), Story::Succeeds);
}

#[test]
fn windows_killed_at_every_message() {
    every_message(&Machine::start("windows"), Story::Succeeds, &[When::Before, When::After]);
}

#[test]
fn pspasswd_killed_at_every_message() {
    every_message(&Machine::start("pspasswd"), Story::Succeeds, BOTH);
}

#[test]
fn windows_with_a_wrong_password_killed_at_every_message() {
    every_message(&Machine::start("windows"), Story::WrongCurrent, &[When::Before, When::After]);
}

#[test]
fn mssql_killed_at_every_message() {
    every_message(&Mssql::start(), Story::Succeeds, &[When::Before, When::After]);
}

#[test]
fn mssql_with_a_wrong_password_killed_at_every_message() {
    every_message(&Mssql::start(), Story::WrongCurrent, &[When::Before, When::After]);
}

#[test]
fn oracle_killed_at_every_message() {
    every_message(&Oracle::start(), Story::Succeeds, BOTH);
}

#[test]
fn oracle_with_a_wrong_password_killed_at_every_message() {
    every_message(&Oracle::start(), Story::WrongCurrent, BOTH);
}

#[test]
fn azureadpwd_killed_at_every_message() {
    every_message(&Tenant::start(true), Story::Succeeds, BOTH);
}

#[test]
fn azureadpwd_killed_at_every_durable_operation() {
    every_durable_operation(&Tenant::start(true), Story::Succeeds);
}

#[test]
fn azureadpwd_without_permission_killed_at_every_message() {
    every_message(&Tenant::start(false), Story::NoPermission, BOTH);
}

#[test]
fn azureadpwd_without_permission_killed_at_every_durable_operation() {
    every_durable_operation(&Tenant::start(false), Story::NoPermission);
}

#[test]
fn awskey_killed_at_every_message() {
    every_message(&IamKey::start(), Story::Succeeds, BOTH);
}

#[test]
fn awskey_killed_at_every_durable_operation() {
    every_durable_operation(&IamKey::start(), Story::Succeeds);
}

#[test]
fn awspswd_killed_at_every_message() {
    every_message(&IamPassword::start(), Story::Succeeds, BOTH);
}

#[test]
fn mariadb_killed_at_every_message() {
    let server = lab::mariadb::start(lab::MysqlOptions::default()).unwrap();
    every_message(&Mysql::on(server), Story::Succeeds, &[When::After]);
}

#[test]
fn mysql_killed_at_every_message() {
    let server = lab::mysql::start(lab::MysqlOptions::default()).unwrap();
    every_message(&Mysql::on(server), Story::Succeeds, &[When::After]);
}

/// What somebody brings along who comes from Keeper: one file, written by
/// Commander's own exporter, and nothing is changed by hand before all of it
/// is rotated.
#[test]
fn a_whole_export_of_eleven_plugins_is_imported_and_rotated() {
    const COMMANDER: &str = include_str!("differential/commander.py");
    let targets: Vec<Box<dyn Target>> = vec![
        Box::new(Noop),
        Box::new(Postgres::start()),
        Box::new(Mysql::on(lab::mariadb::start(lab::MysqlOptions::default()).unwrap())),
        Box::new(Ssh::start()),
        Box::new(SshKey::start()),
        Box::new(Mssql::start()),
        Box::new(Oracle::start()),
        Box::new(Tenant::start(true)),
        Box::new(IamKey::start()),
        Box::new(IamPassword::start()),
        Box::new(Machine::start("windows")),
    ];
    for target in &targets {
        target.reset();
    }
    let turnlock = Turnlock::new().unwrap();
    let (written, export) = (turnlock.home().join("written.json"), turnlock.home().join("export.json"));
    let records: Vec<Value> = targets.iter().map(|target| in_commanders_words(target.as_ref())).collect();
    process::write_file(&written, serde_json::json!({"records": records}).to_string()).unwrap();
    let question = serde_json::json!([{"ask": "exports", "path": written, "format": "json", "to": export}]);
    let mut commander = lab::python::script(COMMANDER, &[]).unwrap();
    let answer = process::run(&mut commander, question.to_string().as_bytes()).unwrap();
    assert!(answer.succeeded() && !answer.stdout.contains("crashed"), "{}{}", answer.stdout, answer.stderr);

    let run = |arguments: &[&str]| {
        let output = process::run(&mut turnlock.command(arguments).unwrap(), b"").unwrap();
        assert_eq!(output.status, 0, "{arguments:?}: {}{}", output.stdout, output.stderr);
        output.stdout
    };
    let key = turnlock.key_file().display().to_string();
    run(&["vault", "init", "--key-file", &key]);
    let told = run(&["import", "keeper", export.to_str().unwrap(), "--key-file", &key]);
    assert!(told.contains("imported 11 records, 11 of them can be rotated"), "{told}");
    run(&["rotate", "--match", ".", "--force", "--jobs", "4", "--key-file", &key]);
    for target in &targets {
        let (plugin, field) = (target.plugin(), target.secret().0);
        let shown = run(&["show", plugin, "--field", field, "--key-file", &key]);
        let secret = shown.trim_end();
        assert!(secret != target.begin().trim_end() && target.accepts(secret), "{plugin}");
    }
}

/// The record of `turnlock add`'s arguments as Commander exports it, with the names of its options alone.
fn in_commanders_words(target: &dyn Target) -> Value {
    let mut record = serde_json::json!({"title": target.plugin(), "password": target.begin(), "custom_fields": {}});
    for pair in target.fields().chunks(2) {
        match (pair[0].as_str(), pair[1].split_once('=')) {
            ("--login", _) => record["login"] = pair[1].clone().into(),
            ("--url", _) => record["login_url"] = pair[1].clone().into(),
            (_, Some((name, value))) => {
                record["custom_fields"][name.replace("turnlock:", "cmdr:")] = value.into();
            }
            (option, None) => unreachable!("{option}"),
        }
    }
    // A secret has one place.
    if target.secret().0 != "password" {
        record["password"] = "".into();
    }
    record
}
