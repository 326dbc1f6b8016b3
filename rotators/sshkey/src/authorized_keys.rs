//! The file of authorised keys (sshd(8), "AUTHORIZED_KEYS FILE FORMAT"), edited
//! as bytes: every line that is not ours stays as it is, to the byte.

use std::ops::Range;

/// One line that is a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// The whole line with its ending.
    line: Range<usize>,
    /// What stands before the key: options, and the blanks around them.
    before: Range<usize>,
    /// The key itself, as base64 without padding.
    blob: String,
}

/// A key's line, without options: `type base64 comment`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicLine {
    text: String,
    blob: String,
}

impl PublicLine {
    /// Takes the text of a public key.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let text = text.trim().to_owned();
        let blob = text.split_ascii_whitespace().nth(1)?.trim_end_matches('=').to_owned();
        Some(Self { text, blob })
    }

    /// Whether both are the same key.
    pub(crate) fn is_key_of(&self, other: &Self) -> bool {
        self.blob == other.blob
    }
}

/// Whether the key stands in the file.
pub(crate) fn has(content: &[u8], key: &PublicLine) -> bool {
    entries(content).iter().any(|entry| entry.blob == key.blob)
}

/// The file with `new` right after the line of `old`, under the same options.
/// The file as it is where it has the key already; nothing where it does not
/// know `old`.
pub(crate) fn add(content: &[u8], old: &PublicLine, new: &PublicLine) -> Option<Vec<u8>> {
    let entries = entries(content);
    if entries.iter().any(|entry| entry.blob == new.blob) {
        return Some(content.to_vec());
    }
    // The first line with a key is the one that counts for sshd.
    let found = entries.iter().find(|entry| entry.blob == old.blob)?;
    let line = content.get(found.line.clone())?;
    let (mut before, after) = (content.get(..found.line.end)?.to_vec(), content.get(found.line.end..)?);
    let ending: &[u8] =
        if line.ends_with(b"\r\n") || (!line.ends_with(b"\n") && content.contains(&b'\r')) { b"\r\n" } else { b"\n" };
    let ends = line.ends_with(b"\n");
    if !ends {
        before.extend_from_slice(ending);
    }
    before.extend_from_slice(content.get(found.before.clone())?);
    before.extend_from_slice(new.text.as_bytes());
    if ends {
        before.extend_from_slice(ending);
    }
    before.extend_from_slice(after);
    Some(before)
}

/// The file without any line of this key, whatever its options and comment.
pub(crate) fn remove(content: &[u8], key: &PublicLine) -> Vec<u8> {
    let mut rest = Vec::with_capacity(content.len());
    let mut kept = 0;
    for entry in entries(content).into_iter().filter(|entry| entry.blob == key.blob) {
        rest.extend_from_slice(content.get(kept..entry.line.start).unwrap_or_default());
        kept = entry.line.end;
    }
    rest.extend_from_slice(content.get(kept..).unwrap_or_default());
    // A file whose last line had no ending keeps that shape.
    if kept == content.len() && !content.is_empty() && !content.ends_with(b"\n") {
        let without = rest.strip_suffix(b"\n").map(|rest| rest.strip_suffix(b"\r").unwrap_or(rest).len());
        rest.truncate(without.unwrap_or(rest.len()));
    }
    rest
}

fn entries(content: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut start = 0;
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let range = start..start + line.len();
        start = range.end;
        if let Some((before, blob)) = key_of(line) {
            entries.push(Entry { before: range.start..range.start + before, line: range, blob });
        }
    }
    entries
}

/// Where the key begins, and its base64.
fn key_of(line: &[u8]) -> Option<(usize, String)> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let first = line.iter().position(|byte| !blank(byte))?;
    if line.get(first) == Some(&b'#') {
        return None;
    }
    let word = |from: usize| {
        let rest = line.get(from..)?;
        let length = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        rest.get(..length).filter(|word| !word.is_empty())
    };
    let skip = |from: usize| {
        let rest = line.get(from..)?;
        rest.iter().position(|byte| !blank(byte)).map(|blanks| from + blanks)
    };
    let mut at = first;
    if !is_kind(word(at)?) {
        at = skip(end_of_options(line, at))?;
        if !is_kind(word(at)?) {
            return None;
        }
    }
    let blob = word(skip(at + word(at)?.len())?)?;
    let blob = std::str::from_utf8(blob).ok()?.trim_end_matches('=').to_owned();
    Some((at, blob))
}

/// Options end at the first blank that is not within quotes.
fn end_of_options(line: &[u8], from: usize) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (index, byte) in line.iter().enumerate().skip(from) {
        match byte {
            b'"' if !escaped => quoted = !quoted,
            b' ' | b'\t' | b'\r' | b'\n' if !quoted => return index,
            _ => {}
        }
        escaped = *byte == b'\\' && !escaped;
    }
    line.len()
}

