#![expect(clippy::disallowed_methods, reason = "the tests look for canaries in everything that leaves")]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::catalogue::fixtures::catalogue;
use crate::explain::explain;
use crate::record::{Body, CustomField, Field, FieldValue, Section, Typed, Untyped};

// ---- builders ----

fn secret(text: &str) -> Secret {
    Secret::new(text.into())
}

fn record(body: Body) -> Record {
    Record {
        uid: Uid::new("AAAAAAAAAAAAAAAAAAAAAA"),
        title: "PG app".into(),
        notes: Some(secret("CANARY-notes")),
        folders: Vec::new(),
        body,
        writable: true,
        extra: serde_json::Map::new(),
        earlier: Vec::new(),
    }
}

/// An untyped record: login, password, URL (empty: none), custom fields.
fn untyped(login: &str, password: &str, link: &str, custom: &[(&str, &str)]) -> Record {
    let some = |text: &str| (!text.is_empty()).then(|| secret(text));
    let custom = custom.iter().map(|(name, value)| CustomField {
        name: (*name).into(),
        value: secret(value),
        kind: Some("text".into()),
    });
    record(Body::Untyped(Untyped {
        login: some(login),
        password: some(password),
        link: some(link),
        custom: custom.collect(),
    }))
}

fn value_of(value: serde_json::Value) -> FieldValue {
    match value {
        serde_json::Value::String(text) => FieldValue::Text(Secret::new(text)),
        serde_json::Value::Object(parts) => {
            FieldValue::Parts(parts.into_iter().map(|(name, value)| (name, value_of(value))).collect())
        }
        other => FieldValue::Other(other),
    }
}

/// A typed field from "type" or "type:label".
fn typed_field(name: &str, value: serde_json::Value) -> Field {
    let (kind, label) = match name.split_once(':') {
        Some((kind, label)) => (kind, Some(label.to_owned())),
        None => (name, None),
    };
    let mut field = Field::new(kind, label);
    if !value.is_null() {
        field.value.push(value_of(value));
    }
    field
}

type Listed<'a> = &'a [(&'a str, serde_json::Value)];

fn typed(record_type: &str, fields: Listed<'_>, custom: Listed<'_>) -> Record {
    let list = |fields: Listed<'_>| fields.iter().map(|(name, value)| typed_field(name, value.clone())).collect();
    record(Body::Typed(Typed { record_type: record_type.into(), fields: list(fields), custom: list(custom) }))
}

fn try_plan(record: &Record, options: &Options) -> Result<Plan, ResolveError> {
    resolve(record, options, &catalogue(), None, &PasswordLimits::default())
}

#[track_caller]
fn plan_of(record: &Record) -> Plan {
    try_plan(record, &Options::default()).unwrap()
}

#[track_caller]
fn problem_of(record: &Record, options: &Options) -> Problem {
    try_plan(record, options).unwrap_err().problem
}

fn plugin(record: &Record) -> Option<String> {
    plugin_of(record, &Options::default(), &catalogue()).ok().map(|chosen| chosen.plugin)
}

fn account(plan: &Plan, name: &str) -> Option<serde_json::Value> {
    plan.account.get(name).cloned()
}

fn pg(custom: &[(&str, &str)]) -> Record {
    let mut all = vec![("cmdr:plugin", "postgresql"), ("cmdr:host", "db1")];
    all.retain(|(name, _)| !custom.iter().any(|(theirs, _)| theirs == name));
    all.extend(custom);
    untyped("app", "Old-Pw-1", "", &all)
}

fn from<'a>(plan: &'a Plan, what: &str) -> &'a str {
    plan.decisions.iter().find(|decision| decision.what == what).map(|decision| decision.from.as_str()).unwrap()
}

// ---- one test a row of the predecessor's "keep" column ----

#[test]
fn keep_cmdr_fields_become_options_and_unknown_ones_are_harmless() {
    let plan = plan_of(&pg(&[("cmdr:db", "app"), ("cmdr:d", "CANARY-unknown"), ("cmdr:frobnicate", "CANARY-2")]));
    assert_eq!(account(&plan, "db"), Some(json!("app")));
    assert_eq!(plan.remarks.len(), 2, "{:?}", plan.remarks);
    assert!(plan.remarks[0].contains("cmdr:d'") && plan.remarks[0].contains("did you mean cmdr:db?"));
    assert!(!format!("{plan:?}").contains("CANARY"));
}

#[test]
fn keep_endpoint_names_with_fallback_to_the_plain_plugin() {
    let record = pg(&[("cmdr:plugin", "noop"), ("cmdr:plugin:prod", "postgresql"), ("cmdr:plugin:dev", "mysql")]);
    let ask = |endpoint: Option<&str>| {
        let options = Options { endpoint: endpoint.map(str::to_owned), ..Options::default() };
        plugin_of(&record, &options, &catalogue()).map(|chosen| (chosen.plugin, chosen.endpoint))
    };
    assert_eq!(ask(None).unwrap(), ("noop".into(), None));
    assert_eq!(ask(Some("PROD")).unwrap(), ("postgresql".into(), Some("prod".into())));
    assert_eq!(ask(Some("dev")).unwrap(), ("mysql".into(), Some("dev".into())));
    let problem = ask(Some("stage")).unwrap_err().problem;
    assert_eq!(problem, Problem::NoEndpoint { known: vec!["dev".into(), "prod".into()] });
}

#[test]
fn keep_precedence_of_the_plugin() {
    // Each line takes the most binding source away.
    let all =
        Options { plugin: Some("noop".into()), endpoint: Some("e".into()), port: Some(3306), ..Options::default() };
    let custom = [("cmdr:plugin:e", "mssql"), ("cmdr:plugin", "oracle"), ("cmdr:port", "1433")];
    let url = "postgresql://h:22/db";
    let ask = |custom: &[(&str, &str)], url: &str, options: &Options| {
        plugin_of(&untyped("u", "p", url, custom), options, &catalogue()).unwrap().plugin
    };
    assert_eq!(ask(&custom, url, &all), "noop");
    let named = Options { plugin: None, ..all };
    assert_eq!(ask(&custom, url, &named), "mssql");
    let port = Options { endpoint: None, ..named };
    assert_eq!(ask(&custom, url, &port), "oracle");
    assert_eq!(ask(&custom[2..], url, &port), "postgresql");
    assert_eq!(ask(&custom[2..], "https://h:22", &port), "mysql");
    assert_eq!(ask(&custom[2..], "https://h:22", &Options::default()), "mssql");
    assert_eq!(ask(&[], "https://h:22", &Options::default()), "ssh");
}

