//! Remote procedure calls through a pipe (C706; MS-RPCE), as far as one
//! fragment there and one back carry them, and their arguments in network data
//! representation (C706, chapter 14).

use std::io;

use zeroize::Zeroizing;

/// The interface of accounts, and the representation that is spoken.
const SAMR: [u8; 20] =
    [0x78, 0x57, 0x34, 0x12, 0x34, 0x12, 0xcd, 0xab, 0xef, 0x00, 0x01, 0x23, 0x45, 0x67, 0x89, 0xac, 1, 0, 0, 0];
const NDR: [u8; 20] =
    [0x04, 0x5d, 0x88, 0x8a, 0xeb, 0x1c, 0xc9, 0x11, 0x9f, 0xe8, 0x08, 0x00, 0x2b, 0x10, 0x48, 0x60, 2, 0, 0, 0];
const REQUEST: u8 = 0;
const RESPONSE: u8 = 2;
const FAULT: u8 = 3;
const BIND: u8 = 11;
const BIND_ACCEPTED: u8 = 12;
const HEADER: usize = 16;
/// The flags of a message in one fragment.
const FIRST_AND_LAST: u8 = 3;

/// The request to speak of accounts.
pub(crate) fn bind() -> Vec<u8> {
    let longest = 4280u16.to_le_bytes();
    let body = [&longest[..], &longest, &[0; 4], &[1, 0, 0, 0], &[0, 0, 1, 0], &SAMR, &NDR].concat();
    message(BIND, &body)
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

/// A call's number and its arguments.
pub(crate) struct Call {
    number: u16,
    arguments: Zeroizing<Vec<u8>>,
    pointers: u32,
}

impl Call {
    pub(crate) fn new(number: u16) -> Self {
        Self { number, arguments: Zeroizing::default(), pointers: 0 }
    }

    /// Bytes as they are, such as a handle.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.arguments.extend(bytes);
        self
    }

    pub(crate) fn number(mut self, number: u32) -> Self {
        self.align(4);
        self.bytes(&number.to_le_bytes())
    }

    pub(crate) fn short(mut self, number: u16) -> Self {
        self.align(2);
        self.bytes(&number.to_le_bytes())
    }

    /// A pointer to what follows.
    pub(crate) fn pointer(mut self) -> Self {
        self.pointers += 1;
        let pointer = 0x0002_0000 + 4 * self.pointers;
        self.number(pointer)
    }

    /// RPC_UNICODE_STRING (MS-DTYP 2.3.10).
    pub(crate) fn text(self, text: &str) -> Self {
        let length = u16::try_from(2 * text.encode_utf16().count()).unwrap_or(u16::MAX);
        let mut call = self.number(u32::from(length) | u32::from(length) << 16).pointer();
        call = call.units(&text.encode_utf16().collect::<Vec<_>>());
        call
    }

    /// A text that ends with a zero, behind a pointer.
    pub(crate) fn ended_text(self, text: &str) -> Self {
        let units: Vec<u16> = text.encode_utf16().chain([0]).collect();
        self.pointer().units(&units)
    }

    fn units(self, units: &[u16]) -> Self {
        let count = u32::try_from(units.len()).unwrap_or(u32::MAX);
        let bytes: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let mut call = self.number(count).number(0).number(count).bytes(&bytes);
        call.align(4);
        call
    }

    fn align(&mut self, to: usize) {
        let length = self.arguments.len().next_multiple_of(to);
        self.arguments.resize(length, 0);
    }

    /// The whole request.
    pub(crate) fn request(&self) -> Zeroizing<Vec<u8>> {
        let mut body = Zeroizing::new(Vec::with_capacity(self.arguments.len() + 8));
        body.extend(u32::try_from(self.arguments.len()).unwrap_or(u32::MAX).to_le_bytes());
        body.extend([0, 0]);
        body.extend(self.number.to_le_bytes());
        body.extend(self.arguments.iter());
        Zeroizing::new(message(REQUEST, &body))
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX).to_le_bytes();
    let head = [5, 0, kind, FIRST_AND_LAST, 0x10, 0, 0, 0];
    [&head[..], &length, &[0, 0], &[1, 0, 0, 0], body].concat()
}

