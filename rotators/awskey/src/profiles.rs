//! The text of a shared credentials file, and how one profile's key is
//! replaced in it: every other byte stays, but for a session token, which
//! belongs to the key that goes.

use zeroize::Zeroizing;

const ID: &str = "aws_access_key_id";
const SECRET: &str = "aws_secret_access_key";
const TOKEN: &str = "aws_session_token";

/// The text with this key in exactly this profile, which is added where there is none.
///
/// # Errors
/// What is wrong with the text or the name, in words without a value of it.
pub(crate) fn with_key(text: &str, profile: &str, id: &str, secret: &str) -> Result<Zeroizing<String>, String> {
    if profile.is_empty() || profile.trim() != profile || profile.contains(['[', ']', '#', ';', '\n', '\r']) {
        return Err(format!("{profile:?} cannot be the name of a profile"));
    }
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (before, rest) = lines.split_at(lines.iter().take_while(|line| section(line) != Some(profile)).count());
    let (header, rest) = rest.split_at(rest.len().min(1));
    let (within, behind) = rest.split_at(rest.iter().take_while(|line| section(line).is_none()).count());
    if behind.iter().any(|line| section(line) == Some(profile)) {
        return Err(format!("it has the profile {profile:?} twice"));
    }

    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut new = Zeroizing::new(String::with_capacity(text.len() + 256));
    let mut say = |parts: &[&str]| parts.iter().for_each(|part| new.push_str(part));
    say(before);
    match header {
        [header] => say(&[header, if header.ends_with('\n') { "" } else { end }]),
        _ => {
            let unended = if text.is_empty() || text.ends_with('\n') { "" } else { end };
            say(&[unended, if text.is_empty() { "" } else { end }, "[", profile, "]", end]);
        }
    }
    for (name, value) in [(ID, id), (SECRET, secret)] {
        if !within.iter().any(|line| setting(line).is_some_and(|setting| setting.name == name)) {
            say(&[name, " = ", value, end]);
        }
    }
    for line in within {
        match setting(line) {
            Some(setting) if setting.name == ID => say(&[setting.before, id, setting.behind]),
            Some(setting) if setting.name == SECRET => say(&[setting.before, secret, setting.behind]),
            Some(setting) if setting.name == TOKEN => {}
            _ => say(&[line]),
        }
    }
    say(behind);
    Ok(new)
}

/// The name in a section's header.
fn section(line: &str) -> Option<&str> {
    let (name, _) = line.strip_prefix('[')?.split_once(']')?;
    Some(name.trim())
}

/// A line that sets something: what stands around its value.
struct Setting<'a> {
    name: String,
    before: &'a str,
    behind: &'a str,
}

fn setting(line: &str) -> Option<Setting<'_>> {
    // An indented line goes on with the one above it.
    if line.starts_with([' ', '\t', '#', ';']) {
        return None;
    }
    let (name, after) = line.split_once(['=', ':'])?;
    let value = after.trim_start_matches([' ', '\t']);
    let (before, value) = line.split_at(line.len() - value.len());
    let comment = [" #", " ;", "\t#", "\t;"].iter().filter_map(|mark| value.find(mark)).min();
    let (content, _) = value.split_at(comment.unwrap_or(value.len()));
    let (_, behind) = value.split_at(content.trim_end().len());
    Some(Setting { name: name.trim_end().to_ascii_lowercase(), before, behind })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a broken expectation of a test is its failure")]

    use proptest::prelude::*;

    use super::*;

    fn put(text: &str) -> String {
        with_key(text, "deploy", "AKIANEW", "n3w/S+cret").unwrap().to_string()
    }

    #[test]
    fn only_the_named_profile_changes() {
        let text = "# mine\n[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key=a\n\n\
                    [deploy] ; by hand\r\n# old one\naws_secret_access_key =old  # since May\nregion = eu-west-1\n\
                    AWS_ACCESS_KEY_ID= AKIAOLD\naws_session_token = gone\ns3 =\n  aws_access_key_id = nested\n\n\
                    [deploy-2]\naws_access_key_id = AKIATWO\n";
        let expected = "# mine\n[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key=a\n\n\
                    [deploy] ; by hand\r\n# old one\naws_secret_access_key =n3w/S+cret  # since May\nregion = eu-west-1\n\
                    AWS_ACCESS_KEY_ID= AKIANEW\ns3 =\n  aws_access_key_id = nested\n\n\
                    [deploy-2]\naws_access_key_id = AKIATWO\n";
        assert_eq!(put(text), expected);
        assert_eq!(put(expected), expected);
    }

    #[test]
    fn what_is_missing_is_added() {
        let key = "aws_access_key_id = AKIANEW\naws_secret_access_key = n3w/S+cret\n";
        assert_eq!(put(""), format!("[deploy]\n{key}"));
        assert_eq!(put("[a]\nx=1"), format!("[a]\nx=1\n\n[deploy]\n{key}"));
        assert_eq!(put("[a]\nx=1\n"), format!("[a]\nx=1\n\n[deploy]\n{key}"));
        assert_eq!(put("[deploy]"), format!("[deploy]\n{key}"));
        let crlf = "[deploy]\r\nregion = x\r\naws_access_key_id =\r\n[z]\r\n";
        assert_eq!(
            put(crlf),
            "[deploy]\r\naws_secret_access_key = n3w/S+cret\r\nregion = x\r\naws_access_key_id =AKIANEW\r\n[z]\r\n"
        );
    }

    #[test]
    fn what_cannot_be_understood_is_left_alone() {
        assert!(with_key("[deploy]\n[x]\n[deploy]\n", "deploy", "i", "s").unwrap_err().contains("twice"));
        for name in ["", " x", "a]b", "a\nb", "a#b"] {
            assert!(with_key("", name, "i", "s").is_err(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn every_other_line_stays_as_it_was(
            before in "([a-z#;= \t]{0,12}\n){0,4}",
            others in prop::collection::vec("\\[[a-z]{1,5}\\]\r?\n([ \t]?[a-z_]{0,12} ?[=:]? ?[!-~ ]{0,9}\r?\n){0,4}", 0..4),
            place in 0usize..5,
        ) {
            let mut parts: Vec<String> = std::iter::once(before).chain(others).collect();
            let own = "[the one]\naws_access_key_id = A\naws_secret_access_key = B\n".to_owned();
            parts.insert(place.clamp(1, parts.len()), own);
            let text = parts.concat();
            let new = with_key(&text, "the one", "C", "D").unwrap();
            prop_assert_eq!(new.as_str(), text.replace("id = A\naws_secret_access_key = B", "id = C\naws_secret_access_key = D"));
        }
    }
}
