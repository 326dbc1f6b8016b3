"""A stand-in for Microsoft Entra ID, Microsoft Graph and Azure Resource
Manager, for no tenant can be had where these tests run.

It checks what the documentation says that the services check: tenant, grant,
scope, secrets and signed assertions at the token endpoint; a bearer's issuer,
audience, expiry, permissions and roles at Graph; bodies, logins and passwords.
Microsoft's own library for Python (MSAL) logs in to it in its self test, with
a secret, with a certificate, and as a user with a password; that log-in also
tells the tests which password of a user works.

What it does not prove: that the real services agree with their documentation,
in all clouds; which of several errors they report first; password protection
with its banned words; conditional access; hybrid tenants and write-back; how
long a change takes until every part of the service knows of it; whether an
application may call authentication/methods/…/resetPassword at all (the page of
that call lists permissions of users only).

Its rules are from these pages of learn.microsoft.com:
  entra/identity-platform/v2-oauth2-client-creds-grant-flow   grant and answer
  entra/identity-platform/certificate-credentials             assertions
  entra/identity-platform/reference-error-codes               AADSTS numbers
  entra/identity-platform/access-token-claims-reference       roles, wids, oid
  entra/identity/authentication/concept-sspr-policy           passwords
  entra/identity/role-based-access-control/permissions-reference   role ids
  graph/api/user-get, graph/api/user-update                   users
  graph/api/authenticationmethod-resetpassword, graph/api/longrunningoperation-get
  graph/errors, graph/throttling, graph/deployments           refusals, hosts
  rest/api/authorization/role-assignments, role-definitions   Azure's roles

Arguments: address, port, certificate, key, control socket. Commands arrive at
the control socket as one JSON object a line, each is answered with one line.
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
import time
import urllib.parse
import uuid

TENANT = "9f1c0a52-6a0c-4d2e-8f4b-0b8a3c1d7e55"
DOMAIN = "contoso.example"
PASSWORD_METHOD = "28c10230-6103-485e-b985-444c60001490"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# The application as which a person, or MSAL, logs in with a user's password.
PUBLIC_CLIENT = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
CLOUDS = {
    "global": ("login.microsoftonline.com", "graph.microsoft.com", "management.azure.com"),
    "usgov": ("login.microsoftonline.us", "graph.microsoft.us", "management.usgovcloudapi.net"),
    "china": ("login.chinacloudapi.cn", "microsoftgraph.chinacloudapi.cn", "management.chinacloudapi.cn"),
}
ROLES = {
    "User Administrator": "fe930be7-5e62-47db-91af-98c3a49a38b1",
    "Privileged Authentication Administrator": "7be44c8a-adaf-4e2a-84d6-ab2649e08a13",
    "Global Administrator": "62e90394-69f5-4237-9190-012177145e10",
}
LEAST = "User-PasswordProfile.ReadWrite.All"
MAY_PATCH = {LEAST, "User.ReadWrite.All", "Directory.ReadWrite.All"}
MAY_RESET = {"UserAuthenticationMethod.ReadWrite.All", "UserAuthMethod-Password.ReadWrite.All"}
MAY_READ = {"User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"}
ON_USERS = {ROLES["User Administrator"], ROLES["Privileged Authentication Administrator"], ROLES["Global Administrator"]}
ON_ADMINISTRATORS = ON_USERS - {ROLES["User Administrator"]}
SYMBOLS = set("@#$%^&*-_!+=[]{}|\\:',.?/`~\"();<> ")


def log(line):
    print(line, flush=True)


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class User:
    def __init__(self, upn, password):
        self.id, self.upn, self.password = str(uuid.uuid4()), upn, password
        self.enabled, self.type, self.synced = True, "Member", None
        self.administrator = self.must_change = False
        self.changes = 0


class Application:
    def __init__(self, name, secret):
        self.name, self.oid = name, str(uuid.uuid4())
        self.secret, self.expired, self.disabled, self.certificate = secret, False, False, None
        self.permissions, self.roles = [LEAST, "User.Read.All"], ["User Administrator"]
        self.azure = []


class Directory:
    def __init__(self, port):
        self.lock, self.key = threading.RLock(), os.urandom(32)
        self.users, self.applications, self.operations = [], {}, {}
        self.faults, self.gate = {}, threading.Event()
        self.cloud, self.port, self.polls, self.lifetime = "global", port, 1, 3599
        self.used = set()

    def user(self, name):
        name = name.lower()
        return next((user for user in self.users if name in (user.id, user.upn.lower())), None)

    def audience(self, which):
        return "https://" + CLOUDS[self.cloud][which]

    # Tokens. Real ones are signed with a published key; whoever bears one does not look.

    def issue(self, application, audience):
        now = int(time.time())
        claims = {"aud": audience, "iss": f"https://sts.windows.net/{TENANT}/", "iat": now, "nbf": now,
                  "exp": now + self.lifetime, "appid": application.name, "idtyp": "app", "oid": application.oid,
                  "sub": application.oid, "tid": TENANT, "ver": "1.0",
                  "wids": [ROLES[role] for role in application.roles] + ["0997a1d0-0d1d-4acb-b408-d5ca73121e90"]}
        if application.permissions and audience == self.audience(1):
            claims["roles"] = application.permissions
        text = b64(b'{"typ":"JWT","alg":"RS256"}') + "." + b64(json.dumps(claims).encode())
        return text + "." + b64(hmac.digest(self.key, text.encode(), "sha256"))

    def bearer(self, header, which):
        """A token's claims, or nothing where it is none of ours, too old, or for somebody else."""
        kind, _, token = (header or "").partition(" ")
        text, _, signature = token.rpartition(".")
        if kind != "Bearer" or not hmac.compare_digest(b64(hmac.digest(self.key, text.encode(), "sha256")), signature):
            return None
        claims = json.loads(unb64(text.split(".")[1]))
        now = time.time()
        if claims["aud"] != self.audience(which) or claims["tid"] != TENANT or not claims["nbf"] <= now + 300:
            return None
        return claims if now < claims["exp"] else None

    # The token endpoint.

    def token(self, tenant, form, own):
        """Status and body."""
        if tenant.lower() not in (TENANT, DOMAIN):
            return aadsts(90002, "invalid_request", f"Tenant '{tenant}' not found. Check to make sure you have the "
                                                    "correct tenant ID and are signing into the correct cloud.")
        grant = form.get("grant_type")
        if grant == "client_credentials":
            return self.to_application(tenant, form, own)
        if grant == "password":
            return self.to_user(form)
        return aadsts(70003, "unsupported_grant_type", f"The app requested an unsupported grant type '{grant}'.")

    def to_application(self, tenant, form, own):
        name = form.get("client_id", "")
        application = self.applications.get(name.lower())
        if application is None:
            return aadsts(700016, "unauthorized_client", f"Application with identifier '{name}' was not found in the "
                                                         "directory 'Contoso'.", 400)
        if application.disabled:
            return aadsts(7000112, "unauthorized_client", f"Application '{name}'(Contoso) is disabled.", 400)
        refusal = self.proof(application, tenant, form, own)
        if refusal:
            return refusal
        audiences = {f"{self.audience(which)}/.default": self.audience(which) for which in (1, 2)}
        scope = form.get("scope", "")
        if not scope.endswith("/.default"):
            return aadsts(1002012, "invalid_scope", f"The provided value for scope {scope} is not valid. Client "
                                                    "credential flows must have a scope value with /.default suffixed "
                                                    "to the resource identifier (application ID URI).", 400)
        if scope not in audiences:
            return aadsts(500011, "invalid_resource", f"The resource principal named {scope[:-9]} was not found in the "
                                                      "tenant named Contoso.", 400)
        log(f"token for {name!r}")
        return 200, {"token_type": "Bearer", "expires_in": self.lifetime, "ext_expires_in": self.lifetime,
                     "access_token": self.issue(application, audiences[scope])}

    def proof(self, application, tenant, form, own):
        """Why an application is not believed; nothing when it is."""
        if "client_secret" in form:
            if application.secret is None or form["client_secret"] != application.secret:
                return aadsts(7000215, "invalid_client", "Invalid client secret provided. Ensure the secret being sent "
                              "in the request is the client secret value, not the client secret ID, for a secret added "
                              f"to app '{application.name}'.")
            if application.expired:
                return aadsts(7000222, "invalid_client", "The provided client secret keys for app "
                              f"'{application.name}' are expired. Visit the Azure portal to create new keys for your app.")
            return None
        if form.get("client_assertion_type") != ASSERTION or "client_assertion" not in form:
            return aadsts(7000216, "invalid_client", "'client_assertion', 'client_secret' or 'request' is required for "
                                                     "the 'client_credentials' grant type.")
        unsigned, _, signature = form["client_assertion"].rpartition(".")
        try:
            header, claims = (json.loads(unb64(part)) for part in unsigned.split("."))
            signature = unb64(signature)
        except ValueError:
            return aadsts(50027, "invalid_request", "JWT token is invalid or malformed.")
        wrong = lambda why: aadsts(700027, "invalid_client", f"Client assertion failed signature validation. {why}")
        certificate = application.certificate
        if certificate is None:
            return wrong("The key was not found.")
        # MSAL pads thumbprints, and RFC 7515 does not.
        named = {header[name].rstrip("=") for name in ("x5t", "x5t#S256") if name in header}
        if not named or not named <= {certificate.sha1, certificate.thumbprint}:
            return wrong("The key was not found.")
        if not certificate.verifies(header.get("alg"), unsigned.encode(), signature):
            return wrong("The signature is not valid.")
        endpoint = f"{tenant}/oauth2/v2.0/token"
        if claims.get("aud") not in (f"{self.audience(0)}/{endpoint}", f"{own}/{endpoint}"):
            return aadsts(700023, "invalid_client", "Client assertion audience claim does not match Realm issuer.")
        if not claims.get("iss") == claims.get("sub") == application.name:
            return aadsts(700021, "invalid_client", "Client assertion application identifier does not match "
                                                    "'client_id' parameter.")
        now = time.time()
        if not claims.get("nbf", now) - 300 <= now < claims.get("exp", 0) + 300:
            return aadsts(700024, "invalid_client", "Client assertion is not within its valid time range.")
        if claims.get("jti") in self.used | {None}:
            return aadsts(50027, "invalid_request", "JWT token is invalid or malformed.")
        self.used.add(claims["jti"])
        return None

    def to_user(self, form):
        if form.get("client_id") != PUBLIC_CLIENT:
            return aadsts(700016, "unauthorized_client", "Application was not found in the directory 'Contoso'.", 400)
        user = self.user(form.get("username", ""))
        wrong = aadsts(50126, "invalid_grant", "Error validating credentials due to invalid username or password.", 400)
        if user is None:
            return aadsts(50034, "invalid_grant", "The user account does not exist in the directory.", 400)
        if not hmac.compare_digest(user.password.encode(), form.get("password", "").encode()):
            return wrong
        if not user.enabled:
            return aadsts(50057, "invalid_grant", "The user account is disabled.", 400)
        if user.must_change:
            return aadsts(50055, "invalid_grant", "The password is expired.", 400)
        return 200, {"token_type": "Bearer", "scope": form.get("scope", ""), "expires_in": 3599, "ext_expires_in": 3599,
                     "access_token": "opaque"}

    # Graph.

    def may(self, claims, permissions, roles):
        return bool(permissions & set(claims.get("roles", []))) and bool(roles & set(claims["wids"]))

    def change(self, claims, name, password, must_change, permissions):
        user = self.user(name)
        # Who may nothing is not told who exists.
        if not permissions & set(claims.get("roles", [])):
            return denied()
        if user is None:
            return graph(404, "Request_ResourceNotFound", f"Resource '{name}' does not exist or one of its queried "
                                                          "reference-property objects are not present.")
        if not self.may(claims, permissions, ON_ADMINISTRATORS if user.administrator else ON_USERS):
            return denied()
        if not isinstance(password, str):
            return graph(400, "Request_BadRequest", "Invalid value specified for property 'password' of resource 'User'.")
        classes = sum(any(test(one) for one in password) for test in
                      (str.isupper, str.islower, str.isdigit, SYMBOLS.__contains__))
        local = user.upn.split("@")[0].lower()
        if not 8 <= len(password) <= 256 or classes < 3 or not password.isascii() or \
                any(not (one.isalnum() or one in SYMBOLS) for one in password) or \
                (len(local) > 2 and local in password.lower()):
            return graph(400, "Request_BadRequest", "The specified password does not comply with password complexity "
                                                    "requirements. Please provide a different password.")
        user.password, user.must_change = password, must_change
        user.changes += 1
        log(f"password of {user.upn!r} set by {claims['appid']!r}")
        return None


