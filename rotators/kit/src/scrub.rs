//! The last gate before a text leaves: no secret of the request passes.

use turnlock_protocol::operation::{ApplyResult, Finding, Findings, Finished, Verdicts};
use turnlock_protocol::{Fault, Secret};
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
    /// Learns a secret. `public` are the request's texts that are none.
    pub(crate) fn learn(&mut self, secret: &Secret, public: &[String]) {
        #[expect(clippy::disallowed_methods, reason = "to recognise it in texts that are about to leave")]
        let text = secret.expose();
        if text.is_empty() {
            return;
        }
        if text.chars().count() < TOO_SHORT_TO_REPLACE || public.iter().any(|public| public.contains(text)) {
            self.drop_free_text = true;
            return;
        }
        self.learn_spellings(text);
        // A driver may quote one line of a key. Its frame ("-----BEGIN") is no secret.
        for line in text.lines().map(str::trim).filter(|line| *line != text) {
            if line.len() >= 16 && !line.starts_with("-----") {
                self.learn_spellings(line);
            }
        }
        // Longer spellings first, so that no shorter one leaves a rest behind.
        self.spellings.sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
    }

    fn learn_spellings(&mut self, text: &str) {
        for spelling in [
            respelled(text, |c| c.into()),
            respelled(text, |c| if c == '\'' { "''".into() } else { c.into() }),
            respelled(text, |c| if c == '"' { "\"\"".into() } else { c.into() }),
            respelled(text, backslash_before(&['\''])),
            respelled(text, backslash_before(&['\\'])),
            respelled(text, backslash_before(&['\\', '\''])),
            respelled(text, backslash_before(&['\\', '"'])),
            respelled(text, |c| match c {
                '\'' => "''".into(),
                '\\' => "\\\\".into(),
                c => c.into(),
            }),
            respelled(text, |c| Spelled::Text(c.escape_debug().to_string())),
            respelled(text, |c| Spelled::Text(c.escape_default().to_string())),
            respelled(text, |c| match c {
                '\n' => "\\n".into(),
                '\r' => "\\r".into(),
                '\t' => "\\t".into(),
                '"' => "\\\"".into(),
                '\\' => "\\\\".into(),
                c => c.into(),
            }),
            respelled(text, |c| match c {
                '&' => "&amp;".into(),
                '<' => "&lt;".into(),
                '>' => "&gt;".into(),
                '"' => "&quot;".into(),
                '\'' => "&#39;".into(),
                c => c.into(),
            }),
            respelled(text, |c| percent(c, true, "%20")),
            respelled(text, |c| percent(c, false, "%20")),
            respelled(text, |c| percent(c, true, "+")),
            respelled(text, |c| percent(c, false, "+")),
        ] {
            if !self.spellings.contains(&spelling) {
                self.spellings.push(spelling);
            }
        }
    }

    /// The text without any secret; `None` when it must be dropped.
    pub(crate) fn free_text(&self, text: &str) -> Option<String> {
        (!self.drop_free_text).then(|| self.own_text(text))
    }

    /// A text of our own making, which never quotes a secret by itself.
    pub(crate) fn own_text(&self, text: &str) -> String {
        self.spellings.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), REPLACEMENT))
    }

    pub(crate) fn fault(&self, mut fault: Fault) -> Fault {
        fault.message = self.own_text(&fault.message);
        fault.hint = fault.hint.map(|hint| self.own_text(&hint));
        fault.causes = fault.causes.iter().filter_map(|cause| self.free_text(cause)).collect();
        fault
    }

    pub(crate) fn findings(&self, mut findings: Findings) -> Findings {
        findings.server = findings.server.and_then(|server| self.free_text(&server));
        findings.tls = findings.tls.map(|tls| self.own_text(&tls));
        findings.findings = findings
            .findings
            .into_iter()
            .map(|finding| Finding { message: self.own_text(&finding.message), ..finding })
            .collect();
        findings
    }

    pub(crate) fn verdicts(&self, mut verdicts: Verdicts) -> Verdicts {
        for host in &mut verdicts.hosts {
            host.message = host.message.take().and_then(|message| self.free_text(&message));
        }
        verdicts
    }

    pub(crate) fn applied(&self, mut result: ApplyResult) -> ApplyResult {
        result.warnings = result.warnings.iter().map(|warning| self.own_text(warning)).collect();
        for host in &mut result.hosts {
            host.message = host.message.take().and_then(|message| self.free_text(&message));
        }
        result
    }

    pub(crate) fn finished(&self, mut finished: Finished) -> Finished {
        finished.removed = finished.removed.iter().map(|text| self.own_text(text)).collect();
        finished.warnings = finished.warnings.iter().map(|text| self.own_text(text)).collect();
        finished
    }
}

