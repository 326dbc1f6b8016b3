#![expect(clippy::disallowed_methods, reason = "the tests look at what was drawn")]

use turnlock_protocol::{Count, PasswordLimits};

use super::*;

/// Fast and seeded (SplitMix64): a million secrets, the same ones every time.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }
}

impl RandomSource for Seeded {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), PolicyError> {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        Ok(())
    }
}

const SYMBOLS: &str = "!@#$%()+;<>=?[]{}^.,";

fn any_policy(random: &mut Seeded) -> Policy {
    let count = |random: &mut Seeded| match random.below(8) {
        0 | 1 => Count::Exactly(0),
        2 => Count::Exactly(1 + random.below(8)),
        3 => Count::AtLeast(0),
        _ => Count::AtLeast(1 + random.below(6)),
    };
    let [upper, lower, digits, symbols] = [(); 4].map(|()| count(random));
    let symbol_set = match random.below(4) {
        0 => "-_#aZ9-é".to_owned(),
        1 => "#".to_owned(),
        _ => SYMBOLS.to_owned(),
    };
    let forbidden: String = match random.below(3) {
        0 => String::new(),
        1 => "\"'\\&|<>^`$;".to_owned(),
        _ => (0..random.below(12)).filter_map(|_| char::from_u32(33 + random.below(94))).collect(),
    };
    let limits = PasswordLimits {
        min_length: (random.below(4) == 0).then(|| random.below(24)),
        max_length: (random.below(3) == 0).then(|| 8 + random.below(24)),
        forbidden,
    };
    Policy { length: random.below(32), upper, lower, digits, symbols, symbol_set, limits: PasswordLimits::default() }
        .within(&limits)
}

/// What the policy says, counted without its own code.
fn keeps(policy: &Policy, text: &str) -> bool {
    let length = text.chars().count() as u32;
    let count = |class: fn(&char) -> bool| text.chars().filter(class).count() as u32;
    let symbol = |c: &char| !c.is_ascii_alphanumeric();
    let counts = [
        (policy.upper, count(char::is_ascii_uppercase)),
        (policy.lower, count(char::is_ascii_lowercase)),
        (policy.digits, count(char::is_ascii_digit)),
        (policy.symbols, count(symbol)),
    ];
    let sum: u32 = counts.iter().map(|(wanted, _)| wanted.minimum()).sum();
    let wanted_length = policy.length.max(sum).max(policy.limits.min_length.unwrap_or(0));
    let counted = counts.iter().all(|(wanted, found)| match wanted {
        Count::AtLeast(n) => found >= n,
        Count::Exactly(n) => found == n,
    });
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric())
        || !text.chars().any(|c| c.is_ascii_alphanumeric());
    counted
        && first
        && length == wanted_length
        && policy.limits.max_length.is_none_or(|most| length <= most)
        && !text.chars().any(|c| policy.limits.forbidden.contains(c))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || policy.symbol_set.contains(c))
}

#[test]
fn a_million_secrets_keep_their_policies() {
    let halves = [2026, 2027].map(|seed| std::thread::spawn(move || half_a_million(seed)));
    let impossible: u32 = halves.into_iter().map(|half| half.join().unwrap()).sum();
    assert!(impossible > 100, "the policies that cannot be kept were among them: {impossible}");
}

fn half_a_million(seed: u64) -> u32 {
    let mut random = Seeded(seed);
    let (mut drawn, mut impossible) = (0, 0);
    while drawn < 500_000 {
        let policy = any_policy(&mut random);
        for _ in 0..200 {
            match policy.draw(&mut random) {
                Ok(secret) => {
                    drawn += 1;
                    assert!(keeps(&policy, secret.expose()), "{policy:?}");
                    assert_eq!(policy.validate(&secret), Ok(()), "{policy:?}");
                }
                Err(_) => {
                    impossible += 1;
                    break;
                }
            }
        }
    }
    impossible
}

