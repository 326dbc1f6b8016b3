//! A real OpenLDAP with TLS and password policies: no bind in clear, no anonymous change.

use std::{path::PathBuf, process::Command, time::Duration};

use crate::{
    ADMIN, Authority, LabError, Login, Result,
    ldif::{self, Entry},
    process::{self, Ending, Owned, User, clean_command},
    server::{self, Recipe, Site},
    template,
};

/// What a test may want different from the default.
#[derive(Debug, Clone)]
pub struct OpenldapOptions {
    /// The names in the server's certificate.
    pub names: Vec<String>,
    /// Attributes of the default password policy, as in `("pwdMinLength", "8")`.
    pub policy: Vec<(&'static str, &'static str)>,
    /// Lines of `slapd.conf` that stand before all others of the database.
    pub settings: Vec<String>,
}

impl Default for OpenldapOptions {
    fn default() -> Self {
        Self {
            names: ["localhost", "127.0.0.1", "127.0.0.2"].map(str::to_owned).to_vec(),
            policy: Vec::new(),
            settings: Vec::new(),
        }
    }
}

/// A running slapd that is gone when this value is.
pub struct Openldap {
    // Dropped before the site: the server must end before its directory does.
    process: Option<Owned>,
    port: u16,
    recipe: Slapd,
    site: Site,
}

/// The suffix of everything in the directory.
const SUFFIX: &str = "dc=lab,dc=test";
/// Who may reset others' passwords: whoever is below it.
const ADMINS: &str = "ou=admins,dc=lab,dc=test";
const PEOPLE: &str = "ou=people,dc=lab,dc=test";
const POLICY: &str = "cn=default,ou=policies,dc=lab,dc=test";

/// `simple_bind=128`: a password in clear on a clear connection is refused.
const CONF: &str = "\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload ppolicy
TLSCACertificateFile {place}/ca.crt
TLSCertificateFile {place}/server.crt
TLSCertificateKeyFile {place}/server.key
security simple_bind=128
database mdb
{settings}
suffix \"dc=lab,dc=test\"
rootdn \"cn=admin,dc=lab,dc=test\"
rootpw {password}
directory {place}/data
maxsize 16777216
dbnosync
index objectClass,uid,cn eq
overlay ppolicy
ppolicy_default \"cn=default,ou=policies,dc=lab,dc=test\"
ppolicy_use_lockout
access to attrs=userPassword by dn.children=\"ou=admins,dc=lab,dc=test\" manage by self =xw by anonymous auth by * none
access to * by * read
";

impl Openldap {
    /// Starts a server and returns once it accepts connections.
    pub fn start(options: OpenldapOptions) -> Result<Self> {
        let user = User::for_server("openldap")?;
        let names: Vec<&str> = options.names.iter().map(String::as_str).collect();
        let site = Site::new("ldap", user, &Authority::new()?, &names)?;
        template::make_directory(&site.file("data"), site.user.as_ref())?;
        let recipe = Slapd { server: process::need_program("slapd")?, settings: options.settings };
        let mut server = Self { process: None, port: 0, recipe, site };
        server.seed(&options.policy)?;
        let (process, port) = server::start(&server.recipe, &server.site)?;
        (server.process, server.port) = (Some(process), port);
        Ok(server)
    }

    /// Writes the first entries while no server runs.
    fn seed(&self, policy: &[(&str, &str)]) -> Result<()> {
        drop(self.recipe.command(&self.site, 0)?);
        let unit = |dn: &str, name: &str| Entry::new(dn).with("objectClass", "organizationalUnit").with("ou", name);
        let mut entries = vec![
            Entry::new(SUFFIX).with("objectClass", "domain").with("dc", "lab"),
            unit(PEOPLE, "people"),
            unit(ADMINS, "admins"),
            unit("ou=policies,dc=lab,dc=test", "policies"),
        ];
        let mut default = Entry::new(POLICY)
            .with("objectClass", "organizationalRole")
            .with("objectClass", "pwdPolicy")
            .with("cn", "default")
            .with("pwdAttribute", "userPassword")
            // Without it a policy of lengths is no policy.
            .with("pwdCheckQuality", "1");
        for (attribute, value) in policy {
            default = default.with(attribute, value);
        }
        entries.push(default);
        let mut add = clean_command(process::need_program("slapadd")?);
        add.arg("-q").arg("-f").arg(self.site.file("slapd.conf")).current_dir(self.site.path());
        process::run_as(&mut add, self.site.user.as_ref());
        let output = process::run(&mut add, ldif::entries(&entries).as_bytes())?;
        if output.succeeded() {
            return Ok(());
        }
        Err(LabError::new(format!("slapadd ended with status {}: {}", output.status, output.stderr)))
    }

