//! One connection: believed before anything is said, asked what it is, and
//! only then shown a password.

use std::sync::Arc;
use std::time::Duration;

use ldap3::exop::{Exop, WhoAmI, WhoAmIResp};
use ldap3::{
    Ldap, LdapConnAsync, LdapConnSettings, LdapError, LdapResult, Scope, SearchEntry, SearchOptions, StdStream,
};
use tokio::net::TcpStream;
use turnlock_kit::tls::Mode;
use turnlock_kit::{Admin, CredentialState, Fault, Kind, NotIn, WorkingSet};

use crate::Account;
use crate::controller;
use crate::directory::{Directory, Entry};
use crate::name::{Whom, equals};
use crate::ppolicy::{self, Said};
use crate::refusal::{self, Trouble};

const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A connection to a directory, logged in or not yet.
pub(crate) struct Session {
    ldap: Ldap,
    /// What it is.
    pub(crate) directory: Directory,
    /// How the connection is protected, for people.
    pub(crate) tls: Option<String>,
    /// What the directory added to the log-in.
    pub(crate) said: Said,
}

impl Session {
    /// Connects, and learns what kind of directory it is. No secret is shown.
    pub(crate) async fn connect(account: &Account) -> Result<Self, Fault> {
        let connecting = async {
            let (ldap, tls) = open(account).await?;
            let mut session = Self { ldap, directory: Directory::default(), tls, said: Said::default() };
            session.directory = session.root(account).await?;
            Ok::<_, Fault>(session)
        };
        let session = tokio::time::timeout(CONNECT_WITHIN, connecting)
            .await
            .map_err(|_| Fault::new(Kind::Unreachable, format!("{} did not answer within 10 s", account.place())))??;
        controller::is_one_server(account, &session.directory)?;
        if session.tls.is_none() && session.directory.is_active_directory() {
            return Err(Fault::new(
                Kind::Tls,
                format!("{} is Active Directory, which takes a new password over TLS only", account.place()),
            )
            .hint("leave out `tls = disable`"));
        }
        Ok(session)
    }

    async fn root(&mut self, account: &Account) -> Result<Directory, Fault> {
        let found = self.ldap.search("", Scope::Base, "(objectClass=*)", Directory::ATTRIBUTES).await;
        match found.map(|found| (found.1.rc, found.0.into_iter().next())) {
            Ok((0, Some(root))) => Ok(Directory::new(SearchEntry::construct(root))),
            // A directory may hide it from strangers.
            Ok(_) => Ok(Directory::default()),
            Err(error) => Err(refusal::of_connection(account, &error)),
        }
    }

    /// Logs in whoever does the work, and finds the account it is about.
    pub(crate) async fn log_in(
        &mut self,
        account: &Account,
        worker: &WorkingSet<'_>,
        admin: Option<&Admin>,
    ) -> Result<Entry, Fault> {
        let whom = account.whom()?;
        let work = async {
            // Elsewhere the proof will need the DN before there is a log-in, so it has to be found like that.
            let found =
                if self.directory.is_active_directory() { None } else { Some(self.find(account, &whom).await?) };
            let name = match (admin.filter(|_| worker.is_admin), &found) {
                (Some(admin), _) => {
                    let userdn = admin.account.get("userdn").and_then(|dn| dn.as_str());
                    self.name_to_log_in(account, &Whom::of(&admin.login, userdn)?).await?
                }
                (None, Some(found)) => found.dn.clone(),
                (None, None) => self.name_to_log_in(account, &whom).await?,
            };
            self.bind(account, &name, worker).await?;
            match found {
                Some(found) => Ok(found),
                None => self.find(account, &whom).await,
            }
        };
        work.await
    }

    /// The name under which somebody logs in: Active Directory takes what
    /// people write, other directories want a DN.
    pub(crate) async fn name_to_log_in(&mut self, account: &Account, whom: &Whom<'_>) -> Result<String, Fault> {
        Ok(match whom {
            Whom::Dn(dn) => (*dn).to_owned(),
            _ if !self.directory.is_active_directory() => self.find(account, whom).await?.dn,
            Whom::Principal { whole, .. } | Whom::Domain { whole, .. } => (*whole).to_owned(),
            Whom::Name(name) => format!("{name}@{}", self.directory.domain_name()),
        })
    }

