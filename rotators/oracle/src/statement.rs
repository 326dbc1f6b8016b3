//! How Oracle reads names and passwords, and the one statement that changes
//! somebody else's ("SQL Language Reference": Database Object Naming Rules,
//! ALTER USER).

use turnlock_kit::{Fault, Kind, Policy, Secret};
use zeroize::Zeroizing;

/// The longest name since 12.2, in bytes.
const LONGEST_NAME: usize = 128;

/// A user's name as the dictionary holds it: in capitals, unless the record
/// writes it in double quotes.
///
/// # Errors
/// `invalid_input` for what is no name, and for an unquoted one that could be
/// folded in more ways than one.
pub(crate) fn name(login: &str) -> Result<String, Fault> {
    let wrong = |hint: &str| {
        Err(Fault::new(Kind::InvalidInput, format!("{login:?} cannot be the name of an Oracle user")).hint(hint))
    };
    let quoted = login.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let name = match quoted {
        Some(name) => name.to_owned(),
        None => {
            let mut letters = login.chars();
            let is_plain = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
                && letters.all(|one| one.is_ascii_alphanumeric() || "_$#".contains(one));
            if !is_plain {
                return wrong("write it in double quotes, letter for letter as DBA_USERS.USERNAME shows it");
            }
            login.to_ascii_uppercase()
        }
    };
    if name.is_empty() || name.contains(['"', '\0']) || name.len() > LONGEST_NAME {
        return wrong("a name has 1 to 128 bytes, and neither a double quote nor NUL in it");
    }
    Ok(name)
}

/// A name or a password in double quotes, which is how Oracle keeps them as they are.
pub(crate) fn quoted(text: &str) -> Zeroizing<String> {
    let mut quoted = Zeroizing::new(String::with_capacity(text.len() + 2));
    quoted.push('"');
    quoted.push_str(text);
    quoted.push('"');
    quoted
}

/// Whether a password can be said at all.
///
/// # Errors
/// `policy` with the limit it does not keep.
pub(crate) fn is_possible(password: &Secret, max_bytes: u32) -> Result<(), Fault> {
    #[expect(clippy::disallowed_methods, reason = "it is measured, not shown")]
    let text = password.expose();
    let too_long = u32::try_from(text.len()).map_or(true, |bytes| bytes > max_bytes);
    if text.is_empty() || too_long || text.contains(FORBIDDEN) {
        return Err(Fault::new(
            Kind::Policy,
            format!("Oracle takes passwords of 1 to {max_bytes} bytes without double quotes, NUL and line breaks"),
        )
        .hint("generate it, or set `max_bytes` (30 everywhere; up to 1024 where the server's release allows it)"));
    }
    Ok(())
}

/// The rules without special characters that take more than one byte, for a
/// generator counts letters.
///
/// # Errors
/// `invalid_input` where the record's rules leave none.
pub(crate) fn narrowed(mut policy: Policy) -> Result<Policy, Fault> {
    let is_possible = |one: &char| one.is_ascii() && !FORBIDDEN.contains(one);
    policy.symbol_set.retain(|one| is_possible(&one));
    if policy.symbol_set.is_empty() && policy.symbols.minimum() > 0 {
        return Err(Fault::new(
            Kind::InvalidInput,
            "the record's rules ask for special characters that Oracle does not take",
        )
        .hint("change cmdr:rules or --rules: special characters of ASCII but for the double quote"));
    }
    Ok(policy)
}

/// What no password may hold. Oracle forbids the first two; a line break is
/// taken by some of its clients for the end.
pub(crate) const FORBIDDEN: [char; 4] = ['"', '\0', '\r', '\n'];

/// An administrator's reset.
pub(crate) fn reset(name: &str, new: &Secret, unlock: bool) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(256 + 1024));
    text.push_str("ALTER USER ");
    text.push_str(&quoted(name));
    text.push_str(" IDENTIFIED BY ");
    #[expect(clippy::disallowed_methods, reason = "Oracle takes another's password as text only")]
    text.push_str(&quoted(new.expose()));
    if unlock {
        text.push_str(" ACCOUNT UNLOCK");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use turnlock_kit::protocol::Count;

    use super::*;

    /// The statement as the grammar reads it: words, and what stands between quotes.
    fn tokens(statement: &str) -> Vec<String> {
        let mut pieces = statement.split('"');
        let mut tokens = Vec::new();
        while let Some(words) = pieces.next() {
            tokens.extend(words.split_whitespace().map(str::to_owned));
            tokens.extend(pieces.next().map(|text| format!("={text}")));
        }
        tokens
    }

    #[test]
    fn names_are_folded_as_oracle_folds_them() {
        for (login, stored) in [
            ("scott", "SCOTT"),
            ("Scott", "SCOTT"),
            ("\"Scott\"", "Scott"),
            ("c##admin", "C##ADMIN"),
            ("ops$joe_1", "OPS$JOE_1"),
            ("\"my user\"", "my user"),
            ("\"münchen\"", "münchen"),
        ] {
            assert_eq!(name(login).unwrap(), stored);
        }
        for none in ["", "\"\"", "\"", "münchen", "my user", "my-user", "1st", "a\"b", "\"a\"b\"", "\"a\0\"", "joe[hr]"]
        {
            assert_eq!(name(none).unwrap_err().kind, Kind::InvalidInput, "{none:?}");
        }
        assert!(name(&"x".repeat(129)).is_err());
    }

    #[test]
    fn passwords_are_measured_in_bytes() {
        let fits = |text: &str, bytes| is_possible(&Secret::new(text.to_owned()), bytes).is_ok();
        assert!(fits(&"x".repeat(30), 30) && !fits(&"x".repeat(31), 30));
        assert!(fits(&"ß".repeat(15), 30) && !fits(&"ß".repeat(16), 30));
        for wrong in ["", "a\"b", "a\0b", "a\nb", "a\rb"] {
            assert!(!fits(wrong, 30), "{wrong:?}");
        }
    }

    #[test]
    fn a_password_is_made_of_letters_of_one_byte() {
        let with = |symbols: &str, at_least| {
            let symbols =
                Policy { symbol_set: symbols.to_owned(), symbols: Count::AtLeast(at_least), ..Policy::default() };
            narrowed(symbols)
        };
        assert_eq!(with("§#\"€_", 2).unwrap().symbol_set, "#_");
        assert_eq!(with("§€", 0).unwrap().symbol_set, "");
        assert_eq!(with("§\"", 1).unwrap_err().kind, Kind::InvalidInput);
    }

    proptest! {
        #[test]
        fn names_and_passwords_arrive_as_they_are(
            login in "[^\"\0]{1,30}",
            new in "[^\"\0\r\n]{1,30}",
            unlock in any::<bool>(),
        ) {
            let secret = Secret::new(new.clone());
            let name = name(&format!("\"{login}\"")).unwrap();
            let mut wanted: Vec<String> = ["ALTER", "USER"].map(str::to_owned).into();
            wanted.push(format!("={login}"));
            wanted.extend(["IDENTIFIED", "BY"].map(str::to_owned));
            wanted.push(format!("={new}"));
            if unlock {
                wanted.extend(["ACCOUNT", "UNLOCK"].map(str::to_owned));
            }
            prop_assert_eq!(tokens(&reset(&name, &secret, unlock)), wanted);
        }
    }
}
