//! JSON whose texts are secrets from the moment they are read. Keys that are
//! there twice are an error: one of them would be lost without a word.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use turnlock_protocol::Secret;

use crate::record::FieldValue;

/// One JSON value.
pub(crate) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(Secret),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    /// The same as plain JSON, for what is kept without being understood.
    pub(crate) fn into_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Number(number) => Value::Number(number),
            Self::Text(text) => Value::String(clear(&text).to_owned()),
            Self::List(items) => Value::Array(items.into_iter().map(Self::into_value).collect()),
            Self::Object(members) => {
                Value::Object(members.into_iter().map(|(key, node)| (key, node.into_value())).collect::<Map<_, _>>())
            }
        }
    }

    /// Plain JSON as a node.
    pub(in crate::formats) fn of_value(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::Text(Secret::new(text)),
            Value::Array(items) => Self::List(items.into_iter().map(Self::of_value).collect()),
            Value::Object(members) => {
                Self::Object(members.into_iter().map(|(key, value)| (key, Self::of_value(value))).collect())
            }
        }
    }

    /// The same as a value of a typed field.
    pub(crate) fn into_field_value(self) -> FieldValue {
        match self {
            Self::Text(text) => FieldValue::Text(text),
            Self::Object(members) => {
                let parts = members.into_iter().map(|(key, node)| (key, node.into_field_value()));
                FieldValue::Parts(parts.collect())
            }
            other => FieldValue::Other(other.into_value()),
        }
    }

    /// The items of a list, or the value as the only one.
    pub(crate) fn into_items(self) -> Vec<Node> {
        match self {
            Self::List(items) => items,
            other => vec![other],
        }
    }

    /// Texts as they are, numbers and booleans as they are written.
    pub(crate) fn into_text(self) -> Result<Secret, Self> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Number(number) => Ok(Secret::new(number.to_string())),
            Self::Bool(value) => Ok(Secret::new(value.to_string())),
            other => Err(other),
        }
    }

    /// The text of a value that is no secret: a title, a type, a label.
    pub(crate) fn plain(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(clear(text)),
            _ => None,
        }
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self, Self::List(_))
    }

    pub(crate) fn is_nothing(&self) -> bool {
        match self {
            Self::Null => true,
            Self::List(items) => items.is_empty(),
            Self::Object(members) => members.is_empty(),
            _ => false,
        }
    }
}

pub(crate) fn clear(text: &Secret) -> &str {
    #[expect(clippy::disallowed_methods, reason = "titles, names and kept JSON are read out of the imported texts")]
    text.expose()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Number::from_f64(value).map_or(Node::Null, Node::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(Secret::new(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Node, E> {
        Ok(Node::Text(Secret::new(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut seen = BTreeSet::new();
        let mut members: Vec<(String, Node)> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(de::Error::custom("a key is there twice"));
            }
            members.push((key, map.next_value()?));
        }
        Ok(Node::Object(members))
    }
}
