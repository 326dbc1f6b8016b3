//! What a new secret shall look like, from rules, a record's complexity and a
//! length: `--rules` before `cmdr:rules` before complexity, `--length` before
//! `cmdr:length` before the length those name before 20.

use std::fmt::Write as _;

use serde_json::Value;
use turnlock_protocol::{Count, Policy};

/// The greatest length or count that can be asked for.
pub const LONGEST: u32 = 4096;

/// A text of the record or the command line and where it stands.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// The text.
    pub text: &'a str,
    /// "option --rules", "custom field 'cmdr:rules'", …
    pub from: &'a str,
}

/// Everything that may be said about a new secret, most binding first.
#[derive(Debug, Default)]
pub struct Wishes<'a> {
    /// Rules: of the command line, or of the record.
    pub rules: Option<Said<'a>>,
    /// The complexity on the record's password field, and that field's name.
    pub complexity: Option<(&'a Value, &'a str)>,
    /// Length: of the command line, or of the record.
    pub length: Option<(u32, &'a str)>,
}

/// A policy and the places it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The policy, not yet narrowed by a target's limits.
    pub policy: Policy,
    /// Where the classes came from.
    pub rules_from: String,
    /// Where the length came from.
    pub length_from: String,
}

/// What is wrong with a rule. Names the part, never its text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Neither four nor five parts.
    #[error("rules are 4 numbers (capital, small, digits, special) or 5 (length first), here are {0}")]
    Parts(usize),
    /// A part that is no whole number.
    #[error("the {0} is not a whole number")]
    NotANumber(&'static str),
    /// A part beyond all sense.
    #[error("the {0} is greater than {LONGEST}")]
    TooGreat(&'static str),
    /// A length below zero.
    #[error("the length is negative")]
    NegativeLength,
    /// Every class is set to none.
    #[error("all four classes of characters are set to none")]
    NothingAllowed,
    /// All counts are exact and add up to less than the length.
    #[error("all counts are exact and add up to {sum}, but the length is {length}")]
    ExactTooShort {
        /// The sum of the counts.
        sum: u32,
        /// The length asked for.
        length: u32,
    },
    /// A complexity that is no JSON object.
    #[error("the complexity is not a JSON object")]
    NotAnObject,
    /// Special characters that cannot be such.
    #[error("the specialChars hold a letter, a digit, a space or a control character")]
    SpecialCharacters,
}

impl RulesError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Parts(_) | Self::NotANumber(_) | Self::TooGreat(_) => {
                "write for example 4,6,3,2 or 20,4,6,3,2; 0 means none, -3 means exactly 3"
            }
            Self::NegativeLength => "give a length of 1 or more",
            Self::NothingAllowed => "give at least one class a number other than 0",
            Self::ExactTooShort { .. } => "set the length to that sum, or let one class be \"at least\"",
            Self::NotAnObject => "write for example {\"length\":20,\"caps\":2,\"lower\":2,\"digits\":2,\"special\":2}",
            Self::SpecialCharacters => "list punctuation only",
        }
    }
}

const CLASSES: [&str; 4] =
    ["number of capital letters", "number of small letters", "number of digits", "number of special characters"];

/// The policy everything that was said amounts to. The error's second half is
/// the place that is wrong.
pub fn policy(wishes: &Wishes<'_>) -> Result<Resolved, (RulesError, String)> {
    let at = |from: &str| {
        let from = from.to_owned();
        move |error| (error, from)
    };
    let mut policy = Policy::default();
    let mut named = None;
    let mut rules_from = "default".to_owned();
    if let Some(said) = wishes.rules {
        named = rules(said.text, &mut policy).map_err(at(said.from))?;
        rules_from = said.from.to_owned();
    } else if let Some((json, from)) = wishes.complexity {
        named = complexity(json, &mut policy).map_err(at(from))?;
        rules_from = from.to_owned();
    }
    let (length, length_from) = match (wishes.length, named) {
        (Some((length, from)), _) => (length, from.to_owned()),
        (None, Some(length)) => (length, rules_from.clone()),
        (None, None) => (policy.length, "default".to_owned()),
    };
    if length > LONGEST {
        return Err((RulesError::TooGreat("length"), length_from));
    }
    let counts = [policy.upper, policy.lower, policy.digits, policy.symbols];
    if counts.iter().all(|count| *count == Count::Exactly(0)) {
        return Err((RulesError::NothingAllowed, rules_from));
    }
    let sum: u32 = counts.iter().map(|count| count.minimum()).sum();
    if counts.iter().all(|count| matches!(count, Count::Exactly(_))) && sum < length {
        // Without a length of anybody's own, exact counts say the length.
        let asked = wishes.length.is_some() || named.is_some();
        if asked {
            return Err((RulesError::ExactTooShort { sum, length }, length_from));
        }
        policy.length = sum;
        return Ok(Resolved { policy, length_from: rules_from.clone(), rules_from });
    }
    policy.length = length.max(sum);
    Ok(Resolved { policy, rules_from, length_from })
}

