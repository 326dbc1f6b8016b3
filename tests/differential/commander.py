"""Asks Keeper Commander's own code: a list of questions on standard input, a
list of answers on standard output. Its resolver, generator, command and
importers are called directly; what would speak with Keeper's service is
replaced, and nothing else."""

import json
import logging
import sys
import types
from unittest import mock

from keepercommander import api, generator, record_management
from keepercommander.importer.csv.csv import KeeperCsvExporter, KeeperCsvImporter
from keepercommander.importer.importer import Record as ImportedRecord
from keepercommander.importer.json.json import KeeperJsonExporter, KeeperJsonImporter
from keepercommander.importer.keepass import keepass
from keepercommander.plugins import commands, plugin_manager
from keepercommander.vault import KeeperRecord, PasswordRecord, TypedRecord

NEEDS_ITS_RECORD = {"adpasswd", "azureadpwd", "noop", "sshkey", "unixpasswd"}


def record_of(raw):
    record = TypedRecord() if "type" in raw else PasswordRecord()
    record.record_uid = raw["uid"]
    record.load_record_data(raw)
    return record


class Plugin:
    """Stands for every plugin: what is asked is which one, and with what."""

    def __init__(self, **kwargs):
        self.kwargs = kwargs
        self.rotated = None

    def rotate(self, record, new_password):
        self.rotated = new_password
        return True


def stand_in(name):
    if name in NEEDS_ITS_RECORD:
        return Plugin()
    return types.SimpleNamespace(Rotator=Plugin)


def resolve(question):
    with mock.patch.object(plugin_manager, "load_plugin", stand_in):
        found = plugin_manager.get_plugin(
            record_of(question["record"]),
            question.get("rotate_name"),
            plugin_name=question.get("plugin"),
            host=question.get("host"),
            port=question.get("port"),
        )
    if not found:
        return {"refused": True}
    return {"plugin": found[0], "kwargs": found[1]}


def generate(question):
    plugin = types.SimpleNamespace()
    if question.get("disallow"):
        plugin.disallow_special_characters = question["disallow"]
    count = question.get("count", 1)
    return {"passwords": [commands.get_new_password(plugin, question.get("rules"), question.get("length")) for _ in range(count)]}


def adjust(question):
    return {"password": commands.adjust_password(question["password"])}


def validate(question):
    shell = question["plugin"] in commands.SHELL_ROTATION_PLUGINS
    return {"accepted": commands.validate_rotation_password(question["password"], shell)}


def rotate(question):
    """One whole rotation with a plugin that always succeeds."""
    record = record_of(question["record"])
    plugin = Plugin()
    kwargs = {key: value for key, value in question.items() if key in ("new_password", "rules", "length")}
    with (
        mock.patch.object(api, "sync_down"),
        mock.patch.object(KeeperRecord, "load", lambda params, uid: record),
        mock.patch.object(api, "resolve_record_write_path", lambda params, uid: [] if question["writable"] else None),
        mock.patch.object(record_management, "update_record"),
        mock.patch.object(plugin_manager, "load_plugin", lambda name: plugin),
    ):
        done = commands.rotate_password(None, record.record_uid, plugin_name=question.get("plugin"), **kwargs)
    return {"done": done, "rotated": plugin.rotated, "password": record.password if isinstance(record, PasswordRecord) else None}


def command(question):
    """`rotate` itself: which rotations it would start, and what it lists."""
    calls = []

    def rotated(params, uid, **kwargs):
        calls.append(dict(kwargs, uid=uid))
        return False

    records = {raw["uid"]: raw for raw in question["records"]}
    params = types.SimpleNamespace(
        revision=question.get("revision", 1),
        record_cache={uid: {"version": 3 if "type" in raw else 2} for uid, raw in records.items()},
    )
    found = [types.SimpleNamespace(version=2, title=raw["title"], record_uid=uid) for uid, raw in records.items()]
    if question.get("fresh", True):
        commands.RecordRotateCommand.LastRevision = 0
    by_number = {id(entry): records[uid] for uid, entry in params.record_cache.items()}
    with (
        mock.patch.object(commands, "rotate_password", rotated),
        mock.patch.object(KeeperRecord, "load", lambda params, entry: record_of(by_number[id(entry)])),
        mock.patch.object(commands, "find_folders", lambda params, uid: []),
        mock.patch.object(api, "search_records", lambda params, text: found),
    ):
        outcome = commands.RecordRotateCommand().execute(params, **question["arguments"])
        endpoints = [[e.name, e.type, e.description, e.record_uid] for e in commands.RecordRotateCommand.Endpoints]
    return {"calls": calls, "outcome": outcome, "endpoints": endpoints}


def load(question):
    return {"loaded": bool(plugin_manager.load_plugin(question["plugin"]))}


def run(question):
    """One of its plugins against a server."""
    module = plugin_manager.load_plugin(question["plugin"])
    return {"done": module.Rotator(**question["kwargs"]).rotate(None, question["new_password"])}


def told(records):
    return [
        {
            "uid": r.uid,
            "type": r.type,
            "title": r.title,
            "login": r.login,
            "password": r.password,
            "url": r.login_url,
            "notes": r.notes,
            "fields": [[f.type, f.label, f.value] for f in r.fields],
            "folders": [[f.domain, f.path] for f in r.folders or []],
            "attachments": [a.name for a in r.attachments or []],
        }
        for r in records
        if isinstance(r, ImportedRecord)
    ]


def imports(question):
    """Its own import of a file that Turnlock wrote."""
    path = question["path"]
    if question["format"] == "csv":
        return {"records": told(KeeperCsvImporter().do_import(path))}
    if question["format"] == "json":
        return {"records": told(KeeperJsonImporter().do_import(path))}
    with (
        mock.patch.object(keepass.getpass, "getpass", lambda **_: question["passphrase"]),
        mock.patch("builtins.input", lambda _: ""),
        mock.patch("builtins.print"),
    ):
        return {"records": told(keepass.KeepassImporter().do_import(path))}


def exports(question):
    """Its own export of what it imported from a file: a file that it wrote."""
    records = list(KeeperJsonImporter().do_import(question["path"]))
    to = question["to"]
    if question["format"] == "csv":
        KeeperCsvExporter().do_export(to, records)
    elif question["format"] == "json":
        KeeperJsonExporter().do_export(to, records)
    else:
        with mock.patch("builtins.input", lambda _: ""), mock.patch("builtins.print"):
            keepass.KeepassExporter().do_export(to, records, file_password=question["passphrase"])
    return {}


ASKED = {f.__name__: f for f in (resolve, generate, adjust, validate, rotate, command, load, run, imports, exports)}


class Log(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def main():
    log = Log()
    logging.basicConfig(level=logging.INFO, handlers=[log], force=True)
    answers = []
    stdout, sys.stdout = sys.stdout, sys.stderr
    for question in json.load(sys.stdin):
        log.lines = []
        try:
            answer = ASKED[question["ask"]](question)
        except Exception as error:
            answer = {"crashed": type(error).__name__, "why": str(error)}
        answers.append(dict(answer, log="\n".join(log.lines)))
    json.dump(answers, stdout)


main()
