//! Accounts of the machine itself, on Windows only: a stand-in for netapi32.dll
//! writes down what it is asked (`tests/lab/windows/netapi32.c` says what that
//! does not prove).

#![cfg(windows)]

#[cfg(test)]
#[path = "../../kit/tests/harness/program.rs"]
mod program;

use std::process::{Command, Stdio};

use program::{Ended, call, kind_and_applied};
use serde_json::{Value, json};

const OLD: &str = "Old-And-Tired-1";
const NEW: &str = "Brand-New-é-2";

/// One operation of the program, and what Windows was asked meanwhile.
#[expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "the one place that starts the program")]
fn apply(account: Value, answer: u32) -> (Ended, String) {
    let calls = tempfile::tempdir().unwrap();
    let calls = calls.path().join("calls");
    let params = json!({
        "protocol": 1, "deadline_ms": 15_000, "attempt": "a-1", "account": account,
        "current": {"password": OLD}, "next": {"password": NEW},
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnlock-windows"));
    command.arg("apply").env("LAB_NETAPI32_CALLS", &calls).env("LAB_NETAPI32_ANSWERS", answer.to_string());
    let ended = call(&mut command, params.to_string(), Stdio::piped());
    (ended, std::fs::read_to_string(&calls).unwrap_or_default())
}

/// Length and FNV-1a hash of a text's UTF-16, as the stand-in writes them.
fn digest(text: &str) -> String {
    let bytes = text.encode_utf16().flat_map(u16::to_le_bytes);
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{}:{hash:016x}", text.encode_utf16().count())
}

#[test]
fn the_account_changes_its_own_password() {
    let (ended, asked) = apply(json!({"login": "app"}), 0);
    assert_eq!(ended.status, 0, "{}{}", ended.stdout, ended.stderr);
    let expected = format!("NetUserChangePassword where=- user=app old={} new={}\n", digest(OLD), digest(NEW));
    assert_eq!(asked.replace("\r\n", "\n"), expected);
}

#[test]
fn this_process_resets_it_where_it_is_told_to() {
    let (ended, asked) = apply(json!({"login": "app", "elevated": true}), 0);
    assert_eq!(ended.status, 0, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(
        asked.replace("\r\n", "\n"),
        format!("NetUserSetInfo where=- user=app level=1003 new={}\n", digest(NEW))
    );
}

#[test]
fn what_windows_answers_is_understood() {
    for (answer, kind, applied) in [
        (86, "authentication", "no"),
        (5, "permission", "no"),
        (2221, "not_found", "no"),
        (2245, "policy", "no"),
        (1325, "policy", "no"),
        (1909, "locked_out", "no"),
        (1331, "permission", "no"),
        (1722, "unreachable", "unknown"),
    ] {
        let (ended, _) = apply(json!({"login": "app"}), answer);
        assert_ne!(ended.status, 0);
        assert_eq!(
            kind_and_applied(&ended.last()),
            (kind.to_owned(), applied.to_owned()),
            "{answer}: {}",
            ended.stdout
        );
        assert!(!(ended.stdout + &ended.stderr).contains(OLD));
    }
}
