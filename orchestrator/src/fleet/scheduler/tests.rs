//! The scheduler with a clock that the tests turn: an hour passes in no time.

use std::collections::BTreeMap;

use turnlock_protocol::{Fault, Kind};

use super::super::{AtMost, Kindness, Why};
use super::*;
use crate::record::Uid;

/// How a job ends when it is begun for the n-th time, and after how long.
type Says = Box<dyn Fn(&Job, usize) -> (Duration, Result<(), Failure>)>;

/// Fleet, targets and clock of one test.
struct World {
    scheduler: Scheduler,
    says: Says,
    start: Instant,
    now: Instant,
    /// What flies, by when it lands.
    flying: BTreeMap<(Instant, u64), (Job, Result<(), Failure>)>,
    begun: Vec<(Duration, String)>,
    /// The most that flew at once of all, of each host and of each title.
    most: BTreeMap<String, usize>,
    beside: Vec<(String, String)>,
}

impl World {
    fn new(rules: Rules, says: Says) -> Self {
        Self::with_chance(rules, says, Box::new(|| 1.0))
    }

    fn with_chance(rules: Rules, says: Says, chance: Chance) -> Self {
        let (start, scheduler) = (Instant::now(), Scheduler::new(rules, chance));
        let (flying, begun, most, beside) = Default::default();
        Self { scheduler, says, start, now: start, flying, begun, most, beside }
    }

    fn push(&mut self, title: &str, host: &str) {
        self.push_with(title, host, None);
    }

    fn push_with(&mut self, title: &str, host: &str, admin: Option<&str>) {
        let site = Arc::new(Site { plugin: "noop".to_owned(), host: host.to_owned(), port: 1 });
        let (uid, admin) = (Uid::new(title), admin.map(Uid::new));
        self.scheduler.push(Job { uid, title: title.to_owned(), site, admin, why: Why::Asked }, self.now);
    }

    /// Turns the clock until one record ends.
    fn next(&mut self) -> Option<Ended<()>> {
        loop {
            match self.scheduler.step(self.now) {
                Step::Idle => return None,
                Step::NotDone(not_done) => return Some(not_done.with_outcome()),
                Step::Begin(number, job) => self.begin(number, job),
                Step::Wait(until) => {
                    let lands = self.flying.first_key_value().map(|((at, _), _)| *at);
                    let at = [until, lands].into_iter().flatten().min().expect("something to wait for");
                    assert!(at > self.now || lands == Some(at), "it waits for what has been");
                    self.now = at;
                    if lands == Some(at)
                        && let Some(((_, number), (_, outcome))) = self.flying.pop_first()
                        && let Some(ended) = self.scheduler.land(number, outcome, self.now)
                    {
                        return Some(ended);
                    }
                }
            }
        }
    }

    fn begin(&mut self, number: u64, job: Job) {
        let others = self.flying.values().map(|(other, _)| (job.title.clone(), other.title.clone()));
        self.beside.extend(others);
        self.begun.push((self.now - self.start, job.title.clone()));
        let (takes, outcome) = (self.says)(&job, self.begun(&job.title).len());
        self.flying.insert((self.now + takes, number), (job, outcome));
        let mut flying = BTreeMap::from([("all".to_owned(), self.flying.len())]);
        for (job, _) in self.flying.values() {
            *flying.entry(job.site.host.clone()).or_default() += 1;
        }
        for (name, count) in flying {
            let most = self.most.entry(name).or_default();
            *most = count.max(*most);
        }
    }

    /// Titles with `+` where it was done, `-` where it failed, `?` where it was not tried.
    fn all(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(Ended { job, outcome, .. }) = self.next() {
            let sign = match outcome {
                Outcome::Done(()) => '+',
                Outcome::Failed(_) => '-',
                Outcome::NotTried(_) => '?',
            };
            all.push(format!("{sign}{}", job.title));
        }
        assert!(self.scheduler.is_idle());
        all
    }

