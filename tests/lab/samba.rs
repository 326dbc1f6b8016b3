//! A real Active Directory domain controller: Samba, with its LDAP and Kerberos
//! services only. It is provisioned once per machine; every start is a copy.
//!
//! Active Directory's ports are fixed, so each controller has an address of its
//! own on loopback, and a private mount and process namespace: its runtime
//! directory is compiled in, and whoever kills the namespace kills all of it.

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    ADMIN, Authority, LabError, Login, Result,
    error::Context,
    ldif::{self, Entry},
    process::{self, Ending, Owned, User, clean_command, wait_until},
    server::{self, Recipe, Site},
    template,
};

/// What a test may want different from the default.
#[derive(Debug, Clone)]
pub struct DomainOptions {
    /// The names in the controller's certificate, beside its own.
    pub names: Vec<String>,
    /// Attributes of the domain's policy, as in `("minPwdLength", "12")`.
    pub policy: Vec<(&'static str, &'static str)>,
    /// Further lines of `smb.conf`; they win.
    pub settings: Vec<String>,
}

impl Default for DomainOptions {
    fn default() -> Self {
        Self { names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()], policy: Vec::new(), settings: Vec::new() }
    }
}

/// A running domain controller of LAB.TEST that is gone when this value is.
pub struct DomainController {
    // Dropped before the site: the server must end before its directory does.
    process: Option<Owned>,
    recipe: Samba,
    site: Site,
}

const DOMAIN: &str = "DC=lab,DC=test";
/// One port is probed for all: where this one is free, the others are, too.
const LDAPS: u16 = 636;
const START: Duration = Duration::from_secs(60);

/// An interval as Active Directory writes it: negative, in units of 100 ns.
pub const MINUTE: &str = "-600000000";

const CONF: &str = "\
[global]
realm = LAB.TEST
workgroup = LAB
netbios name = DC1
server role = active directory domain controller
server services = ldap, kdc
interfaces = {address}/8
bind interfaces only = yes
disable netbios = yes
private dir = {place}/data/private
state directory = {place}/data/state
cache directory = {place}/data/cache
lock directory = {place}/data/lock
pid directory = {place}/data/pid
ncalrpc dir = {place}/data/ncalrpc
log file = {place}/server.log
log level = 1 auth_audit:3
max log size = 0
tls enabled = yes
tls cafile = {place}/ca.crt
tls certfile = {place}/server.crt
tls keyfile = {place}/server.key
ldap server require strong auth = yes
old password allowed period = 0
dns update command = /bin/true
samba kcc command = /bin/true
{settings}
[sysvol]
path = {place}/data/sysvol
[netlogon]
path = {place}/data/sysvol/lab.test/scripts
";

const DIRECTORIES: [&str; 7] = ["private", "state", "cache", "lock", "pid", "ncalrpc", "sysvol"];

const PROVISION: [&str; 8] = [
    "domain",
    "provision",
    "--realm=LAB.TEST",
    "--domain=LAB",
    "--host-name=dc1",
    "--host-ip=127.0.0.1",
    "--server-role=dc",
    "--dns-backend=NONE",
];

impl DomainController {
    /// Starts a controller and returns once it accepts connections.
    pub fn start(options: DomainOptions) -> Result<Self> {
        if !User::is_root() {
            return Err(LabError::new("a domain controller needs its ports, which only root may open"));
        }
        let samba = process::need_program("samba")?;
        let recipe = format!("{CONF}{PROVISION:?}");
        let template = template::prepare("samba", &samba, &recipe, None, provision)?;

        let address = server::free_address(LDAPS)?;
        let own = [address.to_string(), "dc1.lab.test".to_owned()];
        let names: Vec<&str> = options.names.iter().chain(&own).map(String::as_str).collect();
        let site = Site::new("samba", None, &Authority::new()?, &names)?;
        template::copy(&template.join("data"), &site.file("data"))?;
        let recipe = Samba { server: samba, address, settings: options.settings };
        let mut controller = Self { process: None, recipe, site };
        controller.restart()?;
        for (attribute, value) in &options.policy {
            controller.set_policy(attribute, &[value])?;
        }
        Ok(controller)
    }

