//! A whole rotator hears what no host says. Without a permit nothing changes,
//! every answer is a message, no secret comes back, and it ends as it must.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a broken expectation of a test is its failure")]

#[cfg(test)]
mod harness;
#[path = "../../../tests/fuzz/near.rs"]
mod near;

use harness::{OLD, Target, call};
use near::near;
use proptest::prelude::*;
use serde_json::Value;
use turnlock_kit::Secret;
use turnlock_kit::dialogue::{Dialogue, Step};

/// Whether the edits have put a secret where none belongs, such as into the
/// login, which answers may tell.
fn is_told_elsewhere(said: &[u8]) -> bool {
    fn tells(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains("canary"),
            Value::Array(values) => values.iter().any(tells),
            Value::Object(members) => members.iter().any(|(name, value)| {
                let is_secret = ["current", "previous", "next", "credential"].contains(&name.as_str());
                name.contains("canary") || !is_secret && tells(value)
            }),
            _ => false,
        }
    }
    said.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).any(|line| tells(&line))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fuzz_serve(said in near("tests/fuzz/corpus/rotator")) {
        // A permit that the edits made up would be one.
        prop_assume!(!said.windows(4).any(|word| word == b"true") && !is_told_elsewhere(&said));
        let target = Target::holding(OLD);
        let path = target.path().to_str().unwrap().to_owned();
        let said = replaced(&said, b"\"target\":\"password\"", format!("\"target\":\"{path}\"").as_bytes());
        let ended = call("database", &["serve"], &said);
        prop_assert!(matches!(ended.status, 0 | 2), "{} {}", ended.status, ended.stderr);
        prop_assert_eq!(target.holds(), OLD);
        for line in ended.stdout.lines() {
            let message: Value = serde_json::from_str(line).unwrap();
            prop_assert_eq!(&message["jsonrpc"], "2.0");
        }
        prop_assert!(!ended.stdout.contains("canary") && !ended.stderr.contains("canary"), "{:?}", ended);
    }

    #[test]
    fn fuzz_one_shot(input in near("tests/fuzz/corpus/rotator"), operation in prop::sample::select(vec!["check", "prepare", "verify", "finish"])) {
        prop_assume!(!is_told_elsewhere(&input));
        let ended = call("database", &[operation], &input);
        prop_assert!(matches!(ended.status, 2 | 3), "{} {}", ended.status, ended.stderr);
        prop_assert!(!ended.stdout.contains("canary") && !ended.stderr.contains("canary"), "{:?}", ended);
    }

    /// Whatever a program asks: the new secret is typed behind the permit only,
    /// and what is kept for people holds none.
    #[test]
    fn fuzz_dialogue(said in near("tests/fuzz/corpus/prompts"), pieces in prop::collection::vec(1usize..30, 1..40), permits: bool) {
        let (current, next) = (Secret::new("old-canary-1111".into()), Secret::new("new-canary-2222".into()));
        let mut dialogue = Dialogue::new(&current, &next);
        let (mut rest, mut pieces, mut permitted, mut over) = (said.as_slice(), pieces.iter().cycle(), false, false);
        while !rest.is_empty() {
            let (piece, left) = rest.split_at((*pieces.next().unwrap()).min(rest.len()));
            rest = left;
            match dialogue.hear(piece) {
                None => {}
                Some(_) if over => prop_assert!(false, "it goes on after it has given up"),
                Some(Step::Answer(secret)) => prop_assert!(permitted || secret.same_as(&current)),
                Some(Step::Threshold) if permits => {
                    permitted = true;
                    prop_assert!(dialogue.permit().same_as(&next));
                }
                Some(Step::Threshold) => break,
                Some(Step::GiveUp) => over = true,
            }
        }
        dialogue.end();
        prop_assert!(!dialogue.remarks().contains("canary") && dialogue.remarks().len() <= 4_000);
    }
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match text.windows(from.len()).position(|part| part == from) {
        Some(at) => [&text[..at], to, &replaced(&text[at + from.len()..], from, to)].concat(),
        None => text.to_vec(),
    }
}
