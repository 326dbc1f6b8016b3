//! A real MySQL 9. Debian stable has none, so it comes from Debian sid: unpacked
//! into a cache directory by `cargo xtask setup`, run through its own dynamic
//! linker, because it wants a newer C library than the machine has.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use crate::{
    Flavor, LabError, MysqlOptions, MysqlServer, Result,
    mysql_family::{Sql, initialize},
    process::{self, User},
    python, template,
};

/// Names, versions and hashes of the packages, one a line: `name version sha256`.
pub const LOCK: &str = include_str!("mysql-sid.lock");

/// The directory into which the locked packages are unpacked. It is there as a
/// whole or not at all, and another lock means another directory.
pub fn tree(lock: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    lock.hash(&mut hasher);
    python::cache().join("mysql").join(format!("{:016x}", hasher.finish()))
}

fn base(root: &Path) -> String {
    let usr = root.join("usr");
    let usr = usr.display();
    format!(
        "basedir = {usr}\nplugin-dir = {usr}/lib/mysql/plugin\nlc-messages-dir = {usr}/share/mysql\n\
         secure-file-priv = NULL\nmysqlx = OFF\nperformance-schema = OFF\nlog-error-verbosity = 3\n\
         skip-log-bin\ninnodb-redo-log-capacity = 8M\ninnodb-flush-method = nosync\n"
    )
}

/// Starts a server and returns once it accepts connections.
pub fn start(options: MysqlOptions) -> Result<MysqlServer> {
    let root = tree(LOCK);
    let libraries = root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    let daemon = root.join("usr/sbin/mysqld");
    if !daemon.is_file() {
        return Err(LabError::new("MySQL 9 is not unpacked on this machine; run `cargo xtask setup`"));
    }
    let linker = std::fs::read_dir(&libraries)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux")))
        .ok_or_else(|| LabError::new(format!("{} holds no dynamic linker", libraries.display())))?;
    let search = format!("{}:{}", libraries.display(), root.join("usr/lib/mysql/private").display());
    let server = vec![linker, PathBuf::from("--library-path"), PathBuf::from(search), daemon.clone()];
    let recipe = Sql { flavor: Flavor::Mysql, server, base: base(&root), settings: options.settings };

    let user = User::for_server("mysql")?;
    let data = template::prepare("mysql", &daemon, &recipe.base, user.as_ref(), |draft| {
        let conf = draft.join("my.cnf");
        let data = draft.join("data");
        process::write_file(&conf, format!("[mysqld]\n{}datadir = {}\n", recipe.base, data.display()))?;
        let mut command = recipe.program()?;
        command.arg(format!("--defaults-file={}", conf.display())).arg("--initialize-insecure").current_dir(draft);
        initialize(&mut command, user.as_ref())?;
        // Two servers with one identity would be one server to a replication client; it is made anew.
        match std::fs::remove_file(data.join("auto.cnf")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(LabError::new(format!("could not remove auto.cnf: {error}")))
            }
            _ => Ok(()),
        }
    })?;
    MysqlServer::start(recipe, data, &options.names)
}
