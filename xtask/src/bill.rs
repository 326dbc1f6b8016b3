//! The bill of materials: CycloneDX 1.5, from what cargo resolved.

use std::collections::{BTreeMap, BTreeSet};

use lab::{LabError, Result, process};
use serde_json::{Value, json};

use crate::{
    programs::{MANIFESTS, Node, Package, Workspace},
    root,
};

/// Every program that is shipped, and everything that is linked into one: what
/// it uses itself, not what only builds or tests it.
pub(crate) fn of_materials(workspace: &Workspace, shipped: &[&Package], date: &str) -> Result<Value> {
    // A crate that two workspaces use may use different ones itself, by its features in each.
    let mut nodes: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
    for node in workspace.resolve.iter().flat_map(|resolve| &resolve.nodes) {
        nodes.entry(&node.id).or_default().push(node);
    }
    let packages: BTreeMap<&str, &Package> =
        workspace.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let sums = checksums()?;

    let mut linked = BTreeSet::new();
    let mut next: Vec<&str> = shipped.iter().map(|package| package.id.as_str()).collect();
    while let Some(id) = next.pop() {
        if linked.insert(id) {
            next.extend(nodes.get(id).into_iter().flatten().flat_map(|node| uses(node)));
        }
    }
    let reference = |id: &str| packages.get(id).map_or_else(|| id.to_owned(), |package| purl(package));
    let components: Vec<Value> = linked
        .iter()
        .filter_map(|id| packages.get(id))
        .map(|package| component(package, shipped.iter().any(|ours| ours.id == package.id), &sums))
        .collect();
    let dependencies: Vec<Value> = linked
        .iter()
        .filter_map(|id| Some((id, nodes.get(id)?)))
        .map(|(id, nodes)| {
            let used = nodes.iter().flat_map(|node| uses(node));
            let on: BTreeSet<String> = used.filter(|id| linked.contains(id)).map(reference).collect();
            json!({"ref": reference(id), "dependsOn": on})
        })
        .collect();
    let version = shipped.first().map_or("", |package| package.version.as_str());
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": instant(date)?,
            "component": {"type": "application", "bom-ref": "turnlock-release", "name": "turnlock", "version": version},
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// What a package has linked in.
fn uses(node: &Node) -> impl Iterator<Item = &str> {
    let linked = |kinds: &[crate::programs::EdgeKind]| kinds.iter().any(|kind| kind.kind.is_none());
    node.deps.iter().filter(move |edge| linked(&edge.dep_kinds)).map(|edge| edge.pkg.as_str())
}

fn component(package: &Package, is_program: bool, sums: &BTreeMap<(String, String), String>) -> Value {
    let mut component = json!({
        "type": if is_program { "application" } else { "library" },
        "bom-ref": purl(package),
        "name": package.name,
        "version": package.version,
        "purl": purl(package),
    });
    let Some(fields) = component.as_object_mut() else { return component };
    if let Some(license) = &package.license {
        // Older manifests say "or" with a slash.
        fields.insert("licenses".into(), json!([{"expression": license.replace('/', " OR ")}]));
    }
    if let Some(description) = &package.description {
        fields.insert("description".into(), json!(description.trim()));
    }
    if let Some(repository) = &package.repository {
        fields.insert("externalReferences".into(), json!([{"type": "vcs", "url": repository}]));
    }
    if let Some(sum) = sums.get(&(package.name.clone(), package.version.clone())) {
        fields.insert("hashes".into(), json!([{"alg": "SHA-256", "content": sum}]));
    }
    component
}

fn purl(package: &Package) -> String {
    // The one character of a version that a package URL quotes.
    let version = package.version.replace('+', "%2B");
    let ours = if package.source.is_none() { "pkg:generic" } else { "pkg:cargo" };
    format!("{ours}/{}@{version}", package.name)
}

/// The hashes that the lock files hold, by name and version.
fn checksums() -> Result<BTreeMap<(String, String), String>> {
    let mut sums = BTreeMap::new();
    for manifest in MANIFESTS {
        let lock = root().join(manifest).with_extension("lock");
        let lock = std::fs::read_to_string(&lock)
            .map_err(|error| LabError::new(format!("could not read {}: {error}", lock.display())))?;
        let field = |package: &str, name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""))?;
            line.strip_suffix('"').map(str::to_owned)
        };
        sums.extend(lock.split("[[package]]").filter_map(|package| {
            Some(((field(package, "name")?, field(package, "version")?), field(package, "checksum")?))
        }));
    }
    Ok(sums)
}

fn instant(seconds: &str) -> Result<String> {
    let mut date = process::command("date");
    let told = process::run(date.args(["--utc", "+%Y-%m-%dT%H:%M:%SZ", "--date"]).arg(format!("@{seconds}")), b"")?;
    Ok(told.stdout.trim().to_owned())
}
