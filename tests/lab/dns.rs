//! A real name server (dnsmasq) at an address of loopback, and homes whose
//! programs ask it and nobody else.

use std::{ffi::OsString, net::Ipv4Addr, path::PathBuf, process::Command};

use crate::{
    Authority, LabError, Result, Turnlock,
    process::{self, Ending, Owned, User, clean_command},
    server::{self, Recipe, Site},
};

/// A running name server that is gone when this value is.
pub struct NameServer {
    // Dropped before the site: the server must end before its directory does.
    _process: Owned,
    site: Site,
}

/// The port that `/etc/resolv.conf` cannot name.
const DOMAIN: u16 = 53;

impl NameServer {
    /// Starts a server that knows these addresses of names, and of services
    /// such as `_ldap._tcp.lab.test` the host that offers them.
    pub fn start(addresses: &[(&str, &str)], services: &[(&str, &str)]) -> Result<Self> {
        if !User::is_root() {
            return Err(LabError::new("a name server needs port 53, and its users a namespace: only root has both"));
        }
        let address = server::free_address(DOMAIN)?;
        let site = Site::new("dns", None, &Authority::new()?, &["localhost"])?;
        let known = addresses.iter().map(|(name, address)| format!("--host-record={name},{address}"));
        let offered = services.iter().map(|(service, host)| format!("--srv-host={service},{host},389"));
        let recipe = Dnsmasq {
            program: process::need_program("dnsmasq")?,
            address,
            // Names below those it knows are nobody's.
            records: offered.chain(known).chain(["--local=/test/".to_owned()]).collect(),
        };
        let process = server::start_on(&recipe, &site, DOMAIN)?;
        process::write_file(&site.file("resolv.conf"), format!("nameserver {address}\n"))?;
        Ok(Self { _process: process, site })
    }

    /// A home whose programs resolve names here.
    pub fn home(&self) -> Result<Turnlock> {
        let unshare = process::need_program("unshare")?;
        let enter = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        let mut prefix: Vec<OsString> = vec![unshare.into()];
        prefix.extend(["--mount", "--propagation", "private", "sh", "-c", enter].map(OsString::from));
        prefix.push(self.site.file("resolv.conf").into());
        Turnlock::behind(prefix)
    }
}

/// How dnsmasq is configured and run.
struct Dnsmasq {
    program: PathBuf,
    address: Ipv4Addr,
    records: Vec<String>,
}

impl Recipe for Dnsmasq {
    const ENDING: Ending = Ending::Kill;

    fn ready(&self) -> &'static str {
        "started, version"
    }

    fn command(&self, _site: &Site, port: u16) -> Result<Command> {
        let mut command = clean_command(&self.program);
        command
            .args([
                "--no-daemon",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--bind-interfaces",
                "--user=root",
            ])
            .args([format!("--port={port}"), format!("--listen-address={}", self.address)])
            .args(&self.records);
        Ok(command)
    }
}