def aadsts(number, error, text, status=401):
    log(f"refused: AADSTS{number}")
    ids = [str(uuid.uuid4()), str(uuid.uuid4())]
    now = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
    return (400 if number == 90002 else status), {
        "error": error, "error_description": f"AADSTS{number}: {text} Trace ID: {ids[0]} Correlation ID: {ids[1]} "
                                             f"Timestamp: {now}",
        "error_codes": [number], "timestamp": now, "trace_id": ids[0], "correlation_id": ids[1],
        "error_uri": f"https://login.microsoftonline.com/error?code={number}"}


def graph(status, code, message):
    now, request = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()), str(uuid.uuid4())
    return status, {"error": {"code": code, "message": message,
                              "innerError": {"date": now, "request-id": request, "client-request-id": request}}}


def denied():
    return graph(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")


class Certificate:
    """The RSA key of a certificate, and what a token calls it."""

    def __init__(self, pem):
        der = ssl.PEM_cert_to_DER_cert(pem)
        self.sha1, self.thumbprint = b64(hashlib.sha1(der).digest()), b64(hashlib.sha256(der).digest())
        # SubjectPublicKeyInfo with the algorithm rsaEncryption (RFC 8017, appendix C).
        place = der.index(bytes.fromhex("300d06092a864886f70d0101010500")) + 15
        kind, bits, _ = read_der(der, place)
        assert kind == 3
        _, numbers, _ = read_der(bits, 1)
        _, modulus, rest = read_der(numbers, 0)
        _, exponent, _ = read_der(numbers, rest)
        self.n, self.e = int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big")
        self.size = (self.n.bit_length() + 7) // 8

    def verifies(self, algorithm, message, signature):
        """RFC 8017: RSASSA-PSS (PS256) and RSASSA-PKCS1-v1_5 (RS256), both with SHA-256."""
        if len(signature) != self.size:
            return False
        encoded = pow(int.from_bytes(signature, "big"), self.e, self.n).to_bytes(self.size, "big")
        digest = hashlib.sha256(message).digest()
        if algorithm == "RS256":
            info = bytes.fromhex("3031300d060960864801650304020105000420") + digest
            return encoded == b"\0\1" + b"\xff" * (self.size - len(info) - 3) + b"\0" + info
        if algorithm != "PS256" or encoded[-1] != 0xBC:
            return False
        masked, check = encoded[:-33], encoded[-33:-1]
        mask = b"".join(hashlib.sha256(check + n.to_bytes(4, "big")).digest() for n in range(len(masked) // 32 + 1))
        block = bytearray(a ^ b for a, b in zip(masked, mask))
        block[0] &= 0xFF >> (8 * self.size - self.n.bit_length() + 1)
        head, _, salt = bytes(block).partition(b"\1")
        return not any(head) and len(salt) == 32 and hashlib.sha256(bytes(8) + digest + salt).digest() == check


def read_der(data, place):
    """The kind of an element, what it holds, and where the next one begins."""
    kind, length, place = data[place], data[place + 1], place + 2
    if length & 0x80:
        count = length & 0x7F
        length, place = int.from_bytes(data[place:place + count], "big"), place + count
    return kind, data[place:place + length], place + length


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_version, sys_version = "Standin", ""

    def log_message(self, *_):
        pass

    def setup(self):
        self.request.settimeout(60)
        self.request.do_handshake()
        super().setup()

    @property
    def own(self):
        return "https://" + self.headers.get("Host", "")

    def answer(self, status, body=None, headers=()):
        text = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text if status != 204 else b"")

    def cut(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def faulty(self, place):
        """Does what a test ordered for this place. Returns whether that was all."""
        directory = self.server.directory
        with directory.lock:
            ordered = directory.faults.get(place) or []
            fault = ordered.pop(0) if ordered else None
        if not fault:
            return False
        what = fault["what"]
        log(f"fault at {place}: {what}")
        if what == "status":
            headers = [("Retry-After", str(fault["retry_after"]))] if "retry_after" in fault else []
            _, body = graph(0, fault.get("code", "TooManyRequests" if fault["status"] == 429 else "serviceNotAvailable"),
                            "Please try again later.")
            if fault.get("apply"):
                self.after = lambda: self.answer(fault["status"], body, headers)
                return False
            self.answer(fault["status"], body, headers)
        elif what == "redirect":
            self.answer(fault.get("status", 307), b"", [("Location", fault["to"])])
        elif what == "body":
            self.answer(fault.get("status", 200), fault["body"].encode())
        elif what == "huge":
            self.answer(200, b'{"access_token": "' + b"x" * fault["bytes"] + b'"}')
        elif what == "cut before":
            self.cut()
        elif what == "cut after":
            self.after = self.cut
            return False
        elif what == "hold":
            directory.gate.wait(60)
            return False
        return True

    def end(self, answer):
        """The answer to a change, unless a test ordered another one."""
        if self.after:
            self.after()
        else:
            self.answer(*answer)

    def read(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def handle_any(self):
        self.after = None
        body = self.read()
        path, _, query = self.path.partition("?")
        parts = [urllib.parse.unquote(part) for part in path.strip("/").split("/")]
        log(f"{self.command} {path}")
        if self.command == "POST" and parts[1:] == ["oauth2", "v2.0", "token"]:
            self.token(parts[0], body)
        elif self.command == "GET" and parts[1:] == ["v2.0", ".well-known", "openid-configuration"]:
            self.discovery(parts[0])
        elif self.command == "GET" and parts[:2] == ["common", "userrealm"]:
            self.answer(200, {"ver": "1.0", "account_type": "Managed", "domain_name": DOMAIN,
                              "cloud_instance_name": "microsoftonline.com", "cloud_audience_urn": "urn:federation:MicrosoftOnline"})
        elif parts[0] == "v1.0":
            self.graph(parts[1:], body)
        elif parts[0] == "subscriptions":
            self.azure(parts[1:], urllib.parse.parse_qs(query))
        else:
            self.answer(404, b"<html>not here</html>")

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any

    def discovery(self, tenant):
        base = f"{self.own}/{tenant}"
        self.answer(200, {"issuer": f"{base}/v2.0", "token_endpoint": f"{base}/oauth2/v2.0/token",
                          "authorization_endpoint": f"{base}/oauth2/v2.0/authorize"})

    def token(self, tenant, body):
        if self.faulty("token"):
            return
        if self.headers.get_content_type() != "application/x-www-form-urlencoded":
            self.answer(*aadsts(900144, "invalid_request", "The request body must contain the parameter 'grant_type'.", 400))
            return
        form = dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))
        with self.server.directory.lock:
            answer = self.server.directory.token(tenant, form, self.own)
        self.end(answer)

    def graph(self, parts, body):
        directory = self.server.directory
        # users/{id}, or users('{id}')
        if parts[0].startswith("users('") and parts[0].endswith("')"):
            parts = ["users", parts[0][7:-2].replace("''", "'")] + parts[1:]
        if parts[0] != "users" or len(parts) < 2 or not parts[1]:
            self.answer(*graph(400, "BadRequest", "Resource not found for the segment."))
            return
        if parts[1].startswith("$") and not self.path.startswith("/v1.0/users("):
            self.answer(*graph(400, "Request_BadRequest", "Bad Request"))
            return
        place = "change" if self.command in ("PATCH", "POST") else "operation" if "operations" in parts else "user"
        if self.faulty(place):
            return
        with directory.lock:
            claims = directory.bearer(self.headers.get("Authorization"), 1)
            if claims is None:
                answer = graph(401, "InvalidAuthenticationToken", "Access token validation failure. Invalid audience.")
            else:
                answer = self.ask_graph(directory, claims, parts[1], parts[2:], body)
        log(f"  {answer[0]}")
        self.end(answer)

    def ask_graph(self, directory, claims, name, rest, body):
        if self.command == "GET" and not rest:
            if not MAY_READ & set(claims.get("roles", [])):
                return denied()
            user = directory.user(name)
            if user is None:
                return graph(404, "Request_ResourceNotFound", f"Resource '{name}' does not exist or one of its queried "
                                                              "reference-property objects are not present.")
            return 200, {"@odata.context": f"{directory.audience(1)}/v1.0/$metadata#users/$entity", "id": user.id,
                         "userPrincipalName": user.upn, "accountEnabled": user.enabled, "userType": user.type,
                         "onPremisesSyncEnabled": user.synced}
        if self.command == "GET" and rest[:2] == ["authentication", "operations"]:
            return directory.operations[rest[2]].pop(0) if directory.operations.get(rest[2]) else \
                graph(404, "itemNotFound", "The operation does not exist.")
        if self.headers.get_content_type() != "application/json":
            return graph(400, "BadRequest", "Write requests (excluding DELETE) must contain the Content-Type header declaration.")
        try:
            told = json.loads(body)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            return graph(400, "BadRequest", "Unable to read JSON request payload.")
        if self.command == "PATCH" and not rest:
            profile = told.get("passwordProfile")
            known = {"password", "forceChangePasswordNextSignIn", "forceChangePasswordNextSignInWithMfa"}
            if set(told) != {"passwordProfile"} or not isinstance(profile, dict) or not set(profile) <= known:
                return graph(400, "Request_BadRequest", "Invalid property value or property not found.")
            must_change = profile.get("forceChangePasswordNextSignIn", True)
            return directory.change(claims, name, profile.get("password"), must_change, MAY_PATCH) or (204,)
        if self.command == "POST" and rest == ["authentication", "methods", PASSWORD_METHOD, "resetPassword"]:
            refusal = directory.change(claims, name, told.get("newPassword"), True, MAY_RESET)
            if refusal:
                return refusal
            number = str(uuid.uuid4())
            told = lambda status: (200, {"id": number, "status": status, "statusDetail": None})
            directory.operations[number] = [told("running")] * directory.polls + [told("succeeded")]
            where = f"{directory.audience(1)}/v1.0/users/{name}/authentication/operations/{number}?aadgdc=DUB02P"
            return 202, {}, [("Location", where)]
        return graph(405, "Request_BadRequest", "Specified HTTP method is not allowed for the request target.")

    def azure(self, parts, query):
        """Azure Resource Manager's pages of role assignments, and what a role is called."""
        directory = self.server.directory
        if self.faulty("azure"):
            return
        claims = directory.bearer(self.headers.get("Authorization"), 2)
        if claims is None:
            self.answer(401, {"error": {"code": "InvalidAuthenticationToken", "message": "The access token is invalid."}})
            return
        application = directory.applications[claims["appid"].lower()]
        subscription = f"/subscriptions/{parts[0]}"
        definition = f"{subscription}/providers/Microsoft.Authorization/roleDefinitions"
        if parts[1:3] != ["providers", "Microsoft.Authorization"] or "api-version" not in query:
            self.answer(404, {"error": {"code": "InvalidResourceType", "message": "The resource type could not be found."}})
        elif parts[3:] == ["roleAssignments"]:
            if query.get("$filter") != [f"principalId eq '{application.oid}'"]:
                self.answer(400, {"error": {"code": "UnsupportedQuery", "message": "The filter is not supported."}})
                return
            self.answer(200, {"value": [
                {"id": f"{subscription}/providers/Microsoft.Authorization/roleAssignments/{n}", "name": str(n),
                 "type": "Microsoft.Authorization/roleAssignments",
                 "properties": {"roleDefinitionId": f"{definition}/{n}", "principalId": application.oid,
                                "principalType": "ServicePrincipal", "scope": subscription}}
                for n, _ in enumerate(application.azure)]})
        elif parts[3] == "roleDefinitions" and len(parts) == 5:
            self.answer(200, {"id": f"{definition}/{parts[4]}", "name": parts[4], "type": "Microsoft.Authorization/roleDefinitions",
                              "properties": {"roleName": application.azure[int(parts[4])], "type": "BuiltInRole",
                                             "description": "", "assignableScopes": ["/"], "permissions": []}})
        else:
            self.answer(404, {"error": {"code": "NotFound", "message": "Not found."}})


def command(directory, asked):
    """One command of the lab."""
    do = asked["do"]
    if do == "user":
        directory.users.append(User(asked["login"], asked["password"]))
    elif do == "application":
        directory.applications[asked["name"].lower()] = Application(asked["name"], asked.get("secret"))
    elif do in ("set user", "set application"):
        who = directory.user(asked["name"]) if do == "set user" else directory.applications[asked["name"].lower()]
        for name, value in asked["to"].items():
            if not hasattr(who, name):
                raise KeyError(name)
            setattr(who, name, Certificate(value) if name == "certificate" and value else value)
    elif do == "get user":
        return getattr(directory.user(asked["name"]), asked["what"])
    elif do == "set":
        for name, value in asked["to"].items():
            setattr(directory, name, value)
    elif do == "fault":
        directory.faults.setdefault(asked["at"], []).extend([asked["fault"]] * asked.get("times", 1))
    elif do == "heal":
        directory.faults.clear()
        directory.gate.set()
        directory.gate = threading.Event()
    else:
        raise KeyError(do)
    return None


def control(directory, listener):
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw", encoding="utf-8") as lines:
            for line in lines:
                with directory.lock:
                    try:
                        told = {"value": command(directory, json.loads(line))}
                    except (KeyError, AttributeError, ValueError) as wrong:
                        told = {"error": repr(wrong)}
                lines.write(json.dumps(told) + "\n")
                lines.flush()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_):
        # A connection that ends in the middle is what many tests are about.
        pass

    def shutdown_request(self, request):
        try:
            super().shutdown_request(request)
        except OSError:
            pass


def main():
    address, port, certificate, key, path = sys.argv[1:6]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    directory = Directory(int(port))
    server = Server((address, int(port)), Handler)
    server.directory = directory
    # Hands are shaken by a connection's own thread, so that none waits for another one's.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    # There before anybody is told that we are ready.
    orders = socket.socket(socket.AF_UNIX)
    orders.bind(path)
    orders.listen()
    threading.Thread(target=control, args=(directory, orders), daemon=True).start()
    log("ready")
    server.serve_forever(0.1)


main()
