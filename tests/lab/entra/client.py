"""Asks Entra ID and Graph through Microsoft's own library for Python (MSAL),
and requests. One JSON object a line comes in, one goes out:

  {"login", "password"}                        a user's log-in
  {"application", "secret"}                    an application's, with a secret
  {"application", "key", "certificate"}        an application's, with a certificate, both PEM
  … with {"method", "path", "body"}            then this request to Graph

Answers: {"token": true}, {"number", "text"} of a refusal, or {"status", "body"}.

Arguments: the service's address, the tenant, the authority's certificate.
"""

import json
import sys
import urllib.parse

import msal
import requests

service, tenant, authority = sys.argv[1:4]
SCOPES = ["https://graph.microsoft.com/.default"]
PUBLIC_CLIENT = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"


class Session(requests.Session):
    """Leads to the service's port where MSAL, which knows none but 443, forgets it."""

    def request(self, method, url, **more):
        parts = urllib.parse.urlsplit(url)
        more.update(verify=authority, timeout=20)
        return super().request(method, parts._replace(netloc=urllib.parse.urlsplit(service).netloc).geturl(), **more)


def log_in(asked, http):
    about = {"authority": f"{service}/{tenant}", "instance_discovery": False, "http_client": http}
    if "login" in asked:
        public = msal.PublicClientApplication(PUBLIC_CLIENT, **about)
        return public.acquire_token_by_username_password(asked["login"], asked["password"], SCOPES)
    proof = asked.get("secret")
    if proof is None:
        proof = {"private_key": asked["key"], "public_certificate": asked["certificate"]}
    confidential = msal.ConfidentialClientApplication(asked["application"], client_credential=proof, **about)
    return confidential.acquire_token_for_client(SCOPES)


def answer(asked):
    with Session() as http:
        token = log_in(asked, http)
        if "access_token" not in token:
            return {"number": (token.get("error_codes") or [0])[0], "text": str(token.get("error_description"))}
        if "method" not in asked:
            return {"token": True}
        bearer = {"Authorization": f"Bearer {token['access_token']}"}
        got = http.request(asked["method"], service + asked["path"], json=asked.get("body"), headers=bearer)
        return {"status": got.status_code, "body": got.json() if got.content else None}


for line in sys.stdin:
    try:
        told = answer(json.loads(line))
    except Exception as wrong:
        told = {"number": -1, "text": repr(wrong)}
    print(json.dumps(told), flush=True)
