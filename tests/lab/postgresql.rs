//! A real PostgreSQL with TLS and SCRAM, and nothing else: no plain TCP, no trust.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    ADMIN, Authority, LabError, Login, Result,
    error::Context,
    process::{self, Ending, Owned, User, clean_command, wait_until, write_file},
    server::{self, Recipe, Site},
    template,
};

/// What a test may want different from the default.
#[derive(Debug, Clone)]
pub struct PostgresqlOptions {
    /// The names in the server's certificate.
    pub names: Vec<String>,
    /// Lines of `pg_hba.conf` that stand before the lab's own.
    pub hba: Vec<String>,
    /// Further lines of `postgresql.conf`; they win.
    pub settings: Vec<String>,
}

impl Default for PostgresqlOptions {
    fn default() -> Self {
        Self { names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()], hba: Vec::new(), settings: Vec::new() }
    }
}

/// A running PostgreSQL server that is gone when this value is.
pub struct Postgresql {
    // Dropped before the site: the server must end before its directory does.
    process: Option<Owned>,
    port: u16,
    recipe: Postgres,
    site: Site,
}

/// The lab's own access rules: SCRAM over TLS, and SCRAM over the socket.
const HBA: &str = "local all all scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256\n";

/// Everything is logged, so that a test can look for secrets in the log; `%e`
/// is the SQLSTATE by which failed log-ins are counted.
const CONF: &str = "\
listen_addresses = '127.0.0.1'
ssl = on
ssl_ca_file = ''
password_encryption = 'scram-sha-256'
log_line_prefix = '%m [%p] %e '
log_statement = 'all'
log_connections = on
log_disconnections = on
log_min_messages = 'info'
lc_messages = 'C'
fsync = off
full_page_writes = off
shared_buffers = '16MB'
max_connections = 50
";

impl Postgresql {
    /// Starts a server and returns once it accepts connections.
    pub fn start(options: PostgresqlOptions) -> Result<Self> {
        let programs = Self::programs()?;
        let user = User::for_server("postgres")?;
        let data = template::prepare(
            "postgresql",
            &programs.join("initdb"),
            INITDB.join(" ").as_str(),
            user.as_ref(),
            |draft| initdb(&programs, draft, user.as_ref()),
        )?;
        let authority = Authority::new()?;
        let names: Vec<&str> = options.names.iter().map(String::as_str).collect();
        let site = Site::new("pg", user, &authority, &names)?;
        template::copy(&data.join("data"), &site.file("data"))?;
        site.private_file("data/pg_hba.conf", format!("{}\n{HBA}", options.hba.join("\n")))?;
        let recipe = Postgres { server: programs.join("postgres"), settings: options.settings };
        let (process, port) = server::start(&recipe, &site)?;
        Ok(Self { process: Some(process), port, recipe, site })
    }

    /// The newest PostgreSQL that Debian's layout shows: the directory of its programs.
    pub fn programs() -> Result<PathBuf> {
        let found = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        found
            .map(|version| version.path().join("bin"))
            .filter(|programs| ["postgres", "initdb", "psql"].iter().all(|name| programs.join(name).is_file()))
            .max_by_key(|programs| {
                let version = programs.parent().and_then(Path::file_name).unwrap_or_default();
                version.to_string_lossy().parse::<u32>().unwrap_or(0)
            })
            .ok_or_else(|| {
                LabError::new("there is no PostgreSQL server under /usr/lib/postgresql; run `cargo xtask setup`")
            })
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

    /// The directory of the Unix socket.
    pub fn socket_directory(&self) -> &Path {
        self.site.path()
    }

    /// A superuser.
    pub fn admin(&self) -> Login {
        ADMIN
    }

    /// The postmaster's process id, `None` while the server is stopped.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Owned::id)
    }

    /// Runs SQL as the admin and gives what psql prints: rows as lines, columns parted by `|`.
    pub fn sql(&self, statements: &str) -> Result<String> {
        self.sql_with(statements, &[])
    }