#[test]
fn validation_refuses_what_breaks_a_rule() {
    // Take a valid secret and damage it in one way: the rule is named.
    let mut random = Seeded(7);
    let mut refused = 0;
    for _ in 0..20_000 {
        let policy = any_policy(&mut random);
        let Ok(secret) = policy.draw(&mut random) else {
            continue;
        };
        let mut text: Vec<char> = secret.expose().chars().collect();
        let at = random.below(text.len() as u32) as usize;
        match random.below(3) {
            0 => text[at] = char::from_u32(33 + random.below(94)).unwrap(),
            1 => drop(text.remove(at)),
            _ => text.insert(at, char::from_u32(33 + random.below(94)).unwrap()),
        }
        let damaged: String = text.into_iter().collect();
        let length = damaged.chars().count() as u32;
        let count = |class: fn(&char) -> bool| damaged.chars().filter(class).count() as u32;
        let admitted = [
            (policy.upper, count(char::is_ascii_uppercase)),
            (policy.lower, count(char::is_ascii_lowercase)),
            (policy.digits, count(char::is_ascii_digit)),
            (policy.symbols, count(|c| !c.is_ascii_alphanumeric())),
        ]
        .iter()
        .all(|(wanted, found)| match wanted {
            Count::AtLeast(n) => found >= n,
            Count::Exactly(n) => found == n,
        });
        let good = length > 0
            && admitted
            && policy.limits.min_length.is_none_or(|least| length >= least)
            && policy.limits.max_length.is_none_or(|most| length <= most)
            && !damaged.chars().any(|c| policy.limits.forbidden.contains(c));
        let verdict = policy.validate(&Secret::new(damaged));
        assert_eq!(verdict.is_ok(), good, "{policy:?} {verdict:?}");
        refused += u32::from(!good);
    }
    assert!(refused > 1000);
}

/// Chi-square of observed counts against their expectations, as standard
/// deviations from its mean.
fn deviation(observed: &[(f64, f64)]) -> f64 {
    let chi: f64 = observed.iter().map(|(seen, wanted)| (seen - wanted).powi(2) / wanted).sum();
    let degrees = observed.len() as f64 - 1.0;
    (chi - degrees) / (2.0 * degrees).sqrt()
}

fn uniform_over(alphabet: &str, seen: &std::collections::BTreeMap<char, u32>) -> f64 {
    let total: u32 = alphabet.chars().map(|c| seen.get(&c).copied().unwrap_or(0)).sum();
    let each = f64::from(total) / alphabet.chars().count() as f64;
    let observed: Vec<_> = alphabet.chars().map(|c| (f64::from(seen.get(&c).copied().unwrap_or(0)), each)).collect();
    deviation(&observed)
}

