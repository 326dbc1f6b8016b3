//! MariaDB and MySQL: the promises of every rotator. What only these two can
//! break is asked of the rotator alone, in `mysql_rotator.rs`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod promises;
mod world;

use std::path::PathBuf;

use lab::{AccountOptions, Flavor, MysqlOptions, MysqlServer, mariadb, mysql};
use promises::Target;

/// One of the two, with every statement it gets written down.
struct Server<const IS_MARIADB: bool>(MysqlServer);

impl<const IS_MARIADB: bool> Target for Server<IS_MARIADB> {
    const PLUGIN: &'static str = "mysql";
    const SCHEME: &'static str = if IS_MARIADB { "mariadb" } else { "mysql" };
    const SERVER: &'static str = if IS_MARIADB { "1" } else { "MySQL 9" };

    fn hostile_logins() -> Vec<String> {
        vec![
            r#"it's "odd" \ \\ ;-- %s"#.to_owned(),
            "x'); DROP USER admin;-- `".to_owned(),
            "Größe ﬁ".to_owned(),
            "UPPER and lower".to_owned(),
            "-hy@phen%".to_owned(),
            // As many characters as both servers take.
            "x'\"ß".chars().cycle().take(31).collect::<String>() + "x",
        ]
    }

    fn start(names: &[&str]) -> Self {
        let options = MysqlOptions {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            settings: vec!["general_log = 1".to_owned()],
        };
        let server = Self(if IS_MARIADB { mariadb::start(options) } else { mysql::start(options) }.unwrap());
        assert_eq!(server.0.flavor() == Flavor::Mariadb, IS_MARIADB);
        server
    }
    fn port(&self) -> u16 {
        self.0.port()
    }
    fn ca(&self) -> PathBuf {
        self.0.ca_path()
    }
    fn create(&self, login: &str, password: &str) {
        self.0.create_account(login, "%", password, AccountOptions::default()).unwrap();
    }
    fn create_admin(&self, login: &str, password: &str) {
        self.create(login, password);
        let right = if IS_MARIADB { "UPDATE ON mysql.*" } else { "CREATE USER ON *.*" };
        self.0.sql(&format!("GRANT {right} TO {login}@'%'; GRANT SELECT ON mysql.* TO {login}@'%';")).unwrap();
    }
    fn set_password(&self, login: &str, password: &str) {
        self.0.set_password(login, password).unwrap();
    }
    fn accepts(&self, login: &str, password: &str) -> bool {
        self.0.accepts(login, password).unwrap()
    }
    fn failed_logins(&self) -> usize {
        self.0.failed_logins()
    }
    fn log(&self) -> String {
        self.0.general_log() + &self.0.log()
    }
    fn pause(&self) {
        self.0.pause();
    }
    fn resume(&self) {
        self.0.resume();
    }
    fn stop(&mut self) {
        self.0.stop().unwrap();
    }
    fn restart(&mut self) {
        self.0.restart().unwrap();
    }
}

mod on_mariadb {
    crate::promises::promises!(crate::Server<true>);
}

mod on_mysql {
    crate::promises::promises!(crate::Server<false>);
}
