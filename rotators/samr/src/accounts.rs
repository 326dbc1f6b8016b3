//! The calls of the remote protocol for accounts (MS-SAMR 3.1.5), and what
//! stands behind each: an account's own change, an administrator's reset, and
//! the machine's rules.

use turnlock_kit::{Fault, Kind, PasswordLimits, Secret};

use crate::crypt::{self, Digested};
use crate::rpc::{Call, Results};
use crate::session::{Session, bare, domain_of};
use crate::status::{self, Refusal};

const ENUMERATE_DOMAINS: u16 = 6;
const LOOK_UP_DOMAIN: u16 = 5;
const OPEN_DOMAIN: u16 = 7;
const QUERY_DOMAIN: u16 = 8;
const LOOK_UP_NAMES: u16 = 17;
const OPEN_USER: u16 = 34;
const QUERY_USER: u16 = 36;
const CHANGE_PASSWORD: u16 = 55;
const CONNECT: u16 = 57;
const SET_USER: u16 = 58;

const HANDLE: usize = 20;
const ACCESS_DENIED: u32 = 0xc000_0022;

/// What a session has found and opened on its way to the accounts.
#[derive(Default)]
pub(crate) struct Found {
    server: Option<([u8; HANDLE], String)>,
    domain: Option<[u8; HANDLE]>,
}

/// An account that whoever is logged in may reset.
pub(crate) struct Resettable {
    handle: [u8; HANDLE],
    login: String,
}

/// What a machine wants of its passwords, as far as it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The shortest length, in characters.
    pub min_length: u16,
    /// How many past passwords are refused.
    pub history: u16,
    /// Whether three of four kinds of characters are wanted.
    pub complex: bool,
    /// How long a password has to stay, in seconds.
    pub min_age: u64,
}

impl Rules {
    /// In words.
    pub fn words(&self) -> String {
        let mut words = vec![format!("at least {} characters", self.min_length)];
        words.extend(self.complex.then(|| "three of four kinds of characters".to_owned()));
        words.extend((self.history > 0).then(|| format!("none of the last {} passwords", self.history)));
        words.extend((self.min_age > 0).then(|| format!("no change within {} s of the last one", self.min_age)));
        format!("the machine wants: {}", words.join("; "))
    }

    pub(crate) fn is_long_enough(&self, new: &Secret) -> bool {
        crypt::units(new) >= usize::from(self.min_length)
    }

    /// A fault that tells them, to people and to who draws the next password.
    pub(crate) fn told(&self, mut fault: Fault) -> Fault {
        let min_length = Some(u32::from(self.min_length));
        fault.learned = Some(Box::new(PasswordLimits { min_length, ..PasswordLimits::default() }));
        fault.causes.push(self.words());
        fault
    }
}

impl Session {
    /// Changes the password of an account that proves its old one.
    ///
    /// # Errors
    /// What the machine said, and whether nothing changed for certain.
    pub(crate) async fn change(&mut self, login: &str, old: &Secret, new: &Secret) -> Result<(), Refusal> {
        let (old, digest) = (Digested::of(old), Digested::of(new));
        let encrypted = old.encrypt(new).ok_or_else(too_long)?;
        let call = Call::new(CHANGE_PASSWORD)
            .pointer()
            .text(&format!("\\\\{}", self.place().host))
            .text(bare(login))
            .pointer()
            .bytes(&encrypted)
            .pointer()
            .bytes(&old.encrypt_with(&digest))
            // No password in the form of LAN Manager.
            .number(0)
            .number(0)
            .number(0);
        self.changes(login, call, status::of_change).await
    }

    /// Finds an account, and asks for the right to reset it. Nothing changes.
    ///
    /// # Errors
    /// `not_found`, `permission` where whoever is logged in may not, and what
    /// would keep everybody from proving a new password.
    pub(crate) async fn resettable(&mut self, login: &str) -> Result<Resettable, Fault> {
        // To set the password and, if that may be, to see what state it is in.
        const OF_AN_ACCOUNT: [u32; 2] = [0x90, 0x80];
        let domain = self.domain().await?;
        let call = Call::new(LOOK_UP_NAMES).bytes(&domain).number(1).number(1000).number(0).number(1).text(bare(login));
        let answer = self.call(&call).await?;
        let mut results = Results::of(&answer).map_err(|error| self.garbage(&error))?;
        if results.status != 0 {
            return Err(status::of_reset(self.place(), self.login(), login, results.status).fault);
        }
        let mut identifier = || {
            let (_count, _pointer, _room) = (results.number()?, results.number()?, results.number()?);
            results.number()
        };
        let identifier = identifier().map_err(|error| self.garbage(&error))?;
        let mut refused = 0;
        for access in OF_AN_ACCOUNT {
            let call = Call::new(OPEN_USER).bytes(&domain).number(access).number(identifier);
            match self.handle(&call).await? {
                Ok(handle) => {
                    if let Some(status) = self.closed_account(&handle).await? {
                        return Err(status::of_reset(self.place(), self.login(), login, status).fault);
                    }
                    return Ok(Resettable { handle, login: login.to_owned() });
                }
                Err(status) => refused = status,
            }
        }
        Err(status::of_reset(self.place(), self.login(), login, refused).fault)
    }