/// A policy in one line for people.
pub fn describe(policy: &Policy) -> String {
    let mut text = format!("{} characters", policy.length);
    let classes =
        [(policy.upper, "capital"), (policy.lower, "small"), (policy.digits, "digits"), (policy.symbols, "special")];
    for (count, name) in classes {
        // Writing to a String cannot fail.
        let _ = match count {
            Count::Exactly(0) => write!(text, ", no {name}"),
            Count::Exactly(n) => write!(text, ", exactly {n} {name}"),
            Count::AtLeast(n) => write!(text, ", at least {n} {name}"),
        };
    }
    text
}

/// Reads `upper,lower,digits,symbols` or the same with the length before it;
/// returns that length.
fn rules(text: &str, policy: &mut Policy) -> Result<Option<u32>, RulesError> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let (length, classes) = match parts.as_slice() {
        [length, classes @ ..] if classes.len() == 4 => (Some(*length), classes),
        classes if classes.len() == 4 => (None, classes),
        _ => return Err(RulesError::Parts(parts.len())),
    };
    let length = match length.map(|text| number(text, "length")).transpose()? {
        Some(n) if n < 0 => return Err(RulesError::NegativeLength),
        Some(n) => Some(n.unsigned_abs()),
        None => None,
    };
    let slots = [&mut policy.upper, &mut policy.lower, &mut policy.digits, &mut policy.symbols];
    for ((slot, text), name) in slots.into_iter().zip(classes).zip(CLASSES) {
        *slot = count(number(text, name)?);
    }
    Ok(length)
}

fn number(text: &str, name: &'static str) -> Result<i32, RulesError> {
    let number: i64 = text.parse().map_err(|_| RulesError::NotANumber(name))?;
    within(number, name)
}

fn within(number: i64, name: &'static str) -> Result<i32, RulesError> {
    match i32::try_from(number) {
        Ok(n) if n.unsigned_abs() <= LONGEST => Ok(n),
        _ => Err(RulesError::TooGreat(name)),
    }
}

fn count(number: i32) -> Count {
    match number {
        n if n > 0 => Count::AtLeast(n.unsigned_abs()),
        n => Count::Exactly(n.unsigned_abs()),
    }
}