    /// The address to connect to, which only this controller has.
    pub fn host(&self) -> String {
        self.recipe.address.to_string()
    }

    /// The port for TLS from the first byte; StartTLS is spoken on 389.
    pub fn port(&self) -> u16 {
        LDAPS
    }

    /// Both of them.
    pub fn address(&self) -> SocketAddr {
        (IpAddr::V4(self.recipe.address), LDAPS).into()
    }

    /// The certificate of the authority that issued the controller's certificate.
    pub fn ca_path(&self) -> PathBuf {
        self.site.file("ca.crt")
    }

    /// The domain's administrator.
    pub fn admin(&self) -> Login {
        Login { login: "Administrator", ..ADMIN }
    }

    /// The DN of a person.
    pub fn dn(&self, login: &str) -> String {
        format!("CN={},CN=Users,{DOMAIN}", ldif::escaped(login))
    }

    /// Makes a person who can log in.
    pub fn create(&self, login: &str, password: &str) -> Result<()> {
        let person = Entry::new(&self.dn(login))
            .with("objectClass", "user")
            .with("sAMAccountName", login)
            .with("unicodePwd", quoted(password))
            .with("userAccountControl", "512");
        self.change(&ldif::entries(&[person])).map(drop)
    }

    /// Makes a person who may do everything.
    pub fn create_admin(&self, login: &str, password: &str) -> Result<()> {
        self.create(login, password)?;
        let group = format!("CN=Domain Admins,CN=Users,{DOMAIN}");
        self.change(&ldif::add(&group, "member", &self.dn(login))).map(drop)
    }

    /// Gives a person another password, by the domain's administrator.
    pub fn set_password(&self, login: &str, password: &str) -> Result<()> {
        self.change(&ldif::replace(&self.dn(login), "unicodePwd", &[quoted(password)])).map(drop)
    }

    /// Replaces the values of an attribute, by the domain's administrator; no value removes it.
    pub fn modify(&self, dn: &str, attribute: &str, values: &[&str]) -> Result<()> {
        self.change(&ldif::replace(dn, attribute, values)).map(drop)
    }

    /// Replaces an attribute of the domain's own policy.
    pub fn set_policy(&self, attribute: &str, values: &[&str]) -> Result<()> {
        self.modify(DOMAIN, attribute, values)
    }

    /// The person has to change the password at the next log-in.
    pub fn demand_change(&self, login: &str) -> Result<()> {
        self.modify(&self.dn(login), "pwdLastSet", &["0"])
    }

    /// The account can be used no more since years.
    pub fn expire_account(&self, login: &str) -> Result<()> {
        self.modify(&self.dn(login), "accountExpires", &["130000000000000000"])
    }

    /// Somebody switched the account off.
    pub fn disable(&self, login: &str) -> Result<()> {
        self.modify(&self.dn(login), "userAccountControl", &["514"])
    }

    /// Puts an access rule, in SDDL, before the others of a person's entry.
    pub fn allow(&self, login: &str, rule: &str) -> Result<()> {
        let dn = self.dn(login);
        self.tool(&["dsacl", "set", "--objectdn", &dn, "--sddl", rule]).map(drop)
    }

    /// A person's security identifier.
    pub fn sid(&self, login: &str) -> Result<String> {
        let dn = self.dn(login);
        let shown = self.tool(&["user", "show", login, "--attributes=objectSid"])?;
        ldif::values(&shown, "objectSid").pop().ok_or_else(|| LabError::new(format!("{dn} has no SID")))
    }

    /// The values of an attribute of an entry, as the domain's administrator sees them.
    pub fn attribute(&self, dn: &str, attribute: &str) -> Result<Vec<String>> {
        let mut search = self.client("ldapsearch", &self.dn(self.admin().login))?;
        search.args(["-s", "base", "-b", dn, attribute]);
        let output = process::run(&mut search, self.admin().password.as_bytes())?;
        if output.succeeded() {
            return Ok(ldif::values(&output.stdout, attribute));
        }
        Err(LabError::new(format!("ldapsearch ended with status {}: {}", output.status, output.stderr.trim_end())))
    }

