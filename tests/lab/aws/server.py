"""AWS's IAM and STS as moto has them, and what moto lacks.

moto (https://docs.getmoto.org) keeps users, keys, roles and policies, and
checks signatures and policies. Added here, because moto does not have it:

  - an inactive access key is refused, and a new one for `delay` seconds after
    it was made, as the IAM User Guide says ("Troubleshoot IAM: changes that I
    make are not always immediately visible");
  - ChangePassword, and PasswordPolicyViolation wherever a password is set, by
    the account's policy or, without one, by AWS's default;
  - the external id that a role asks for;
  - TLS with the lab's certificate, a clock that may be wrong, and faults on order.

What it does not prove: which of several errors AWS reports first; how long a
change takes until all of AWS knows of it; the words of AWS's messages; what
AWS answers to ChangePassword with a wrong old password (AccessDenied is taken,
which is also its answer to a missing right); conditions of policies, MFA.

Arguments: address, port, certificate, key, control socket. Commands arrive at
the control socket as one JSON object a line, each is answered with one line.
"""

import datetime
import io
import json
import logging
import os
import re
import socket
import sys
import threading
import time
import urllib.parse

from moto import settings

# From the first request on; what a test needs is made over the control socket.
settings.INITIAL_NO_AUTH_ACTION_COUNT = 0