    /// The address where it speaks TLS from the first byte.
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The address where, on the same port, it speaks TLS after StartTLS only.
    pub fn starttls_host(&self) -> &'static str {
        "127.0.0.2"
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of the authority that issued the server's certificate.
    pub fn ca_path(&self) -> PathBuf {
        self.site.file("ca.crt")
    }

    /// The directory's root, whom no rule binds; its login is a DN.
    pub fn admin(&self) -> Login {
        Login { login: "cn=admin,dc=lab,dc=test", ..ADMIN }
    }

    /// The DN of a person.
    pub fn dn(&self, login: &str) -> String {
        format!("uid={},{PEOPLE}", ldif::escaped(login))
    }

    /// The DN of an administrator made by [`Self::create_admin`].
    pub fn admin_dn(&self, login: &str) -> String {
        format!("uid={},{ADMINS}", ldif::escaped(login))
    }

    /// Makes a person who can log in. Name and password may be as hostile as they like.
    pub fn create(&self, login: &str, password: &str) -> Result<()> {
        self.add_person(&self.dn(login), login, password)
    }

    /// Makes somebody who may reset the passwords of others.
    pub fn create_admin(&self, login: &str, password: &str) -> Result<()> {
        self.add_person(&self.admin_dn(login), login, password)
    }

    /// Gives a person another password, by the directory's root.
    pub fn set_password(&self, login: &str, password: &str) -> Result<()> {
        let dn = [self.dn(login), self.admin_dn(login)].into_iter().find(|dn| self.attribute(dn, "uid").is_ok());
        let dn = dn.ok_or_else(|| LabError::new(format!("there is no {login:?}")))?;
        self.modify(&dn, "userPassword", &[password])
    }

    /// Replaces the values of an attribute, by the directory's root; no value removes it.
    pub fn modify(&self, dn: &str, attribute: &str, values: &[&str]) -> Result<()> {
        self.change(&ldif::replace(dn, attribute, values)).map(drop)
    }

    /// Replaces an attribute of the default password policy; no value removes it.
    pub fn set_policy(&self, attribute: &str, values: &[&str]) -> Result<()> {
        self.modify(POLICY, attribute, values)
    }

    /// The values of an attribute of an entry, operational ones included, as the directory's root sees them.
    pub fn attribute(&self, dn: &str, attribute: &str) -> Result<Vec<String>> {
        let mut search = self.client("ldapsearch", self.admin().login)?;
        search.args(["-LLL", "-o", "ldif-wrap=no", "-s", "base", "-b", dn, attribute]);
        let output = process::run(&mut search, self.admin().password.as_bytes())?;
        if output.succeeded() {
            return Ok(ldif::values(&output.stdout, attribute));
        }
        Err(LabError::new(format!("ldapsearch ended with status {}: {}", output.status, output.stderr.trim_end())))
    }

