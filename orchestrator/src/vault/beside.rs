//! What every vault keeps beside a record, and for how long.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use turnlock_protocol::{Credential, Secret, field};

use super::VaultError;
use crate::moment::Moment;
use crate::record::{Body, FieldValue, Record};
use crate::stage::PendingFinish;

/// How many past credentials a record keeps whatever their age…
pub(super) const KEPT: usize = 20;
/// …and for how long it keeps all others.
pub(super) const KEPT_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);

/// How long a log-in is remembered though the window asked for is shorter: the
/// next one may ask for a longer one.
const LONGEST_COUNTED: SignedDuration = SignedDuration::from_hours(24);

/// Why a record waits for a person, and since when.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Parked {
    pub(super) reason: String,
    pub(super) at: Timestamp,
}

/// A finish and since when it waits.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) since: Timestamp,
    pub(super) finish: PendingFinish,
}

/// Which fields of a record are kept when they are written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// What is a secret by its very type: a person edited the record, and
    /// most of what is edited is none.
    Secrets,
    /// Every text: a credential was put in the place of another, whatever
    /// fields it is made of.
    Everything,
}

/// What `old` holds and `new` does not any more, by the fields' names.
pub(super) fn lost(old: &Record, new: &Record, keep: Keep, known: &[&Credential]) -> Credential {
    let kept = secrets(new, keep);
    let mut lost = Credential::empty();
    for (name, secret) in secrets(old, keep) {
        let still_there = kept.iter().any(|(_, kept)| kept.same_as(secret));
        let noted = known.iter().any(|credential| credential.fields().any(|(_, known)| known.same_as(secret)));
        if secret.is_empty() || still_there || noted {
            continue;
        }
        // Names may repeat; nothing is left out because of it.
        let free = (1..)
            .map(|n| if n == 1 { name.to_owned() } else { format!("{name} {n}") })
            .find(|name| lost.get(name).is_none())
            .unwrap_or_default();
        lost = lost.with(&free, secret.duplicate());
    }
    lost
}

fn secrets(record: &Record, keep: Keep) -> Vec<(&str, &Secret)> {
    let everything = keep == Keep::Everything;
    let mut found = Vec::new();
    match &record.body {
        Body::Untyped(body) => {
            found.extend(body.password.iter().map(|text| (field::PASSWORD, text)));
            if everything {
                found.extend(body.custom.iter().map(|field| (field.name.as_str(), &field.value)));
            }
        }
        Body::Typed(body) => {
            for field in body.fields.iter().chain(&body.custom) {
                let own = matches!(field.kind.as_str(), "password" | "secret");
                let name = field.label.as_deref().unwrap_or(&field.kind);
                for value in &field.value {
                    match value {
                        FieldValue::Text(text) if field.kind == "password" => {
                            found.push((field::PASSWORD, text));
                        }
                        FieldValue::Text(text) if own || everything => found.push((name, text)),
                        FieldValue::Parts(parts) => {
                            for (part, value) in parts {
                                match value {
                                    FieldValue::Text(text) if part == "privateKey" => {
                                        found.push((field::PRIVATE_KEY, text));
                                    }
                                    FieldValue::Text(text) if everything => {
                                        found.push((part, text));
                                    }
                                    _ => {}
                                }
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

/// Counts one more log-in among those of an account, in the order in which
/// they happened, or says from when on there is room for one.
pub(super) fn spend(spent: &mut Vec<Moment>, now: Moment, window_ms: u64, limit: u32) -> Result<(), VaultError> {
    let window = SignedDuration::from_millis(window_ms.min(1 << 48).cast_signed());
    spent.retain(|one| one.age(&now) < window.max(LONGEST_COUNTED));
    let counted: Vec<_> = spent.iter().map(|one| one.age(&now)).filter(|age| *age < window).collect();
    if counted.len() >= limit as usize {
        // Room comes when so many have left that one fits again.
        let age = counted.get(counted.len() - limit as usize).copied().unwrap_or_default();
        return Err(VaultError::BudgetSpent { until: now.after(window - age) });
    }
    spent.push(now);
    Ok(())
}
