use proptest::prelude::*;

use super::*;

fn schedule(text: &str) -> Schedule {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn uid(name: &str) -> Uid {
    Uid::new(name)
}

fn rotated(text: &str) -> Past {
    Past { rotated: Some(at(text)), ..Past::default() }
}

fn due(text: &str, past: &Past, now: &str) -> String {
    schedule(text).due(&uid("a"), past, at(now)).unwrap().to_string()
}

#[test]
fn every_counts_from_the_last_rotation_and_keeps_the_hour_of_the_day() {
    let past = rotated("2026-10-20T10:00:00Z");
    assert_eq!(due("every 30d", &past, "2026-11-01T00:00:00Z"), "2026-11-19T10:00:00Z");
    // Noon in Berlin stays noon when summer time ends.
    assert_eq!(due("every 30d Europe/Berlin", &past, "2026-11-01T00:00:00Z"), "2026-11-19T11:00:00Z");
    assert_eq!(due("every 12h", &past, "2026-11-01T00:00:00Z"), "2026-10-20T22:00:00Z");
    assert_eq!(due("every 1 month", &past, "2026-11-01T00:00:00Z"), "2026-11-20T10:00:00Z");
}

#[test]
fn what_was_never_rotated_is_due_with_every_and_waits_for_its_hour_with_cron() {
    let past = Past { scheduled: Some(at("2026-11-28T01:30:00Z")), ..Past::default() };
    assert_eq!(due("every 30d", &past, "2026-11-28T02:00:00Z"), "2026-11-28T01:30:00Z");
    assert_eq!(due("0 3 * * *", &past, "2026-11-28T02:00:00Z"), "2026-11-28T03:00:00Z");
    assert_eq!(due("every 30d in 04:00-05:00", &past, "2026-11-28T02:00:00Z"), "2026-11-28T04:00:00Z");
    // Downtime does not make it forget: the missed turn is overdue, once.
    assert_eq!(due("0 3 * * *", &past, "2026-12-24T12:00:00Z"), "2026-11-28T03:00:00Z");
}

#[test]
fn an_overdue_record_waits_for_its_window() {
    let schedule = schedule("every 30d in Sat,Sun 22:00-06:00 Europe/Berlin");
    let past = rotated("2026-10-20T10:00:00Z");
    let now = at("2026-11-25T12:00:00Z");
    let due = schedule.due(&uid("a"), &past, now).unwrap();
    assert_eq!(due.to_string(), "2026-11-21T21:00:00Z");
    assert_eq!(schedule.begin(now).unwrap().to_string(), "2026-11-28T21:00:00Z");
}

#[test]
fn a_day_without_the_hour_has_its_turn_and_a_day_with_two_has_one() {
    // Berlin: 02:30 is not there on 2027-03-28 and is there twice on 2027-10-31.
    let turns = |begin: &str, count: usize| {
        let schedule = schedule("30 2 * * * Europe/Berlin");
        let mut turns = vec![at(begin)];
        for _ in 0..count {
            turns.push(schedule.after(*turns.last().unwrap()).unwrap());
        }
        turns.split_off(1).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let spring = ["2027-03-27T01:30:00Z", "2027-03-28T01:30:00Z", "2027-03-29T00:30:00Z"];
    assert_eq!(turns("2027-03-26T12:00:00Z", 3), spring);
    let autumn = ["2027-10-30T00:30:00Z", "2027-10-31T00:30:00Z", "2027-11-01T01:30:00Z"];
    assert_eq!(turns("2027-10-29T12:00:00Z", 3), autumn);
}

#[test]
fn a_date_in_the_future_tells_nothing_and_a_failed_record_rests() {
    let now = "2026-11-28T12:00:00Z";
    assert_eq!(due("every 30d", &rotated("2035-01-01T00:00:00Z"), now), now);
    let failed = |times| Past { failed: Some((at(now), times)), ..rotated("2026-01-01T00:00:00Z") };
    assert_eq!(due("every 30d", &failed(1), now), "2026-11-28T12:01:00Z");
    assert_eq!(due("every 30d", &failed(3), now), "2026-11-28T12:16:00Z");
    assert_eq!(due("every 30d", &failed(1000), now), "2026-11-28T18:00:00Z");
}

#[test]
fn what_is_no_schedule_is_told() {
    use ScheduleError::*;
    let error = |text: &str| text.parse::<Schedule>().unwrap_err();
    assert_eq!(error("sometimes"), Rhythm);
    assert_eq!(error(""), Rhythm);
    assert_eq!(error("every"), Every);
    assert_eq!(error("every day"), Every);
    assert_eq!(error("every 5s"), Every);
    assert_eq!(error("every -3d"), Every);
    assert!(matches!(error("61 * * * *"), Cron(_)));
    assert_eq!(error("0 0 30 2 *"), Never);
    assert_eq!(error("0 3 * * * in Sat"), WindowOfCron);
    assert_eq!(error("every 30d in Caturday"), Window("Caturday".to_owned()));
    assert_eq!(error("every 30d Europe/Atlantis"), Zone("Europe/Atlantis".to_owned()));
    assert_eq!(error("every 30d spread"), Spread);
    assert_eq!(error("every 30d spread 8000h"), Spread);
}

fn schedules() -> impl Strategy<Value = String> {
    let zones = prop::sample::select(vec!["", " UTC", " Europe/Berlin", " America/New_York", " Australia/Lord_Howe"]);
    let windows = prop::sample::select(vec!["", " in 02:00-03:00", " in Sat,Sun 22:00-06:00", " in Mon-Fri"]);
    let spreads = prop::sample::select(vec!["", " spread 90s", " spread 2h"]);
    let every = (1..400_u32, prop::sample::select(vec!["h", "d", "w", "mo"]), windows, zones.clone(), spreads.clone())
        .prop_map(|(number, unit, window, zone, spread)| format!("every {number}{unit}{window}{zone}{spread}"));
    let cron = (0..60_u32, 0..24_u32, prop::sample::select(vec!["*", "1", "Sun", "1-5"]), zones, spreads)
        .prop_map(|(minute, hour, day, zone, spread)| format!("{minute} {hour} * * {day}{zone}{spread}"));
    prop_oneof![every, cron]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_turn_lies_behind_the_last_one_in_its_window_and_is_always_the_same(
        text in schedules(), rotated in 0..4_000_000_000_i64, later in 0..100_000_000_i64,
    ) {
        let schedule = schedule(&text);
        prop_assert_eq!(schedule.to_string().parse::<Schedule>().unwrap().to_string(), schedule.to_string());
        let rotated = Timestamp::from_second(rotated).unwrap();
        let now = rotated + SignedDuration::from_secs(later);
        let past = Past { rotated: Some(rotated), ..Past::default() };
        let due = schedule.due(&uid("some"), &past, now).unwrap();
        prop_assert!(due > rotated);
        prop_assert_eq!(schedule.begin(due), Some(due));
        prop_assert_eq!(schedule.due(&uid("some"), &past, now + SignedDuration::from_hours(9)), Some(due));
    }

    #[test]
    fn a_later_rotation_is_never_due_earlier(
        text in schedules(), rotated in 0..4_000_000_000_i64, later in 0..10_000_000_i64,
    ) {
        let schedule = schedule(&text);
        let rotated = Timestamp::from_second(rotated).unwrap();
        let after = |at| schedule.after(at).unwrap();
        prop_assert!(after(rotated) <= after(rotated + SignedDuration::from_secs(later)));
    }
}
