//! New secrets: the same rules, where Commander keeps them itself.

use orchestrator::{
    generate::candidate,
    secret_policy::{RulesError, Said, Wishes, policy},
};
use serde_json::{Value, json};
use turnlock_protocol::Policy;

use crate::commander::{ask, ask_one};

const SPECIALS: &str = "!@#$%()+;<>=?[]{}^.,";

/// Capital and small letters, digits, special characters.
fn counts(password: &str) -> [usize; 4] {
    let count = |of: fn(char) -> bool| password.chars().filter(|c| of(*c)).count();
    [
        count(|c| c.is_ascii_uppercase()),
        count(|c| c.is_ascii_lowercase()),
        count(|c| c.is_ascii_digit()),
        count(|c| SPECIALS.contains(c)),
    ]
}

fn keeps(password: &str, rules: [i32; 4], length: usize) -> bool {
    password.chars().count() == length
        && counts(password).into_iter().zip(rules).all(|(count, rule)| match rule {
            0 => count == 0,
            rule if rule > 0 => count >= rule.unsigned_abs() as usize,
            rule => count == rule.unsigned_abs() as usize,
        })
}

fn here(rules: Option<&str>, length: Option<u32>) -> Result<Policy, RulesError> {
    let wishes = Wishes {
        rules: rules.map(|text| Said { text, from: "option --rules" }),
        length: length.map(|length| (length, "option --length")),
        ..Wishes::default()
    };
    policy(&wishes).map(|resolved| resolved.policy).map_err(|(error, _)| error)
}

fn drawn(policy: &Policy) -> String {
    serde_json::to_value(candidate(policy, &[]).unwrap()).unwrap().as_str().unwrap().to_owned()
}

#[test]
fn both_keep_the_same_rules_where_they_can_be_kept() {
    let mut questions = Vec::new();
    let mut cases = Vec::new();
    for upper in [-3, 0, 2, 6] {
        for lower in [-4, 3, 6] {
            for digits in [-2, 0, 5] {
                for symbols in [-1, 0, 2] {
                    for length in [None, Some(12_u32), Some(40)] {
                        let rules = [upper, lower, digits, symbols];
                        let sum: u32 = rules.iter().map(|rule: &i32| rule.unsigned_abs()).sum();
                        let wanted = length.unwrap_or(20).max(sum);
                        let exact = rules.iter().all(|rule| *rule <= 0);
                        if exact && wanted > sum {
                            continue;
                        }
                        let text = rules.map(|rule| rule.to_string()).join(",");
                        questions.push(json!({"ask": "generate", "rules": text, "length": length, "count": 3}));
                        cases.push((rules, text, length, wanted as usize));
                    }
                }
            }
        }
    }
    assert!(cases.len() > 150, "{}", cases.len());
    for ((rules, text, length, wanted), answer) in cases.iter().zip(ask(&questions)) {
        let policy = here(Some(text.as_str()), *length).unwrap();
        for theirs in answer["passwords"].as_array().unwrap_or_else(|| panic!("{text} {length:?}: {answer}")) {
            assert!(keeps(theirs.as_str().unwrap(), *rules, *wanted), "Commander, {text} {length:?}: {theirs}");
        }
        for _ in 0..3 {
            let ours = drawn(&policy);
            assert!(keeps(&ours, *rules, *wanted), "Turnlock, {text} {length:?}: {ours}");
            assert!(ours.chars().next().is_some_and(char::is_alphanumeric), "{ours}");
        }
    }
}

#[test]
fn five_numbers_begin_with_the_length_for_both() {
    let questions = [
        json!({"ask": "generate", "rules": "30, 2, 2, 2, 2", "count": 1}),
        json!({"ask": "generate", "rules": "30,2,2,2,2", "length": 24, "count": 1}),
        json!({"ask": "generate", "rules": "4,6,3,8", "count": 1}),
    ];
    let lengths: Vec<usize> =
        ask(&questions).iter().map(|answer| answer["passwords"][0].as_str().unwrap().chars().count()).collect();
    assert_eq!(lengths, [30, 24, 21]);
    let length = |rules, length| here(Some(rules), length).unwrap().length;
    assert_eq!([length("30, 2, 2, 2, 2", None), length("30,2,2,2,2", Some(24)), length("4,6,3,8", None)], [30, 24, 21]);
}

#[test]
fn what_commander_breaks_is_kept_here() {
    // Some defaults of Commander have no digit at all; ours always have one of each.
    let theirs = ask_one(json!({"ask": "generate", "count": 2000}));
    let theirs: Vec<&str> = theirs["passwords"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(theirs.iter().any(|password| counts(password)[2] == 0), "7 % of 2000");
    let policy = here(None, None).unwrap();
    for _ in 0..2000 {
        assert!(counts(&drawn(&policy)).iter().all(|count| *count > 0));
    }

    // Some of them it refuses itself: a database's set, and a shell's.
    let validate = |plugin: &str| {
        let questions: Vec<Value> = theirs
            .iter()
            .take(400)
            .map(|password| json!({"ask": "validate", "plugin": plugin, "password": password}))
            .collect();
        ask(&questions).iter().filter(|answer| answer["accepted"] == false).count()
    };
    assert!(validate("postgresql") > 40, "22 % of 400");
    assert!(validate("ssh") > 200, "84 % of 400");

    // What a shell takes for its own is let through to `net user`, though not to `passwd`.
    let shell =
        ["windows", "ssh"].map(|plugin| json!({"ask": "validate", "plugin": plugin, "password": "Good&Calc(1)"}));
    let accepted: Vec<Value> = ask(&shell).iter().map(|answer| answer["accepted"].clone()).collect();
    assert_eq!(accepted, [true, false]);

    // "Exactly" becomes "about" when the length is greater; here that is an error.
    let widened = ask_one(json!({"ask": "generate", "rules": "-4,-6,-3,-2", "length": 30, "count": 1}));
    assert!(!keeps(widened["passwords"][0].as_str().unwrap(), [-4, -6, -3, -2], 15));
    assert!(matches!(here(Some("-4,-6,-3,-2"), Some(30)), Err(RulesError::ExactTooShort { sum: 15, length: 30 })));

    // Nothing allowed is an exception nobody catches; here it is an error.
    let crashed = ask_one(json!({"ask": "generate", "rules": "0,0,0,0"}));
    assert_eq!(crashed["crashed"], "Exception");
    assert_eq!(here(Some("0,0,0,0"), None), Err(RulesError::NothingAllowed));

    // Rules that are none become the default without an error; here they are one.
    let ignored = ask_one(json!({"ask": "generate", "rules": "4,6", "count": 1}));
    assert_eq!(ignored["passwords"][0].as_str().unwrap().chars().count(), 20);
    assert_eq!(here(Some("4,6"), None), Err(RulesError::Parts(2)));

    // A first character that may not be one makes the password longer.
    let adjusted = ask_one(json!({"ask": "adjust", "password": "!@#$"}));
    assert_eq!(adjusted["password"], "a!@#$");
}