#[test]
fn every_character_of_a_class_is_equally_likely_everywhere() {
    let classes = ["ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "0123456789", SYMBOLS];
    let (mut random, policy) = (Seeded(99), Policy::default());
    let mut at: Vec<std::collections::BTreeMap<char, u32>> = vec![Default::default(); 20];
    let mut pairs = 0u32;
    let rounds = 60_000;
    for _ in 0..rounds {
        let secret = policy.draw(&mut random).unwrap();
        let mut before = None;
        for (position, c) in secret.expose().chars().enumerate() {
            *at[position].entry(c).or_default() += 1;
            pairs += u32::from(before == Some(c));
            before = Some(c);
        }
    }
    for (position, seen) in at.iter().enumerate() {
        for alphabet in classes.iter().take(if position == 0 { 3 } else { 4 }) {
            let z = uniform_over(alphabet, seen);
            assert!(z < 6.0, "position {position} of {alphabet}: {z}");
        }
        // Whichever the position (but the first), the classes come as often.
        if position > 0 {
            let observed: Vec<_> = classes
                .iter()
                .map(|alphabet| {
                    let count = |seen: &std::collections::BTreeMap<char, u32>| {
                        f64::from(alphabet.chars().map(|c| seen.get(&c).copied().unwrap_or(0)).sum::<u32>())
                    };
                    (count(seen), at[1..].iter().map(count).sum::<f64>() / 19.0)
                })
                .collect();
            assert!(deviation(&observed) < 6.0, "position {position}: {observed:?}");
        }
    }
    // Neighbours repeat about as often as 82 characters allow (at least one of
    // each class makes it slightly rarer).
    let share = f64::from(pairs) / f64::from(rounds * 19);
    assert!((0.010..0.0135).contains(&share), "{share}");
}

#[test]
fn bounded_numbers_have_no_modulo_bias() {
    struct Ends;
    impl RandomSource for Ends {
        fn fill(&mut self, buffer: &mut [u8]) -> Result<(), PolicyError> {
            // The first numbers lie beyond the fair range and must be thrown away.
            static CALLS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
            let call = CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            buffer.fill(if call < 3 { 0xff } else { 0 });
            Ok(())
        }
    }
    assert_eq!(below(7, &mut Ends), Ok(0));
}

#[test]
fn a_candidate_is_none_of_the_refused() {
    let policy = Policy {
        length: 1,
        upper: Count::Exactly(0),
        lower: Count::Exactly(0),
        digits: Count::AtLeast(1),
        symbols: Count::Exactly(0),
        ..Policy::default()
    };
    let refused: Vec<Secret> = "012345678".chars().map(|c| Secret::new(c.to_string())).collect();
    let refused: Vec<&Secret> = refused.iter().collect();
    for _ in 0..20 {
        assert_eq!(candidate(&policy, &refused).unwrap().expose(), "9");
    }
    let nine = Secret::new("9".into());
    let all: Vec<&Secret> = refused.into_iter().chain([&nine]).collect();
    assert_eq!(candidate(&policy, &all).unwrap_err(), PolicyError::Length);
}

#[test]
fn the_systems_source_gives_different_secrets() {
    let (one, two) = (candidate(&Policy::default(), &[]).unwrap(), candidate(&Policy::default(), &[]).unwrap());
    assert!(!one.same_as(&two));
}

#[test]
fn identifiers_are_sixteen_bytes_of_base64url_and_no_options() {
    let mut random = Seeded(1);
    for _ in 0..1000 {
        let uid = uid(&mut random).unwrap();
        assert_eq!(uid.as_str().len(), 22);
        assert!(!uid.as_str().starts_with('-'));
        assert_eq!(uid.validate(), Ok(()));
    }
}

#[test]
fn passphrases_are_words_of_the_list_within_the_limits() {
    let list: Vec<String> = (0..7776).map(|n| format!("w{n}")).collect();
    let list: Vec<&str> = list.iter().map(String::as_str).collect();
    let known: std::collections::BTreeSet<&str> = list.iter().copied().collect();
    let mut random = Seeded(5);
    let mut firsts = std::collections::BTreeMap::<u32, u32>::new();
    for _ in 0..2_400 {
        let secret = passphrase(6, &list, &Policy::default(), &[], &mut random).unwrap();
        let words: Vec<&str> = secret.expose().split('-').collect();
        assert_eq!(words.len(), 6);
        assert!(words.iter().all(|word| known.contains(word)));
        let first: u32 = words[0][1..].parse().unwrap();
        *firsts.entry(first / 972).or_default() += 1;
    }
    let observed: Vec<_> = firsts.values().map(|seen| (f64::from(*seen), 300.0)).collect();
    assert_eq!(observed.len(), 8);
    assert!(deviation(&observed) < 6.0);

    let short = Policy::default().within(&PasswordLimits { max_length: Some(32), ..PasswordLimits::default() });
    for _ in 0..100 {
        let secret = passphrase(6, &list, &short, &[], &mut random).unwrap();
        assert!(secret.expose().len() <= 32);
    }
    let tight = Policy::default().within(&PasswordLimits { max_length: Some(8), ..PasswordLimits::default() });
    assert!(matches!(passphrase(6, &list, &tight, &[], &mut random), Err(PolicyError::TooLong { limit: 8, .. })));
    let no_hyphen = Policy::default().within(&PasswordLimits { forbidden: "-".into(), ..PasswordLimits::default() });
    assert!(passphrase(6, &list, &no_hyphen, &[], &mut random).is_err());
    assert!(passphrase(6, &[], &Policy::default(), &[], &mut random).is_err());
}
