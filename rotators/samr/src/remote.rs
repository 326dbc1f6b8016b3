//! The one call that is made of the remote protocol for accounts, and as much
//! of remote procedure calls as it takes (C706; MS-RPCE; MS-SAMR 3.1.5.10.3).

use zeroize::Zeroizing;

/// The pipe that the calls go through.
pub(crate) const PIPE: &str = "samr";
/// The longest answer that makes sense here.
pub(crate) const LONGEST_ANSWER: u32 = 4280;

const SAMR: [u8; 20] = [
    0x78, 0x57, 0x34, 0x12, 0x34, 0x12, 0xcd, 0xab, 0xef, 0x00, 0x01, 0x23, 0x45, 0x67, 0x89, 0xac, 1, 0, 0, 0,
];
const NDR: [u8; 20] = [
    0x04, 0x5d, 0x88, 0x8a, 0xeb, 0x1c, 0xc9, 0x11, 0x9f, 0xe8, 0x08, 0x00, 0x2b, 0x10, 0x48, 0x60, 2, 0, 0, 0,
];
const REQUEST: u8 = 0;
const RESPONSE: u8 = 2;
const FAULT: u8 = 3;
const BIND: u8 = 11;
const BIND_ACCEPTED: u8 = 12;
const HEADER: usize = 16;
/// SamrUnicodeChangePasswordUser2.
const CHANGE_PASSWORD: u16 = 55;

/// The request to speak this protocol.
pub(crate) fn bind() -> Vec<u8> {
    let longest = 4280u16.to_le_bytes();
    let body = [&longest[..], &longest, &[0; 4], &[1, 0, 0, 0], &[0, 0, 1, 0], &SAMR, &NDR].concat();
    message(BIND, 1, &body)
}

/// Whether that was accepted.
pub(crate) fn is_bound(answer: &[u8]) -> bool {
    // Behind the header: two lengths, a group, an address, then the result.
    let accepted = || {
        let length = usize::from(u16::from_le_bytes(answer.get(24..26)?.try_into().ok()?));
        let results = (26 + length).next_multiple_of(4);
        Some(answer.get(results + 4..results + 6)? == [0, 0])
    };
    answer.get(2) == Some(&BIND_ACCEPTED) && accepted() == Some(true)
}

/// The request to change an account's password.
pub(crate) fn change_password(server: &str, login: &str, new: &[u8], proof: &[u8; 16]) -> Zeroizing<Vec<u8>> {
    let mut stub = Stub::default();
    stub.pointer();
    stub.text(server);
    stub.text(login);
    stub.pointer();
    stub.bytes.extend(new);
    stub.pointer();
    stub.bytes.extend(proof);
    // No password in the form of LAN Manager.
    stub.bytes.extend([0; 12]);
    let mut body = Vec::with_capacity(stub.bytes.len() + 8);
    body.extend(u32::try_from(stub.bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    body.extend([0, 0]);
    body.extend(CHANGE_PASSWORD.to_le_bytes());
    body.extend(&stub.bytes);
    Zeroizing::new(message(REQUEST, 2, &body))
}

/// The status that ends an answer: of the call, or of a call that could not be made.
pub(crate) fn status(answer: &[u8]) -> Option<u32> {
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_le_bytes);
    match answer.get(2)? {
        &RESPONSE => number(answer.get(answer.len().checked_sub(4)?.max(HEADER + 8)..)?),
        &FAULT => number(answer.get(24..28)?),
        _ => None,
    }
}

fn message(kind: u8, call: u32, body: &[u8]) -> Vec<u8> {
    const FIRST_AND_LAST: u8 = 3;
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX).to_le_bytes();
    let head = [5, 0, kind, FIRST_AND_LAST, 0x10, 0, 0, 0];
    [&head[..], &length, &[0, 0], &call.to_le_bytes(), body].concat()
}

/// Arguments in network data representation (C706, chapter 14).
#[derive(Default)]
struct Stub {
    bytes: Vec<u8>,
    pointers: u32,
}

impl Stub {
    /// A pointer to something that follows.
    fn pointer(&mut self) {
        self.align();
        self.pointers += 1;
        self.bytes.extend((0x0002_0000 + 4 * self.pointers).to_le_bytes());
    }

    /// RPC_UNICODE_STRING (MS-DTYP 2.3.10).
    fn text(&mut self, text: &str) {
        let units: Vec<u16> = text.encode_utf16().collect();
        let length = u16::try_from(2 * units.len()).unwrap_or(u16::MAX).to_le_bytes();
        let count = u32::try_from(units.len()).unwrap_or(u32::MAX).to_le_bytes();
        self.align();
        self.bytes.extend([length, length].concat());
        self.pointer();
        self.bytes.extend([count, [0; 4], count].concat());
        self.bytes.extend(units.into_iter().flat_map(u16::to_le_bytes));
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_laid_out_as_documented() {
        let mut stub = Stub::default();
        stub.text("abc");
        let expected = [
            &[6, 0, 6, 0][..],
            &[4, 0, 2, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0],
            &[b'a', 0, b'b', 0, b'c', 0, 0, 0],
        ];
        assert_eq!(stub.bytes, expected.concat());
    }

    #[test]
    fn an_answer_is_read_or_is_none() {
        let head = |kind: u8, rest: &[u8]| [&[5, 0, kind, 3, 0x10, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0][..], rest].concat();
        assert_eq!(status(&head(RESPONSE, &[4, 0, 0, 0, 0, 0, 0, 0, 0x6c, 0, 0, 0xc0])), Some(0xc000_006c));
        assert_eq!(status(&head(FAULT, &[0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0])), Some(5));
        for garbage in [&[][..], &[5, 0, 2], &head(RESPONSE, &[0; 4]), &head(BIND, &[0; 12])] {
            assert_eq!(status(garbage), None, "{garbage:?}");
        }
        let accepted = [&[0; 8][..], &[3, 0, b'a', b'b', 0, 0, 0, 0], &[1, 0, 0, 0], &[0, 0, 0, 0]].concat();
        assert!(is_bound(&head(BIND_ACCEPTED, &accepted)));
        let refused = [&[0; 8][..], &[3, 0, b'a', b'b', 0, 0, 0, 0], &[1, 0, 0, 0], &[2, 0, 0, 0]].concat();
        assert!(!is_bound(&head(BIND_ACCEPTED, &refused)) && !is_bound(&[]) && !is_bound(&head(FAULT, &accepted)));
    }
}
