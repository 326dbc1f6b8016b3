//! Hosts with accounts: real sshd, PAM, passwd and su of this machine, in a box.
//!
//! The box is a private mount and process namespace with a copy of `/etc`, so
//! that accounts, passwords and PAM's rules can be made and broken while the
//! machine's own stay untouched. Its server listens on loopback and can be
//! reached from outside; [`UnixHost::inside`] runs a program within.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    Authority,
    error::{Context, LabError, Result},
    process::{self, Ending, Output, Owned, clean_command, wait_until, write_file},
    server::{self, Recipe, Site},
    template,
};

const BOX: &str = include_str!("unix_host/box.sh");
const ACCOUNT: &str = include_str!("unix_host/account.c");
const WINDOWS: &str = include_str!("unix_host/windows.sh");

/// What lets people in from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RemoteLogin {
    /// OpenSSH with PAM.
    #[default]
    OpenSsh,
    /// Dropbear, which knows no PAM.
    Dropbear,
    /// Nothing: accounts only.
    None,
}

/// Which `passwd` the host has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Passwd {
    /// Debian's own.
    #[default]
    Debian,
    /// A stand-in that speaks like RHEL's.
    Rhel,
    /// A stand-in that speaks like BusyBox's.
    Busybox,
}

/// What is unusual about a host.
#[derive(Debug, Clone, Default)]
pub struct UnixHostOptions {
    /// What lets people in.
    pub remote_login: RemoteLogin,
    /// Ask for passwords by keyboard-interactive instead of by password.
    pub keyboard_interactive: bool,
    /// More lines for `sshd_config`.
    pub sshd: Vec<String>,
    /// Which `passwd` it has.
    pub passwd: Passwd,
    /// Arguments of pam_pwquality; without it any password will do.
    pub quality: Option<String>,
    /// How many past passwords pam_pwhistory remembers.
    pub history: Option<u32>,
    /// After how many failures pam_faillock locks an account.
    pub lockout: Option<u32>,
}

/// A host.
pub struct UnixHost {
    site: Site,
    recipe: UnixBox,
    port: u16,
    process: Option<Owned>,
}

impl UnixHost {
    /// Makes a box and starts its server.
    pub fn start(options: UnixHostOptions) -> Result<Self> {
        if !process::User::is_root() {
            return Err(LabError::new(
                "a box with accounts of its own can only be made by root; run the tests as root",
            ));
        }
        for program in ["unshare", "nsenter", "setpriv", "sshpass", "ssh", "ssh-keygen", "dropbear", "sudo", "cc"] {
            process::need_program(program)?;
        }
        let site = Site::new("unix", None, &Authority::new()?, &["127.0.0.1"])?;
        let recipe = UnixBox { options };
        recipe.furnish(&site)?;
        let (owned, port) = server::start(&recipe, &site)?;
        let host = Self { site, recipe, port, process: Some(owned) };
        wait_until("the box", Duration::from_secs(10), || host.first_process().ok()).map(|_| host)
    }

    /// The address it listens on.
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The fingerprint of its host key, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> Result<String> {
        let mut command = clean_command(process::need_program("ssh-keygen")?);
        command.arg("-lf").arg(self.site.file("host_key.pub"));
        let output = process::run(&mut command, b"")?;
        output
            .stdout
            .split_whitespace()
            .nth(1)
            .map(str::to_owned)
            .ok_or_else(|| LabError::new(format!("ssh-keygen shows no fingerprint: {}", output.stderr)))
    }

    /// Its line of a known_hosts file.
    pub fn known_hosts_line(&self) -> Result<String> {
        let path = self.site.file("host_key.pub");
        let key = fs::read_to_string(&path).could_not(|| format!("read {}", path.display()))?;
        let key: Vec<&str> = key.split_whitespace().take(2).collect();
        Ok(format!("[{}]:{} {}\n", self.host(), self.port, key.join(" ")))
    }