#[test]
fn keep_precedence_of_the_values() {
    let custom = [
        ("text:cmdr:plugin", json!("postgresql")),
        ("text:cmdr:host", json!("from-cmdr:1")),
        ("text:cmdr:login", json!("cmdr-login")),
        ("secret:cmdr:password", json!("cmdr-password")),
        ("text:cmdr:port", json!("2")),
    ];
    let full = [
        ("host", json!({ "hostName": "from-field", "port": "3" })),
        ("login", json!("own")),
        ("password", json!("own-password")),
        ("url", json!("postgres://from-url:4/d")),
    ];
    let options = Options { host: Some("from-option:5".into()), port: Some(6), ..Options::default() };
    let host_and_port = |record: &Record, options: &Options| {
        let plan = try_plan(record, options).unwrap();
        (plan.identity.host.clone(), plan.identity.port, plan.identity.login.clone())
    };
    let record = typed("login", &full, &custom);
    assert_eq!(host_and_port(&record, &options), ("from-option".into(), 6, "own".into()));
    let options = Options { port: None, ..options };
    assert_eq!(host_and_port(&record, &options), ("from-option".into(), 5, "own".into()));
    let none = Options::default();
    assert_eq!(host_and_port(&record, &none), ("from-field".into(), 3, "own".into()));
    assert!(plan_of(&record).current.get("password").unwrap().same_as(&secret("own-password")));
    let record = typed("login", &full[1..], &custom);
    assert_eq!(host_and_port(&record, &none), ("from-url".into(), 4, "own".into()));
    let record = typed("login", &[], &custom);
    assert_eq!(host_and_port(&record, &none), ("from-cmdr".into(), 1, "cmdr-login".into()));
    assert!(plan_of(&record).current.get("password").unwrap().same_as(&secret("cmdr-password")));
}

#[test]
fn keep_numbers_are_read_from_text_but_a_wrong_one_is_an_error() {
    let plan = plan_of(&pg(&[("cmdr:port", " 5433 "), ("cmdr:length", "24")]));
    assert_eq!((account(&plan, "port"), plan.policy.length), (Some(json!(5433)), 24));
    for (name, wanted) in
        [("cmdr:port", PORT), ("cmdr:length", "a whole number"), ("cmdr:valid_days", "a whole number")]
    {
        let problem = problem_of(&pg(&[(name, "CANARY")]), &Options::default());
        assert_eq!(problem, Problem::NotANumber { from: format!("custom field '{name}'"), wanted });
    }
}

#[test]
fn keep_host_and_port_in_one_text() {
    let plan = plan_of(&pg(&[("cmdr:host", "db1:5433"), ("cmdr:port", "1")]));
    assert_eq!((account(&plan, "host"), account(&plan, "port")), (Some(json!("db1")), Some(json!(5433))));
}

#[test]
fn keep_both_shapes() {
    let v2 = pg(&[("cmdr:db", "d")]);
    let v3 = typed(
        "login",
        &[("login", json!("app")), ("password", json!("Old-Pw-1"))],
        &[("text:cmdr:plugin", json!("postgresql")), ("text:cmdr:host", json!("db1")), ("text:cmdr:db", json!("d"))],
    );
    let (v2, v3) = (plan_of(&v2), plan_of(&v3));
    assert_eq!(v2.account, v3.account);
    assert_eq!(v2.identity, v3.identity);
    assert!(v2.current.same_as(&v3.current));
    assert_eq!(v2.write_back[0].place, Place::Password);
    assert_eq!(v3.write_back[0].place.to_string(), "field password");
}

#[test]
fn keep_noop() {
    let mut record = untyped("", "", "", &[("cmdr:plugin", "noop")]);
    let plan = plan_of(&record);
    assert_eq!(plan.plugin, "noop");
    // Nothing lies behind it, so that another record with the same login is another account.
    record.uid = Uid::new("another");
    assert_ne!(plan_of(&record).identity, plan.identity);
    assert!(plan.current.is_empty() && plan.account.is_empty());
    assert_eq!(plan.write_back, [WriteBack { field: "password".into(), place: Place::Password }]);
}

#[test]
fn keep_refusal_of_a_record_that_is_not_writable() {
    let mut record = pg(&[("cmdr:port", "nonsense")]);
    record.writable = false;
    // Before anything else is looked at.
    assert_eq!(problem_of(&record, &Options::default()), Problem::NotWritable);
}

#[test]
fn keep_refusal_of_the_same_password() {
    let options = Options { password: Some(secret("Old-Pw-1")), ..Options::default() };
    assert_eq!(problem_of(&pg(&[]), &options), Problem::SameSecret);
}

// ---- one test a row of the "fix" column ----

#[test]
fn fix_the_port_option_selects_a_plugin() {
    let record = untyped("u", "p", "", &[]);
    let options = Options { port: Some(22), host: Some("h".into()), ..Options::default() };
    let plan = try_plan(&record, &options).unwrap();
    assert_eq!((plan.plugin.as_str(), from(&plan, "plugin")), ("ssh", "option --port"));
}

#[test]
fn fix_length_and_endpoint_hold_for_every_record_of_a_match() {
    let records = [pg(&[("cmdr:plugin:a", "mysql")]), pg(&[("cmdr:plugin:a", "mssql")])];
    let options = Options { length: Some(33), endpoint: Some("a".into()), ..Options::default() };
    let plans: Vec<Plan> = records.iter().map(|record| try_plan(record, &options).unwrap()).collect();
    assert_eq!(plans.iter().map(|plan| plan.plugin.as_str()).collect::<Vec<_>>(), ["mysql", "mssql"]);
    assert!(plans.iter().all(|plan| plan.policy.length == 33));
}

#[test]
fn fix_descriptions_of_endpoints_are_found() {
    let record = pg(&[("cmdr:plugin:prod", "postgresql"), ("cmdr:plugin:prod:description", "the big one")]);
    let endpoints = record.endpoints();
    assert_eq!(endpoints.len(), 2);
    assert_eq!(endpoints[1].name.as_deref(), Some("prod"));
    assert_eq!(endpoints[1].description.as_deref(), Some("the big one"));
    assert!(plan_of(&record).remarks.is_empty());
}

#[test]
fn fix_an_empty_or_numeric_port_does_no_harm() {
    let plan = plan_of(&pg(&[("cmdr:port", "")]));
    assert_eq!((account(&plan, "port"), from(&plan, "port")), (Some(json!(5432)), "default of postgresql"));
    let record = typed(
        "login",
        &[("login", json!("u")), ("password", json!("p"))],
        &[
            ("text:cmdr:plugin", json!("mysql")),
            ("text:cmdr:host", json!("h")),
            ("text:cmdr:port", json!(3307)),
            ("text:cmdr:length", serde_json::Value::Null),
        ],
    );
    assert_eq!(account(&plan_of(&record), "port"), Some(json!(3307)));
}

