//! What a directory adds to its answers about passwords: the response control
//! of password policies (draft-behera-ldap-password-policy), as OpenLDAP,
//! 389 Directory Server and their kin send it.

use ldap3::controls::RawControl;

/// The control's number, in requests and in answers.
pub(crate) const CONTROL: &str = "1.3.6.1.4.1.42.2.27.8.5.1";

/// Asks for the control.
pub(crate) fn wanted() -> RawControl {
    RawControl { ctype: CONTROL.to_owned(), crit: false, val: None }
}

/// Why a policy says no, or what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Complaint {
    Expired,
    Locked,
    ChangeAfterReset,
    ChangeNotAllowed,
    OldPasswordNeeded,
    TooWeak,
    TooShort,
    TooYoung,
    InHistory,
}

impl Complaint {
    /// In words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Expired => "the password has expired",
            Self::Locked => "the account is locked",
            Self::ChangeAfterReset => "the password must be changed after a reset",
            Self::ChangeNotAllowed => "the policy lets nobody change this password",
            Self::OldPasswordNeeded => "the policy wants the old password with every change (pwdSafeModify)",
            Self::TooWeak => "the password's quality is insufficient",
            Self::TooShort => "the password is too short",
            Self::TooYoung => "the password was changed too recently (pwdMinAge)",
            Self::InHistory => "the password was used before (pwdInHistory)",
        }
    }
}

/// What the control says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Seconds until the password expires.
    pub(crate) expires_in: Option<u32>,
    /// How many log-ins an expired password is still good for.
    pub(crate) grace: Option<u32>,
    /// What is wrong.
    pub(crate) complaint: Option<Complaint>,
}

impl Said {
    /// Reads the control's value: `SEQUENCE { [0] CHOICE { [0], [1] } OPTIONAL, [1] ENUMERATED OPTIONAL }`.
    pub(crate) fn read(value: &[u8]) -> Self {
        let mut said = Self::default();
        let Some((0x30, mut fields, _)) = element(value) else { return said };
        while let Some((tag, content, rest)) = element(fields) {
            fields = rest;
            match (tag, element(content)) {
                (0xa0, Some((0x80, seconds, _))) => said.expires_in = Some(number(seconds)),
                (0xa0, Some((0x81, logins, _))) => said.grace = Some(number(logins)),
                (0x81, _) => said.complaint = complaint(number(content)),
                _ => {}
            }
        }
        said
    }
}

fn complaint(number: u32) -> Option<Complaint> {
    Some(match number {
        0 => Complaint::Expired,
        1 => Complaint::Locked,
        2 => Complaint::ChangeAfterReset,
        3 => Complaint::ChangeNotAllowed,
        4 => Complaint::OldPasswordNeeded,
        5 => Complaint::TooWeak,
        6 => Complaint::TooShort,
        7 => Complaint::TooYoung,
        8 => Complaint::InHistory,
        _ => return None,
    })
}

/// One element of BER: tag, content, and what follows. The control is far too
/// short for a length of more than one byte.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, bytes) = bytes.split_first()?;
    let (length, bytes) = bytes.split_first()?;
    let (content, rest) = bytes.split_at_checked(usize::from(*length)).filter(|_| *length < 0x80)?;
    Some((*tag, content, rest))
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0u32, |sum, byte| sum.wrapping_shl(8) | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_is_read() {
        assert_eq!(Said::read(&[0x30, 0]), Said::default());
        let expires = Said::read(&[0x30, 6, 0xa0, 4, 0x80, 2, 0x01, 0x2c]);
        assert_eq!(expires, Said { expires_in: Some(300), ..Said::default() });
        let grace = Said::read(&[0x30, 8, 0xa0, 3, 0x81, 1, 2, 0x81, 1, 0]);
        assert_eq!(grace, Said { grace: Some(2), complaint: Some(Complaint::Expired), expires_in: None });
        for garbage in [&[][..], &[0x30], &[0x30, 9, 1], &[0x30, 0x81, 3, 0x81, 1, 1], &[0x31, 3, 0x81, 1, 1]] {
            assert_eq!(Said::read(garbage), Said::default(), "{garbage:?}");
        }
        assert_eq!(Said::read(&[0x30, 3, 0x81, 1, 99]).complaint, None);
    }
}
