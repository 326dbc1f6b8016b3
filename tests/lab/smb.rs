//! A real file server with accounts of its own: Samba's smbd, alone and in no
//! domain, in a host's box, for its accounts have to be the host's, too.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use crate::{
    ADMIN, Authority, LabError, Login, RemoteLogin, Result, UnixHost, UnixHostOptions,
    process::{self, Ending, Output, Owned, clean_command, wait_until},
    server::{self, Recipe, Site},
};

/// What a test may want different from the default.
#[derive(Debug, Clone, Default)]
pub struct SmbOptions {
    /// Account policies, as in `("min password length", "12")`.
    pub policy: Vec<(&'static str, &'static str)>,
    /// Further lines of `smb.conf`; they win.
    pub settings: Vec<String>,
}

/// A running smbd that is gone when this value is.
pub struct SmbServer {
    // Dropped before the box: all in it ends with that.
    process: Option<Owned>,
    recipe: Smbd,
    site: Site,
}

/// The one port that Windows, and some of Samba's own clients, know.
const PORT: u16 = 445;

const CONF: &str = "\
[global]
server role = standalone server
workgroup = LABGROUP
netbios name = LABHOST
interfaces = {address}/8
bind interfaces only = yes
disable netbios = yes
smb ports = 445
server min protocol = SMB3
server signing = mandatory
server smb encrypt = required
passdb backend = tdbsam
admin users = @smbadmins
old password allowed period = 0
map to guest = never
load printers = no
private dir = {place}/private
state directory = {place}/state
cache directory = {place}/cache
lock directory = {place}/lock
pid directory = {place}/pid
ncalrpc dir = {place}/ncalrpc
log level = 1 auth_audit:3
{settings}
";

const DIRECTORIES: [&str; 6] = ["private", "state", "cache", "lock", "pid", "ncalrpc"];

impl SmbServer {
    /// Starts a server and returns once it accepts connections.
    pub fn start(options: SmbOptions) -> Result<Self> {
        let host = UnixHost::start(UnixHostOptions { remote_login: RemoteLogin::None, ..UnixHostOptions::default() })?;
        let site = Site::new("smb", None, &Authority::new()?, &["localhost"])?;
        for name in DIRECTORIES {
            crate::template::make_directory(&site.file(name), None)?;
        }
        let recipe = Smbd { host, address: server::free_address(PORT)?, settings: options.settings };
        let process = server::start_on(&recipe, &site, PORT)?;
        let server = Self { process: Some(process), recipe, site };
        server.wait()?;
        server.need(&["groupadd", "smbadmins"], b"")?;
        server.create_admin(ADMIN.login, ADMIN.password)?;
        for (policy, value) in options.policy {
            server.set_policy(policy, value)?;
        }
        Ok(server)
    }

    /// The address it listens at, which only this server has.
    pub fn host(&self) -> String {
        self.recipe.address.to_string()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (self.recipe.address, PORT).into()
    }

    /// Who may do everything.
    pub fn admin(&self) -> Login {
        ADMIN
    }

    /// Makes an account that can log in.
    pub fn create(&self, login: &str, password: &str) -> Result<()> {
        self.need(&["useradd", "--badname", "--no-create-home", "--", login], b"")?;
        self.smbpasswd(&["-a", login], password)
    }

    /// Makes an account that may do everything.
    pub fn create_admin(&self, login: &str, password: &str) -> Result<()> {
        self.need(&["useradd", "--badname", "--no-create-home", "-G", "smbadmins", "--", login], b"")?;
        self.smbpasswd(&["-a", login], password)
    }

    /// Gives an account another password, as root of the host, whatever the rules say.
    pub fn set_password(&self, login: &str, password: &str) -> Result<()> {
        self.smbpasswd(&[login], password)
    }

    /// Sets an account policy, as in `("bad lockout attempt", "3")`.
    pub fn set_policy(&self, policy: &str, value: &str) -> Result<()> {
        self.pdbedit(&["-P", policy, "-C", value]).map(drop)
    }

    /// Sets an account's flags: `[D          ]` for a disabled one.
    pub fn set_flags(&self, login: &str, flags: &str) -> Result<()> {
        self.pdbedit(&["-r", "-c", flags, "-u", login]).map(drop)
    }

    /// The account has to change its password at the next log-in.
    pub fn demand_change(&self, login: &str) -> Result<()> {
        let conf = self.conf();
        self.need(&["net", "-s", &conf, "sam", "set", "pwdmustchangenow", login, "yes"], b"").map(drop)
    }

    /// The account can be used no more since years.
    pub fn expire_account(&self, login: &str) -> Result<()> {
        self.pdbedit(&["-r", "-K", "1000000", "-u", login]).map(drop)
    }

