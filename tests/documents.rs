//! What the documents show is run as it stands there.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation of a test program is its failure"
)]

mod world;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use lab::{Output, Postgresql, PostgresqlOptions, bin, process, python};
use serde_json::{Value, json};
use world::{Fields, World};

const SCRIPTING: &str = include_str!("../docs/scripting.md");
const BEGIN: &str = "Begin-With-This-1";

/// The block of a page that has this name.
fn block(page: &str, name: &str) -> String {
    let begins = |line: &str| line.starts_with("```") && line.ends_with(&format!(" {name}"));
    let mut lines = page.lines().skip_while(|line| !begins(line)).skip(1).peekable();
    assert!(lines.peek().is_some(), "the page has no {name}");
    lines.take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect()
}

fn file(name: &str) -> String {
    block(SCRIPTING, name)
}

/// A directory of a reader who copied the page's files, and a server.
struct Reader {
    world: World,
    postgresql: Postgresql,
}

impl Reader {
    fn new(files: &[&str]) -> Self {
        let reader = Self { world: World::new(), postgresql: Postgresql::start(PostgresqlOptions::default()).unwrap() };
        for name in files {
            reader.write(name, &file(name));
            fs::set_permissions(reader.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        reader
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.world.turnlock.home().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        process::write_file(&self.path(name), text).unwrap();
    }

    /// The page's account, at this server.
    fn account(&self, name: &str, login: &str, password: &str) {
        self.postgresql.create_role(login, BEGIN).unwrap();
        let mut account: Value = serde_json::from_str(&file("app.json")).unwrap();
        let (port, ca) = (self.postgresql.port(), self.postgresql.ca_path());
        account["account"] = json!({"host": self.postgresql.host(), "port": port, "login": login, "ca": ca});
        account["current"]["password"] = json!(password);
        self.write(name, &account.to_string());
    }

    fn read(&self, name: &str) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path(name)).unwrap()).unwrap()
    }

    fn run(&self, words: &[&str]) -> Output {
        let programs = bin("turnlock").unwrap();
        let mut command = process::clean_command(words[0]);
        command.args(&words[1..]).current_dir(self.world.turnlock.home());
        command.env("PATH", format!("{}:{}", programs.parent().unwrap().display(), process::search_path()));
        for (name, value) in self.world.command(&[]).get_envs() {
            if let Some(value) = value.filter(|_| name != "PATH") {
                command.env(name, value);
            }
        }
        process::run(&mut command, b"").unwrap()
    }

    /// The file holds a new password, the server takes it and no longer the old one, nothing is left lying about.
    #[track_caller]
    fn is_rotated(&self, name: &str, login: &str) {
        let now = self.read(name);
        let password = now["current"]["password"].as_str().unwrap();
        assert!(self.postgresql.accepts(login, password).unwrap(), "{now}");
        assert!(!self.postgresql.accepts(login, BEGIN).unwrap());
        assert!(now.get("candidate").is_none(), "{now}");
        assert!(!self.path(&format!("{name}.rotation")).exists());
        assert_eq!(fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o077, 0);
    }
}

#[test]
fn a_shell_script_rotates_and_settles_what_was_cut_off() {
    let reader = Reader::new(&["rotate-account.sh"]);
    let rotate = || reader.run(&["./rotate-account.sh", "postgresql", "app.json"]);
    reader.account("app.json", "app", BEGIN);
    let done = rotate();
    assert_eq!((done.status, done.stdout.as_str(), done.stderr.as_str()), (0, "", ""));
    reader.is_rotated("app.json", "app");

    // Cut off behind the change: the candidate is live, and becomes the current one before another is made.
    let left = "{\"candidate\": {\"password\": \"Left-Behind-1\"}}\n{\"rot";
    reader.postgresql.set_password("app", "Left-Behind-1").unwrap();
    reader.write("app.json.rotation", left);
    assert_eq!(rotate().status, 0);
    reader.is_rotated("app.json", "app");
    assert!(!reader.postgresql.accepts("app", "Left-Behind-1").unwrap());

    // Cut off before the change, and before there was a candidate at all.
    for left in [left, "{\"candi", ""] {
        reader.write("app.json.rotation", left);
        let done = rotate();
        assert_eq!(done.status, 0, "{left}: {done:?}");
        reader.is_rotated("app.json", "app");
    }

    // Somebody else changed it: nothing is thrown away.
    reader.postgresql.set_password("app", "Elsewhere-1").unwrap();
    let before = reader.read("app.json");
    let refused = rotate();
    assert!(refused.status == 3 && refused.stderr.contains("app"), "{refused:?}");
    reader.write("app.json.rotation", left);
    let neither = rotate();
    assert!(neither.status == 5 && neither.stderr.contains("neither"), "{neither:?}");
    assert!(reader.path("app.json.rotation").exists() && reader.read("app.json") == before);
}