#[test]
fn fix_ipv6_and_a_port_in_the_host_option() {
    let at = |host: &str| {
        let plan = try_plan(&pg(&[]), &Options { host: Some(host.into()), ..Options::default() }).unwrap();
        (plan.identity.host, plan.identity.port)
    };
    assert_eq!(at("h:3307"), ("h".into(), 3307));
    assert_eq!(at("[::1]:3307"), ("::1".into(), 3307));
    assert_eq!(at("::1"), ("::1".into(), 5432));
    assert_eq!(at("[fe80::1%eth0]"), ("fe80::1%eth0".into(), 5432));
    assert_eq!(at("2001:db8::5"), ("2001:db8::5".into(), 5432));
    let plan = plan_of(&pg(&[("cmdr:host", "[::1]:3306")]));
    assert_eq!(plan.identity.to_string(), "postgresql app@[::1]:3306");
    for bad in ["[::1", "h:x", "h:70000", "h:0", "a:b:c", "[h]:1", "a b", "u@h", ":5432", "http://"] {
        let problem = problem_of(&pg(&[]), &Options { host: Some(bad.into()), ..Options::default() });
        assert_eq!(problem, Problem::NotAHost { from: "option --host".into() }, "{bad}");
    }
}

#[test]
fn fix_a_url_gives_host_and_port_apart_and_only_to_its_own_plugin() {
    let with_url = |url: &str| untyped("u", "p", url, &[("cmdr:plugin", "mysql")]);
    let plan = plan_of(&with_url("mysql://user:CANARY@h:3309/CANARY?x=CANARY"));
    assert_eq!((account(&plan, "host"), account(&plan, "port")), (Some(json!("h")), Some(json!(3309))));
    assert!(!format!("{plan:?}").contains("CANARY"), "mysql has no db: nothing else of the URL is told");
    assert!(matches!(problem_of(&with_url("https://h:3309/"), &Options::default()), Problem::Missing { .. }));
    assert_eq!(account(&plan_of(&with_url("h:3309")), "host"), Some(json!("h")));

    let plan = plan_of(&untyped("u", "p", "postgresql://[::1]:6000/my%20db", &[]));
    assert_eq!(plan.plugin, "postgresql");
    assert_eq!((account(&plan, "host"), account(&plan, "db")), (Some(json!("::1")), Some(json!("my db"))));
    assert_eq!(account(&plan, "port"), Some(json!(6000)));
}

#[test]
fn fix_a_record_with_default_and_named_endpoints_has_its_default() {
    let record = pg(&[("cmdr:plugin:a", "mysql"), ("cmdr:plugin:b", "mssql")]);
    assert_eq!(plugin(&record).as_deref(), Some("postgresql"));
    let names: Vec<_> = record.endpoints().into_iter().map(|endpoint| endpoint.name).collect();
    assert_eq!(names, [None, Some("a".into()), Some("b".into())]);
    // Only named ones: the error tells them.
    let record = untyped("u", "p", "", &[("cmdr:plugin:a", "mysql"), ("cmdr:plugin:b", "mssql")]);
    let problem = problem_of(&record, &Options::default());
    assert_eq!(problem, Problem::NoPlugin { endpoints: vec!["a".into(), "b".into()] });
    assert!(problem.hint().contains("a, b"));
}

#[test]
fn fix_nothing_is_remembered_between_records() {
    let (one, two) = (pg(&[("cmdr:plugin:e", "mysql")]), pg(&[("cmdr:plugin:e", "mssql")]));
    let options = Options { endpoint: Some("e".into()), ..Options::default() };
    let ask = |record: &Record| plugin_of(record, &options, &catalogue()).unwrap().plugin;
    assert_eq!([ask(&one), ask(&two), ask(&one)], ["mysql", "mssql", "mysql"]);
}

#[test]
fn fix_a_plugin_is_a_name_and_never_a_path() {
    for bad in ["../x", "a/b", "A", "commands.x", "a b", "-x", "", "naïve", "a\nb"] {
        let options = Options { plugin: Some(bad.into()), ..Options::default() };
        assert_eq!(problem_of(&pg(&[]), &options), Problem::PluginName { from: "option --plugin".into() }, "{bad:?}");
    }
    let problem = problem_of(&pg(&[("cmdr:plugin", "../CANARY")]), &Options::default());
    assert_eq!(problem, Problem::PluginName { from: "custom field 'cmdr:plugin'".into() });
    let problem = problem_of(&pg(&[("cmdr:plugin", "commands")]), &Options::default());
    assert_eq!(problem.to_string(), "rotator turnlock-commands is not installed");
    let problem = problem_of(&pg(&[("cmdr:plugin", "postgres")]), &Options::default());
    assert_eq!(problem.hint(), "did you mean postgresql?");
}

#[test]
fn fix_options_count_in_both_lists_of_a_typed_record() {
    let in_fields = typed(
        "x",
        &[
            ("login", json!("u")),
            ("password", json!("p")),
            ("text:cmdr:plugin", json!("mysql")),
            ("text:cmdr:host", json!("h")),
        ],
        &[],
    );
    assert_eq!(plan_of(&in_fields).plugin, "mysql");
}

#[test]
fn fix_repeated_hosts_are_refused_by_plugins_that_take_one() {
    let record = pg(&[("cmdr:host", "db1"), ("cmdr:host", "db2")]);
    let problem = problem_of(&record, &Options::default());
    assert!(matches!(&problem, Problem::ManyHosts { count: 2, .. }), "{problem:?}");
    assert_eq!(problem.to_string(), "it names 2 different hosts (custom field 'cmdr:host'), but postgresql takes one");
    let options = Options { host: Some("db2".into()), ..Options::default() };
    assert_eq!(account(&try_plan(&record, &options).unwrap(), "host"), Some(json!("db2")));
    // The same host twice is one host.
    assert_eq!(account(&plan_of(&pg(&[("cmdr:host", "DB1"), ("cmdr:host", "db1")])), "host"), Some(json!("DB1")));
}

#[test]
fn fix_a_supplied_password_keeps_the_same_rules() {
    let ask = |password: &str, custom: &[(&str, &str)]| {
        let options = Options { password: Some(secret(password)), ..Options::default() };
        try_plan(&pg(custom), &options)
    };
    assert!(ask("Good-Pass-2", &[]).unwrap().supplied.is_some());
    let error = ask("CANARYCANARY", &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "record 'PG app' (AAAAAAAAAAAAAAAAAAAAAA): the supplied password does not keep the rules (default): \
         it needs at least 1 small letters"
    );
    assert!(ask("only-lower", &[("cmdr:rules", "0,1,0,1")]).is_ok());
    let long = "Aa1!".repeat(8);
    assert!(ask(&long, &[]).is_ok());
    let problem = ask(&long, &[("cmdr:plugin", "oracle")]).unwrap_err().problem;
    assert_eq!(problem, Problem::Supplied { from: "default".into(), error: PolicyError::LongerThan(30) });
    let problem = ask("Aa1!xx", &[("cmdr:plugin", "awskey"), ("cmdr:aws_key_id", "AKIA")]).unwrap_err().problem;
    assert_eq!(problem, Problem::NotSuppliable { plugin: "awskey".into(), maker: "the target" });
}

// ---- which plugin ----

