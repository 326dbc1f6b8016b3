//! Whether Active Directory will let somebody change a password, read from the
//! account's access list the way a controller reads it (MS-ADTS 5.1.3, MS-DTYP
//! 2.4.4 and 2.4.6), so that `check` need not try.

use ldap3::controls::RawControl;
use ldap3::{Scope, SearchEntry};

use crate::session::Session;

/// The extended right "Reset Password" (MS-ADTS 5.1.3.2.1), as it lies in an access list.
const RESET: [u8; 16] =
    [0x70, 0x95, 0x29, 0x00, 0x6d, 0x24, 0xd0, 0x11, 0xa7, 0x68, 0x00, 0xaa, 0x00, 0x6e, 0x05, 0x29];
/// The extended right "Change Password".
const CHANGE: [u8; 16] =
    [0x53, 0x1a, 0x72, 0xab, 0x2f, 0x1e, 0xd0, 0x11, 0x98, 0x19, 0x00, 0xaa, 0x00, 0x40, 0x52, 0x9b];

/// Everyone, and whoever has logged in.
const ALWAYS: [&[u8]; 2] = [&[1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], &[1, 1, 0, 0, 0, 0, 0, 5, 11, 0, 0, 0]];
/// The account that the list belongs to.
const SELF: &[u8] = &[1, 1, 0, 0, 0, 0, 0, 5, 10, 0, 0, 0];

/// Asks only for the access list, not for the owner or the audit list, which
/// nobody but an administrator may read (MS-ADTS 3.1.1.3.4.1.11).
fn access_list_alone() -> RawControl {
    RawControl { ctype: "1.2.840.113556.1.4.801".to_owned(), crit: true, val: Some(vec![0x30, 3, 2, 1, 4]) }
}

/// Whether who is logged in may change (its own) or reset (another's) password.
/// Nothing where the directory does not show it.
pub(crate) async fn may_change(session: &mut Session, dn: &str, is_reset: bool) -> Option<bool> {
    let mut groups = values(session, "", "tokenGroups").await?;
    groups.extend(ALWAYS.map(<[u8]>::to_vec));
    if !is_reset {
        groups.push(SELF.to_vec());
    }
    session.ldap().with_controls(vec![access_list_alone()]);
    let descriptor = values(session, dn, "nTSecurityDescriptor").await?;
    granted(descriptor.first()?, &groups, if is_reset { &RESET } else { &CHANGE })
}

/// The values of an attribute as bytes.
async fn values(session: &mut Session, dn: &str, attribute: &str) -> Option<Vec<Vec<u8>>> {
    let found = session.ldap().search(dn, Scope::Base, "(objectClass=*)", [attribute]).await.ok()?;
    let entry = SearchEntry::construct(found.0.into_iter().next()?);
    let binary = entry.bin_attrs.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(attribute));
    let text = entry.attrs.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(attribute));
    let binary = binary.map(|(_, values)| values).unwrap_or_default();
    let text = text.map(|(_, values)| values).unwrap_or_default();
    Some(binary.into_iter().chain(text.into_iter().map(String::into_bytes)).collect())
}

