//! What MariaDB and MySQL have in common, which is nearly everything but the words.

use std::{path::PathBuf, process::Command, time::Duration};

use crate::{
    ADMIN, Authority, LabError, Login, Result,
    process::{self, Ending, Owned, User, clean_command},
    server::{self, Recipe, Site},
    template,
};

/// Which of the two servers this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// MariaDB, as Debian stable packages it.
    Mariadb,
    /// Oracle's MySQL, as Debian sid packages it.
    Mysql,
}

/// What a test may want different from the default.
#[derive(Debug, Clone)]
pub struct MysqlOptions {
    /// The names in the server's certificate.
    pub names: Vec<String>,
    /// Further lines of `my.cnf`, section `[mysqld]`; they win.
    pub settings: Vec<String>,
}

impl Default for MysqlOptions {
    fn default() -> Self {
        Self { names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()], settings: Vec::new() }
    }
}

/// What a new account may have beside name, host and password.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccountOptions<'a> {
    /// The authentication plugin, as in `ed25519`; `None` is the server's default.
    pub plugin: Option<&'a str>,
    /// SQL that follows, as in `REQUIRE SSL` or `PASSWORD REQUIRE CURRENT`.
    pub clauses: &'a str,
}

/// A running MariaDB or MySQL server that is gone when this value is.
pub struct MysqlServer {
    // Dropped before the site: the server must end before its directory does.
    process: Option<Owned>,
    port: u16,
    recipe: Sql,
    site: Site,
}

/// How one of the two is configured and run.
pub(crate) struct Sql {
    pub(crate) flavor: Flavor,
    /// The program and the arguments that stand before all others.
    pub(crate) server: Vec<PathBuf>,
    /// Lines of `my.cnf` that belong to the flavor.
    pub(crate) base: String,
    pub(crate) settings: Vec<String>,
}

/// Small buffers and no syncs: the data lives as long as one test.
const CONF: &str = "\
[mysqld]
bind-address = 127.0.0.1
skip-name-resolve
general-log = 0
innodb-buffer-pool-size = 16M
innodb-flush-log-at-trx-commit = 0
innodb-doublewrite = 0
max-connections = 60
table-open-cache = 200
ssl-ca = ca.crt
ssl-cert = server.crt
ssl-key = server.key
";

/// One statement a line: the init file of both knows no other form, and an
/// error in it is only logged. Accounts without a password do not stay.
const MARIADB_INIT: &str = "\
CREATE OR REPLACE USER 'admin'@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL PRIVILEGES ON *.* TO 'admin'@'127.0.0.1' WITH GRANT OPTION;
DROP USER IF EXISTS 'root'@'localhost', 'root'@'127.0.0.1', 'root'@'::1';
";
const MYSQL_INIT: &str = "\
CREATE USER IF NOT EXISTS 'admin'@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL PRIVILEGES ON *.* TO 'admin'@'127.0.0.1' WITH GRANT OPTION;
DROP USER IF EXISTS 'root'@'localhost';
";

impl Recipe for Sql {
    // Its memory is its own: there is nothing to give back.
    const ENDING: Ending = Ending::Kill;

    fn ready(&self) -> &'static str {
        "ready for connections"
    }

    fn command(&self, site: &Site, port: u16) -> Result<Command> {
        let place = site.path().display();
        let files = CONF
            .replace("ssl-ca = ", &format!("ssl-ca = {place}/"))
            .replace("ssl-cert = ", &format!("ssl-cert = {place}/"))
            .replace("ssl-key = ", &format!("ssl-key = {place}/"));
        let paths = format!(
            "port = {port}\ndatadir = {place}/data\nsocket = {place}/s.sock\npid-file = {place}/pid\n\
             general-log-file = {place}/general.log\ninit-file = {place}/init.sql\ntmpdir = {place}\n"
        );
        let settings = self.settings.join("\n");
        site.private_file("my.cnf", format!("{files}{paths}{}\n{settings}\n", self.base))?;
        let init = match self.flavor {
            Flavor::Mariadb => MARIADB_INIT,
            Flavor::Mysql => MYSQL_INIT,
        };
        site.private_file("init.sql", init.replace("{password}", ADMIN.password))?;
        let mut command = self.program()?;
        command.arg(format!("--defaults-file={place}/my.cnf"));
        Ok(command)
    }
}

