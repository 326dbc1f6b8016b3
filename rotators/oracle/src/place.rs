//! Where a database is, in the words of Oracle Net ("Net Services Reference":
//! tnsnames.ora; "Net Services Administrator's Guide": Easy Connect).

use std::net::IpAddr;

use oracledb::Config;
use turnlock_kit::tls::Mode;
use turnlock_kit::{Fault, Kind};

use crate::{Account, thin};

/// The port that is registered for Oracle's TLS.
const TCPS_PORT: u16 = 2484;

/// The parameters behind the question mark of an Easy Connect string, and the
/// part of a descriptor they belong to. The pure driver ignores them there.
const PARAMETERS: [(&str, &[&str]); 3] = [
    (
        "(DESCRIPTION=",
        &[
            "connect_timeout",
            "enable",
            "expire_time",
            "failover",
            "load_balance",
            "recv_buf_size",
            "retry_count",
            "retry_delay",
            "sdu",
            "send_buf_size",
            "source_route",
            "transport_connect_timeout",
        ],
    ),
    ("(CONNECT_DATA=", &["pool_boundary", "pool_connection_class", "pool_purity"]),
    ("(SECURITY=", &["ssl_server_cert_dn", "ssl_server_dn_match", "ssl_version", "wallet_location"]),
];

/// A place both drivers understand.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// For people.
    pub(crate) name: String,
    /// For the pure driver.
    pub(crate) connect_string: String,
    /// The same written out, with what makes Oracle's libraries judge the server's name.
    #[cfg_attr(not(any(test, feature = "thick")), expect(dead_code, reason = "only they need it"))]
    pub(crate) descriptor: String,
    /// The directory of certificates that a `dsn` names.
    pub(crate) wallet: Option<String>,
    /// Whether everything goes through TLS.
    pub(crate) is_encrypted: bool,
    /// Whether what goes in clear stays on this machine.
    pub(crate) is_near: bool,
}

impl Place {
    /// Where an account's database is.
    ///
    /// # Errors
    /// `invalid_input` where the fields contradict each other or make no sense.
    pub(crate) fn of(account: &Account) -> Result<Self, Fault> {
        let wants_tls = match account.tls {
            Some(Mode::Disable) => Some(false),
            Some(Mode::VerifyFull) => Some(true),
            Some(Mode::Require | Mode::VerifyCa) => {
                return Err(Fault::new(Kind::InvalidInput, "Oracle's drivers always judge certificate and name")
                    .hint("set `tls` to verify-full or disable, or leave it out"));
            }
            None => (account.ca.is_some() || account.wallet.is_some()).then_some(true),
        };
        let (name, connect_string) = match account.dsn.as_deref().filter(|dsn| !dsn.is_empty()) {
            Some(dsn) if dsn.contains('@') => {
                return Err(Fault::new(Kind::InvalidInput, "the `dsn` holds more than a place")
                    .hint("take name and password out of it (what stands before the @), they have their own fields"));
            }
            Some(dsn) => (dsn.to_owned(), dsn.to_owned()),
            None => described(account, wants_tls)?,
        };
        let (connect_string, parameters) = match connect_string.split_once('?') {
            Some((bare, parameters)) if !bare.starts_with('(') => (with_parameters(bare, parameters)?, parameters),
            _ => (connect_string.clone(), connect_string.as_str()),
        };
        let wallet = ["my_wallet_directory", "wallet_location"].iter().find_map(|key| setting(parameters, key));
        let says_no = setting(parameters, "ssl_server_dn_match")
            .is_some_and(|word| !["on", "yes", "true"].contains(&word.to_lowercase().as_str()));
        if says_no {
            return Err(Fault::new(Kind::InvalidInput, "the `dsn` switches off that the server's name is verified")
                .hint("take ssl_server_dn_match out of it"));
        }
        let descriptor = parsed(&connect_string)?;
        let addresses = addresses(&descriptor);
        let is_encrypted = addresses.iter().all(|(protocol, _)| protocol == "tcps");
        if wants_tls.is_some_and(|wanted| wanted != is_encrypted) {
            return Err(Fault::new(Kind::InvalidInput, "the `dsn` and the fields on TLS contradict each other")
                .hint("write tcps:// or (PROTOCOL=tcps) into the `dsn`, or leave out `tls`, `ca` and `wallet`"));
        }
        let is_near = addresses.iter().all(|(_, host)| is_loopback(host));
        Ok(Self { name, connect_string, descriptor, wallet, is_encrypted, is_near })
    }
}