    /// [`Self::sql`] with values that psql quotes: `:'name'` is a literal, `:"name"` an identifier.
    pub fn sql_with(&self, statements: &str, values: &[(&str, &str)]) -> Result<String> {
        let mut client = self.client(ADMIN.login, ADMIN.password)?;
        let mut script = String::from("\\set ON_ERROR_STOP on\n");
        for (name, value) in values {
            // By environment: psql would read a value in its script, and ps would show one in its arguments.
            let variable = format!("LAB_VALUE_{name}");
            client.env(&variable, value);
            script.push_str(&format!("\\getenv {name} {variable}\n"));
        }
        script.push_str(statements);
        script.push('\n');
        let output = process::run(&mut client, script.as_bytes())?;
        if output.succeeded() {
            return Ok(output.stdout.trim_end().to_owned());
        }
        Err(LabError::new(format!("psql ended with status {}: {}", output.status, output.stderr.trim_end())))
    }

    /// [`Self::sql_with`] of which the server's log shows nothing, so that a
    /// secret found in the log was put there by the program under test.
    pub fn sql_unlogged(&self, statements: &str, values: &[(&str, &str)]) -> Result<String> {
        let quiet =
            "SET log_statement = 'none'; SET log_min_error_statement = 'panic'; SET log_min_messages = 'fatal';";
        self.sql_with(&format!("{quiet}\n{statements}"), values)
    }

    /// Makes a role that can log in. Name and password may be as hostile as they like.
    pub fn create_role(&self, login: &str, password: &str) -> Result<()> {
        self.sql_unlogged(
            "CREATE ROLE :\"login\" LOGIN PASSWORD :'password';",
            &[("login", login), ("password", password)],
        )
        .map(drop)
    }

    /// Gives a role a password as the admin, unseen by the log.
    pub fn set_password(&self, login: &str, password: &str) -> Result<()> {
        self.sql_unlogged("ALTER ROLE :\"login\" PASSWORD :'password';", &[("login", login), ("password", password)])
            .map(drop)
    }

    /// Whether the server lets this login in with this password, over TLS with a
    /// checked certificate. `false` only when the server itself said that the
    /// password is wrong; anything else is an error, never a guess.
    pub fn accepts(&self, login: &str, password: &str) -> Result<bool> {
        let output = process::run(&mut self.client(login, password)?, b"SELECT 'logged in';\n")?;
        if output.succeeded() && output.stdout.trim_end() == "logged in" {
            return Ok(true);
        }
        if output.stderr.contains("FATAL:  password authentication failed for user") {
            return Ok(false);
        }
        Err(LabError::new(format!("psql could not tell whether {login:?} may log in: {}", output.stderr.trim_end())))
    }

    /// [`Self::accepts`] for many pairs of login and password, asked by as few psql as possible:
    /// each goes on until it is refused.
    pub fn accepts_all(&self, questions: &[(String, String)]) -> Result<Vec<bool>> {
        let mut answers = Vec::new();
        while let Some(rest) = questions.get(answers.len()..).filter(|rest| !rest.is_empty()) {
            let mut script = String::new();
            for (login, password) in rest {
                script.push_str(&format!(
                    "\\connect -reuse-previous=off 'postgresql://{}:{}@{}:{}/postgres?sslmode=verify-full\
                     &sslrootcert={}&connect_timeout=20'\nSELECT 'logged in';\n",
                    encoded(login),
                    encoded(password),
                    self.host(),
                    self.port,
                    encoded(&self.ca_path().display().to_string()),
                ));
            }
            let output = process::run(&mut self.client(ADMIN.login, ADMIN.password)?, script.as_bytes())?;
            answers.extend(output.stdout.lines().filter(|line| *line == "logged in").map(|_| true));
            if answers.len() == questions.len() {
                break;
            }
            if !output.stderr.contains("FATAL:  password authentication failed for user") {
                let said = output.stderr.trim_end();
                return Err(LabError::new(format!("psql could not tell whether a login is let in: {said}")));
            }
            answers.push(false);
        }
        Ok(answers)
    }

    /// Everything the server has logged, across restarts.
    pub fn log(&self) -> String {
        self.site.log()
    }

    /// How many log-ins the server refused because of a wrong password.
    pub fn failed_logins(&self) -> usize {
        self.log().lines().filter(|line| line.contains(" 28P01 FATAL:  password authentication failed")).count()
    }

    /// Puts a line before all others in `pg_hba.conf`; it holds for the next connection.
    pub fn add_hba(&self, line: &str) -> Result<()> {
        let path = self.site.file("data/pg_hba.conf");
        let rules = std::fs::read_to_string(&path).could_not(|| format!("read {}", path.display()))?;
        self.site.private_file("data/pg_hba.conf", format!("{line}\n{rules}"))?;
        self.reload()
    }