    /// Shows a password. Accepted means that the directory knows us now.
    pub(crate) async fn bind(
        &mut self,
        account: &Account,
        name: &str,
        worker: &WorkingSet<'_>,
    ) -> Result<Option<CredentialState>, NotIn> {
        if worker.password.is_empty() {
            // A bind without a password succeeds and is nobody's (RFC 4513, 5.1.2).
            return Err(NotIn::Other(
                Fault::new(Kind::InvalidInput, format!("the password of \"{}\" is empty", worker.login))
                    .hint("a directory takes an empty password for no log-in at all: nothing is proven by it"),
            ));
        }
        #[expect(clippy::disallowed_methods, reason = "it is proven to the directory that the account names")]
        let password = worker.password.expose();
        let answer = self.ldap.with_controls(vec![ppolicy::wanted()]).simple_bind(name, password).await;
        let answer = answer.map_err(|error| refusal::of_lost_log_in(account, &error))?;
        self.said = said(&answer);
        if answer.rc != 0 {
            let locked = answer.rc == 49 && self.is_marked_locked(name).await;
            return Err(refusal::of_log_in(account, worker.login, &answer, self.said, locked));
        }
        if self.is_nobody().await {
            return Err(NotIn::Other(
                Fault::new(
                    Kind::Unsupported,
                    format!("{} did not ask for the password of \"{name}\"", account.place()),
                )
                .hint("the directory says that nobody is logged in, so nothing can be proven through it"),
            ));
        }
        Ok(refusal::state(self.said))
    }

    /// Whether a directory that answers a locked account like a wrong password
    /// shows the lock to whoever asks.
    async fn is_marked_locked(&mut self, dn: &str) -> bool {
        const LOCKED: &str = "pwdAccountLockedTime";
        if !self.directory.has_ppolicy() || self.said.complaint.is_some() {
            return false;
        }
        self.read(dn, &[LOCKED]).await.is_ok_and(|entry| entry.text(LOCKED).is_some())
    }

    async fn is_nobody(&mut self) -> bool {
        if !self.directory.tells_who_i_am() {
            return false;
        }
        match self.ldap.extended(WhoAmI).await.map(|answer| (answer.0, answer.1.rc)) {
            Ok((Exop { val: Some(value), .. }, 0)) => {
                let who = Exop { name: None, val: Some(value) }.parse::<WhoAmIResp>().authzid;
                who.is_empty() || who == "dn:"
            }
            Ok((Exop { val: None, .. }, 0)) => true,
            _ => false,
        }
    }

    /// The one entry that an account is.
    pub(crate) async fn find(&mut self, account: &Account, whom: &Whom<'_>) -> Result<Entry, Fault> {
        if let (Whom::Dn(dn), false) = (whom, self.directory.is_active_directory()) {
            return Ok(Entry::named(dn));
        }
        let place = account.place();
        let mut refusal = None;
        for filter in self.filters(whom).await? {
            let mut found = Vec::new();
            for (base, scope) in self.places(account, whom) {
                match self.look(&base, scope, &filter).await {
                    Ok(mut entries) => found.append(&mut entries),
                    Err(trouble) => refusal = Some(trouble),
                }
            }
            match found.len() {
                0 => {}
                1 => return Ok(found.remove(0)),
                _ => {
                    let mut fault =
                        Fault::new(Kind::Conflict, format!("\"{}\" is more than one entry of {place}", whom.written()))
                            .hint("name the right one's DN as `userdn`");
                    fault.causes = found.into_iter().map(|entry| entry.dn).collect();
                    return Err(fault);
                }
            }
        }
        let fault = Fault::new(Kind::NotFound, format!("{place} has no account \"{}\"", whom.written()))
            .hint("correct the login, or give the account's DN as `userdn`; without it the directory has to let strangers search");
        Err(match refusal {
            Some(Trouble::Refused(answer)) => fault.caused_by(&answer),
            Some(Trouble::Connection(error)) => return Err(refusal::of_connection(account, &error)),
            None => fault,
        })
    }

    /// What to ask for, the surest first.
    async fn filters(&mut self, whom: &Whom<'_>) -> Result<Vec<String>, Fault> {
        if !self.directory.is_active_directory() {
            return Ok(vec![equals("uid", whom.written()), equals("cn", whom.written())]);
        }
        let user = |filter: String| format!("(&(objectClass=user){filter})");
        Ok(match whom {
            Whom::Dn(_) => vec!["(objectClass=*)".to_owned()],
            Whom::Name(name) => vec![user(equals("sAMAccountName", name))],
            Whom::Principal { whole, user: name, suffix } => {
                let mut filters = vec![user(equals("userPrincipalName", whole))];
                if suffix.eq_ignore_ascii_case(&self.directory.domain_name()) {
                    filters.push(user(equals("sAMAccountName", name)));
                }
                filters
            }
            Whom::Domain { domain, user: name, .. } => {
                self.is_of_this_domain(domain).await?;
                vec![user(equals("sAMAccountName", name))]
            }
        })
    }

    /// `OTHER\app` must never select this domain's `app`.
    async fn is_of_this_domain(&mut self, domain: &str) -> Result<(), Fault> {
        let ours = self.directory.domain().to_owned();
        let base = format!("CN=Partitions,{}", self.directory.configuration());
        let filter = format!("(&(objectClass=crossRef){})", equals("nETBIOSName", domain));
        let found = self.look(&base, Scope::OneLevel, &filter).await.unwrap_or_default();
        let is_ours = |entry: &Entry| entry.text("nCName").is_some_and(|name| name.eq_ignore_ascii_case(&ours));
        if found.iter().any(is_ours) {
            return Ok(());
        }
        Err(Fault::new(
            Kind::NotFound,
            format!("this controller is not of the domain \"{domain}\", but of {}", self.directory.domain_name()),
        )
        .hint("name a controller of that domain as host, or correct the login"))
    }

