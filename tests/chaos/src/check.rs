//! What must hold after every round, asked of the servers themselves.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lab::{LabError, Result, wait_until};
use serde_json::Value;

use crate::{
    campaign::Broken,
    lane::{Lane, PATIENCE},
};

/// After this long an account that locks has forgotten every wrong password.
const BUDGET: Duration = Duration::from_secs(20);

/// The vault's current credential and its note, by login.
pub(crate) type Currents = BTreeMap<String, (String, Option<String>)>;

/// What a person's edits of a round explain.
#[derive(Debug, Default)]
pub(crate) struct Excused {
    /// Records whose password somebody set to a wrong one.
    pub(crate) wrong: Vec<String>,
    /// Notes that were acknowledged, by login.
    pub(crate) notes: BTreeMap<String, String>,
}

/// What the check has seen beside violations.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) questions: u64,
    pub(crate) recovered: u64,
    pub(crate) adopted: u64,
    /// Changes that a target made after they had been given up.
    pub(crate) late: u64,
    pub(crate) converged: Option<Duration>,
}

/// What `turnlock status` says.
struct Status {
    /// Records with something open, and why they are parked if they are.
    open: BTreeMap<String, Option<String>>,
    /// The vault has to be adopted first.
    doubted: bool,
}

impl Lane {
    /// The promise at this instant, then that everything converges.
    pub(crate) fn check(&mut self, excused: &Excused, seen: &mut Seen) -> Result<Option<Broken>> {
        let locked = self.target.locked()?;
        if !locked.is_empty() {
            return Ok(Some(Broken::LockedOut(format!("the target has locked {}", locked.join(", ")))));
        }
        if let Some(broken) = self.nothing_is_lost(seen)? {
            return Ok(Some(broken));
        }
        if let Some(broken) = self.converges(excused, seen)? {
            return Ok(Some(broken));
        }
        self.vault_and_target_agree(excused, seen)
    }

    /// For every account something in the vault opens it.
    fn nothing_is_lost(&mut self, seen: &mut Seen) -> Result<Option<Broken>> {
        let currents = self.currents()?;
        for login in self.refused(&currents, seen)? {
            let held = self.held(&login)?;
            if self.newest_alive(&login, &held, seen)?.is_none() {
                return Ok(Some(Broken::Lost(format!(
                    "{login}: the target accepts none of the {} secrets in the vault",
                    held.len() + 1
                ))));
            }
        }
        Ok(None)
    }

    /// `recover` settles everything, as far as no person is needed; people are
    /// needed only where people edited.
    fn converges(&mut self, excused: &Excused, seen: &mut Seen) -> Result<Option<Broken>> {
        let begun = Instant::now();
        let mut was_open = false;
        loop {
            let status = self.status()?;
            if status.doubted {
                self.adopt()?;
                seen.adopted += 1;
                continue;
            }
            if status.open.is_empty() {
                break;
            }
            was_open = true;
            if let Some((login, reason)) =
                status.open.iter().find_map(|(login, parked)| Some((login, parked.as_ref()?)))
            {
                if !excused.wrong.contains(login) {
                    let accepted = self.accepted(login, seen)?;
                    return Ok(Some(Broken::Parked(format!("{login} needs a person: {reason}; {accepted}"))));
                }
                self.decide(login)?;
            }
            let recovered = self.run(&["recover", "--wait", "-o", "json"], "")?;
            seen.recovered += recovered.stdout.matches("\"outcome\":").count() as u64;
            if begun.elapsed() > PATIENCE {
                let mut accepted = String::new();
                for login in status.open.keys() {
                    accepted += &format!("{login}: {}; ", self.accepted(login, seen)?);
                }
                return Ok(Some(Broken::Stuck(format!(
                    "after {PATIENCE:?} without faults still open: {accepted}recover says {}{}",
                    recovered.stdout, recovered.stderr
                ))));
            }
            if !recovered.succeeded() {
                // What only time can tell, such as a budget's window, needs some.
                drop(wait_until::<()>("a moment", Duration::from_millis(200), || None));
            }
        }
        if was_open {
            seen.converged = Some(begun.elapsed());
        }
        Ok(None)
    }

