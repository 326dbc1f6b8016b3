//! What a release consists of, judged by Debian's own tools. One program of each
//! kind is packed, as the tests have it; the whole release is packed the same way.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken expectation of a test program is its failure"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use lab::{bin, process, python};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(280);

fn succeed(command: &mut Command) -> String {
    let output = process::run_within(command, b"", PATIENCE).unwrap();
    assert!(output.succeeded(), "{command:?}: {}{}", output.stdout, output.stderr);
    output.stdout
}

/// Packs these programs; the files that were made.
fn pack(names: &[&str]) -> Vec<PathBuf> {
    let mut dist = process::command(bin("xtask").unwrap());
    let output = process::run_within(dist.args(["dist", "--quick"]).args(names), b"", PATIENCE).unwrap();
    assert!(output.succeeded(), "{}", output.stderr);
    let paths = output.stderr.lines().filter_map(|line| line.split_whitespace().nth(1));
    let made: Vec<PathBuf> = paths.map(PathBuf::from).filter(|path| path.is_file()).collect();
    assert_eq!(made.len(), 4, "{}", output.stderr);
    made
}

fn named<'a>(made: &'a [PathBuf], end: &str) -> &'a Path {
    made.iter().find(|path| path.to_string_lossy().ends_with(end)).unwrap()
}

#[test]
fn a_release_is_whole_and_the_same_however_often_it_is_packed() {
    let contents = |made: &[PathBuf]| made.iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>();
    let small = pack(&["noop"]);
    let first = contents(&small);
    // Debian's judge takes its time for large programs, and has nothing else to say about them.
    let mut lintian = process::command("lintian");
    succeed(lintian.args(["--fail-on=error", "--allow-root"]).arg(named(&small, ".deb")));
    assert!(first == contents(&pack(&["noop"])), "two releases of one commit differ");

    let made = pack(&["turnlock", "noop", "vault-ksm"]);
    let sums = fs::read_to_string(named(&made, "SHA256SUMS")).unwrap();
    assert_eq!(sums.lines().count(), 3, "{sums}");
    let place = made[0].parent().unwrap();
    succeed(process::command("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(place));

    let deb = named(&made, ".deb");
    let listed = succeed(process::command("dpkg-deb").arg("--contents").arg(deb));
    for file in [
        "./usr/bin/turnlock",
        "./usr/bin/turnlock-noop",
        "./usr/bin/turnlock-vault-ksm",
        "./usr/share/man/man1/turnlock.1.gz",
        "./usr/share/man/man1/turnlock-vault-init.1.gz",
        "./usr/share/man/man1/turnlock-noop.1.gz",
        "./usr/share/man/man1/turnlock-vault-ksm.1.gz",
        "./usr/share/bash-completion/completions/turnlock",
        "./usr/share/zsh/vendor-completions/_turnlock",
        "./usr/share/fish/vendor_completions.d/turnlock.fish",
        "./usr/lib/systemd/system/turnlock-rotate.service",
        "./usr/lib/systemd/system/turnlock-rotate.timer",
        "./usr/lib/sysusers.d/turnlock.conf",
        "./usr/share/doc/turnlock/rotators/noop.md",
        "./usr/share/doc/turnlock/vaults/ksm.md",
        "./usr/share/doc/turnlock/copyright",
    ] {
        let line = listed.lines().find(|line| line.ends_with(file)).unwrap_or_else(|| panic!("no {file}: {listed}"));
        assert!(line.contains("root/root"), "{line}");
    }
    let archived = succeed(process::command("tar").arg("--list").arg("--file").arg(named(&made, ".tar.gz")));
    assert!(archived.lines().any(|file| file.ends_with("/bin/turnlock-noop")), "{archived}");
    judge(&made);
}

/// By systemd, man and the shells.
fn judge(made: &[PathBuf]) {
    let room = tempfile::tempdir().unwrap();
    let root = room.path();
    succeed(process::command("dpkg-deb").arg("--extract").arg(named(made, ".deb")).arg(root));
    let pages = root.join("usr/share/man/man1");
    let names: Vec<PathBuf> = fs::read_dir(&pages).unwrap().map(|page| page.unwrap().path()).collect();
    succeed(process::command("gunzip").arg("--keep").args(&names));
    let mut groff = process::command("groff");
    groff.args(["-man", "-Tutf8", "-ww", "-z"]).args(names.iter().map(|name| name.with_extension("")));
    let judged = process::run(&mut groff, b"").unwrap();
    assert!(judged.succeeded() && judged.stderr.is_empty(), "{}", judged.stderr);
    for page in ["turnlock", "turnlock-noop", "turnlock-vault-ksm"] {
        let mut man = process::clean_command("man");
        man.arg("--local-file").arg(pages.join(format!("{page}.1.gz"))).env("MANROFFSEQ", "");
        let shown = succeed(&mut man);
        assert!(shown.contains("NAME") && shown.contains(page), "{shown}");
    }
    succeed(process::command("bash").arg("-n").arg(root.join("usr/share/bash-completion/completions/turnlock")));

    // Under a root of its own, systemd looks for programs there, too.
    let mut verify = process::clean_command("systemd-analyze");
    verify.arg("--man=no").arg(format!("--root={}", root.display())).args(["verify", "turnlock-rotate.timer"]);
    let verified = process::run(&mut verify, b"").unwrap();
    // The rest of a system is not there, and that is all that may be missing.
    let ours =
        verified.stderr.lines().filter(|line| line.contains("turnlock") && !line.contains("Unit sysinit.target"));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(!verified.stderr.contains("Unknown"), "{}", verified.stderr);

    let bill: Value = serde_json::from_slice(&fs::read(named(made, ".cdx.json")).unwrap()).unwrap();
    let components = bill["components"].as_array().unwrap();
    let has = |name: &str, kind: &str| components.iter().any(|one| one["name"] == name && one["type"] == kind);
    assert!(has("turnlock", "application") && has("turnlock-noop", "application") && has("rusqlite", "library"));
    assert!(has("turnlock-vault-ksm", "application") && has("keeper-secrets-manager-core", "library"));
    // What only tests use is linked into nothing.
    assert!(!has("proptest", "library") && !has("e2e", "library") && !has("turnlock-postgresql", "application"));
    judged_by_python(CYCLONEDX, &[named(made, ".cdx.json")]);
}

const CYCLONEDX: &str = "
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read())
sys.exit(str(error) if error else 0)
";

#[test]
fn the_manifests_for_kubernetes_are_what_kubernetes_takes() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/kubernetes");
    judged_by_python(KUBERNETES, &[&directory]);
}