    /// Forgets failed log-ins, and with them a lock.
    pub fn unlock(&self, login: &str) -> Result<()> {
        self.pdbedit(&["-r", "-z", "-u", login])?;
        self.set_flags(login, "[           ]")
    }

    /// What is stored of an account, its password's digest included.
    pub fn describe(&self, login: &str) -> Result<String> {
        self.pdbedit(&["-L", "-w", "-u", login]).map(|output| output.stdout)
    }

    /// Whether Samba's own client gets in over an encrypted session. `false` only
    /// when the server said that name or password is wrong; anything else is an
    /// error, never a guess.
    pub fn accepts(&self, login: &str, password: &str) -> Result<bool> {
        let mut client = clean_command(process::need_program("smbclient")?);
        client
            .arg(format!("//{}/IPC$", self.host()))
            .args(["-s", "/dev/null", "-U", login, "-c", "quit"])
            .args(["--client-protection=encrypt", "-m", "SMB3"])
            .env("PASSWD_FD", "0")
            .env("HOME", self.site.path());
        let output = process::run(&mut client, password.as_bytes())?;
        let says = |status: &str| output.stdout.contains(status) || output.stderr.contains(status);
        // These follow a right password.
        if output.succeeded() || says("NT_STATUS_PASSWORD_MUST_CHANGE") || says("NT_STATUS_PASSWORD_EXPIRED") {
            return Ok(true);
        }
        if says("NT_STATUS_LOGON_FAILURE") || says("NT_STATUS_WRONG_PASSWORD") {
            return Ok(false);
        }
        Err(LabError::new(format!(
            "smbclient could not tell whether {login:?} may log in: {}{}",
            output.stdout, output.stderr
        )))
    }

    /// Everything the server has logged, across restarts.
    pub fn log(&self) -> String {
        self.site.log()
    }

    /// How many log-ins the server has refused.
    pub fn failed_logins(&self) -> usize {
        let refused = |line: &&str| line.contains("Auth: [SMB") && !line.contains("status [NT_STATUS_OK]");
        self.log().lines().filter(refused).count()
    }

    /// Ends the server; its accounts, address and log stay.
    pub fn stop(&mut self) -> Result<()> {
        self.signal("KILL");
        if let Some(mut process) = self.process.take() {
            wait_until("smbd to end", Duration::from_secs(20), || process.ended())?;
        }
        Ok(())
    }

    /// Starts a stopped server again; a running one is stopped first.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.process = Some(server::start_on(&self.recipe, &self.site, PORT)?);
        self.wait()
    }

    /// It listens a moment after its last line.
    fn wait(&self) -> Result<()> {
        let listens = || TcpStream::connect(self.address()).ok();
        wait_until("smbd to listen", Duration::from_secs(20), listens).map(drop)
    }

    /// Freezes the server: connections stay open, nothing answers.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Ends a [`Self::pause`].
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        drop(self.recipe.host.run(&["pkill", &format!("-{name}"), "-x", "smbd"], b""));
    }

    fn smbpasswd(&self, arguments: &[&str], password: &str) -> Result<()> {
        let conf = self.conf();
        let twice = format!("{password}\n{password}\n");
        self.need(&[&["smbpasswd", "-c", &conf, "-s"], arguments].concat(), twice.as_bytes()).map(drop)
    }

    fn pdbedit(&self, arguments: &[&str]) -> Result<Output> {
        let conf = self.conf();
        self.need(&[&["pdbedit", "-s", &conf], arguments].concat(), b"")
    }

    fn conf(&self) -> String {
        self.site.file("smb.conf").display().to_string()
    }

    fn need(&self, program: &[&str], stdin: &[u8]) -> Result<Output> {
        let output = self.recipe.host.run(program, stdin)?;
        if output.succeeded() {
            return Ok(output);
        }
        Err(LabError::new(format!("{program:?} ended with {}: {}{}", output.status, output.stdout, output.stderr)))
    }

    /// Where everything about it lies.
    pub fn place(&self) -> PathBuf {
        self.site.path().to_owned()
    }
}

/// How smbd is configured and run.
struct Smbd {
    host: UnixHost,
    address: Ipv4Addr,
    settings: Vec<String>,
}

impl Recipe for Smbd {
    const ENDING: Ending = Ending::Kill;

    fn ready(&self) -> &'static str {
        "INFO: Profiling turned"
    }

    fn command(&self, site: &Site, _port: u16) -> Result<Command> {
        let conf = CONF
            .replace("{place}", &site.path().display().to_string())
            .replace("{address}", &self.address.to_string())
            .replace("{settings}", &self.settings.join("\n"));
        process::write_file(&site.file("smb.conf"), conf)?;
        let mut command = self.host.inside(&process::need_program("smbd")?, None)?;
        command.args(["--foreground", "--no-process-group", "--debug-stdout"]);
        command.arg(format!("--configfile={}", site.file("smb.conf").display()));
        Ok(command)
    }
}
