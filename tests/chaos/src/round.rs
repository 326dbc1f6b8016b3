//! One round: runs begin, faults fall, everything ends, and the targets are asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use lab::{Fault, LabError, Result, interposer::Strike, process, shim, wait_until};

use crate::{
    campaign::Broken,
    check::{Excused, Seen},
    figures::Figures,
    lane::{Lane, PATIENCE},
    plan::{Case, Edit, Outage, Step, Struck},
};

/// Seconds that one operation of a rotator may take; no lease lives much longer.
const TIMEOUT: &str = "3";

/// No process that was stopped stays so for longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(12);

/// Something that happens at a time of the round, in milliseconds.
enum Event {
    Begin(usize, bool),
    Edit(usize, Edit),
    Signal { step: usize, victim: Struck, signal: &'static str, pause: u64 },
    Server { step: usize, what: Outage },
    Resume(u32),
    ResumeServer,
    Lock { step: usize, pause: u64 },
}

/// A run of `turnlock` in the background.
struct Run {
    number: usize,
    child: Child,
    said: PathBuf,
    ended: bool,
}

/// Everything that is on during a round.
struct Round<'a> {
    lane: &'a mut Lane,
    case: &'a Case,
    steps: Vec<(usize, Step)>,
    runs: Vec<Run>,
    edits: Vec<(Run, usize, Edit)>,
    lockers: Vec<Child>,
    struck: BTreeSet<usize>,
    excused: Excused,
}

/// Plays one round and asks the target. Whatever came to pass is counted.
pub(crate) fn play(lane: &mut Lane, case: &Case, figures: &mut Figures) -> Result<Option<Broken>> {
    let begun = Instant::now();
    let steps = case.steps();
    let mut round = Round {
        lane,
        case,
        steps,
        runs: Vec::new(),
        edits: Vec::new(),
        lockers: Vec::new(),
        struck: BTreeSet::new(),
        excused: Excused::default(),
    };
    round.arm()?;
    round.happen()?;
    let stuck = round.come_to_an_end()?;
    round.disarm()?;
    let (struck, excused) = (std::mem::take(&mut round.struck), std::mem::take(&mut round.excused));
    let (rotated, steps) = (round.rotated(), std::mem::take(&mut round.steps));

    let mut seen = Seen::default();
    let broken = match stuck {
        Some(stuck) => Some(stuck),
        None => lane.check(&excused, &mut seen)?,
    };
    figures.rounds += 1;
    figures.rotated += rotated;
    figures.recovered += seen.recovered;
    figures.adopted += seen.adopted;
    figures.late += seen.late;
    figures.edits += excused.notes.len() as u64;
    figures.questions += seen.questions;
    figures.converged.extend(seen.converged);
    for fault in steps.iter().filter(|(number, _)| struck.contains(number)).filter_map(|(_, step)| step.fault()) {
        *figures.faults.entry((case.kind, fault)).or_default() += 1;
    }
    figures.took += begun.elapsed();
    Ok(broken)
}

