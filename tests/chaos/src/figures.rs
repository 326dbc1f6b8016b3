//! What a campaign has seen.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::target::Kind;

/// Counts of everything that came to pass.
#[derive(Debug, Default, Clone)]
pub struct Figures {
    /// Faults that came to pass, by target and by what they are called.
    pub faults: BTreeMap<(Kind, &'static str), u64>,
    /// Rounds.
    pub rounds: u64,
    /// Rotations that ended well at once.
    pub rotated: u64,
    /// Attempts that `recover` settled.
    pub recovered: u64,
    /// Edits of people that were acknowledged.
    pub edits: u64,
    /// Vaults that had to be adopted after a disk had lied or a power cut.
    pub adopted: u64,
    /// Changes that a target made after they had been given up: `verify --try-history` adopted each.
    pub late: u64,
    /// Questions to targets, asked by their vendors' clients.
    pub questions: u64,
    /// How long it took until everything was settled, once nothing failed any more; rounds with something open only.
    pub converged: Vec<Duration>,
    /// All of it.
    pub took: Duration,
}

impl Figures {
    /// All faults, of one target or of every.
    pub fn faults(&self, kind: Option<Kind>) -> u64 {
        let wanted = |of: &Kind| kind.is_none_or(|kind| kind == *of);
        self.faults.iter().filter(|((of, _), _)| wanted(of)).map(|(_, count)| count).sum()
    }

    /// Adds what another part of the campaign has seen.
    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.faults {
            *self.faults.entry(*what).or_default() += count;
        }
        self.rounds += other.rounds;
        self.rotated += other.rotated;
        self.recovered += other.recovered;
        self.edits += other.edits;
        self.adopted += other.adopted;
        self.late += other.late;
        self.questions += other.questions;
        self.converged.extend(&other.converged);
        self.took += other.took;
    }

    /// How long so many percent of the rounds took at most to converge.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.converged.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(place).copied().unwrap_or_default()
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!(
                "{} faults in {} rounds, {:.0} s: {:.1} a second",
                self.faults(None),
                self.rounds,
                self.took.as_secs_f64(),
                self.faults(None) as f64 / self.took.as_secs_f64().max(0.001)
            ),
            format!(
                "{} rotations ended well at once, {} attempts were settled by recover, {} edits kept, {} vaults adopted",
                self.rotated, self.recovered, self.edits, self.adopted
            ),
            format!("{} changes were made after they had been given up, and found again", self.late),
            format!("{} questions to the targets, by their vendors' clients", self.questions),
            format!(
                "time to converge: half within {:.1} s, 95 % within {:.1} s, all within {:.1} s",
                self.percentile(50).as_secs_f64(),
                self.percentile(95).as_secs_f64(),
                self.percentile(100).as_secs_f64()
            ),
        ];
        for (kind, _) in Kind::ALL.into_iter().filter(|(kind, _)| self.faults(Some(*kind)) > 0) {
            lines.push(format!("  {:<12} {}", kind.name(), self.faults(Some(kind))));
        }
        for (name, count) in self.by_name() {
            lines.push(format!("  {name:<36} {count}"));
        }
        lines
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let targets: BTreeMap<&str, u64> =
            Kind::ALL.into_iter().map(|(kind, _)| (kind.name(), self.faults(Some(kind)))).collect();
        json!({"faults": self.faults(None), "targets": targets, "kinds": self.by_name(), "rounds": self.rounds,
            "rotated": self.rotated, "recovered": self.recovered, "edits": self.edits, "adopted": self.adopted, "late": self.late,
            "questions": self.questions, "seconds": self.took.as_secs_f64(), "converged": {
                "rounds": self.converged.len(), "half": self.percentile(50).as_secs_f64(),
                "most": self.percentile(95).as_secs_f64(), "all": self.percentile(100).as_secs_f64()}})
    }

    fn by_name(&self) -> BTreeMap<&'static str, u64> {
        let mut names = BTreeMap::new();
        for ((_, name), count) in &self.faults {
            *names.entry(*name).or_default() += count;
        }
        names
    }
}