    /// Gives it another host key, as somebody in between would have.
    pub fn replace_host_key(&mut self) -> Result<()> {
        self.stop()?;
        self.recipe.make_host_key(&self.site)?;
        self.restart()
    }

    /// Makes an account with a home and a password.
    pub fn create_user(&self, login: &str, password: &str) -> Result<()> {
        self.create_user_with_shell(login, password, "/bin/bash")
    }

    /// The same with another shell than bash.
    pub fn create_user_with_shell(&self, login: &str, password: &str, shell: &str) -> Result<()> {
        self.need(&["useradd", "--badname", "--create-home", "--shell", shell, "--", login], b"")?;
        self.set_password(login, password)
    }

    /// Makes an account at a host that looks like Windows.
    pub fn create_windows_user(&self, login: &str, password: &str) -> Result<()> {
        self.create_user_with_shell(login, password, "/etc/windows")
    }

    /// What was run at a host that looks like Windows.
    pub fn windows_commands(&self, login: &str) -> String {
        fs::read_to_string(self.homes().join(login).join("windows-commands")).unwrap_or_default()
    }

    /// Lets an account become root, with or without its password.
    pub fn allow_sudo(&self, login: &str, with_password: bool) -> Result<()> {
        let free = if with_password { "" } else { "NOPASSWD: " };
        let path = self.site.file("etc/sudoers.d/lab");
        let before = fs::read_to_string(&path).unwrap_or_default();
        write_file(&path, format!("{before}{login} ALL=(ALL) {free}ALL\n"))?;
        self.need(&["chmod", "440", "/etc/sudoers.d/lab"], b"").map(drop)
    }

    /// Gives an account a password as root, whatever the rules say.
    pub fn set_password(&self, login: &str, password: &str) -> Result<()> {
        let line = format!("{login}:{password}\n");
        self.need(&["chpasswd", "-c", "SHA512", "-s", "1000"], line.as_bytes()).map(drop)
    }

    /// Makes the host want a new password at the next log-in.
    pub fn expire(&self, login: &str) -> Result<()> {
        self.need(&["chage", "-d", "0", "--", login], b"").map(drop)
    }

    /// Closes an account for good.
    pub fn close(&self, login: &str) -> Result<()> {
        self.need(&["chage", "-E", "1", "--", login], b"").map(drop)
    }

    /// Whether the host lets this login in, said by OpenSSH's client, or by
    /// `su` where the host has no server. `false` only when the host refused it.
    pub fn accepts(&self, login: &str, password: &str) -> Result<bool> {
        // Names that the client itself does not let pass.
        let is_odd = login.starts_with('-') || login.contains(|one| "'\"`$\\;&<>|(){}%".contains(one));
        let output = match self.recipe.options.remote_login {
            _ if is_odd => self.su(login, password)?,
            RemoteLogin::None => self.su(login, password)?,
            _ => {
                let mut command = clean_command("/bin/sh");
                let shell = "exec sshpass -d 3 \"$@\" 3<&0 </dev/null";
                command.args(["-c", shell, "sh"]).arg(process::need_program("ssh")?);
                let methods = "PreferredAuthentications=password,keyboard-interactive";
                command.args(["-o", methods, "-o", "NumberOfPasswordPrompts=1", "-o", "PubkeyAuthentication=no"]);
                self.ask(&mut command, login, password.as_bytes())?
            }
        };
        let wrong = output.status == 5
            || [&output.stdout, &output.stderr].iter().any(|said| said.contains("Permission denied"));
        match output.stdout.contains("logged in") {
            true => Ok(true),
            false if wrong => Ok(false),
            false => Err(LabError::new(format!("ssh could not tell whether {login:?} may log in: {output:?}"))),
        }
    }

    fn su(&self, login: &str, password: &str) -> Result<Output> {
        let mut command = self.inside(Path::new("/usr/bin/python3"), Some("nobody"))?;
        process::run(command.args(["-c", SU, login]), password.as_bytes())
    }