impl Round<'_> {
    /// Lays out the faults that wait for their moment by themselves.
    fn arm(&mut self) -> Result<()> {
        for index in 0..self.lane.accounts.len() {
            let mut script = BTreeMap::new();
            for (_, step) in &self.steps {
                if let Step::Network { account, connection, fault } = step
                    && *account == index
                {
                    script.insert(*connection, *fault);
                }
            }
            let length = script.keys().last().map_or(0, |last| last + 1);
            if let Some(account) = self.lane.accounts.get(index) {
                let fault = |connection| script.get(&connection).copied().unwrap_or(Fault::None);
                account.proxy.script((0..length).map(fault));
            }
        }
        let strikes = self.strikes().into_iter().map(|(_, strike)| strike).collect();
        self.lane.interposer.arm(&self.lane.rotator, strikes)?;
        for name in ["faulty.0", "faulty.1", "faulty.2", "faulty.3"] {
            drop(fs::remove_file(self.lane.file(name)));
        }
        Ok(())
    }

    fn strikes(&self) -> Vec<(usize, Strike)> {
        self.steps
            .iter()
            .filter_map(|(number, step)| match step {
                Step::Message { account, kill, signal, pause } => {
                    let about = self.lane.accounts.get(*account)?.login.clone();
                    Some((*number, Strike { kill: *kill, about, signal: (*signal).to_owned(), pause_ms: *pause }))
                }
                _ => None,
            })
            .collect()
    }

    /// Lets everything happen that has a time, until the last run has ended.
    fn happen(&mut self) -> Result<()> {
        let mut events = vec![(0, Event::Begin(0, false))];
        for (number, step) in &self.steps {
            let step_number = *number;
            match step {
                Step::Run { number, at, wait } => events.push((*at, Event::Begin(*number, *wait))),
                Step::Edit { at, account, what } => events.push((*at, Event::Edit(*account, *what))),
                Step::Signal { at, victim, signal, pause } => {
                    events.push((*at, Event::Signal { step: step_number, victim: *victim, signal, pause: *pause }))
                }
                Step::Server { at, what } => events.push((*at, Event::Server { step: step_number, what: *what })),
                Step::Locked { at, pause } => events.push((*at, Event::Lock { step: step_number, pause: *pause })),
                _ => {}
            }
        }
        let begun = Instant::now();
        loop {
            // The next one; of those at the same time the one that was drawn first.
            let Some(next) = (0..events.len()).min_by_key(|index| events.get(*index).map(|(at, _)| *at)) else {
                return Ok(());
            };
            let (at, event) = events.remove(next);
            let rest = Duration::from_millis(at).saturating_sub(begun.elapsed());
            let has_an_end = matches!(event, Event::Resume(_) | Event::ResumeServer | Event::Begin(..));
            let waited = wait_until("the next event", rest, || (!has_an_end && self.all_ended()).then_some(()));
            if waited.is_ok() && !has_an_end {
                // There is nobody left to whom it could happen.
                continue;
            }
            let now = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            if let Some((after, then)) = self.one(event)? {
                events.push((now + after, then));
            }
        }
    }

    /// One event, and what has to follow after so many milliseconds.
    fn one(&mut self, event: Event) -> Result<Option<(u64, Event)>> {
        match event {
            Event::Begin(number, wait) => self.begin(number, wait)?,
            Event::Edit(account, what) => self.edit(account, what)?,
            Event::Signal { step, victim, signal, pause } => {
                let Some(id) = self.find(victim) else { return Ok(None) };
                process::signal(id, signal);
                self.struck.insert(step);
                if signal == "STOP" {
                    return Ok(Some((pause, Event::Resume(id))));
                }
            }
            Event::Resume(id) => process::signal(id, "CONT"),
            Event::Server { step, what } => {
                self.struck.insert(step);
                match what {
                    Outage::Pause(pause) => {
                        self.lane.target.pause();
                        return Ok(Some((pause, Event::ResumeServer)));
                    }
                    Outage::Restart => self.bring_back(false)?,
                    Outage::Crash => self.bring_back(true)?,
                }
            }
            Event::ResumeServer => self.lane.target.resume(),
            Event::Lock { step, pause } => {
                if self.lock(pause)? {
                    self.struck.insert(step);
                }
            }
        }
        Ok(None)
    }

    fn bring_back(&mut self, crashed: bool) -> Result<()> {
        let target = &mut self.lane.target;
        let mut last = if crashed { target.crash() } else { target.restart() };
        let begun = Instant::now();
        while last.is_err() && begun.elapsed() < PATIENCE {
            last = target.restart();
        }
        last
    }

    fn begin(&mut self, number: usize, wait: bool) -> Result<()> {
        let alone = self.steps.iter().find_map(|(_, step)| match step {
            Step::Alone { account } => self.lane.accounts.get(*account).map(|account| account.login.clone()),
            _ => None,
        });
        let mut arguments = vec!["rotate"];
        match &alone {
            Some(login) => arguments.push(login),
            None => arguments.extend(["--match", ".", "--force", "--jobs", "8"]),
        }
        arguments.extend(["--timeout", TIMEOUT, "-o", "json"]);
        if wait {
            arguments.push("--wait");
        }
        let mut command = self.lane.command(&arguments);
        let faults: Vec<shim::Faulty> = self
            .steps
            .iter()
            .filter_map(|(_, step)| match step {
                Step::Faulty { run, what, .. } if *run == number => Some(*what),
                _ => None,
            })
            .collect();
        if !faults.is_empty() {
            let note = self.lane.file(&format!("faulty.{number}"));
            command.envs(self.lane.faulty.environment(self.lane.turnlock.home(), &note, &faults));
        }
        for (_, step) in &self.steps {
            if let Step::PowerCut { cut } = step {
                let (watched, shadow) = (self.lane.turnlock.vault_directory(), self.lane.file("shadow"));
                let counts = self.lane.file("counts");
                drop(fs::remove_file(&counts));
                command.envs(self.lane.unsynced.environment(&watched, &shadow, Some(*cut), &counts)?);
            }
        }
        let run = self.start(command, number)?;
        self.runs.push(run);
        Ok(())
    }

    fn start(&self, mut command: std::process::Command, number: usize) -> Result<Run> {
        let said = self.lane.file(&format!("tmp/said-{number}"));
        let failed = |error: std::io::Error| LabError::new(format!("could not start turnlock: {error}"));
        let out = File::create(&said).map_err(failed)?;
        command.stdout(out.try_clone().map_err(failed)?).stderr(out);
        let child = command.stdin(Stdio::piped()).spawn().map_err(failed)?;
        Ok(Run { number, child, said, ended: false })
    }

    fn edit(&mut self, account: usize, what: Edit) -> Result<()> {
        let Some(login) = self.lane.accounts.get(account).map(|account| account.login.clone()) else {
            return Ok(());
        };
        let note = format!("chaos={}", self.note(account));
        let command = match what {
            Edit::Note => self.lane.command(&["edit", &login, "--set", &note]),
            Edit::WrongPassword => {
                self.excused.wrong.push(login.clone());
                self.lane.command(&["edit", &login, "--password", "-"])
            }
        };
        let mut run = self.start(command, 100 + account)?;
        if let Some(mut input) = run.child.stdin.take() {
            use std::io::Write;
            drop(writeln!(input, "Wrong-{}", self.note(account)));
        }
        self.edits.push((run, account, what));
        Ok(())
    }

    /// Tells this round's edit from every other one's.
    fn note(&self, account: usize) -> String {
        format!("{:016x}-{account}", self.case.seed)
    }

    /// The process that is meant, if it lives.
    fn find(&mut self, victim: Struck) -> Option<u32> {
        match victim {
            Struck::Run(number) => {
                let run = self.runs.iter_mut().find(|run| run.number == number)?;
                run.id()
            }
            Struck::Rotator(number) => {
                // Behind every stand-in is the rotator itself.
                let stand_ins = process::children(self.runs.first()?.child.id());
                let rotators: Vec<u32> = stand_ins.into_iter().flat_map(process::children).collect();
                rotators.get(number.checked_rem(rotators.len())?).copied()
            }
        }
    }

    /// Another program writes to the vault's file for so long.
    fn lock(&mut self, pause: u64) -> Result<bool> {
        const HOLD: &str = "import sqlite3, sys, time\n\
            db = sqlite3.connect(sys.argv[1], timeout=2, isolation_level=None)\n\
            db.execute('BEGIN IMMEDIATE')\nprint('held', flush=True)\n\
            time.sleep(int(sys.argv[2]) / 1000)\ndb.execute('ROLLBACK')\n";
        let mut python = process::clean_command(process::need_program("python3")?);
        python.args(["-I", "-S", "-c", HOLD]).arg(self.lane.turnlock.vault()).arg(pause.to_string());
        let spawned = python.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = spawned.map_err(|error| LabError::new(format!("could not start python3: {error}")))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            drop(BufReader::new(out).read_line(&mut line));
        }
        self.lockers.push(child);
        Ok(line == "held\n")
    }

    fn all_ended(&mut self) -> bool {
        self.runs.iter_mut().all(Run::has_ended)
    }

    /// Waits for every run, edit and lock, and reads what they said.
    fn come_to_an_end(&mut self) -> Result<Option<Broken>> {
        let begun = Instant::now();
        let ended = wait_until("every run to end", PATIENCE, || {
            let edits = self.edits.iter_mut().all(|(edit, ..)| edit.has_ended());
            if begun.elapsed() > LONGEST_PAUSE {
                // Whoever was to let one go on may have been ended himself by then.
                self.runs.iter_mut().filter_map(Run::id).for_each(|id| process::signal(id, "CONT"));
            }
            (self.all_ended() && edits).then_some(())
        });
        for locker in &mut self.lockers {
            drop(locker.wait());
        }
        if ended.is_err() {
            for run in self.runs.iter_mut().chain(self.edits.iter_mut().map(|(edit, ..)| edit)) {
                drop(run.child.kill());
                drop(run.child.wait());
            }
            return Ok(Some(Broken::Stuck(format!("a run did not end within {PATIENCE:?}"))));
        }
        for (mut edit, account, what) in std::mem::take(&mut self.edits) {
            self.lane.heard.extend(edit.said());
            let acknowledged = edit.child.wait().is_ok_and(|status| status.success());
            if let (true, Edit::Note, Some(of)) = (acknowledged, what, self.lane.accounts.get(account)) {
                let login = of.login.clone();
                let note = self.note(account);
                self.excused.notes.insert(login, note);
            }
        }
        Ok(None)
    }

    /// Ends every fault, and says which came to pass.
    fn disarm(&mut self) -> Result<()> {
        for (index, (number, _)) in self.strikes().into_iter().enumerate() {
            if self.lane.interposer.has_struck(index) {
                self.struck.insert(number);
            }
        }
        for (number, step) in &self.steps {
            let came_to_pass = match step {
                Step::Network { account, connection, fault } if *fault != Fault::None => {
                    let account = self.lane.accounts.get(*account);
                    account.is_some_and(|account| account.proxy.met().contains(connection))
                }
                Step::Faulty { run, what, .. } => {
                    let word = match what {
                        shim::Faulty::Disk { .. } => "disk",
                        shim::Faulty::Lie { .. } => "lie",
                        shim::Faulty::KilledAt { .. } => "kill",
                        shim::Faulty::Clock { .. } => "clock",
                    };
                    let told = fs::read_to_string(self.lane.file(&format!("faulty.{run}"))).unwrap_or_default();
                    told.lines().any(|line| line.ends_with(word))
                }
                Step::PowerCut { .. } => self.runs.first_mut().is_some_and(Run::was_killed),
                _ => false,
            };
            if came_to_pass {
                self.struck.insert(*number);
            }
        }
        for account in &self.lane.accounts {
            account.proxy.script([]);
        }
        self.lane.interposer.arm(&self.lane.rotator, Vec::new())?;
        let power_was_cut = self
            .steps
            .iter()
            .any(|(number, step)| matches!(step, Step::PowerCut { .. }) && self.struck.contains(number));
        if power_was_cut {
            self.wait_for_rotators()?;
            shim::roll_back(&self.lane.turnlock.vault_directory(), &self.lane.file("shadow"))?;
        }
        Ok(())
    }

    /// A machine that loses its power takes its rotators with it; here they have to end
    /// before the disk is rolled back.
    fn wait_for_rotators(&self) -> Result<()> {
        let here = self.lane.file("bin");
        wait_until("the rotators to end", PATIENCE, || {
            let processes = fs::read_dir("/proc").ok()?;
            let alive = processes
                .flatten()
                .any(|entry| fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe.starts_with(&here)));
            (!alive).then_some(())
        })
    }

    /// How many rotations ended well.
    fn rotated(&mut self) -> u64 {
        let mut count = 0;
        for run in &mut self.runs {
            let said = run.said();
            count += String::from_utf8_lossy(&said).matches("\"outcome\":\"rotated\"").count() as u64;
            self.lane.heard.extend(said);
        }
        count
    }
}

impl Run {
    /// Its process, if it lives.
    fn id(&mut self) -> Option<u32> {
        (!self.has_ended()).then(|| self.child.id())
    }

    fn has_ended(&mut self) -> bool {
        self.ended = self.ended || !matches!(self.child.try_wait(), Ok(None));
        self.ended
    }

    fn was_killed(&mut self) -> bool {
        self.child.wait().is_ok_and(|status| process::status_number(status) == 128 + 9)
    }

    fn said(&mut self) -> Vec<u8> {
        fs::read(&self.said).unwrap_or_default()
    }
}