from moto.core.responses import EmptyResult  # noqa: E402
from moto.iam.access_control import IAMRequestBase  # noqa: E402
from moto.iam.exceptions import IAMException  # noqa: E402
from moto.iam.models import AccessKeyLastUsed, IAMBackend, iam_backends  # noqa: E402
from moto.iam.responses import IamResponse  # noqa: E402
from moto.moto_server.werkzeug_app import (  # noqa: E402
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server  # noqa: E402

ACCOUNT = "123456789012"
REGION = "us-east-1"
IAM = iam_backends[ACCOUNT]["aws"]
SYMBOLS = set("!@#$%^&*()_+-=[]{}|'")

STATE = {"delay": 0.0, "skew": 0, "faults": {}}
MADE = {}
KEYS = {}
EXTERNAL = {}
RAW = {}
HEALED = threading.Event()
LOCK = threading.RLock()


def log(text):
    print(text, flush=True)


# ---- what moto lacks ----


class PasswordPolicyViolation(IAMException):
    code = "PasswordPolicyViolation"


class AccessDenied(IAMException):
    code = "AccessDenied"


def check(password):
    policy = IAM.account_password_policy
    kinds = [
        any(c.isupper() for c in password),
        any(c.islower() for c in password),
        any(c.isdigit() for c in password),
        any(c in SYMBOLS for c in password),
    ]
    if policy is None:
        fits = len(password) >= 8 and sum(kinds) >= 3
    else:
        wanted = [
            policy.require_uppercase_characters,
            policy.require_lowercase_characters,
            policy.require_numbers,
            policy.require_symbols,
        ]
        fits = len(password) >= policy.minimum_password_length
        fits = fits and all(has or not must for has, must in zip(kinds, wanted))
    if not fits or len(password) > 128:
        raise PasswordPolicyViolation("Password does not conform to the account password policy.")


def checked(method):
    def with_check(self, user_name, password, *more):
        check(password)
        return method(self, user_name, password, *more)

    return with_check


IAMBackend.create_login_profile = checked(IAMBackend.create_login_profile)
IAMBackend.update_login_profile = checked(IAMBackend.update_login_profile)


def change_password(self):
    user = self.backend.get_user_from_access_key_id(self.get_access_key())
    old, new = self._get_param("OldPassword"), self._get_param("NewPassword")
    if user is None or not user.password or user.password != old:
        raise AccessDenied("The old password is wrong.")
    check(new)
    user.password = new
    return EmptyResult()


IamResponse.change_password = change_password


def signed_as_sent(request):
    # What was sent is what was signed: a blank is %20 to some clients and + to others.
    request._body = RAW["body"]
    return create_aws_request(request)


create_aws_request = IAMRequestBase._create_aws_request
IAMRequestBase._create_aws_request = signed_as_sent


def refused(code, message, status):
    body = (
        '<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{message}</Message></Error><RequestId>0</RequestId></ErrorResponse>"
    )
    return status, body.encode()


def not_a_key(environ):
    """Why this key does not sign yet, or no more."""
    found = re.search(r"Credential=([A-Z0-9]+)/", environ.get("HTTP_AUTHORIZATION", ""))
    key = IAM.access_keys.get(found[1]) if found else None
    young = found and time.time() < MADE.get(found[1], 0)
    if young or (key is not None and key.status != "Active" and key.user_name):
        return refused("InvalidClientTokenId", "The security token included in the request is invalid.", 403)
    return None


def not_trusted(said):
    """A role asks for an external id."""
    wanted = EXTERNAL.get(said.get("RoleArn", [""])[0])
    if said.get("Action") == ["AssumeRole"] and wanted and said.get("ExternalId") != [wanted]:
        return refused("AccessDenied", "Not authorized to perform sts:AssumeRole.", 403)
    return None


# ---- the server ----


class Application:
    def __init__(self):
        self.moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ, start_response):
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(size)
        said = urllib.parse.parse_qs(body.decode("utf-8", "replace"))
        action = said.get("Action", ["?"])[0]
        user = said.get("UserName", [""])[0]
        fault = take(action)
        log(f"{action} {user}".rstrip() + (f" [{fault['what']}]" if fault else ""))
        if fault and fault["what"] == "hold before":
            HEALED.wait()
        if fault and fault["what"] == "cut before":
            return self.cut(environ)
        if fault and fault["what"] == "status":
            answer = refused(fault["code"], "As ordered.", fault["status"])
        elif fault and fault["what"] == "body":
            answer = (fault.get("status", 200), fault["body"].encode())
        else:
            answer = not_a_key(environ) or not_trusted(said)
        if answer is None:
            answer = self.through_moto(environ, body)
        status, content = answer
        if status in (401, 403):
            code = re.search(r"<Code>(\w+)</Code>.*?<Message>(.*?)</Message>", content.decode(), re.DOTALL)
            log(f"refused {action}: {code[1] if code else status}")
            if code:
                # moto says some of these in EC2's words, which IAM and STS do not have.
                status, content = refused(code[1], code[2], status)
        if action == "CreateAccessKey" and status == 200:
            made = re.search(rb"<AccessKeyId>(\w+)</AccessKeyId>", content)
            MADE[made[1].decode()] = time.time() + STATE["delay"]
        if fault and fault["what"] == "hold after":
            HEALED.wait()
        if fault and fault["what"] == "cut after":
            return self.cut(environ)
        headers = [("Content-Type", "text/xml"), ("Content-Length", str(len(content)))]
        if fault and fault["what"] == "redirect":
            status = 307
            headers.append(("Location", fault["to"]))
        start_response(f"{status} X", headers)
        return [content]

    def through_moto(self, environ, body):
        environ["wsgi.input"] = io.BytesIO(body)
        heard = {}

        def start(status, headers, _=None):
            heard["status"] = int(status.split()[0])
            return lambda _: None

        with LOCK:
            RAW["body"] = body
            content = b"".join(self.moto(environ, start))
        return heard["status"], content

    def cut(self, environ):
        connection = environ["werkzeug.socket"]
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        raise ConnectionAbortedError


def take(action):
    with LOCK:
        fault = STATE["faults"].get(action)
        if not fault:
            return None
        fault["times"] -= 1
        if fault["times"] <= 0:
            del STATE["faults"][action]
        return fault


# ---- orders of a test ----


def user_of(name):
    return IAM.get_user(name)


def key_named(key_id):
    for user in IAM.users.values():
        for key in user.access_keys:
            if key.access_key_id == key_id:
                return key
    raise KeyError(key_id)


