//! An account of the very machine that this runs on: Windows' own calls, which
//! need neither its network nor an administrator's password.

#![expect(unsafe_code, reason = "netapi32 is C; both calls only read what they are given")]

use std::ptr;

use turnlock_kit::{Crossed, Done, Fault, Kind, Secret};
use windows_sys::Win32::NetworkManagement::NetManagement::{NetUserChangePassword, NetUserSetInfo, USER_INFO_1003};
use zeroize::Zeroizing;

/// The answers that prove nothing changed: the calls give them while they judge
/// the caller, the old password and the new one (Microsoft: "NetUserChangePassword
/// function", "NetUserSetInfo function"; winerror.h, lmerr.h).
const DEFINITE_REFUSALS: &[u32] = &[5, 86, 1317, 1325, 1327, 1331, 1793, 1909, 2221, 2226, 2245];

/// Changes the password: by the account itself, or, without the old one, by the
/// rights of this process.
pub(crate) fn change(login: &str, old: Option<&Secret>, new: &Secret, crossed: Crossed) -> Result<Done, Fault> {
    let (login_units, new) = (units(login), secret_units(new));
    let answer = match old {
        Some(old) => {
            let old = secret_units(old);
            // SAFETY: three texts that end with a zero and live until the call is over; no domain means this machine.
            unsafe { NetUserChangePassword(ptr::null(), login_units.as_ptr(), old.as_ptr(), new.as_ptr()) }
        }
        None => {
            let information = USER_INFO_1003 { usri1003_password: new.as_ptr().cast_mut() };
            // SAFETY: as above; level 1003 reads this very structure and writes none of it.
            unsafe {
                NetUserSetInfo(
                    ptr::null(),
                    login_units.as_ptr(),
                    1003,
                    ptr::from_ref(&information).cast(),
                    ptr::null_mut(),
                )
            }
        }
    };
    if answer == 0 {
        return Ok(crossed.done());
    }
    let fault = refused(login, answer);
    Err(if DEFINITE_REFUSALS.contains(&answer) { crossed.definitely_refused(fault) } else { fault })
}

fn refused(login: &str, answer: u32) -> Fault {
    let (kind, message, hint) = match answer {
        86 => (Kind::Authentication, format!("Windows refused the old password of \"{login}\""), "correct it"),
        5 => (
            Kind::Permission,
            format!("this process may not change the password of \"{login}\""),
            "run it as an administrator for `elevated`, or let the account change its own password",
        ),
        1317 | 2221 => (Kind::NotFound, format!("this machine has no account \"{login}\""), "correct the login"),
        1325 | 2245 => (
            Kind::Policy,
            format!("Windows refuses this password for \"{login}\", or a change so soon"),
            "the machine's rules decide: length, complexity, history, minimum age",
        ),
        1909 => (Kind::LockedOut, format!("the account \"{login}\" is locked"), "wait, or unlock it"),
        1327 | 1331 | 1793 => (Kind::Permission, format!("the account \"{login}\" is closed"), "open the account"),
        _ => (
            Kind::Unreachable,
            format!("changing the password of \"{login}\" did not end with an answer that says whether it was made"),
            "verify which password works now",
        ),
    };
    let mut fault = Fault::new(kind, message).hint(hint);
    fault.causes.push(format!("Windows error {answer}"));
    fault
}

fn units(text: &str) -> Zeroizing<Vec<u16>> {
    let mut units = Zeroizing::new(Vec::with_capacity(text.len() + 1));
    units.extend(text.encode_utf16().chain([0]));
    units
}

#[expect(clippy::disallowed_methods, reason = "Windows takes the password itself")]
fn secret_units(secret: &Secret) -> Zeroizing<Vec<u16>> {
    units(secret.expose())
}