/// The descriptor as the driver writes it, with every default.
fn parsed(connect_string: &str) -> Result<String, Fault> {
    let parsed = Config::default().set_connect_string(connect_string).map_err(|error| {
        Fault::new(Kind::InvalidInput, "the `dsn` is none that Oracle Net understands")
            .caused_by(&thin::failed(&error))
            .hint("host:port/service, a full descriptor, or an alias that stands in TNS_ADMIN's tnsnames.ora")
    })?;
    Ok(parsed.get_connect_descriptor())
}

/// An Easy Connect string's descriptor, with its parameters where they belong.
fn with_parameters(bare: &str, parameters: &str) -> Result<String, Fault> {
    let mut descriptor = parsed(bare)?;
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let key = key.trim().to_lowercase();
        let part = PARAMETERS.iter().find(|(_, keys)| keys.contains(&key.as_str()));
        let Some((part, _)) = part.filter(|_| !value.is_empty() && !value.contains(['(', ')'])) else {
            return Err(Fault::new(
                Kind::InvalidInput,
                format!("the `dsn` has a parameter {key:?} that makes no sense"),
            )
            .hint("write the `dsn` as a full descriptor"));
        };
        // Where there is no such part, there is no TLS that it could be about.
        descriptor = descriptor.replacen(part, &format!("{part}({key}={value})"), 1);
    }
    Ok(descriptor)
}

/// What a descriptor or a list of parameters sets a key to, however it is laid out.
fn setting(text: &str, key: &str) -> Option<String> {
    let at = text.to_ascii_lowercase().find(key)?;
    let value = text.get(at + key.len()..)?.trim_start().strip_prefix('=')?;
    let value = value.split([')', '&']).next()?.trim().trim_matches('"');
    Some(value.to_owned())
}

/// A descriptor made from host, port and service.
fn described(account: &Account, wants_tls: Option<bool>) -> Result<(String, String), Fault> {
    let Account { host, port, .. } = account;
    let (kind, which) = match (account.sid.as_deref(), account.db.as_deref().unwrap_or_default()) {
        (Some(sid), "") => ("SID", sid),
        (None, service) => ("SERVICE_NAME", service),
        (Some(_), _) => {
            return Err(Fault::new(Kind::InvalidInput, "`db` names a service, and `sid` an instance: only one can be")
                .hint("leave out one of them"));
        }
    };
    for (field, value) in [("host", host.as_str()), ("db or sid", which)] {
        if value.contains(['(', ')', '=', '"', '\'', '\\', '#']) || value.chars().any(char::is_whitespace) {
            return Err(Fault::new(Kind::InvalidInput, format!("{value:?} cannot be a {field}")));
        }
    }
    let protocol = if wants_tls.unwrap_or(*port == TCPS_PORT) { "tcps" } else { "tcp" };
    let host = if host.is_empty() { "localhost" } else { host };
    let what = if which.is_empty() { String::new() } else { format!("({kind}={which})") };
    let descriptor =
        format!("(DESCRIPTION=(ADDRESS=(PROTOCOL={protocol})(HOST={host})(PORT={port}))(CONNECT_DATA={what}))");
    let name = if which.is_empty() { format!("{host}:{port}") } else { format!("{host}:{port}/{which}") };
    Ok((name, descriptor))
}