/// Reads a record's complexity; returns its length.
fn complexity(json: &Value, policy: &mut Policy) -> Result<Option<u32>, RulesError> {
    let parsed;
    let object = match json {
        Value::Object(object) => object,
        Value::String(text) => {
            parsed = serde_json::from_str::<Value>(text).map_err(|_| RulesError::NotAnObject)?;
            parsed.as_object().ok_or(RulesError::NotAnObject)?
        }
        _ => return Err(RulesError::NotAnObject),
    };
    let read = |names: &[&str], what: &'static str| -> Result<Option<i32>, RulesError> {
        match names.iter().find_map(|name| object.get(*name)) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
            Some(Value::String(text)) => number(text.trim(), what).map(Some),
            Some(Value::Number(n)) => match n.as_i64() {
                Some(n) => within(n, what).map(Some),
                None => Err(RulesError::NotANumber(what)),
            },
            Some(_) => Err(RulesError::NotANumber(what)),
        }
    };
    let names: [&[&str]; 4] = [&["caps", "upper"], &["lowercase", "lower"], &["digits"], &["special"]];
    let slots = [&mut policy.upper, &mut policy.lower, &mut policy.digits, &mut policy.symbols];
    for ((slot, names), what) in slots.into_iter().zip(names).zip(CLASSES) {
        if let Some(number) = read(names, what)? {
            *slot = count(number);
        }
    }
    if let Some(Value::String(text)) = object.get("specialChars").filter(|text| *text != "") {
        if text.chars().any(|c| c.is_alphanumeric() || c.is_whitespace() || c.is_control()) {
            return Err(RulesError::SpecialCharacters);
        }
        let mut set = String::new();
        set.extend(
            text.chars().enumerate().filter(|(at, c)| text.chars().position(|d| d == *c) == Some(*at)).map(|(_, c)| c),
        );
        policy.symbol_set = set;
    }
    match read(&["length"], "length")? {
        Some(n) if n < 0 => Err(RulesError::NegativeLength),
        // Keeper writes 0 for "not set".
        Some(0) | None => Ok(None),
        Some(n) => Ok(Some(n.unsigned_abs())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use turnlock_protocol::Count::{AtLeast, Exactly};

    use super::*;

    fn of_rules(text: &str, length: Option<u32>) -> Result<Policy, RulesError> {
        let wishes = Wishes {
            rules: Some(Said { text, from: "rules" }),
            length: length.map(|length| (length, "length")),
            ..Wishes::default()
        };
        policy(&wishes).map(|resolved| resolved.policy).map_err(|(error, _)| error)
    }

    fn of_complexity(json: Value) -> Result<Policy, RulesError> {
        let wishes = Wishes { complexity: Some((&json, "complexity")), ..Wishes::default() };
        policy(&wishes).map(|resolved| resolved.policy).map_err(|(error, _)| error)
    }

    fn counts(policy: &Policy) -> [Count; 4] {
        [policy.upper, policy.lower, policy.digits, policy.symbols]
    }

    #[test]
    fn without_a_wish_one_of_each_class_in_twenty() {
        let resolved = policy(&Wishes::default()).unwrap();
        assert_eq!(resolved.policy, Policy::default());
        assert_eq!((resolved.policy.length, resolved.policy.digits), (20, AtLeast(1)));
        assert_eq!(resolved.rules_from, "default");
    }

    #[test]
    fn four_numbers_are_counts_and_five_have_the_length_first() {
        let policy = of_rules(" 4, 6,3 ,2 ", None).unwrap();
        assert_eq!((policy.length, counts(&policy)), (20, [AtLeast(4), AtLeast(6), AtLeast(3), AtLeast(2)]));
        let policy = of_rules("32,0,-2,3,+1", None).unwrap();
        assert_eq!((policy.length, counts(&policy)), (32, [Exactly(0), Exactly(2), AtLeast(3), AtLeast(1)]));
    }

    #[test]
    fn the_length_is_the_larger_of_the_asked_one_and_the_sum() {
        assert_eq!(of_rules("4,6,3,8", None).unwrap().length, 21);
        assert_eq!(of_rules("4,6,3,8", Some(12)).unwrap().length, 21);
        assert_eq!(of_rules("40,4,6,3,8", None).unwrap().length, 40);
        assert_eq!(of_rules("40,4,6,3,8", Some(30)).unwrap().length, 30, "the asked length before the rules' own");
        assert_eq!(of_rules("1,1,1,1", Some(0)).unwrap().length, 4);
    }

    #[test]
    fn exact_counts_that_fall_short_of_an_asked_length_are_an_error() {
        let error = RulesError::ExactTooShort { sum: 15, length: 20 };
        assert_eq!(of_rules("20,-4,-6,-3,-2", None).unwrap_err(), error);
        assert_eq!(of_rules("-4,-6,-3,-2", Some(20)).unwrap_err(), error);
        assert_eq!(of_rules("-4,-6,-3,-2", None).unwrap().length, 15, "nobody asked for another length");
        assert_eq!(of_rules("-4,-6,-3,-2", Some(12)).unwrap().length, 15);
        assert_eq!(of_rules("-4,-6,-3,2", Some(20)).unwrap().length, 20);
    }

    #[test]
    fn all_zero_is_an_error() {
        assert_eq!(of_rules("0,0,0,0", None).unwrap_err(), RulesError::NothingAllowed);
        assert_eq!(
            of_complexity(json!({ "caps": 0, "lower": 0, "digits": 0, "special": 0 })).unwrap_err(),
            RulesError::NothingAllowed
        );
    }

    #[test]
    fn garbage_is_an_error_that_names_the_part_and_not_its_text() {
        let cases = [
            ("", RulesError::Parts(1)),
            ("1,2,3", RulesError::Parts(3)),
            ("1,2,3,4,5,6", RulesError::Parts(6)),
            ("1,CANARY,3,4", RulesError::NotANumber("number of small letters")),
            ("x,1,2,3,4", RulesError::NotANumber("length")),
            ("1,2,3,", RulesError::NotANumber("number of special characters")),
            ("1,2,3.5,4", RulesError::NotANumber("number of digits")),
            ("-8,1,2,3,4", RulesError::NegativeLength),
            ("1,2,99999999999,4", RulesError::TooGreat("number of digits")),
            ("1,2,-5000,4", RulesError::TooGreat("number of digits")),
            ("1,2,3,99999999999999999999", RulesError::NotANumber("number of special characters")),
        ];
        for (text, wanted) in cases {
            let error = of_rules(text, None).unwrap_err();
            assert_eq!(error, wanted, "{text}");
            assert!(!error.to_string().contains("CANARY") && !error.hint().is_empty());
        }
        assert_eq!(of_rules("1,1,1,1", Some(5000)).unwrap_err(), RulesError::TooGreat("length"));
    }

    #[test]
    fn complexity_is_read_by_either_name_of_each_part() {
        let policy =
            of_complexity(json!({ "length": 32, "caps": 5, "lowercase": 4, "digits": 3, "special": 2 })).unwrap();
        assert_eq!((policy.length, counts(&policy)), (32, [AtLeast(5), AtLeast(4), AtLeast(3), AtLeast(2)]));
        let policy = of_complexity(json!({ "upper": "5", "lower": 4, "digits": null, "specialChars": "#!#" })).unwrap();
        assert_eq!((policy.length, counts(&policy)), (20, [AtLeast(5), AtLeast(4), AtLeast(1), AtLeast(1)]));
        assert_eq!(policy.symbol_set, "#!");
        let policy = of_complexity(json!("{\"length\":24,\"special\":0}")).unwrap();
        assert_eq!((policy.length, policy.symbols), (24, Exactly(0)));
        assert_eq!(of_complexity(json!({ "length": 0 })).unwrap().length, 20);
        assert_eq!(of_complexity(json!([1])).unwrap_err(), RulesError::NotAnObject);
        assert_eq!(of_complexity(json!("CANARY")).unwrap_err(), RulesError::NotAnObject);
        assert_eq!(
            of_complexity(json!({ "caps": [] })).unwrap_err(),
            RulesError::NotANumber("number of capital letters")
        );
        assert_eq!(of_complexity(json!({ "specialChars": "#a" })).unwrap_err(), RulesError::SpecialCharacters);
    }

    #[test]
    fn rules_win_over_complexity_and_an_asked_length_over_both() {
        let complexity = json!({ "length": 32, "caps": 9 });
        let mut wishes = Wishes {
            rules: Some(Said { text: "24,1,1,1,1", from: "cmdr:rules" }),
            complexity: Some((&complexity, "complexity")),
            length: Some((28, "--length")),
        };
        let resolved = policy(&wishes).unwrap();
        assert_eq!((resolved.policy.length, resolved.policy.upper), (28, AtLeast(1)));
        assert_eq!((resolved.rules_from.as_str(), resolved.length_from.as_str()), ("cmdr:rules", "--length"));
        wishes.length = None;
        assert_eq!(policy(&wishes).unwrap().policy.length, 24);
        wishes.rules = None;
        let resolved = policy(&wishes).unwrap();
        assert_eq!((resolved.policy.length, resolved.policy.upper), (32, AtLeast(9)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9, x]{0,20}|.{0,20}", length in proptest::option::of(any::<u32>())) {
            if let Ok(policy) = of_rules(&text, length) {
                prop_assert!(policy.length <= 4 * LONGEST);
                let _ = describe(&policy);
            }
        }
    }
}
