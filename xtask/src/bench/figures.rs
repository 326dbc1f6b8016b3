//! What was measured, as a table for people or as JSON for machines.

use std::iter;

use serde::Serialize;
use serde_json::json;

use crate::{
    demo::aligned,
    say::{answer, line},
};

/// One measured figure.
#[derive(Serialize)]
pub(super) struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// What was aimed at, for people.
    wanted: Option<String>,
    met: Option<bool>,
}

impl Figure {
    pub(super) fn plain(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, wanted: None, met: None }
    }

    pub(super) fn at_most(name: impl Into<String>, value: f64, unit: &'static str, limit: f64) -> Self {
        Self { wanted: Some(format!("≤ {limit:.2}")), met: Some(value <= limit), ..Self::plain(name, value, unit) }
    }

    pub(super) fn at_least(name: impl Into<String>, value: f64, unit: &'static str, limit: f64) -> Self {
        Self { wanted: Some(format!("≥ {limit:.2}")), met: Some(value >= limit), ..Self::plain(name, value, unit) }
    }
}

/// Figures for machines go to standard output, and nothing else does.
pub(super) fn tell(figures: &[Figure], as_json: bool) {
    if as_json {
        answer(&json!(figures).to_string());
        return;
    }
    let head = ["FIGURE", "MEASURED", "", "WANTED", ""].map(str::to_owned);
    let rows = figures.iter().map(|figure| {
        [
            figure.name.clone(),
            format!("{:.2}", figure.value),
            figure.unit.to_owned(),
            figure.wanted.clone().unwrap_or_default(),
            figure.met.map_or("", |met| if met { "met" } else { "missed" }).to_owned(),
        ]
    });
    line("");
    for row in aligned(&iter::once(head).chain(rows).collect::<Vec<_>>()) {
        line(&row);
    }
}
