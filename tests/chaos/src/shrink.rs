//! The smallest round that still breaks something.

use std::{collections::BTreeSet, mem::discriminant, path::Path};

use lab::Result;

use crate::{
    campaign::{Broken, replay},
    plan::Case,
};

/// How often a smaller round is played before it counts as harmless: what the
/// kernel does in between is not drawn from the seed.
const TIMES: usize = 3;

/// Leaves out one step after the other as long as the same thing breaks.
pub(crate) fn shrink(
    broken: &Broken,
    case: &Case,
    turnlock: Option<&Path>,
    say: &(dyn Fn(&str) + Sync),
) -> Result<(Broken, Case)> {
    let mut smallest = (broken.clone(), case.clone());
    let numbers: Vec<usize> = case.steps().into_iter().map(|(number, _)| number).collect();
    // Halves first, then quarters, at last single steps.
    let mut length = numbers.len().div_ceil(2);
    while length > 0 {
        for part in numbers.chunks(length) {
            let kept: BTreeSet<usize> = smallest.1.steps().into_iter().map(|(number, _)| number).collect();
            let only: BTreeSet<usize> = kept.iter().copied().filter(|number| !part.contains(number)).collect();
            if only.len() == kept.len() {
                continue;
            }
            let candidate = Case { only: Some(only), ..case.clone() };
            if let Some((found, candidate)) = replay(&candidate, turnlock, TIMES)?.broken
                && discriminant(&found) == discriminant(broken)
            {
                say(&format!("{candidate}: {found}"));
                smallest = (found, candidate);
            }
        }
        length = if length == 1 { 0 } else { length.div_ceil(2) };
    }
    Ok(smallest)
}
