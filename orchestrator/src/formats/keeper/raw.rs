//! Records in the forms that vaults hold themselves: what Commander's `get
//! --format json` shows and Keeper's other programs speak.

use std::io::{self, Write};

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use super::export::{folder, ours};
use crate::formats::{Export, ExportError};
use crate::record::{Body, CustomField, Field, FieldValue, Record};

/// Writes a list of raw records one at a time.
#[derive(Debug)]
pub struct RawExporter<W: Write> {
    out: W,
    first: bool,
}

impl<W: Write> RawExporter<W> {
    /// Begins a file.
    pub fn start(mut out: W) -> Result<Self, ExportError> {
        out.write_all(b"[")?;
        Ok(Self { out, first: true })
    }
}

impl<W: Write> Export for RawExporter<W> {
    fn record(&mut self, record: &Record) -> Result<Vec<String>, ExportError> {
        self.out.write_all(if self.first { b"\n" } else { b",\n" })?;
        self.first = false;
        serde_json::to_writer(&mut self.out, &Raw(record)).map_err(io::Error::from)?;
        Ok(Vec::new())
    }

    fn finish(mut self: Box<Self>) -> Result<(), ExportError> {
        self.out.write_all(b"\n]\n")?;
        Ok(self.out.flush()?)
    }
}

/// A record in the form that vaults hold, of its own shape.
struct Raw<'a>(&'a Record);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("uid", &record.uid)?;
        match &record.body {
            Body::Untyped(body) => {
                map.serialize_entry("title", &record.title)?;
                let standard = [("secret1", &body.login), ("secret2", &body.password), ("link", &body.link)];
                for (key, value) in standard {
                    if let Some(value) = value {
                        map.serialize_entry(key, value)?;
                    }
                }
                map.serialize_entry("custom", &body.custom.iter().map(RawCustom).collect::<Vec<_>>())?;
            }
            Body::Typed(body) => {
                map.serialize_entry("type", &body.record_type)?;
                map.serialize_entry("title", &record.title)?;
                map.serialize_entry("fields", &body.fields.iter().map(RawField).collect::<Vec<_>>())?;
                map.serialize_entry("custom", &body.custom.iter().map(RawField).collect::<Vec<_>>())?;
            }
        }
        if let Some(notes) = &record.notes {
            map.serialize_entry("notes", notes)?;
        }
        if !record.folders.is_empty() {
            map.serialize_entry("folders", &record.folders.iter().map(folder).collect::<Vec<_>>())?;
        }
        for (key, value) in &record.extra {
            map.serialize_entry(key, value)?;
        }
        ours(&mut map, record, None)?;
        map.end()
    }
}

struct RawCustom<'a>(&'a CustomField);

impl Serialize for RawCustom<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.0.name)?;
        map.serialize_entry("value", &self.0.value)?;
        if let Some(kind) = &self.0.kind {
            map.serialize_entry("type", kind)?;
        }
        map.end()
    }
}

/// A field of a typed record.
pub(crate) struct RawField<'a>(pub(crate) &'a Field);

impl Serialize for RawField<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let field = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &field.kind)?;
        if let Some(label) = &field.label {
            map.serialize_entry("label", label)?;
        }
        map.serialize_entry("value", &field.value.iter().map(RawValue).collect::<Vec<_>>())?;
        for (key, value) in &field.extra {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// A value without the names of its variants.
pub(in crate::formats) struct RawValue<'a>(pub(in crate::formats) &'a FieldValue);

impl Serialize for RawValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            FieldValue::Text(text) => text.serialize(serializer),
            FieldValue::Other(value) => value.serialize(serializer),
            FieldValue::Parts(parts) => {
                let mut map = serializer.serialize_map(Some(parts.len()))?;
                for (key, value) in parts {
                    map.serialize_entry(key, &RawValue(value))?;
                }
                map.end()
            }
        }
    }
}
