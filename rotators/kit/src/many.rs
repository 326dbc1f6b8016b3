//! What rotators of many hosts share: the same work everywhere at once, and one
//! answer that names every host.

use futures_util::stream::{self, StreamExt as _};

use crate::{CredentialState, Fault, HostVerdict, Kind, Verdict, Verdicts};

/// So many hosts are spoken with at once.
const AT_ONCE: usize = 32;

/// Does the same for every item, for many of them at once; the order stays.
pub async fn everywhere<I, T>(items: impl IntoIterator<Item = I>, work: impl AsyncFn(I) -> T) -> Vec<T> {
    let work = &work;
    stream::iter(items.into_iter().map(async |item| work(item).await)).buffered(AT_ONCE).collect().await
}

/// One fault that names every host with trouble, of the first one's kind;
/// nothing where none has any.
pub fn trouble<T>(hosts: &[(&str, Result<T, Fault>)]) -> Option<Fault> {
    let faults: Vec<(&str, &Fault)> =
        hosts.iter().filter_map(|(name, result)| result.as_ref().err().map(|fault| (*name, fault))).collect();
    let (name, first) = faults.first()?;
    let message = format!("{} of {} hosts are in the way; {name}: {}", faults.len(), hosts.len(), first.message);
    let mut fault = Fault::new(first.kind, message);
    for (name, why) in &faults {
        fault.causes.push(format!("{name}: {}", why.message));
        fault.causes.extend(why.causes.iter().map(|cause| format!("{name}: {cause}")));
        fault.hint = fault.hint.or_else(|| why.hint.clone());
        // The longest of their minimums suits all of them.
        let least = |fault: &Fault| fault.learned.as_ref().and_then(|learned| learned.min_length);
        if least(why) > least(&fault) {
            fault.learned.clone_from(&why.learned);
        }
    }
    Some(fault)
}

/// What log-ins everywhere came to: accepted only by all, refused if by any.
///
/// # Errors
/// The first fault, where no host refused and not all could be asked.
pub fn verdicts(asked: Vec<(&str, Result<Option<CredentialState>, Fault>)>) -> Result<Verdicts, Fault> {
    let mut trouble = None;
    let mut state = None;
    let hosts: Vec<HostVerdict> = asked
        .into_iter()
        .map(|(host, asked)| {
            let (verdict, message) = match asked {
                Ok(in_a_state) => {
                    state = state.take().or(in_a_state);
                    (Some(Verdict::Accepted), None)
                }
                Err(refused) if refused.kind == Kind::Authentication => (Some(Verdict::Refused), None),
                Err(cannot) => {
                    let message = cannot.message.clone();
                    trouble.get_or_insert(cannot);
                    (None, Some(message))
                }
            };
            HostVerdict { host: host.to_owned(), verdict, message }
        })
        .collect();
    let is_refused = hosts.iter().any(|host| host.verdict == Some(Verdict::Refused));
    match trouble {
        Some(fault) if !is_refused => Err(fault),
        _ => {
            let verdicts = match (is_refused, state) {
                (true, _) => Verdicts::refused(),
                (false, Some(state)) => Verdicts::accepted_but(state),
                (false, None) => Verdicts::accepted(),
            };
            Ok(Verdicts { hosts, ..verdicts })
        }
    }
}