    /// Whether the controller lets a person in with this password, over TLS with
    /// a checked certificate. `false` only when the controller itself said that
    /// the password is wrong; anything else is an error, never a guess.
    pub fn accepts(&self, login: &str, password: &str) -> Result<bool> {
        let mut client = self.client("ldapsearch", &self.dn(login))?;
        client.args(["-s", "base", "-b", "", "currentTime"]);
        let output = process::run(&mut client, password.as_bytes())?;
        // Codes that follow a right password: it has expired, or must be changed first.
        let says = |code: &str| output.stderr.contains(&format!(", data {code},"));
        if output.succeeded() || says("532") || says("773") {
            return Ok(true);
        }
        if says("52e") {
            return Ok(false);
        }
        Err(LabError::new(format!(
            "ldapsearch could not tell whether {login:?} may log in: {}",
            output.stderr.trim_end()
        )))
    }

    /// The names of all accounts that are locked because of wrong passwords.
    pub fn locked_accounts(&self) -> Result<Vec<String>> {
        let mut search = self.client("ldapsearch", &self.dn(self.admin().login))?;
        search.args(["-b", DOMAIN, "(lockoutTime>=1)", "sAMAccountName"]);
        let output = process::run(&mut search, self.admin().password.as_bytes())?;
        if output.succeeded() {
            return Ok(ldif::values(&output.stdout, "sAMAccountName"));
        }
        Err(LabError::new(format!("ldapsearch ended with status {}: {}", output.status, output.stderr.trim_end())))
    }

    /// Everything the controller has logged, across restarts.
    pub fn log(&self) -> String {
        self.site.log()
    }

    /// How many log-ins the controller has refused.
    pub fn failed_logins(&self) -> usize {
        let refused = |line: &&str| line.contains("Auth: [LDAP") && !line.contains("status [NT_STATUS_OK]");
        self.log().lines().filter(refused).count()
    }

    /// Ends the controller; its data, address and log stay.
    pub fn stop(&mut self) -> Result<()> {
        let Some(process) = self.process.take() else {
            return Ok(());
        };
        // `unshare` does not pass a signal on; the first process within does.
        for first in process::children(process.id()) {
            process::signal(first, "TERM");
        }
        let mut process = process;
        wait_until("a domain controller to end", Duration::from_secs(20), || process.ended()).map(drop)
    }