    /// Whether the host lets this login in with a private key, said by OpenSSH's client.
    pub fn accepts_key(&self, login: &str, key: &Path) -> Result<bool> {
        let mut command = clean_command(process::need_program("ssh")?);
        command.args(["-o", "PreferredAuthentications=publickey", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]);
        command.arg("-i").arg(key);
        let output = self.ask(&mut command, login, b"")?;
        match output.stdout.contains("logged in") {
            true => Ok(true),
            false if output.stderr.contains("Permission denied") => Ok(false),
            false => Err(LabError::new(format!("ssh could not tell whether {login:?} may log in: {output:?}"))),
        }
    }

    fn ask(&self, command: &mut Command, login: &str, stdin: &[u8]) -> Result<Output> {
        let known = self.site.file("known_hosts");
        write_file(&known, self.known_hosts_line()?)?;
        // The key exchange that it would choose first takes longer than all the rest of a log-in.
        command.args(["-o", "KexAlgorithms=^curve25519-sha256"]);
        command
            .args(["-F", "none", "-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=none", "-o"])
            .arg(format!("UserKnownHostsFile={}", known.display()))
            .args([
                "-o",
                "ConnectTimeout=20",
                "-p",
                &self.port.to_string(),
                "-l",
                login,
                self.host(),
                "echo logged in",
            ]);
        process::run(command.env("HOME", self.site.path()), stdin)
    }

    /// Runs a program as root in the box.
    pub fn run(&self, program: &[&str], stdin: &[u8]) -> Result<Output> {
        let (program, arguments) = program.split_first().ok_or_else(|| LabError::new("no program was named"))?;
        process::run(self.inside(Path::new(program), None)?.args(arguments), stdin)
    }

    fn need(&self, program: &[&str], stdin: &[u8]) -> Result<Output> {
        let output = self.run(program, stdin)?;
        if output.succeeded() {
            return Ok(output);
        }
        Err(LabError::new(format!("{program:?} ended with status {} in the box: {}", output.status, output.stderr)))
    }

    /// A command that starts a program in the box, as root or as one of its accounts.
    pub fn inside(&self, program: &Path, login: Option<&str>) -> Result<Command> {
        let mut command = clean_command(process::need_program("nsenter")?);
        command.arg("-t").arg(self.first_process()?.to_string()).args(["--mount", "--pid", "--"]);
        if let Some(login) = login {
            let (user, group) = self.ids(login)?;
            command.arg("setpriv");
            command.args([&format!("--reuid={user}"), &format!("--regid={group}"), "--clear-groups", "--"]);
        }
        command.arg(program);
        Ok(command)
    }

    /// The user and group of one of its accounts.
    pub fn ids(&self, login: &str) -> Result<(u32, u32)> {
        let path = self.site.file("etc/passwd");
        let users = fs::read_to_string(&path).could_not(|| format!("read {}", path.display()))?;
        let numbers = |line: &str| {
            let rest = line.strip_prefix(login)?.strip_prefix(':')?;
            let mut numbers = rest.split(':').skip(1).map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        };
        users.lines().find_map(numbers).ok_or_else(|| LabError::new(format!("there is no account {login:?}")))
    }

    /// Where the box's `/home` lies.
    pub fn homes(&self) -> PathBuf {
        self.site.file("home")
    }

    /// The authorised keys of an account, as they lie in its home.
    pub fn authorized_keys(&self, login: &str) -> Result<Vec<u8>> {
        let path = self.homes().join(login).join(".ssh/authorized_keys");
        fs::read(&path).could_not(|| format!("read {}", path.display()))
    }