/// The schemas are those of Kubernetes itself; kustomize is read as far as this
/// goes: every file is named, nothing is named that is not there.
const KUBERNETES: &str = "
import json, pathlib, sys, yaml, kubernetes_validate
place = pathlib.Path(sys.argv[1])
base = yaml.safe_load((place / 'kustomization.yaml').read_text())
assert base['kind'] == 'Kustomization' and base['apiVersion'] == 'kustomize.config.k8s.io/v1beta1', base
there = {file.name for file in place.glob('*.yaml')} - {'kustomization.yaml'}
assert there == set(base['resources']), (there, base['resources'])
kinds = set()
for name in there:
    for document in yaml.safe_load_all((place / name).read_text()):
        kubernetes_validate.validate(document, '1.31', strict=True)
        kinds.add(document['kind'])
        if document['kind'] == 'CronJob':
            pod = document['spec']['jobTemplate']['spec']['template']['spec']
            container = pod['containers'][0]
            assert pod['securityContext']['runAsNonRoot'] and not pod['automountServiceAccountToken'], pod
            assert container['securityContext']['readOnlyRootFilesystem'], container
            assert document['spec']['concurrencyPolicy'] == 'Forbid'
            # What a rotator prints is a secret, and a pod's output is kept: only turnlock itself runs here.
            assert container['args'][0] == 'rotate' and '--reveal' not in container['args'], container
            used = {volume['name'] for volume in pod['volumes']}
            assert used == {mount['name'] for mount in container['volumeMounts']}, used
assert {'CronJob', 'PersistentVolumeClaim', 'Namespace'} <= kinds, kinds
admin = json.loads((place / 'admin.json').read_text())
admin['spec']['containers'][0].update(image='turnlock/turnlock', args=['vault', 'init'])
kubernetes_validate.validate({'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'admin'}, **admin}, '1.31', strict=True)
broken = yaml.safe_load((place / 'cronjob.yaml').read_text())
broken['spec']['schedule'] = 5
try:
    kubernetes_validate.validate(broken, '1.31', strict=True)
except kubernetes_validate.ValidationError:
    sys.exit(0)
sys.exit('the schema lets anything through')
";

fn judged_by_python(script: &str, arguments: &[&Path]) {
    let arguments: Vec<&str> = arguments.iter().map(|path| path.to_str().unwrap()).collect();
    succeed(&mut python::script(script, &arguments).unwrap());
}