#[test]
fn a_typed_record_is_known_by_its_types_and_its_host_port() {
    let host = |kind: &'static str, port: serde_json::Value| (kind, json!({ "hostName": "h", "port": port }));
    let cases: Vec<(Record, &str)> = vec![
        (typed("databaseCredentials", &[host("host", json!("5432"))], &[]), "postgresql"),
        (typed("databaseCredentials", &[], &[host("host", json!(3306))]), "mysql"),
        (typed("pamMachine", &[host("pamHostname", json!("22"))], &[]), "ssh"),
        (typed("pamDirectory", &[host("pamHostname", json!("389"))], &[]), "adpasswd"),
        (typed("serverCredentials", &[host("host", json!("2484"))], &[]), "oracle"),
        (typed("pamDatabase", &[host("pamHostname", json!("5432")), ("databaseType", json!("mysql"))], &[]), "mysql"),
        (typed("pamDatabase", &[("databaseType", json!("PostgreSQL-flexible"))], &[]), "postgresql"),
        (typed("pamDatabase", &[("databaseType", json!("mariadb"))], &[]), "mysql"),
        (typed("pamDirectory", &[("directoryType", json!("Active Directory"))], &[]), "adpasswd"),
        (typed("pamDirectory", &[("directoryType", json!("openldap"))], &[]), "adpasswd"),
        (typed("sshKeys", &[], &[]), "sshkey"),
        (typed("login", &[("keyPair", json!({ "privateKey": "k" })), host("host", json!("22"))], &[]), "sshkey"),
        (typed("login", &[("keyPair", json!({ "privateKey": "" })), host("host", json!("22"))], &[]), "ssh"),
        (typed("login", &[("url", json!("ldaps://dc1"))], &[]), "adpasswd"),
        (typed("login", &[("url", json!("sqlserver://h"))], &[]), "mssql"),
        (typed("login", &[("url", json!("jdbc:mariadb://h/x"))], &[]), "mysql"),
        (typed("login", &[], &[("text:cmdr:host", json!("postgresql://h:6000"))]), "postgresql"),
    ];
    for (record, wanted) in cases {
        assert_eq!(plugin(&record).as_deref(), Some(wanted), "{record:?}");
    }
    assert_eq!(plugin(&typed("login", &[("url", json!("https://h"))], &[])), None);
    let mongo = typed("pamDatabase", &[("databaseType", json!("mongodb"))], &[]);
    assert_eq!(problem_of(&mongo, &Options::default()).to_string(), "rotator turnlock-mongodb is not installed");
}

#[test]
fn turnlock_options_win_over_their_twins() {
    let plan =
        plan_of(&pg(&[("cmdr:db", "a"), ("turnlock:db", "b"), ("turnlock:tls", "disable"), ("cmdr:timeout", "5")]));
    assert_eq!(account(&plan, "db"), Some(json!("b")));
    assert_eq!(plan.deadline_ms, 5000);
    assert_eq!(plan.remarks.len(), 1);
    assert!(plan.remarks[0].starts_with("custom field 'turnlock:tls': the connection is neither encrypted"));
    let empty = plan_of(&pg(&[("cmdr:db", "a"), ("turnlock:db", " ")]));
    assert_eq!(account(&empty, "db"), Some(json!("a")));
    assert_eq!(plugin(&pg(&[("turnlock:plugin", "mysql")])).as_deref(), Some("mysql"));
}

#[test]
fn one_option_with_two_values_is_a_contradiction() {
    let problem = problem_of(&pg(&[("cmdr:db", "a"), ("cmdr:db", "b")]), &Options::default());
    assert_eq!(problem, Problem::Contradictory { from: "custom field 'cmdr:db'".into() });
    assert!(try_plan(&pg(&[("cmdr:db", "a"), ("cmdr:db", "a"), ("cmdr:db", "")]), &Options::default()).is_ok());
}

#[test]
fn values_become_what_the_schema_says() {
    let record = untyped(
        "u",
        "p",
        "",
        &[("cmdr:plugin", "mysql"), ("cmdr:host", "h"), ("cmdr:dual_password", "Yes"), ("cmdr:tls", "VERIFY-CA")],
    );
    let plan = plan_of(&record);
    assert_eq!(account(&plan, "dual_password"), Some(json!(true)));
    assert_eq!(account(&plan, "tls"), Some(json!("verify-ca")));
    assert_eq!(plan.remarks.len(), 1);
    let bad = |name: &str| {
        let record = untyped("u", "p", "", &[("cmdr:plugin", "mysql"), ("cmdr:host", "h"), (name, "CANARY")]);
        try_plan(&record, &Options::default()).unwrap_err()
    };
    assert!(matches!(bad("cmdr:dual_password").problem, Problem::NotABoolean { .. }));
    assert!(matches!(bad("cmdr:tls").problem, Problem::NotOneOf { .. }));
    assert!(!bad("cmdr:tls").to_string().contains("CANARY"));
}

#[test]
fn one_error_names_everything_that_is_missing_and_where_to_set_it() {
    let record = untyped("", "", "", &[("cmdr:plugin", "postgresql")]);
    let error = try_plan(&record, &Options::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "record 'PG app' (AAAAAAAAAAAAAAAAAAAAAA): postgresql needs \
         the host (set it in a host field, the URL, cmdr:host or --host); \
         the login (set it in the record's login or cmdr:login); \
         the password (set it in the record's password)"
    );
    assert!(!error.hint().is_empty());
}

#[test]
fn a_labelled_host_gives_way_to_the_one_without_a_label() {
    let hosts = |fields: Listed<'_>| {
        typed("x", fields, &[("login", json!("u")), ("password", json!("p")), ("text:cmdr:plugin", json!("mysql"))])
    };
    let first = ("host:replica", json!({ "hostName": "h2" }));
    let second = ("host", json!({ "hostName": "h1", "port": "" }));
    let plan = plan_of(&hosts(&[first.clone(), second.clone()]));
    assert_eq!(account(&plan, "host"), Some(json!("h1")));
    assert_eq!(plan.remarks, ["field host 'replica' was not used: the host without a label comes first"]);
    let problem = problem_of(&hosts(&[first, ("host:b", json!({ "hostName": "h3" }))]), &Options::default());
    assert!(matches!(problem, Problem::ManyHosts { count: 2, .. }));
    // Empty ones are skipped, pamHostname serves where there is no host.
    let record =
        hosts(&[("host", json!({ "hostName": "" })), ("pamHostname", json!({ "hostName": "p", "port": 3307 }))]);
    let plan = plan_of(&record);
    assert_eq!((account(&plan, "host"), account(&plan, "port")), (Some(json!("p")), Some(json!(3307))));
    let record = hosts(&[("host", json!({ "hostName": "h", "port": "CANARY" }))]);
    assert_eq!(
        problem_of(&record, &Options::default()),
        Problem::NotANumber { from: "port of the field host".into(), wanted: PORT }
    );
}

