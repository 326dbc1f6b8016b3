//! `cargo xtask demo`: the main job on real servers, from a Keeper export to
//! rotated passwords, each proven by asking the server.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::fd::AsFd,
    process::Stdio,
    time::Instant,
};

use lab::{
    AccountOptions, LabError, MysqlOptions, MysqlServer, Postgresql, PostgresqlOptions, Proxy, Result, Turnlock,
    mariadb,
    process::{self, Ending, Owned},
};
use serde_json::Value;

use crate::{
    programs::build_plain,
    say::{line, step},
    setup::{self, Need},
};

/// A Keeper-style export; ports and authorities are filled in when the servers run.
const EXPORT: &str = include_str!("../../tests/lab/demo/export.json");

const POSTGRESQL_PORT: u16 = 5432;

/// Where a record's password is really used, and what is to become of it.
struct Case {
    title: &'static str,
    target: Target,
    expected: Expected,
    /// By what its plugin is found.
    why: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Postgresql,
    Mariadb,
    /// Nobody can be asked.
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Rotated,
    /// The vault's password is wrong, so neither vault nor server may change.
    Broken,
    /// The administrator, who has no target of his own.
    NotRotated,
}

const CASES: [Case; 7] = [
    Case {
        title: "Orders database",
        target: Target::Postgresql,
        expected: Expected::Rotated,
        why: "by the URL of an untyped record",
    },
    Case {
        title: "Billing warehouse",
        target: Target::Postgresql,
        expected: Expected::Rotated,
        why: "by the port of a typed record",
    },
    Case { title: "Web shop", target: Target::Mariadb, expected: Expected::Rotated, why: "by cmdr:plugin" },
    Case {
        title: "Reports reader",
        target: Target::Mariadb,
        expected: Expected::Rotated,
        why: "by the URL; an admin resets it",
    },
    Case {
        title: "MariaDB administrator",
        target: Target::Mariadb,
        expected: Expected::NotRotated,
        why: "(only resets others)",
    },
    Case {
        title: "Door code",
        target: Target::Nothing,
        expected: Expected::Rotated,
        why: "by cmdr:plugin; nothing to reach",
    },
    Case {
        title: "Legacy archive",
        target: Target::Postgresql,
        expected: Expected::Broken,
        why: "by the URL; wrong password stored",
    },
];

/// What the server's account of the broken record really has.
const KNOWN_TO_NOBODY: &str = "changed-and-not-written-down";

/// The exit status of a run in which some of several records failed.
const SOME_FAILED: i32 = 6;

