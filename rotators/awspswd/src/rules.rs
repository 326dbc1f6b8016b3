//! What a password of an IAM user must be: the AWS account's own policy, or
//! what AWS asks where there is none (IAM User Guide: "Set an account password
//! policy for IAM users").

use turnlock_aws::iam::types::PasswordPolicy;
use turnlock_kit::protocol::Count;
use turnlock_kit::{Fault, Kind, PasswordLimits, Policy, Secret};

const LONGEST: u32 = 128;
/// What IAM counts as a symbol.
const SYMBOLS: &str = "!@#$%^&*()_+-=[]{}|'";

/// What the generator is told of every AWS account.
pub(crate) fn limits() -> PasswordLimits {
    PasswordLimits { min_length: None, max_length: Some(LONGEST), forbidden: String::new() }
}

/// What one AWS account asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    shortest: u32,
    /// Capital letters, small letters, digits, symbols.
    demanded: [bool; 4],
    /// Of these four, how many have to be there.
    classes: usize,
    pub(crate) lets_users_change: Option<bool>,
    is_known: bool,
}

impl Default for Rules {
    /// Where an account has no policy.
    fn default() -> Self {
        Self { shortest: 8, demanded: [false; 4], classes: 3, lets_users_change: None, is_known: true }
    }
}

impl From<&PasswordPolicy> for Rules {
    fn from(policy: &PasswordPolicy) -> Self {
        Self {
            shortest: policy.minimum_password_length().and_then(|length| length.try_into().ok()).unwrap_or(6),
            demanded: [
                policy.require_uppercase_characters(),
                policy.require_lowercase_characters(),
                policy.require_numbers(),
                policy.require_symbols(),
            ],
            classes: 1,
            lets_users_change: Some(policy.allow_users_to_change_password()),
            is_known: true,
        }
    }
}

const CLASSES: [&str; 4] = ["capital letters", "small letters", "digits", "symbols"];

impl Rules {
    /// Where the policy may not be read: as much of everything as any asks.
    pub(crate) fn unknown() -> Self {
        Self { classes: 4, is_known: false, ..Self::default() }
    }

    /// The policy with what the account demands.
    ///
    /// # Errors
    /// `invalid_input` where the record's own rules exclude it.
    pub(crate) fn narrow(&self, mut policy: Policy) -> Result<Policy, Fault> {
        let counted: String = policy.symbol_set.chars().filter(|symbol| SYMBOLS.contains(*symbol)).collect();
        policy.symbol_set = if counted.is_empty() { SYMBOLS.to_owned() } else { counted };
        policy.limits.min_length = policy.limits.min_length.max(Some(self.shortest));
        let mut classes = [&mut policy.upper, &mut policy.lower, &mut policy.digits, &mut policy.symbols];
        for ((class, demanded), name) in classes.iter_mut().zip(self.demanded).zip(CLASSES) {
            match **class {
                Count::Exactly(0) if demanded => {
                    let message = format!("the record's rules exclude {name}, which the AWS account demands");
                    return Err(Fault::new(Kind::InvalidInput, message).hint("change cmdr:rules or --rules"));
                }
                Count::AtLeast(0) if demanded => **class = Count::AtLeast(1),
                _ => {}
            }
        }
        let mut sure = classes.iter().filter(|class| class.minimum() > 0).count();
        for class in &mut classes {
            if sure < self.classes && **class == Count::AtLeast(0) {
                **class = Count::AtLeast(1);
                sure += 1;
            }
        }
        if sure < self.classes && self.is_known {
            let message = "the record's rules exclude two of capital letters, small letters, digits and symbols, and AWS \
                           demands three";
            return Err(Fault::new(Kind::InvalidInput, message).hint("change cmdr:rules or --rules"));
        }
        Ok(policy)
    }