/// Protocol and host of every address in a descriptor as the driver writes it.
fn addresses(descriptor: &str) -> Vec<(String, String)> {
    let value = |address: &str, key: &str| setting(address, key).unwrap_or_default().to_lowercase();
    descriptor.split("(ADDRESS=").skip(1).map(|address| (value(address, "protocol"), value(address, "host"))).collect()
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(change: impl FnOnce(&mut Account)) -> Result<Place, Fault> {
        let mut account =
            Account { host: "db.example.com".to_owned(), port: 1521, login: "app".to_owned(), ..Account::default() };
        change(&mut account);
        Place::of(&account)
    }

    #[test]
    fn every_way_to_name_a_database_is_understood() {
        let of = |dsn: &str| place(|account| account.dsn = Some(dsn.to_owned())).unwrap();
        for (dsn, is_encrypted) in [
            ("db.example.com:1522/orders", false),
            ("db.example.com/orders:dedicated", false),
            ("tcps://db.example.com:2484/orders", true),
            ("tcps://db.example.com:2484/orders?wallet_location=/etc/wallet", true),
            ("(DESCRIPTION=(ADDRESS=(PROTOCOL=tcps)(HOST=a)(PORT=1))(CONNECT_DATA=(SID=X)))", true),
            (
                "(description=(address_list=(address=(protocol=tcps)(host=a)(port=1))(address=(protocol=tcp)(host=b)(port=1)))(connect_data=(service_name=x)))",
                false,
            ),
        ] {
            assert_eq!(of(dsn).is_encrypted, is_encrypted, "{dsn}");
        }
        let service = place(|account| account.db = Some("orders".to_owned())).unwrap();
        assert!(service.connect_string.contains("(SERVICE_NAME=orders)"));
        assert_eq!((service.name.as_str(), service.is_near), ("db.example.com:1521/orders", false));
        let sid = place(|account| account.sid = Some("ORCL".to_owned())).unwrap();
        assert!(sid.connect_string.contains("(SID=ORCL)"));
        let wallet = of("tcps://db.example.com:2484/orders?wallet_location=/etc/Wallet").wallet;
        assert_eq!(wallet.as_deref(), Some("/etc/Wallet"));
        let plus = of("tcps://db.example.com:2484/orders?retry_count=3&wallet_location=/w&ssl_server_dn_match=yes");
        assert!(plus.descriptor.contains("(RETRY_COUNT=3)"), "{}", plus.descriptor);
        assert_eq!(plus.wallet.as_deref(), Some("/w"));
        let spaced = "(DESCRIPTION = (ADDRESS = (PROTOCOL = TCPS)(HOST = a)(PORT = 1))(CONNECT_DATA = (SID = X))\n  \
                      (SECURITY = (MY_WALLET_DIRECTORY = /W)))";
        assert_eq!(of(spaced).wallet.as_deref(), Some("/W"));
        assert!(place(|account| account.port = 2484).unwrap().is_encrypted);
        assert!(place(|account| account.ca = Some("/etc/ca.pem".to_owned())).unwrap().is_encrypted);
        assert!(place(|account| account.host = "127.0.0.1".to_owned()).unwrap().is_near);
        assert!(place(|account| account.host = "[::1]".to_owned()).unwrap().is_near);
    }

    #[test]
    fn a_place_that_makes_no_sense_is_refused_without_being_repeated() {
        type Change = fn(&mut Account);
        let wrong: &[Change] = &[
            |account| account.dsn = Some("app/s3cret@db/orders".to_owned()),
            |account| account.dsn = Some("(DESCRIPTION=".to_owned()),
            |account| account.host = "a)(PORT=1".to_owned(),
            |account| account.db = Some("x)(SID=y".to_owned()),
            |account| (account.db, account.sid) = (Some("x".to_owned()), Some("y".to_owned())),
            |account| account.tls = Some(Mode::Require),
            |account| (account.dsn, account.tls) = (Some("db/x".to_owned()), Some(Mode::VerifyFull)),
            |account| (account.dsn, account.tls) = (Some("tcps://db/x".to_owned()), Some(Mode::Disable)),
            |account| account.dsn = Some("tcps://db/x?ssl_server_dn_match=off".to_owned()),
            |account| account.dsn = Some("db/x?no_such=1".to_owned()),
            |account| account.dsn = Some("db/x?sdu=1)(PORT=2".to_owned()),
        ];
        for change in wrong {
            let fault = place(change).map(|place| place.descriptor).unwrap_err();
            assert_eq!(fault.kind, Kind::InvalidInput);
            assert!(!fault.message.contains("s3cret") && fault.causes.iter().all(|cause| !cause.contains("s3cret")));
        }
    }
}
