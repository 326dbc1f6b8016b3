"""A stand-in for the service behind Keeper Secrets Manager, for no vault of
Keeper's cloud can be had where these tests run.

It speaks the protocol as the official SDKs do (packages of all languages,
release 17.3): transmission keys, signed and encrypted payloads, one-time
tokens, application, folder and record keys, revisions, the transactions of a
rotation, throttling, and the hint that another public key is to be used. The
official SDK for Python is its independent client in the tests.

What it does not prove, for it is not documented and was not seen:
  what reads return while a transaction is open: told to it by `pending`
    ("visible" or "hidden"), and tested both ways;
  how long a transaction may stay open: `expire` rolls all of them back;
  whether another update is refused meanwhile: refused here;
  what a stale revision is answered with: `out_of_sync` here;
  whether a device that has just been bound is given its application key again
    when it asks again with the same public key: it is here;
  which record sizes are refused, and when the service throttles: on order only.
Files, links between records and record types are not there.

Arguments: address, port, certificate, key, control socket, state file. Whatever
changes is on the disk before it is answered, so that a killed server goes on
where it was. Commands arrive at the control socket as one JSON object a line,
each is answered with one line. Keys of all records are kept, which the real
service does not have: the tests put records in and look at them.
"""

import base64
import hashlib
import hmac
import http.server
import json
import os
import socket
import ssl
import sys
import threading

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

ADDRESS, PORT, CERTIFICATE, KEY, CONTROL, STATE = sys.argv[1:7]
PREFIX = "/api/rest/sm/v1/"
READS = {"get_secret", "get_folders"}
WRITES = {"update_secret", "finalize_secret_update", "rollback_secret_update", "create_secret", "delete_secret"}


def log(line):
    print(line, flush=True)


def b64(data):
    return base64.b64encode(data).decode()


def url64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def raw(text):
    return base64.urlsafe_b64decode(text.replace("+", "-").replace("/", "_") + "==")


def seal(data, key):
    nonce = os.urandom(12)
    return nonce + AESGCM(key).encrypt(nonce, data, None)


def unseal(data, key):
    return AESGCM(key).decrypt(data[:12], data[12:], None)


def seal_cbc(data, key):
    nonce, pad = os.urandom(16), padding.PKCS7(128).padder()
    encryptor = Cipher(AES(key), CBC(nonce)).encryptor()
    return nonce + encryptor.update(pad.update(data) + pad.finalize()) + encryptor.finalize()


def point(key):
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


class Refused(Exception):
    """An answer other than 200: plain JSON."""

    def __init__(self, status, **body):
        super().__init__(body)
        self.status, self.body = status, body


class Cut(Exception):
    """No answer at all."""