    /// Writes the authorised keys of an account.
    pub fn authorize(&self, login: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let directory = self.homes().join(login).join(".ssh");
        fs::create_dir_all(&directory).could_not(|| format!("create {}", directory.display()))?;
        write_file(&directory.join("authorized_keys"), content)?;
        let inside = format!("/home/{login}/.ssh");
        self.need(&["chown", "-R", &format!("{login}:"), "--", &inside], b"")?;
        self.need(&["chmod", "-R", "u=rwX,go=", "--", &inside], b"").map(drop)
    }

    /// Everything the server said, and PAM, su, sudo and passwd.
    pub fn log(&self) -> String {
        let auth = fs::read(self.site.file("auth.log")).unwrap_or_default();
        self.site.log() + &String::from_utf8_lossy(&auth)
    }

    /// How many log-ins were refused.
    pub fn failed_logins(&self) -> usize {
        let log = self.log();
        let refused = |line: &&str| match self.recipe.options.remote_login {
            RemoteLogin::OpenSsh => line.starts_with("Failed ") && !line.starts_with("Failed none"),
            RemoteLogin::Dropbear => line.contains("Bad password attempt"),
            RemoteLogin::None => line.contains("pam_unix(") && line.contains(": authentication failure"),
        };
        log.lines().filter(refused).count()
    }

    /// Freezes the server: connections wait and nothing answers.
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

    /// Ends the box with everything in it; its accounts, port and log stay.
    pub fn stop(&mut self) -> Result<()> {
        drop(self.process.take());
        Ok(())
    }

    /// Makes the box again on the same port.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.process = Some(server::start_on(&self.recipe, &self.site, self.port)?);
        wait_until("the box", Duration::from_secs(10), || self.first_process().ok()).map(drop)
    }

    /// Notes the command lines and environments of everything that runs in the
    /// box, until the watch is ended.
    pub fn watch(&self) -> Result<Watch> {
        let namespace =
            namespace_of(self.first_process()?).ok_or_else(|| LabError::new("the box has no process namespace"))?;
        let over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&over);
        let seen = thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !end.load(Ordering::Relaxed) {
                for process in processes_in(&namespace) {
                    for file in ["cmdline", "environ"] {
                        let text = fs::read(format!("/proc/{process}/{file}")).unwrap_or_default();
                        seen.insert(String::from_utf8_lossy(&text).replace('\0', " "));
                    }
                }
            }
            seen
        });
        Ok(Watch { over, seen })
    }

    fn first_process(&self) -> Result<u32> {
        let owned = self.process.as_ref().ok_or_else(|| LabError::new("the box is stopped"))?;
        let first = process::children(owned.id()).first().copied();
        first.ok_or_else(|| LabError::new("the box has no process"))
    }
}

/// A watch over the processes of a box.
pub struct Watch {
    over: Arc<AtomicBool>,
    seen: JoinHandle<BTreeSet<String>>,
}

impl Watch {
    /// Ends it: every command line and environment that was seen.
    pub fn end(self) -> BTreeSet<String> {
        self.over.store(true, Ordering::Relaxed);
        self.seen.join().unwrap_or_default()
    }
}

fn namespace_of(process: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/pid")).ok()
}

fn processes_in(namespace: &Path) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|process| namespace_of(*process).as_deref() == Some(namespace))
        .collect()
}

/// Logs in by `su` on a terminal. Its own tool, so that no rotator is judged by its own code.
const SU: &str = r#"
import os, pty, sys
password = sys.stdin.buffer.read()
child, terminal = pty.fork()
if child == 0:
    os.environ["LC_ALL"] = "C"
    os.execv("/bin/su", ["su", "-c", "echo logged in", "--", sys.argv[1]])
said, asked = b"", False
while True:
    try:
        piece = os.read(terminal, 4096)
    except OSError:
        break
    if not piece:
        break
    said += piece
    if not asked and b"assword:" in said:
        asked = True
        os.write(terminal, password + b"\n")
    elif asked and b"urrent password:" in said:
        print("logged in, but expired")
        os.kill(child, 9)
