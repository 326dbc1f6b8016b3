//! The last gate before a text leaves: no secret of the request passes.

use turnlock_protocol::operation::{ApplyResult, Finding, Findings, Finished, Verdicts};
use turnlock_protocol::{Credential, Fault, Secret};
use zeroize::Zeroizing;

/// Below this many characters a secret cannot be replaced in a text without
/// showing where, and so what, it was.
const TOO_SHORT_TO_REPLACE: usize = 6;

const REPLACEMENT: &str = "[secret]";

/// The secrets of one request in every spelling a driver may repeat them in.
#[derive(Debug, Default)]
pub(crate) struct Scrubber {
    spellings: Vec<Zeroizing<String>>,
    /// Some secret is too short, or the same as something that is not secret:
    /// replacing it would reveal it, so free text of others is dropped whole.
    drop_free_text: bool,
}

impl Scrubber {
    /// Learns every field of a credential. `public` are the request's
    /// non-secret texts.
    pub(crate) fn learn(&mut self, credential: &Credential, public: &[&str]) {
        for (_, secret) in credential.fields() {
            self.learn_one(secret, public);
        }
    }

    fn learn_one(&mut self, secret: &Secret, public: &[&str]) {
        #[expect(
            clippy::disallowed_methods,
            reason = "to recognise it in texts that are about to leave"
        )]
        let text = secret.expose();
        if text.is_empty() {
            return;
        }
        if text.chars().count() < TOO_SHORT_TO_REPLACE || public.contains(&text) {
            self.drop_free_text = true;
            return;
        }
        for spelling in [
            text.to_owned(),
            text.replace('\'', "''"),
            text.replace('\'', "\\'"),
            text.replace('\\', "\\\\"),
            text.replace('\\', "\\\\").replace('\'', "\\'"),
            text.replace('\\', "\\\\").replace('\'', "''"),
            text.replace('\\', "\\\\").replace('"', "\\\""),
            text.replace('"', "\"\""),
            text.escape_debug().to_string(),
            text.escape_default().to_string(),
            url_encoded(text),
        ] {
            if !self.spellings.iter().any(|known| **known == spelling) {
                self.spellings.push(Zeroizing::new(spelling));
            }
        }
        // Longer spellings first, so that no shorter one leaves a rest behind.
        self.spellings
            .sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
    }

    /// The text without any secret; `None` when it must be dropped.
    pub(crate) fn free_text(&self, text: &str) -> Option<String> {
        (!self.drop_free_text).then(|| self.own_text(text))
    }

    /// A text of our own making, which never quotes a secret by itself.
    pub(crate) fn own_text(&self, text: &str) -> String {
        self.spellings.iter().fold(text.to_owned(), |text, secret| {
            text.replace(secret.as_str(), REPLACEMENT)
        })
    }

    pub(crate) fn fault(&self, mut fault: Fault) -> Fault {
        fault.message = self.own_text(&fault.message);
        fault.hint = fault.hint.map(|hint| self.own_text(&hint));
        fault.causes = fault
            .causes
            .iter()
            .filter_map(|cause| self.free_text(cause))
            .collect();
        fault
    }

    pub(crate) fn findings(&self, mut findings: Findings) -> Findings {
        findings.server = findings.server.and_then(|server| self.free_text(&server));
        findings.tls = findings.tls.map(|tls| self.own_text(&tls));
        findings.findings = findings
            .findings
            .into_iter()
            .map(|finding| Finding {
                message: self.own_text(&finding.message),
                ..finding
            })
            .collect();
        findings
    }

    pub(crate) fn verdicts(&self, mut verdicts: Verdicts) -> Verdicts {
        for host in &mut verdicts.hosts {
            host.message = host
                .message
                .take()
                .and_then(|message| self.free_text(&message));
        }
        verdicts
    }

    pub(crate) fn applied(&self, mut result: ApplyResult) -> ApplyResult {
        result.warnings = result
            .warnings
            .iter()
            .map(|warning| self.own_text(warning))
            .collect();
        for host in &mut result.hosts {
            host.message = host
                .message
                .take()
                .and_then(|message| self.free_text(&message));
        }
        result
    }

    pub(crate) fn finished(&self, mut finished: Finished) -> Finished {
        finished.removed = finished
            .removed
            .iter()
            .map(|text| self.own_text(text))
            .collect();
        finished.warnings = finished
            .warnings
            .iter()
            .map(|text| self.own_text(text))
            .collect();
        finished
    }
}

/// RFC 3986: everything but unreserved characters as `%XX`.
fn url_encoded(text: &str) -> String {
    text.bytes().fold(
        String::with_capacity(text.len() * 3),
        |mut encoded, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                encoded.push(byte as char);
            } else {
                encoded.push_str(&format!("%{byte:02X}"));
            }
            encoded
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use turnlock_protocol::Kind;

    fn knowing(secret: &str) -> Scrubber {
        let mut scrubber = Scrubber::default();
        scrubber.learn(&Credential::password(Secret::new(secret.into())), &["app"]);
        scrubber
    }

    #[test]
    fn a_secret_is_removed_in_every_spelling() {
        let secret = r#"o'Neil\"10%ü"#;
        let scrubber = knowing(secret);
        for spelling in [
            secret.to_owned(),
            secret.replace('\'', "''"),
            r#"o\'Neil\\"10%ü"#.to_owned(),
            r#"o'Neil\\\"10%ü"#.to_owned(),
            url_encoded(secret),
        ] {
            let text = scrubber.own_text(&format!("near >{spelling}< at"));
            assert_eq!(text, "near >[secret]< at", "{spelling}");
        }
    }

    #[test]
    fn causes_are_dropped_where_replacing_would_reveal() {
        for secret in ["abc", "app"] {
            let mut fault = Fault::new(Kind::Policy, "refused");
            fault.causes = vec!["too like abc".into()];
            assert!(knowing(secret).fault(fault).causes.is_empty());
        }
    }
}
