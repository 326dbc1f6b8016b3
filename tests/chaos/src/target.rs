//! The servers, and what a campaign asks of each.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use lab::{
    Aws, DomainController, DomainOptions, LabError, MysqlOptions, MysqlServer, Openldap, OpenldapOptions, Postgresql,
    PostgresqlOptions, Result, UnixHost, UnixHostOptions,
};

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// PostgreSQL.
    Postgresql,
    /// Oracle's MySQL.
    Mysql,
    /// MariaDB.
    Mariadb,
    /// OpenLDAP.
    Openldap,
    /// Samba as an Active Directory that locks an account at the third wrong password.
    Samba,
    /// OpenSSH and PAM.
    Ssh,
    /// AWS's IAM, which makes the secrets itself; moto stands for it.
    Aws,
}

impl Kind {
    /// All of them, with their share of a campaign's faults in percent.
    pub const ALL: [(Self, u32); 7] = [
        (Self::Postgresql, 38),
        (Self::Openldap, 20),
        (Self::Mariadb, 13),
        (Self::Mysql, 11),
        (Self::Samba, 7),
        (Self::Ssh, 6),
        (Self::Aws, 5),
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
            Self::Openldap => "openldap",
            Self::Samba => "samba",
            Self::Ssh => "ssh",
            Self::Aws => "aws",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().map(|(kind, _)| kind).find(|kind| kind.name() == name)
    }

    /// The plugin that serves it.
    pub fn plugin(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Mysql | Self::Mariadb => "mysql",
            Self::Openldap | Self::Samba => "adpasswd",
            Self::Ssh => "ssh",
            Self::Aws => "awskey",
        }
    }

    /// Where its secret stands in a record that is exported, and what a credential calls it.
    pub(crate) fn secret(self) -> (&'static str, &'static str) {
        match self {
            Self::Aws => ("/custom_fields/cmdr:aws_key_secret", "secret_access_key"),
            _ => ("/password", "password"),
        }
    }

    /// Whether the server is as it was when it comes back; moto is not.
    pub(crate) fn comes_back(self) -> bool {
        self != Self::Aws
    }

    /// About how many bytes one conversation has, to the server and to the client.
    pub(crate) fn bytes(self) -> (u64, u64) {
        match self {
            Self::Postgresql => (1_400, 3_200),
            Self::Mysql | Self::Mariadb => (1_600, 3_400),
            Self::Openldap | Self::Samba => (1_400, 3_200),
            Self::Ssh => (4_500, 4_500),
            Self::Aws => (3_500, 4_500),
        }
    }

    /// Starts a server.
    pub fn start(self) -> Result<Box<dyn Target>> {
        // What a server has told a client must survive its own end, else it breaks the promise itself.
        let durable = || MysqlOptions {
            settings: vec!["innodb-flush-log-at-trx-commit = 2".to_owned()],
            ..MysqlOptions::default()
        };
        Ok(match self {
            Self::Postgresql => Box::new(Postgresql::start(PostgresqlOptions::default())?),
            Self::Mysql => Box::new(lab::mysql::start(durable())?),
            Self::Mariadb => Box::new(lab::mariadb::start(durable())?),
            Self::Openldap => Box::new(Openldap::start(OpenldapOptions::default())?),
            Self::Samba => {
                let policy = vec![
                    ("minPwdAge", "0"),
                    ("pwdProperties", "0"),
                    ("lockoutThreshold", "3"),
                    ("lockoutDuration", LOCKED_FOR),
                    ("lockOutObservationWindow", LOCKED_FOR),
                ];
                Box::new(DomainController::start(DomainOptions { policy, ..DomainOptions::default() })?)
            }
            Self::Ssh => Box::new(UnixHost::start(UnixHostOptions::default())?),
            Self::Aws => Box::new(Moto(Mutex::new(Aws::start(&["127.0.0.1"])?))),
        })
    }
}

/// How long Samba counts wrong passwords, in its own unit and in seconds.
const LOCKED_FOR: &str = "-50000000";
const WINDOW: u32 = 5;

