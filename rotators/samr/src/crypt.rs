//! How a password travels in a change: encrypted with the old one's digest, or
//! with the session's key (MS-SAMR 2.2.6.21, 2.2.6.22, 3.2.2), inside an
//! encrypted session.

use des::Des;
use des::cipher::generic_array::GenericArray;
use des::cipher::{BlockEncrypt, KeyInit, StreamCipher};
use md4::{Digest, Md4};
use md5::Md5;
use rc4::Rc4;
use rc4::consts::U16;
use turnlock_kit::Secret;
use zeroize::Zeroizing;

/// The longest password that fits, in UTF-16 units.
pub(crate) const LONGEST: usize = 256;
const BUFFER: usize = 2 * LONGEST;
const SALT: usize = 16;

/// A password's digest as Windows keeps it.
pub(crate) struct Digested(pub(crate) Zeroizing<[u8; 16]>);

impl Digested {
    pub(crate) fn of(password: &Secret) -> Self {
        Self(Zeroizing::new(Md4::digest(utf16(password)).into()))
    }

    /// A new password, encrypted with this digest of the old one.
    pub(crate) fn encrypt(&self, new: &Secret) -> Option<Vec<u8>> {
        let mut message = filled(new)?;
        rc4(&self.0, message.as_mut_slice());
        Some(message.to_vec())
    }

    /// This digest, encrypted with another one: proof that both are known.
    pub(crate) fn encrypt_with(&self, other: &Self) -> [u8; 16] {
        let mut out = [0; 16];
        let halves = self.0.chunks_exact(8).zip(other.0.chunks_exact(7));
        for ((half, key), out) in halves.zip(out.chunks_exact_mut(8)) {
            let mut block = GenericArray::clone_from_slice(half);
            Des::new(&spread(key).into()).encrypt_block(&mut block);
            out.copy_from_slice(&block);
        }
        out
    }
}

/// A new password, encrypted with a session's key and a salt that follows it.
pub(crate) fn encrypt_for_session(key: &[u8; 16], new: &Secret) -> Option<Vec<u8>> {
    let mut salt = [0; SALT];
    getrandom::fill(&mut salt).ok()?;
    let mut message = filled(new)?;
    let key: Zeroizing<[u8; 16]> = Zeroizing::new(Md5::new_with_prefix(salt).chain_update(key).finalize().into());
    rc4(&key, message.as_mut_slice());
    Some([message.as_slice(), &salt].concat())
}

pub(crate) fn rc4(key: &[u8; 16], data: &mut [u8]) {
    Rc4::<U16>::new(key.into()).apply_keystream(data);
}

/// How long a password is, as Windows counts.
pub(crate) fn units(password: &Secret) -> usize {
    utf16(password).len() / 2
}

/// Random bytes, the password at their end, and its length.
fn filled(new: &Secret) -> Option<Zeroizing<[u8; BUFFER + 4]>> {
    let new = utf16(new);
    let mut message = Zeroizing::new([0u8; BUFFER + 4]);
    let (buffer, length) = message.split_at_mut(BUFFER);
    getrandom::fill(buffer).ok()?;
    buffer.get_mut(BUFFER.checked_sub(new.len())?..)?.copy_from_slice(&new);
    length.copy_from_slice(&u32::try_from(new.len()).ok()?.to_le_bytes());
    Some(message)
}

/// Seven bytes as a key of DES, which has a bit of parity in every byte.
fn spread(key: &[u8]) -> [u8; 8] {
    let bits = key.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    let mut out = [0; 8];
    for (place, byte) in out.iter_mut().enumerate() {
        *byte = u8::try_from(bits >> (49 - 7 * place) & 0x7f).unwrap_or_default() << 1;
    }
    out
}

fn utf16(password: &Secret) -> Zeroizing<Vec<u8>> {
    #[expect(clippy::disallowed_methods, reason = "its digest, and itself encrypted, are what Windows takes")]
    let text = password.expose();
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * text.len()));
    bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(password: &str) -> Secret {
        Secret::new(password.to_owned())
    }

    /// MS-NLMP 4.2.2.1.2: the digest of "Password".
    #[test]
    fn the_digest_is_the_documented_one() {
        let expected = [0xa4, 0xf4, 0x9c, 0x40, 0x65, 0x10, 0xbd, 0xca, 0xb6, 0x82, 0x4e, 0xe7, 0xc3, 0x0f, 0xd8, 0x52];
        assert_eq!(*Digested::of(&secret("Password")).0, expected);
    }

    #[test]
    fn a_password_comes_out_as_it_went_in() {
        let new = secret("Nëw \u{1F4A3}");
        let read = |message: &[u8]| {
            let (buffer, length) = message.split_at(BUFFER);
            let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
            buffer[BUFFER - length..].to_vec()
        };
        let old = Digested::of(&secret("Old"));
        let mut message = old.encrypt(&new).unwrap();
        rc4(&old.0, &mut message);
        assert_eq!(read(&message), *utf16(&new));
        let mut message = encrypt_for_session(&[9; 16], &new).unwrap();
        let salt = message.split_off(BUFFER + 4);
        let key: [u8; 16] = Md5::new_with_prefix(&salt).chain_update([9; 16]).finalize().into();
        rc4(&key, &mut message);
        assert_eq!((read(&message), salt.len()), (utf16(&new).to_vec(), SALT));
        assert!(old.encrypt(&secret(&"x".repeat(LONGEST + 1))).is_none());
    }

    #[test]
    fn a_key_is_spread_over_eight_bytes() {
        assert_eq!(spread(&[0xff; 7]), [0xfe; 8]);
        assert_eq!(spread(&[0x80, 0, 0, 0, 0, 0, 1]), [0x80, 0, 0, 0, 0, 0, 0, 2]);
    }
}
