use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{PasswordLimits, Secret};

/// The special characters of a secret when nothing else is said.
const SYMBOLS: &str = "!@#$%()+;<>=?[]{}^.,";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
const DIGITS: &str = "0123456789";

/// What a new password must look like. [`Policy::draw`] makes one that keeps
/// it; [`Policy::validate`] tells whether a given one does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Policy {
    /// Length in characters.
    #[serde(default = "default_length")]
    pub length: u32,
    /// Capital letters A to Z.
    #[serde(default)]
    pub upper: Count,
    /// Small letters a to z.
    #[serde(default)]
    pub lower: Count,
    /// Digits 0 to 9.
    #[serde(default)]
    pub digits: Count,
    /// Special characters, taken from `symbol_set`.
    #[serde(default)]
    pub symbols: Count,
    /// Which special characters may be used.
    #[serde(default = "default_symbols")]
    pub symbol_set: String,
    /// The target's own limits.
    #[serde(default)]
    pub limits: PasswordLimits,
}

fn default_length() -> u32 {
    20
}

fn default_symbols() -> String {
    SYMBOLS.to_owned()
}

/// How many characters of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// This many or more.
    AtLeast(u32),
    /// This many, neither more nor fewer; 0 means none.
    Exactly(u32),
}

impl Default for Count {
    fn default() -> Self {
        Self::AtLeast(1)
    }
}

impl Count {
    /// The number that must be there in any case.
    pub fn minimum(self) -> u32 {
        match self {
            Self::AtLeast(n) | Self::Exactly(n) => n,
        }
    }

    fn admits(self, found: u32) -> bool {
        match self {
            Self::AtLeast(n) => found >= n,
            Self::Exactly(n) => found == n,
        }
    }
}

/// One class of characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A to Z.
    Upper,
    /// a to z.
    Lower,
    /// 0 to 9.
    Digit,
    /// The policy's special characters.
    Symbol,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Upper => "capital letters",
            Self::Lower => "small letters",
            Self::Digit => "digits",
            Self::Symbol => "special characters",
        })
    }
}

/// Why no secret can keep a policy, or why a given one does not. Names the
/// rule, never the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyError {
    /// Every class is set to none.
    NothingAllowed,
    /// All counts are exact and add up to less than the length.
    ExactTooShort {
        /// The sum of the exact counts.
        sum: u32,
        /// The length asked for.
        length: u32,
    },
    /// The counts add up to more than the target takes.
    TooLong {
        /// Characters needed.
        needed: u32,
        /// Characters the target takes.
        limit: u32,
    },
    /// The target's limits exclude each other, or the length is 0.
    Length,
    /// A class is required but every character of it is forbidden.
    ClassForbidden(Class),
    /// A given secret has the wrong number of characters of a class.
    WrongCount {
        /// The class.
        class: Class,
        /// How many the policy wants.
        wanted: Count,
    },
    /// A given secret is shorter than required.
    ShorterThan(u32),
    /// A given secret is longer than the target takes.
    LongerThan(u32),
    /// A given secret holds a character the target or the policy forbids.
    ForbiddenCharacter,
    /// The system's source of randomness failed.
    NoRandomness,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingAllowed => f.write_str("every class of characters is set to none"),
            Self::ExactTooShort { sum, length } => write!(
                f,
                "all counts are exact and add up to {sum}, but the length is {length}: set the length to {sum}, or let one class be \"at least\""
            ),
            Self::TooLong { needed, limit } => {
                write!(f, "the rules need {needed} characters, but the target takes {limit} at most")
            }
            Self::Length => f.write_str("no length satisfies the policy and the target's limits"),
            Self::ClassForbidden(class) => {
                write!(f, "{class} are required, but the target forbids all of them")
            }
            Self::WrongCount { class, wanted: Count::AtLeast(n) } => {
                write!(f, "it needs at least {n} {class}")
            }
            Self::WrongCount { class, wanted: Count::Exactly(n) } => {
                write!(f, "it needs exactly {n} {class}")
            }
            Self::ShorterThan(n) => write!(f, "it must have at least {n} characters"),
            Self::LongerThan(n) => write!(f, "it must have at most {n} characters"),
            Self::ForbiddenCharacter => f.write_str("it holds a character that is not allowed here"),
            Self::NoRandomness => f.write_str("the system's source of randomness failed"),
        }
    }
}

impl std::error::Error for PolicyError {}

/// Where random bytes come from: the system's generator, or a test's.
pub trait RandomSource {
    /// Fills the buffer with uniformly random bytes.
    ///
    /// # Errors
    /// [`PolicyError::NoRandomness`] when the source fails.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), PolicyError>;
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            length: default_length(),
            upper: Count::default(),
            lower: Count::default(),
            digits: Count::default(),
            symbols: Count::default(),
            symbol_set: default_symbols(),
            limits: PasswordLimits::default(),
        }
    }
}

impl Policy {
    /// The same policy within a target's limits: a longer length than the
    /// target takes is shortened here, before anything is drawn, so that
    /// nothing drawn is ever cut.
    #[must_use]
    pub fn within(mut self, limits: &PasswordLimits) -> Self {
        self.limits = self.limits.and(limits);
        if let Some(least) = self.limits.min_length {
            self.length = self.length.max(least);
        }
        if let Some(most) = self.limits.max_length {
            self.length = self.length.min(most);
        }
        self
    }

