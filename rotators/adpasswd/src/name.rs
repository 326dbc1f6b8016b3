//! Who an account is: what people write as a login, how a directory is asked
//! for it, and under what name it logs in. Whatever a login holds, it selects
//! itself or nobody.

use ldap3::ldap_escape;
use turnlock_kit::{Fault, Kind};

/// An account, as its record names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom<'a> {
    /// A distinguished name.
    Dn(&'a str),
    /// `user@domain`.
    Principal {
        /// All of it.
        whole: &'a str,
        /// Before the last `@`.
        user: &'a str,
        /// Behind it.
        suffix: &'a str,
    },
    /// `DOMAIN\user`.
    Domain {
        /// All of it.
        whole: &'a str,
        /// The domain's NetBIOS name.
        domain: &'a str,
        /// The user's sAMAccountName.
        user: &'a str,
    },
    /// A name alone.
    Name(&'a str),
}

impl<'a> Whom<'a> {
    /// Reads a login; a DN given beside it is stronger.
    pub(crate) fn of(login: &'a str, userdn: Option<&'a str>) -> Result<Self, Fault> {
        if [Some(login), userdn].into_iter().flatten().any(|name| name.contains('\0')) {
            return Err(Fault::new(Kind::InvalidInput, "a name in a directory has no NUL").hint("correct the login"));
        }
        if let Some(dn) = userdn.map(str::trim).filter(|dn| !dn.is_empty()) {
            if !is_dn(dn) {
                return Err(Fault::new(Kind::InvalidInput, format!("`userdn` is not a DN: \"{dn}\""))
                    .hint("write it like CN=App,OU=Services,DC=corp,DC=example,DC=com"));
            }
            return Ok(Self::Dn(dn));
        }
        if login.is_empty() {
            return Err(
                Fault::new(Kind::InvalidInput, "there is no login").hint("give the record a login, or `userdn`")
            );
        }
        if is_dn(login) {
            return Ok(Self::Dn(login));
        }
        if let Some((domain, user)) = login.split_once('\\')
            && !domain.is_empty()
            && !user.is_empty()
        {
            return Ok(Self::Domain { whole: login, domain, user });
        }
        match login.rsplit_once('@') {
            Some((user, suffix)) if !user.is_empty() && !suffix.is_empty() => {
                Ok(Self::Principal { whole: login, user, suffix })
            }
            _ => Ok(Self::Name(login)),
        }
    }

    /// As it was written.
    pub(crate) fn written(self) -> &'a str {
        match self {
            Self::Dn(whole) | Self::Name(whole) | Self::Principal { whole, .. } | Self::Domain { whole, .. } => whole,
        }
    }
}

/// One attribute that must be equal to a value, as a filter.
pub(crate) fn equals(attribute: &str, value: &str) -> String {
    format!("({attribute}={})", ldap_escape(value))
}

/// Whether a text is a distinguished name of two parts or more (RFC 4514). A
/// user's bare name may hold `=`, so one part alone is none.
pub(crate) fn is_dn(text: &str) -> bool {
    let parts = split_unescaped(text, ',');
    parts.len() > 1 && parts.iter().all(|part| split_unescaped(part, '+').iter().all(|part| is_assignment(part)))
}

fn is_assignment(part: &str) -> bool {
    let Some((kind, value)) = part.split_once('=') else { return false };
    let kind = kind.trim();
    let named = kind.starts_with(|first: char| first.is_ascii_alphabetic())
        && kind.chars().all(|one| one.is_ascii_alphanumeric() || one == '-');
    let numbered = kind.starts_with(|first: char| first.is_ascii_digit())
        && kind.chars().all(|one| one.is_ascii_digit() || one == '.');
    (named || numbered) && !value.trim().is_empty() && !value.contains('\0')
}

fn split_unescaped(text: &str, separator: char) -> Vec<&str> {
    let mut escaped = false;
    text.split(|one: char| {
        let splits = one == separator && !escaped;
        escaped = one == '\\' && !escaped;
        splits
    })
    .collect()
}

/// The DNS name of a naming context: `DC=corp,DC=example` is `corp.example`.
pub(crate) fn dns_name(context: &str) -> String {
    let labels: Vec<&str> = context
        .split(',')
        .filter_map(|part| part.split_once('='))
        .filter(|(kind, _)| kind.trim().eq_ignore_ascii_case("dc"))
        .map(|(_, label)| label.trim())
        .collect();
    labels.join(".")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_way_to_write_a_login_is_told_apart() {
        let of = |login| Whom::of(login, None).unwrap();
        for dn in ["cn=a,dc=b", "CN=Doe\\, Jane,OU=x,DC=y", "1.2.3=x,dc=y", "uid=a+cn=b,dc=c", "UID=#04024869,dc=x"] {
            assert_eq!(of(dn), Whom::Dn(dn));
        }
        assert_eq!(
            of("app@corp.example"),
            Whom::Principal { whole: "app@corp.example", user: "app", suffix: "corp.example" }
        );
        assert_eq!(of(r"CORP\app"), Whom::Domain { whole: r"CORP\app", domain: "CORP", user: "app" });
        for name in ["app", "a=b", "cn=*)(uid=*", r"\app", "app\\", "@", "a@", "#lead", ",", "=,="] {
            assert_eq!(of(name), Whom::Name(name), "{name}");
        }
        assert_eq!(Whom::of("app", Some("cn=b,dc=c")).unwrap(), Whom::Dn("cn=b,dc=c"));
        assert_eq!(Whom::of("app", Some("b")).unwrap_err().kind, Kind::InvalidInput);
        for (login, dn) in [("", None), ("a\0", None), ("a", Some("cn=a\0,dc=b"))] {
            assert_eq!(Whom::of(login, dn).unwrap_err().kind, Kind::InvalidInput);
        }
        assert_eq!(dns_name("DC=lab,DC=test"), "lab.test");
    }

    /// What a filter holds besides the value, once escapes are undone.
    fn unescaped(filter: &str) -> Option<String> {
        let inner = filter.strip_prefix("(uid=")?.strip_suffix(')')?;
        if inner.contains(['(', ')', '*', '\0']) {
            return None;
        }
        let mut bytes = Vec::new();
        let mut rest = inner.as_bytes();
        while let [first, tail @ ..] = rest {
            rest = tail;
            if *first == b'\\' {
                let (digits, tail) = rest.split_at_checked(2)?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = tail;
            } else {
                bytes.push(*first);
            }
        }
        String::from_utf8(bytes).ok()
    }

    proptest! {
        #[test]
        fn a_filter_asks_for_this_very_value_and_nothing_else(value in "[()*\\\\\0,#=+<>;\" a-zß\u{1F4A3}]{0,24}|\\PC{0,24}") {
            prop_assert_eq!(unescaped(&equals("uid", &value)), Some(value));
        }

        #[test]
        fn a_login_is_read_and_never_altered(login in "[()*\\\\@,#= a-zß]{1,16}|\\PC{1,16}") {
            prop_assert_eq!(Whom::of(&login, None).unwrap().written(), login.as_str());
        }
    }
}
