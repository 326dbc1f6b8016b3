//! `cargo xtask tidy`: the repository's own rules, each a check that can fail.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use lab::{LabError, Result, process};

use crate::{root, say::line};

/// Folders under `rotators/` that are not rotators but what rotators share.
const SHARED: &[&str] = &["aws", "kit", "samr", "secureshell"];

/// All that the vocabulary may stand on: it does no I/O.
const PROTOCOL_MAY_USE: &[&str] = &["serde", "serde_json", "schemars", "zeroize", "subtle"];

/// Where a system's own calls have no safe counterpart. Nobody else lifts the lint.
const UNSAFE: &[&str] = &["rotators/kit/src/windows.rs", "rotators/windows/src/local.rs"];

/// The rules.
const CHECKS: &[fn(&Tree) -> Vec<Violation>] = &[
    protocol_stands_alone,
    orchestrator_knows_no_rotator,
    rotators_know_nobody,
    only_report_prints,
    rotators_do_not_print,
    architecture_is_short,
    rotators_have_a_page,
    only_the_right_places_are_unsafe,
    nothing_is_put_off,
    links_lead_somewhere,
    no_workplace_is_named,
    dependencies_are_reviewed,
    threats_name_tests_that_exist,
];

/// Where every dependency has its row.
const REVIEW: &str = "docs/dependencies.md";

/// Where tests are named as `file::function`.
const THREATS: &str = "docs/threats.md";

/// Reads the repository and applies every rule.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if let Some(word) = arguments.first() {
        return Err(LabError::new(format!("`cargo xtask tidy` takes no arguments, and got `{word}`")));
    }
    let tree = Tree::read(&root())?;
    let violations: Vec<Violation> = CHECKS.iter().flat_map(|check| check(&tree)).collect();
    for Violation { file, line: number, sentence } in &violations {
        line(&format!("{file}:{number}: {sentence}"));
    }
    match violations.len() {
        0 => Ok(()),
        count => Err(LabError::new(format!("tidy found {count} violation(s) in {} files", tree.files.len()))),
    }
}

/// The files that belong to the repository, by their paths from its root.
struct Tree {
    files: Vec<(String, String)>,
}

/// A rule broken at a place.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: String,
    line: usize,
    sentence: String,
}

impl Tree {
    /// What git knows or would add; build output and other ignored files are not looked at.
    fn read(root: &Path) -> Result<Self> {
        let mut git = process::command("git");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root);
        let listed = process::run(&mut git, b"")?;
        if !listed.succeeded() {
            return Err(LabError::new(format!("git could not list the files: {}", listed.stderr)));
        }
        let files = listed
            .stdout
            .split_terminator('\0')
            // A file that was deleted and not committed yet is listed; of a binary one only the name counts.
            .filter(|path| root.join(path).is_file())
            .map(|path| (path.to_owned(), std::fs::read_to_string(root.join(path)).unwrap_or_default()))
            .collect();
        Ok(Self { files })
    }

    fn under<'a>(&'a self, folder: &'a str, extension: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.all().filter(move |(path, _)| path.starts_with(folder) && path.ends_with(extension))
    }

    fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    fn get(&self, wanted: &str) -> Option<&str> {
        self.all().find(|(path, _)| *path == wanted).map(|(_, text)| text)
    }

    /// The folders under `rotators/` that hold a package, and their manifests.
    fn rotators(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.under("rotators/", "/Cargo.toml").filter_map(|(path, text)| {
            let folder = path.strip_prefix("rotators/")?.strip_suffix("/Cargo.toml")?;
            (!folder.contains('/')).then_some((folder, path, text))
        })
    }
}

fn violation(file: &str, line: usize, sentence: impl Into<String>) -> Violation {
    Violation { file: file.to_owned(), line, sentence: sentence.into() }
}

/// Lines with their numbers.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// A dependency as a manifest names it.
struct Dependency<'a> {
    line: usize,
    /// The package's own name, when the manifest renames it.
    name: &'a str,
    /// Used by tests only.
    dev: bool,
}

