//! A real MariaDB with TLS and the ed25519 plugin.

use crate::{
    Flavor, MysqlOptions, MysqlServer, Result,
    mysql_family::{Sql, initialize},
    process::{User, clean_command, need_program},
    template,
};

/// `nosync`: a container's disk makes each `fsync` of InnoDB a pause of milliseconds.
const BASE: &str = "\
plugin-load-add = auth_ed25519
log-warnings = 2
innodb-flush-method = nosync
innodb-log-file-size = 4M
key-buffer-size = 1M
aria-pagecache-buffer-size = 1M
";

/// What makes the empty data directory; small log files are quick to copy.
const INSTALL: [&str; 7] = [
    "--no-defaults",
    "--auth-root-authentication-method=normal",
    "--skip-test-db",
    "--skip-name-resolve",
    "--innodb-log-file-size=4M",
    "--innodb-flush-method=nosync",
    "--datadir=data",
];

/// Starts a server and returns once it accepts connections.
pub fn start(options: MysqlOptions) -> Result<MysqlServer> {
    let server = need_program("mariadbd")?;
    let user = User::for_server("mysql")?;
    let data = template::prepare("mariadb", &server, &INSTALL.join(" "), user.as_ref(), |draft| {
        let mut command = clean_command(need_program("mariadb-install-db")?);
        command.args(INSTALL.iter().filter(|argument| **argument != "--datadir=data"));
        command.arg(format!("--datadir={}", draft.join("data").display())).current_dir(draft);
        initialize(&mut command, user.as_ref())
    })?;
    let recipe =
        Sql { flavor: Flavor::Mariadb, server: vec![server], base: BASE.to_owned(), settings: options.settings };
    MysqlServer::start(recipe, data, &options.names)
}