    /// Why an account lets nobody in, as far as it may be looked at.
    async fn closed_account(&mut self, handle: &[u8; HANDLE]) -> Result<Option<u32>, Fault> {
        const OF_ITS_STATE: u16 = 16;
        const DISABLED: u32 = 0x1;
        const LOCKED: u32 = 0x400;
        let answer = self.call(&Call::new(QUERY_USER).bytes(handle).short(OF_ITS_STATE)).await?;
        let mut results = Results::of(&answer).map_err(|error| self.garbage(&error))?;
        if results.status != 0 {
            return Ok(None);
        }
        let mut flags = || {
            let (_pointer, _kind) = (results.number()?, results.short()?);
            results.number()
        };
        let flags = flags().map_err(|error| self.garbage(&error))?;
        let states = [(DISABLED, 0xc000_0072), (LOCKED, 0xc000_0234)];
        Ok(states.into_iter().find(|(flag, _)| flags & flag != 0).map(|(_, status)| status))
    }

    /// Refuses an account that the machine does not keep: one of another domain
    /// may have a namesake here.
    ///
    /// # Errors
    /// `not_found` for such a one.
    pub(crate) async fn keeps(&mut self, login: &str) -> Result<(), Fault> {
        let Some(domain) = domain_of(login) else { return Ok(()) };
        let (_, name) = self.connected().await?;
        if domain.eq_ignore_ascii_case(&name) {
            return Ok(());
        }
        let message = format!("{} keeps the accounts of {name}, and \"{login}\" is none of them", self.place());
        Err(Fault::new(Kind::NotFound, message)
            .hint("name a controller of the account's domain, or use the plugin adpasswd"))
    }

    /// Gives an account another password, by an administrator.
    ///
    /// # Errors
    /// What the machine said, and whether nothing changed for certain.
    pub(crate) async fn reset(&mut self, account: &Resettable, new: &Secret) -> Result<(), Refusal> {
        const WITH_A_NEW_PASSWORD: u16 = 26;
        const NOT_EXPIRED: u8 = 0;
        let encrypted = self.key().and_then(|key| crypt::encrypt_for_session(key, new)).ok_or_else(too_long)?;
        let call = Call::new(SET_USER)
            .bytes(&account.handle)
            .short(WITH_A_NEW_PASSWORD)
            .short(WITH_A_NEW_PASSWORD)
            .bytes(&encrypted)
            .bytes(&[NOT_EXPIRED]);
        let admin = self.login().to_owned();
        self.changes(&account.login, call, |place, login, status| status::of_reset(place, &admin, login, status)).await
    }

    /// The machine's rules; nothing where it does not tell whoever is logged in.
    pub(crate) async fn rules(&mut self) -> Option<Rules> {
        const OF_PASSWORDS: u16 = 1;
        const COMPLEX: u32 = 1;
        let domain = self.domain().await.ok()?;
        let answer = self.call(&Call::new(QUERY_DOMAIN).bytes(&domain).short(OF_PASSWORDS)).await.ok()?;
        let mut results = Results::of(&answer).ok().filter(|results| results.status == 0)?;
        let _pointer = results.number().ok()?;
        let _kind = results.number().ok()?;
        let (min_length, history) = (results.short().ok()?, results.short().ok()?);
        let complex = results.number().ok()? & COMPLEX != 0;
        let _max_age = (results.number().ok()?, results.number().ok()?);
        let (low, high) = (results.number().ok()?, results.number().ok()?);
        let min_age = (u64::from(high) << 32 | u64::from(low)).cast_signed().unsigned_abs() / 10_000_000;
        Some(Rules { min_length, history, complex, min_age })
    }

    /// Finds the machine's own domain, the one beside the built-in, once.
    async fn connected(&mut self) -> Result<([u8; HANDLE], String), Fault> {
        // To connect, list and look up.
        const OF_THE_SERVER: u32 = 0x31;
        if let Some(found) = &self.found.server {
            return Ok(found.clone());
        }
        let server = format!("\\\\{}", self.place().host);
        let call = Call::new(CONNECT).ended_text(&server).number(OF_THE_SERVER);
        let connected = self.handle(&call).await?.map_err(|status| self.closed(status))?;
        let name = self.name_of_the_domain(&connected).await?;
        Ok(self.found.server.insert((connected, name)).clone())
    }

