//! Which server is asked. A record may name an Active Directory domain instead
//! of a server. Its controllers copy a change to each other in their own time,
//! so the change, its proof and a crash's aftermath have to ask the same one.
//! The domain has exactly one that counts for passwords and that all others
//! ask in doubt, the PDC emulator (MS-ADTS 3.1.1.5.1.3), and DNS names it.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};
use turnlock_kit::{Fault, Kind};

use crate::Account;
use crate::directory::Directory;

const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The account at the server to ask: the record's own, or the domain's
/// controller for passwords.
pub(crate) async fn located(account: &Account) -> Result<Account, Fault> {
    let domain = account.host.trim_end_matches('.');
    let mut located = account.clone();
    if !domain.contains('.') || domain.parse::<IpAddr>().is_ok() || domain.contains(':') {
        return Ok(located);
    }
    // Whoever answers this is not believed yet: the certificate has to bear a
    // name within the domain that the record gives (RFC 6125, 1.8, on SRV).
    let question = format!("_ldap._tcp.pdc._msdcs.{domain}.");
    let Some(controller) = target(&question).await else { return Ok(located) };
    if !is_within(&controller, domain) {
        return Err(Fault::new(
            Kind::Tls,
            format!("DNS calls \"{controller}\" the controller of {domain}, which is no name within that domain"),
        )
        .hint("name the controller itself as `host`, if it is the right one"));
    }
    located.host = controller;
    Ok(located)
}

/// A domain's name as a server's leads to any of its controllers, another one
/// each time.
pub(crate) fn is_one_server(account: &Account, directory: &Directory) -> Result<(), Fault> {
    let domain = directory.domain_name();
    if domain.is_empty() || !account.host.trim_end_matches('.').eq_ignore_ascii_case(&domain) {
        return Ok(());
    }
    Err(Fault::new(
        Kind::Unreachable,
        format!("{domain} is a domain, and DNS did not tell its controller for passwords"),
    )
    .hint(format!("name one controller as `host`, or mend the DNS record _ldap._tcp.pdc._msdcs.{domain}")))
}

async fn target(question: &str) -> Option<String> {
    let resolver = TokioResolver::builder_tokio().ok()?.build().ok()?;
    let answer = tokio::time::timeout(ANSWER_WITHIN, resolver.lookup(question, RecordType::SRV)).await.ok()?.ok()?;
    answer.answers().iter().find_map(|record| match &record.data {
        RData::SRV(service) => Some(service.target.to_utf8().trim_end_matches('.').to_lowercase()),
        _ => None,
    })
}

fn is_within(name: &str, domain: &str) -> bool {
    let (name, domain) = (name.to_lowercase(), domain.to_lowercase());
    name.strip_suffix(&domain).is_some_and(|host| host.is_empty() || host.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_within_its_domain() {
        for inside in ["dc1.corp.example", "corp.example", "a.b.corp.example"] {
            assert!(is_within(inside, "Corp.Example"), "{inside}");
        }
        for outside in ["evilcorp.example", "dc1.corp.example.evil.test", "example", ""] {
            assert!(!is_within(outside, "corp.example"), "{outside}");
        }
    }
}
