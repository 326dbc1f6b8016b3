//! The file of known host keys, read as sshd(8) describes it under
//! "SSH_KNOWN_HOSTS FILE FORMAT".

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use russh::keys::PublicKey;

/// What a file says about one host.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// Keys the host may show.
    pub(crate) keys: Vec<PublicKey>,
    /// Keys that nobody may show any more.
    pub(crate) revoked: Vec<PublicKey>,
    /// Whether a certificate authority is named for it, which is not read here.
    pub(crate) has_authority: bool,
}

impl Entries {
    /// Adds what `text` says about a host. Lines that are no entries are
    /// passed over, like OpenSSH does.
    pub(crate) fn read(&mut self, text: &str, host: &str, port: u16) {
        let name = name_of(host, port);
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let Some(first) = words.next().filter(|word| !word.starts_with('#')) else {
                continue;
            };
            let (marker, patterns) = match first.strip_prefix('@') {
                Some(marker) => (Some(marker), words.next().unwrap_or_default()),
                None => (None, first),
            };
            if !matches(patterns, &name) {
                continue;
            }
            let (Some(_kind), Some(key)) = (words.next(), words.next()) else {
                continue;
            };
            match (marker, russh::keys::parse_public_key_base64(key)) {
                (None, Ok(key)) => self.keys.push(key),
                (Some("revoked"), Ok(key)) => self.revoked.push(key),
                (Some("cert-authority"), _) => self.has_authority = true,
                _ => {}
            }
        }
    }
}

/// How a host is named in the file.
pub(crate) fn name_of(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// Whether a comma-separated list of patterns is about this host. One that
/// is negated and fits rules the whole line out.
fn matches(patterns: &str, name: &str) -> bool {
    let mut found = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(not) if fits(not, name) => return false,
            Some(_) => {}
            None => found |= fits(pattern, name),
        }
    }
    found
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("|1|") {
        Some(hashed) => is_hash_of(hashed, name),
        None => like(pattern.to_ascii_lowercase().as_bytes(), name.as_bytes()),
    }
}

/// A hashed name: base64 of a salt, `|`, base64 of its HMAC-SHA1.
fn is_hash_of(hashed: &str, name: &str) -> bool {
    let Some((salt, hash)) = hashed.split_once('|') else {
        return false;
    };
    let (Ok(salt), Ok(hash)) = (STANDARD.decode(salt), STANDARD.decode(hash)) else {
        return false;
    };
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
    hmac::verify(&key, name.as_bytes(), &hash).is_ok()
}

/// `*` stands for any text and `?` for any one character. Linear in time but
/// for the last star, to which it goes back.
fn like(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut here) = (0, 0);
    let mut star = None;
    while let Some(letter) = name.get(here) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, here));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == letter => {
                at += 1;
                here += 1;
            }
            _ => match star {
                Some((starred, from)) => {
                    star = Some((starred, from + 1));
                    at = starred + 1;
                    here = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|letter| *letter == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKJFmnq5Bh9Cra2y8fJj2/0jwFX9zzTL9qAsLNl+g1d8";
    const TWO: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMrPv4HtmCyVLnlzzLlnGXuFPdzP5W9kAAsA2Td+RpRp";

    fn of(text: &str, host: &str, port: u16) -> Entries {
        let mut entries = Entries::default();
        entries.read(text, host, port);
        entries
    }

    #[test]
    fn a_host_is_found_under_every_way_of_naming_it() {
        for (patterns, host, port, found) in [
            ("web1", "web1", 22, true),
            ("WEB1", "web1", 22, true),
            ("web1", "Web1", 22, true),
            ("web1", "web1", 2222, false),
            ("[web1]:2222", "web1", 2222, true),
            ("[web1]:2222", "web1", 22, false),
            ("db,web?,x", "web1", 22, true),
            ("*.example.com", "a.b.example.com", 22, true),
            ("*.example.com", "example.com", 22, false),
            ("*,!web1", "web1", 22, false),
            ("!web2,*", "web1", 22, true),
            ("[*]:2222", "web1", 2222, true),
            ("[::1]:2222", "::1", 2222, true),
            // ssh-keygen -H of "web1".
            ("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=", "192.168.1.61", 22, true),
            ("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=", "192.168.1.62", 22, false),
            ("|1|no base64|x", "web1", 22, false),
            ("|1|", "web1", 22, false),
        ] {
            let text = format!("{patterns} {ONE} a comment\n");
            assert_eq!(of(&text, host, port).keys.len(), usize::from(found), "{patterns} for {host}:{port}");
        }
    }

    #[test]
    fn markers_comments_and_nonsense_are_told_apart() {
        let text = format!(
            "# web1 {ONE}\n\n@revoked web1 {TWO}\n@cert-authority *.x,web1 {ONE}\n@other web1 {ONE}\nweb1\nweb1 ssh-rsa\nweb1 ssh-ed25519 ????\n  web1\t{ONE}"
        );
        let found = of(&text, "web1", 22);
        assert_eq!((found.keys.len(), found.revoked.len(), found.has_authority), (1, 1, true));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_trouble(text in ".*", host in ".*") {
            of(&text, &host, 22);
        }

        #[test]
        fn a_pattern_of_stars_ends_in_time(stars in "[a*?]{0,40}", name in "a{0,60}") {
            like(stars.as_bytes(), name.as_bytes());
        }
    }
}