    /// Ends the controller without a chance to put anything in order; its data, port and log stay.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Starts a stopped controller again; a running one is stopped first.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        let process = server::start_on(&self.recipe, &self.site, LDAPS)?;
        let address = self.address();
        self.process = Some(process);
        wait_until("a domain controller to listen", START, || TcpStream::connect(address).ok()).map(drop)
    }

    /// Freezes all of the controller: connections stay open, nothing answers.
    pub fn pause(&self) {
        let Some(process) = &self.process else { return };
        let mut still = HashSet::new();
        loop {
            // Again until nobody is new: a child may be born before its parent stands still.
            let new: Vec<u32> = descendants(process.id()).into_iter().filter(|id| !still.contains(id)).collect();
            if new.is_empty() {
                return;
            }
            new.iter().for_each(|id| process::signal(*id, "STOP"));
            still.extend(new);
        }
    }

    /// Ends a [`Self::pause`].
    pub fn resume(&self) {
        if let Some(process) = &self.process {
            descendants(process.id()).into_iter().for_each(|id| process::signal(id, "CONT"));
        }
    }

    /// Applies LDIF as the domain's administrator.
    fn change(&self, ldif: &str) -> Result<String> {
        // Its standard input is the LDIF, so the administrator's password, which is no secret, is a file.
        let password = self.site.file("administrator.password");
        if !password.exists() {
            self.site.private_file("administrator.password", self.admin().password)?;
        }
        let mut client = self.ldap("ldapmodify")?;
        client.args(["-a", "-x", "-D", &self.dn(self.admin().login), "-y"]).arg(password);
        let output = process::run(&mut client, ldif.as_bytes())?;
        if output.succeeded() {
            return Ok(output.stdout);
        }
        Err(LabError::new(format!("ldapmodify ended with status {}: {}", output.status, output.stderr.trim_end())))
    }

    /// A client that logs in with the password it reads from its standard input.
    fn client(&self, program: &str, dn: &str) -> Result<Command> {
        let mut client = self.ldap(program)?;
        client.args(["-LLL", "-o", "ldif-wrap=no", "-x", "-D", dn, "-y", "/dev/stdin"]);
        Ok(client)
    }

    fn ldap(&self, program: &str) -> Result<Command> {
        let mut tool = clean_command(process::need_program(program)?);
        tool.args(["-H", &format!("ldaps://{}", self.host()), "-o", "nettimeout=20"])
            .env("LDAPTLS_CACERT", self.ca_path())
            .env("LDAPTLS_REQCERT", "demand")
            .env("HOME", self.site.path());
        Ok(tool)
    }

    /// Samba's own tool, which writes the controller's database itself. Never given a secret.
    fn tool(&self, arguments: &[&str]) -> Result<String> {
        let mut tool = clean_command(process::need_program("samba-tool")?);
        tool.args(arguments).arg(format!("--configfile={}", self.site.file("smb.conf").display()));
        tool.args(["-H", &self.site.file("data/private/sam.ldb").display().to_string()]);
        let output = process::run(&mut tool, b"")?;
        if output.succeeded() {
            return Ok(output.stdout);
        }
        Err(LabError::new(format!("samba-tool {arguments:?} said: {}{}", output.stdout, output.stderr)))
    }
}

/// A password as `unicodePwd` wants it.
fn quoted(password: &str) -> Vec<u8> {
    format!("\"{password}\"").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// A process with its children and theirs.
fn descendants(id: u32) -> Vec<u32> {
    let below = process::children(id).into_iter().flat_map(descendants);
    std::iter::once(id).chain(below).collect()
}

/// Makes the domain: its database and its administrator.
fn provision(draft: &Path) -> Result<()> {
    for name in DIRECTORIES {
        let path = draft.join("data").join(name);
        fs::create_dir_all(&path).could_not(|| format!("create {}", path.display()))?;
    }
    let conf = draft.join("smb.conf");
    process::write_file(&conf, configuration(draft, Ipv4Addr::LOCALHOST, &[]))?;
    let mut command = clean_command(process::need_program("samba-tool")?);
    command.args(PROVISION).arg(format!("--adminpass={}", ADMIN.password));
    command.arg(format!("--configfile={}", conf.display())).env("HOME", draft).current_dir(draft);
    let output = process::run_within(&mut command, b"", Duration::from_secs(120))?;
    if output.succeeded() {
        return Ok(());
    }
    Err(LabError::new(format!("samba-tool ended with status {}: {}{}", output.status, output.stdout, output.stderr)))
}

fn configuration(place: &Path, address: Ipv4Addr, settings: &[String]) -> String {
    CONF.replace("{place}", &place.display().to_string())
        .replace("{address}", &address.to_string())
        .replace("{settings}", &settings.join("\n"))
}

/// How Samba is configured and run.
struct Samba {
    server: PathBuf,
    address: Ipv4Addr,
    settings: Vec<String>,
}

impl Recipe for Samba {
    const ENDING: Ending = Ending::Kill;

    fn ready(&self) -> &'static str {
        "samba: using 'prefork' process model"
    }

    fn command(&self, site: &Site, _port: u16) -> Result<Command> {
        process::write_file(&site.file("smb.conf"), configuration(site.path(), self.address, &self.settings))?;
        let mut command = clean_command(process::need_program("unshare")?);
        command
            .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"])
            .args(["sh", "-c", "mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/samba && exec \"$@\"", "sh"])
            .arg(&self.server)
            .args(["--foreground", "--no-process-group"])
            .arg(format!("--configfile={}", site.file("smb.conf").display()));
        Ok(command)
    }
}
