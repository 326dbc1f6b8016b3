//! `turnlock show`

use clap::Args;
use serde_json::{Map, Value, json};
use turnlock_protocol::{Credential, Secret};

use super::Context;
use crate::engine::{Engine, durable};
use crate::failure::{Failure, exit};
use crate::record::{Body, FieldValue, Place, Record, Section, Uid};
use crate::stage::PastKind;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  turnlock show \"Orders database\"
  turnlock show Orders --field password | psql-wrapper
  turnlock show Orders --stage --history --reveal")]
pub(super) struct Show {
    /// A record: UID, title, folder/title, or an endpoint's name
    name: String,
    /// Show secrets in clear
    #[arg(long)]
    reveal: bool,
    /// Write only this field's value: login, password, url, or a custom field's name
    #[arg(long)]
    field: Option<String>,
    /// Show open attempts and clean-ups
    #[arg(long)]
    stage: bool,
    /// Show past and abandoned credentials
    #[arg(long)]
    history: bool,
}

/// Values of these kinds, and of these names, are no secrets.
const PLAIN: &[&str] =
    &["login", "url", "host", "pamHostname", "hostName", "port", "databaseType", "directoryType", "checkbox"];

pub(super) async fn run(context: &Context, show: Show) -> Result<u8, Failure> {
    let engine = context.engine(false).await?;
    let uid = engine.record_named(&show.name)?.uid;
    if let Some(field) = &show.field {
        return one_field(context, &engine, &uid, field, show.reveal);
    }
    if show.stage || show.history {
        if show.stage {
            stage(context, &engine, &uid, show.reveal)?;
        }
        if show.history {
            history(context, &engine, &uid, show.reveal)?;
        }
        return Ok(exit::DONE);
    }
    print(context, &engine, &uid, show.reveal)?;
    Ok(exit::DONE)
}

/// Shows one record.
pub(super) fn print(context: &Context, engine: &Engine, uid: &Uid, reveal: bool) -> Result<(), Failure> {
    let stored = durable(|| engine.vault.read(uid))?;
    let record = &stored.record;
    let rows = rows(&record.body, record.notes.as_ref(), reveal);
    let mut value = Map::new();
    value.insert("uid".to_owned(), json!(record.uid));
    value.insert("title".to_owned(), json!(record.title));
    value.insert("type".to_owned(), json!(record.record_type()));
    value.insert("folders".to_owned(), json!(record.folder_paths()));
    value.insert("revision".to_owned(), json!(stored.revision));
    value.insert("rotated_at".to_owned(), json!(stored.rotated_at));
    value.insert("unverified".to_owned(), json!(stored.unverified));
    value.insert("open_attempts".to_owned(), json!(stored.stage.len()));
    value.insert("fields".to_owned(), rows.iter().map(|(name, text)| json!({"name": name, "value": text})).collect());
    context.report.answer(&value, || {
        let mut lines = vec![format!("{}  {}", record.title, record.uid)];
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        lines.extend(rows.iter().map(|(name, text)| format!("  {name:width$}  {text}")));
        if let Some(at) = stored.rotated_at {
            let proof = if stored.unverified { ", not proven" } else { "" };
            lines.push(format!("  rotated {}{proof}", at.strftime("%Y-%m-%d %H:%M:%SZ")));
        }
        if !stored.stage.is_empty() {
            lines.push(format!("  {} open attempt(s): turnlock show {uid} --stage", stored.stage.len()));
        }
        lines.join("\n")
    });
    Ok(())
}