/// The verb itself.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if let Some(word) = arguments.first() {
        return Err(LabError::new(format!("`cargo xtask demo` takes no arguments, and got `{word}`")));
    }
    let begun = Instant::now();
    setup::ensure(&[Need::Compiler, Need::Postgresql, Need::Mariadb])?;
    step("build turnlock and its rotators", || {
        build_plain(["turnlock", "turnlock-noop", "turnlock-postgresql", "turnlock-mysql"])
    })?;
    let lab = step("start PostgreSQL and MariaDB, with TLS", Lab::start)?;
    let shown = Instant::now();
    let demo = Demo::prepare(&lab)?;
    let proven = demo.tell();
    drop(demo);
    drop(lab);
    proven?;
    line(&format!(
        "\nServers stopped, vault and files removed. {:.1} s, of which {:.1} s for what you saw.",
        begun.elapsed().as_secs_f64(),
        shown.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// The servers, and PostgreSQL once more at its well-known port.
struct Lab {
    postgresql: Postgresql,
    mariadb: MysqlServer,
    /// Only by the port 5432 can a record be recognised, and the machine's own
    /// server may have that on 127.0.0.1.
    standard: Option<Proxy>,
}

impl Lab {
    fn start() -> Result<Self> {
        let address = free_loopback(POSTGRESQL_PORT);
        let mut options = PostgresqlOptions::default();
        options.names.extend(address.map(|address| address.to_string()));
        let starting = std::thread::spawn(|| mariadb::start(MysqlOptions::default()));
        let postgresql = Postgresql::start(options)?;
        let mariadb = starting.join().map_err(|_| LabError::new("MariaDB could not be started"))??;
        let behind = SocketAddr::from((Ipv4Addr::LOCALHOST, postgresql.port()));
        let standard = address.and_then(|address| Proxy::start_at((address, POSTGRESQL_PORT).into(), behind).ok());
        Ok(Self { postgresql, mariadb, standard })
    }

    /// Whether the target of a case accepts this password; `None` where nobody can be asked.
    fn accepts(&self, case: &Case, login: &str, password: &str) -> Result<Option<bool>> {
        match case.target {
            Target::Postgresql => self.postgresql.accepts(login, password).map(Some),
            Target::Mariadb => self.mariadb.accepts(login, password).map(Some),
            Target::Nothing => Ok(None),
        }
    }

    fn create_account(&self, case: &Case, login: &str, password: &str) -> Result<()> {
        let password = match case.expected {
            Expected::Broken => KNOWN_TO_NOBODY,
            _ => password,
        };
        match case.target {
            Target::Postgresql => self.postgresql.create_role(login, password),
            Target::Mariadb => {
                self.mariadb.create_account(login, "%", password, AccountOptions::default())?;
                match case.expected {
                    Expected::NotRotated => self.mariadb.sql(&format!(
                        "GRANT CREATE USER, SELECT ON *.* TO '{login}'@'%'; GRANT UPDATE ON mysql.* TO '{login}'@'%';"
                    )).map(drop),
                    _ => Ok(()),
                }
            }
            Target::Nothing => Ok(()),
        }
    }
}

/// An address of this machine on which nobody listens at that port.
fn free_loopback(port: u16) -> Option<IpAddr> {
    (2..=250)
        .map(|last| IpAddr::from(Ipv4Addr::new(127, 0, 0, last)))
        .find(|address| TcpListener::bind((*address, port)).is_ok())
}

/// A new home with the export in it.
struct Demo<'a> {
    lab: &'a Lab,
    /// What the vault's user would have to lose: title, login, password.
    before: Vec<(&'static Case, String, String)>,
    // Its guard removes the home when this process is gone; dropped before the home.
    _guard: Owned,
    turnlock: Turnlock,
}

impl<'a> Demo<'a> {
    fn prepare(lab: &'a Lab) -> Result<Self> {
        let turnlock = Turnlock::new()?;
        let mut idle = process::clean_command("sleep");
        idle.arg("infinity");
        let guard = Owned::start(&mut idle, Ending::Kill, Some(turnlock.home()))?;
        let export = filled_in(lab);
        let before = accounts(&export)?;
        for (case, login, password) in &before {
            lab.create_account(case, login, password)?;
        }
        process::write_file(&turnlock.home().join("export.json"), export)?;
        Ok(Self { lab, before, _guard: guard, turnlock })
    }

    /// The variables that every command below sees.
    fn exports(&self) -> String {
        format!(
            "export TURNLOCK_VAULT={} TURNLOCK_KEY_FILE={} XDG_STATE_HOME={}",
            self.turnlock.vault().display(),
            self.turnlock.key_file().display(),
            self.turnlock.state_directory().display()
        )
    }

    /// The story, command by command.
    fn tell(&self) -> Result<()> {
        line(&format!("\n$ {}", self.exports()));
        self.type_in(&["vault", "init"], 0)?;
        meaning("A new vault: one encrypted file, opened by a key file that only you can read (mode 0600).");

        self.type_in(&["import", "keeper", "export.json"], 0)?;
        meaning("A Keeper export, read as it is: untyped and typed records, cmdr: fields, folders.");

        self.type_in(&["list"], 0)?;
        meaning(
            "The plugin column was worked out from URLs, ports and cmdr:plugin; the administrator has no target of its own.",
        );

        if self.lab.standard.is_some() {
            self.type_in(&["explain", "Billing warehouse"], 0)?;
            meaning("Which field decided what. Nothing here is guessed in secret.");
        }

        self.type_in(&["rotate", "--match", ".", "--force", "--jobs", "4"], SOME_FAILED)?;
        meaning(&format!(
            "Exit status {SOME_FAILED}: some were rotated, some not. The archive's stored password was wrong on purpose, so nothing was changed."
        ));

        let proven = self.prove()?;

        self.type_in(&["status"], 0)?;
        meaning("Nothing was left half done.");
        self.type_in(&["audit", "verify"], 0)?;
        meaning("Every step is in the audit chain, and the chain is whole.");

        if proven {
            line("\nAll as it should be.");
            Ok(())
        } else {
            Err(LabError::new("the servers do not agree with what turnlock said; see the table"))
        }
    }

    /// Asks the servers, through psql and mariadb, what they accept now.
    fn prove(&self) -> Result<bool> {
        let mut rows =
            vec![["RECORD", "PLUGIN", "FOUND", "OUTCOME", "OLD PASSWORD", "NEW PASSWORD", ""].map(str::to_owned)];
        let plugins = self.plugins()?;
        let mut all_well = true;
        for (case, login, old) in &self.before {
            let now = self.password_of(case.title)?;
            let changed = now != *old;
            let old_works = self.lab.accepts(case, login, old)?;
            let new_works = if changed { self.lab.accepts(case, login, &now)? } else { None };
            let well = match case.expected {
                Expected::Rotated if case.target == Target::Nothing => changed,
                Expected::Rotated => changed && old_works == Some(false) && new_works == Some(true),
                Expected::NotRotated => !changed && old_works == Some(true),
                Expected::Broken => {
                    !changed
                        && old_works == Some(false)
                        && self.lab.accepts(case, login, KNOWN_TO_NOBODY)? == Some(true)
                }
            };
            all_well &= well;
            let outcome = match (case.expected, changed) {
                (_, true) => "rotated",
                (Expected::NotRotated, false) => "not rotatable",
                (_, false) => "unchanged",
            };
            let heard = |works: Option<bool>| match works {
                Some(true) => "accepted",
                Some(false) => "refused",
                None => "-",
            };
            rows.push([
                case.title.to_owned(),
                plugins.get(case.title).cloned().unwrap_or_default(),
                case.why.to_owned(),
                outcome.to_owned(),
                heard(old_works).to_owned(),
                heard(new_works).to_owned(),
                if well { "as it should be" } else { "WRONG" }.to_owned(),
            ]);
        }
        line("\nNow the servers are asked, by psql and mariadb, with the passwords from the export");
        line("and with those that `turnlock show RECORD --field password` has now:\n");
        for row in aligned(&rows) {
            line(&format!("  {row}"));
        }
        meaning("Each old password is dead, each new one lives; the broken account still has what it had.");
        Ok(all_well)
    }

    /// The plugin of each record, as turnlock lists them.
    fn plugins(&self) -> Result<BTreeMap<String, String>> {
        let listed = self.ask(&["list", "--output", "json"])?;
        let rows = listed.lines().filter_map(|row| serde_json::from_str::<Value>(row).ok());
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        Ok(rows.map(|row| (text(&row, "title"), text(&row, "plugin"))).collect())
    }

    fn password_of(&self, title: &str) -> Result<String> {
        let shown = self.ask(&["show", title, "--field", "password"])?;
        Ok(shown.strip_suffix('\n').unwrap_or(&shown).to_owned())
    }

    /// Runs a command whose answer only the demo reads.
    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.turnlock.command(arguments)?;
        command.env("TURNLOCK_KEY_FILE", self.turnlock.key_file());
        let output = process::run(&mut command, b"")?;
        if output.succeeded() {
            return Ok(output.stdout);
        }
        Err(LabError::new(format!(
            "`turnlock {}` ended with status {}: {}",
            arguments.join(" "),
            output.status,
            output.stderr
        )))
    }

    /// Shows a command as one types it, then what it says.
    fn type_in(&self, arguments: &[&str], expected: i32) -> Result<()> {
        let typed: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
        line(&format!("\n{} turnlock {}", prompt(), typed.join(" ")));
        let mut command = self.turnlock.command(arguments)?;
        // Both streams into one, so that the order on the screen is the real one.
        let screen = io::stderr()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| LabError::new(format!("could not share the screen: {error}")))?;
        command
            .env("TURNLOCK_KEY_FILE", self.turnlock.key_file())
            .envs(process::environment("TERM").map(|term| ("TERM", term)))
            .stdin(Stdio::null())
            .stdout(screen);
        let status = command
            .status()
            .map(process::status_number)
            .map_err(|error| LabError::new(format!("could not start turnlock: {error}")))?;
        if status == expected {
            return Ok(());
        }
        Err(LabError::new(format!("`turnlock {}` ended with status {status} instead of {expected}", typed.join(" "))))
    }
}

