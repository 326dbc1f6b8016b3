"""Keeper's own SDK for Python, kept running: it answers questions about what
lies in the vault, one JSON object a line. It ends with its standard input.

Arguments: hostname with port, the server's public key, its id, the authority's
certificate, the configuration's file, and for a new device a one-time token.
"""

import json
import logging
import sys

from keeper_secrets_manager_core import SecretsManager
from keeper_secrets_manager_core.storage import FileKeyValueStorage

HOST, KEY, KEY_ID, CA, CONFIG, TOKEN = sys.argv[1:7]
logging.disable(logging.CRITICAL)
MANAGER = SecretsManager(
    token=TOKEN or None, hostname=HOST, config=FileKeyValueStorage(CONFIG), verify_ssl_certs=CA,
    server_public_key=KEY, server_public_key_id=KEY_ID)


def shown(record):
    return {"uid": record.uid, "title": record.title, "type": record.type, "revision": record.revision,
            "editable": record.is_editable, "data": json.loads(record.raw_json)}


def answer(question):
    do = question["do"]
    if do == "get":
        return [shown(record) for record in MANAGER.get_secrets(question.get("uids"))]
    if do == "notation":
        return MANAGER.get_notation(question["path"])
    if do == "folders":
        return [{"uid": one.folder_uid, "parent": one.parent_uid, "name": one.name} for one in MANAGER.get_folders()]
    record = MANAGER.get_secrets([question["uid"]])[0]
    if "revision" in question:
        record.revision = question["revision"]
    if do == "password":
        record.set_standard_field_value("password", question["password"])
        if question.get("transaction"):
            MANAGER.save(record, question["transaction"])
        else:
            MANAGER.save(record)
        return None
    if do == "complete":
        return MANAGER.complete_transaction(question["uid"], question["rollback"])
    raise ValueError(do)


for line in sys.stdin:
    try:
        told = {"value": answer(json.loads(line))}
    except Exception as error:
        told = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(told), flush=True)
