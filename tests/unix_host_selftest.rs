//! The lab's Unix hosts do what a test believes of them.

#![expect(clippy::unwrap_used, reason = "a broken expectation of a test program is its failure")]

use std::fs;

use lab::{Passwd, RemoteLogin, UnixHost, UnixHostOptions, process};

fn start(options: UnixHostOptions) -> UnixHost {
    UnixHost::start(options).unwrap()
}

#[test]
fn accounts_of_the_box_are_not_the_machines() {
    let before = ["/etc/passwd", "/etc/shadow", "/etc/group"].map(|path| fs::read(path).unwrap());
    let mut host = start(UnixHostOptions::default());
    host.create_user("app", "Right-One-1").unwrap();
    assert!(host.accepts("app", "Right-One-1").unwrap());
    assert!(!host.accepts("app", "Wrong-One-1").unwrap());
    assert!(!host.accepts("nobody-at-all", "Right-One-1").unwrap());
    assert_eq!(host.failed_logins(), 2, "{}", host.log());
    assert!(host.log().contains("pam_unix(sshd:auth): authentication failure"), "{}", host.log());
    host.restart().unwrap();
    assert!(host.accepts("app", "Right-One-1").unwrap());
    host.set_password("app", "  Two: \\ 'quoted' \"ß\"  ").unwrap();
    assert!(host.accepts("app", "  Two: \\ 'quoted' \"ß\"  ").unwrap());
    drop(host);
    assert_eq!(["/etc/passwd", "/etc/shadow", "/etc/group"].map(|path| fs::read(path).unwrap()), before);
    assert!(!fs::exists("/dev/log").unwrap() || process::find_program("systemctl").is_some());
}

#[test]
fn every_way_of_logging_in_works() {
    for options in [
        UnixHostOptions { keyboard_interactive: true, ..UnixHostOptions::default() },
        UnixHostOptions { remote_login: RemoteLogin::Dropbear, ..UnixHostOptions::default() },
        UnixHostOptions { remote_login: RemoteLogin::None, ..UnixHostOptions::default() },
    ] {
        let name = format!("{options:?}");
        let host = start(options);
        host.create_user("app", "Right-One-1").unwrap();
        assert!(host.accepts("app", "Right-One-1").unwrap(), "{name}");
        assert!(!host.accepts("app", "Wrong-One-1").unwrap(), "{name}");
        assert_eq!(host.failed_logins(), 1, "{name}: {}", host.log());
    }
}

#[test]
fn stand_ins_for_passwd_do_nothing_without_a_terminal() {
    for passwd in [Passwd::Rhel, Passwd::Busybox] {
        let host = start(UnixHostOptions { passwd, ..UnixHostOptions::default() });
        host.create_user("app", "Right-One-1").unwrap();
        let mut blind = host.inside("/usr/bin/passwd".as_ref(), Some("app")).unwrap();
        assert_ne!(process::run(&mut blind, b"Right-One-1\nOther-One-1\nOther-One-1\n").unwrap().status, 0);
        assert!(host.accepts("app", "Right-One-1").unwrap());
    }
}
