//! A record as texts with names, which is all that CSV and KDBX know: the keys
//! of Commander's form, each with a text.
//!
//! Composite values have the text that Commander gives them where that text
//! tells everything (`host:port`, the private key), else JSON. A key pair's
//! other half stands beside it under `KEY#publicKey`.

use serde_json::Value;
use turnlock_protocol::Secret;

use super::keeper::export::{Placed, SlotValue, untyped_order};
use super::keeper::json::{Node, clear};
use super::keeper::{OURS, split_key};
use crate::record::{Body, FieldValue};

/// The key under which a public key stands beside its private one.
pub(super) const PUBLIC: &str = "#publicKey";

/// Types whose values are composites of texts.
const COMPOSITE: [&str; 14] = [
    "host",
    "pamHostname",
    "keyPair",
    "name",
    "phone",
    "address",
    "securityQuestion",
    "paymentCard",
    "bankAccount",
    "schedule",
    "script",
    "pamResources",
    "passkey",
    "appFiller",
];

/// A record's fields as texts.
pub(super) struct Flat {
    pub(super) login: Option<Secret>,
    pub(super) password: Option<Secret>,
    pub(super) url: Option<Secret>,
    /// Every other field; keys may repeat.
    pub(super) pairs: Vec<(String, Secret)>,
}

impl Flat {
    /// The fields of a record.
    pub(super) fn of(body: &Body) -> Self {
        let copy = |text: &Secret| Some(text.duplicate());
        match body {
            Body::Untyped(body) => Self {
                login: body.login.as_ref().and_then(copy),
                password: body.password.as_ref().and_then(copy),
                url: body.link.as_ref().and_then(copy),
                pairs: body.custom.iter().map(|field| (field.name.clone(), field.value.duplicate())).collect(),
            },
            Body::Typed(body) => {
                let placed = Placed::of(body);
                let top =
                    |key: &str| placed.top.iter().find(|(there, _)| *there == key).and_then(|(_, text)| copy(text));
                let mut pairs = Vec::new();
                for (key, values) in &placed.slots {
                    let (kind, label) = split_key(key);
                    // A text needs no type where its label is no key by itself.
                    let name = match label {
                        Some(label) if kind == "text" && !label.is_empty() && !label.starts_with('$') => label,
                        _ => key.clone(),
                    };
                    for value in values {
                        let SlotValue::Field(value) = value else { continue };
                        push(&mut pairs, &name, &kind, value);
                    }
                }
                Self { login: top("login"), password: top("password"), url: top("login_url"), pairs }
            }
        }
    }

    /// The same as members of an object in Commander's form.
    pub(super) fn into_members(self, record_type: Option<String>, layout: Option<Value>) -> Vec<(String, Node)> {
        let typed = record_type.is_some();
        let text = |text: String| Node::Text(Secret::new(text));
        let mut members: Vec<(String, Node)> = Vec::new();
        members.extend(record_type.map(|name| ("$type".to_owned(), text(name))));
        for (key, value) in [("login", self.login), ("password", self.password), ("login_url", self.url)] {
            members.extend(value.filter(|value| !value.is_empty()).map(|value| (key.to_owned(), Node::Text(value))));
        }
        let mut slots: Vec<(String, Vec<Node>)> = Vec::new();
        let mut order = Vec::new();
        for (name, value) in self.pairs {
            let slot = if typed { with_type(&name) } else { name };
            if let Some(key) = slot.strip_suffix(PUBLIC).filter(|key| typed && key.starts_with("$keyPair"))
                && let Some((_, nodes)) = slots.iter_mut().find(|(there, _)| there == key)
                && let Some(Node::Object(parts)) = nodes.last_mut()
            {
                parts.retain(|(part, _)| part != "publicKey");
                parts.push(("publicKey".to_owned(), Node::Text(value)));
                continue;
            }
            order.push(slot.clone());
            let node = if typed { node(&split_key(&slot).0, value) } else { Node::Text(value) };
            match slots.iter_mut().find(|(there, _)| *there == slot) {
                Some((_, nodes)) => nodes.push(node),
                None => slots.push((slot, vec![node])),
            }
        }
        let layout = layout.or_else(|| (!typed).then(|| in_order(&order)));
        if typed && let Some(layout) = layout.as_ref().and_then(Value::as_array) {
            // A field without a value has no text to stand for it.
            for at in layout.iter().filter(|entry| entry.get("values").and_then(Value::as_u64) == Some(0)) {
                if let Some(at) = at.get("at").and_then(Value::as_str)
                    && !slots.iter().any(|(there, _)| there == at)
                {
                    slots.push((at.to_owned(), Vec::new()));
                }
            }
        }
        let fields = slots.into_iter().map(|(key, nodes)| (key, Node::List(nodes))).collect();
        members.push(("custom_fields".to_owned(), Node::Object(fields)));
        if let Some(layout) = layout {
            members.push((OURS.to_owned(), Node::Object(vec![("layout".to_owned(), Node::of_value(layout))])));
        }
        members
    }
}