fn dependencies(manifest: &str) -> Vec<Dependency<'_>> {
    let mut found = Vec::new();
    let mut section = "";
    for (number, line) in numbered(manifest) {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
            // `[dependencies.name]`, also below a target.
            if let Some((kind, name)) = section.rsplit_once("dependencies.") {
                found.push(Dependency { line: number, name, dev: kind.ends_with("dev-") });
            }
        } else if section.ends_with("dependencies") && !line.starts_with('#') {
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let key = key.trim().split('.').next().unwrap_or_default().trim_matches('"');
            let renamed = value.split_once("package").and_then(|(_, rest)| rest.split('"').nth(1));
            let dev = section.ends_with("dev-dependencies");
            // A table over several lines ends in a line that begins no dependency.
            if key.starts_with(|letter: char| letter.is_alphanumeric()) {
                found.push(Dependency { line: number, name: renamed.unwrap_or(key), dev });
            }
        }
    }
    found
}

fn package_name(manifest: &str) -> Option<&str> {
    let package = manifest.split_once("[package]")?.1;
    let line = package.lines().find(|line| line.trim_start().starts_with("name"))?;
    line.split('"').nth(1)
}

fn protocol_stands_alone(tree: &Tree) -> Vec<Violation> {
    let file = "protocol/Cargo.toml";
    let Some(manifest) = tree.get(file) else {
        return vec![violation(file, 1, "there is no protocol package")];
    };
    dependencies(manifest)
        .into_iter()
        .filter(|dependency| !dependency.dev && !PROTOCOL_MAY_USE.contains(&dependency.name))
        .map(|Dependency { line, name, .. }| {
            violation(file, line, format!("the protocol does no I/O and may not depend on `{name}`"))
        })
        .collect()
}

fn orchestrator_knows_no_rotator(tree: &Tree) -> Vec<Violation> {
    let file = "orchestrator/Cargo.toml";
    let Some(manifest) = tree.get(file) else {
        return vec![violation(file, 1, "there is no orchestrator package")];
    };
    let theirs: BTreeSet<&str> = tree.rotators().filter_map(|(_, _, text)| package_name(text)).collect();
    dependencies(manifest)
        .into_iter()
        .filter(|dependency| theirs.contains(dependency.name))
        .map(|Dependency { line, name, .. }| {
            violation(file, line, format!("the orchestrator knows neither the kit nor any rotator, and names `{name}`"))
        })
        .collect()
}

fn rotators_know_nobody(tree: &Tree) -> Vec<Violation> {
    let orchestrator = tree.get("orchestrator/Cargo.toml").and_then(package_name);
    let others: BTreeSet<&str> = tree
        .rotators()
        .filter(|(folder, ..)| !SHARED.contains(folder))
        .filter_map(|(_, _, text)| package_name(text))
        .chain(orchestrator)
        .collect();
    tree.rotators()
        .flat_map(|(_, path, text)| dependencies(text).into_iter().map(move |dependency| (path, dependency)))
        .filter(|(_, dependency)| others.contains(dependency.name))
        .map(|(path, Dependency { line, name, .. })| {
            violation(
                path,
                line,
                format!("a rotator knows neither the orchestrator nor another rotator, and names `{name}`"),
            )
        })
        .collect()
}