    /// The current credential works, the vault is whole, and no edit was lost.
    fn vault_and_target_agree(&mut self, excused: &Excused, seen: &mut Seen) -> Result<Option<Broken>> {
        let mut currents = self.currents()?;
        let mut refused = self.refused(&currents, seen)?;
        if !refused.is_empty() {
            for login in &refused {
                let held = self.held(login)?;
                let alive = self.newest_alive(login, &held, seen)?;
                // A target may make a change long after everybody gave it up. Then its candidate is among the
                // abandoned ones, and a command that asks for these finds it.
                let is_late = alive.as_ref().is_some_and(|alive| alive.contains("(abandoned)"));
                if is_late || excused.wrong.contains(login) {
                    self.run(&["verify", login, "--try-history"], "")?;
                }
                if excused.wrong.contains(login) {
                    self.restore(login, alive.as_deref())?;
                } else if is_late {
                    seen.late += 1;
                }
            }
            currents = self.currents()?;
            refused = self.refused(&currents, seen)?;
        }
        if let Some(login) = refused.first() {
            let held = self.held(login)?;
            let alive = self.newest_alive(login, &held, seen)?;
            return Ok(Some(Broken::Drifted(format!(
                "{login}: nothing is open and the target refuses the current credential; it accepts {}",
                alive.as_deref().unwrap_or("none of the vault's")
            ))));
        }
        for (login, note) in &excused.notes {
            let kept = currents.get(login).and_then(|(_, kept)| kept.as_ref());
            if kept != Some(note) {
                return Ok(Some(Broken::Forgotten(format!("{login}: an edit that was acknowledged is gone"))));
            }
        }
        let checked = self.run(&["vault", "check", "-o", "json"], "")?;
        if !checked.succeeded() {
            return Ok(Some(Broken::Damaged(checked.stdout + &checked.stderr)));
        }
        for (login, (secret, _)) in &currents {
            self.target.tidy(login, secret)?;
        }
        Ok(None)
    }

    /// A person takes back a wrong password: to the one that is known to work, as soon as another log-in may fail.
    fn restore(&mut self, login: &str, alive: Option<&str>) -> Result<()> {
        let number = alive.and_then(|name| name.strip_prefix("past:")?.split(' ').next());
        let mut arguments = vec!["restore", login];
        arguments.extend(number.into_iter().flat_map(|number| ["--number", number]));
        let begun = Instant::now();
        while !self.run(&arguments, "")?.succeeded() && alive.is_some() && begun.elapsed() < BUDGET {
            drop(wait_until::<()>("a moment", Duration::from_millis(500), || None));
        }
        Ok(())
    }