// ---- many hosts, keys, clouds, admins ----

#[test]
fn sshkey_gets_every_host_and_its_key_pair() {
    let record = typed(
        "sshKeys",
        &[
            ("login", json!("rot")),
            ("keyPair", json!({ "privateKey": "CANARY-key", "publicKey": "ssh-ed25519 AAA" })),
            ("password", json!("CANARY-pass")),
            ("host", json!({ "hostName": "h", "port": "22" })),
        ],
        &[("host:second", json!({ "hostName": "h2", "port": 2222 })), ("text:cmdr:host", json!("::1"))],
    );
    let plan = plan_of(&record);
    assert_eq!(account(&plan, "hosts"), Some(json!(["h:22", "h2:2222", "::1"])));
    assert_eq!(plan.identity.host, "::1,h2:2222,h:22");
    let names: Vec<_> = plan.current.fields().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names, ["passphrase", "private_key", "public_key"]);
    let places: Vec<_> = plan.write_back.iter().map(|w| format!("{} -> {}", w.field, w.place)).collect();
    assert_eq!(
        places,
        [
            "passphrase -> field password",
            "private_key -> field keyPair (privateKey)",
            "public_key -> field keyPair (publicKey)"
        ]
    );
    assert!(!format!("{plan:?}").contains("CANARY"));
}

#[test]
fn an_untyped_record_keeps_its_key_in_the_options_it_has() {
    let custom = [
        ("cmdr:plugin", "sshkey"),
        ("cmdr:host", "h"),
        ("cmdr:private_key", "old"),
        ("cmdr:ssh_public_key", "pub"),
        ("cmdr:rsa_public_key", ""),
    ];
    let mut record = untyped("u", "pass", "", &custom);
    let plan = plan_of(&record);
    let places: Vec<_> = plan.write_back.iter().map(|w| (w.field.as_str(), w.place.clone())).collect();
    let named = |name: &str| Place::Named(name.into());
    assert_eq!(
        places,
        [
            ("passphrase", Place::Password),
            ("private_key", named("cmdr:private_key")),
            ("public_key", named("cmdr:ssh_public_key")),
            ("public_key", named("cmdr:rsa_public_key")),
        ]
    );
    let next = Credential::empty().with("private_key", secret("new")).with("public_key", secret("new-pub"));
    record.write(&plan.write_back, &next).unwrap();
    let read = |record: &Record, name: &str| record.get(&named(name)).unwrap().expose().to_owned();
    assert_eq!(read(&record, "cmdr:private_key"), "new");
    assert_eq!(read(&record, "cmdr:rsa_public_key"), "new-pub");
    assert!(record.get(&Place::Password).unwrap().same_as(&secret("pass")), "no new passphrase: the old one stays");
    // A first run: nothing there yet, the options are made.
    let mut record = untyped("u", "", "", &[("cmdr:plugin", "sshkey")]);
    let plan = plan_of(&record);
    assert!(plan.current.is_empty());
    record.write(&plan.write_back, &next).unwrap();
    assert_eq!(read(&record, "cmdr:private_key"), "new");
    // A typed record without a keyPair gets one.
    let mut record = typed("login", &[("login", json!("u"))], &[("text:cmdr:plugin", json!("sshkey"))]);
    let plan = plan_of(&record);
    record.write(&plan.write_back, &next).unwrap();
    assert!(record.key_pair().unwrap().private.unwrap().same_as(&secret("new")));
    assert!(record.key_pair().unwrap().public.unwrap().same_as(&secret("new-pub")));
}

#[test]
fn awskey_writes_back_its_options_under_the_credentials_names() {
    let custom = [
        ("text:cmdr:plugin", json!("awskey")),
        ("text:cmdr:aws_key_id", json!("AKIA")),
        ("secret:cmdr:aws_key_secret", json!("CANARY")),
        ("text:cmdr:aws_profile", json!("Ops")),
    ];
    let record = typed("login", &[("login", json!("deploy")), ("password", json!("console"))], &custom);
    let plan = plan_of(&record);
    let names: Vec<_> = plan.current.fields().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names, ["access_key_id", "secret_access_key"]);
    assert_eq!(plan.write_back.len(), 2);
    assert_eq!(plan.write_back[1].field, "secret_access_key");
    assert_eq!(plan.write_back[1].place.to_string(), "custom field secret 'cmdr:aws_key_secret'");
    assert_eq!(plan.identity.host, "aws_profile=ops");
    assert!(!format!("{:?} {:?}", plan.account, plan.decisions).contains("CANARY"));
    let problem = problem_of(&typed("login", &[("login", json!("d"))], &custom[..1]), &Options::default());
    assert!(problem.to_string().contains("the aws_key_id (set it in the custom field cmdr:aws_key_id)"), "{problem}");
}

#[test]
fn azure_secrets_go_to_admin_and_nowhere_else() {
    let record = untyped(
        "a@b.c",
        "old",
        "",
        &[
            ("cmdr:plugin", "azureadpwd"),
            ("cmdr:azure_tenant_id", "tenant"),
            ("cmdr:azure_client_id", "client"),
            ("cmdr:azure_secret", "CANARY"),
        ],
    );
    let plan = plan_of(&record);
    let admin = plan.admin.as_ref().unwrap();
    assert_eq!(admin.login, "client");
    assert!(admin.credential.get("client_secret").unwrap().same_as(&secret("CANARY")));
    assert!(plan.account.get("azure_secret").is_none());
    assert!(!format!("{:?} {:?} {:?}", plan.account, plan.decisions, plan.remarks).contains("CANARY"));
}

#[test]
fn an_admin_record_resets_an_account_without_its_password() {
    let mut admin = untyped("root", "CANARY-root", "", &[("cmdr:db", "postgres"), ("cmdr:host", "elsewhere")]);
    admin.uid = Uid::new("BBBBBBBBBBBBBBBBBBBBBB");
    admin.title = "PG root".into();
    let mut record =
        untyped("app", "", "", &[("cmdr:plugin", "postgresql"), ("cmdr:host", "h"), ("turnlock:admin", " PG root ")]);
    assert_eq!(admin_of(&record).as_deref(), Some("PG root"));
    let ask = |record: &Record, admin: Option<&Record>| {
        resolve(record, &Options::default(), &catalogue(), admin, &PasswordLimits::default())
    };
    let plan = ask(&record, Some(&admin)).unwrap();
    assert_eq!(plan.admin_uid.as_ref().map(Uid::as_str), Some("BBBBBBBBBBBBBBBBBBBBBB"));
    let theirs = plan.admin.unwrap();
    assert_eq!(theirs.login, "root");
    assert!(theirs.credential.get("password").unwrap().same_as(&secret("CANARY-root")));
    assert_eq!(serde_json::Value::Object(theirs.account), json!({ "db": "postgres" }));
    assert!(plan.current.is_empty());

    assert!(matches!(ask(&record, None).unwrap_err().problem, Problem::AdminMissing { .. }));
    let own = [("cmdr:plugin", "postgresql"), ("cmdr:host", "h"), ("turnlock:admin", "itself")];
    let own = untyped("root", "CANARY-own", "", &own);
    let plan = ask(&own, Some(&own)).unwrap();
    assert!(plan.admin.is_none() && plan.admin_uid.is_none() && plan.remarks[0].contains("itself"));
    admin.body = Body::Untyped(Untyped::default());
    assert!(matches!(ask(&record, Some(&admin)).unwrap_err().problem, Problem::AdminWithoutLogin { .. }));
    record.body = untyped("x", "y", "", &[("cmdr:plugin", "noop"), ("cmdr:admin", "PG root")]).body;
    let plan = ask(&record, Some(&admin)).unwrap();
    assert!(plan.admin.is_none() && plan.remarks[0].contains("was not used"));
}