print(said.decode(errors="replace"))
if b"Authentication failure" in said:
    sys.exit(5)
"#;

/// How a box is furnished and run.
struct UnixBox {
    options: UnixHostOptions,
}

impl UnixBox {
    /// A copy of `/etc` with rules of its own, homes, keys and stand-ins.
    fn furnish(&self, site: &Site) -> Result<()> {
        template::copy(Path::new("/etc"), &site.file("etc"))?;
        for (name, rules) in self.pam() {
            write_file(&site.file(&format!("etc/pam.d/{name}")), rules)?;
        }
        write_file(&site.file("etc/security/opasswd"), "")?;
        fs::create_dir(site.file("home")).could_not(|| "create the homes".to_owned())?;
        write_file(&site.file("box.sh"), BOX)?;
        write_file(&site.file("etc/windows"), WINDOWS)?;
        let mut chmod = clean_command("chmod");
        process::run(chmod.arg("755").arg(site.file("etc/windows")), b"")?;
        let account = stand_in()?;
        fs::copy(account, site.file("account")).could_not(|| "copy the stand-in for passwd".to_owned())?;
        let wording = match self.options.passwd {
            Passwd::Debian => None,
            Passwd::Rhel => Some("rhel\n"),
            Passwd::Busybox => Some("busybox\n"),
        };
        if let Some(wording) = wording {
            write_file(&site.file("replaces-passwd"), "")?;
            write_file(&site.file("etc/lab-wording"), wording)?;
        }
        self.make_host_key(site)
    }

    fn make_host_key(&self, site: &Site) -> Result<()> {
        let key = site.file("host_key");
        for path in [key.clone(), site.file("host_key.pub"), site.file("dropbear_key")] {
            fs::remove_file(path).ok();
        }
        let mut keygen = clean_command(process::need_program("ssh-keygen")?);
        process::run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"]).arg(&key), b"")?;
        if self.options.remote_login == RemoteLogin::Dropbear {
            let mut convert = clean_command(process::need_program("dropbearconvert")?);
            convert.args(["openssh", "dropbear"]).arg(&key).arg(site.file("dropbear_key"));
            let output = process::run(&mut convert, b"")?;
            if !output.succeeded() {
                return Err(LabError::new(format!("dropbearconvert: {}", output.stderr)));
            }
        }
        Ok(())
    }

    /// Debian's rules without what a machine's packages have added, and without
    /// the pause after a failure.
    fn pam(&self) -> BTreeMap<&'static str, String> {
        let (quality, history, lockout) = (&self.options.quality, self.options.history, self.options.lockout);
        let lock = |part: &str| {
            lockout
                .map_or(String::new(), |deny| format!("auth {part} pam_faillock.so {{}} deny={deny} unlock_time=600\n"))
        };
        let (before, after) =
            (lock("required").replace("{}", "preauth"), lock("[default=die]").replace("{}", "authfail"));
        let success = if lockout.is_some() { 2 } else { 1 };
        let auth = format!(
            "{before}auth [success={success} default=ignore] pam_unix.so nullok nodelay\n{after}\
             auth requisite pam_deny.so\nauth required pam_permit.so\n"
        );
        let account = format!(
            "account [success=1 new_authtok_reqd=done default=ignore] pam_unix.so\naccount requisite pam_deny.so\n\
             account required pam_permit.so\n{}",
            if lockout.is_some() { "account required pam_faillock.so\n" } else { "" }
        );
        let mut password = String::new();
        if let Some(arguments) = quality {
            password.push_str(&format!("password requisite pam_pwquality.so retry=3 {arguments}\n"));
        }
        if let Some(remember) = history {
            password.push_str(&format!("password requisite pam_pwhistory.so remember={remember} use_authtok\n"));
        }
        let authtok = if quality.is_some() || history.is_some() { "use_authtok try_first_pass" } else { "minlen=1" };
        // pwhistory takes the new password from the module before it, or asks itself.
        let password = if quality.is_none() { password.replace(" use_authtok", "") } else { password };
        let password = format!(
            "{password}password [success=1 default=ignore] pam_unix.so {authtok} sha512 rounds=1000\n\
             password requisite pam_deny.so\npassword required pam_permit.so\n"
        );
        let session = "session required pam_permit.so\nsession optional pam_unix.so\n".to_owned();
        let sshd = "@include common-auth\naccount required pam_nologin.so\n@include common-account\n\
                    @include common-session\n@include common-password\n"
            .to_owned();
        BTreeMap::from([
            ("common-auth", auth),
            ("common-account", account),
            ("common-password", password),
            ("common-session", session.clone()),
            ("common-session-noninteractive", session),
            ("sshd", sshd),
        ])
    }

    fn sshd_config(&self, site: &Site, port: u16) -> String {
        let asks = self.options.keyboard_interactive;
        let yes = |is: bool| if is { "yes" } else { "no" };
        // The first line of a kind counts, so a test's own lines come first.
        format!(
            "{}\nPort {port}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile none\nUsePAM yes\n\
             PasswordAuthentication {}\nKbdInteractiveAuthentication {}\nPermitRootLogin yes\nStrictModes yes\n\
             LogLevel VERBOSE\nPrintMotd no\nMaxStartups 200\nUseDNS no\n",
            self.options.sshd.join("\n"),
            site.file("host_key").display(),
            yes(!asks),
            yes(asks),
        )
    }
}