    /// A person decides a parked record whose password a person made wrong.
    fn decide(&mut self, login: &str) -> Result<()> {
        for which in ["candidate", "current"] {
            if self.run(&["resolve", login, "--use", which], "")?.succeeded() {
                return Ok(());
            }
        }
        for number in self.past_numbers(login)? {
            if self.run(&["resolve", login, "--use", &format!("past:{number}")], "")?.succeeded() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Adopts a vault that its machine no longer trusts, as a person would after a power cut: proven if possible.
    fn adopt(&mut self) -> Result<()> {
        if !self.run(&["vault", "adopt"], "")?.succeeded() {
            self.need(&["vault", "adopt", "--unverified"], "")?;
        }
        Ok(())
    }

    fn status(&mut self) -> Result<Status> {
        let status = self.run(&["status", "-o", "json"], "")?;
        let rows = status.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let open = rows
            .filter(|row| text(row, "/state") != Some("finishing"))
            .map(|row| {
                let reason = || text(&row, "/reason").unwrap_or_default().to_owned();
                let parked = (text(&row, "/state") == Some("parked")).then(reason);
                (text(&row, "/title").unwrap_or_default().to_owned(), parked)
            })
            .collect();
        Ok(Status { open, doubted: status.stderr.contains("turnlock vault adopt") })
    }

    /// What the vault holds as current, read from its export.
    pub(crate) fn currents(&mut self) -> Result<Currents> {
        let export: Value = serde_json::from_str(&self.reveal(&["export"])?)
            .map_err(|error| LabError::new(format!("the export is no JSON: {error}")))?;
        let (secret, _) = self.kind.secret();
        let records = export.pointer("/records").and_then(Value::as_array).cloned().unwrap_or_default();
        let currents: Currents = records
            .iter()
            .filter_map(|record| {
                let note = text(record, "/custom_fields/chaos").map(str::to_owned);
                Some((text(record, "/login")?.to_owned(), (text(record, secret)?.to_owned(), note)))
            })
            .collect();
        if currents.len() != self.accounts.len() {
            return Err(LabError::new(format!("the vault exports {} records", currents.len())));
        }
        self.secrets.extend(currents.values().map(|(password, _)| password.clone()));
        Ok(currents)
    }

    /// The logins whose current credential the target refuses.
    fn refused(&mut self, currents: &Currents, seen: &mut Seen) -> Result<Vec<String>> {
        let questions: Vec<(String, String)> =
            currents.iter().map(|(login, (password, _))| (login.clone(), password.clone())).collect();
        seen.questions += questions.len() as u64;
        // A server that has just come back may need another moment.
        let mut last = Ok(Vec::new());
        let answered = wait_until("the target to answer", PATIENCE, || {
            last = self.target.accept(&questions);
            last.is_ok().then_some(())
        });
        let answers = last.or_else(|error| answered.and(Err(error)))?;
        let refused = questions.into_iter().zip(answers).filter(|(_, accepted)| !accepted);
        let refused: Vec<String> = refused.map(|((login, _), _)| login).collect();
        for login in &refused {
            self.target.unlock(login)?;
        }
        Ok(refused)
    }

    /// Candidates, staged and abandoned, and what was current once: with what each is called.
    fn held(&mut self, login: &str) -> Result<Vec<(String, String)>> {
        let shown = self.reveal(&["show", login, "--stage", "--history", "--reveal", "-o", "json"])?;
        let (_, secret) = self.kind.secret();
        let (candidate, credential) = (format!("/candidate/{secret}"), format!("/credential/{secret}"));
        let mut held = Vec::new();
        for row in shown.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let staged = text(&row, &candidate).map(|secret| ("a staged one".to_owned(), secret));
            let name = || format!("past:{} ({})", number(&row).unwrap_or(0), text(&row, "/kind").unwrap_or("?"));
            let past = text(&row, &credential).map(|secret| (name(), secret));
            held.extend(staged.into_iter().chain(past).map(|(name, secret)| (name, secret.to_owned())));
        }
        self.secrets.extend(held.iter().map(|(_, secret)| secret.clone()));
        Ok(held)
    }

    /// What the first of these that the target accepts is called.
    fn newest_alive(&self, login: &str, held: &[(String, String)], seen: &mut Seen) -> Result<Option<String>> {
        for (name, secret) in held {
            seen.questions += 1;
            if self.target.accepts(login, secret)? {
                return Ok(Some(name.clone()));
            }
            self.target.unlock(login)?;
        }
        Ok(None)
    }

    /// What of an account's secrets the target accepts, for people.
    fn accepted(&mut self, login: &str, seen: &mut Seen) -> Result<String> {
        let held = self.held(login)?;
        let alive = self.newest_alive(login, &held, seen)?;
        let alive = alive.as_deref().unwrap_or("none but perhaps the current one");
        Ok(format!("the target accepts {alive} of {:?}", held.iter().map(|(name, _)| name).collect::<Vec<_>>()))
    }

    fn past_numbers(&self, login: &str) -> Result<Vec<u64>> {
        let shown = self.reveal(&["show", login, "--history", "-o", "json"])?;
        let rows = shown.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(rows.filter_map(|row| number(&row)).collect())
    }

    /// Reads everything that is in the vault, for the search after it.
    pub(crate) fn learn_every_secret(&mut self) -> Result<()> {
        self.currents()?;
        let logins: Vec<String> = self.accounts.iter().map(|account| account.login.clone()).collect();
        logins.iter().try_for_each(|login| self.held(login).map(drop))
    }
}

fn text<'a>(row: &'a Value, place: &str) -> Option<&'a str> {
    row.pointer(place).and_then(Value::as_str)
}

fn number(row: &Value) -> Option<u64> {
    row.pointer("/number").and_then(Value::as_u64)
}