/// Where each field stood, for a form whose texts have no order.
pub(super) fn layout_of(body: &Body) -> Value {
    Value::Array(match body {
        Body::Untyped(body) => untyped_order(body),
        Body::Typed(body) => Placed::of(body).whole_layout(body),
    })
}

/// Custom fields of an untyped record in the order of their texts.
fn in_order(names: &[String]) -> Value {
    names.iter().map(|name| serde_json::json!({ "at": name, "type": "text" })).collect()
}

/// A key as Commander's JSON has it: a text's own label is no key there.
fn with_type(name: &str) -> String {
    match name {
        "TFC:Keeper" => "$oneTimeCode".to_owned(),
        name if name.starts_with('$') => name.to_owned(),
        name => format!("$text:{name}"),
    }
}

fn push(pairs: &mut Vec<(String, Secret)>, name: &str, kind: &str, value: &FieldValue) {
    let text = match value {
        FieldValue::Text(text) => text.duplicate(),
        FieldValue::Parts(_) if kind == "keyPair" && value.part("privateKey").is_some() && is_pair(value) => {
            pairs.extend(value.part("privateKey").map(|key| (name.to_owned(), key)));
            pairs.extend(value.part("publicKey").map(|key| (format!("{name}{PUBLIC}"), key)));
            return;
        }
        FieldValue::Parts(_) => match host_and_port(kind, value) {
            Some(text) => text,
            None => json(value),
        },
        FieldValue::Other(Value::Bool(yes)) => Secret::new(yes.to_string()),
        FieldValue::Other(Value::Null) => return,
        FieldValue::Other(_) => json(value),
    };
    pairs.push((name.to_owned(), text));
}

/// Whether a composite holds the halves of a key pair and nothing else.
fn is_pair(value: &FieldValue) -> bool {
    let FieldValue::Parts(parts) = value else { return false };
    parts
        .iter()
        .all(|(name, part)| matches!(part, FieldValue::Text(_)) && ["privateKey", "publicKey"].contains(&name.as_str()))
}

/// A host that one text tells whole: Commander splits it at the first colon.
fn host_and_port(kind: &str, value: &FieldValue) -> Option<Secret> {
    let FieldValue::Parts(parts) = value else { return None };
    let [(first, FieldValue::Text(host)), (second, FieldValue::Text(port))] = parts.as_slice() else {
        return None;
    };
    let known = ["host", "pamHostname"].contains(&kind) && first == "hostName" && second == "port";
    let (host, port) = (clear(host), clear(port));
    let plain = |text: &str| !text.contains(':') && text.trim() == text && !text.starts_with('{');
    let whole = if port.is_empty() { host.to_owned() } else { format!("{host}:{port}") };
    (known && plain(host) && plain(port)).then(|| Secret::new(whole))
}

fn json(value: &FieldValue) -> Secret {
    Secret::new(serde_json::to_string(&SlotValue::Field(value)).unwrap_or_default())
}

/// The value of a typed field from its text.
fn node(kind: &str, text: Secret) -> Node {
    if kind == "checkbox" {
        return Node::Bool(["1", "t", "true"].contains(&clear(&text).to_lowercase().as_str()));
    }
    if !COMPOSITE.contains(&kind) {
        return match (kind, clear(&text).parse::<i64>()) {
            ("date" | "birthDate" | "expirationDate", Ok(number)) => Node::Number(number.into()),
            _ => Node::Text(text),
        };
    }
    if clear(&text).starts_with('{')
        && let Ok(node @ Node::Object(_)) = serde_json::from_str(clear(&text))
    {
        return node;
    }
    let parts = |one: (&str, &str), other: (&str, &str)| {
        let part = |(name, text): (&str, &str)| (name.to_owned(), Node::Text(Secret::new(text.to_owned())));
        Node::Object(vec![part(one), part(other)])
    };
    match kind {
        "host" | "pamHostname" => {
            let (host, port) = clear(&text).split_once(':').unwrap_or((clear(&text), ""));
            parts(("hostName", host.trim()), ("port", port.trim()))
        }
        "keyPair" => parts(("privateKey", clear(&text)), ("publicKey", "")),
        _ => Node::Text(text),
    }
}
