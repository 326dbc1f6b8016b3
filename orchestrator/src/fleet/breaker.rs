//! Leaving a target alone that does not answer.
//!
//! A target that has not answered yet gets one job at a time. Once it has, it
//! gets as many as its gates let through, until several in a row were not
//! answered: then again one at a time, with growing pauses, and at last none.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use turnlock_protocol::Kind;

use super::scheduler::May;
use crate::failure::Failure;

/// So many unanswered jobs in a row make a target doubtful that answered before.
const DOUBTFUL_AFTER: u32 = 5;
/// So many more give it up.
const GIVEN_UP_AFTER: u32 = 3;
/// How long it is left alone after the first of them; each time three times as long.
const FIRST_REST: Duration = Duration::from_secs(5);
/// How long it stays given up: a daemon lives longer than most troubles.
const GIVEN_UP_FOR: Duration = Duration::from_secs(300);

/// What is believed of one target.
#[derive(Debug)]
pub(super) enum Breaker {
    /// It answers.
    Answers {
        /// Jobs that it did not answer since it last did.
        unanswered: u32,
    },
    /// Nobody knows whether it does.
    Doubtful {
        /// How often it was asked in vain.
        asked: u32,
        /// Jobs that began when it was not doubtful yet: what they hear is old.
        old: usize,
        /// It is left alone until then.
        until: Option<Instant>,
    },
    /// It does not.
    GivenUp {
        /// Since when.
        since: Instant,
        /// What came instead of an answer.
        last: Arc<str>,
    },
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Doubtful { asked: 0, old: 0, until: None }
    }
}

impl Breaker {
    /// Whether one more job may begin beside those that fly.
    pub(super) fn may_begin(&mut self, flying: usize, now: Instant) -> May {
        if let Self::GivenUp { since, .. } = self
            && now.duration_since(*since) >= GIVEN_UP_FOR
        {
            // One more chance, not three.
            *self = Self::Doubtful { asked: GIVEN_UP_AFTER - 1, old: 0, until: None };
        }
        match self {
            Self::Answers { .. } => May::Begin,
            Self::GivenUp { last, .. } => May::Never(Arc::clone(last)),
            Self::Doubtful { .. } if flying > 0 => May::NotYet,
            Self::Doubtful { until: Some(until), .. } if *until > now => May::NotBefore(*until),
            Self::Doubtful { .. } => May::Begin,
        }
    }

    /// A job has ended, with this failure or with none, and so many still fly.
    pub(super) fn heard(&mut self, failure: Option<&Failure>, flying: usize, now: Instant) {
        let failure = match failure {
            Some(failure) if is_silence(failure) => failure,
            Some(failure) if !is_answer(failure) => return,
            _ => {
                *self = Self::Answers { unanswered: 0 };
                return;
            }
        };
        *self = match self {
            Self::Answers { unanswered } if *unanswered + 1 < DOUBTFUL_AFTER => {
                Self::Answers { unanswered: *unanswered + 1 }
            }
            Self::Answers { .. } => Self::Doubtful { asked: 0, old: flying, until: Some(now + FIRST_REST) },
            Self::Doubtful { old, .. } if *old > 0 => {
                *old -= 1;
                return;
            }
            Self::Doubtful { asked, .. } if *asked + 1 < GIVEN_UP_AFTER => {
                Self::Doubtful { asked: *asked + 1, old: 0, until: Some(now + FIRST_REST * 3_u32.pow(*asked)) }
            }
            Self::Doubtful { .. } | Self::GivenUp { .. } => {
                let last = failure.causes.last().unwrap_or(&failure.message);
                Self::GivenUp { since: now, last: last.as_str().into() }
            }
        };
    }
}

/// Whether a failure is one of the target itself, so that the next record there
/// would fail the same way.
fn is_silence(failure: &Failure) -> bool {
    use Kind::{HostKey, RateLimited, Timeout, Tls, Unreachable};
    failure.kind.is_some_and(|kind| matches!(kind, Unreachable | Timeout | Tls | HostKey | RateLimited))
}

/// Whether a failure is a word of the target: one that refuses an account
/// answers. Others never came to it.
fn is_answer(failure: &Failure) -> bool {
    use Kind::{Cancelled, Internal, InvalidInput, Unsupported};
    failure.kind.is_some_and(|kind| !matches!(kind, Cancelled | Internal | InvalidInput | Unsupported))
}
