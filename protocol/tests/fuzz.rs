//! Lines near those of the protocol: whatever they hold, reading them ends in
//! a message or in a place, and what was read is written as it was meant.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a broken expectation of a test is its failure")]

#[path = "../../tests/fuzz/near.rs"]
mod near;

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use turnlock_protocol::message::{
    CancelParams, Hello, LogParams, MintedParams, Permit, ProgressParams, Staged, ThresholdParams,
};
use turnlock_protocol::operation::{
    ApplyParams, ApplyResult, CheckParams, Findings, FinishParams, Finished, PlanParams, PlanResult, PrepareParams,
    Prepared, RevertParams, Terms, Verdicts, VerifyParams,
};
use turnlock_protocol::{Describe, Incoming, Policy, PolicyError, RandomSource};

use near::near;

/// What is read, written and read again stays what it is.
fn keeps<T: Serialize + DeserializeOwned>(text: &str) {
    if let Ok(read) = serde_json::from_str::<T>(text) {
        let written = serde_json::to_string(&read).unwrap();
        let again: T = serde_json::from_str(&written).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), written);
    }
}

fn params(method: &str, text: &str) {
    match method {
        "hello" => keeps::<Hello>(text),
        "threshold" => keeps::<ThresholdParams>(text),
        "minted" => keeps::<MintedParams>(text),
        "progress" => keeps::<ProgressParams>(text),
        "log" => keeps::<LogParams>(text),
        "cancel" => keeps::<CancelParams>(text),
        "plan" => keeps::<PlanParams>(text),
        "check" => keeps::<CheckParams>(text),
        "prepare" => keeps::<PrepareParams>(text),
        "apply" => keeps::<ApplyParams>(text),
        "verify" => keeps::<VerifyParams>(text),
        "finish" => keeps::<FinishParams>(text),
        "revert" => keeps::<RevertParams>(text),
        _ => keeps::<Terms>(text),
    }
}

fn results(text: &str) {
    keeps::<Describe>(text);
    keeps::<PlanResult>(text);
    keeps::<Findings>(text);
    keeps::<Prepared>(text);
    keeps::<ApplyResult>(text);
    keeps::<Verdicts>(text);
    keeps::<Finished>(text);
    keeps::<Permit>(text);
    keeps::<Staged>(text);
}

struct Zeros(u8);

impl RandomSource for Zeros {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), PolicyError> {
        for byte in buffer {
            self.0 = self.0.wrapping_mul(29).wrapping_add(71);
            *byte = self.0;
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fuzz_frames(line in near("protocol/wire")) {
        match Incoming::parse(&line) {
            Err(malformed) => {
                let told = malformed.to_string();
                let words = "not a valid message at line , column ";
                prop_assert!(told.chars().all(|letter| letter.is_ascii_digit() || words.contains(letter)), "{}", told);
            }
            Ok(Incoming::Request { method, params: raw, .. } | Incoming::Notification { method, params: raw }) => {
                params(method, raw.map_or("null", RawValue::get));
            }
            Ok(Incoming::Result { result, .. }) => results(result.get()),
            Ok(Incoming::Error { error, .. }) => {
                keeps::<turnlock_protocol::message::RpcError>(&serde_json::to_string(&error).unwrap());
                let _ = error.into_fault().to_string();
            }
        }
    }

    /// A policy of a peer: what is drawn by it keeps it, or there is a reason why not.
    #[test]
    fn fuzz_policies(text in near("tests/fuzz/corpus/policy"), seed: u8) {
        if let Ok(policy) = serde_json::from_slice::<Policy>(&text)
            && policy.length < 10_000
            && let Ok(drawn) = policy.draw(&mut Zeros(seed))
        {
            prop_assert!(policy.validate(&drawn).is_ok(), "{:?}", policy);
        }
    }
}
