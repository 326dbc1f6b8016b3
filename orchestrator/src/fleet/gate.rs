//! How many may be at one host or of one plugin at once, and how fast they may
//! follow each other.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use turnlock_protocol::Kind;

use super::scheduler::May;
use super::{Kindness, Rules, Site};
use crate::failure::Failure;

/// The gates of all hosts and plugins.
#[derive(Debug)]
pub(super) struct Gates {
    gates: Vec<Gate>,
    hosts: HashMap<String, usize>,
    plugins: HashMap<String, usize>,
    per_host: usize,
    said_of_hosts: HashMap<String, Kindness>,
    said_of_plugins: HashMap<String, Kindness>,
}

#[derive(Debug)]
struct Gate {
    at_once: usize,
    flying: usize,
    /// The time between two beginnings.
    apart: Option<Duration>,
    closed_until: Option<Instant>,
}

impl Gates {
    pub(super) fn new(rules: &Rules) -> Self {
        Self {
            gates: Vec::new(),
            hosts: HashMap::new(),
            plugins: HashMap::new(),
            per_host: rules.per_host.max(1),
            said_of_hosts: rules.hosts.iter().map(|(name, said)| (name.clone(), *said)).collect(),
            said_of_plugins: rules.plugins.iter().map(|(name, said)| (name.clone(), *said)).collect(),
        }
    }

    /// The gates of a site: its host's and its plugin's.
    pub(super) fn of(&mut self, site: &Site) -> (usize, usize) {
        // A plugin without hosts is one service, and its own host.
        let name = if site.host.is_empty() { &site.plugin } else { &site.host };
        let said = self.said_of_hosts.get(name).copied().unwrap_or_default();
        let host = add(&mut self.gates, &mut self.hosts, name, said, self.per_host);
        let said = self.said_of_plugins.get(&site.plugin).copied().unwrap_or_default();
        let plugin = add(&mut self.gates, &mut self.plugins, &site.plugin, said, usize::MAX);
        (host, plugin)
    }

    /// Whether a gate lets one more through.
    pub(super) fn may_begin(&self, gate: usize, now: Instant) -> May {
        let Some(gate) = self.gates.get(gate) else { return May::NotYet };
        match gate.closed_until.filter(|until| *until > now) {
            _ if gate.flying >= gate.at_once => May::NotYet,
            Some(until) => May::NotBefore(until),
            None => May::Begin,
        }
    }

    pub(super) fn began(&mut self, gates: [usize; 2], now: Instant) {
        for gate in gates {
            if let Some(gate) = self.gates.get_mut(gate) {
                gate.flying += 1;
                if let Some(apart) = gate.apart {
                    // Counted from when it was open, or a busy machine would be slower than the rate.
                    let since = gate.closed_until.filter(|until| now.duration_since(*until) < apart).unwrap_or(now);
                    gate.closed_until = Some(since + apart);
                }
            }
        }
    }

    /// One has ended. A target that asks to slow down is listened to.
    pub(super) fn ended(&mut self, gates: [usize; 2], failure: Option<&Failure>, now: Instant) {
        for gate in gates {
            if let Some(gate) = self.gates.get_mut(gate) {
                gate.flying = gate.flying.saturating_sub(1);
            }
        }
        if let Some(pause) = failure.filter(|failure| failure.kind == Some(Kind::RateLimited)).and_then(|one| one.again)
            && let Some(host) = gates.first().and_then(|host| self.gates.get_mut(*host))
        {
            host.closed_until = host.closed_until.max(Some(now + pause));
        }
    }
}

fn add(gates: &mut Vec<Gate>, known: &mut HashMap<String, usize>, name: &str, said: Kindness, at_once: usize) -> usize {
    if let Some(known) = known.get(name) {
        return *known;
    }
    let at_once = said.at_once.map_or(at_once, |at_once| at_once.max(1));
    gates.push(Gate { at_once, flying: 0, apart: said.rate.map(|rate| rate.apart), closed_until: None });
    known.insert(name.to_owned(), gates.len() - 1);
    gates.len() - 1
}
