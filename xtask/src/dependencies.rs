//! `cargo xtask dependencies`: the tree that is built for this platform,
//! against `deny.toml`, by what cargo knows offline.

use lab::{LabError, Result, process};

use crate::{cargo, root, say::line};

/// Reads the tree and applies the file.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if let Some(word) = arguments.first() {
        return Err(LabError::new(format!("`cargo xtask dependencies` takes no arguments, and got `{word}`")));
    }
    let rules =
        Rules::read(&std::fs::read_to_string(root().join("deny.toml")).map_err(|e| LabError::new(e.to_string()))?);
    let mut tree = cargo(&["tree", "--workspace", "--locked", "--prefix", "none", "--edges", "normal,build,dev"]);
    tree.args(["--target", "x86_64-unknown-linux-gnu", "--format", "{p}|{l}"]);
    let listed = process::run(&mut tree, b"")?;
    if !listed.succeeded() {
        return Err(LabError::new(format!("cargo could not tell the tree: {}", listed.stderr)));
    }
    let mut packages: Vec<&str> = listed.stdout.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    packages.sort_unstable();
    packages.dedup();
    let refused: Vec<String> = packages.iter().filter_map(|package| rules.refuses(package)).collect();
    for sentence in &refused {
        line(sentence);
    }
    if refused.is_empty() {
        line(&format!("{} packages keep deny.toml; advisories are not looked up offline", packages.len()));
        return Ok(());
    }
    Err(LabError::new(format!("{} of {} packages break deny.toml", refused.len(), packages.len())))
}

/// What `deny.toml` says.
struct Rules {
    /// Names that must not be there, and below which version.
    banned: Vec<(String, Option<String>)>,
    licences: Vec<String>,
}

impl Rules {
    fn read(text: &str) -> Self {
        let quoted = |line: &str| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let banned = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split('"').next())
            .map(|named| match named.split_once(":<") {
                Some((name, version)) => (name.to_owned(), Some(version.to_owned())),
                None => (named.to_owned(), None),
            })
            .collect();
        let allow = text.split_once("\nallow = [").and_then(|(_, rest)| rest.split(']').next()).unwrap_or_default();
        Self { banned, licences: quoted(allow) }
    }

    /// Why a package, as `name vVERSION (SOURCE)|LICENCE`, must not be there.
    fn refuses(&self, package: &str) -> Option<String> {
        let (named, licence) = package.split_once('|')?;
        let mut words = named.split_whitespace();
        let (name, version) = (words.next()?, words.next()?.trim_start_matches('v'));
        let source = words.next().unwrap_or_default();
        if source.contains("://") {
            return Some(format!("{name} {version} comes from {source}"));
        }
        let is_banned = |(banned, below): &(String, Option<String>)| {
            banned == name && below.as_ref().is_none_or(|below| numbers(version) < numbers(below))
        };
        if self.banned.iter().any(is_banned) {
            return Some(format!("{name} {version} is banned"));
        }
        (!self.allows(licence)).then(|| format!("{name} {version} has the licence `{licence}`"))
    }

    /// Whether one of the licences of an SPDX expression can be kept.
    fn allows(&self, expression: &str) -> bool {
        let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut rest = words.as_slice();
        self.either(&mut rest) && rest.is_empty()
    }

    fn either(&self, words: &mut &[&str]) -> bool {
        let mut allowed = self.both(words);
        while let ["OR", rest @ ..] = *words {
            *words = rest;
            allowed |= self.both(words);
        }
        allowed
    }

    fn both(&self, words: &mut &[&str]) -> bool {
        let mut allowed = self.one(words);
        while let ["AND", rest @ ..] = *words {
            *words = rest;
            allowed &= self.one(words);
        }
        allowed
    }

    fn one(&self, words: &mut &[&str]) -> bool {
        match *words {
            ["(", rest @ ..] => {
                *words = rest;
                let allowed = self.either(words);
                *words = words.split_first().map_or(&[][..], |(_, rest)| rest);
                allowed
            }
            [name, "WITH", exception, rest @ ..] => {
                *words = rest;
                self.licences.contains(&format!("{name} WITH {exception}"))
            }
            [name, rest @ ..] => {
                *words = rest;
                self.licences.iter().any(|licence| licence == name)
            }
            [] => false,
        }
    }
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = "[bans]\ndeny = [\n    { crate = \"ring\", reason = \"r\" },\n    { crate = \"rustls:<0.23\", reason = \"r\" },\n]\n[licenses]\nallow = [\n    \"MIT\", \"Apache-2.0 WITH LLVM-exception\",\n    \"Unicode-3.0\",\n]\n";

    #[test]
    fn what_is_banned_or_from_elsewhere_is_refused() {
        let rules = Rules::read(DENY);
        for good in
            ["a v1.0.0|MIT", "rustls v0.23.4|MIT", "turnlock v0.1.0 (/somewhere)|MIT", "b v1.0.0 (proc-macro)|MIT"]
        {
            assert_eq!(rules.refuses(good), None, "{good}");
        }
        for bad in [
            "ring v0.17.0|MIT",
            "rustls v0.21.9|MIT",
            "a v1.0.0 (https://example.org/a)|MIT",
            "a v1.0.0|GPL-3.0",
            "a v1.0.0|",
        ] {
            assert!(rules.refuses(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn licences_are_read_as_expressions() {
        let rules = Rules::read(DENY);
        for good in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/GPL-3.0",
            "(GPL-3.0 OR MIT) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR X",
        ] {
            assert!(rules.allows(good), "{good}");
        }
        for bad in ["", "MIT AND GPL-3.0", "(MIT OR X) AND GPL-3.0", "Apache-2.0", "MIT GPL-3.0"] {
            assert!(!rules.allows(bad), "{bad}");
        }
    }
}
