//! One page for people: what was rotated, how old every credential is, what
//! needs somebody. It holds no secret, opens offline, and fetches nothing: its
//! own policy forbids it, and any script but its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::charts::{self, Bar, grouped};
use super::{BUCKETS_MS, History, Kept, Overview, PATIENCE};
use crate::vault::{OpenItem, RecordState};

const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

const DAY: i64 = 24 * 3_600;
/// Upper bounds of ages, in days, and their names.
const AGES: [(i64, &str); 6] =
    [(7, "week"), (30, "month"), (91, "3 mo"), (183, "6 mo"), (365, "year"), (730, "2 years")];
/// How many days back are drawn.
const DAYS: i64 = 30;
const SHOWN_FAILURES: usize = 50;

/// The whole page.
pub(crate) fn page(vault: &str, overview: &Overview, history: &History) -> String {
    let now = overview.taken;
    let mut kept: Vec<&Kept> = overview.kept.iter().collect();
    kept.sort_by_cached_key(|kept| (std::cmp::Reverse(urgency(kept, now)), kept.summary.title.to_lowercase()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        digest(STYLE),
        digest(SCRIPT)
    );
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { "Turnlock report, " (day_of(now)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Credentials" }
                    p { bdi { (vault) } " · " (time(now)) }
                }
                main {
                    (tiles(overview, history))
                    (needs(overview))
                    (figures(overview, history))
                    (failures(overview, history))
                    (everything(&kept, now))
                }
                footer { p { "Made by Turnlock " (env!("CARGO_PKG_VERSION")) ". This page holds no secret and fetches nothing." } }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

/// What the browser compares style and script with.
fn digest(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text))
}

fn tiles(overview: &Overview, history: &History) -> Markup {
    let recent = overview.kept.iter().filter_map(|kept| kept.age(overview.taken));
    let recent = recent.filter(|age| age.as_secs() < DAYS * DAY).count();
    let overdue = overview.overdue().count();
    let parked = overview.count(RecordState::Parked);
    let failing = overview.kept.iter().filter(|kept| kept.summary.fate.failed.is_some()).count();
    let all = overview.kept.len();
    let tile = |number: usize, what: &str, more: &str, class: &str| {
        html! {
            li class=(if number == 0 { "" } else { class }) {
                strong { (grouped(number as u64)) }
                span { (what) }
                small { (more) }
            }
        }
    };
    let share = (recent * 100).checked_div(all).unwrap_or(0);
    html! {
        ul.tiles aria-label="At a glance" {
            (tile(all, "credentials", &format!("{} rotations in all", grouped(history.rotated)), "plain"))
            (tile(recent, "renewed in 30 days", &format!("{share} % of all"), "good"))
            (tile(overdue, "overdue", "their time has passed", "warn"))
            (tile(failing, "failing", "the last rotation failed", "bad"))
            (tile(parked, "parked", "a person has to decide", "bad"))
        }
    }
}

fn needs(overview: &Overview) -> Markup {
    if overview.open.is_empty() {
        return html! { p.calm { "Nothing is open: no rotation waits to be settled, cleaned up or told of." } };
    }
    let mut open: Vec<&OpenItem> = overview.open.iter().collect();
    open.sort_by_key(|item| (rank(item.state), item.since));
    html! {
        section {
            h2 { "Open" }
            div.scroll {
                table {
                    thead { tr { th scope="col" { "Record" } th scope="col" { "State" } th scope="col" { "Since" } th scope="col" { "Why" } th scope="col" { "Next step" } } }
                    tbody {
                        @for item in open {
                            tr {
                                th scope="row" { bdi { (item.title) } }
                                td { (state(item.state)) }
                                td { (moment(item.since)) }
                                td { bdi { (item.reason.as_deref().unwrap_or_default()) } }
                                td { code { (next_step(item)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn rank(state: RecordState) -> u8 {
    match state {
        RecordState::Parked => 0,
        RecordState::Open => 1,
        RecordState::Hooks => 2,
        RecordState::Finishing => 3,
        RecordState::Settled => 4,
    }
}

fn state(state: RecordState) -> Markup {
    let (name, class) = match state {
        RecordState::Parked => ("parked", "bad"),
        RecordState::Open => ("not settled", "bad"),
        RecordState::Hooks => ("hooks owed", "warn"),
        RecordState::Finishing => ("clean-up", "plain"),
        RecordState::Settled => return html! {},
    };
    html! { span class={ "badge " (class) } { (name) } }
}

fn next_step(item: &OpenItem) -> String {
    let uid = &item.uid;
    match item.state {
        RecordState::Parked => format!("turnlock show {uid} --stage --history"),
        RecordState::Hooks => format!("turnlock hooks retry {uid}"),
        RecordState::Open | RecordState::Finishing | RecordState::Settled => format!("turnlock recover {uid}"),
    }
}

fn figures(overview: &Overview, history: &History) -> Markup {
    let (ages, never) = ages(overview);
    let days = days(overview.taken, history);
    let durations = durations(history);
    let known: u64 = ages.iter().map(|bar| bar.well + bar.ill).sum();
    let (rotated, failed) = days.iter().fold((0, 0), |(well, ill), bar| (well + bar.well, ill + bar.ill));
    let timed: u64 = history.durations.iter().sum();
    html! {
        section.figures aria-label="Figures" {
            (charts::columns("age", "How old they are", &format!(
                "{known} credentials by age; {never} were not made here"), &ages, true))
            (charts::columns("days", "The last 30 days", &format!(
                "{rotated} rotations and {failed} failures, day by day"), &days, false))
            (charts::columns("time", "Seconds a rotation takes", &format!(
                "{timed} rotations from stage to commit, on average {}", mean(history, timed)), &durations, true))
        }
        p.legend { span.well {} "done" span.ill {} "failed, or older than two years" @if never > 0 { " · " (grouped(never)) " of unknown age" } }
    }
}

/// Credentials by age, and how many of unknown age there are.
fn ages(overview: &Overview) -> (Vec<Bar>, u64) {
    let bar =
        |(_, name): &(i64, &str)| Bar { name: format!("≤ {name}"), label: format!("≤ {name}"), well: 0, ill: 0 };
    let mut bars: Vec<Bar> = AGES.iter().map(bar).collect();
    bars.push(Bar { name: "older than 2 years".to_owned(), label: "older".to_owned(), well: 0, ill: 0 });
    let mut never = 0;
    for kept in &overview.kept {
        let Some(age) = kept.age(overview.taken) else {
            never += 1;
            continue;
        };
        let place = AGES.iter().position(|(days, _)| age.as_secs() <= days * DAY);
        match place.and_then(|place| bars.get_mut(place)) {
            Some(bar) => bar.well += 1,
            None => {
                if let Some(bar) = bars.last_mut() {
                    bar.ill += 1;
                }
            }
        }
    }
    for bar in &mut bars {
        bar.name = format!("{}: {}", bar.name, bar.well + bar.ill);
    }
    (bars, never)
}

fn days(now: Timestamp, history: &History) -> Vec<Bar> {
    let today = now.to_zoned(TimeZone::UTC).date();
    let day = |back: i64| today.checked_sub(back.days()).unwrap_or(Date::MIN);
    (0..DAYS)
        .rev()
        .map(|back| {
            let date = day(back);
            let counted = history.days.get(&date).copied().unwrap_or_default();
            Bar {
                name: format!("{date}: {} done, {} failed", counted.rotated, counted.failed),
                label: if back % 7 == 0 { date.strftime("%-d %b").to_string() } else { String::new() },
                well: counted.rotated,
                ill: counted.failed,
            }
        })
        .collect()
}

fn durations(history: &History) -> Vec<Bar> {
    let bounds = BUCKETS_MS.iter().map(|ms| {
        let text = if *ms < 60_000 { format!("{} s", *ms as f64 / 1e3) } else { format!("{} min", ms / 60_000) };
        (format!("up to {text}"), text.replace(" min", "m").replace(" s", "").replace("0.", "."))
    });
    bounds
        .chain([("longer".to_owned(), "more".to_owned())])
        .zip(history.durations)
        .map(|((name, label), count)| Bar { name: format!("{name}: {count}"), label, well: count, ill: 0 })
        .collect()
}

fn mean(history: &History, timed: u64) -> String {
    match history.took_ms.checked_div(timed) {
        None => "nothing".to_owned(),
        Some(ms) if ms < 1_000 => format!("{ms} ms"),
        Some(ms) => format!("{:.1} s", ms as f64 / 1e3),
    }
}

fn failures(overview: &Overview, history: &History) -> Markup {
    if history.failures.is_empty() {
        return html! {};
    }
    let titles: std::collections::HashMap<&str, &str> =
        overview.kept.iter().map(|kept| (kept.summary.uid.as_str(), kept.summary.title.as_str())).collect();
    html! {
        section {
            h2 { "Latest failures" }
            div.scroll {
                table {
                    thead { tr { th scope="col" { "When" } th scope="col" { "Record" } th scope="col" { "Why" } } }
                    tbody {
                        @for mishap in history.failures.iter().rev().take(SHOWN_FAILURES) {
                            @let uid = mishap.uid.as_ref().map_or("", |uid| uid.as_str());
                            tr {
                                td { (moment(mishap.at)) }
                                th scope="row" { bdi { (titles.get(uid).copied().unwrap_or(uid)) } }
                                td { bdi { (mishap.why) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn everything(kept: &[&Kept], now: Timestamp) -> Markup {
    html! {
        section {
            div.bar {
                h2 { "Every credential" }
                label hidden { "Filter " input #filter type="search" autocomplete="off" spellcheck="false"; output #count for="filter" {} }
            }
            @if kept.is_empty() { p.quiet { "No record can be rotated." } }
            div.scroll {
                table #all {
                    thead {
                        tr {
                            @for name in ["Record", "Account", "Age", "Renewed", "Due", "State"] { th scope="col" { (name) } }
                        }
                    }
                    tbody {
                        @for one in kept { (row(one, now)) }
                    }
                }
            }
        }
    }
}

fn row(kept: &Kept, now: Timestamp) -> Markup {
    let summary = &kept.summary;
    let age = kept.age(now);
    let late = kept.overdue_for(now) > PATIENCE;
    html! {
        tr {
            th scope="row" {
                bdi { (summary.title) }
                @if let Some(folder) = summary.folders.first() { small { bdi { (folder) } } }
            }
            td { bdi { (account(kept)) } }
            td.number data-v=(age.map_or(i64::MAX, |age| age.as_secs())) { (age.map_or_else(|| "–".to_owned(), how_long)) }
            td data-v=(summary.fate.rotated_at.map_or(0, |at| at.as_second())) {
                @match summary.fate.rotated_at { Some(at) => (date(at)), None => "not here" }
            }
            td data-v=(kept.due.map_or(i64::MAX, |due| due.as_second())) {
                @if let Some(due) = kept.due { (date(due)) }
            }
            td {
                (state(summary.state))
                @if late { " " span.badge.warn { "overdue" } }
                @if let Some(failed) = &summary.fate.failed { " " span.badge.bad title=(failed.why) { "failing" } }
                @if let Some(why) = &summary.fate.drifted { " " span.badge.bad title=(why) { "refused" } }
            }
        }
    }
}

fn account(kept: &Kept) -> String {
    match (&kept.summary.account, &kept.summary.plugin) {
        (Some(account), _) => account.to_string(),
        (None, plugin) => plugin.clone().unwrap_or_default(),
    }
}

/// What comes first: what needs somebody, then what is late, then what is old.
fn urgency(kept: &Kept, now: Timestamp) -> (u8, i64, i64) {
    let needs = 4 - rank(kept.summary.state);
    let fate = &kept.summary.fate;
    let failing = u8::from(fate.failed.is_some()) + u8::from(fate.drifted.is_some());
    let late = kept.overdue_for(now).as_secs();
    (needs + failing, late, kept.age(now).map_or(i64::MAX, |age| age.as_secs()))
}

fn time(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (at.strftime("%-d %B %Y, %H:%M UTC")) } }
}

fn moment(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (at.strftime("%Y-%m-%d %H:%M")) } }
}

fn date(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (at.strftime("%Y-%m-%d")) } }
}

fn day_of(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// A time in the one unit that fits it.
fn how_long(time: SignedDuration) -> String {
    let seconds = time.as_secs();
    let (count, unit) = match seconds {
        0..3_600 => (seconds / 60, "minute"),
        3_600..172_800 => (seconds / 3_600, "hour"),
        172_800..5_184_000 => (seconds / DAY, "day"),
        5_184_000..63_072_000 => (seconds / (DAY * 30), "month"),
        _ => (seconds / (DAY * 365), "year"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}