    /// Draws a password: every character uniform over what the policy leaves
    /// open, its order shuffled, its first character a letter or digit where
    /// there is one.
    ///
    /// # Errors
    /// Where no password can keep the policy.
    pub fn draw(&self, random: &mut impl RandomSource) -> Result<Secret, PolicyError> {
        let length = self.effective_length()?;
        let classes = self.classes()?;

        let mut characters = Zeroizing::new(Vec::with_capacity(length as usize));
        let mut open: Vec<char> = Vec::new();
        for (_, count, alphabet) in &classes {
            for _ in 0..count.minimum() {
                characters.push(pick(alphabet, random)?);
            }
            if let Count::AtLeast(_) = count {
                open.extend(alphabet);
            }
        }
        while characters.len() < length as usize {
            characters.push(pick(&open, random)?);
        }
        for last in (1..characters.len()).rev() {
            let other = below(last as u32 + 1, random)? as usize;
            characters.swap(last, other);
        }
        let alphanumeric: Vec<usize> =
            characters.iter().enumerate().filter(|(_, c)| c.is_ascii_alphanumeric()).map(|(at, _)| at).collect();
        if !alphanumeric.is_empty() && alphanumeric.first() != Some(&0) {
            let at = *pick_ref(&alphanumeric, random)?;
            characters.swap(0, at);
        }

        let mut text = String::with_capacity(characters.iter().map(|c| c.len_utf8()).sum());
        text.extend(characters.iter());
        Ok(Secret::new(text))
    }

    /// Tells whether a given secret keeps this policy. The length asked for is
    /// no rule for a given secret; the target's limits and the counts are.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn validate(&self, secret: &Secret) -> Result<(), PolicyError> {
        #[expect(clippy::disallowed_methods, reason = "its characters are counted; no copy is made")]
        let text = secret.expose();
        let length = text.chars().count() as u32;
        if length == 0 {
            return Err(PolicyError::ShorterThan(1));
        }
        if let Some(least) = self.limits.min_length.filter(|least| length < *least) {
            return Err(PolicyError::ShorterThan(least));
        }
        if let Some(most) = self.limits.max_length.filter(|most| length > *most) {
            return Err(PolicyError::LongerThan(most));
        }
        if text.chars().any(|c| c.is_control() || self.limits.forbidden.contains(c)) {
            return Err(PolicyError::ForbiddenCharacter);
        }
        for (class, count) in self.counts() {
            let found = text.chars().filter(|c| class_of(*c) == class).count() as u32;
            if !count.admits(found) {
                return Err(PolicyError::WrongCount { class, wanted: count });
            }
        }
        Ok(())
    }

    fn counts(&self) -> [(Class, Count); 4] {
        [
            (Class::Upper, self.upper),
            (Class::Lower, self.lower),
            (Class::Digit, self.digits),
            (Class::Symbol, self.symbols),
        ]
    }

    /// The classes that take part, each with its usable characters.
    fn classes(&self) -> Result<Vec<(Class, Count, Vec<char>)>, PolicyError> {
        let mut classes = Vec::with_capacity(4);
        for (class, count) in self.counts() {
            if count == Count::Exactly(0) {
                continue;
            }
            let mut alphabet: Vec<char> = self.alphabet(class).chars().collect();
            // Letters, digits and repetitions among the special characters would upset the counts and the odds.
            alphabet.retain(|c| class_of(*c) == class && !self.limits.forbidden.contains(*c));
            alphabet.sort_unstable();
            alphabet.dedup();
            if !alphabet.is_empty() {
                classes.push((class, count, alphabet));
            } else if count.minimum() > 0 {
                return Err(PolicyError::ClassForbidden(class));
            }
        }
        if classes.is_empty() {
            return Err(PolicyError::NothingAllowed);
        }
        Ok(classes)
    }

    fn alphabet(&self, class: Class) -> &str {
        match class {
            Class::Upper => UPPER,
            Class::Lower => LOWER,
            Class::Digit => DIGITS,
            Class::Symbol => &self.symbol_set,
        }
    }

    fn effective_length(&self) -> Result<u32, PolicyError> {
        let classes = self.classes()?;
        let sum = classes.iter().fold(0, |sum: u32, (_, count, _)| sum.saturating_add(count.minimum()));
        let length = self.length.max(sum).max(self.limits.min_length.unwrap_or(0));
        if let Some(limit) = self.limits.max_length.filter(|limit| length > *limit) {
            return Err(PolicyError::TooLong { needed: length, limit });
        }
        if length == 0 || length > 4096 {
            return Err(PolicyError::Length);
        }
        let all_exact = classes.iter().all(|(_, count, _)| matches!(count, Count::Exactly(_)));
        if all_exact && sum < length {
            return Err(PolicyError::ExactTooShort { sum, length });
        }
        Ok(length)
    }
}

fn class_of(c: char) -> Class {
    match c {
        'A'..='Z' => Class::Upper,
        'a'..='z' => Class::Lower,
        '0'..='9' => Class::Digit,
        _ => Class::Symbol,
    }
}

fn pick(alphabet: &[char], random: &mut impl RandomSource) -> Result<char, PolicyError> {
    pick_ref(alphabet, random).copied()
}

fn pick_ref<'a, T>(items: &'a [T], random: &mut impl RandomSource) -> Result<&'a T, PolicyError> {
    let at = below(items.len() as u32, random)?;
    items.get(at as usize).ok_or(PolicyError::NothingAllowed)
}

/// A uniform number below `bound`, by rejection: no modulo bias.
fn below(bound: u32, random: &mut impl RandomSource) -> Result<u32, PolicyError> {
    if bound == 0 {
        return Err(PolicyError::NothingAllowed);
    }
    let fair = u32::MAX - u32::MAX % bound;
    loop {
        let mut bytes = Zeroizing::new([0u8; 4]);
        random.fill(bytes.as_mut())?;
        let number = u32::from_le_bytes(*bytes);
        if number < fair {
            return Ok(number % bound);
        }
    }
}
