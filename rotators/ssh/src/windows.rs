//! A Windows host's OpenSSH: PowerShell changes the password through the
//! system's own directory interface (ADSI, provider `WinNT`). The script is
//! constant and stands in the command line; login and passwords come on
//! standard input, a line of base64 each.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use turnlock_kit::{Done, Fault, Kind, Secret, Threshold};
use turnlock_secureshell::{Ran, Session};
use zeroize::Zeroizing;

use crate::Account;

/// `IADsUser::ChangePassword` where the current password is known, else
/// `IADsUser::SetPassword`. Tells `done`, or the error's low word: a Win32 or
/// NERR code (Microsoft, "ADSI Error Codes").
const SCRIPT: &str = r#"$ErrorActionPreference = 'Stop'
function Read-Text { [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String([Console]::In.ReadLine())) }
try {
    $login = Read-Text; $current = Read-Text; $next = Read-Text
    $domain, $name = if ($login.Contains('\')) { $login.Split('\', 2) } else { $env:COMPUTERNAME, $login }
    $user = [ADSI]"WinNT://$domain/$name,user"
    if ($current) { $user.psbase.Invoke('ChangePassword', $current, $next) }
    else { $user.psbase.Invoke('SetPassword', $next) }
    'turnlock: done'
} catch {
    $fault = $_.Exception
    while ($fault.InnerException) { $fault = $fault.InnerException }
    'turnlock: ' + ($fault.HResult -band 0xffff)
    exit 1
}
"#;

/// Changes it. The script that refuses has changed nothing: both calls are one
/// request to the account database.
pub(crate) async fn change(
    session: &Session,
    account: &Account,
    current: Option<&Secret>,
    next: &Secret,
    threshold: Threshold,
) -> Result<Done, Fault> {
    // A login is part of a path there.
    if account.login.contains(['/', ',', '\0', '\n']) {
        return Err(Fault::new(Kind::InvalidInput, format!("\"{}\" is no login of a Windows host", account.login)));
    }
    let mut lines = Zeroizing::new(String::new());
    for text in [account.login.as_str(), current.map_or("", in_clear), in_clear(next)] {
        let encoded = Zeroizing::new(STANDARD.encode(text));
        lines.push_str(&encoded);
        lines.push('\n');
    }
    let command = command();
    let crossed = threshold.cross().await?;
    let ran = session.run(&command, lines.as_bytes()).await?;
    match told(&ran) {
        Some("done") => Ok(crossed.done()),
        Some(code) => {
            let fault = refusal(account, code.parse().unwrap_or(0));
            Err(if fault.kind == Kind::Internal { fault } else { crossed.definitely_refused(fault) })
        }
        None => {
            let mut fault =
                Fault::new(Kind::Internal, format!("PowerShell at {} did not end with an answer", account.host));
            fault.causes.extend(String::from_utf8_lossy(&ran.stderr).lines().take(10).map(str::to_owned));
            Err(fault)
        }
    }
}

fn in_clear(secret: &Secret) -> &str {
    #[expect(clippy::disallowed_methods, reason = "PowerShell reads it from its standard input")]
    secret.expose()
}

/// PowerShell takes a script as base64 of UTF-16, and so no shell touches it.
fn command() -> String {
    let utf16: Vec<u8> = SCRIPT.encode_utf16().flat_map(u16::to_le_bytes).collect();
    format!("powershell -NoProfile -NonInteractive -EncodedCommand {}", STANDARD.encode(utf16))
}

/// The script's own last word.
fn told(ran: &Ran) -> Option<&str> {
    let said = std::str::from_utf8(&ran.stdout).ok()?;
    said.lines().rev().find_map(|line| line.trim().strip_prefix("turnlock: "))
}

/// Microsoft, "System Error Codes" and "Network Management Error Codes".
fn refusal(account: &Account, code: u32) -> Fault {
    let who = format!("\"{}\" at {}", account.login, account.host);
    let (kind, what) = match code {
        86 | 1326 => (Kind::Authentication, format!("the host refused the current password of {who}")),
        5 => (Kind::Permission, format!("the password of {who} may not be changed by this log-in")),
        2221 | 1317 => (Kind::NotFound, format!("there is no account {who}")),
        2245 | 1325 | 2243 | 2244 | 2246 => (Kind::Policy, format!("the host refuses this password for {who}")),
        1909 => (Kind::LockedOut, format!("the account of {who} is locked")),
        1331 | 1793 => (Kind::Permission, format!("the account of {who} is disabled or has expired")),
        _ => (Kind::Internal, format!("changing the password of {who} failed")),
    };
    let mut fault = Fault::new(kind, what);
    fault.causes.push(format!("error {code}"));
    fault
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_constant_and_short_enough_for_cmd() {
        assert!(command().len() < 8_000, "{}", command().len());
        assert!(command().bytes().all(|byte| byte.is_ascii_alphanumeric() || b" -+/=".contains(&byte)));
    }

    #[test]
    fn the_scripts_answer_is_found_among_other_lines() {
        let ran = |text: &str| Ran { stdout: text.as_bytes().to_vec(), ..Ran::default() };
        assert_eq!(told(&ran("Welcome\r\nturnlock: done\r\n")), Some("done"));
        assert_eq!(told(&ran("turnlock: 2245\r\n")), Some("2245"));
        assert_eq!(told(&ran("done\n")), None);
    }
}