impl Recipe for UnixBox {
    const ENDING: Ending = Ending::Kill;

    fn ready(&self) -> &'static str {
        match self.options.remote_login {
            RemoteLogin::OpenSsh => "Server listening on",
            RemoteLogin::Dropbear => "Not backgrounding",
            RemoteLogin::None => "the box is made",
        }
    }

    fn command(&self, site: &Site, port: u16) -> Result<Command> {
        let mut command = clean_command(process::need_program("unshare")?);
        command.args([
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child=SIGKILL",
            "--mount-proc",
        ]);
        command.arg("/bin/sh").arg(site.file("box.sh")).arg(site.path());
        match self.options.remote_login {
            RemoteLogin::OpenSsh => {
                let config = site.file("sshd_config");
                write_file(&config, self.sshd_config(site, port))?;
                command.arg(process::need_program("sshd")?).args(["-D", "-e", "-f"]).arg(config);
            }
            RemoteLogin::Dropbear => {
                command.arg(process::need_program("dropbear")?).args(["-F", "-E", "-r"]).arg(site.file("dropbear_key"));
                command.args(["-p", &format!("127.0.0.1:{port}")]);
            }
            RemoteLogin::None => {
                command.args(["sleep", "infinity"]);
            }
        }
        Ok(command)
    }
}

/// The compiled stand-ins, made once.
fn stand_in() -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    ACCOUNT.hash(&mut hasher);
    let shelf = template::shelf()?;
    let program = shelf.join(format!("account-{:016x}", hasher.finish()));
    if program.is_file() {
        return Ok(program);
    }
    let lock_path = shelf.join("account.lock");
    let lock = fs::File::create(&lock_path).could_not(|| format!("create {}", lock_path.display()))?;
    lock.lock().could_not(|| format!("lock {}", lock_path.display()))?;
    let draft = shelf.join("account.draft");
    let mut compiler = clean_command(process::need_program("cc")?);
    compiler
        .args(["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-x", "c", "-o"])
        .arg(&draft)
        .args(["-", "-lcrypt"]);
    let output = process::run(&mut compiler, ACCOUNT.as_bytes())?;
    if !output.succeeded() {
        return Err(LabError::new(format!("cc could not compile the stand-in for passwd: {}", output.stderr)));
    }
    fs::rename(&draft, &program).could_not(|| format!("rename {}", draft.display()))?;
    Ok(program)
}