    /// The seconds at which a record was begun.
    fn begun(&self, title: &str) -> Vec<u64> {
        self.begun.iter().filter(|(_, name)| name == title).map(|(at, _)| at.as_secs()).collect()
    }

    fn most(&self, name: &str) -> usize {
        self.most.get(name).copied().unwrap_or(0)
    }
}

fn rules(jobs: usize) -> Rules {
    Rules { jobs, ..Rules::default() }
}

/// Everything is done, after a second.
fn fine() -> Says {
    Box::new(|_, _| (Duration::from_secs(1), Ok(())))
}

fn unreachable() -> Failure {
    Fault::new(Kind::Unreachable, "connection refused").into()
}

fn refused() -> Failure {
    Fault::new(Kind::Authentication, "wrong password").into()
}

#[test]
fn a_bounded_number_flies_at_once_and_fewer_at_one_host() {
    let mut world = World::new(Rules { per_host: 2, ..rules(6) }, fine());
    for number in 0..30 {
        world.push(&format!("r{number}"), ["one", "two", "three", "four"][number % 4]);
    }
    assert_eq!(world.all().iter().filter(|one| one.starts_with('+')).count(), 30);
    assert_eq!((world.most("all"), world.most("one")), (6, 2));
}

#[test]
fn a_host_that_has_not_answered_yet_is_asked_once_before_it_is_asked_often() {
    let mut world = World::new(rules(8), fine());
    for number in 0..9 {
        world.push(&format!("r{number}"), "one");
    }
    world.all();
    assert_eq!(world.begun("r0"), [0]);
    assert!((1..9).all(|number| world.begun(&format!("r{number}")) == [1]));
}

#[test]
fn hosts_and_plugins_are_treated_as_they_want() {
    let slowly = Kindness { at_once: None, rate: Some("30/m".parse().unwrap()) };
    let one_by_one = Kindness { at_once: Some(1), rate: None };
    let hosts = [("slow".to_owned(), slowly), ("narrow".to_owned(), one_by_one)].into();
    let mut world = World::new(Rules { hosts, ..rules(16) }, fine());
    for number in 0..5 {
        world.push(&format!("s{number}"), "slow");
        world.push(&format!("n{number}"), "narrow");
    }
    world.all();
    let begun: Vec<u64> = (0..5).flat_map(|number| world.begun(&format!("s{number}"))).collect();
    assert_eq!(begun, [0, 2, 4, 6, 8]);
    assert_eq!(world.most("narrow"), 1);

    let plugins = [("noop".to_owned(), slowly)].into();
    let mut world = World::new(Rules { plugins, ..rules(16) }, fine());
    for number in 0..4 {
        world.push(&format!("r{number}"), &format!("host{number}"));
    }
    world.all();
    let begun: Vec<u64> = (0..4).flat_map(|number| world.begun(&format!("r{number}"))).collect();
    assert_eq!(begun, [0, 2, 4, 6]);
}

#[test]
fn what_failed_for_now_is_tried_again_later_and_what_was_refused_is_not() {
    let says: Says = Box::new(|job, tried| {
        let outcome = match job.title.as_str() {
            "flaky" if tried < 3 => Err(unreachable()),
            "wrong" => Err(refused()),
            "lost" => Err(unreachable().state(State::Unknown)),
            _ => Ok(()),
        };
        (Duration::ZERO, outcome)
    });
    let mut world = World::new(rules(4), says);
    for title in ["flaky", "wrong", "lost"] {
        world.push(title, title);
    }
    let mut all = world.all();
    all.sort();
    assert_eq!(all, ["+flaky", "-lost", "-wrong"]);
    // After one second and after two; the target itself is left alone for longer.
    assert_eq!(world.begun("flaky"), [0, 5, 20]);
    assert_eq!((world.begun("wrong").len(), world.begun("lost").len()), (1, 1));
}