/// A record's URL, and its custom fields by their names.
pub type Fields = (String, BTreeMap<&'static str, String>);

/// One server, asked through its vendor's client.
pub trait Target: Send + Sync {
    /// Where it listens.
    fn address(&self) -> SocketAddr;
    /// Makes an account that can do nothing but log in.
    fn create(&self, login: &str, password: &str) -> Result<()>;
    /// The URL and the custom fields of a record of one of its accounts, reached through this port.
    fn record(&self, login: &str, port: u16) -> Result<Fields>;
    /// Whether it lets this account in.
    fn accepts(&self, login: &str, password: &str) -> Result<bool>;
    /// Many such questions at once.
    fn accept(&self, questions: &[(String, String)]) -> Result<Vec<bool>> {
        let part = questions.len().div_ceil(4).max(1);
        let ask = |(login, password): &(String, String)| self.accepts(login, password);
        thread::scope(|scope| {
            let askers: Vec<_> = questions
                .chunks(part)
                .map(|part| scope.spawn(move || part.iter().map(ask).collect::<Result<Vec<bool>>>()))
                .collect();
            let answers = askers.into_iter().map(|asker| {
                asker.join().unwrap_or_else(|_| Err(LabError::new("whoever asked the target has panicked")))
            });
            answers.collect::<Result<Vec<_>>>().map(|answers| answers.concat())
        })
    }
    /// The accounts that it has locked.
    fn locked(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    /// Once everything is settled: takes what abandoned rotations have left of an account, as its
    /// administrator would, where it would stand in the way of the next one.
    fn tidy(&self, _login: &str, _secret: &str) -> Result<()> {
        Ok(())
    }
    /// Forgets what wrong passwords were told of an account.
    fn unlock(&self, _login: &str) -> Result<()> {
        Ok(())
    }
    /// Lets it stand still.
    fn pause(&self);
    /// Lets it go on.
    fn resume(&self);
    /// Ends it in good order and starts it again.
    fn restart(&mut self) -> Result<()>;
    /// Ends it at once and starts it again.
    fn crash(&mut self) -> Result<()>;
    /// Everything it wrote down.
    fn log(&self) -> String;
}

/// What every server of the lab does under the same name.
macro_rules! as_it_is {
    () => {
        fn pause(&self) {
            Self::pause(self);
        }
        fn resume(&self) {
            Self::resume(self);
        }
        fn restart(&mut self) -> Result<()> {
            Self::restart(self)
        }
        fn log(&self) -> String {
            Self::log(self)
        }
    };
    (crash) => {
        fn crash(&mut self) -> Result<()> {
            self.kill();
            Self::restart(self)
        }
    };
}

impl Target for Postgresql {
    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port()).into()
    }
    fn create(&self, login: &str, password: &str) -> Result<()> {
        self.create_role(login, password)
    }
    fn record(&self, _login: &str, port: u16) -> Result<Fields> {
        let ca = self.ca_path().display().to_string();
        Ok((format!("postgres://127.0.0.1:{port}/postgres"), [("turnlock:ca", ca)].into()))
    }
    fn accepts(&self, login: &str, password: &str) -> Result<bool> {
        Self::accepts(self, login, password)
    }
    fn accept(&self, questions: &[(String, String)]) -> Result<Vec<bool>> {
        self.accepts_all(questions)
    }
    as_it_is!();
    as_it_is!(crash);
}

impl Target for MysqlServer {
    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port()).into()
    }
    fn create(&self, login: &str, password: &str) -> Result<()> {
        self.create_account(login, "%", password, lab::AccountOptions::default())
    }
    fn record(&self, _login: &str, port: u16) -> Result<Fields> {
        let ca = self.ca_path().display().to_string();
        Ok((format!("mysql://127.0.0.1:{port}"), [("turnlock:ca", ca)].into()))
    }
    fn accepts(&self, login: &str, password: &str) -> Result<bool> {
        Self::accepts(self, login, password)
    }
    as_it_is!();
    as_it_is!(crash);
}