    /// Opens the machine's own domain, once.
    async fn domain(&mut self) -> Result<[u8; HANDLE], Fault> {
        // To look up and, if that may be, read the rules.
        const OF_A_DOMAIN: [u32; 2] = [0x201, 0x200];
        if let Some(domain) = self.found.domain {
            return Ok(domain);
        }
        let (connected, name) = self.connected().await?;
        let answer = self.call(&Call::new(LOOK_UP_DOMAIN).bytes(&connected).text(&name)).await?;
        let mut results = Results::of(&answer).map_err(|error| self.garbage(&error))?;
        if results.status != 0 {
            return Err(self.closed(results.status));
        }
        let mut identifier = || {
            let (_pointer, count) = (results.number()?, results.number()?);
            results.take(8 + 4 * usize::try_from(count).unwrap_or(usize::MAX / 8)).map(|bytes| (count, bytes.to_vec()))
        };
        let (count, identifier) = identifier().map_err(|error| self.garbage(&error))?;
        let mut refused = 0;
        for access in OF_A_DOMAIN {
            let call = Call::new(OPEN_DOMAIN).bytes(&connected).number(access).number(count).bytes(&identifier);
            match self.handle(&call).await? {
                Ok(handle) => return Ok(*self.found.domain.insert(handle)),
                Err(status) => refused = status,
            }
        }
        Err(self.closed(refused))
    }

    async fn name_of_the_domain(&mut self, connected: &[u8; HANDLE]) -> Result<String, Fault> {
        let answer = self.call(&Call::new(ENUMERATE_DOMAINS).bytes(connected).number(0).number(65536)).await?;
        let mut results = Results::of(&answer).map_err(|error| self.garbage(&error))?;
        if results.status != 0 {
            return Err(self.closed(results.status));
        }
        let mut names = || {
            let (_context, _pointer) = (results.number()?, results.number()?);
            let (count, _pointer, _room) = (results.number()?, results.number()?, results.number()?);
            for _ in 0..count.min(16) {
                let (_index, _lengths, _pointer) = (results.number()?, results.number()?, results.number()?);
            }
            (0..count.min(16)).map(|_| results.units()).collect::<Result<Vec<_>, _>>()
        };
        let names = names().map_err(|error| self.garbage(&error))?;
        let own = names.into_iter().find(|name| !name.eq_ignore_ascii_case("Builtin"));
        own.ok_or_else(|| Fault::new(Kind::Unsupported, format!("{} names no domain of accounts", self.place())))
    }

    /// A call that opens something.
    async fn handle(&mut self, call: &Call) -> Result<Result<[u8; HANDLE], u32>, Fault> {
        let answer = self.call(call).await?;
        let mut results = Results::of(&answer).map_err(|error| self.garbage(&error))?;
        if results.status != 0 {
            return Ok(Err(results.status));
        }
        let handle = results.take(HANDLE).map_err(|error| self.garbage(&error))?;
        Ok(Ok(handle.try_into().unwrap_or([0; HANDLE])))
    }

    /// The one call that changes something.
    async fn changes(
        &mut self,
        login: &str,
        call: Call,
        meaning: impl FnOnce(&crate::Place, &str, u32) -> Refusal,
    ) -> Result<(), Refusal> {
        let unknown = |fault: Fault| Refusal { fault, is_definite: false };
        let answer = self.call(&call).await.map_err(|fault| {
            let message = format!("changing the password of \"{login}\" did not end with an answer");
            unknown(Fault { message, ..fault })
        })?;
        match Results::of(&answer) {
            Ok(Results { status: 0, .. }) => Ok(()),
            Ok(Results { status, .. }) => Err(meaning(self.place(), login, status)),
            Err(error) => Err(unknown(self.garbage(&error))),
        }
    }

    fn closed(&self, status: u32) -> Fault {
        let place = self.place();
        let fault = match status {
            ACCESS_DENIED => {
                Fault::new(Kind::Permission, format!("\"{}\" may not look at the accounts of {place}", self.login()))
                    .hint(
                        "resets take an administrator of the machine; a local one needs LocalAccountTokenFilterPolicy",
                    )
            }
            _ => Fault::new(Kind::Unsupported, format!("{place} does not let accounts be spoken of")),
        };
        fault.caused_by(&status::Status(status))
    }

    fn garbage(&self, error: &std::io::Error) -> Fault {
        Fault::new(Kind::Unsupported, format!("{} does not answer like Windows", self.place())).caused_by(error)
    }
}

fn too_long() -> Refusal {
    let fault = Fault::new(Kind::InvalidInput, format!("a password has at most {} characters", crypt::LONGEST));
    Refusal { fault, is_definite: true }
}