    /// Sets a server parameter, as in `synchronous_standby_names` to `nobody`.
    pub fn set_parameter(&self, name: &str, value: &str) -> Result<()> {
        self.sql_with("ALTER SYSTEM SET :\"name\" = :'value';", &[("name", name), ("value", value)])?;
        self.reload()
    }

    /// Undoes [`Self::set_parameter`].
    pub fn reset_parameter(&self, name: &str) -> Result<()> {
        self.sql_with("ALTER SYSTEM RESET :\"name\";", &[("name", name)])?;
        self.reload()
    }

    /// Makes the server read its configuration again, and returns when new connections see it.
    pub fn reload(&self) -> Result<()> {
        let before = self.sql("SELECT pg_conf_load_time(); SELECT pg_reload_conf();")?;
        let before = before.lines().next().unwrap_or_default().to_owned();
        wait_until("PostgreSQL to read its configuration", Duration::from_secs(10), || {
            self.sql("SELECT pg_conf_load_time();").ok().filter(|loaded| *loaded != before)
        })
        .map(drop)
    }

    /// Shuts the server down in good order; its data, port and log stay.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        process.stop(true, Duration::from_secs(20)).map(drop)
    }

    /// Ends the server without a chance to put anything in order; its data, port and log stay.
    /// (Not by SIGKILL: the postmaster's children would outlive it, and its shared memory.)
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Starts a stopped server again on the same port; a running one is stopped first.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.process = Some(server::start_on(&self.recipe, &self.site, self.port)?);
        Ok(())
    }

    /// Freezes the server with all its backends: connections stay open, nothing answers.
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

    fn client(&self, login: &str, password: &str) -> Result<Command> {
        // The one in the search path is Debian's script that looks for this one, which takes longer than its work.
        let mut client = clean_command(self.recipe.server.with_file_name("psql"));
        client
            .args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--no-password"])
            .env("HOME", self.site.path())
            .env("PGHOST", self.host())
            .env("PGPORT", self.port.to_string())
            .env("PGDATABASE", "postgres")
            .env("PGUSER", login)
            .env("PGPASSWORD", password)
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", self.ca_path())
            .env("PGCONNECT_TIMEOUT", "20");
        Ok(client)
    }
}

/// How PostgreSQL is configured and run.
struct Postgres {
    server: PathBuf,
    settings: Vec<String>,
}

impl Recipe for Postgres {
    const ENDING: Ending = Ending::Quit;

    fn ready(&self) -> &'static str {
        "database system is ready to accept connections"
    }

    fn command(&self, site: &Site, port: u16) -> Result<Command> {
        let directory = site.path().display();
        let place = format!(
            "port = {port}\nunix_socket_directories = '{directory}'\n\
             ssl_cert_file = '{directory}/server.crt'\nssl_key_file = '{directory}/server.key'\n"
        );
        site.private_file("data/postgresql.conf", format!("{CONF}{place}{}\n", self.settings.join("\n")))?;
        let mut command = clean_command(&self.server);
        command.arg("-D").arg(site.file("data"));
        Ok(command)
    }
}

// Small segments of write-ahead log: an empty cluster is then 23 MB to copy instead of 38.
const INITDB: [&str; 9] = [
    "--username=admin",
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C.UTF-8",
    "--no-sync",
    "--no-instructions",
    "--wal-segsize=1",
    "-D",
    "data",
];

fn initdb(programs: &Path, draft: &Path, user: Option<&User>) -> Result<()> {
    let mut command = clean_command(programs.join("initdb"));
    command.args(INITDB).env("HOME", draft).current_dir(draft);
    process::run_as(&mut command, user);
    // A pipe made by another user cannot be opened again through /dev/stdin, so the password is a file.
    let password = draft.join("password");
    write_file(&password, ADMIN.password)?;
    command.arg("--pwfile=password");
    let output = process::run(&mut command, b"")?;
    if output.succeeded() {
        return std::fs::remove_file(&password).could_not(|| "remove the password file".to_owned());
    }
    Err(LabError::new(format!("initdb ended with status {}: {}{}", output.status, output.stdout, output.stderr)))
}

/// As a part of a URL.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(byte).collect()
}
