//! Which plugin, and which values: several hundred generated records and
//! options, and every row of what Commander is known to do wrong.

use std::collections::BTreeMap;

use lab::bin;
use orchestrator::{
    catalogue::Catalogue,
    config::{Config, Overrides},
    formats::{Loss, Sink, Stopped, keeper},
    plan::Plan,
    record::Record,
    resolve::{Options, Problem, resolve},
    rotators::Rotators,
};
use serde_json::{Value, json};
use turnlock_protocol::PasswordLimits;

use crate::commander::ask;

/// One record, and what a command line says besides.
#[derive(Debug, Clone)]
struct Case {
    record: Value,
    endpoint: Option<&'static str>,
    plugin: Option<&'static str>,
    host: Option<&'static str>,
    port: Option<&'static str>,
}

impl Case {
    fn question(&self) -> Value {
        json!({"ask": "resolve", "record": self.record, "rotate_name": self.endpoint, "plugin": self.plugin,
            "host": self.host, "port": self.port})
    }
}

struct One(Option<Record>);

impl Sink for One {
    fn record(&mut self, record: Record) -> Result<(), Stopped> {
        self.0 = Some(record);
        Ok(())
    }

    fn loss(&mut self, loss: Loss) {
        panic!("{loss}");
    }
}

fn record_of(raw: &Value) -> Record {
    let mut one = One(None);
    keeper::import(raw.to_string().as_bytes(), &mut one).unwrap();
    one.0.unwrap()
}

/// What the installed rotators say of themselves.
fn catalogue() -> Catalogue {
    let directory = bin("turnlock-mysql").unwrap().parent().unwrap().to_owned();
    let config = Config::load(Overrides {
        vault: Some("nowhere".into()),
        plugin_directories: vec![directory],
        ..Overrides::default()
    })
    .unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut catalogue = Catalogue::new();
    for plugin in ["noop", "mysql", "postgresql", "mssql", "oracle", "ssh", "sshkey"] {
        let describe = runtime.block_on(Rotators::new(&config).describe(plugin)).unwrap();
        catalogue.insert(describe).unwrap();
    }
    catalogue
}

fn ours(case: &Case, catalogue: &Catalogue) -> Result<Plan, Problem> {
    let options = Options {
        endpoint: case.endpoint.map(str::to_owned),
        plugin: case.plugin.map(str::to_owned),
        host: case.host.map(str::to_owned),
        port: case.port.map(|port| port.parse().unwrap()),
        ..Options::default()
    };
    resolve(&record_of(&case.record), &options, catalogue, None, &PasswordLimits::default())
        .map_err(|error| error.problem)
}

/// A record of either shape from login, password, URL, hosts and options.
fn record(typed: bool, login: &str, url: &str, host: Option<(&str, &str)>, options: &[(&str, &str)]) -> Value {
    if !typed {
        let custom: Vec<Value> =
            options.iter().map(|(name, value)| json!({"name": name, "value": value, "type": "text"})).collect();
        return json!({"uid": "AAAAAAAAAAAAAAAAAAAAAA", "title": "One", "secret1": login, "secret2": "Old-Secret-1", "link": url,
            "custom": custom});
    }
    let mut fields = vec![
        json!({"type": "login", "value": [login]}),
        json!({"type": "password", "value": ["Old-Secret-1"]}),
        json!({"type": "url", "value": [url]}),
    ];
    if let Some((name, port)) = host {
        fields.push(json!({"type": "host", "value": [{"hostName": name, "port": port}]}));
    }
    let custom: Vec<Value> =
        options.iter().map(|(label, value)| json!({"type": "text", "label": label, "value": [value]})).collect();
    json!({"uid": "AAAAAAAAAAAAAAAAAAAAAA", "type": "own", "title": "One", "fields": fields, "custom": custom})
}