#[test]
fn python_rotates_over_serve_mode() {
    let reader = Reader::new(&["rotate.py"]);
    let rotate = || reader.run(&["python3", "rotate.py", "postgresql", "app.json"]);
    reader.account("app.json", "app", BEGIN);
    let done = rotate();
    assert_eq!((done.status, done.stdout.as_str()), (0, "rotated app\n"), "{}", done.stderr);
    reader.is_rotated("app.json", "app");

    // A candidate that an earlier run left, live or not.
    for live in [true, false] {
        let mut account = reader.read("app.json");
        account["candidate"] = json!({"password": format!("Left-Behind-{live}")});
        if live {
            reader.postgresql.set_password("app", "Left-Behind-true").unwrap();
        }
        reader.write("app.json", &account.to_string());
        let done = rotate();
        assert_eq!(done.status, 0, "{}", done.stderr);
        assert_eq!(reader.read("app.json")["current"], account["candidate"]);
        reader.is_rotated("app.json", "app");
    }
    reader.postgresql.set_password("app", "Elsewhere-1").unwrap();
    let refused = rotate();
    assert!(refused.status == 1 && refused.stderr.contains("authentication"), "{refused:?}");
}

#[test]
fn a_makefile_rotates_what_is_due() {
    let reader = Reader::new(&["rotate-account.sh", "Makefile"]);
    for login in ["one", "two"] {
        reader.account(&format!("accounts/postgresql/{login}.json"), login, BEGIN);
    }
    reader.account("accounts/postgresql/three.json", "three", "Not-The-Password-1");
    let made = reader.run(&["make", "--keep-going"]);
    assert!(made.status == 2 && made.stderr.contains("three"), "{made:?}");
    for login in ["one", "two"] {
        reader.is_rotated(&format!("accounts/postgresql/{login}.json"), login);
    }
    let before = reader.read("accounts/postgresql/one.json");
    fs::remove_file(reader.path("accounts/postgresql/three.json")).unwrap();
    let again = reader.run(&["make"]);
    assert!(again.status == 0 && reader.read("accounts/postgresql/one.json") == before, "{again:?}");
    fs::remove_file(reader.path("accounts/postgresql/one.done")).unwrap();
    assert_eq!(reader.run(&["make", "due", "rotate"]).status, 0);
    assert_ne!(reader.read("accounts/postgresql/one.json"), before);
}

/// Its steps are run as a runner runs them; the schema is GitHub's own.
#[test]
fn a_github_action_rotates_with_the_orchestrator() {
    let reader = Reader::new(&["rotate.yml"]);
    let read = |script: &str| -> Output {
        let path = reader.path("rotate.yml");
        // The schema is large, and takes seconds of computing.
        let patience = std::time::Duration::from_secs(120);
        process::run_within(&mut python::script(script, &[path.to_str().unwrap()]).unwrap(), b"", patience).unwrap()
    };
    let valid = read(
        "import sys; from check_jsonschema import main; main(['--builtin-schema', 'vendor.github-workflows', sys.argv[1]])",
    );
    assert!(valid.succeeded(), "{}{}", valid.stdout, valid.stderr);
    let steps =
        read("import sys, json, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))['jobs']['rotate']['steps']))");
    let steps: Vec<Value> = serde_json::from_str(&steps.stdout).unwrap();
    assert_eq!(steps.len(), 3);

    for (title, password) in [("ci/app", BEGIN), ("ci/broken", "Not-The-Password-1")] {
        let login = title.trim_start_matches("ci/").to_owned();
        reader.postgresql.create_role(&login, BEGIN).unwrap();
        let url = format!("postgres://{}:{}/postgres", reader.postgresql.host(), reader.postgresql.port());
        let fields = Fields { login, url: Some(url), ..Fields::default() };
        let ca = format!("turnlock:ca={}", reader.postgresql.ca_path().display());
        reader.world.add(title, &fields.with(ca), password);
    }
    let mut statuses = Vec::new();
    let mut said = String::new();
    for step in &steps {
        reader.write("step.sh", step["run"].as_str().unwrap());
        let done = reader.run(&["bash", "--noprofile", "--norc", "-eo", "pipefail", "step.sh"]);
        statuses.push(done.status);
        said.push_str(&done.stdout);
    }
    assert_eq!(statuses, [0, 6, 0], "{said}");
    assert!(said.contains("::error::ci/broken: "), "{said}");
    assert!(reader.postgresql.accepts("app", &reader.world.password("ci/app")).unwrap());
    assert!(!said.contains(BEGIN) && !said.contains(&reader.world.password("ci/app")), "{said}");
}

