//! `turnlock add` and `turnlock edit`

use clap::Args;
use serde_json::json;
use turnlock_protocol::Secret;

use super::{Context, open};
use crate::engine::durable;
use crate::failure::{Failure, exit};
use crate::generate::{self, SystemRandom};
use crate::record::{Body, Folder, Place, Record, Typed, Uid, Untyped};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  turnlock add \"Orders database\" --login app --url postgres://db1/orders --password
  turnlock add Door --set cmdr:plugin=noop --password - < secret.txt")]
pub(super) struct Add {
    /// Its title
    title: String,
    /// Make a typed record of this type instead of an untyped one
    #[arg(long = "type", value_name = "TYPE")]
    record_type: Option<String>,
    /// Put it into this folder (components joined by /)
    #[arg(long)]
    folder: Option<String>,
    #[command(flatten)]
    fields: Fields,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  turnlock edit Orders --set turnlock:ca=/etc/ssl/db-ca.pem
  turnlock edit Orders --unset cmdr:port --login app2")]
pub(super) struct Edit {
    /// A record: UID, title, folder/title, or an endpoint's name
    name: String,
    /// A new title
    #[arg(long)]
    title: Option<String>,
    /// Remove this custom field; may be repeated
    #[arg(long, value_name = "FIELD")]
    unset: Vec<String>,
    #[command(flatten)]
    fields: Fields,
}

#[derive(Debug, Args)]
struct Fields {
    /// Login name
    #[arg(long)]
    login: Option<String>,
    /// URL
    #[arg(long)]
    url: Option<String>,
    /// Password: asks at the terminal, with `-` reads standard input
    #[arg(long, value_name = "-", num_args = 0..=1, default_missing_value = "?")]
    password: Option<String>,
    /// Set a custom field; may be repeated. Not for secrets: use --set-secret
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// Set a custom field from the terminal, asked without an echo; may be repeated
    #[arg(long, value_name = "FIELD")]
    set_secret: Vec<String>,
}

pub(super) async fn add(context: &Context, add: Add) -> Result<u8, Failure> {
    let engine = context.engine(false).await?;
    let body = match &add.record_type {
        None => Body::Untyped(Untyped::default()),
        Some(name) => Body::Typed(Typed::of_type(name).ok_or_else(|| {
            Failure::usage(format!("there is no standard record type \"{name}\""))
                .hint("login, databaseCredentials, serverCredentials, sshKeys, pamUser, pamMachine, pamDatabase, pamDirectory")
        })?),
    };
    named(&add.title)?;
    let uid = generate::uid(&mut SystemRandom)
        .map_err(|error| Failure::new("no identifier can be made").caused_by(&error))?;
    let folders = add.folder.map(|path| Folder { shared: None, path: Some(path), extra: serde_json::Map::new() });
    let mut record = Record {
        uid,
        title: add.title,
        notes: None,
        folders: folders.into_iter().collect(),
        body,
        writable: true,
        extra: serde_json::Map::new(),
        earlier: Vec::new(),
    };
    add.fields.apply(&mut record)?;
    let identities = engine.identities(&record);
    checked(&record)?;
    durable(|| engine.vault.put(&record, None, &identities, false))?;
    said(context, &record.uid, &record.title, "added");
    Ok(exit::DONE)
}

pub(super) async fn edit(context: &Context, edit: Edit) -> Result<u8, Failure> {
    let engine = context.engine(false).await?;
    let uid = engine.record_named(&edit.name)?.uid;
    let mut stored = durable(|| engine.vault.read(&uid))?;
    let before = stored.record.basis();
    if let Some(title) = edit.title {
        named(&title)?;
        stored.record.title = title;
    }
    for field in &edit.unset {
        if !remove(&mut stored.record, field) {
            return Err(Failure::usage(format!("\"{}\" has no field \"{field}\"", stored.record.title))
                .hint(format!("turnlock show {uid} lists its fields")));
        }
    }
    edit.fields.apply(&mut stored.record)?;
    checked(&stored.record)?;
    let beside_open = before == stored.record.basis();
    let identities = engine.identities(&stored.record);
    durable(|| engine.vault.put(&stored.record, Some(stored.revision), &identities, beside_open))?;
    said(context, &uid, &stored.record.title, "changed");
    Ok(exit::DONE)
}

impl Fields {
    fn apply(&self, record: &mut Record) -> Result<(), Failure> {
        let password = match self.password.as_deref() {
            None => None,
            Some("-") => Some(open::first_line(std::path::Path::new("-"))?),
            Some("?") => Some(open::prompt_for("Password")?),
            Some(_) => {
                return Err(Failure::usage("a password on the command line can be seen by everybody on this machine")
                    .hint("say --password to be asked, or --password - to give it over standard input"));
            }
        };
        let mut standard = vec![];
        for (kind, text) in [("login", &self.login), ("url", &self.url)] {
            if let Some(text) = text {
                standard.push((kind, Secret::new(text.clone())));
            }
        }
        if let Some(password) = password {
            standard.push(("password", password));
        }
        for (kind, value) in standard {
            set_standard(record, kind, value)?;
        }
        for assignment in &self.set {
            let (field, value) =
                assignment.split_once('=').filter(|(field, _)| !field.is_empty()).ok_or_else(|| {
                    Failure::usage("--set takes FIELD=VALUE").hint("write for example --set cmdr:port=5433")
                })?;
            set_custom(record, field, Secret::new(value.to_owned()))?;
        }
        for field in &self.set_secret {
            set_custom(record, field, open::prompt_for(field)?)?;
        }
        Ok(())
    }
}

fn set_standard(record: &mut Record, kind: &str, value: Secret) -> Result<(), Failure> {
    let place = match (&mut record.body, kind) {
        (Body::Untyped(body), "login") => {
            body.login = Some(value);
            return Ok(());
        }
        (Body::Untyped(body), "url") => {
            body.link = Some(value);
            return Ok(());
        }
        (Body::Untyped(_), _) => Place::Password,
        (Body::Typed(_), "password") => record.place_of_password(),
        (Body::Typed(body), kind) => {
            let section = if body.fields.iter().any(|field| field.kind == kind) {
                crate::record::Section::Fields
            } else {
                crate::record::Section::Custom
            };
            Place::Typed { section, kind: kind.to_owned(), label: None, index: 0, part: None }
        }
    };
    set(record, &place, value)
}

fn set_custom(record: &mut Record, field: &str, value: Secret) -> Result<(), Failure> {
    let place = record.place_of_option(field, "text");
    set(record, &place, value)
}

fn set(record: &mut Record, place: &Place, value: Secret) -> Result<(), Failure> {
    record.set(place, value).map_err(|error| Failure::usage(error.to_string()))
}

fn remove(record: &mut Record, name: &str) -> bool {
    match &mut record.body {
        Body::Untyped(body) => {
            let before = body.custom.len();
            body.custom.retain(|custom| custom.name != name);
            body.custom.len() < before
        }
        Body::Typed(body) => {
            let before = body.custom.len();
            body.custom.retain(|field| field.label.as_deref() != Some(name));
            body.custom.len() < before
        }
    }
}

/// A record without a title could be called by its UID alone.
fn named(title: &str) -> Result<(), Failure> {
    if title.trim().is_empty() { Err(Failure::usage("a record needs a title").hint("name it")) } else { Ok(()) }
}

fn checked(record: &Record) -> Result<(), Failure> {
    record.validate().map_err(|error| Failure::usage(error.to_string()))
}

fn said(context: &Context, uid: &Uid, title: &str, what: &str) {
    context
        .report
        .answer(&json!({"record": uid, "title": title, "outcome": what}), || format!("{what} {title}  {uid}"));
}