fn filled_in(lab: &Lab) -> String {
    let (standard_host, standard_port) = match &lab.standard {
        Some(proxy) => (proxy.host(), POSTGRESQL_PORT),
        None => {
            line(
                "    (port 5432 is taken on every address of this machine: \"Billing warehouse\" names its plugin instead)",
            );
            ("127.0.0.1".to_owned(), lab.postgresql.port())
        }
    };
    let export = EXPORT
        .replace("{postgresql_port}", &lab.postgresql.port().to_string())
        .replace("{postgresql_ca}", &lab.postgresql.ca_path().display().to_string())
        .replace("{mariadb_port}", &lab.mariadb.port().to_string())
        .replace("{mariadb_ca}", &lab.mariadb.ca_path().display().to_string())
        .replace("{standard_host}", &standard_host);
    if lab.standard.is_some() {
        return export;
    }
    export.replace(
        "\"port\": \"5432\" },",
        &format!("\"port\": \"{standard_port}\" }}, \"$text:cmdr:plugin\": \"postgresql\","),
    )
}

/// Who is in the export, in the order of [`CASES`].
fn accounts(export: &str) -> Result<Vec<(&'static Case, String, String)>> {
    let parsed: Value =
        serde_json::from_str(export).map_err(|error| LabError::new(format!("the demo's export is broken: {error}")))?;
    let records = parsed.get("records").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    CASES
        .iter()
        .map(|case| {
            let record = records
                .iter()
                .find(|record| record["title"] == case.title)
                .ok_or_else(|| LabError::new(format!("the demo's export has no {:?}", case.title)))?;
            let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
            Ok((case, text("login"), text("password")))
        })
        .collect()
}

fn prompt() -> &'static str {
    if io::stderr().is_terminal() { "\x1b[1m$\x1b[0m" } else { "$" }
}

fn meaning(text: &str) {
    line(&format!("→ {text}"));
}

/// As a shell wants it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if word.chars().all(plain) && word != "." { word.to_owned() } else { format!("'{word}'") }
}

/// Columns as wide as their widest cell.
pub(crate) fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_export_holds_every_case_and_no_other() {
        let accounts = accounts(EXPORT).expect("the bundled export is whole");
        let export: Value = serde_json::from_str(EXPORT).expect("the bundled export is JSON");
        assert_eq!(export["records"].as_array().map(Vec::len), Some(accounts.len()));
        assert!(accounts.iter().all(|(_, login, password)| !login.is_empty() && !password.is_empty()));
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a", "b"], ["long", "ü"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows), ["a     b", "long  ü"]);
    }
}