fn is_kind(word: &[u8]) -> bool {
    ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|kind| word.starts_with(kind.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(blob: &str, comment: &str) -> PublicLine {
        PublicLine::new(&format!("ssh-ed25519 {blob} {comment}")).unwrap()
    }

    fn old() -> PublicLine {
        key("OLDBLOB", "me@old")
    }

    fn new() -> PublicLine {
        key("NEWBLOB", "me@new")
    }

    #[test]
    fn the_new_key_stands_behind_the_old_one_under_its_options() {
        let n = "ssh-ed25519 NEWBLOB me@new";
        for (before, after) in [
            ("ssh-ed25519 OLDBLOB\n", format!("ssh-ed25519 OLDBLOB\n{n}\n")),
            ("ssh-ed25519 OLDBLOB= Somebody's key\n", format!("ssh-ed25519 OLDBLOB= Somebody's key\n{n}\n")),
            ("ssh-ed25519 OLDBLOB", format!("ssh-ed25519 OLDBLOB\n{n}")),
            ("ssh-ed25519 OLDBLOB\r\nx\r\n", format!("ssh-ed25519 OLDBLOB\r\n{n}\r\nx\r\n")),
            (
                "# OLDBLOB\nfrom=\"10.0.0.0/8,!10.1.1.1\",no-pty \t ssh-ed25519 OLDBLOB c d\nssh-rsa OTHER\n",
                format!(
                    "# OLDBLOB\nfrom=\"10.0.0.0/8,!10.1.1.1\",no-pty \t ssh-ed25519 OLDBLOB c d\nfrom=\"10.0.0.0/8,!10.1.1.1\",no-pty \t {n}\nssh-rsa OTHER\n"
                ),
            ),
            (
                "command=\"echo \\\"ssh-rsa X\\\" y\" ssh-ed25519 OLDBLOB\n",
                format!(
                    "command=\"echo \\\"ssh-rsa X\\\" y\" ssh-ed25519 OLDBLOB\ncommand=\"echo \\\"ssh-rsa X\\\" y\" {n}\n"
                ),
            ),
        ] {
            let added = add(before.as_bytes(), &old(), &new()).unwrap();
            assert_eq!(String::from_utf8(added.clone()).unwrap(), after);
            assert_eq!(add(&added, &old(), &new()).unwrap(), added, "a second time changes nothing");
            assert_eq!(remove(&added, &new()), before.as_bytes(), "taken back");
        }
        assert_eq!(add(b"ssh-rsa OTHER\n#ssh-ed25519 OLDBLOB\n", &old(), &new()), None);
    }

    #[test]
    fn every_line_of_a_key_goes_whatever_its_options_and_comment() {
        let content =
            b"ssh-ed25519 OLDBLOB a\n#x\nno-pty ssh-ed25519 OLDBLOB b\nssh-rsa OTHER o'connor\n  ssh-ed25519 OLDBLOB";
        assert_eq!(remove(content, &old()), b"#x\nssh-rsa OTHER o'connor");
        assert_eq!(remove(b"ssh-ed25519 OLDBLOBX\n", &old()), b"ssh-ed25519 OLDBLOBX\n");
        assert!(has(content, &old()) && !has(content, &new()));
    }

    proptest! {
        #[test]
        fn other_lines_stay_to_the_byte(
            others in proptest::collection::vec("[ -~\\t\r]{0,60}", 0..6),
            options in "(from=\"[a-z. ,]{0,10}\",)?(no-pty )?",
            at in 0usize..6,
            unended: bool,
        ) {
            let mut lines: Vec<String> = others.into_iter().filter(|line| !line.contains("NEWBLOB")).collect();
            let options = if options.ends_with(',') { format!("{options}no-pty ") } else { options };
            lines.insert(at.min(lines.len()), format!("{options}ssh-ed25519 OLDBLOB it's mine"));
            let mut content = lines.join("\n");
            if !unended {
                content.push('\n');
            }
            let added = add(content.as_bytes(), &old(), &new()).unwrap();
            prop_assert!(has(&added, &new()) && has(&added, &old()));
            prop_assert_eq!(remove(&added, &new()), content.as_bytes());
            let rotated = String::from_utf8(remove(&added, &old())).unwrap();
            let ours = |line: &&str| !line.contains("BLOB");
            let (before, after): (Vec<_>, Vec<_>) =
                (content.split('\n').filter(ours).collect(), rotated.split('\n').filter(ours).collect());
            prop_assert_eq!(before, after);
        }

        #[test]
        fn any_bytes_are_read_without_trouble(content in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(remove(&content, &old()), content.clone());
            prop_assert_eq!(add(&content, &old(), &new()), None);
        }
    }
}
