"""What the first visitor would wait for, done before they come: the server asks itself for what the page asks for."""

from __future__ import annotations

import json
import logging
import threading
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

LOG = logging.getLogger("bottega.server")
WITHIN = 30.0  # seconds for one answer
# The shell, the first requests of the room Make, and those of the gallery.
MODELS, OUTPUTS = "/api/models?runs=true&limit=50", "/api/outputs?limit=60"
FIRST = ("/", "/static/all.js", "/api/me", "/api/forms", MODELS, OUTPUTS, "/api/outputs/ratios")


def warm_up(url: str, key: str) -> threading.Thread:
    """Ask the server at `url` once, with its machine's `key`, in a thread that nothing waits for.

    The first answers load modules, templates and indexes, which takes a few hundred milliseconds in all.
    """
    thread = threading.Thread(target=_ask_all, args=(url, key), name="warm-up", daemon=True)
    thread.start()
    return thread


def _ask_all(url: str, key: str) -> None:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=WITHIN)
    try:
        answers = {path: _ask(connection, key, path) for path in FIRST}
        for model in json.loads(answers[MODELS])["items"][:1]:
            _ask(connection, key, f"/api/models/{model['id']}/form")
            _ask(connection, key, f"/api/models?kind=vae&limit=200&fits={model['id']}")
        for output in json.loads(answers[OUTPUTS])["items"][:1]:
            _ask(connection, key, f"/api/outputs/{output['id']}/thumbnail?size=256")
    except (OSError, HTTPException, ValueError, LookupError) as error:
        # It may be stopping; else the first visit is slower, and nothing worse comes of it.
        LOG.info("the server was not warmed up: %s", error)
    finally:
        connection.close()


def _ask(connection: HTTPConnection, key: str, path: str) -> bytes:
    connection.request("GET", path, headers={"Authorization": f"Bearer {key}", "User-Agent": "bottega warm-up"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise ValueError(f"{path} was answered with {answer.status}")
    return content