    /// Whether the server lets this DN in with this password, over TLS with a
    /// checked certificate. `false` only when the server itself said that name or
    /// password is wrong; anything else is an error, never a guess.
    pub fn accepts(&self, dn: &str, password: &str) -> Result<bool> {
        let mut client = self.client("ldapwhoami", dn)?;
        client.args(["-e", "ppolicy"]);
        let output = process::run(&mut client, password.as_bytes())?;
        // A password that has to be changed first is a right one.
        if output.succeeded() || output.stdout.contains("must be changed") || output.stderr.contains("must be changed")
        {
            return Ok(true);
        }
        let locked = output.stdout.contains("locked") || output.stderr.contains("locked");
        if output.stderr.contains("ldap_bind: Invalid credentials (49)") && !locked {
            return Ok(false);
        }
        Err(LabError::new(format!(
            "ldapwhoami could not tell whether {dn:?} may log in: {}{}",
            output.stdout,
            output.stderr.trim_end()
        )))
    }

    /// Everything the server has logged, across restarts.
    pub fn log(&self) -> String {
        self.site.log()
    }

    /// How many log-ins the server refused because of a wrong name or password.
    pub fn failed_logins(&self) -> usize {
        self.log().lines().filter(|line| line.contains(" RESULT tag=97 err=49 ")).count()
    }

    /// Shuts the server down in good order; its data, port and log stay.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        process.stop(false, Duration::from_secs(20)).map(drop)
    }

    /// Ends the server without a chance to put anything in order; its data, port and log stay.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Starts a stopped server again on the same port; a running one is stopped first.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.process = Some(server::start_on(&self.recipe, &self.site, self.port)?);
        Ok(())
    }

    /// Freezes the server: connections stay open, nothing answers.
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

    fn add_person(&self, dn: &str, login: &str, password: &str) -> Result<()> {
        let person = Entry::new(dn)
            .with("objectClass", "inetOrgPerson")
            .with("uid", login)
            .with("cn", login)
            .with("sn", login)
            .with("userPassword", password);
        self.change(&ldif::entries(&[person])).map(drop)
    }

    /// Applies LDIF as the directory's root.
    fn change(&self, ldif: &str) -> Result<String> {
        // Its standard input is the LDIF, so the root's password, which is no secret, is a file.
        let password = self.site.file("root.password");
        if !password.exists() {
            process::write_file(&password, self.admin().password)?;
        }
        let mut client = self.tool("ldapmodify")?;
        client.args(["-a", "-x", "-D", self.admin().login, "-y"]).arg(password);
        let output = process::run(&mut client, ldif.as_bytes())?;
        if output.succeeded() {
            return Ok(output.stdout);
        }
        Err(LabError::new(format!("ldapmodify ended with status {}: {}", output.status, output.stderr.trim_end())))
    }

    /// A client that logs in with the password it reads from its standard input.
    fn client(&self, program: &str, dn: &str) -> Result<Command> {
        let mut client = self.tool(program)?;
        client.args(["-x", "-D", dn, "-y", "/dev/stdin"]);
        Ok(client)
    }

    fn tool(&self, program: &str) -> Result<Command> {
        let mut tool = clean_command(process::need_program(program)?);
        // An address: Debian's library takes `localhost` for the machine's own name.
        tool.args(["-H", &format!("ldaps://{}:{}", self.host(), self.port)])
            .args(["-o", "nettimeout=20"])
            .env("LDAPTLS_CACERT", self.ca_path())
            .env("LDAPTLS_REQCERT", "demand")
            .env("HOME", self.site.path());
        Ok(tool)
    }
}

/// How slapd is configured and run.
struct Slapd {
    server: PathBuf,
    settings: Vec<String>,
}

impl Recipe for Slapd {
    const ENDING: Ending = Ending::Kill;

    fn ready(&self) -> &'static str {
        "slapd starting"
    }

    fn command(&self, site: &Site, port: u16) -> Result<Command> {
        let conf = CONF
            .replace("{place}", &site.path().display().to_string())
            .replace("{password}", ADMIN.password)
            .replace("{settings}", &self.settings.join("\n"));
        site.private_file("slapd.conf", conf)?;
        let mut command = clean_command(&self.server);
        command
            .arg("-f")
            .arg(site.file("slapd.conf"))
            .args(["-h", &format!("ldaps://127.0.0.1:{port} ldap://127.0.0.2:{port}")])
            // Connections, operations and results; never a value.
            .args(["-d", "256"]);
        Ok(command)
    }
}