fn rows(body: &Body, notes: Option<&Secret>, reveal: bool) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    match body {
        Body::Untyped(body) => {
            for (name, value) in [("login", &body.login), ("password", &body.password), ("url", &body.link)] {
                if let Some(value) = value {
                    rows.push((name.to_owned(), shown(name, value, reveal)));
                }
            }
            for custom in &body.custom {
                rows.push((custom.name.clone(), shown(&custom.name, &custom.value, reveal)));
            }
        }
        Body::Typed(body) => {
            for field in body.fields.iter().chain(&body.custom) {
                let name = match &field.label {
                    Some(label) if !label.is_empty() => label.clone(),
                    _ => field.kind.clone(),
                };
                let kind = if field
                    .label
                    .as_deref()
                    .is_some_and(|label| label.starts_with("cmdr:") || label.starts_with("turnlock:"))
                {
                    name.as_str()
                } else {
                    field.kind.as_str()
                };
                for value in &field.value {
                    rows.push((name.clone(), composite(kind, value, reveal)));
                }
            }
        }
    }
    if let Some(notes) = notes {
        rows.push(("notes".to_owned(), shown("notes", notes, reveal)));
    }
    rows
}

fn composite(kind: &str, value: &FieldValue, reveal: bool) -> String {
    match value {
        FieldValue::Text(text) => shown(kind, text, reveal),
        FieldValue::Parts(parts) => parts
            .iter()
            .map(|(name, part)| format!("{name}: {}", composite(name, part, reveal)))
            .collect::<Vec<_>>()
            .join(", "),
        FieldValue::Other(value) if PLAIN.contains(&kind) || matches!(value, Value::Bool(_) | Value::Null) => {
            value.to_string()
        }
        FieldValue::Other(_) if !reveal => "(hidden)".to_owned(),
        FieldValue::Other(value) => value.to_string(),
    }
}

/// A value in clear where its name says that it is none, or where that was
/// asked for. A `cmdr:*` option is plain only where its name is a known one.
fn shown(name: &str, value: &Secret, reveal: bool) -> String {
    const PLAIN_OPTIONS: &[&str] = &[
        "plugin",
        "host",
        "port",
        "rules",
        "length",
        "db",
        "user_host",
        "admin",
        "tls",
        "timeout",
        "hook_secret",
        "hook_timeout",
    ];
    let option = name
        .strip_prefix("cmdr:")
        .or_else(|| name.strip_prefix("turnlock:"))
        .map(|option| option.split(':').next().unwrap_or(option));
    let plain = PLAIN.contains(&name) || option.is_some_and(|option| PLAIN_OPTIONS.contains(&option));
    if plain || reveal {
        #[expect(clippy::disallowed_methods, reason = "the field is no secret, or its owner asked to see it")]
        value.expose().to_owned()
    } else {
        "(hidden)".to_owned()
    }
}

fn one_field(context: &Context, engine: &Engine, uid: &Uid, field: &str, reveal: bool) -> Result<u8, Failure> {
    if context.report.stdout_is_terminal() && !reveal && field != "login" && field != "url" {
        return Err(Failure::usage("standard output is a terminal")
            .hint("say --reveal, or pipe it to the program that needs it"));
    }
    let record = durable(|| engine.vault.read(uid))?.record;
    let found = match field {
        "login" => record.login().map(|found| found.value),
        "password" => record.password().map(|found| found.value),
        "url" => record.url().map(|found| found.value),
        name => record.get(&Place::Named(name.to_owned())).or_else(|| labelled(&record, name)),
    };
    let value = found.ok_or_else(|| {
        Failure::usage(format!("\"{}\" has no field \"{field}\"", record.title))
            .hint(format!("turnlock show {uid} lists its fields"))
    })?;
    #[expect(clippy::disallowed_methods, reason = "this command exists to hand a field to another program")]
    let text = value.expose();
    if context.report.is_json() {
        context.report.deliver(&json!({"field": field, "value": text}).to_string())?;
    } else {
        context.report.deliver(text)?;
    }
    Ok(exit::DONE)
}

/// A typed record's field by its label, or by its type.
fn labelled(record: &Record, name: &str) -> Option<Secret> {
    let Body::Typed(body) = &record.body else {
        return None;
    };
    for (section, fields) in [(Section::Fields, &body.fields), (Section::Custom, &body.custom)] {
        for field in fields {
            if field.label.as_deref() == Some(name) || (field.label.is_none() && field.kind == name) {
                let place = Place::Typed {
                    section,
                    kind: field.kind.clone(),
                    label: field.label.clone(),
                    index: 0,
                    part: None,
                };
                return record.get(&place);
            }
        }
    }
    None
}

