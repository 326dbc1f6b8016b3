//! What a password of Entra ID must be (Microsoft: "Password policies and
//! account restrictions in Microsoft Entra ID").

use turnlock_kit::protocol::Count;
use turnlock_kit::{Fault, Kind, PasswordLimits, Policy, Secret};

const SHORTEST: u32 = 8;
const LONGEST: u32 = 256;
/// Of capital letters, small letters, digits and symbols.
const CLASSES: usize = 3;
/// Shorter names are in any password.
const SHORTEST_NAME: usize = 3;

/// What the generator is told.
pub(crate) fn limits() -> PasswordLimits {
    PasswordLimits { min_length: Some(SHORTEST), max_length: Some(LONGEST), forbidden: String::new() }
}

/// The policy with as many classes as Entra ID demands.
///
/// # Errors
/// `invalid_input` where the record's own rules exclude two of them.
pub(crate) fn narrowed(mut policy: Policy) -> Result<Policy, Fault> {
    let mut classes = [&mut policy.upper, &mut policy.lower, &mut policy.digits, &mut policy.symbols];
    let mut sure = classes.iter().filter(|class| class.minimum() > 0).count();
    for class in &mut classes {
        if sure < CLASSES && **class == Count::AtLeast(0) {
            **class = Count::AtLeast(1);
            sure += 1;
        }
    }
    if sure < CLASSES {
        return Err(Fault::new(
            Kind::InvalidInput,
            "the record's rules exclude two of capital letters, small letters, digits and symbols, and Entra ID demands three",
        )
        .hint("change cmdr:rules or --rules"));
    }
    Ok(policy)
}

/// Refuses what Entra ID would refuse, before it is asked.
pub(crate) fn suits(password: &Secret, login: &str) -> Result<(), Fault> {
    #[expect(clippy::disallowed_methods, reason = "its rules are checked before it is sent")]
    let text = password.expose();
    let length = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    let has = |is: fn(&u8) -> bool| usize::from(text.as_bytes().iter().any(is));
    let classes = has(u8::is_ascii_uppercase)
        + has(u8::is_ascii_lowercase)
        + has(u8::is_ascii_digit)
        + has(|byte| byte.is_ascii_punctuation() || *byte == b' ');
    let name = login.split('@').next().unwrap_or_default().to_ascii_lowercase();
    let rule = if !(SHORTEST..=LONGEST).contains(&length) {
        "it must have 8 to 256 characters"
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        "it may hold letters and digits of ASCII, its symbols and blanks only"
    } else if classes < CLASSES {
        "it must hold three of capital letters, small letters, digits and symbols"
    } else if name.len() >= SHORTEST_NAME && text.to_ascii_lowercase().contains(&name) {
        "it must not contain the user's name"
    } else {
        return Ok(());
    };
    Err(Fault::new(Kind::Policy, format!("Entra ID takes no such password for \"{login}\": {rule}"))
        .hint("supply another one, or let one be made"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use turnlock_kit::SystemRandom;

    use super::*;

    fn told(password: &str, login: &str) -> String {
        suits(&Secret::new(password.to_owned()), login).err().map(|fault| fault.message).unwrap_or_default()
    }

    #[test]
    fn every_rule_is_told_apart() {
        for (password, rule) in [
            ("Right-Enough-1", ""),
            ("right enough 1", ""),
            ("Aa1-567", "8 to 256"),
            ("Größe-Und-Länge-1", "ASCII"),
            ("Tab\tIs-None-1", "ASCII"),
            ("onlysmall1", "three of"),
            ("xAlice.bx1-", "user's name"),
        ] {
            let message = told(password, "alice.b@contoso.example");
            assert!(message.contains(rule) && message.is_empty() == rule.is_empty(), "{password}: {message}");
        }
        assert!(told(&format!("Aa1{}", "-".repeat(254)), "x").contains("8 to 256"));
        assert_eq!(told(&format!("Aa1{}", "-".repeat(253)), "x"), "");
        assert_eq!(told("Ab-12345", "ab@contoso.example"), "", "too short a name is in any password");
    }

    proptest! {
        #[test]
        fn nothing_drawn_is_refused(upper in 0u32..3, lower in 0u32..3, digits in 0u32..3, symbols in 0u32..3, length in 1u32..40) {
            let policy = Policy {
                length,
                upper: Count::AtLeast(upper),
                lower: Count::AtLeast(lower),
                digits: Count::AtLeast(digits),
                symbols: Count::AtLeast(symbols),
                ..Policy::default()
            };
            let drawn = narrowed(policy).unwrap().within(&limits()).draw(&mut SystemRandom).unwrap();
            prop_assert!(suits(&drawn, "").is_ok());
        }
    }

    #[test]
    fn rules_that_exclude_two_classes_are_refused() {
        let policy = Policy { digits: Count::Exactly(0), symbols: Count::Exactly(0), ..Policy::default() };
        assert_eq!(narrowed(policy).unwrap_err().kind, Kind::InvalidInput);
    }
}