/// What a call came to: results to be read from the front, and a status at the end.
#[derive(Debug)]
pub(crate) struct Results<'a> {
    bytes: &'a [u8],
    place: usize,
    /// Zero is success.
    pub(crate) status: u32,
}

impl<'a> Results<'a> {
    /// Reads an answer. A call that could not be made has only a status.
    pub(crate) fn of(answer: &'a [u8]) -> io::Result<Self> {
        let none = || short_of("an answer to a call");
        // In more fragments than one the status stands elsewhere.
        let is_whole = answer.get(3).is_some_and(|flags| flags & FIRST_AND_LAST == FIRST_AND_LAST);
        let body = answer.get(HEADER + 8..).filter(|_| is_whole).ok_or_else(none)?;
        match answer.get(2) {
            Some(&RESPONSE) => {
                let (bytes, status) = body.split_at_checked(body.len().wrapping_sub(4)).ok_or_else(none)?;
                let status = u32::from_le_bytes(status.try_into().map_err(|_| none())?);
                Ok(Self { bytes, place: 0, status })
            }
            Some(&FAULT) => {
                let status = body.get(..4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes);
                // A fault without a number is no success.
                let status = status.filter(|status| *status != 0).ok_or_else(none)?;
                Ok(Self { bytes: &[], place: 0, status })
            }
            _ => Err(none()),
        }
    }

    pub(crate) fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let end = self.place.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.place..end)).ok_or_else(|| short_of("results"))?;
        self.place += count;
        Ok(taken)
    }

    pub(crate) fn number(&mut self) -> io::Result<u32> {
        self.place = self.place.next_multiple_of(4);
        self.take(4)?.try_into().map(u32::from_le_bytes).map_err(io::Error::other)
    }

    pub(crate) fn short(&mut self) -> io::Result<u16> {
        self.place = self.place.next_multiple_of(2);
        self.take(2)?.try_into().map(u16::from_le_bytes).map_err(io::Error::other)
    }

    /// A text behind a pointer, which stands elsewhere.
    pub(crate) fn units(&mut self) -> io::Result<String> {
        let _room = self.number()?;
        let _offset = self.number()?;
        let count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let bytes = self.take(count.checked_mul(2).ok_or_else(|| short_of("results"))?)?;
        let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|two| u16::from_le_bytes(*two)).collect();
        Ok(String::from_utf16_lossy(&units))
    }
}

fn short_of(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} ended too soon"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_laid_out_as_documented() {
        let call = Call::new(1).text("abc");
        let expected = [
            &[6, 0, 6, 0][..],
            &[4, 0, 2, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0],
            &[b'a', 0, b'b', 0, b'c', 0, 0, 0],
        ];
        assert_eq!(*call.arguments, expected.concat());
    }

    #[test]
    fn an_answer_is_read_or_is_none() {
        let head = |kind: u8, rest: &[u8]| [&[5, 0, kind, 3, 0x10, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0][..], rest].concat();
        let told = head(RESPONSE, &[4, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0x6c, 0, 0, 0xc0]);
        let mut results = Results::of(&told).unwrap();
        assert_eq!((results.number().unwrap(), results.status), (7, 0xc000_006c));
        assert!(results.number().is_err());
        assert_eq!(Results::of(&head(FAULT, &[0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0])).unwrap().status, 5);
        let mut first_of_more = told.clone();
        first_of_more[3] = 1;
        let unnumbered = head(FAULT, &[0; 12]);
        for garbage in
            [&[][..], &[5, 0, 2], &head(RESPONSE, &[0; 4]), &head(BIND, &[0; 12]), &first_of_more, &unnumbered]
        {
            assert!(Results::of(garbage).is_err(), "{garbage:?}");
        }
        let accepted = [&[0; 8][..], &[3, 0, b'a', b'b', 0, 0, 0, 0], &[1, 0, 0, 0], &[0, 0, 0, 0]].concat();
        assert!(is_bound(&head(BIND_ACCEPTED, &accepted)));
        let refused = [&[0; 8][..], &[3, 0, b'a', b'b', 0, 0, 0, 0], &[1, 0, 0, 0], &[2, 0, 0, 0]].concat();
        assert!(!is_bound(&head(BIND_ACCEPTED, &refused)) && !is_bound(&[]) && !is_bound(&head(FAULT, &accepted)));
    }
}
