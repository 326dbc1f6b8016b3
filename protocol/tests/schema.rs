//! JSON Schema of every params and result, for authors in other languages.

#[cfg(test)]
mod vocabulary;

use schemars::{Schema, schema_for};
use turnlock_protocol::message::{
    CancelParams, Hello, LogParams, MintedParams, Permit, ProgressParams, RpcError, Staged, ThresholdParams,
};
use turnlock_protocol::operation::{
    ApplyParams, ApplyResult, CheckParams, Findings, FinishParams, Finished, PlanParams, PlanResult, PrepareParams,
    Prepared, RevertParams, Terms, Verdicts, VerifyParams,
};
use turnlock_protocol::{Describe, Fault};

use vocabulary::{compare_or_write, file, names_in};

fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        ("apply.params", schema_for!(ApplyParams)),
        ("apply.result", schema_for!(ApplyResult)),
        ("cancel.params", schema_for!(CancelParams)),
        ("check.params", schema_for!(CheckParams)),
        ("check.result", schema_for!(Findings)),
        ("describe.result", schema_for!(Describe)),
        ("error", schema_for!(RpcError)),
        ("fault", schema_for!(Fault)),
        ("finish.params", schema_for!(FinishParams)),
        ("finish.result", schema_for!(Finished)),
        ("hello.params", schema_for!(Hello)),
        ("log.params", schema_for!(LogParams)),
        ("minted.params", schema_for!(MintedParams)),
        ("minted.result", schema_for!(Staged)),
        ("plan.params", schema_for!(PlanParams)),
        ("plan.result", schema_for!(PlanResult)),
        ("prepare.params", schema_for!(PrepareParams)),
        ("prepare.result", schema_for!(Prepared)),
        ("progress.params", schema_for!(ProgressParams)),
        ("revert.params", schema_for!(RevertParams)),
        ("revert.result", schema_for!(Finished)),
        ("terms", schema_for!(Terms)),
        ("threshold.params", schema_for!(ThresholdParams)),
        ("threshold.result", schema_for!(Permit)),
        ("verify.params", schema_for!(VerifyParams)),
        ("verify.result", schema_for!(Verdicts)),
    ]
}

#[test]
fn every_schema_is_what_its_file_says() {
    let schemas = schemas();
    for (name, schema) in &schemas {
        let pretty = serde_json::to_string_pretty(schema).unwrap() + "\n";
        assert!(schema.get("additionalProperties").is_none(), "{name}: unknown fields are ignored");
        compare_or_write(&file(&format!("schema/{name}.json")), &pretty);
    }
    let names: Vec<String> = schemas.iter().map(|(name, _)| format!("{name}.json")).collect();
    assert_eq!(names_in("schema"), names);
}