/// The README's own lines, with an export that fits them.
#[test]
fn the_readme_is_true() {
    let reader = Reader::new(&[]);
    reader.postgresql.create_role("app", BEGIN).unwrap();
    let url = format!("postgres://{}:{}", reader.postgresql.host(), reader.postgresql.port());
    let record = json!({"title": "Orders database", "login": "app", "password": BEGIN, "login_url": url,
        "custom_fields": {"turnlock:ca": reader.postgresql.ca_path()}});
    reader.write("export.json", &json!({"records": [record]}).to_string());
    let readme = include_str!("../README.md");
    let typed: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("    $ turnlock ")).collect();
    assert!(typed.len() >= 5, "{typed:?}");
    let mut said = String::new();
    for line in typed {
        // The world's own key file stands for the one in the home directory.
        let line = line.replace(" --key-file ~/.config/turnlock/vault.key", "");
        if line == "vault init" {
            continue;
        }
        let done = reader.run(&["sh", "-c", &format!("turnlock {line}")]);
        assert_eq!(done.status, 0, "{line}: {}{}", done.stdout, done.stderr);
        said.push_str(&done.stdout);
        said.push_str(&done.stderr);
    }
    let shown = format!(
        "rotated Orders database  postgresql app@127.0.0.1:{}  (proven by a new log-in)",
        reader.postgresql.port()
    );
    assert!(said.contains(&shown) && said.contains("nothing is open"), "{said}");
    assert!(readme.contains(&shown.replace(&format!("127.0.0.1:{}", reader.postgresql.port()), "db1:5432")));
}

#[test]
fn the_first_five_minutes_are_true() {
    let reader = Reader::new(&[]);
    reader.postgresql.create_role("app", BEGIN).unwrap();
    fs::remove_dir_all(reader.world.turnlock.vault_directory()).unwrap();
    let here = format!("{}:{}", reader.postgresql.host(), reader.postgresql.port());
    let page = block(include_str!("../docs/install.md"), "five-minutes").replace("db1.example.com", &here);
    let done = reader.run(&["bash", "-eu", "-c", &page.replace("--key-file ~/.config/turnlock/vault.key", "")]);
    assert_eq!(done.status, 0, "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("rotated Orders database"), "{}", done.stdout);
    assert!(!reader.postgresql.accepts("app", BEGIN).unwrap());
    assert!(reader.postgresql.accepts("app", &reader.world.password("Orders database")).unwrap());
}

/// In both modes, and from a record.
#[test]
fn the_rotator_that_the_page_writes_is_one() {
    const PAGE: &str = include_str!("../docs/writing-a-rotator.md");
    assert_eq!(block(PAGE, "turnlock-linefile.rs"), include_str!("../rotators/kit/examples/turnlock-linefile.rs"));
    let world = World::new();
    let plugins = world.turnlock.plugin_directory();
    fs::copy(bin("examples/turnlock-linefile").unwrap(), plugins.join("turnlock-linefile")).unwrap();
    let users = world.turnlock.home().join("users");
    process::write_file(&users, "other:kept\napp:old\n").unwrap();
    fs::set_permissions(&users, fs::Permissions::from_mode(0o640)).unwrap();

    let shell = |line: &str| {
        let programs = bin("turnlock").unwrap();
        let mut command = process::clean_command("bash");
        let line = line.replace("/etc/server/users", &users.display().to_string());
        command.args(["-euo", "pipefail", "-c", &line]).current_dir(world.turnlock.home());
        for (name, value) in world.command(&[]).get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let path = [programs.parent().unwrap(), &plugins].map(|directory| directory.display().to_string()).join(":");
        process::run(command.env("PATH", format!("{path}:{}", process::search_path())), b"old").unwrap()
    };
    let typed: Vec<&str> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with("echo ") || line.starts_with("turnlock --plugin-dir "))
        .collect();
    let (alone, with_turnlock): (Vec<&str>, Vec<&str>) = typed.into_iter().partition(|line| line.starts_with("echo"));
    assert!(alone.len() == 1 && with_turnlock.len() == 3, "{alone:?} {with_turnlock:?}");
    for line in with_turnlock {
        let done = shell(line);
        assert_eq!(done.status, 0, "{line}: {}{}", done.stdout, done.stderr);
    }
    let password = world.password("Small server");
    assert_ne!(password, "old");
    assert_eq!(fs::read_to_string(&users).unwrap(), format!("other:kept\napp:{password}\n"));
    assert_eq!(fs::metadata(&users).unwrap().permissions().mode() & 0o777, 0o640);

    process::write_file(&users, "app:old\n").unwrap();
    let done = shell(alone[0]);
    assert_eq!(done.status, 0, "{}{}", done.stdout, done.stderr);
    let result = fs::read_to_string(world.turnlock.home().join("result.ndjson")).unwrap();
    let next = world::lines(&result)[0]["candidate"]["password"].as_str().unwrap().to_owned();
    assert_eq!(fs::read_to_string(&users).unwrap(), format!("app:{next}\n"));
}