class Vault:
    def __init__(self):
        self.lock = threading.RLock()
        self.faults, self.requests = [], []
        self.pending = "visible"
        if os.path.exists(STATE):
            with open(STATE) as file:
                self.state = json.load(file)
        else:
            private = ec.generate_private_key(ec.SECP256R1())
            number = private.private_numbers().private_value
            owner = ec.generate_private_key(ec.SECP256R1())
            self.state = {"private": number, "key_id": "77", "app_key": b64(os.urandom(32)), "devices": {},
                          "owner": owner.private_numbers().private_value, "folders": {}, "records": {}, "open": {}}
            self.save()
        self.private = ec.derive_private_key(self.state["private"], ec.SECP256R1())
        self.owner = ec.derive_private_key(self.state["owner"], ec.SECP256R1())

    def save(self):
        draft = STATE + ".new"
        with open(draft, "w") as file:
            json.dump(self.state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, STATE)

    # ── requests ────────────────────────────────────────────────────────────

    def open_request(self, headers, body):
        """The transmission key and the payload, if the signature is right."""
        encrypted = base64.b64decode(headers["TransmissionKey"])
        if headers["PublicKeyId"] != self.state["key_id"]:
            hint = int(self.state["key_id"])
            raise Refused(401, error="key", key_id=hint, message="invalid key id")
        peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), encrypted[:65])
        shared = hashlib.sha256(self.private.exchange(ec.ECDH(), peer)).digest()
        transmission = unseal(encrypted[65:], shared)
        payload = json.loads(unseal(body, transmission))
        device = self.state["devices"].get(payload["clientId"])
        if device is None or device.get("removed"):
            raise Refused(403, error="access_denied", message="Unable to validate application access")
        public = device["public"] or payload.get("publicKey")
        if public is None:
            raise Refused(403, error="access_denied", message="the device is not bound")
        scheme, signature = headers["Authorization"].split(" ")
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw(public))
            key.verify(base64.b64decode(signature), encrypted + body, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError):
            raise Refused(403, error="access_denied", message="Signature is invalid")
        if scheme != "Signature":
            raise Refused(403, error="access_denied", message="no signature")
        return transmission, payload, device

    def perform(self, operation, payload, device):
        if operation == "get_secret":
            return self.get_secret(payload, device)
        if operation == "get_folders":
            return {"folders": self.folders()}
        if operation == "create_secret":
            return self.create(payload)
        if operation == "delete_secret":
            return self.delete(payload)
        uid = payload["recordUid"]
        record = self.state["records"].get(uid)
        if record is None:
            raise Refused(404, error="not_found", message="no such record")
        if operation == "update_secret":
            return self.update(uid, record, payload)
        before = self.state["open"].pop(uid, None)
        if before is None:
            raise Refused(400, error="bad_request", message="no transaction is open")
        if operation == "rollback_secret_update":
            self.state["records"][uid] = before["record"]
        elif before["next"] is not None:
            self.state["records"][uid] = before["next"]
        return None

    def get_secret(self, payload, device):
        answer = {"records": [], "folders": [], "warnings": [], "expiresOn": 0}
        if device["public"] is None or (payload.get("publicKey") == device["public"]):
            device["public"] = device["public"] or payload["publicKey"]
            answer["encryptedAppKey"] = b64(seal(self.app_key(), raw(device["token"])))
            answer["appOwnerPublicKey"] = url64(point(self.owner.public_key()))
        wanted = payload.get("requestedRecords")
        chosen = {uid: one for uid, one in self.state["records"].items() if not wanted or uid in wanted}
        for uid, record in chosen.items():
            if record["folder"] is None:
                answer["records"].append(self.shown(uid, record, self.app_key()))
        for uid, folder in self.state["folders"].items():
            inside = [self.shown(one, record, raw(folder["key"])) for one, record in chosen.items()
                      if record["folder"] == uid]
            if folder["parent"] is None and (inside or not wanted):
                answer["folders"].append({"folderUid": uid, "folderKey": b64(seal(raw(folder["key"]), self.app_key())),
                                          "records": inside})
        return answer

    def app_key(self):
        return raw(self.state["app_key"])

    def shown(self, uid, record, key):
        shown = {"recordUid": uid, "recordKey": b64(seal(raw(record["key"]), key)), "data": record["data"],
                 "revision": record["revision"], "isEditable": record["editable"], "files": []}
        if record["inner"]:
            shown["innerFolderUid"] = record["inner"]
        return shown

    def folders(self):
        shown = []
        for uid, folder in self.state["folders"].items():
            key, name = raw(folder["key"]), json.dumps({"name": folder["name"]}).encode()
            one = {"folderUid": uid, "data": b64(seal_cbc(name, key))}
            if folder["parent"] is None:
                one["folderKey"] = b64(seal(key, self.app_key()))
            else:
                top = self.state["folders"][folder["shared"]]
                one.update(parent=folder["parent"], folderKey=b64(seal_cbc(key, raw(top["key"]))))
            shown.append(one)
        return shown

    def update(self, uid, record, payload):
        if not record["editable"]:
            raise Refused(403, error="permission_denied", message="the application may not edit this record")
        if uid in self.state["open"]:
            raise Refused(400, error="transaction", message="a transaction is open")
        if payload["revision"] != record["revision"]:
            raise Refused(400, error="out_of_sync", message="the record was changed")
        # What cannot be opened is refused, so that no test passes on garbage.
        json.loads(unseal(raw(payload["data"]), raw(record["key"])))
        updated = dict(record, data=b64(raw(payload["data"])), revision=record["revision"] + 1)
        kind = payload.get("transactionType")
        if kind is not None:
            hidden = self.pending == "hidden"
            self.state["open"][uid] = {"record": record, "next": updated if hidden else None, "type": kind}
            if hidden:
                return None
        self.state["records"][uid] = updated
        return None

    def create(self, payload):
        folder = self.state["folders"].get(payload["folderUid"])
        if folder is None or folder["parent"] is not None:
            raise Refused(403, error="access_denied", message="no such shared folder")
        if payload["recordUid"] in self.state["records"]:
            raise Refused(400, error="exists", message="the record is there")
        key = unseal(raw(payload["folderKey"]), raw(folder["key"]))
        sealed = raw(payload["recordKey"])
        peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sealed[:65])
        shared = hashlib.sha256(self.owner.exchange(ec.ECDH(), peer)).digest()
        if unseal(sealed[65:], shared) != key:
            raise Refused(400, error="bad_request", message="two keys for one record")
        json.loads(unseal(raw(payload["data"]), key))
        self.state["records"][payload["recordUid"]] = {
            "key": b64(key), "data": b64(raw(payload["data"])), "revision": 1, "editable": True,
            "folder": payload["folderUid"], "inner": payload.get("subFolderUid")}
        return None

    def delete(self, payload):
        answers = []
        for uid in payload["recordUids"]:
            there = self.state["records"].pop(uid, None) is not None
            answers.append({"recordUid": uid, "responseCode": "ok" if there else "not_found"})
        return {"records": answers}

    # ── commands ────────────────────────────────────────────────────────────

    def command(self, told):
        do = told["do"]
        if do == "token":
            token = os.urandom(32)
            client = hmac.new(token, b"KEEPER_SECRETS_MANAGER_CLIENT_ID", hashlib.sha512).digest()
            self.state["devices"][b64(client)] = {"token": b64(token), "public": None}
            return url64(token)
        if do == "public_key":
            return {"key": url64(point(self.private.public_key())), "id": self.state["key_id"]}
        if do == "key_id":
            self.state["key_id"] = told["id"]
            return None
        if do == "folder":
            uid, parent = url64(os.urandom(16)), told.get("parent")
            top = parent
            while top is not None and self.state["folders"][top]["parent"] is not None:
                top = self.state["folders"][top]["parent"]
            self.state["folders"][uid] = {"name": told["name"], "key": b64(os.urandom(32)), "parent": parent,
                                          "shared": top}
            return uid
        if do == "record":
            uid, key = told.get("uid") or url64(os.urandom(16)), os.urandom(32)
            folder, inner = told.get("folder"), None
            if folder is not None and self.state["folders"][folder]["parent"] is not None:
                folder, inner = self.state["folders"][folder]["shared"], folder
            self.state["records"][uid] = {"key": b64(key), "data": b64(seal(json.dumps(told["data"]).encode(), key)),
                                          "revision": 1, "editable": told.get("editable", True), "folder": folder,
                                          "inner": inner}
            return uid
        if do == "edit":
            record = self.state["records"][told["uid"]]
            key = raw(record["key"])
            data = json.loads(unseal(raw(record["data"]), key))
            data.update(told.get("data", {}))
            for kind, value in told.get("fields", {}).items():
                for field in data["fields"]:
                    if field["type"] == kind:
                        field["value"] = [value]
            record.update(told.get("set", {}), data=b64(seal(json.dumps(data).encode(), key)),
                          revision=record["revision"] + 1)
            return None
        if do == "look":
            record = self.state["records"][told["uid"]]
            data = json.loads(unseal(raw(record["data"]), raw(record["key"])))
            return {"data": data, "revision": record["revision"], "open": told["uid"] in self.state["open"]}
        if do == "expire":
            for uid, before in self.state["open"].items():
                self.state["records"][uid] = before["record"]
            count, self.state["open"] = len(self.state["open"]), {}
            return count
        if do == "remove_devices":
            for device in self.state["devices"].values():
                device["removed"] = True
            return None
        if do == "pending":
            self.pending = told["reads"]
            return None
        if do == "fault":
            self.faults.append(dict(told["fault"], seen=0))
            return None
        if do == "heal":
            self.faults, self.requests = [], []
            return None
        if do == "requests":
            return self.requests
        if do == "snapshot":
            return self.state
        if do == "restore":
            self.state = told["state"]
            self.faults, self.requests = [], []
            return None
        raise ValueError(do)

    def fault_at(self, operation):
        """The order that this request comes to, if any."""
        for fault in self.faults:
            at = fault["at"]
            if at != "any" and at != operation and not (at == "write" and operation in WRITES):
                continue
            fault["seen"] += 1
            first = fault.get("number", 1)
            if first <= fault["seen"] < first + fault.get("times", 1):
                return fault
        return None