#[test]
fn trying_again_has_a_budget() {
    let says: Says = Box::new(|job, _| {
        // Every target answers somebody, or it would be given up.
        let fails = job.title.starts_with('f');
        (Duration::ZERO, if fails { Err(Failure { again: Some(Duration::ZERO), ..refused() }) } else { Ok(()) })
    });
    let mut world = World::new(rules(4), says);
    for number in 0..100 {
        world.push(&format!("f{number}"), "one");
    }
    assert_eq!(world.all().len(), 100);
    assert_eq!(world.scheduler.tried_again(), 20);
}

#[test]
fn a_target_that_does_not_answer_is_given_up_and_the_others_are_not_held_up() {
    let says: Says = Box::new(|job, _| match job.site.host.as_str() {
        "hangs" => (Duration::from_secs(30), Err(Fault::new(Kind::Timeout, "no answer").into())),
        "dead" => (Duration::ZERO, Err(unreachable())),
        _ => (Duration::from_secs(1), Ok(())),
    });
    let mut world = World::new(rules(4), says);
    for number in 0..50 {
        for host in ["good", "hangs", "dead"] {
            world.push(&format!("{host}{number}"), host);
        }
    }
    let mut last_good = None;
    let mut ends = BTreeMap::<_, usize>::new();
    while let Some(Ended { job, outcome, .. }) = world.next() {
        let sign = match outcome {
            Outcome::Done(()) => "done",
            Outcome::Failed(_) => "failed",
            Outcome::NotTried(NotTried::Target(_)) => "given up",
            Outcome::NotTried(_) => "?",
        };
        if job.site.host == "good" {
            last_good = Some(world.now - world.start);
        }
        *ends.entry((job.site.host.clone(), sign)).or_default() += 1;
    }
    let count = |host: &str, sign: &'static str| ends.get(&(host.to_owned(), sign)).copied().unwrap_or(0);
    assert_eq!(count("good", "done"), 50);
    for host in ["hangs", "dead"] {
        // Each target was asked three times in all, and nobody else was kept waiting for it.
        assert_eq!(count(host, "failed") + count(host, "given up"), 50, "{ends:?}");
        assert!(count(host, "failed") <= 3 && world.most(host) == 1, "{ends:?}");
    }
    assert!(last_good.unwrap() < Duration::from_secs(30), "{last_good:?}");
    assert!(world.now - world.start < Duration::from_secs(180), "{:?}", world.now - world.start);
}

#[test]
fn a_target_that_stops_answering_gets_fewer_and_one_that_answers_again_gets_all() {
    let says: Says = Box::new(|job, _| {
        let number: u32 = job.title.trim_start_matches('r').parse().unwrap();
        // Answers the first ten, then loses some, then is there again.
        let lost = (10..17).contains(&number);
        (Duration::from_secs(1), if lost { Err(Failure { again: None, ..unreachable() }) } else { Ok(()) })
    });
    let mut world = World::new(rules(4), says);
    for number in 0..40 {
        world.push(&format!("r{number}"), "one");
    }
    let all = world.all();
    assert_eq!(all.iter().filter(|one| one.starts_with('-')).count(), 7, "{all:?}");
    assert_eq!(all.iter().filter(|one| one.starts_with('+')).count(), 33, "{all:?}");
}

#[test]
fn a_target_that_asks_to_slow_down_is_listened_to() {
    let says: Says = Box::new(|_, tried| {
        let slow_down = Fault { retry_after_ms: Some(90_000), ..Fault::new(Kind::RateLimited, "slow down") };
        (Duration::ZERO, if tried == 1 { Err(slow_down.into()) } else { Ok(()) })
    });
    let mut world = World::new(rules(1), says);
    world.push("r", "one");
    assert_eq!(world.all(), ["+r"]);
    assert_eq!(world.begun("r"), [0, 90]);
}