/// Every combination that Commander is right about.
fn where_commander_works() -> Vec<Case> {
    let mut cases = Vec::new();
    for typed in [false, true] {
        for plugin in ["mysql", "postgresql", "ssh", "mssql", "noop"] {
            for endpoint in [None, Some("named")] {
                for (option, host, url, field) in [
                    (Some("db1"), None, "", false),
                    (Some("db1:4406"), None, "", false),
                    (None, None, "", true),
                    (Some("db1"), Some("db2"), "", false),
                    (Some("db1"), None, "https://web.example.com:8443/", false),
                ] {
                    for (port, asked) in [(None, None), (Some("4407"), None), (Some("4407"), Some("4408"))] {
                        let mut options = vec![("cmdr:unheard_of", "kept")];
                        if endpoint.is_some() {
                            options.extend([("cmdr:plugin:named", plugin), ("cmdr:plugin", "oracle")]);
                        } else {
                            options.push(("cmdr:plugin", plugin));
                        }
                        options.extend(option.map(|host| ("cmdr:host", host)));
                        options.extend(port.map(|port| ("cmdr:port", port)));
                        if plugin == "postgresql" {
                            options.push(("cmdr:db", "orders"));
                        }
                        let at = field.then_some(("db3", "4409"));
                        // A classic record has no field for a host.
                        if field && !typed {
                            options.push(("cmdr:host", "db3"));
                        }
                        let record = record(typed, "app", url, at, &options);
                        cases.push(Case { record, endpoint, plugin: None, host, port: asked });
                    }
                }
            }
        }
        // By the URL alone, and by the command line alone.
        for (scheme, port) in
            [("mysql", ""), ("mysql", ":4410"), ("postgres", ""), ("mssql", ""), ("ssh", ":2222"), ("oracledb", "")]
        {
            let url = format!("{scheme}://db4{port}");
            cases.push(Case {
                record: record(typed, "app", &url, None, &[]),
                endpoint: None,
                plugin: None,
                host: None,
                port: None,
            });
        }
        for plugin in ["mysql", "postgresql", "ssh", "noop"] {
            let record = record(typed, "app", "", None, &[("cmdr:plugin", "oracle")]);
            cases.push(Case { record, endpoint: None, plugin: Some(plugin), host: Some("db5"), port: Some("4411") });
        }
        // The login of an option, where the record has none.
        let record =
            record(typed, "", "", None, &[("cmdr:plugin", "mysql"), ("cmdr:login", "other"), ("cmdr:host", "db6")]);
        cases.push(Case { record, endpoint: None, plugin: None, host: None, port: None });
    }
    cases
}