VAULT = Vault()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        operation = self.path.removeprefix(PREFIX)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            with VAULT.lock:
                status, answer = self.answered(operation, body)
        except Cut:
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def answered(self, operation, body):
        fault = VAULT.fault_at(operation)
        what = fault["what"] if fault else None
        VAULT.requests.append(operation)
        log(f"{operation} with key {self.headers['PublicKeyId']} {what or ''}".rstrip())
        if what == "cut before":
            raise Cut
        try:
            if operation not in READS | WRITES:
                raise Refused(404, error="not_found", message=operation)
            if what == "refuse":
                raise Refused(fault["status"], **fault["body"])
            transmission, payload, device = VAULT.open_request(self.headers, body)
            answer = VAULT.perform(operation, payload, device)
            VAULT.save()
        except Refused as refused:
            log(f"refused: {refused.body}")
            return refused.status, json.dumps(refused.body).encode()
        if what == "cut after":
            raise Cut
        return 200, seal(json.dumps(answer).encode(), transmission) if answer is not None else b""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        log(f"lost a connection: {sys.exc_info()[0].__name__}")


def listen_for_commands(control):
    while True:
        connection, _ = control.accept()
        with connection, connection.makefile("rw") as stream:
            for line in stream:
                try:
                    with VAULT.lock:
                        told = json.loads(line)
                        answer = {"value": VAULT.command(told)}
                        if told["do"] not in {"look", "requests", "fault", "heal", "pending", "public_key"}:
                            VAULT.save()
                except Exception as error:
                    answer = {"error": repr(error)}
                stream.write(json.dumps(answer) + "\n")
                stream.flush()


server = Server((ADDRESS, int(PORT)), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERTIFICATE, KEY)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
control = socket.socket(socket.AF_UNIX)
control.bind(CONTROL)
control.listen()
threading.Thread(target=listen_for_commands, args=[control], daemon=True).start()
log("ready")
server.serve_forever()