    fn places(&self, account: &Account, whom: &Whom<'_>) -> Vec<(String, Scope)> {
        match (whom, &account.base_dn) {
            (Whom::Dn(dn), _) => vec![((*dn).to_owned(), Scope::Base)],
            (_, Some(base)) => vec![(base.clone(), Scope::Subtree)],
            (_, None) => self.directory.bases().into_iter().map(|base| (base.to_owned(), Scope::Subtree)).collect(),
        }
    }

    /// Entries that match, two at most.
    async fn look(&mut self, base: &str, scope: Scope, filter: &str) -> Result<Vec<Entry>, Trouble> {
        const SIZE_LIMIT_EXCEEDED: u32 = 4;
        let options = SearchOptions::new().sizelimit(2);
        let found = self.ldap.with_search_options(options).search(base, scope, filter, OF_AN_ACCOUNT).await?;
        if ![0, SIZE_LIMIT_EXCEEDED].contains(&found.1.rc) {
            return Err(Trouble::Refused(found.1));
        }
        // Active Directory adds references to its other partitions.
        let entries = found.0.into_iter().filter(|entry| !entry.is_ref() && !entry.is_intermediate());
        Ok(entries.map(|entry| Entry::new(SearchEntry::construct(entry))).collect())
    }

    /// These attributes of one entry.
    pub(crate) async fn read(&mut self, dn: &str, attributes: &[&str]) -> Result<Entry, Trouble> {
        let found = self.ldap.search(dn, Scope::Base, "(objectClass=*)", attributes).await?;
        match found.0.into_iter().next() {
            Some(entry) if found.1.rc == 0 => Ok(Entry::new(SearchEntry::construct(entry))),
            _ => Err(Trouble::Refused(found.1)),
        }
    }

    /// The wire, for the one change.
    pub(crate) fn ldap(&mut self) -> &mut Ldap {
        &mut self.ldap
    }
}

/// What decides a change, of an entry in Active Directory; elsewhere these are unknown and not sent.
const OF_AN_ACCOUNT: [&str; 7] = [
    "userAccountControl",
    "msDS-User-Account-Control-Computed",
    "lockoutTime",
    "accountExpires",
    "pwdLastSet",
    "msDS-ResultantPSO",
    // Of a domain's entry in the list of them.
    "nCName",
];

/// What the policy control of an answer says.
pub(crate) fn said(answer: &LdapResult) -> Said {
    let control = answer.ctrls.iter().find(|control| control.1.ctype == ppolicy::CONTROL);
    control.and_then(|control| control.1.val.as_deref()).map(Said::read).unwrap_or_default()
}

/// Connects as the account's TLS policy wants it.
async fn open(account: &Account) -> Result<(Ldap, Option<String>), Fault> {
    let tls = account.tls();
    let effective = tls.effective(&account.host);
    let stream = TcpStream::connect((account.host.as_str(), account.port))
        .await
        .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        .and_then(TcpStream::into_std)
        .map_err(|error| refusal::unreachable(account, &error))?;
    let mut settings = LdapConnSettings::new().set_std_stream(StdStream::Tcp(stream));
    let url = match effective.mode() {
        None => "ldap://clear.invalid".to_owned(),
        Some(mode) => {
            settings = settings.set_config(Arc::new(tls.client_config(mode)?)).set_starttls(account.starttls());
            let scheme = if account.starttls() { "ldap" } else { "ldaps" };
            format!("{scheme}://{}", name_to_expect(account, mode)?)
        }
    };
    let (connection, ldap) = LdapConnAsync::with_settings(settings, &url).await.map_err(|error| match error {
        LdapError::UrlParsing { .. } | LdapError::DNSName { .. } => {
            Fault::new(Kind::InvalidInput, format!("\"{url}\" has no name that a certificate could have"))
                .caused_by(&error)
        }
        error => refusal::of_connection(account, &error),
    })?;
    tokio::spawn(connection.drive());
    Ok((ldap, effective.mode().map(|_| format!("TLS, {}", effective.believed()))))
}

/// The name that the certificate has to bear. The driver cannot compare
/// addresses of IPv6.
fn name_to_expect(account: &Account, mode: Mode) -> Result<String, Fault> {
    let name = account.tls.server_name.as_deref().unwrap_or(&account.host);
    if !name.contains(':') {
        return Ok(name.to_owned());
    }
    if mode != Mode::VerifyFull {
        return Ok("unnamed.invalid".to_owned());
    }
    Err(Fault::new(Kind::InvalidInput, format!("a certificate cannot be compared with the IPv6 address \"{name}\""))
        .hint("name the server, or the name in its certificate as `server_name`"))
}
