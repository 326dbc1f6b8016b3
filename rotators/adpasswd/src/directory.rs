//! What a directory says of itself before anybody has logged in, and what is
//! read of an entry.

use std::collections::HashMap;

use ldap3::SearchEntry;

use crate::name::dns_name;
use crate::ppolicy;

/// The root of a directory, as it answers everybody.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    facts: HashMap<String, Vec<String>>,
}

/// Its capability that says: Active Directory (MS-ADTS 3.1.1.3.4.3.1).
const ACTIVE_DIRECTORY: &str = "1.2.840.113556.1.4.800";
/// RFC 3062.
const PASSWORD_MODIFY: &str = "1.3.6.1.4.1.4203.1.11.1";
/// RFC 4532.
const WHO_AM_I: &str = "1.3.6.1.4.1.4203.1.11.3";

impl Directory {
    /// What is asked for.
    pub(crate) const ATTRIBUTES: [&str; 10] = [
        "supportedCapabilities",
        "supportedExtension",
        "supportedControl",
        "namingContexts",
        "defaultNamingContext",
        "configurationNamingContext",
        "dnsHostName",
        "vendorName",
        "vendorVersion",
        "structuralObjectClass",
    ];

    pub(crate) fn new(root: SearchEntry) -> Self {
        Self { facts: small_letters(root.attrs) }
    }

    fn all(&self, name: &str) -> &[String] {
        self.facts.get(&name.to_ascii_lowercase()).map(Vec::as_slice).unwrap_or_default()
    }

    fn one(&self, name: &str) -> Option<&str> {
        self.all(name).first().map(String::as_str)
    }

    fn says(&self, name: &str, value: &str) -> bool {
        self.all(name).iter().any(|found| found == value)
    }

    /// Whether it is Active Directory, Samba's included.
    pub(crate) fn is_active_directory(&self) -> bool {
        self.says("supportedCapabilities", ACTIVE_DIRECTORY)
    }

    /// Whether it takes a password by RFC 3062. One that hides its root may.
    pub(crate) fn takes_password_modify(&self) -> bool {
        self.facts.is_empty() || self.says("supportedExtension", PASSWORD_MODIFY)
    }

    pub(crate) fn tells_who_i_am(&self) -> bool {
        self.says("supportedExtension", WHO_AM_I)
    }

    pub(crate) fn has_ppolicy(&self) -> bool {
        self.says("supportedControl", ppolicy::CONTROL)
    }

    /// Active Directory's domain, as a DN.
    pub(crate) fn domain(&self) -> &str {
        self.one("defaultNamingContext").unwrap_or_default()
    }

    /// The same as a DNS name.
    pub(crate) fn domain_name(&self) -> String {
        dns_name(self.domain())
    }

    pub(crate) fn configuration(&self) -> &str {
        self.one("configurationNamingContext").unwrap_or_default()
    }

    /// Where accounts are looked for.
    pub(crate) fn bases(&self) -> Vec<&str> {
        match self.one("defaultNamingContext") {
            Some(context) if !context.is_empty() => vec![context],
            _ => self.all("namingContexts").iter().map(String::as_str).filter(|base| !base.is_empty()).collect(),
        }
    }

    /// Its product, as far as it tells.
    pub(crate) fn server(&self) -> String {
        let vendor = self.one("vendorName");
        if self.is_active_directory() {
            let kind = if vendor.is_some_and(|vendor| vendor.contains("Samba")) { " (Samba)" } else { "" };
            return format!("Active Directory{kind}, {}", self.one("dnsHostName").unwrap_or("unnamed controller"));
        }
        match (vendor, self.one("vendorVersion")) {
            (_, Some(version)) => version.to_owned(),
            (Some(vendor), None) => vendor.to_owned(),
            _ if self.one("structuralObjectClass") == Some("OpenLDAProotDSE") => "OpenLDAP".to_owned(),
            _ => "an LDAP directory".to_owned(),
        }
    }
}

/// An entry with what was asked of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    /// Its distinguished name, as the directory writes it.
    pub(crate) dn: String,
    texts: HashMap<String, Vec<String>>,
}

impl Entry {
    pub(crate) fn new(entry: SearchEntry) -> Self {
        Self { dn: entry.dn, texts: small_letters(entry.attrs) }
    }

    /// An entry of which only the name is known.
    pub(crate) fn named(dn: &str) -> Self {
        Self { dn: dn.to_owned(), ..Self::default() }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(&name.to_ascii_lowercase())?.first().map(String::as_str)
    }

    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }
}

/// Directories are free to write attributes' names as they like.
fn small_letters(attributes: HashMap<String, Vec<String>>) -> HashMap<String, Vec<String>> {
    attributes.into_iter().map(|(name, values)| (name.to_ascii_lowercase(), values)).collect()
}