// ---- the new secret ----

#[test]
fn rules_length_and_limits_shape_the_policy_before_anything_is_drawn() {
    let plan = plan_of(&pg(&[("cmdr:plugin", "oracle"), ("cmdr:rules", "4,6,3,8"), ("cmdr:length", "64")]));
    assert_eq!(plan.policy.length, 30);
    assert_eq!(plan.remarks.len(), 1);
    assert!(plan.remarks[0].contains("30 characters instead of 64"), "{:?}", plan.remarks);
    let options = Options { rules: Some("30,1,1,1,1".into()), length: Some(12), ..Options::default() };
    let plan = try_plan(&pg(&[("cmdr:rules", "9,9,9,9")]), &options).unwrap();
    assert_eq!(
        (plan.policy.length, from(&plan, "rules"), from(&plan, "length")),
        (12, "option --rules", "option --length")
    );
    let problem = problem_of(&pg(&[("cmdr:plugin", "oracle"), ("cmdr:rules", "20,20,0,0")]), &Options::default());
    let error = PolicyError::TooLong { needed: 40, limit: 30 };
    let from = "custom field 'cmdr:rules'".to_owned();
    assert_eq!(problem, Problem::Unkeepable { plugin: "oracle".into(), from, error });
    let learned = PasswordLimits { forbidden: "!@#$%()+;<>=?[]{}^.,".into(), ..PasswordLimits::default() };
    let error = resolve(&pg(&[]), &Options::default(), &catalogue(), None, &learned).unwrap_err();
    assert!(matches!(error.problem, Problem::Unkeepable { .. }));
    let problem = problem_of(&pg(&[("cmdr:rules", "CANARY,1,1,1")]), &Options::default());
    let error = RulesError::NotANumber("number of capital letters");
    assert_eq!(problem, Problem::Rules { from: "custom field 'cmdr:rules'".into(), error });
}

#[test]
fn complexity_on_the_password_field_counts_after_rules() {
    let mut record = typed(
        "login",
        &[("login", json!("u")), ("password", json!("p")), ("host", json!({ "hostName": "h", "port": "3306" }))],
        &[],
    );
    if let Body::Typed(body) = &mut record.body {
        body.fields[1].extra.insert("complexity".into(), json!({ "length": 32, "caps": 5, "lower": 2, "special": 0 }));
    }
    let plan = plan_of(&record);
    assert_eq!((plan.policy.length, from(&plan, "rules")), (32, "complexity of the password field"));
    let plan = try_plan(&record, &Options { rules: Some("1,1,1,1".into()), ..Options::default() }).unwrap();
    assert_eq!((plan.policy.length, from(&plan, "rules")), (20, "option --rules"));
}

#[test]
fn passphrases_have_five_to_nine_words() {
    let ask = |value: &str| passphrase_words(&pg(&[("turnlock:passphrase", value)]), &Options::default());
    assert_eq!(ask("6").unwrap(), Some(6));
    assert_eq!(passphrase_words(&pg(&[]), &Options::default()).unwrap(), None);
    for bad in ["4", "10", "many"] {
        assert!(matches!(ask(bad).unwrap_err().problem, Problem::Passphrase { .. }));
    }
}

// ---- what else a plan tells ----

#[test]
fn two_records_of_one_account_have_one_identity() {
    let one = plan_of(&pg(&[("cmdr:host", "DB1")])).identity;
    let two = plan_of(&untyped("app", "x", "postgres://db1:5432/other", &[])).identity;
    assert_eq!(one, two);
    let oracle = |db: &str| plan_of(&pg(&[("cmdr:plugin", "oracle"), ("cmdr:db", db)])).identity;
    assert_ne!(oracle("pdb1"), oracle("pdb2"));
    let catalogue = catalogue();
    let record = pg(&[("cmdr:plugin:m", "mysql"), ("cmdr:plugin:bad", "nonsense")]);
    let found: Vec<_> = identities(&record, &catalogue).into_iter().map(|identity| identity.plugin).collect();
    assert_eq!(found, ["mysql", "postgresql"]);
    assert_eq!(identities(&pg(&[]), &catalogue)[0], one);
}

#[test]
fn the_basis_changes_with_every_deciding_field_and_no_other() {
    let basis = |custom: &[(&str, &str)], password: &str| untyped("u", password, "", custom).basis();
    let base = basis(&[("cmdr:a", "1"), ("cmdr:host", "x"), ("cmdr:host", "y"), ("note", "n")], "p");
    assert_eq!(base.len(), 5);
    assert_eq!(base, basis(&[("cmdr:a", "1"), ("cmdr:host", "x"), ("cmdr:host", "y"), ("note", "other")], "p"));
    assert_ne!(base, basis(&[("cmdr:a", "2"), ("cmdr:host", "x"), ("cmdr:host", "y")], "p"));
    assert_ne!(base, basis(&[("cmdr:a", "1"), ("cmdr:host", "x"), ("cmdr:host", "z")], "p"));
    assert_ne!(base, basis(&[("cmdr:a", "1"), ("cmdr:host", "x"), ("cmdr:host", "y")], "q"));
    assert!(base.values().all(|digest| digest.len() == 64));
}

#[test]
fn an_explanation_tells_every_decision_and_no_secret() {
    let explanation = explain(&plan_of(&pg(&[("cmdr:db", "app"), ("cmdr:x", "CANARY")])));
    assert_eq!(explanation.account, "postgresql app@db1:5432");
    let rows: Vec<_> =
        explanation.rows.iter().map(|row| format!("{} = {} [{}]", row.what, row.value, row.from)).collect();
    assert_eq!(
        rows,
        [
            "plugin = postgresql [custom field 'cmdr:plugin']",
            "host = db1 [custom field 'cmdr:host']",
            "port = 5432 [default of postgresql]",
            "login = app [login]",
            "db = app [custom field 'cmdr:db']",
            "password = (secret) [password]",
            "rules = 20 characters, at least 1 capital, at least 1 small, at least 1 digits, at least 1 special [default]",
            "length = 20 [default]",
            "timeout = 30 s [default]",
            "new password goes to = password [schema of postgresql]",
        ]
    );
    assert_eq!(explanation.remarks.len(), 1);
}

