//! What of a record is not in another one that should be the same: how an
//! export finds out what its format does not keep, by reading what it wrote.

use turnlock_protocol::Secret;

use crate::record::{Body, Earlier, Field, FieldValue, Folder, Record};

/// What of the first is missing or different in the second, in words. A field
/// without a value says nothing and is not missed.
pub(super) fn differences(one: &Record, other: &Record) -> Vec<String> {
    let mut lost = Vec::new();
    let mut tell = |differs: bool, what: &str| {
        if differs {
            lost.push(what.to_owned());
        }
    };
    tell(one.uid != other.uid, "its UID");
    tell(one.title != other.title, "its title");
    tell(!same_text(one.notes.as_ref(), other.notes.as_ref()), "its notes");
    tell(!same_folders(&one.folders, &other.folders), "some of its folders, or the rights in them");
    for (key, value) in &one.extra {
        tell(other.extra.get(key) != Some(value), &format!("'{}'", key.escape_debug()));
    }
    tell(!same_earlier(&one.earlier, &other.earlier), "its earlier versions");
    lost.extend(body(&one.body, &other.body));
    lost
}

/// The same of the fields alone.
fn body(one: &Body, other: &Body) -> Vec<String> {
    match (one, other) {
        (Body::Untyped(one), Body::Untyped(other)) => {
            let standard = [
                ("login", &one.login, &other.login),
                ("password", &one.password, &other.password),
                ("URL", &one.link, &other.link),
            ];
            let mut lost: Vec<String> = standard
                .into_iter()
                .filter(|(_, one, other)| !same_text(one.as_ref(), other.as_ref()))
                .map(|(name, ..)| format!("its {name}"))
                .collect();
            let filled = |fields: &[crate::record::CustomField]| {
                let filled = fields.iter().filter(|field| !field.value.is_empty());
                filled
                    .map(|field| (field.name.clone(), field.value.duplicate(), field.kind.clone()))
                    .collect::<Vec<_>>()
            };
            let (one, other) = (filled(&one.custom), filled(&other.custom));
            let kept = |field: &(String, Secret, Option<String>)| {
                other.iter().any(|there| there.0 == field.0 && there.1.same_as(&field.1))
            };
            let gone: Vec<String> = one
                .iter()
                .filter(|field| !kept(field))
                .map(|field| format!("custom field '{}'", field.0.escape_debug()))
                .collect();
            if gone.is_empty() {
                let same = one.len() == other.len()
                    && one.iter().zip(&other).all(|(one, other)| (&one.0, &one.2) == (&other.0, &other.2));
                if !same {
                    lost.push("the order and kinds of its custom fields".to_owned());
                }
            }
            lost.extend(gone);
            lost
        }
        (Body::Typed(one), Body::Typed(other)) => {
            let mut lost = Vec::new();
            if one.record_type != other.record_type {
                lost.push("its record type".to_owned());
            }
            let filled = |fields: &'_ [Field]| fields.iter().filter(|field| has_value(field)).count();
            let everything = || other.fields.iter().chain(&other.custom);
            let mut places =
                filled(&one.fields) != filled(&other.fields) || filled(&one.custom) != filled(&other.custom);
            for field in one.fields.iter().chain(&one.custom).filter(|field| has_value(field)) {
                let name =
                    field.label.as_deref().filter(|label| !label.is_empty()).unwrap_or(&field.kind).escape_debug();
                let alike = |there: &&Field| {
                    there.value.len() == field.value.len()
                        && there.value.iter().zip(&field.value).all(|(one, other)| same_value(one, other))
                };
                match everything().filter(alike).find(|there| there.kind == field.kind && there.label == field.label) {
                    None if everything().any(|there| alike(&there)) => places = true,
                    None => lost.push(format!("field '{name}', or the shape of its value")),
                    Some(there) if there.extra != field.extra => lost.push(format!("the rules of field '{name}'")),
                    Some(_) => {}
                }
            }
            let order = |fields: &[Field]| {
                fields
                    .iter()
                    .filter(|field| has_value(field))
                    .map(|field| (field.kind.clone(), field.label.clone()))
                    .collect::<Vec<_>>()
            };
            places |= order(&one.fields) != order(&other.fields) || order(&one.custom) != order(&other.custom);
            if lost.is_empty() && places {
                lost.push("the lists, labels and order of its fields".to_owned());
            }
            lost
        }
        _ => vec!["its shape".to_owned()],
    }
}

fn same_text(one: Option<&Secret>, other: Option<&Secret>) -> bool {
    match (one.filter(|text| !text.is_empty()), other.filter(|text| !text.is_empty())) {
        (None, None) => true,
        (Some(one), Some(other)) => one.same_as(other),
        _ => false,
    }
}

fn same_folders(one: &[Folder], other: &[Folder]) -> bool {
    let told = |folders: &[Folder]| {
        let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let folders = folders.iter().map(|folder| (said(&folder.shared), said(&folder.path), folder.extra.clone()));
        folders.filter(|(shared, path, _)| shared.is_some() || path.is_some()).collect::<Vec<_>>()
    };
    told(one) == told(other)
}

fn same_earlier(one: &[Earlier], other: &[Earlier]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| {
            let seconds = |earlier: &Earlier| earlier.at.map(|at| at.as_second());
            seconds(one) == seconds(other)
                && one.title == other.title
                && same_text(one.notes.as_ref(), other.notes.as_ref())
                && body(&one.body, &other.body).is_empty()
        })
}

fn has_value(field: &Field) -> bool {
    field.value.iter().any(|value| !matches!(value, FieldValue::Text(text) if text.is_empty()))
}

fn same_value(one: &FieldValue, other: &FieldValue) -> bool {
    match (one, other) {
        (FieldValue::Text(one), FieldValue::Text(other)) => one.same_as(other),
        (FieldValue::Other(one), FieldValue::Other(other)) => one == other,
        (FieldValue::Parts(one), FieldValue::Parts(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(name, value)| other.iter().any(|(there, other)| there == name && same_value(value, other)))
        }
        _ => false,
    }
}
