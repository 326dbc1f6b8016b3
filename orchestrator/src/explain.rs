//! Why a plan is what it is: `turnlock explain NAME` as data. No secret is in
//! it, and nothing is printed here.

use serde::{Deserialize, Serialize};

use crate::plan::{Decision, Plan};

/// A plan told to people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The account in one line.
    pub account: String,
    /// What was decided, and by which field.
    pub rows: Vec<Decision>,
    /// What a person should know besides.
    pub remarks: Vec<String>,
}

/// Tells a plan: its decisions in their order, and where the new credential
/// will be written.
pub fn explain(plan: &Plan) -> Explanation {
    let mut rows = plan.decisions.clone();
    rows.extend(plan.write_back.iter().map(|write| Decision {
        what: format!("new {} goes to", write.field),
        value: write.place.to_string(),
        from: format!("schema of {}", plan.plugin),
    }));
    Explanation { account: plan.identity.to_string(), rows, remarks: plan.remarks.clone() }
}