impl Target for Openldap {
    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port()).into()
    }
    fn create(&self, login: &str, password: &str) -> Result<()> {
        Self::create(self, login, password)
    }
    fn record(&self, _login: &str, port: u16) -> Result<Fields> {
        let ca = self.ca_path().display().to_string();
        let never = "0".to_owned();
        Ok((format!("ldaps://127.0.0.1:{port}"), [("turnlock:ca", ca), ("turnlock:lockout_window", never)].into()))
    }
    fn accepts(&self, login: &str, password: &str) -> Result<bool> {
        Self::accepts(self, &self.dn(login), password)
    }
    as_it_is!();
    as_it_is!(crash);
}

impl Target for DomainController {
    fn address(&self) -> SocketAddr {
        Self::address(self)
    }
    fn create(&self, login: &str, password: &str) -> Result<()> {
        Self::create(self, login, password)
    }
    fn record(&self, _login: &str, port: u16) -> Result<Fields> {
        let ca = self.ca_path().display().to_string();
        let window = WINDOW.to_string();
        Ok((format!("ldaps://127.0.0.1:{port}"), [("turnlock:ca", ca), ("turnlock:lockout_window", window)].into()))
    }
    fn accepts(&self, login: &str, password: &str) -> Result<bool> {
        Self::accepts(self, login, password)
    }
    fn locked(&self) -> Result<Vec<String>> {
        self.locked_accounts()
    }
    fn unlock(&self, login: &str) -> Result<()> {
        self.modify(&self.dn(login), "lockoutTime", &["0"])
    }
    as_it_is!();
    as_it_is!(crash);
}

impl Target for UnixHost {
    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port()).into()
    }
    fn create(&self, login: &str, password: &str) -> Result<()> {
        self.create_user(login, password)
    }
    fn record(&self, _login: &str, port: u16) -> Result<Fields> {
        Ok((format!("ssh://127.0.0.1:{port}"), [("turnlock:known_host", self.fingerprint()?)].into()))
    }
    fn accepts(&self, login: &str, password: &str) -> Result<bool> {
        Self::accepts(self, login, password)
    }
    as_it_is!();
    fn crash(&mut self) -> Result<()> {
        // To stop it is to kill it with everything in it.
        Self::restart(self)
    }
}

/// moto, which only one at a time can ask.
struct Moto(Mutex<Aws>);

impl Moto {
    fn aws(&self) -> MutexGuard<'_, Aws> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target for Moto {
    fn address(&self) -> SocketAddr {
        self.aws().address()
    }
    fn create(&self, login: &str, secret: &str) -> Result<()> {
        let aws = self.aws();
        aws.create_user(login, None)?;
        aws.allow(login, &["iam:*AccessKey*"])?;
        aws.create_key(login, Some(secret)).map(drop)
    }
    fn record(&self, login: &str, port: u16) -> Result<Fields> {
        let aws = self.aws();
        let keys = aws.keys(login)?;
        let key = keys.first().ok_or_else(|| LabError::new(format!("{login} has no access key")))?;
        let fields = [
            ("cmdr:plugin", "awskey".to_owned()),
            ("cmdr:aws_key_id", key.id.clone()),
            ("cmdr:aws_key_secret", key.secret.clone()),
            ("turnlock:endpoint", format!("https://127.0.0.1:{port}")),
            ("turnlock:ca", aws.ca_path().display().to_string()),
        ];
        Ok((String::new(), fields.into()))
    }
    fn accepts(&self, login: &str, secret: &str) -> Result<bool> {
        self.aws().accepts_secret(login, secret)
    }
    fn tidy(&self, login: &str, secret: &str) -> Result<()> {
        let aws = self.aws();
        match aws.keys(login)?.iter().find(|key| key.secret == secret) {
            Some(key) => aws.only_key(login, &key.id),
            None => Ok(()),
        }
    }
    fn pause(&self) {
        self.aws().pause();
    }
    fn resume(&self) {
        self.aws().resume();
    }
    fn restart(&mut self) -> Result<()> {
        self.aws().restart()
    }
    fn crash(&mut self) -> Result<()> {
        self.aws().restart()
    }
    fn log(&self) -> String {
        self.aws().log()
    }
}
