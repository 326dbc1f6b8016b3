//! What rotators of many hosts share: the same work everywhere at once, and one
//! answer that names every host.

use futures_util::stream::{self, StreamExt as _};

use crate::{CredentialState, Fault, HostVerdict, NotIn, Verdict, Verdicts};

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
pub fn verdicts(asked: Vec<(&str, Result<Option<CredentialState>, NotIn>)>) -> Result<Verdicts, Fault> {
    let mut trouble = None;
    let mut all = Verdicts::accepted();
    let mut hosts = Vec::with_capacity(asked.len());
    for (host, asked) in asked {
        let (verdict, message) = match NotIn::verdict(asked) {
            Ok(one) => {
                let verdict = one.verdict;
                match verdict {
                    Verdict::Refused => all = one,
                    Verdict::Accepted if all.verdict == Verdict::Accepted && all.state.is_none() => all = one,
                    Verdict::Accepted => {}
                }
                (Some(verdict), None)
            }
            Err(cannot) => {
                let message = cannot.message.clone();
                trouble.get_or_insert(cannot);
                (None, Some(message))
            }
        };
        hosts.push(HostVerdict { host: host.to_owned(), verdict, message });
    }
    match trouble {
        Some(fault) if all.verdict == Verdict::Accepted => Err(fault),
        _ => Ok(Verdicts { hosts, ..all }),
    }
}