#[test]
fn a_plan_survives_its_stage() {
    let plan = plan_of(&pg(&[("cmdr:db", "app")]));
    let text = serde_json::to_string(&plan).unwrap();
    let back: Plan = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), text);
}

// ---- properties ----

/// Properties that are no secrets under any mark; `azure_client_id` is a login.
const TOLD: [&str; 5] = ["host", "hosts", "port", "login", "azure_client_id"];

/// Where a value of a property test may stand.
fn some<T: Clone + fmt::Debug + 'static>(value: T) -> impl Strategy<Value = Option<T>> {
    proptest::option::of(Just(value))
}

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,12}",
        "\\PC{0,8}",
        ".{0,8}",
        Just("[::1]:22".to_owned()),
        Just("mysql://h:1/x".to_owned()),
        Just("postgresql".to_owned()),
        Just("h:99999".to_owned()),
        Just("22".to_owned()),
    ]
}

fn hostile_name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => proptest::sample::select(vec![
            "cmdr:plugin", "cmdr:plugin:a", "cmdr:plugin:a:description", "cmdr:plugin:", "cmdr:", "turnlock:", "cmdr:host",
            "cmdr:port", "cmdr:login", "cmdr:password", "cmdr:rules", "cmdr:length", "turnlock:host", "turnlock:admin",
            "cmdr:db", "cmdr:tls", "cmdr:private_key", "turnlock:timeout", "turnlock:passphrase", "cmdr:dsn",
        ]).prop_map(str::to_owned),
        1 => ".{0,10}",
    ]
}

fn any_value() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        hostile().prop_map(|text| json!(text)),
        (hostile(), hostile()).prop_map(|(host, port)| json!({ "hostName": host, "port": port })),
        (hostile(), any::<u32>()).prop_map(|(host, port)| json!({ "hostName": host, "port": port })),
        (hostile(), hostile()).prop_map(|(a, b)| json!({ "privateKey": a, "publicKey": b })),
        any::<i64>().prop_map(|number| json!(number)),
        Just(json!(null)),
        Just(json!([["x"]])),
        any::<bool>().prop_map(|value| json!(value)),
    ]
}

fn any_record() -> impl Strategy<Value = Record> {
    let kinds = ["login", "password", "url", "host", "pamHostname", "keyPair", "databaseType", "directoryType", "text"];
    let field = (proptest::sample::select(kinds.to_vec()), proptest::option::of(hostile_name()), any_value()).prop_map(
        |(kind, label, value)| {
            let mut field = typed_field(kind, value);
            field.label = label;
            field
        },
    );
    let fields = proptest::collection::vec(field, 0..8);
    let types = proptest::sample::select(vec!["login", "sshKeys", "pamDatabase", "own"]);
    let typed = (types, fields, 0..8usize).prop_map(|(record_type, mut fields, at)| {
        let custom = fields.split_off(at.min(fields.len()));
        record(Body::Typed(Typed { record_type: record_type.into(), fields, custom }))
    });
    let custom = proptest::collection::vec((hostile_name(), hostile()), 0..8);
    let untyped = (hostile(), hostile(), hostile(), custom).prop_map(|(login, password, link, custom)| {
        let custom: Vec<(&str, &str)> = custom.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        untyped(&login, &password, &link, &custom)
    });
    prop_oneof![typed, untyped]
}

