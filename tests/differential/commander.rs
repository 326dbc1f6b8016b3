//! Questions to Commander's Python, answered by one process for all of them.

use lab::{process, python};
use serde_json::Value;

const SCRIPT: &str = include_str!("commander.py");

/// The answers to these questions, in their order. `commander.py` says which there are.
#[track_caller]
pub(crate) fn ask(questions: &[Value]) -> Vec<Value> {
    let mut command = python::script(SCRIPT, &[]).unwrap();
    let output = process::run(&mut command, serde_json::to_string(questions).unwrap().as_bytes()).unwrap();
    assert!(output.succeeded(), "{}", output.stderr);
    let answers: Vec<Value> = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(answers.len(), questions.len());
    answers
}

/// The answer to one question.
#[track_caller]
pub(crate) fn ask_one(question: Value) -> Value {
    ask(&[question]).remove(0)
}
