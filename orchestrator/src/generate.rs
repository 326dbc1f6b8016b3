//! New secrets from the system's source of randomness.

use base64::Engine as _;
use turnlock_protocol::{Class, Policy, PolicyError, RandomSource, Secret};
use zeroize::Zeroizing;

use crate::record::Uid;

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl RandomSource for SystemRandom {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), PolicyError> {
        getrandom::fill(buffer).map_err(|_| PolicyError::NoRandomness)
    }
}

/// How often a draw may hit a refused secret, or a passphrase a target's
/// limits, before the policy itself is at fault.
const TRIES: u32 = 1000;

/// A new secret that keeps the policy and equals none of the refused ones.
pub fn candidate(policy: &Policy, refused: &[&Secret]) -> Result<Secret, PolicyError> {
    candidate_from(policy, refused, &mut SystemRandom)
}

/// The same from another source.
pub fn candidate_from(
    policy: &Policy,
    refused: &[&Secret],
    random: &mut impl RandomSource,
) -> Result<Secret, PolicyError> {
    for _ in 0..TRIES {
        let secret = policy.draw(random)?;
        if !refused.iter().any(|old| old.same_as(&secret)) {
            return Ok(secret);
        }
    }
    // Only a policy with next to no room gets here.
    Err(PolicyError::Length)
}

/// A passphrase: words drawn uniformly from a list, joined by `-`, within the
/// policy's limits. Passphrases that do not fit are drawn anew as a whole, so
/// that every one that fits is equally likely.
pub fn passphrase(
    words: u32,
    list: &[&str],
    policy: &Policy,
    refused: &[&Secret],
    random: &mut impl RandomSource,
) -> Result<Secret, PolicyError> {
    let limits = &policy.limits;
    if limits.forbidden.contains('-') {
        return Err(PolicyError::ClassForbidden(Class::Symbol));
    }
    let usable: Vec<&str> =
        list.iter().copied().filter(|word| !word.chars().any(|c| limits.forbidden.contains(c))).collect();
    let longest = usable.iter().map(|word| word.len() + 1).max().unwrap_or(0) * words as usize;
    let mut length = 0;
    for _ in 0..TRIES {
        // As large as it can become, so that no half of it is left behind by growth.
        let mut text = Zeroizing::new(String::with_capacity(longest));
        for n in 0..words {
            if n > 0 {
                text.push('-');
            }
            let at = below(usable.len(), random)?;
            text.push_str(usable.get(at).ok_or(PolicyError::NothingAllowed)?);
        }
        length = text.chars().count() as u32;
        let fits = limits.max_length.is_none_or(|most| length <= most)
            && limits.min_length.is_none_or(|least| length >= least);
        let secret = Secret::new(std::mem::take(&mut text));
        if fits && length > 0 && !refused.iter().any(|old| old.same_as(&secret)) {
            return Ok(secret);
        }
    }
    match limits.max_length {
        Some(limit) if length > limit => Err(PolicyError::TooLong { needed: length, limit }),
        _ => Err(PolicyError::Length),
    }
}

/// A new record identifier: 16 random bytes as 22 characters of base64url.
pub fn uid(random: &mut (impl RandomSource + ?Sized)) -> Result<Uid, PolicyError> {
    loop {
        let mut bytes = [0u8; 16];
        random.fill(&mut bytes)?;
        let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        // An identifier that looks like an option would have to be quoted in a shell.
        if !text.starts_with('-') {
            return Ok(Uid::new(text));
        }
    }
}

/// A uniform index, by rejection.
fn below(bound: usize, random: &mut impl RandomSource) -> Result<usize, PolicyError> {
    let bound = u32::try_from(bound).ok().filter(|bound| *bound > 0).ok_or(PolicyError::NothingAllowed)?;
    let fair = u32::MAX - u32::MAX % bound;
    loop {
        let mut bytes = Zeroizing::new([0u8; 4]);
        random.fill(bytes.as_mut())?;
        let number = u32::from_le_bytes(*bytes);
        if number < fair {
            return Ok((number % bound) as usize);
        }
    }
}

#[cfg(test)]
mod tests;
