//! Figures in OpenMetrics, for an endpoint or a file.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::{BUCKETS_MS, History, Overview};
use crate::failure::Failure;
use crate::vault::RecordState;

/// What the text is, for who asks over HTTP.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All figures as text.
pub(crate) fn text(overview: &Overview, history: &History) -> Result<String, Failure> {
    let mut registry = Registry::with_prefix("turnlock");
    registry.register_collector(Box::new(Figures::of(overview, history)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .map_err(|error| Failure::new("the figures cannot be written").caused_by(&error))?;
    Ok(text)
}

/// Figures as they were at one instant.
#[derive(Debug)]
struct Figures {
    /// By plugin.
    records: BTreeMap<String, Plugin>,
    open: [(&'static str, usize); 4],
    overdue: usize,
    latest_s: i64,
    rotations: [(&'static str, u64); 2],
    hooks: [(&'static str, u64); 2],
    durations: Vec<(f64, u64)>,
    took_s: f64,
    last_rotated: Option<i64>,
    audit_rows: u64,
    taken: i64,
}

#[derive(Debug, Default)]
struct Plugin {
    count: i64,
    never_rotated: i64,
    failing: i64,
    drifted: i64,
    oldest_s: i64,
}

impl Figures {
    fn of(overview: &Overview, history: &History) -> Self {
        let mut records: BTreeMap<String, Plugin> = BTreeMap::new();
        for kept in &overview.kept {
            let plugin = records.entry(kept.summary.plugin.clone().unwrap_or_default()).or_default();
            plugin.count += 1;
            plugin.failing += i64::from(kept.summary.fate.failed.is_some());
            plugin.drifted += i64::from(kept.summary.fate.drifted.is_some());
            match kept.age(overview.taken) {
                Some(age) => plugin.oldest_s = plugin.oldest_s.max(age.as_secs()),
                None => plugin.never_rotated += 1,
            }
        }
        let bounds = BUCKETS_MS.iter().map(|ms| seconds(*ms)).chain([f64::MAX]);
        Self {
            records,
            open: [
                ("open", overview.count(RecordState::Open)),
                ("parked", overview.count(RecordState::Parked)),
                ("clean_up", overview.count(RecordState::Finishing)),
                ("hooks", overview.count(RecordState::Hooks)),
            ],
            overdue: overview.overdue().count(),
            latest_s: overview.latest().as_secs(),
            rotations: [("rotated", history.rotated), ("failed", history.failed)],
            hooks: [("run", history.hooks_run), ("failed", history.hooks_failed)],
            durations: bounds.zip(history.durations).collect(),
            took_s: seconds(history.took_ms),
            last_rotated: history.last_rotated.map(|at| at.as_second()),
            audit_rows: history.rows,
            taken: overview.taken.as_second(),
        }
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut by_plugin = |name: &str, help: &str, unit: Option<&Unit>, figure: fn(&Plugin) -> i64| {
            let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            for (plugin, figures) in &self.records {
                metric.encode_family(&[("plugin", plugin.as_str())])?.encode_gauge(&figure(figures))?;
            }
            Ok(())
        };
        by_plugin("records", "Records that can be rotated", None, |plugin| plugin.count)?;
        by_plugin("never_rotated", "Records whose credential was not made here", None, |plugin| plugin.never_rotated)?;
        by_plugin("failing", "Records whose last rotation failed", None, |plugin| plugin.failing)?;
        by_plugin("drifted", "Records whose credential the target refused", None, |plugin| plugin.drifted)?;
        let help = "Age of the oldest credential that was made here";
        by_plugin("oldest_credential", help, Some(&Unit::Seconds), |plugin| plugin.oldest_s)?;

        let help = "What is open, parked or owed; see turnlock status";
        let mut metric = encoder.encode_descriptor("open_items", help, None, MetricType::Gauge)?;
        for (state, count) in self.open {
            metric.encode_family(&[("state", state)])?.encode_gauge(&count_of(count))?;
        }
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: i64| {
            encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
        };
        gauge("overdue", "Records whose time has passed", None, count_of(self.overdue))?;
        gauge("latest", "How long the time of the latest record has passed", Some(&Unit::Seconds), self.latest_s)?;
        gauge("audit_rows", "Rows of the audit chain", None, count_of(self.audit_rows))?;
        gauge("observed_timestamp", "When these figures were taken", Some(&Unit::Seconds), self.taken)?;
        if let Some(at) = self.last_rotated {
            let help = "When a rotation was last committed";
            gauge("last_rotation_timestamp", help, Some(&Unit::Seconds), at)?;
        }
        let mut metric = encoder.encode_descriptor("build", "Always 1, with the version", None, MetricType::Gauge)?;
        metric.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?.encode_gauge(&1_i64)?;

        let mut counters = |name: &str, help: &str, counts: &[(&str, u64)]| {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (outcome, count) in counts {
                let label = [("outcome", *outcome)];
                metric.encode_family(&label)?.encode_counter::<NoLabelSet, u64, f64>(count, None)?;
            }
            Ok(())
        };
        counters("rotations", "Rotations that ended", &self.rotations)?;
        counters("hook_runs", "Runs of a record's hooks", &self.hooks)?;
        let help = "How long rotations took from stage to commit";
        let unit = Some(&Unit::Seconds);
        let mut histogram = encoder.encode_descriptor("rotation_duration", help, unit, MetricType::Histogram)?;
        let count = self.durations.iter().map(|(_, count)| count).sum();
        histogram.encode_histogram::<NoLabelSet>(self.took_s, count, &self.durations, None)
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

fn count_of(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
