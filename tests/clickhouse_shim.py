"""ClickHouse's HTTP interface, as much of it as weir-central and the labs speak, before the real engine as a library.

    clickhouse_shim.py PORT FOLDER

Statements run one after another. `POST /faults?rate=R&seed=S&of=TEXT` makes that part of the requests with this text in their statement
fail from then on, before or after it was done, with an error or without an answer; with `after=1` always after. `rate=0` ends that.
Kafka tables cannot be made: the library breaks its folder when one is.
"""

import os
import random
import re
import socket
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from chdb import session

INSERT = re.compile(r"(?is)\s*(insert\s+into\s+\S+)\s+format\s+(\w+)\s*$")
CODE = re.compile(r"Code: (\d+)\.")
# What is no setting of a statement.
OTHER = {"query", "database", "wait_end_of_query"}

lock = threading.Lock()
KINDS = ["refuse", "drop", "done and refuse", "done and drop"]


class Faults:
    def __init__(self, parameters):
        self.rate = float(parameters.get("rate", 0))
        self.random = random.Random(int(parameters.get("seed", 0)))
        self.of = parameters.get("of", "")
        self.kinds = KINDS[2:] if parameters.get("after") else KINDS

    def next(self, statement):
        if self.of in statement and self.random.random() < self.rate:
            return self.random.choice(self.kinds)
        return ""


def run(engine, parameters, body):
    statement = parameters.get("query")
    settings = {name: value for name, value in parameters.items() if name not in OTHER}
    for name in [name for name in settings if name.startswith("param_")]:
        engine.query(f"SET {name} = '{settings.pop(name)}'")
    with_settings = " SETTINGS " + ", ".join(f"{name} = '{value}'" for name, value in settings.items()) if settings else ""
    if statement is None:
        return engine.query(body.decode() + with_settings, "TSV").bytes()
    insert = INSERT.match(statement)
    if not insert:
        return engine.query(statement + with_settings, "TSV").bytes()
    with tempfile.NamedTemporaryFile() as rows:
        rows.write(body)
        rows.flush()
        return engine.query(f"{insert[1]} FROM INFILE '{rows.name}'{with_settings} FORMAT {insert[2]}", "TSV").bytes()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        address = urlsplit(self.path)
        parameters = dict(parse_qsl(address.query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if address.path == "/faults":
            self.server.faults = Faults(parameters)
            return self.answer(200, b"")
        with lock:
            fault = self.server.faults.next(parameters.get("query") or body.decode())
            status, answer, code = 200, b"", None
            if not fault or fault.startswith("done"):
                try:
                    answer = run(self.server.engine, parameters, body)
                except Exception as error:  # whatever the engine says
                    answer = str(error).encode()
                    found = CODE.search(str(error))
                    status, code = 500, found[1] if found else "1"
        if fault.endswith("drop"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None
        if fault:
            return self.answer(500, b"Code: 241. a fault that was asked for", "241")
        return self.answer(status, answer, code)

    def answer(self, status, body, code=None):
        self.send_response(status)
        if code:
            self.send_header("X-ClickHouse-Exception-Code", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.faults = Faults({})
    server.engine = session.Session(sys.argv[2])
    server.serve_forever()


main()