#[test]
fn where_commander_works_plugin_and_values_are_equal() {
    let cases = where_commander_works();
    assert!(cases.len() >= 300, "{} cases", cases.len());
    let catalogue = catalogue();
    let theirs = ask(&cases.iter().map(Case::question).collect::<Vec<_>>());
    let mut wrong = Vec::new();
    for (case, theirs) in cases.iter().zip(&theirs) {
        let plan = match ours(case, &catalogue) {
            Ok(plan) => plan,
            Err(problem) => {
                wrong.push(format!("{case:?}: {problem}, Commander: {theirs}"));
                continue;
            }
        };
        let kwargs = &theirs["kwargs"];
        let port = kwargs.get("port").and_then(Value::as_u64);
        let port = port.or_else(|| catalogue.default_port(&plan.plugin).map(u64::from));
        let mut wanted = BTreeMap::from([("plugin", theirs["plugin"].clone())]);
        if plan.plugin != "noop" {
            let login = kwargs["login"].clone();
            wanted.extend([("login", login), ("host", kwargs["host"].clone()), ("port", json!(port))]);
        }
        if let Some(db) = kwargs.get("db").filter(|_| plan.plugin == "postgresql") {
            wanted.insert("db", db.clone());
        }
        let here: BTreeMap<&str, Value> = wanted
            .keys()
            .map(|name| {
                let value = if *name == "plugin" {
                    json!(plan.plugin)
                } else {
                    plan.account.get(*name).cloned().unwrap_or_default()
                };
                (*name, value)
            })
            .collect();
        let password = plan.current.get("password").map(|secret| serde_json::to_value(secret).unwrap());
        let same_password = plan.plugin == "noop" || password.as_ref() == Some(&kwargs["password"]);
        if here != wanted || !same_password {
            wrong.push(format!("{case:?}: {here:?}, Commander: {wanted:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// One row of what is known: a case, what Commander does, what Turnlock does.
struct Row {
    name: &'static str,
    case: Case,
    theirs: fn(&Value) -> bool,
    ours: fn(&Result<Plan, Problem>) -> bool,
}

fn case(record: Value) -> Case {
    Case { record, endpoint: None, plugin: None, host: None, port: None }
}

fn at(plan: &Result<Plan, Problem>, plugin: &str, host: &str, port: u16) -> bool {
    plan.as_ref()
        .is_ok_and(|plan| plan.plugin == plugin && (plan.identity.host.as_str(), plan.identity.port) == (host, port))
}

#[test]
fn every_known_fault_of_commanders_resolution_is_there_and_not_here() {
    let mysql =
        |options: &[(&str, &str)]| record(false, "app", "", None, &[&[("cmdr:plugin", "mysql")], options].concat());
    let with_port = |value: Value| {
        let mut record = record(true, "app", "", None, &[("cmdr:plugin", "mysql"), ("cmdr:host", "db1")]);
        record["custom"].as_array_mut().unwrap().push(json!({"type": "text", "label": "cmdr:port", "value": value}));
        record
    };
    let rows = [
        Row {
            name: "--port 22 selects no plugin",
            case: Case { host: Some("h"), port: Some("22"), ..case(record(false, "app", "", None, &[])) },
            theirs: |answer| answer["refused"] == true,
            ours: |plan| at(plan, "ssh", "h", 22),
        },
        Row {
            name: "a typed record's host port selects no plugin",
            case: case(record(true, "app", "", Some(("h", "3306")), &[])),
            theirs: |answer| answer["refused"] == true,
            ours: |plan| at(plan, "mysql", "h", 3306),
        },
        Row {
            name: "cmdr:plugin among a typed record's own fields is not seen",
            case: case({
                let mut record = record(true, "app", "", Some(("h", "3399")), &[]);
                record["fields"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"type": "text", "label": "cmdr:plugin", "value": ["mysql"]}));
                record
            }),
            theirs: |answer| answer["refused"] == true,
            ours: |plan| at(plan, "mysql", "h", 3399),
        },
        Row {
            name: "cmdr:port without a value crashes",
            case: case(with_port(json!([]))),
            theirs: |answer| answer["crashed"] == "AttributeError",
            ours: |plan| at(plan, "mysql", "db1", 3306),
        },
        Row {
            name: "cmdr:port that is a number crashes",
            case: case(with_port(json!([3307]))),
            theirs: |answer| answer["crashed"] == "AttributeError",
            ours: |plan| at(plan, "mysql", "db1", 3307),
        },
        Row {
            name: "cmdr:port that is no number is dropped",
            case: case(mysql(&[("cmdr:host", "db1"), ("cmdr:port", "many")])),
            theirs: |answer| {
                answer["kwargs"].get("port").is_none() && answer["log"].as_str().unwrap().contains("ignored")
            },
            ours: |plan| matches!(plan, Err(Problem::NotANumber { .. })),
        },
        Row {
            name: "an IPv6 address is cut at its first colon",
            case: case(mysql(&[("cmdr:host", "[::1]:3307")])),
            theirs: |answer| answer["kwargs"]["host"] == "[",
            ours: |plan| at(plan, "mysql", "::1", 3307),
        },
        Row {
            name: "--host h:3307 is not split",
            case: Case { host: Some("h:3307"), ..case(mysql(&[])) },
            theirs: |answer| answer["kwargs"]["host"] == "h:3307",
            ours: |plan| at(plan, "mysql", "h", 3307),
        },
        Row {
            name: "with plugin and URL the port stays in the host",
            case: case(record(false, "app", "mysql://h:3309", None, &[("cmdr:plugin", "mysql")])),
            theirs: |answer| answer["kwargs"]["host"] == "h:3309",
            ours: |plan| at(plan, "mysql", "h", 3309),
        },
        Row {
            name: "an unrelated web address becomes the database's host",
            case: case(record(false, "app", "https://web.example.com:8443", None, &[("cmdr:plugin", "mysql")])),
            theirs: |answer| answer["kwargs"]["host"] == "web.example.com:8443",
            ours: |plan| plan.as_ref().is_ok_and(|plan| plan.plugin == "mysql" && plan.identity.host.is_empty()),
        },
        Row {
            name: "without a host mysql is refused, where its own client means this machine",
            case: case(mysql(&[])),
            theirs: |answer| answer["refused"] == true && answer["log"].as_str().unwrap().contains("host"),
            ours: |plan| plan.as_ref().is_ok_and(|plan| plan.plugin == "mysql" && plan.identity.host.is_empty()),
        },
        Row {
            name: "of several cmdr:host one is taken and the others are dropped",
            case: case(mysql(&[("cmdr:host", "a"), ("cmdr:host", "b")])),
            theirs: |answer| answer["kwargs"]["host"] == "b",
            ours: |plan| matches!(plan, Err(Problem::ManyHosts { .. })),
        },
        Row {
            name: "postgresql:// is documented and not known",
            case: case(record(false, "app", "postgresql://h:6000", None, &[])),
            theirs: |answer| answer["refused"] == true,
            ours: |plan| at(plan, "postgresql", "h", 6000),
        },
        Row {
            name: "an unlabelled empty login hides a filled labelled one",
            case: case({
                let mut record = record(true, "", "", None, &[("cmdr:plugin", "mysql"), ("cmdr:host", "h")]);
                record["custom"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"type": "login", "label": "DB", "value": ["app"]}));
                record
            }),
            theirs: |answer| answer["refused"] == true,
            ours: |plan| plan.as_ref().is_ok_and(|plan| plan.identity.login == "app"),
        },
        Row {
            name: "a plugin's name is joined to a module's path",
            case: case(record(false, "app", "", None, &[("cmdr:plugin", "../../bin/sh")])),
            theirs: |answer| answer["plugin"] == "../../bin/sh",
            ours: |plan| matches!(plan, Err(Problem::PluginName { .. })),
        },
        Row {
            name: "a module that is no plugin counts as one",
            case: case(record(false, "app", "", None, &[("cmdr:plugin", "commands")])),
            theirs: |answer| answer["plugin"] == "commands",
            ours: |plan| matches!(plan, Err(Problem::PluginName { .. } | Problem::NotInstalled { .. })),
        },
        Row {
            name: "a plugin by its options alone, where the required ones are missing, is refused by both",
            case: case(record(false, "app", "", None, &[("cmdr:plugin", "ssh")])),
            theirs: |answer| answer["refused"] == true && answer["log"].as_str().unwrap().contains("host"),
            ours: |plan| matches!(plan, Err(Problem::Missing { fields, .. }) if fields.iter().any(|field| field.name == "host")),
        },
    ];
    let catalogue = catalogue();
    let theirs = ask(&rows.iter().map(|row| row.case.question()).collect::<Vec<_>>());
    let mut wrong = Vec::new();
    for (row, answer) in rows.iter().zip(&theirs) {
        if !(row.theirs)(answer) {
            wrong.push(format!("{}: Commander answers {answer}", row.name));
        }
        let plan = ours(&row.case, &catalogue);
        if !(row.ours)(&plan) {
            let told = plan.map(|plan| (plan.plugin, plan.identity.to_string()));
            wrong.push(format!("{}: Turnlock answers {told:?}", row.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