fn any_options() -> impl Strategy<Value = Options> {
    let plugins = catalogue().entries().map(|entry| entry.describe.plugin.clone()).collect::<Vec<_>>();
    let plugin = prop_oneof![3 => proptest::sample::select(plugins), 1 => hostile()];
    let texts = (some("a".to_owned()), proptest::option::of(plugin), proptest::option::of(hostile()));
    let numbers = (proptest::option::of(any::<u16>()), proptest::option::of(any::<u32>()));
    (texts, numbers, proptest::option::of(hostile()), proptest::option::of(hostile())).prop_map(
        |((endpoint, plugin, host), (port, length), rules, password)| Options {
            endpoint,
            plugin,
            host,
            port,
            length,
            rules,
            password: password.map(Secret::new),
            ..Options::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(1500), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn resolution_never_panics(record in any_record(), options in any_options()) {
        let catalogue = catalogue();
        let _ = plugin_of(&record, &options, &catalogue);
        let _ = identities(&record, &catalogue);
        let _ = record.validate();
        let _ = record.endpoints();
        match resolve(&record, &options, &catalogue, Some(&record), &PasswordLimits::default()) {
            Ok(plan) => {
                prop_assert!(is_plugin_name(&plan.plugin));
                let _ = explain(&plan);
            }
            Err(error) => prop_assert!(!error.hint().is_empty() && !error.to_string().is_empty()),
        }
    }

    #[test]
    fn resolution_is_the_same_every_time(record in any_record(), options in any_options()) {
        let one = try_plan(&record, &options).map(|plan| serde_json::to_string(&plan).unwrap());
        let two = try_plan(&record, &options).map(|plan| serde_json::to_string(&plan).unwrap());
        prop_assert_eq!(one.map_err(|error| error.problem), two.map_err(|error| error.problem));
    }

    #[test]
    fn what_a_plan_reads_it_can_write(record in any_record(), options in any_options()) {
        let Ok(plan) = try_plan(&record, &options) else { return Ok(()) };
        let mut record = record;
        let next: Credential =
            plan.write_back.iter().map(|write| (write.field.clone(), secret(&format!("new {}", write.field)))).collect();
        record.write(&plan.write_back, &next).unwrap();
        for write in &plan.write_back {
            prop_assert!(record.get(&write.place).unwrap().same_as(next.get(&write.field).unwrap()), "{}", write.place);
        }
        // And what was written is what the next rotation reads.
        if let Ok(again) = try_plan(&record, &Options { password: None, ..options }) && again.plugin == plan.plugin {
            prop_assert!(again.current.fields().all(|(name, value)| next.get(name).is_none_or(|next| next.same_as(value))));
        }
    }

    #[test]
    fn the_host_and_port_come_from_the_most_binding_source(
        option in some("o.x"), option_port in some(1u16), field in some("f.x"), field_port in some(2u16),
        url in some("u.x"), url_port in some(3u16), said in some("s.x"), said_port in some(4u16), own_port in some(5u16),
        v3 in any::<bool>(),
    ) {
        let field = field.filter(|_| v3);
        let with_port = |host: &str, port: Option<u16>| port.map_or(host.to_owned(), |port| format!("{host}:{port}"));
        let url_text = url.map(|url| format!("mysql://{}/x", with_port(url, url_port))).unwrap_or_default();
        let mut custom = vec![("cmdr:plugin".to_owned(), "mysql".to_owned())];
        custom.extend(said.map(|said| ("cmdr:host".to_owned(), with_port(said, said_port))));
        custom.extend(own_port.map(|port| ("cmdr:port".to_owned(), port.to_string())));
        let record = if v3 {
            let labels: Vec<_> = custom.iter().map(|(n, v)| (format!("text:{n}"), json!(v))).collect();
            let custom: Vec<_> = labels.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
            let host = json!({ "hostName": field.unwrap_or_default(), "port": field_port });
            typed("login", &[("login", json!("u")), ("password", json!("p")), ("url", json!(url_text)), ("host", host)], &custom)
        } else {
            let custom: Vec<_> = custom.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            untyped("u", "p", &url_text, &custom)
        };
        let options = Options { host: option.map(str::to_owned), port: option_port, ..Options::default() };
        let wanted = option.or(field).or(url).or(said);
        match (try_plan(&record, &options), wanted) {
            (Ok(plan), Some(host)) => {
                prop_assert_eq!(&plan.identity.host, host);
                let with_host = |host: Option<&str>, port: Option<u16>| host.and(port);
                let beside = match (option, field, url, said) {
                    (Some(_), ..) => with_host(field, field_port).or(with_host(url, url_port)),
                    (_, Some(_), ..) => field_port,
                    (_, _, Some(_), _) => url_port,
                    (.., Some(_)) => said_port,
                    _ => None,
                };
                prop_assert_eq!(plan.identity.port, option_port.or(beside).or(own_port).unwrap_or(3306));
            }
            (Err(error), None) => {
                let missing = matches!(error.problem, Problem::Missing { .. });
                prop_assert!(missing);
            }
            (result, wanted) => prop_assert!(false, "{result:?} {wanted:?}"),
        }
    }

    #[test]
    fn typed_and_untyped_records_resolve_alike(
        login in "[a-z]{1,6}", password in "[ -~]{1,12}", db in proptest::option::of("[a-z]{1,6}"),
        host in "[a-z]{1,6}(:[1-9][0-9]{1,3})?", turnlock in any::<bool>(), url in any::<bool>(), in_fields in any::<bool>(),
    ) {
        let prefix = if turnlock { "turnlock" } else { "cmdr" };
        let mut custom = vec![(format!("{prefix}:plugin"), "postgresql".to_owned())];
        custom.extend(db.map(|db| (format!("{prefix}:db"), db)));
        let link = if url { format!("postgres://{host}") } else { String::new() };
        if !url {
            custom.push((format!("{prefix}:host"), host));
        }
        let plain: Vec<_> = custom.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let v2 = untyped(&login, &password, &link, &plain);
        let labels: Vec<_> = custom.iter().map(|(n, v)| (format!("text:{n}"), json!(v))).collect();
        let listed: Vec<_> = labels.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
        let mut fields = vec![("login", json!(login)), ("password", json!(password)), ("url", json!(link))];
        let custom = if in_fields { fields.extend(listed); vec![] } else { listed };
        let v3 = typed("login", &fields, &custom);
        let (v2, v3) = (plan_of(&v2), plan_of(&v3));
        prop_assert_eq!(v2.account, v3.account);
        prop_assert_eq!(v2.identity, v3.identity);
        prop_assert!(v2.current.same_as(&v3.current));
        prop_assert_eq!(v2.policy, v3.policy);
    }

    #[test]
    fn no_secret_is_ever_told(
        plugin in proptest::sample::select(catalogue().entries().map(|e| e.describe.plugin.clone()).collect::<Vec<_>>()),
        drop in proptest::collection::vec(any::<bool>(), 12), v3 in any::<bool>(), unknown in "[a-z_]{1,12}",
        broken in proptest::sample::select(vec!["", "port", "length", "rules", "tls", "timeout", "passphrase", "plugin"]),
    ) {
        let catalogue = catalogue();
        let properties = catalogue.entries().flat_map(|entry| entry.properties.values());
        let account: std::collections::BTreeSet<_> = catalogue.get(&plugin).unwrap()
            .marked(&[Mark::Account]).map(|property| property.name.clone()).collect();
        // Every option of every plugin that this plugin does not mark `account` holds a canary.
        let mut custom: Vec<(String, String)> = properties
            .map(|property| property.name.clone())
            .filter(|name| !account.contains(name) && !TOLD.contains(&name.as_str()))
            .map(|name| (format!("cmdr:{name}"), format!("CANARY-{name}")))
            .collect();
        if !account.contains(&unknown) && !ENGINE.contains(&unknown.as_str()) && !COMMON.contains(&unknown.as_str()) {
            custom.push((format!("cmdr:{unknown}"), "CANARY-unknown".into()));
        }
        custom.push(("notes on it".into(), "CANARY-field".into()));
        let mut n = 0;
        custom.retain(|_| { n += 1; drop.get(n % 12).copied().unwrap_or(true) });
        custom.push(("cmdr:plugin".into(), plugin.clone()));
        custom.push(("cmdr:azure_tenant_id".into(), "t".into()));
        custom.push(("cmdr:host".into(), "h".into()));
        if !broken.is_empty() {
            custom.retain(|(name, _)| *name != format!("cmdr:{broken}"));
            custom.push((format!("cmdr:{broken}"), "CANARY-broken".into()));
        }
        let url = "https://u:CANARY-url@h/CANARY-path?CANARY";
        let record = if v3 {
            let labels: Vec<_> = custom.iter().map(|(n, v)| (format!("secret:{n}"), json!(v))).collect();
            let listed: Vec<_> = labels.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
            let keys = json!({ "privateKey": "CANARY-private", "publicKey": "CANARY-public" });
            typed("own", &[("login", json!("u")), ("password", json!("CANARY-pw")), ("url", json!(url)), ("keyPair", keys)], &listed)
        } else {
            let listed: Vec<_> = custom.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            untyped("u", "CANARY-pw", url, &listed)
        };
        match try_plan(&record, &Options { rules: None, password: Some(secret("CANARY-supplied")), ..Options::default() }) {
            Ok(plan) => prop_assert!(!format!("{plan:?} {:?}", explain(&plan)).contains("CANARY"), "{plan:?}"),
            Err(error) => prop_assert!(!format!("{error} {error:?} {}", error.hint()).contains("CANARY"), "{error:?}"),
        }
        if let Ok(plan) = try_plan(&record, &Options::default()) {
            prop_assert!(!format!("{plan:?} {:?}", explain(&plan)).contains("CANARY"), "{plan:?}");
            let unmarked = plan.account.keys().all(|name| account.contains(name));
            prop_assert!(unmarked);
        }
    }
}

#[test]
fn sections_are_read_in_their_order() {
    let record =
        typed("x", &[("password:Other", json!("labelled")), ("password", json!(""))], &[("password", json!("custom"))]);
    let found = record.password().unwrap();
    assert!(found.value.same_as(&secret("labelled")));
    assert!(matches!(found.place, Place::Typed { section: Section::Fields, index: 0, .. }));
}
