//! `cargo xtask bench`: what a rotation costs beside the bare driver, beside
//! Commander and beside OpenBao, in one run and on the same servers. Figures,
//! never a gate: nothing here fails because something was slow.

mod figures;
mod fleets;
mod measure;
mod rivals;
mod ten_thousand;
mod vaults;

use std::{
    fs::{self, File},
    io::Write,
};

use lab::{LabError, Result, process};

use self::{
    figures::{Figure, tell},
    measure::{Programs, finish, median},
};
use crate::{
    programs::Build,
    say::step,
    setup::{self, Need},
};

/// How often what takes milliseconds is measured; the median counts.
const ROUNDS: usize = 21;

/// What can be measured by itself.
type Part = (&'static str, &'static str, fn(&Programs) -> Result<Vec<Figure>>);

const PARTS: [Part; 6] = [
    ("sizes", "look at the programs", sizes),
    ("starts", "measure starts and flushes", starts),
    ("postgresql", "rotate on PostgreSQL, beside the floor, Commander and OpenBao", fleets::postgresql),
    ("others", "rotate on MariaDB, OpenLDAP and SSH", fleets::others),
    ("vaults", "measure vaults of 100 to 1,000,000 records", vaults::measure),
    ("many", "rotate 10,000 roles while targets are down", ten_thousand::measure),
];

/// The verb itself.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let names: Vec<&str> = PARTS.iter().map(|(name, ..)| *name).collect();
    let (mut as_json, mut how, mut chosen) = (false, Build::Release, Vec::new());
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "--output" | "-o" if words.next() == Some("json") => as_json = true,
            "--quick" => how = Build::Plain,
            name if names.contains(&name) => chosen.push(name),
            _ => {
                return Err(LabError::new(format!(
                    "`cargo xtask bench` knows --output json, --quick to try itself with the programs that tests have built, \
                     and to measure only some of {}",
                    names.join(", ")
                )));
            }
        }
    }
    let needs = [Need::Compiler, Need::Python, Need::Postgresql, Need::Mariadb, Need::Openldap, Need::UnixHosts];
    setup::ensure(&needs)?;
    step("install what is compared with", rivals::install)?;
    let programs = step("build the programs", || Programs::build(how))?;
    let mut figures = Vec::new();
    let mut parts = PARTS.iter().filter(|(name, ..)| chosen.is_empty() || chosen.contains(name));
    let ended = parts.try_for_each(|(_, what, measure)| {
        figures.extend(step(what, || measure(&programs))?);
        Ok(())
    });
    tell(&figures, as_json);
    ended
}

/// How large the programs are, in megabytes of a million bytes.
fn sizes(programs: &Programs) -> Result<Vec<Figure>> {
    [("turnlock", 6.0), ("turnlock-postgresql", 3.8), ("turnlock-noop", 3.8), ("turnlock-mysql", 5.2)]
        .into_iter()
        .map(|(name, limit)| {
            let file = fs::metadata(programs.at(name)).map_err(|error| LabError::new(format!("no {name}: {error}")))?;
            Ok(Figure::at_most(format!("size of {name}"), file.len() as f64 / 1e6, "MB", limit))
        })
        .collect()
}

/// What it takes to start a program at all, and to flush a file of this disk.
fn starts(programs: &Programs) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for name in ["turnlock", "turnlock-postgresql"] {
        let mut version = process::clean_command(programs.at(name));
        version.arg("--version");
        let each = median(ROUNDS, || finish(&mut version, b"").map(drop))?;
        figures.push(Figure::plain(format!("start of {name}"), each, "ms"));
    }
    let path = programs.at("flushed");
    let failed = |error| LabError::new(format!("could not flush {}: {error}", path.display()));
    let mut file = File::create(&path).map_err(failed)?;
    let flush = median(ROUNDS, || file.write_all(&[7; 4096]).and_then(|()| file.sync_data()).map_err(failed))?;
    fs::remove_file(&path).map_err(failed)?;
    figures.push(Figure::plain("one flush of the vault's disk", flush, "ms"));
    Ok(figures)
}
