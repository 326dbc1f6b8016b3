//! What a hook is told: the envelope that "Standard Webhooks" describes, the
//! same for commands.

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use turnlock_protocol::Credential;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::record::Uid;
use crate::stage::Untold;
use crate::vault::Stored;

#[derive(Serialize)]
struct Event<'a> {
    r#type: &'static str,
    timestamp: Timestamp,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    hook: &'a str,
    record: &'a Uid,
    title: &'a str,
    folders: Vec<String>,
    plugin: &'a str,
    host: &'a str,
    port: u16,
    login: &'a str,
    attempt: Option<&'a str>,
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a Credential>,
}

/// The document for one hook; `secret` is for a local command alone.
pub(super) fn of(
    hook: &str,
    stored: &Stored,
    owed: &Untold,
    secret: Option<&Credential>,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let event = Event {
        r#type: "credential.rotated",
        timestamp: owed.since,
        data: Data {
            hook,
            record: &stored.record.uid,
            title: &stored.record.title,
            folders: stored.record.folder_paths(),
            plugin: &owed.identity.plugin,
            host: &owed.identity.host,
            port: owed.identity.port,
            login: &owed.identity.login,
            attempt: owed.attempt.as_deref(),
            verified: !stored.unverified,
            secret,
        },
    };
    let mut document = Zeroizing::new(Vec::with_capacity(32 * 1024));
    serde_json::to_writer(&mut *document, &event).map_err(|_| Failure::new("a document for a hook is no JSON"))?;
    document.push(b'\n');
    Ok(document)
}

/// The same for every try of one hook after one commit, so that a receiver
/// knows what it has heard already.
pub(super) fn id(hook: &str, stored: &Stored, owed: &Untold) -> String {
    let mut digest = Sha256::new();
    for part in [hook, stored.record.uid.as_str(), &owed.since.to_string()] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let hexadecimal: String = digest.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("msg_{hexadecimal}")
}
