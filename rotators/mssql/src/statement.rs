//! The statements, and how Transact-SQL wants names and literals written
//! (Microsoft: "Database identifiers", "Constants").

use turnlock_kit::{Fault, Kind, Secret};
use zeroize::Zeroizing;

use crate::Account;

/// The longest `sysname` and the longest password, in UTF-16 units.
pub(crate) const LONGEST: usize = 128;

/// A name in brackets.
///
/// # Errors
/// `invalid_input` for what no name can be.
pub(crate) fn name(text: &str) -> Result<String, Fault> {
    if text.is_empty() || text.contains('\0') || text.encode_utf16().count() > LONGEST {
        return Err(Fault::new(Kind::InvalidInput, format!("{text:?} cannot be the name of a login"))
            .hint(format!("a name has 1 to {LONGEST} characters and no NUL")));
    }
    Ok(format!("[{}]", text.replace(']', "]]")))
}

/// A string literal. A backslash before a line break would swallow both
/// (Microsoft: "Backslash (Line Continuation)"), so it is never followed by one.
pub(crate) fn literal(text: &str) -> Zeroizing<String> {
    let mut quoted = Zeroizing::new(String::with_capacity(2 * text.len() + 3));
    quoted.push_str("N'");
    for one in text.chars() {
        if one == '\'' {
            quoted.push('\'');
        }
        quoted.push(one);
    }
    quoted.push('\'');
    quoted
}

/// The one change. The account itself proves its old password once more, an
/// admin need not.
pub(crate) fn change(account: &Account, old: Option<&Secret>, new: &Secret) -> Result<Zeroizing<String>, Fault> {
    let what = if account.contained { "USER" } else { "LOGIN" };
    let mut text = Zeroizing::new(String::with_capacity(1024));
    text.push_str(&format!("ALTER {what} {} WITH PASSWORD = ", name(&account.login)?));
    #[expect(clippy::disallowed_methods, reason = "SQL Server takes passwords as literals only, over TLS")]
    {
        text.push_str(&literal(new.expose()));
        if let Some(old) = old {
            text.push_str(" OLD_PASSWORD = ");
            text.push_str(&literal(old.expose()));
        }
    }
    if account.must_change {
        text.push_str(" MUST_CHANGE");
    }
    if account.unlock {
        text.push_str(" UNLOCK");
    }
    Ok(text)
}

/// Asks what decides a change, in one row of texts.
pub(crate) fn facts(account: &Account) -> String {
    let login = literal(&account.login);
    let property = |name: &str| format!("CONVERT(nvarchar(40), LOGINPROPERTY({}, '{name}'))", *login);
    let right = match account.contained {
        true => "HAS_PERMS_BY_NAME(DB_NAME(), 'DATABASE', 'ALTER ANY USER')",
        false => "HAS_PERMS_BY_NAME(NULL, NULL, 'ALTER ANY LOGIN')",
    };
    format!(
        "SELECT CONVERT(nvarchar(128), SERVERPROPERTY('ProductVersion')), CONVERT(nvarchar(40), {right}), {}, {}, {}",
        property("IsLocked"),
        property("IsExpired"),
        property("DaysUntilExpiration"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sqlparser::dialect::MsSqlDialect;
    use sqlparser::tokenizer::{Token, Tokenizer};

    use super::*;

    fn account(login: &str) -> Account {
        Account { login: login.to_owned(), ..Account::default() }
    }

    /// The statement as somebody else's tokenizer reads it.
    fn tokens(text: &str) -> Vec<Token> {
        let tokens = Tokenizer::new(&MsSqlDialect {}, text).tokenize().unwrap();
        tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect()
    }

    fn read(statement: &str) -> (String, Vec<String>) {
        let tokens = tokens(statement);
        let [
            Token::Word(alter),
            Token::Word(login),
            Token::Word(name),
            Token::Word(with),
            Token::Word(_),
            Token::Eq,
            rest @ ..,
        ] = tokens.as_slice()
        else {
            panic!("{statement}: {tokens:?}");
        };
        assert_eq!((alter.value.as_str(), login.value.as_str(), with.value.as_str()), ("ALTER", "LOGIN", "WITH"));
        assert_eq!(name.quote_style, Some('['));
        let literals = rest.iter().filter_map(|token| match token {
            Token::NationalStringLiteral(text) => Some(text.clone()),
            _ => None,
        });
        (name.value.clone(), literals.collect())
    }

    #[test]
    fn the_words_are_the_documented_ones() {
        let (old, new) = (Secret::new("o'ld".to_owned()), Secret::new("n]ew".to_owned()));
        let own = change(&account("a]b"), Some(&old), &new).unwrap();
        assert_eq!(*own, "ALTER LOGIN [a]]b] WITH PASSWORD = N'n]ew' OLD_PASSWORD = N'o''ld'");
        let reset = Account { unlock: true, must_change: true, contained: true, ..account("app") };
        let reset = change(&reset, None, &new).unwrap();
        assert_eq!(*reset, "ALTER USER [app] WITH PASSWORD = N'n]ew' MUST_CHANGE UNLOCK");
        for none in ["", "a\0b", &"x".repeat(129)] {
            assert_eq!(name(none).unwrap_err().kind, Kind::InvalidInput);
        }
    }

    proptest! {
        #[test]
        fn names_and_passwords_arrive_as_they_are(
            login in "[\\]\\[' \";-]{1,20}|[^\0]{1,40}",
            old in "[\\]\\[' \";\\\\-]{1,20}|[^\0\r\n]{1,40}",
            new in "[\\]\\[' \";\\\\-]{1,20}|[^\0\r\n]{1,40}",
        ) {
            let secret = |text: &str| Secret::new(text.to_owned());
            let statement = change(&account(&login), Some(&secret(&old)), &secret(&new)).unwrap();
            prop_assert_eq!(read(&statement), (login, vec![new, old]));
        }
    }
}