def command(asked):
    do = asked["do"]
    if do == "user":
        user = IAM.create_user(REGION, asked["name"], asked.get("path", "/"))
        user.password = asked.get("password")
        return None
    if do == "policy":
        statements = [{"Effect": "Allow", "Action": asked["actions"], "Resource": "*"}]
        statements += [{"Effect": "Deny", "Action": asked["deny"], "Resource": "*"}] if asked.get("deny") else []
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        IAM.put_user_policy(asked["name"], "lab", document)
        return None
    if do == "role":
        statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": asked["trusts"]}}
        trust = {"Version": "2012-10-17", "Statement": [statement]}
        role = IAM.create_role(asked["name"], json.dumps(trust), "/", None, "", [], None)
        allowed = [{"Effect": "Allow", "Action": asked["actions"], "Resource": "*"}]
        IAM.put_role_policy(asked["name"], "lab", json.dumps({"Version": "2012-10-17", "Statement": allowed}))
        EXTERNAL[role.arn] = asked.get("external")
        return role.arn
    if do == "key":
        key = IAM.create_access_key(asked["name"])
        if "id" in asked:
            IAM.access_keys.pop(key.access_key_id)
            key.access_key_id = asked["id"]
            IAM.access_keys[key.access_key_id] = key
        key.secret_access_key = asked.get("secret", key.secret_access_key)
        KEYS[key.access_key_id] = key
        return {"id": key.access_key_id, "secret": key.secret_access_key}
    if do == "set key":
        key = key_named(asked["id"])
        if "age" in asked:
            key.create_date = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=key.create_date.tzinfo)
            key.create_date -= datetime.timedelta(seconds=asked["age"])
        if "used" in asked:
            at = key.create_date
            key.last_used = AccessKeyLastUsed(timestamp=at, service=asked["used"], region=REGION) if asked["used"] else None
        key.status = asked.get("status", key.status)
        return None
    if do == "keys":
        user = user_of(asked["name"])
        return [{"id": k.access_key_id, "secret": k.secret_access_key, "status": k.status} for k in user.access_keys]
    if do == "only key":
        user = user_of(asked["name"])
        # One of its own, or one that a test made once and the user has lost since.
        own = [key for key in user.access_keys if key.access_key_id == asked["id"]]
        key = own[0] if own else KEYS[asked["id"]]
        for other in user.access_keys:
            IAM.access_keys.pop(other.access_key_id, None)
        key.status = "Active"
        user.access_keys[:] = [key]
        IAM.access_keys[key.access_key_id] = key
        return None
    if do == "password":
        if "to" in asked:
            user_of(asked["name"]).password = asked["to"]
        return user_of(asked["name"]).password
    if do == "password policy":
        of = asked["of"]
        demands = [bool(of.get(name)) for name in ("lower", "numbers", "symbols", "upper")]
        IAM.update_account_password_policy(of.get("lets", True), None, None, of.get("length", 6), None, *demands)
        return None
    if do == "set":
        STATE.update(asked["to"])
        return None
    if do == "fault":
        HEALED.clear()
        STATE["faults"][asked["at"]] = asked["fault"] | {"times": asked["times"]}
        return None
    if do == "heal":
        STATE["faults"].clear()
        HEALED.set()
        return None
    raise KeyError(do)


def control(listener):
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw", encoding="utf-8") as lines:
            for line in lines:
                with LOCK:
                    try:
                        told = {"value": command(json.loads(line))}
                    except Exception as wrong:
                        told = {"error": repr(wrong)}
                lines.write(json.dumps(told) + "\n")
                lines.flush()


class Handler(MotoRequestHandler):
    def date_time_string(self, timestamp=None):
        return super().date_time_string((timestamp or time.time()) + STATE["skew"])

    def log_request(self, *_):
        pass

    def log(self, *_):
        # A connection that ends in the middle is what many tests are about.
        pass


def main():
    address, port, certificate, key, path = sys.argv[1:]
    logging.getLogger("werkzeug").disabled = True
    orders = socket.socket(socket.AF_UNIX)
    orders.bind(path)
    orders.listen()
    threading.Thread(target=control, args=(orders,), daemon=True).start()
    os.environ["MOTO_PORT"] = port
    server = make_server(
        address, int(port), Application(), threaded=True, ssl_context=(certificate, key), request_handler=Handler
    )
    # In the thread of its connection, so that a client that says nothing holds nobody else.
    server.socket.do_handshake_on_connect = False
    log("ready")
    server.serve_forever(0.1)


main()
