"""Starts OpenBao with raft storage in a temporary directory, gives it static
roles of a PostgreSQL server, and lets it rotate them. What one call does: a new
password, an ALTER ROLE by the administrator's open connection, a write to its
storage. It neither logs in as the account nor proves anything. A question on
standard input, calls a second by the number of threads on standard output."""

import http.client
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time

question = json.load(sys.stdin)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Client:
    """One kept-alive connection."""

    def __init__(self, port, token=None):
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.headers = {"X-Vault-Token": token} if token else {}

    def call(self, method, path, body=None):
        self.http.request(method, "/v1/" + path, json.dumps(body) if body is not None else None, self.headers)
        answer = self.http.getresponse()
        text = answer.read()
        if answer.status >= 300:
            sys.exit(f"{path}: {answer.status} {text[:300]!r}")
        return json.loads(text) if text else {}


def wait_for(port):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit("bao did not start")


def rate(port, token, roles, threads):
    todo, lock = list(roles), threading.Lock()

    def work():
        client = Client(port, token)
        while True:
            with lock:
                if not todo:
                    return
                role = todo.pop()
            client.call("POST", f"database/rotate-role/{role}", {})

    workers = [threading.Thread(target=work) for _ in range(threads)]
    begun = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return len(roles) / (time.monotonic() - begun)


with tempfile.TemporaryDirectory(dir=".") as place:
    port, cluster = free_port(), free_port()
    config = f"{place}/bao.hcl"
    with open(config, "w") as file:
        file.write(
            f'storage "raft" {{ path = "{place}" node_id = "one" }}\n'
            f'listener "tcp" {{ address = "127.0.0.1:{port}" tls_disable = true }}\n'
            f'api_addr = "http://127.0.0.1:{port}"\ncluster_addr = "http://127.0.0.1:{cluster}"\n'
        )
    with open(f"{place}/log", "w") as log:
        bao = subprocess.Popen([question["program"], "server", "-config", config], stdout=log, stderr=log)
    try:
        wait_for(port)
        first = Client(port)
        keys = first.call("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        first.call("PUT", "sys/unseal", {"key": keys["keys"][0]})
        token = keys["root_token"]
        client = Client(port, token)
        for _ in range(200):
            if not client.call("GET", "sys/leader").get("is_self"):
                time.sleep(0.05)
        client.call("POST", "sys/mounts/database", {"type": "database"})
        url = (
            f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{question['port']}/postgres"
            f"?sslmode=verify-full&sslrootcert={question['ca']}"
        )
        client.call(
            "POST",
            "database/config/lab",
            {
                "plugin_name": "postgresql-database-plugin",
                "allowed_roles": "*",
                "connection_url": url,
                "username": question["login"],
                "password": question["password"],
                "password_authentication": "scram-sha-256",
            },
        )
        for role in question["roles"]:
            client.call(
                "POST", f"database/static-roles/{role}", {"db_name": "lab", "username": role, "rotation_period": "720h"}
            )
        print(json.dumps({str(jobs): rate(port, token, question["roles"], jobs) for jobs in question["jobs"]}))
    finally:
        bao.terminate()
        bao.wait()