fn fields_of(credential: &Credential, reveal: bool) -> Value {
    credential
        .fields()
        .map(|(name, secret)| (name.to_owned(), Value::from(shown("(secret)", secret, reveal))))
        .collect::<Map<_, _>>()
        .into()
}

fn fields_text(credential: &Credential, reveal: bool) -> String {
    credential
        .fields()
        .map(|(name, secret)| format!("{name}: {}", shown("(secret)", secret, reveal)))
        .collect::<Vec<_>>()
        .join(", ")
}

fn stage(context: &Context, engine: &Engine, uid: &Uid, reveal: bool) -> Result<(), Failure> {
    let stored = durable(|| engine.vault.read(uid))?;
    if stored.stage.is_empty() && stored.pending.is_empty() {
        context.report.note(&format!("nothing is open on \"{}\"", stored.record.title));
    }
    for attempt in &stored.stage {
        let permit = attempt.permit.as_ref().map(|permit| permit.at);
        let candidate = attempt.candidate.as_ref();
        let value = json!({"attempt": attempt.id, "staged_at": attempt.staged_at, "account": attempt.plan.identity.to_string(),
            "permit": permit, "parked": attempt.parked, "candidate": candidate.map(|one| fields_of(one, reveal))});
        context.report.answer(&value, || {
            format!(
                "attempt {}  {}  staged {}  {}\n  candidate  {}{}",
                attempt.id,
                attempt.plan.identity,
                attempt.staged_at.strftime("%Y-%m-%d %H:%M:%SZ"),
                if permit.is_some() { "permit given: it may be live" } else { "no permit given" },
                candidate.map_or_else(|| "(not minted)".to_owned(), |one| fields_text(one, reveal)),
                attempt.parked.as_ref().map(|why| format!("\n  parked: {why}")).unwrap_or_default(),
            )
        });
    }
    for finish in &stored.pending {
        let value = json!({"attempt": finish.attempt, "due": finish.due, "last_failure": finish.last_failure});
        context.report.answer(&value, || {
            format!("clean-up of attempt {}, due {}", finish.attempt, finish.due.strftime("%Y-%m-%d %H:%M:%SZ"))
        });
    }
    Ok(())
}

fn history(context: &Context, engine: &Engine, uid: &Uid, reveal: bool) -> Result<(), Failure> {
    for past in durable(|| engine.vault.history(uid))? {
        let kind = match past.kind {
            PastKind::Previous => "previous",
            PastKind::Abandoned => "abandoned",
        };
        let value = json!({"number": past.number, "at": past.at, "kind": kind, "attempt": past.attempt,
            "reason": past.reason, "credential": fields_of(&past.credential, reveal)});
        context.report.answer(&value, || {
            format!(
                "{:>4}  {}  {kind:9}  {}  {}",
                past.number,
                past.at.strftime("%Y-%m-%d %H:%M:%SZ"),
                fields_text(&past.credential, reveal),
                past.reason
            )
        });
    }
    for earlier in durable(|| engine.vault.read(uid))?.record.earlier.iter().rev() {
        let fields = rows(&earlier.body, earlier.notes.as_ref(), reveal);
        let value = json!({"at": earlier.at, "kind": "imported", "title": earlier.title,
            "fields": fields.iter().map(|(name, text)| json!({"name": name, "value": text})).collect::<Vec<_>>()});
        context.report.answer(&value, || {
            let at = earlier.at.map(|at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()).unwrap_or_default();
            let fields: Vec<String> = fields.iter().map(|(name, text)| format!("{name}: {text}")).collect();
            format!("      {at:20}  imported   {}", fields.join(", "))
        });
    }
    Ok(())
}
