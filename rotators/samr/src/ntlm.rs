//! The log-in by challenge and response, version 2 (MS-NLMP), in as much of
//! SPNEGO (RFC 4178) as it takes.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, Mac};
use md5::{Digest, Md5};
use turnlock_kit::Secret;
use zeroize::Zeroizing;

use crate::crypt::{Digested, rc4};

const SIGNATURE: &[u8] = b"NTLMSSP\0";
/// Unicode, the target's name, signing and sealing, NTLM, always signed,
/// session security, the target's facts, a version, 128 and 56 bits, a key of
/// our own (MS-NLMP 2.2.2.5).
const FLAGS: u32 = 0xe288_8235;
const VERSION: [u8; 8] = [10, 0, 0, 0, 0, 0, 0, 15];
/// Ends the target's facts; its flags, its time, the name we meant.
const END: u16 = 0;
const AV_FLAGS: u16 = 6;
const AV_TIMESTAMP: u16 = 7;
const AV_TARGET_NAME: u16 = 9;
const HAS_A_CHECK: u32 = 2;

/// What ends a log-in.
pub(crate) struct Answer {
    /// For the server, wrapped.
    pub(crate) message: Vec<u8>,
    /// What only the two of us know.
    pub(crate) key: Zeroizing<[u8; 16]>,
}

/// The first message.
pub(crate) fn negotiate() -> Vec<u8> {
    [SIGNATURE, &1u32.to_le_bytes(), &FLAGS.to_le_bytes(), &[0; 16], &VERSION].concat()
}

/// The one kind of log-in that is offered, as a list.
fn kinds() -> Vec<u8> {
    const NTLM: [u8; 12] = [0x06, 10, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 2, 10];
    element(0x30, &NTLM)
}

/// The first message as SPNEGO carries it.
pub(crate) fn offered(message: &[u8]) -> Vec<u8> {
    const SPNEGO: [u8; 8] = [0x06, 6, 0x2b, 6, 1, 5, 5, 2];
    let kinds = element(0xa0, &kinds());
    let token = element(0xa2, &element(0x04, message));
    let init = element(0xa0, &element(0x30, &[kinds, token].concat()));
    element(0x60, &[&SPNEGO[..], &init].concat())
}

/// Answers a challenge, wherever in the wrapping it lies.
pub(crate) fn answer(wrapped: &[u8], user: &str, domain: &str, host: &str, password: &Secret) -> Option<Answer> {
    let start = wrapped.windows(SIGNATURE.len()).position(|window| window == SIGNATURE)?;
    let challenge = wrapped.get(start..)?;
    if challenge.get(8..12)? != 2u32.to_le_bytes() {
        return None;
    }
    // The wrapping may go on behind it.
    let end = end_of(challenge, 12)?.max(end_of(challenge, 40)?);
    let challenge = challenge.get(..end)?;
    let mut randoms = Zeroizing::new([0u8; 24]);
    getrandom::fill(randoms.as_mut_slice()).ok()?;
    let (nonce, key) = randoms.split_at_checked(8)?;
    let key: Zeroizing<[u8; 16]> = Zeroizing::new(key.try_into().ok()?);

    let facts = facts(field(challenge, 40)?, host)?;
    let time = facts.time.unwrap_or_else(now);
    let proven = [&[1, 1, 0, 0, 0, 0, 0, 0][..], &time, nonce, &[0; 4], &facts.bytes, &[0; 4]].concat();
    let owner =
        Zeroizing::new(hmac(Digested::of(password).0.as_slice(), &[&utf16(&in_capitals(user)), &utf16(domain)]));
    let proof = hmac(owner.as_slice(), &[challenge.get(24..32)?, &proven]);
    let exchange = Zeroizing::new(hmac(owner.as_slice(), &[&proof]));
    let mut carried = *key;
    rc4(&exchange, &mut carried);

    let parts: [&[u8]; 6] =
        [&[0; 24], &[&proof[..], &proven].concat(), &utf16(domain), &utf16(user), &utf16("TURNLOCK"), &carried];
    let mut message = authenticate(&parts)?;
    let check = hmac(key.as_slice(), &[&negotiate(), challenge, &message]);
    message.get_mut(72..88)?.copy_from_slice(&check);
    let token = element(0xa2, &element(0x04, &message));
    let signature = element(0xa3, &element(0x04, &signed(&key, &kinds())));
    Some(Answer { message: element(0xa1, &element(0x30, &[token, signature].concat())), key })
}

/// Our first signature in a session (MS-NLMP 3.4.4.2, 3.4.5), which proves that
/// nobody changed what was offered.
fn signed(key: &[u8; 16], message: &[u8]) -> Vec<u8> {
    let purpose = |word: &str| -> Zeroizing<[u8; 16]> {
        let words = format!("session key to client-to-server {word} key magic constant\0");
        Zeroizing::new(Md5::new_with_prefix(key).chain_update(words).finalize().into())
    };
    let first = 0u32.to_le_bytes();
    let mut check = hmac(purpose("signing").as_slice(), &[&first, message]);
    let check = check.split_at_mut(8).0;
    rc4(&purpose("sealing"), check);
    [&1u32.to_le_bytes()[..], check, &first].concat()
}