#[test]
fn nothing_more_begins_when_too_many_failed_or_somebody_says_stop() {
    let says: Says = Box::new(|_, _| (Duration::from_secs(1), Err(refused())));
    let mut world = World::new(Rules { max_failures: Some(AtMost::Percent(10.0)), ..rules(1) }, says);
    for number in 0..40 {
        world.push(&format!("r{number}"), "one");
    }
    let all = world.all();
    assert_eq!(all.iter().filter(|one| one.starts_with('-')).count(), 5, "one more than four in forty");
    assert_eq!(all.iter().filter(|one| one.starts_with('?')).count(), 35);

    let mut world = World::new(rules(2), fine());
    for number in 0..10 {
        world.push(&format!("r{number}"), &format!("host{number}"));
    }
    assert!(world.next().is_some());
    world.scheduler.stop();
    let rest = world.all();
    // What has begun ends by itself.
    assert_eq!(rest.iter().filter(|one| one.starts_with('+')).count(), 1, "{rest:?}");
    assert_eq!(rest.iter().filter(|one| one.starts_with('?')).count(), 8, "{rest:?}");
}

#[test]
fn an_admin_is_rotated_behind_those_it_administers_and_never_beside_them() {
    let mut world = World::new(rules(8), fine());
    world.push("boss", "one");
    world.push_with("deputy", "two", Some("boss"));
    for number in 0..12 {
        world.push_with(&format!("app{number}"), ["one", "two"][number % 2], Some("deputy"));
    }
    world.push_with("own", "three", Some("own"));
    assert!(world.all().iter().all(|one| one.starts_with('+')));
    let place = |title: &str| world.begun.iter().position(|(_, one)| one == title).unwrap();
    assert_eq!((place("deputy"), place("boss")), (13, 14), "{:?}", world.begun);
    for (one, other) in &world.beside {
        let tied = |admin: &str, ward: &str| {
            admin == "boss" && ward == "deputy" || admin == "deputy" && ward.starts_with("app")
        };
        assert!(!tied(one, other) && !tied(other, one), "{one} beside {other}");
    }
}

#[test]
fn a_circle_of_admins_is_rotated_one_by_one() {
    let mut world = World::new(rules(8), fine());
    for (title, admin) in [("a", "b"), ("b", "c"), ("c", "a")] {
        world.push_with(title, title, Some(admin));
    }
    world.push_with("ward", "w", Some("a"));
    let mut all = world.all();
    all.sort();
    assert_eq!(all, ["+a", "+b", "+c", "+ward"]);
    assert!(world.beside.iter().all(|(one, other)| {
        let circle = ["a", "b", "c"];
        !circle.contains(&one.as_str()) || !circle.contains(&other.as_str())
    }));
}

#[test]
fn jitter_gives_each_record_a_moment_of_its_own() {
    let mut number = 0.0;
    let chance = Box::new(move || {
        number += 0.25;
        number
    });
    let mut world = World::with_chance(Rules { jitter: Duration::from_secs(600), ..rules(4) }, fine(), chance);
    for title in ["a", "b", "c"] {
        world.push(title, title);
    }
    world.all();
    assert_eq!([world.begun("a"), world.begun("b"), world.begun("c")], [vec![150], vec![300], vec![450]]);
}

/// Half of them on one host, half each on its own.
#[test]
fn a_hundred_thousand_records_are_scheduled_without_looking_at_each_other() {
    let mut scheduler = Scheduler::new(rules(16), Box::new(|| 1.0));
    let now = Instant::now();
    let shared = Arc::new(Site { plugin: "noop".to_owned(), host: "one".to_owned(), port: 1 });
    for number in 0..100_000_u32 {
        let host = format!("host{number}");
        let own = || Arc::new(Site { plugin: "noop".to_owned(), host, port: 1 });
        let site = if number % 2 == 0 { Arc::clone(&shared) } else { own() };
        let uid = Uid::new(format!("r{number}"));
        scheduler.push(Job { title: uid.to_string(), uid, site, admin: None, why: Why::Asked }, now);
    }
    let mut flying = VecDeque::new();
    let mut done = 0;
    loop {
        match scheduler.step(now) {
            Step::Begin(number, _) => flying.push_back(number),
            Step::Wait(_) => done += usize::from(scheduler.land(flying.pop_front().unwrap(), Ok(()), now).is_some()),
            Step::NotDone(_) => panic!("nothing fails here"),
            Step::Idle => break,
        }
    }
    assert_eq!(done, 100_000);
}