/// Every command line that any page shows has only words that `turnlock` knows.
#[test]
fn every_command_line_of_every_page_is_understood() {
    let world = World::without_vault();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let listed = process::run(process::command("git").args(["ls-files", "*.md"]).current_dir(&root), b"").unwrap();
    let mut count = 0;
    let mut wrong = Vec::new();
    for page in listed.stdout.lines() {
        let text = fs::read_to_string(root.join(page)).unwrap();
        for line in text.lines() {
            let line = line.trim_start_matches([' ', '$']).trim_start_matches("sudo -u turnlock -H ");
            let inner = line.split("localhost/turnlock/turnlock:0.1.0 ").nth(1).map(|rest| format!("turnlock {rest}"));
            let line = inner.as_deref().unwrap_or(line);
            let Some(rest) = line.strip_prefix("turnlock ").filter(|_| !line.ends_with('.')) else { continue };
            let words = words(rest);
            if words.first().is_none_or(|word| !word.starts_with(|c: char| c.is_ascii_lowercase() || c == '-')) {
                continue;
            }
            count += 1;
            let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
            arguments.push("--help");
            let output = world.run(&arguments);
            if output.status != 0 {
                wrong.push(format!("{page}: {line}\n{}", output.stderr));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 40, "only {count} command lines were found");
}

/// The words of a command line, up to what is the shell's own.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() && !rest.starts_with(['#', '>', '<', '|', ';', '&', '(', '\\']) {
        let mut word = String::new();
        let mut quote = None;
        let mut end = rest.len();
        for (at, c) in rest.char_indices() {
            match (quote, c) {
                (None, '"' | '\'') => quote = Some(c),
                (Some(open), _) if open == c => quote = None,
                (None, ' ') => {
                    end = at;
                    break;
                }
                _ => word.push(c),
            }
        }
        words.push(word);
        rest = rest[end..].trim_start();
    }
    words
}

/// The record on a plugin's page resolves to that plugin, with nothing left over.
#[test]
fn the_record_on_every_plugins_page_is_one_of_that_plugin() {
    let world = World::new();
    world.add("Windows administrator", &Fields { login: "Administrator".to_owned(), ..Fields::default() }, "first");
    let rotators = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rotators");
    let mut count = 0;
    for directory in fs::read_dir(rotators).unwrap().flatten() {
        let plugin = directory.file_name().into_string().unwrap();
        let Ok(page) = fs::read_to_string(directory.path().join("README.md")) else { continue };
        let line =
            page.lines().find_map(|line| line.strip_prefix("    turnlock add ")).unwrap_or_else(|| panic!("{plugin}"));
        // Secrets are asked for at a terminal there; here they come another way, or not at all.
        let (line, asked) = match line.split_once(" --set-secret ") {
            Some((before, after)) => (before.to_owned(), after.split(' ').next()),
            None => (line.trim_end_matches(" --password").to_owned(), None),
        };
        let words = words(&line);
        let title = format!("{plugin}: {}", words[0]);
        let mut add: Vec<&str> = ["add", &title].into_iter().chain(words[1..].iter().map(String::as_str)).collect();
        let secret = asked.map(|field| format!("{field}=set-here"));
        add.extend(secret.iter().flat_map(|secret| ["--set", secret]));
        add.extend(["--password", "-"]);
        world.ok_with(&add, "first");
        let explained = world.json(&["explain", &title]);
        let text = serde_json::to_string(&explained).unwrap();
        assert!(text.contains(&format!("\"{plugin}\"")), "{plugin}: {text}");
        let rehearsed = world.run(&["rotate", &title, "--dry-run", "-o", "json"]);
        assert_eq!(rehearsed.status, 0, "{title}: {}{}", rehearsed.stdout, rehearsed.stderr);
        assert!(!rehearsed.stderr.contains("no field"), "{title}: {}", rehearsed.stderr);
        count += 1;
    }
    assert!(count >= 12, "{count}");
}

#[test]
fn the_configuration_for_containers_is_understood() {
    let world = World::new();
    let page = block(include_str!("../docs/containers.md"), "turnlock.toml").replace("DIGEST", &"0".repeat(64));
    world.configure(&page);
    world.ok(&["list"]);
}