/// The last message, with its check still zero.
fn authenticate(parts: &[&[u8]; 6]) -> Option<Vec<u8>> {
    const HEAD: usize = 88;
    let mut message = [SIGNATURE, &3u32.to_le_bytes()].concat();
    let mut offset = HEAD;
    for part in parts {
        let length = u16::try_from(part.len()).ok()?.to_le_bytes();
        message.extend([length, length].concat());
        message.extend(u32::try_from(offset).ok()?.to_le_bytes());
        offset += part.len();
    }
    message.extend(FLAGS.to_le_bytes());
    message.extend(VERSION);
    message.extend([0; 16]);
    parts.iter().for_each(|part| message.extend(*part));
    Some(message)
}

struct Facts {
    bytes: Vec<u8>,
    time: Option<[u8; 8]>,
}

/// The target's facts, with ours: that a check follows, and whom we meant.
fn facts(theirs: &[u8], host: &str) -> Option<Facts> {
    let mut facts = Facts { bytes: Vec::new(), time: None };
    let mut put = |kind: u16, value: &[u8]| {
        facts.bytes.extend(kind.to_le_bytes());
        facts.bytes.extend(u16::try_from(value.len()).unwrap_or_default().to_le_bytes());
        facts.bytes.extend(value);
    };
    let mut rest = theirs;
    loop {
        let kind = u16::from_le_bytes(rest.get(..2)?.try_into().ok()?);
        let length = usize::from(u16::from_le_bytes(rest.get(2..4)?.try_into().ok()?));
        let value = rest.get(4..4 + length)?;
        rest = rest.get(4 + length..)?;
        match kind {
            END => break,
            AV_FLAGS | AV_TARGET_NAME => {}
            AV_TIMESTAMP => {
                facts.time = value.try_into().ok();
                put(kind, value);
            }
            _ => put(kind, value),
        }
    }
    put(AV_FLAGS, &HAS_A_CHECK.to_le_bytes());
    put(AV_TARGET_NAME, &utf16(&format!("cifs/{host}")));
    put(END, &[]);
    Some(facts)
}

/// A field of a message: length, room, offset.
fn field(message: &[u8], at: usize) -> Option<&[u8]> {
    message.get(offset_of(message, at)?..end_of(message, at)?)
}

fn offset_of(message: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(message.get(at + 4..at + 8)?.try_into().ok()?)).ok()
}

fn end_of(message: &[u8], at: usize) -> Option<usize> {
    let length = usize::from(u16::from_le_bytes(message.get(at..at + 2)?.try_into().ok()?));
    offset_of(message, at)?.checked_add(length)
}

/// Windows' time: units of 100 ns since 1601.
fn now() -> [u8; 8] {
    const TO_1970: u64 = 116_444_736_000_000_000;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos() / 100).unwrap_or_default().saturating_add(TO_1970).to_le_bytes()
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    match Hmac::<Md5>::new_from_slice(key) {
        Ok(mut mac) => {
            parts.iter().for_each(|part| mac.update(part));
            mac.finalize().into_bytes().into()
        }
        // It takes keys of every length.
        Err(_) => [0; 16],
    }
}

/// As Windows does it: one character for one, so that a ß stays.
fn in_capitals(text: &str) -> String {
    let capital = |one: char| {
        let mut capitals = one.to_uppercase();
        capitals.next().filter(|_| capitals.next().is_none()).unwrap_or(one)
    };
    text.chars().map(capital).collect()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// An element of DER.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let bytes = length.to_be_bytes();
    let long: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or_default());
            out.extend(long);
        }
    }
    out.extend(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MS-NLMP 4.2.4.1.1: the key that owns "User" in "Domain" with "Password".
    #[test]
    fn the_owners_key_is_the_documented_one() {
        let digest = Digested::of(&Secret::new("Password".to_owned()));
        let owner = hmac(digest.0.as_slice(), &[&utf16(&in_capitals("User")), &utf16("Domain")]);
        let expected = [0x0c, 0x86, 0x8a, 0x40, 0x3b, 0xfd, 0x7a, 0x93, 0xa3, 0x00, 0x1e, 0xf2, 0x2e, 0xf0, 0x2e, 0x3f];
        assert_eq!(owner, expected);
        assert_eq!(in_capitals("größe ﬁ"), "GRÖßE ﬁ");
    }

    #[test]
    fn an_element_has_its_length() {
        assert_eq!(element(4, &[1, 2]), [4, 2, 1, 2]);
        assert_eq!(element(4, &[0; 200])[..3], [4, 0x81, 200]);
        assert_eq!(element(4, &[0; 300])[..4], [4, 0x82, 1, 44]);
    }

    #[test]
    fn a_challenge_that_is_none_is_not_answered() {
        let secret = Secret::new("x".to_owned());
        let head = [SIGNATURE, &2u32.to_le_bytes(), &[0; 28], &[4, 0, 4, 0, 48, 0, 0, 0], &[0; 4]].concat();
        assert!(answer(&head, "u", "", "h", &secret).is_some());
        for cut in 0..head.len() {
            assert!(answer(&head[..cut], "u", "", "h", &secret).is_none(), "{cut}");
        }
        let looped = [SIGNATURE, &2u32.to_le_bytes(), &[0; 28], &[4, 0, 4, 0, 48, 0, 0, 0], &[9, 0, 255, 255]].concat();
        assert!(answer(&looped, "u", "", "h", &secret).is_none());
    }
}