    /// Them in words.
    pub(crate) fn told(&self) -> String {
        if !self.is_known {
            return "the account's password policy may not be read (iam:GetAccountPasswordPolicy)".to_owned();
        }
        let shortest = self.shortest;
        let demanded: Vec<&str> =
            CLASSES.into_iter().zip(self.demanded).filter_map(|(name, demanded)| demanded.then_some(name)).collect();
        match (self.classes, demanded.as_slice()) {
            (3, _) => format!("passwords have {shortest} characters or more, of three kinds"),
            (_, []) => format!("passwords have {shortest} characters or more"),
            (_, demanded) => {
                format!("passwords have {shortest} characters or more, {} among them", demanded.join(", "))
            }
        }
    }
}

/// Refuses what no AWS account takes, before it is asked.
pub(crate) fn suits(password: &Secret, login: &str) -> Result<(), Fault> {
    #[expect(clippy::disallowed_methods, reason = "its characters are looked at before it is sent")]
    let text = password.expose();
    let is_taken = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{ff}');
    let length = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    if text.chars().all(is_taken) && (1..=LONGEST).contains(&length) {
        return Ok(());
    }
    let message = format!("AWS takes no such password for \"{login}\": it may have 128 characters of Latin-1 at most");
    Err(Fault::new(Kind::Policy, message).hint("supply another one, or let one be made"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a broken expectation of a test is its failure")]

    use turnlock_kit::SystemRandom;

    use super::*;

    fn any(count: u32) -> Policy {
        let count = Count::AtLeast(count);
        Policy { length: 8, upper: count, lower: count, digits: count, symbols: count, ..Policy::default() }
    }

    #[test]
    fn what_an_account_demands_is_in_every_password() {
        let strict =
            PasswordPolicy::builder().minimum_password_length(31).require_symbols(true).require_numbers(true).build();
        let policy = Rules::from(&strict).narrow(any(0)).unwrap();
        assert_eq!(
            (policy.digits, policy.symbols, policy.upper),
            (Count::AtLeast(1), Count::AtLeast(1), Count::AtLeast(0))
        );
        for _ in 0..50 {
            let drawn = policy.clone().within(&limits()).draw(&mut SystemRandom).unwrap();
            #[expect(clippy::disallowed_methods, reason = "a test")]
            let text = drawn.expose();
            assert_eq!(text.len(), 31);
            assert!(text.contains(|c| SYMBOLS.contains(c)) && text.contains(|c: char| c.is_ascii_digit()), "{text}");
        }
        let without = Policy { digits: Count::Exactly(0), ..any(1) };
        let refused = Rules::from(&strict).narrow(without.clone()).unwrap_err();
        assert!(refused.message.contains("digits"), "{refused:?}");
        assert!(Rules::default().narrow(without.clone()).is_ok(), "three kinds are left");
        assert!(Rules::unknown().narrow(without).is_ok(), "nobody knows better");
        let one = Policy { upper: Count::Exactly(0), digits: Count::Exactly(0), ..any(1) };
        assert_eq!(Rules::default().narrow(one).unwrap_err().kind, Kind::InvalidInput);
        assert_eq!(Rules::default().narrow(any(0)).unwrap().symbols, Count::AtLeast(0));
        assert_eq!(Rules::unknown().narrow(any(0)).unwrap().symbols, Count::AtLeast(1));
    }

    #[test]
    fn only_symbols_that_count_are_drawn() {
        let policy = Policy { symbol_set: "<>!".to_owned(), ..any(1) };
        assert_eq!(Rules::default().narrow(policy).unwrap().symbol_set, "!");
        let policy = Policy { symbol_set: "<>".to_owned(), ..any(1) };
        assert_eq!(Rules::default().narrow(policy).unwrap().symbol_set, SYMBOLS);
    }

    #[test]
    fn what_no_account_takes_is_not_sent() {
        for (password, fits) in
            [("Grüße-1", true), (" a b\t", true), ("\u{1F4A3}", false), ("\u{7}", false), ("", false)]
        {
            assert_eq!(suits(&Secret::new(password.to_owned()), "ann").is_ok(), fits, "{password:?}");
        }
        assert!(suits(&Secret::new("é".repeat(128)), "ann").is_ok());
        assert!(suits(&Secret::new("a".repeat(129)), "ann").is_err());
    }
}
