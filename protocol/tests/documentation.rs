//! Every JSON example in PROTOCOL.md is what it says it is.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "the helpers of tests fail like tests")]

#[cfg(test)]
mod vocabulary;

use std::collections::HashMap;

use serde_json::Value;
use turnlock_protocol::{Incoming, Kind, Operation};

use vocabulary::{file, names_in, reread};

/// An example: where it begins, what it is called, and its text.
struct Example {
    line: usize,
    name: String,
    text: String,
}

fn page() -> String {
    std::fs::read_to_string(file("../PROTOCOL.md")).unwrap()
}

fn examples() -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut inside = false;
    for (at, line) in page().lines().enumerate() {
        match line.strip_prefix("```") {
            Some("") if inside => inside = false,
            Some(info) if !inside => {
                let name = info
                    .strip_prefix("json")
                    .unwrap_or_else(|| panic!("line {}: a block that no test reads: {info}", at + 1));
                examples.push(Example { line: at + 1, name: name.trim().to_owned(), text: String::new() });
                inside = true;
            }
            _ if inside => {
                let example = examples.last_mut().unwrap();
                example.text += &format!("{line}\n");
            }
            _ => {}
        }
    }
    assert!(!inside);
    examples
}

/// Everything in the example is also in what was read from it: no field is
/// misspelled, and none has another value.
fn says_nothing_more(example: &Value, read: &Value, place: &str) {
    match (example, read) {
        (Value::Object(example), Value::Object(read)) => {
            for (name, value) in example {
                let place = format!("{place}.{name}");
                match read.get(name) {
                    Some(read) => says_nothing_more(value, read, &place),
                    None => assert!(matches!(value, Value::Array(items) if items.is_empty()), "{place} is no field"),
                }
            }
        }
        (Value::Array(example), Value::Array(read)) => {
            assert_eq!(example.len(), read.len(), "{place}");
            for (example, read) in example.iter().zip(read) {
                says_nothing_more(example, read, place);
            }
        }
        _ => assert_eq!(example, read, "{place}"),
    }
}

fn check(name: &str, text: &str, place: &str) {
    let read = reread(name, text)
        .unwrap_or_else(|| panic!("{place}: nothing is called {name}"))
        .unwrap_or_else(|error| panic!("{place}: {error}"));
    let example: Value = serde_json::from_str(text).unwrap();
    says_nothing_more(&example, &serde_json::from_str(&read).unwrap(), place);
}

/// A conversation: each message by its method, each answer by its request's.
fn check_messages(example: &Example) {
    let mut asked: HashMap<String, String> = HashMap::new();
    for line in example.text.lines() {
        let place = format!("PROTOCOL.md, example of line {}: {line}", example.line);
        match Incoming::parse(line.as_bytes()).unwrap_or_else(|error| panic!("{place}: {error}")) {
            Incoming::Request { id, method, params } => {
                asked.insert(id.to_string(), method.to_owned());
                check(&format!("{method}.params"), params.unwrap().get(), &place);
            }
            Incoming::Notification { method, params } => {
                check(&format!("{method}.params"), params.unwrap().get(), &place);
            }
            Incoming::Result { id, result } => {
                let method = &asked[&id.to_string()];
                check(&format!("{method}.result"), result.get(), &place);
            }
            Incoming::Error { .. } => {
                let value: Value = serde_json::from_str(line).unwrap();
                check("error", &value["error"].to_string(), &place);
            }
        }
    }
}

#[test]
fn every_example_is_read() {
    let examples = examples();
    for example in &examples {
        let place = format!("PROTOCOL.md, example of line {}", example.line);
        match example.name.as_str() {
            "" => check_messages(example),
            "rotate.output" => example.text.lines().for_each(|line| check("rotate.output", line, &place)),
            name => check(name, &example.text, &place),
        }
    }
    assert!(examples.len() > 25, "{}", examples.len());
}

#[test]
fn every_operation_kind_and_golden_method_is_told() {
    let page = page();
    for operation in Operation::ALL {
        assert!(page.contains(&format!("| `{}` |", operation.name())), "{}", operation.name());
    }
    for kind in [
        Kind::InvalidInput,
        Kind::Unreachable,
        Kind::Tls,
        Kind::HostKey,
        Kind::Authentication,
        Kind::Permission,
        Kind::Policy,
        Kind::LockedOut,
        Kind::RateLimited,
        Kind::NotFound,
        Kind::Conflict,
        Kind::Timeout,
        Kind::Cancelled,
        Kind::Unsupported,
        Kind::Internal,
    ] {
        assert!(page.contains(&format!("| `{kind}` |")), "{kind}");
    }
    for name in names_in("wire") {
        let method = name.split('.').next().unwrap();
        assert!(page.contains(method), "{name}");
    }
}

#[test]
fn every_link_within_the_page_leads_somewhere() {
    let page = page();
    let headings: Vec<String> = page
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = |c: &char| c.is_alphanumeric() || *c == ' ' || *c == '-';
            title.chars().filter(kept).collect::<String>().replace(' ', "-")
        })
        .collect();
    for link in page.split("](#").skip(1) {
        let target = link.split(')').next().unwrap();
        assert!(headings.iter().any(|heading| heading == target), "{target}");
    }
}