/// The lines that call one of the print macros, comments aside.
fn prints(text: &str) -> impl Iterator<Item = (usize, &'static str)> {
    numbered(text).filter(|(_, line)| !line.trim_start().starts_with("//")).filter_map(|(number, line)| {
        ["eprintln", "println", "eprint", "print"].into_iter().find_map(|name| {
            let start = line.find(&format!("{name}!"))?;
            let before = line.get(..start)?.chars().next_back();
            (!before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')).then_some((number, name))
        })
    })
}

fn only_report_prints(tree: &Tree) -> Vec<Violation> {
    tree.under("orchestrator/src/", ".rs")
        .filter(|(path, _)| *path != "orchestrator/src/report.rs")
        .flat_map(|(path, text)| {
            prints(text).map(move |(number, name)| {
                violation(path, number, format!("only orchestrator/src/report.rs prints; this line calls `{name}!`"))
            })
        })
        .collect()
}

fn rotators_do_not_print(tree: &Tree) -> Vec<Violation> {
    tree.under("rotators/", ".rs")
        .filter(|(path, _)| path.contains("/src/") && !path.starts_with("rotators/kit/"))
        .flat_map(|(path, text)| {
            prints(text).map(move |(number, name)| {
                violation(path, number, format!("only the kit writes to a rotator's output; this line calls `{name}!`"))
            })
        })
        .collect()
}

fn architecture_is_short(tree: &Tree) -> Vec<Violation> {
    let file = "ARCHITECTURE.md";
    match tree.get(file).map(|text| text.lines().count()) {
        None => vec![violation(file, 1, "there is no ARCHITECTURE.md")],
        Some(200..) => vec![violation(file, 200, "ARCHITECTURE.md has 200 lines or more; nobody reads that")],
        Some(_) => Vec::new(),
    }
}

/// What a page about a rotator has, for somebody in need of it.
const ON_A_PAGE: &[&str] =
    &["    turnlock add ", "## Rights it needs", "## Fields", "## What it does", "## Errors, and what to do"];

fn rotators_have_a_page(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (folder, ..) in tree.rotators().filter(|(folder, ..)| !SHARED.contains(folder)) {
        let page = format!("rotators/{folder}/README.md");
        let Some(text) = tree.get(&page) else {
            found.push(violation(&page, 1, "a rotator says here which rights it needs and which fields it reads"));
            continue;
        };
        let missing = ON_A_PAGE.iter().filter(|part| !text.lines().any(|line| line.starts_with(**part)));
        found.extend(missing.map(|part| violation(&page, 1, format!("a rotator's page has `{}`", part.trim()))));
    }
    found
}

fn only_the_right_places_are_unsafe(tree: &Tree) -> Vec<Violation> {
    // Spelled in parts, so that this file keeps its own rule.
    let lint = concat!("unsafe", "_code");
    tree.under("", ".rs")
        .filter(|(path, _)| !UNSAFE.contains(path))
        .flat_map(|(path, text)| {
            numbered(text).filter(|(_, line)| line.contains(lint)).map(move |(number, _)| {
                violation(path, number, format!("unsafe code is for {} only", UNSAFE.join(", ")))
            })
        })
        .collect()
}

fn dependencies_are_reviewed(tree: &Tree) -> Vec<Violation> {
    let review = tree.get(REVIEW).unwrap_or_default();
    let reviewed: Vec<(usize, &str)> = numbered(review)
        .filter_map(|(number, line)| Some((number, line.strip_prefix("| `")?.split('`').next()?)))
        .filter(|(_, name)| !name.contains('/'))
        .collect();
    let ours: BTreeSet<&str> = tree.under("", "Cargo.toml").filter_map(|(_, text)| package_name(text)).collect();
    let is_ours = |name: &str| ours.contains(name) || name == "lab" || name == "chaos";
    let unknown = tree
        .under("", "Cargo.toml")
        .flat_map(|(path, text)| dependencies(text).into_iter().map(move |dependency| (path, dependency)))
        .filter(|(_, dependency)| !is_ours(dependency.name))
        .filter(|(_, dependency)| reviewed.iter().all(|(_, name)| *name != dependency.name))
        .map(|(path, Dependency { line, name, .. })| {
            violation(path, line, format!("`{name}` has no row in {REVIEW}: what is it for, and what can it reach?"))
        });
    let locks: Vec<&str> = ["Cargo.lock", "vaults/ksm/Cargo.lock"].iter().filter_map(|file| tree.get(file)).collect();
    let gone = reviewed
        .iter()
        .filter(|(_, name)| !locks.iter().any(|lock| lock.contains(&format!("name = \"{name}\"\n"))))
        .map(|(number, name)| violation(REVIEW, *number, format!("`{name}` is not in Cargo.lock any more")));
    let unsafe_places = UNSAFE
        .iter()
        .filter(|place| tree.get(place).is_some() && !review.contains(&format!("| `{place}` |")))
        .map(|place| violation(REVIEW, 1, format!("{place} holds unsafe code, and has no row here")));
    unknown.chain(gone).chain(unsafe_places).collect()
}

fn threats_name_tests_that_exist(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (number, line) in numbered(tree.get(THREATS).unwrap_or_default()).filter(|(_, line)| line.starts_with("| ")) {
        let tests = line.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        if tests == "test" {
            continue;
        }
        let tests: Vec<&str> = tests.split(", ").map(|test| test.trim_matches('`')).collect();
        for test in tests {
            let exists = test.split_once("::").is_some_and(|(file, function)| {
                let starts = [format!("fn {function}("), format!("fn {function}<")];
                tree.get(file).is_some_and(|text| starts.iter().any(|start| text.contains(start)))
            });
            if !exists {
                found.push(violation(THREATS, number, format!("there is no test `{test}`")));
            }
        }
    }
    found
}

fn nothing_is_put_off(tree: &Tree) -> Vec<Violation> {
    // Spelled in parts, so that this file keeps its own rule.
    let (ignore, allow) = (concat!("#[", "ignore"), concat!("[", "allow("));
    let later = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let mut found = Vec::new();
    for (path, text) in tree.all().filter(|(path, _)| !path.ends_with(".lock")) {
        for (number, line) in numbered(text) {
            let mut words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
            if let Some(word) = words.find(|word| later.contains(word)) {
                found.push(violation(path, number, format!("{word}: do it, or open an issue")));
            }
            if path.ends_with(".rs") && line.contains(ignore) {
                found.push(violation(path, number, "a test that is ignored is no test"));
            }
        }
        if path.ends_with(".rs") {
            for (start, _) in text.match_indices(allow) {
                let before = text.get(..start).unwrap_or_default();
                let attribute = text.get(start..).and_then(|rest| rest.split(")]").next()).unwrap_or_default();
                if before.ends_with(['#', '!']) && !attribute.contains("reason") {
                    let number = before.lines().count().max(1);
                    found.push(violation(path, number, "a lint is allowed here without a reason"));
                }
            }
        }
    }
    found
}

fn links_lead_somewhere(tree: &Tree) -> Vec<Violation> {
    let mut known: BTreeSet<PathBuf> = BTreeSet::new();
    for (path, _) in tree.all() {
        known.extend(Path::new(path).ancestors().map(Path::to_owned));
    }
    let mut found = Vec::new();
    for (path, text) in tree.under("", ".md") {
        let mut in_code = false;
        for (number, line) in numbered(text) {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            }
            if in_code {
                continue;
            }
            for link in links(line) {
                let target = link.split('#').next().unwrap_or_default();
                if !target.is_empty() && !known.contains(&resolve(path, target)) {
                    found.push(violation(path, number, format!("the link `{link}` leads nowhere")));
                }
            }
        }
    }
    found
}

