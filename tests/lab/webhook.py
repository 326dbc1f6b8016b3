"""A receiver of webhooks: checks each by the library of "Standard Webhooks", and answers as it was told.

Not a service of anybody's; whether what it got is signed right is said by that library. Arguments: port, certificate,
key, file with the signing secret, directory. There it reads `answers` (one a line: a status, or `to URL`; the last one
stays) and appends to `heard` one JSON object a request.
"""

import http.server
import json
import pathlib
import ssl
import sys

from standardwebhooks import Webhook, WebhookVerificationError

port, certificate, key, secret, place = sys.argv[1:]
place = pathlib.Path(place)


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            Webhook(pathlib.Path(secret).read_text().strip()).verify(body, dict(self.headers.items()))
            proven = True
        except WebhookVerificationError:
            proven = False
        with (place / "heard").open("a") as heard:
            told = {"path": self.path, "id": self.headers["webhook-id"], "proven": proven, "body": body.decode()}
            heard.write(json.dumps(told) + "\n")
        answers = (place / "answers").read_text().splitlines()
        if len(answers) > 1:
            (place / "answers").write_text("\n".join(answers[1:]))
        status, _, target = answers[0].partition(" ")
        self.send_response(302 if status == "to" else int(status))
        if target:
            self.send_header("location", target)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Receiver)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