/// How one character is spelled.
enum Spelled {
    Itself(char),
    Fixed(&'static str),
    Text(String),
}

impl From<char> for Spelled {
    fn from(c: char) -> Self {
        Self::Itself(c)
    }
}

impl From<&'static str> for Spelled {
    fn from(text: &'static str) -> Self {
        Self::Fixed(text)
    }
}

/// A text with each character spelled anew, in memory that is cleared and
/// never grows: no spelling of a character is longer than 12 bytes.
fn respelled(text: &str, spell: impl Fn(char) -> Spelled) -> Zeroizing<String> {
    let mut new = Zeroizing::new(String::with_capacity(text.len() * 12));
    for c in text.chars() {
        match spell(c) {
            Spelled::Itself(c) => new.push(c),
            Spelled::Fixed(text) => new.push_str(text),
            Spelled::Text(text) => new.push_str(&text),
        }
    }
    new
}

fn backslash_before(special: &'static [char]) -> impl Fn(char) -> Spelled {
    |c| {
        if special.contains(&c) { Spelled::Text(format!("\\{c}")) } else { c.into() }
    }
}

/// RFC 3986: everything but unreserved characters as `%XX`; a space as told.
fn percent(c: char, capital: bool, space: &'static str) -> Spelled {
    if c.is_ascii_alphanumeric() || "-._~".contains(c) {
        return c.into();
    }
    if c == ' ' {
        return space.into();
    }
    let mut bytes = [0; 4];
    Spelled::Text(
        c.encode_utf8(&mut bytes)
            .bytes()
            .map(|byte| if capital { format!("%{byte:02X}") } else { format!("%{byte:02x}") })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use turnlock_protocol::Kind;

    fn knowing(secret: &str) -> Scrubber {
        let mut scrubber = Scrubber::default();
        scrubber.learn(&Secret::new(secret.into()), &["app".into(), "db.example.com".into()]);
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
            "o%27Neil%5C%2210%25%C3%BC".to_owned(),
            "o%27Neil%5c%2210%25%c3%bc".to_owned(),
            r#"o&#39;Neil\&quot;10%ü"#.to_owned(),
        ] {
            let text = scrubber.own_text(&format!("near >{spelling}< at"));
            assert_eq!(text, "near >[secret]< at", "{spelling}");
        }
    }

    #[test]
    fn causes_are_dropped_where_replacing_would_reveal() {
        for secret in ["abc", "app", "example"] {
            let mut fault = Fault::new(Kind::Policy, "refused");
            fault.causes = vec!["too like abc".into()];
            assert!(knowing(secret).fault(fault).causes.is_empty());
        }
    }

    #[test]
    fn one_line_of_a_key_is_removed_and_its_frame_stays() {
        let scrubber = knowing("-----BEGIN KEY-----\nMIIEcanarycanary77\nAAAA\n-----END KEY-----\n");
        assert_eq!(
            scrubber.own_text("-----BEGIN KEY----- bad base64: MIIEcanarycanary77"),
            "-----BEGIN KEY----- bad base64: [secret]"
        );
    }
}
