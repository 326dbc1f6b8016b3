//! Many records: a bounded number at once, and one failure stops nobody else.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::engine::Engine;
use crate::failure::{Failure, State};
use crate::record::Uid;
use crate::resolve::Options;
use crate::rotate::{Rotated, Wanted, rotate};

/// How one record of a fleet ended.
#[derive(Debug)]
pub struct Ended {
    /// The record.
    pub uid: Uid,
    /// Its title.
    pub title: String,
    /// What came of it.
    pub outcome: Result<Rotated, Failure>,
}

/// Rotates records, `jobs` at a time, and tells of each as it ends.
pub async fn rotate_all(
    engine: Arc<Engine>,
    records: Vec<(Uid, String)>,
    options: impl Fn() -> Options,
    with_duplicates: bool,
    jobs: usize,
    mut told: impl FnMut(Ended),
) {
    let places = Arc::new(Semaphore::new(jobs.max(1)));
    let mut running = JoinSet::new();
    for (uid, title) in records {
        let (engine, places) = (Arc::clone(&engine), Arc::clone(&places));
        let wanted = Wanted { uid: Some(uid.clone()), options: options(), with_duplicates };
        let Ok(place) = places.acquire_owned().await else {
            break;
        };
        while let Some(ended) = running.try_join_next() {
            told(of(ended));
        }
        running.spawn(async move {
            let _place = place;
            if engine.stopping() {
                let outcome = Err(Failure::new("interrupted before it began").about(&title));
                return Ended { uid, title, outcome };
            }
            let outcome = rotate(&engine, &uid, &wanted).await.map_err(|failure| failure.about(&title));
            Ended { uid, title, outcome }
        });
    }
    while let Some(ended) = running.join_next().await {
        told(of(ended));
    }
}

/// A job that panicked says so itself; what it staged is settled by `recover`.
fn of(ended: Result<Ended, tokio::task::JoinError>) -> Ended {
    ended.unwrap_or_else(|error| Ended {
        uid: Uid::new("?"),
        title: "?".to_owned(),
        outcome: Err(Failure::new(format!("a job ended by itself: {error}"))
            .state(State::Unknown)
            .hint("turnlock recover")),
    })
}