impl Sql {
    /// The server program, still without arguments of its own.
    pub(crate) fn program(&self) -> Result<Command> {
        let mut words = self.server.iter();
        let first = words.next().ok_or_else(|| LabError::new("a server without a program"))?;
        let mut command = clean_command(first);
        command.args(words);
        Ok(command)
    }
}

impl MysqlServer {
    pub(crate) fn start(recipe: Sql, data: PathBuf, names: &[String]) -> Result<Self> {
        let user = User::for_server("mysql")?;
        let authority = Authority::new()?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let prefix = if recipe.flavor == Flavor::Mariadb { "mariadb" } else { "mysql" };
        let site = Site::new(prefix, user, &authority, &names)?;
        template::copy(&data.join("data"), &site.file("data"))?;
        let (process, port) = server::start(&recipe, &site)?;
        let server = Self { process: Some(process), port, recipe, site };
        // A broken init file is logged and otherwise ignored by both servers.
        match server.log().lines().find(|line| line.contains("[ERROR]")) {
            Some(line) => Err(LabError::new(format!("the server started with an error: {line}"))),
            None => Ok(server),
        }
    }

    /// MariaDB or MySQL.
    pub fn flavor(&self) -> Flavor {
        self.recipe.flavor
    }

    /// The address to connect to.
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of the authority that issued the server's certificate.
    pub fn ca_path(&self) -> PathBuf {
        self.site.file("ca.crt")
    }

    /// The Unix socket.
    pub fn socket_path(&self) -> PathBuf {
        self.site.file("s.sock")
    }

    /// An account with every privilege, `admin@127.0.0.1`.
    pub fn admin(&self) -> Login {
        ADMIN
    }