/// Whether the list of a security descriptor grants an extended right to one of these.
fn granted(descriptor: &[u8], groups: &[Vec<u8>], right: &[u8; 16]) -> Option<bool> {
    const PRESENT: u16 = 0x4;
    const INHERIT_ONLY: u8 = 0x8;
    const CONTROL_ACCESS: u32 = 0x100;
    const GENERIC_ALL: u32 = 0x1000_0000;
    if u16::from_le_bytes(at(descriptor, 2)?) & PRESENT == 0 {
        return Some(true);
    }
    let start = usize::try_from(u32::from_le_bytes(at(descriptor, 16)?)).ok()?;
    let list = descriptor.get(start..)?;
    let mut entries = list.get(8..)?;
    // The first entry that speaks of one of them and of the right decides.
    for _ in 0..u16::from_le_bytes(at(list, 4)?) {
        let [kind, flags] = at(entries, 0)?;
        let size = usize::from(u16::from_le_bytes(at(entries, 2)?));
        let (entry, rest) = entries.split_at_checked(size)?;
        entries = rest;
        let mask = u32::from_le_bytes(at(entry, 4)?);
        let (allows, of_objects) = match kind {
            0 => (true, false),
            1 => (false, false),
            5 => (true, true),
            6 => (false, true),
            _ => continue,
        };
        if flags & INHERIT_ONLY != 0 || mask & (CONTROL_ACCESS | GENERIC_ALL) == 0 {
            continue;
        }
        let mut who = 8;
        if of_objects {
            let present = u32::from_le_bytes(at(entry, 8)?);
            who = 12 + 16 * usize::try_from((present & 3).count_ones()).ok()?;
            if present & 1 != 0 && at::<16>(entry, 12)? != *right {
                continue;
            }
        }
        let who = entry.get(who..)?;
        let length = 8 + 4 * usize::from(*who.get(1)?);
        if groups.iter().any(|group| who.get(..length) == Some(group)) {
            return Some(allows);
        }
    }
    Some(false)
}

fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.get(..N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELPDESK: &[u8] = &[1, 1, 0, 0, 0, 0, 0, 5, 99, 0, 0, 0];

    fn entry(kind: u8, flags: u8, mask: u32, right: Option<&[u8; 16]>, who: &[u8]) -> Vec<u8> {
        let object: Vec<u8> = right.map(|right| [&1u32.to_le_bytes()[..], right].concat()).unwrap_or_default();
        let size = u16::try_from(8 + object.len() + who.len()).unwrap();
        [&[kind, flags][..], &size.to_le_bytes(), &mask.to_le_bytes(), &object, who].concat()
    }

    fn descriptor(entries: &[Vec<u8>]) -> Vec<u8> {
        let body = entries.concat();
        let size = u16::try_from(8 + body.len()).unwrap();
        let count = u16::try_from(entries.len()).unwrap();
        let list = [&[4, 0][..], &size.to_le_bytes(), &count.to_le_bytes(), &[0, 0], &body].concat();
        [&[1, 0, 4, 0x80][..], &[0; 12], &20u32.to_le_bytes(), &list].concat()
    }

    #[test]
    fn the_first_entry_that_speaks_of_it_decides() {
        let groups = [HELPDESK.to_vec()];
        let of = |entries: &[Vec<u8>]| granted(&descriptor(entries), &groups, &RESET);
        let allow = entry(5, 0, 0x100, Some(&RESET), HELPDESK);
        let deny = entry(6, 0, 0x100, Some(&RESET), HELPDESK);
        assert_eq!(of(&[]), Some(false));
        assert_eq!(of(std::slice::from_ref(&allow)), Some(true));
        assert_eq!(of(&[deny.clone(), allow.clone()]), Some(false));
        assert_eq!(of(&[allow.clone(), deny]), Some(true));
        assert_eq!(of(&[entry(5, 0, 0x100, Some(&CHANGE), HELPDESK)]), Some(false));
        assert_eq!(of(&[entry(5, 8, 0x100, Some(&RESET), HELPDESK)]), Some(false), "only for those below");
        assert_eq!(of(&[entry(5, 0, 0x100, Some(&RESET), SELF)]), Some(false));
        assert_eq!(of(&[entry(5, 0, 0x20, Some(&RESET), HELPDESK)]), Some(false));
        assert_eq!(of(&[entry(0, 0, 0xf_01ff, None, HELPDESK)]), Some(true));
        assert_eq!(of(&[entry(17, 0, 0x100, None, HELPDESK), allow.clone()]), Some(true), "no access entry");
        let whole = descriptor(&[allow]);
        assert_eq!(granted(&[1, 0, 0, 0x80], &groups, &RESET), Some(true), "no list grants everything");
        for cut in 3..whole.len() {
            assert_ne!(granted(&whole[..cut], &groups, &RESET), Some(true), "{cut}");
        }
    }
}
