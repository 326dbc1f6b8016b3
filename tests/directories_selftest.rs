//! The lab's directories keep their own promises: they start, tell right from
//! wrong passwords, take hostile names, enforce their policies, and are gone
//! afterwards.

#![expect(clippy::print_stdout, reason = "figures for whoever runs this with --nocapture")]

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use lab::{DomainController, DomainOptions, MINUTE, Openldap, OpenldapOptions, Result};

fn timed<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let done = work();
    println!("{what}: {:.3} s", begun.elapsed().as_secs_f64());
    done
}

const HOSTILE: [&str; 6] =
    ["paren)(cn=*", "back\\slash", "#lead, comma + plus", "spaß ﬁ", " space at both ends ", "\"quoted\" <;=>"];

#[test]
fn openldap_tells_right_from_wrong() -> Result<()> {
    let server = timed("openldap start", || Openldap::start(OpenldapOptions::default()))?;
    server.create("app", "first-one")?;
    assert!(timed("openldap accepts", || server.accepts(&server.dn("app"), "first-one"))?);
    assert_eq!(server.failed_logins(), 0);
    assert!(!server.accepts(&server.dn("app"), "second")?);
    assert!(!server.accepts(&server.dn("nobody"), "first-one")?);
    assert_eq!(server.failed_logins(), 2);
    assert!(server.accepts(server.admin().login, server.admin().password)?);
    for hostile in HOSTILE {
        server.create(hostile, hostile)?;
        assert!(server.accepts(&server.dn(hostile), hostile)?, "{hostile:?} was not let in");
        assert!(!server.accepts(&server.dn(hostile), "other")?);
    }
    server.set_password("app", "third-one")?;
    assert!(server.accepts(&server.dn("app"), "third-one")?);
    assert!(!server.log().contains("third-one"));
    Ok(())
}

#[test]
fn openldap_keeps_its_policy_and_can_be_stopped_and_paused() -> Result<()> {
    let policy = vec![("pwdMaxFailure", "3"), ("pwdLockout", "TRUE"), ("pwdMinLength", "8")];
    let mut server = Openldap::start(OpenldapOptions { policy, ..OpenldapOptions::default() })?;
    server.create("app", "right-one")?;
    let dn = server.dn("app");
    for _ in 0..3 {
        assert!(!server.accepts(&dn, "wrong")?);
    }
    assert!(server.accepts(&dn, "right-one").is_err(), "a locked account gives no answer");
    assert_eq!(server.attribute(&dn, "pwdAccountLockedTime")?.len(), 1);
    server.modify(&dn, "pwdAccountLockedTime", &[])?;
    server.stop()?;
    assert!(server.accepts(&dn, "right-one").is_err(), "a stopped server gives no answer");
    server.restart()?;
    server.pause();
    server.resume();
    assert!(server.accepts(&dn, "right-one")?);
    Ok(())
}

#[test]
fn samba_tells_right_from_wrong() -> Result<()> {
    let controller = timed("domain controller start", || DomainController::start(DomainOptions::default()))?;
    timed("create", || controller.create("app", "First-One-1"))?;
    assert!(timed("domain controller accepts", || controller.accepts("app", "First-One-1"))?);
    assert_eq!(controller.failed_logins(), 0, "{}", controller.log());
    assert!(!controller.accepts("app", "second")?);
    assert_eq!(controller.failed_logins(), 1);
    for hostile in ["paren)(x (y", "#lead & amp", "spaß ﬁ", "o'hara {x} %s"] {
        controller.create(hostile, "First-One-1")?;
        assert!(controller.accepts(hostile, "First-One-1")?, "{hostile:?} was not let in");
        assert!(!controller.accepts(hostile, "other")?);
    }
    controller.set_password("app", "Third-One-3")?;
    assert!(controller.accepts("app", "Third-One-3")?);
    assert!(!controller.log().contains("Third-One-3"));
    Ok(())
}

#[test]
fn samba_tells_every_state_apart() -> Result<()> {
    let policy = vec![("lockoutThreshold", "3"), ("lockoutDuration", MINUTE), ("lockOutObservationWindow", MINUTE)];
    let mut controller = DomainController::start(DomainOptions { policy, ..DomainOptions::default() })?;
    for login in ["locked", "disabled", "expired", "must"] {
        controller.create(login, "First-One-1")?;
    }
    controller.disable("disabled")?;
    controller.expire_account("expired")?;
    controller.demand_change("must")?;
    for _ in 0..3 {
        assert!(!controller.accepts("locked", "wrong")?);
    }
    assert!(controller.accepts("must", "First-One-1")?);
    for (login, code) in [("locked", "775"), ("disabled", "533"), ("expired", "701")] {
        let error = controller.accepts(login, "First-One-1").expect_err("it is neither right nor wrong").to_string();
        assert!(error.contains(&format!("data {code}")), "{login}: {error}");
    }
    assert!(controller.sid("must")?.starts_with("S-1-5-21-"));
    controller.allow("must", "(OD;;CR;ab721a53-1e2f-11d0-9819-00aa0040529b;;WD)")?;
    timed("domain controller stop", || controller.stop())?;
    assert!(controller.accepts("must", "First-One-1").is_err(), "a stopped controller gives no answer");
    timed("domain controller restart", || controller.restart())?;
    assert!(controller.accepts("must", "First-One-1")?);
    Ok(())
}

#[test]
fn a_paused_domain_controller_answers_nothing_and_dies_all_the_same() -> Result<()> {
    let controller = DomainController::start(DomainOptions::default())?;
    controller.create("app", "First-One-1")?;
    controller.pause();
    let mut connection = TcpStream::connect(controller.address()).expect("the kernel accepts");
    connection.set_read_timeout(Some(Duration::from_millis(300))).expect("it is a timeout");
    // A ClientHello that nobody can read would be answered with an alert.
    connection.write_all(b"no TLS at all").expect("the kernel takes it");
    assert!(connection.read(&mut [0; 8]).is_err(), "a paused controller answers");
    controller.resume();
    assert!(controller.accepts("app", "First-One-1")?);
    controller.pause();
    let (place, address) = (controller.ca_path(), controller.address());
    drop(controller);
    assert!(!place.exists());
    // The kernel ends a namespace's processes in its own time.
    lab::wait_until("it to be gone", Duration::from_secs(10), || TcpStream::connect(address).is_err().then_some(()))?;
    Ok(())
}