    /// The server's process id, `None` while it is stopped.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Owned::id)
    }

    /// Runs SQL as the admin and gives the rows as lines, columns parted by tabs.
    pub fn sql(&self, statements: &str) -> Result<String> {
        self.sql_with(statements, &[])
    }

    /// [`Self::sql`] with values: each is the user variable `@name` of the session.
    pub fn sql_with(&self, statements: &str, values: &[(&str, &str)]) -> Result<String> {
        let mut script = String::new();
        if !values.is_empty() {
            // The lab's own secrets are no business of the general log.
            script.push_str("SET SESSION sql_log_off = 1;\n");
        }
        for (name, value) in values {
            // Hexadecimal, so that nothing in the value can be mistaken for SQL.
            let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
            script.push_str(&format!("SET @{name} = CONVERT(X'{hex}' USING utf8mb4);\n"));
        }
        script.push_str(statements);
        script.push('\n');
        let output = process::run(&mut self.client(ADMIN.login, ADMIN.password)?, script.as_bytes())?;
        if output.succeeded() {
            return Ok(output.stdout.trim_end().to_owned());
        }
        Err(LabError::new(format!(
            "the mariadb client ended with status {}: {}",
            output.status,
            output.stderr.trim_end()
        )))
    }

    /// Makes an account. Name, host and password may be as hostile as they like.
    pub fn create_account(&self, user: &str, host: &str, password: &str, options: AccountOptions<'_>) -> Result<()> {
        let proof = match (options.plugin, self.flavor()) {
            (None, _) => "' IDENTIFIED BY ', QUOTE(@password)",
            (Some(_), Flavor::Mariadb) => "' IDENTIFIED VIA ', @plugin, ' USING PASSWORD(', QUOTE(@password), ')'",
            (Some(_), Flavor::Mysql) => "' IDENTIFIED WITH ', @plugin, ' BY ', QUOTE(@password)",
        };
        // The server quotes, with its own function, under its own settings.
        let statements = format!(
            "SET @statement = CONCAT('CREATE USER ', QUOTE(@user), '@', QUOTE(@host), {proof}, ' ', @clauses);\n\
             PREPARE statement FROM @statement; EXECUTE statement; DEALLOCATE PREPARE statement;"
        );
        let values = [
            ("user", user),
            ("host", host),
            ("password", password),
            ("plugin", options.plugin.unwrap_or_default()),
            ("clauses", options.clauses),
        ];
        self.sql_with(&statements, &values).map(drop)
    }

    /// Gives `'user'@'%'` another password.
    pub fn set_password(&self, user: &str, password: &str) -> Result<()> {
        let statement = match self.flavor() {
            Flavor::Mariadb => "'SET PASSWORD FOR ', QUOTE(@user), '@\\'%\\' = PASSWORD(', QUOTE(@password), ')'",
            Flavor::Mysql => "'ALTER USER ', QUOTE(@user), '@\\'%\\' IDENTIFIED BY ', QUOTE(@password)",
        };
        let statements =
            format!("SET @statement = CONCAT({statement});\nPREPARE statement FROM @statement; EXECUTE statement;");
        self.sql_with(&statements, &[("user", user), ("password", password)]).map(drop)
    }

    /// Whether the server lets this user in from 127.0.0.1 with this password,
    /// over TLS with a checked certificate. `false` only when the server itself
    /// denied access (error 1045); anything else is an error, never a guess.
    pub fn accepts(&self, user: &str, password: &str) -> Result<bool> {
        let output = process::run(&mut self.client(user, password)?, b"DO 1;\n")?;
        if output.succeeded() {
            return Ok(true);
        }
        // An expired password is a right one, a wrong one is told first: MariaDB logs
        // in and then refuses statements (1820), MySQL refuses such a client (1862).
        if ["ERROR 1820 ", "ERROR 1862 "].iter().any(|expired| output.stderr.contains(expired)) {
            return Ok(true);
        }
        if output.stderr.contains("ERROR 1045 ") {
            return Ok(false);
        }
        Err(LabError::new(format!(
            "the client could not tell whether {user:?} may log in: {}",
            output.stderr.trim_end()
        )))
    }

    /// Everything the server has written to its error log, across restarts.
    pub fn log(&self) -> String {
        self.site.log()
    }

    /// Switches the general log, which holds every statement, on or off.
    pub fn set_general_log(&self, on: bool) -> Result<()> {
        self.sql(if on { "SET GLOBAL general_log = 1;" } else { "SET GLOBAL general_log = 0;" }).map(drop)
    }

    /// The general log so far.
    pub fn general_log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.site.file("general.log")).unwrap_or_default()).into_owned()
    }

    /// How many log-ins the server refused.
    pub fn failed_logins(&self) -> usize {
        self.log().lines().filter(|line| line.contains("Access denied for user")).count()
    }

    /// Shuts the server down in good order; its data, port and log stay.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        process.stop(false, Duration::from_secs(30)).map(drop)
    }

    /// Ends the server without a chance to put anything in order; its data, port and log stay.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Starts a stopped server again on the same port; a running one is stopped first.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.process = Some(server::start_on(&self.recipe, &self.site, self.port)?);
        Ok(())
    }

    /// Freezes the server: connections stay open, nothing answers.
    pub fn pause(&self) {
        if let Some(process) = &self.process {
            process.pause();
        }
    }

    /// Ends a [`Self::pause`].
    pub fn resume(&self) {
        if let Some(process) = &self.process {
            process.resume();
        }
    }

    fn client(&self, user: &str, password: &str) -> Result<Command> {
        let mut client = clean_command(process::need_program("mariadb")?);
        client
            .arg("--no-defaults")
            .args(["--batch", "--skip-column-names", "--protocol=tcp", "--connect-timeout=20"])
            .args(["--default-character-set=utf8mb4", "--ssl-verify-server-cert"])
            .arg(format!("--ssl-ca={}", self.ca_path().display()))
            .arg(format!("--host={}", self.host()))
            .arg(format!("--port={}", self.port))
            .arg(format!("--user={user}"))
            .env("HOME", self.site.path())
            .env("MYSQL_PWD", password);
        Ok(client)
    }
}

/// Runs the program that makes an empty data directory.
pub(crate) fn initialize(command: &mut Command, user: Option<&User>) -> Result<()> {
    process::run_as(command, user);
    let output = process::run_within(command, b"", Duration::from_secs(120))?;
    if output.succeeded() {
        return Ok(());
    }
    let name = command.get_program().to_string_lossy().into_owned();
    Err(LabError::new(format!("{name} ended with status {}: {}{}", output.status, output.stdout, output.stderr)))
}