/// The targets of a line's links to files; what stands between backticks is no link.
fn links(line: &str) -> Vec<&str> {
    let outside: Vec<&str> = line.split("](").skip(1).collect();
    let mut seen = 0;
    outside
        .into_iter()
        .filter_map(|rest| {
            let start = line.get(seen..)?.find("](")? + seen;
            seen = start + 2;
            let quoted = line.get(..start)?.matches('`').count() % 2 == 1;
            let target = rest.split(')').next()?.split_whitespace().next()?;
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            (!quoted && !elsewhere).then_some(target)
        })
        .collect()
}

fn resolve(file: &str, target: &str) -> PathBuf {
    let mut resolved = Path::new(file).parent().unwrap_or(Path::new("")).to_owned();
    for component in Path::new(target).components() {
        match component {
            Component::ParentDir => {
                // A way out of the repository must not end inside it.
                if !resolved.pop() {
                    return PathBuf::from("..");
                }
            }
            Component::Normal(name) => resolved.push(name),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return PathBuf::from("/"),
        }
    }
    resolved
}

fn no_workplace_is_named(tree: &Tree) -> Vec<Violation> {
    let forbidden = [concat!("..", "/shared"), concat!("/", "work/")];
    tree.all()
        .flat_map(|(path, text)| numbered(text).map(move |(number, line)| (path, number, line)))
        .filter_map(|(path, number, line)| {
            let word = forbidden.into_iter().find(|word| {
                line.match_indices(word).any(|(start, _)| {
                    let before = line.get(..start).unwrap_or_default().chars().next_back();
                    !before.is_some_and(|letter| letter.is_alphanumeric() || "-_.~".contains(letter))
                })
            })?;
            Some(violation(path, number, format!("`{word}` is somebody's workplace and means nothing to a reader")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "[up](../../ARCHITECTURE.md#there) [out](https://example.org)\n    turnlock add One\n\
                        ## Rights it needs\n## Fields\n## What it does\n## Errors, and what to do\n";

    /// A small repository that keeps every rule, with some files replaced or added.
    fn tree(changes: &[(&str, &str)]) -> Tree {
        let rotator = "[package]\nname = \"turnlock-one\"\n[dependencies]\nturnlock-kit.workspace = true\n";
        let mut files = vec![
            ("ARCHITECTURE.md", "[the wire](protocol/Cargo.toml) and [one](./rotators/one/) `[not](a-link)`\n"),
            (
                "protocol/Cargo.toml",
                "[package]\nname = \"turnlock-protocol\"\n[dependencies]\nserde.workspace = true\n[dev-dependencies]\nproptest = \"1\"\n",
            ),
            (
                "orchestrator/Cargo.toml",
                "[package]\nname = \"turnlock\"\n[dependencies]\nturnlock-protocol.workspace = true\n",
            ),
            ("orchestrator/src/report.rs", "fn say() { println!(); }\n"),
            ("orchestrator/src/main.rs", "// println! is not called here\nfn main() { writeln!(out); }\n"),
            ("rotators/kit/Cargo.toml", "[package]\nname = \"turnlock-kit\"\n"),
            (
                REVIEW,
                "| crate |\n|---|\n| `serde` |\n| `proptest` |\n| `tokio` |\n| `libc` |\n| `cc` |\n| `rotators/kit/src/windows.rs` |\n",
            ),
            ("Cargo.lock", LOCK),
            ("rotators/kit/src/lib.rs", "fn say() { println!(); }\n"),
            ("rotators/one/Cargo.toml", rotator),
            ("rotators/one/README.md", PAGE),
            ("rotators/one/src/lib.rs", "#[expect(dead_code, reason = \"an example\")]\nfn nothing() {}\n"),
        ];
        files.retain(|(path, _)| changes.iter().all(|(changed, _)| changed != path));
        files.extend(changes.iter().filter(|(_, text)| !text.is_empty()));
        Tree { files: files.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect() }
    }

    const LOCK: &str = "name = \"serde\"\nname = \"proptest\"\nname = \"tokio\"\nname = \"libc\"\nname = \"cc\"\n";

    fn places(tree: &Tree) -> Vec<String> {
        CHECKS.iter().flat_map(|check| check(tree)).map(|found| format!("{}:{}", found.file, found.line)).collect()
    }

    /// Asserts that this one change breaks the rules at this one place.
    fn breaks(file: &str, text: &str, place: &str) {
        assert_eq!(places(&tree(&[(file, text)])), [place], "{file}: {text}");
    }

    #[test]
    fn a_good_repository_is_tidy() {
        assert_eq!(places(&tree(&[])), Vec::<String>::new());
    }

    #[test]
    fn the_protocol_stands_alone() {
        let manifest = |more: &str| format!("[package]\nname = \"turnlock-protocol\"\n{more}");
        breaks(
            "protocol/Cargo.toml",
            &manifest("[dependencies]\nserde = \"1\"\ntokio = \"1\"\n"),
            "protocol/Cargo.toml:5",
        );
        breaks("protocol/Cargo.toml", &manifest("[dependencies.tokio]\nversion = \"1\"\n"), "protocol/Cargo.toml:3");
        breaks(
            "protocol/Cargo.toml",
            &manifest("[target.'cfg(unix)'.dependencies]\nlibc = \"0\"\n"),
            "protocol/Cargo.toml:4",
        );
        breaks("protocol/Cargo.toml", &manifest("[build-dependencies]\ncc = \"1\"\n"), "protocol/Cargo.toml:4");
    }

    #[test]
    fn nobody_knows_the_wrong_people() {
        let orchestrator = "[package]\nname = \"turnlock\"\n[dependencies]\n";
        breaks(
            "orchestrator/Cargo.toml",
            &format!("{orchestrator}turnlock-kit.workspace = true\n"),
            "orchestrator/Cargo.toml:4",
        );
        breaks(
            "orchestrator/Cargo.toml",
            &format!("{orchestrator}x = {{ package = \"turnlock-one\" }}\n"),
            "orchestrator/Cargo.toml:4",
        );
        let rotator = "[package]\nname = \"turnlock-one\"\n[dependencies]\n";
        breaks(
            "rotators/one/Cargo.toml",
            &format!("{rotator}turnlock.workspace = true\n"),
            "rotators/one/Cargo.toml:4",
        );
        let two = "[package]\nname = \"turnlock-two\"\n[dev-dependencies]\nturnlock-one.workspace = true\n";
        let both = tree(&[("rotators/two/Cargo.toml", two), ("rotators/two/README.md", PAGE)]);
        assert_eq!(places(&both), ["rotators/two/Cargo.toml:4"]);
    }

    #[test]
    fn only_the_right_places_print() {
        for call in ["println!()", "eprintln!()", "print!()", "x.map(|_| eprint!())"] {
            breaks("orchestrator/src/main.rs", &format!("fn main() {{\n{call};\n}}\n"), "orchestrator/src/main.rs:2");
            breaks("rotators/one/src/lib.rs", &format!("\n\nfn f() {{ {call}; }}\n"), "rotators/one/src/lib.rs:3");
        }
    }

    #[test]
    fn documents_are_there_and_short() {
        breaks("ARCHITECTURE.md", &"line\n".repeat(200), "ARCHITECTURE.md:200");
        let without = tree(&[
            ("ARCHITECTURE.md", ""),
            ("rotators/one/README.md", &PAGE.replace("../../ARCHITECTURE.md", "Cargo.toml")),
        ]);
        assert_eq!(places(&without), ["ARCHITECTURE.md:1"]);
        breaks("rotators/one/README.md", "", "rotators/one/README.md:1");
        breaks("rotators/one/README.md", &PAGE.replace("## Fields", "## Options"), "rotators/one/README.md:1");
        assert_eq!(places(&tree(&[("ARCHITECTURE.md", &"line\n".repeat(199))])), Vec::<String>::new());
    }

    #[test]
    fn unsafe_needs_the_right_place() {
        let lifted = concat!("#![expect(unsafe", "_code, reason = \"Windows\")]\n");
        breaks("rotators/one/src/lib.rs", lifted, "rotators/one/src/lib.rs:1");
        let broken = concat!("#![expect(\n    unsafe", "_code,\n    reason = \"Windows\"\n)]\n");
        breaks("orchestrator/src/main.rs", broken, "orchestrator/src/main.rs:2");
        assert_eq!(places(&tree(&[("rotators/kit/src/windows.rs", lifted)])), Vec::<String>::new());
    }

    #[test]
    fn nothing_is_put_off_until_later() {
        let file = "rotators/one/src/lib.rs";
        breaks(file, concat!("#[test]\n#[", "ignore]\nfn f() {}\n"), "rotators/one/src/lib.rs:2");
        breaks(file, concat!("#[", "allow(dead_code)]\nfn f() {}\n"), "rotators/one/src/lib.rs:1");
        breaks(file, concat!("#![", "allow(\n  dead_code\n)]\n"), "rotators/one/src/lib.rs:1");
        breaks(file, concat!("// TO", "DO: later\n"), "rotators/one/src/lib.rs:1");
        breaks("ARCHITECTURE.md", concat!("\nFIX", "ME\n"), "ARCHITECTURE.md:2");
        let reasoned = concat!("#[", "allow(dead_code, reason = \"generated\")]\nfn f() {}\n");
        assert_eq!(places(&tree(&[(file, reasoned)])), Vec::<String>::new());
    }

    #[test]
    fn links_must_lead_somewhere() {
        breaks("ARCHITECTURE.md", "fine\n[gone](docs/gone.md)\n", "ARCHITECTURE.md:2");
        breaks("ARCHITECTURE.md", "[out](../elsewhere.md)\n", "ARCHITECTURE.md:1");
        breaks(
            "rotators/one/README.md",
            &format!("[one](README.md) [two](../../README.md)\n{PAGE}"),
            "rotators/one/README.md:1",
        );
    }

    #[test]
    fn every_dependency_is_reviewed_and_every_row_is_one() {
        let kit =
            "[package]\nname = \"turnlock-kit\"\n[dependencies]\nturnlock-protocol.workspace = true\nnovel = \"1\"\n";
        breaks("rotators/kit/Cargo.toml", kit, "rotators/kit/Cargo.toml:5");
        breaks("Cargo.lock", &LOCK.replace("libc", "libd"), "docs/dependencies.md:6");
        let lifted = concat!("#![expect(unsafe", "_code, reason = \"Windows\")]\n");
        breaks("rotators/windows/src/local.rs", lifted, "docs/dependencies.md:1");
    }

    #[test]
    fn a_threat_names_a_test_that_exists() {
        let row = |test: &str| format!("| what | answer | test |\n|---|---|---|\n| a | b | `{test}` |\n");
        let test = "rotators/one/src/lib.rs::nothing";
        assert_eq!(places(&tree(&[(THREATS, &row(test))])), Vec::<String>::new());
        for gone in ["rotators/one/src/lib.rs::something", "tests/none.rs::nothing", "unit tests"] {
            breaks(THREATS, &row(gone), "docs/threats.md:3");
        }
        breaks(THREATS, &row(&format!("{test}`, `{test}s")), "docs/threats.md:3");
    }

    #[test]
    fn no_workplace_may_be_named() {
        breaks("ARCHITECTURE.md", concat!("\nsee ..", "/shared/notes\n"), "ARCHITECTURE.md:2");
        breaks("rotators/one/src/lib.rs", concat!("// in /", "work/main\n"), "rotators/one/src/lib.rs:1");
        assert_eq!(places(&tree(&[("ARCHITECTURE.md", concat!("a net/", "work/place\n"))])), Vec::<String>::new());
    }
}
