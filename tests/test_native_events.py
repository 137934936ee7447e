"""Events over HTTP: replayed from any point, each client its own, a slow one loses nothing that matters."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, MutableMapping
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any, NamedTuple

import pytest
from native import Api, studio

from bottega.api.access import Accounts
from bottega.api.native import events
from bottega.api.streamed import Streamed
from bottega.events import Changed, Note, Step

WITHIN = 180.0  # seconds that anything here may take, on a busy machine


class Heard(NamedTuple):
    """One event of a stream; `number` is None for one that is not kept."""

    number: int | None
    kind: str
    data: dict[str, Any]


class Stream:
    """A client of a stream that reads when it is asked to."""

    def __init__(self, connection: HTTPConnection, response: HTTPResponse) -> None:
        self.connection, self.response = connection, response
        self.comments: list[str] = []

    def __iter__(self) -> Iterator[Heard]:
        told: dict[str, str] = {}
        for raw in iter(self.response.readline, b""):
            line = raw.decode().rstrip("\n")
            if line.startswith(":"):
                self.comments.append(line)
            elif line:
                name, _, value = line.partition(": ")
                told[name] = value
            elif "data" in told:
                number = int(told["id"]) if "id" in told else None
                yield Heard(number, told["event"], json.loads(told["data"]))
                told = {}
            else:
                told = {}

    def until(self, wanted: Callable[[Heard], bool]) -> list[Heard]:
        """What comes, up to and with the first event that is wanted."""
        heard = []
        for each in self:
            heard.append(each)
            if wanted(each):
                break
        return heard


@contextmanager
def listening(api: Api, path: str = "/events", **headers: str) -> Iterator[Stream]:
    connection = HTTPConnection("127.0.0.1", api.served.port, timeout=WITHIN)
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET", f"/api{path}", headers={"Authorization": f"Bearer {key_of(api)}", **told})
    try:
        response = connection.getresponse()
        assert response.status == 200 and response.getheader("content-type", "").startswith("text/event-stream")
        yield Stream(connection, response)
    finally:
        connection.close()


def status_of(api: Api, path: str) -> int:
    """How a request is answered, whether or not the answer ever ends."""
    with closing(HTTPConnection("127.0.0.1", api.served.port, timeout=WITHIN)) as connection:
        connection.request("GET", f"/api{path}", headers={"Authorization": f"Bearer {key_of(api)}"})
        return connection.getresponse().status


def key_of(api: Api) -> str:
    return api.key or api.served.access.machine_key


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server that takes jobs and begins none, so that their events are those that a test causes."""
    with studio(tmp_path_factory.mktemp("home"), working=True) as opened:
        opened.post("/queue/pause")
        yield opened


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that does not end is not kept open by signs of life, so that the test fails."""
    monkeypatch.setattr(events, "HEARTBEAT", 10 * WITHIN)


def submitted(api: Api) -> str:
    told = api.post("/jobs", {"recipe": {"prompt": "a red house", "sampling": {"seed": 1, "steps": 1}}}, 202)
    return str(told["id"])


def test_a_stream_begins_now_or_where_it_was_left(api: Api) -> None:
    first = submitted(api)
    with listening(api) as stream:
        second = submitted(api)
        (queued,) = stream.until(lambda each: each.data["job"] == second)
        assert queued.kind == "queued" and queued.data["at"] > 0
    api.post(f"/jobs/{second}/pause")
    api.post(f"/jobs/{second}/cancel")
    with listening(api, Last_Event_ID=str(queued.number)) as stream:
        missed = stream.until(lambda each: each.kind == "cancelled")
    assert [each.kind for each in missed] == ["changed", "cancelled"]
    with listening(api, "/events?after=0") as stream:
        everything = stream.until(lambda each: each.number == missed[-1].number)
    numbers = [each.number for each in everything]
    assert numbers == sorted(set(numbers)) and {first, second} <= {each.data["job"] for each in everything}
    for at in range(len(everything) - 1):
        with listening(api, f"/events?after={numbers[at]}") as stream:
            assert stream.until(lambda each: each.number == numbers[-1]) == everything[at + 1 :]


def test_the_stream_of_a_job_has_all_of_it_and_ends_with_it(api: Api) -> None:
    id, other = submitted(api), submitted(api)
    with listening(api, f"/jobs/{id}/events") as stream:
        api.post(f"/jobs/{other}/cancel")
        api.post(f"/jobs/{id}/cancel")
        assert [each.kind for each in stream] == ["queued", "cancelled"]
    with listening(api, f"/jobs/{id}/events") as stream:
        assert [(each.kind, each.data["job"]) for each in stream] == [("queued", id), ("cancelled", id)]


def test_the_stream_of_a_job_goes_on_where_it_was_tried_again(api: Api) -> None:
    id = submitted(api)
    api.post(f"/jobs/{id}/cancel")
    api.post(f"/jobs/{id}/retry")
    with listening(api, f"/jobs/{id}/events") as stream:
        assert [each.kind for each in stream.until(lambda each: each.kind == "retried")][1:] == ["cancelled", "retried"]
        api.post(f"/jobs/{id}/cancel")
        assert [each.kind for each in stream] == ["cancelled"]
    with listening(api, f"/jobs/{id}/events") as stream:
        assert [each.kind for each in stream] == ["queued", "cancelled", "retried", "cancelled"]


@pytest.mark.parametrize("end", ["seen", "last"])
def test_who_has_seen_the_end_of_a_job_is_told_to_stay_away_until_it_is_tried_again(api: Api, end: str) -> None:
    id = submitted(api)
    api.post(f"/jobs/{id}/cancel")
    with listening(api, f"/jobs/{id}/events") as stream:
        number = list(stream)[-1].number if end == "last" else api.get(f"/jobs/{id}")["seen"]
    assert status_of(api, f"/jobs/{id}/events?after={number}") == 204
    api.post(f"/jobs/{id}/retry")
    with listening(api, f"/jobs/{id}/events?after={number}") as stream:
        api.post(f"/jobs/{id}/cancel")
        assert [each.kind for each in stream] == ["retried", "cancelled"]


def test_the_stream_of_a_job_that_is_over_ends_whatever_was_told_of_it_last(api: Api, quiet: None) -> None:
    """Older versions told of another priority after the end."""
    id = submitted(api)
    api.post(f"/jobs/{id}/cancel")
    assert api.refused("PATCH", f"/jobs/{id}", {"priority": -3})[0] == 409
    api.shop.queue.record(id, [Changed("prioritised")])
    with listening(api, f"/jobs/{id}/events") as stream:
        assert [each.kind for each in stream] == ["queued", "cancelled", "changed"]


def test_a_number_that_is_yet_to_come_is_as_good_as_the_newest(api: Api, quiet: None) -> None:
    id, beyond = submitted(api), api.shop.queue.last_event + 1_000_000
    with (
        listening(api, f"/jobs/{id}/events?after={beyond}") as stream,
        listening(api, f"/events?after={beyond}") as both,
    ):
        api.post(f"/jobs/{id}/cancel")
        assert [each.kind for each in stream] == ["cancelled"]
        assert both.until(lambda each: each.kind == "cancelled")[-1].data["job"] == id
    assert status_of(api, f"/jobs/{id}/events?after={beyond}") == 204


def test_what_befalls_the_whole_queue_is_told_to_everybody_also_afterwards(api: Api) -> None:
    user = api.user("somebody")
    with listening(user) as live:
        api.post("/queue/pause")
        id = submitted(user)
        heard = live.until(lambda each: each.data["job"] == id)
    assert [(each.kind, each.data["job"]) for each in heard] == [("changed", ""), ("queued", id)]
    with listening(user, f"/events?after={int(heard[0].number or 0) - 1}") as later:
        assert later.until(lambda each: each.data["job"] == id) == heard


def test_nobody_hears_of_what_others_do(api: Api) -> None:
    one, other = api.user("one"), api.user("other")
    with listening(one) as mine, listening(other) as theirs, listening(api) as all_of_it:
        hers, his = submitted(one), submitted(other)
        assert {each.data["job"] for each in mine.until(lambda each: each.data["job"] == hers)} == {hers}
        assert {each.data["job"] for each in theirs.until(lambda each: each.data["job"] == his)} == {his}
        seen = all_of_it.until(lambda each: each.data["job"] == his)
        assert {hers, his} <= {each.data["job"] for each in seen}
    assert other.refused("GET", f"/jobs/{hers}/events")[0] == 404
    with listening(other, "/events?after=0") as stream:
        assert {each.data["job"] for each in stream.until(lambda each: each.data["job"] == his)} == {"", his}


@pytest.mark.parametrize("how", ["removed", "another key", "removed elsewhere"])
def test_who_is_let_in_no_longer_hears_nothing_more(api: Api, how: str) -> None:
    leaver = api.user(f"leaver-{how.replace(' ', '-')}")
    name = leaver.get("/me")["name"]
    with listening(leaver) as stream:
        id = submitted(leaver)
        stream.until(lambda each: each.data["job"] == id)
        if how == "removed":
            assert api("DELETE", f"/users/{name}").status == 204
        elif how == "another key":
            api.post(f"/users/{name}/key", status=201)
        else:
            with closing(Accounts(api.shop.settings.accounts)) as accounts:
                accounts.remove(name)
        api.post(f"/jobs/{id}/cancel")
        assert list(stream) == []


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_admin_who_is_one_no_longer_hears_nothing_more_of_others(api: Api, elsewhere: bool) -> None:
    name = f"once-admin-{elsewhere}".lower()
    once = api.user(name, "read", "generate", "admin")
    with listening(once) as stream:
        id = submitted(api)
        stream.until(lambda each: each.data["job"] == id)
        if elsewhere:
            with closing(Accounts(api.shop.settings.accounts)) as accounts:
                accounts.change(name, ["read", "generate"])
        else:
            assert api("PATCH", f"/users/{name}", {"scopes": ["read", "generate"]}).status == 200
        api.post(f"/jobs/{id}/cancel")
        assert next(iter(stream), None) is None


@pytest.mark.parametrize(
    ("before", "by_now"),
    [(["read", "generate"], ["read", "generate", "manage"]), (["read", "generate", "admin"], ["admin"])],
)
def test_who_may_do_as_much_or_ask_for_less_goes_on_listening(api: Api, before: list[str], by_now: list[str]) -> None:
    riser = api.user(f"from-{before[-1]}", *before)
    with listening(riser) as stream:
        more = {"scopes": by_now, "quota": {"waiting": 1}}
        assert api("PATCH", f"/users/from-{before[-1]}", more).status == 200
        id = submitted(riser)
        assert stream.until(lambda each: each.data["job"] == id)[-1].kind == "queued"


def test_a_browser_that_signs_out_hears_nothing_more(api: Api) -> None:
    user = api.user("browser")
    cookie = f"{api.served.access.cookie}={api.served.accounts.open_session('browser')}"
    with closing(HTTPConnection("127.0.0.1", api.served.port, timeout=WITHIN)) as connection:
        connection.request("GET", "/api/events", headers={"Cookie": cookie})
        response = connection.getresponse()
        assert response.status == 200
        assert api.served("DELETE", "/api/session", cookie=cookie, origin=api.served.origin).status == 204
        submitted(user)
        assert b"event:" not in response.read()


def test_a_client_that_does_not_read_loses_steps_and_nothing_else(api: Api) -> None:
    id = submitted(api)
    queue = api.shop.queue
    words = "x" * 5000
    with listening(api) as slow, listening(api) as quick:
        for number in range(1500):  # some megabytes, which no socket holds
            queue.record(id, [Step("sample", number, 1500), Note(f"{number} {words}")])
        api.post(f"/jobs/{id}/cancel")
        heard = [each for each in slow.until(lambda each: each.kind == "cancelled") if each.data["job"] == id]
        also = [each for each in quick.until(lambda each: each.kind == "cancelled") if each.data["job"] == id]
    for each in (heard, also):
        notes = [int(told.data["text"].split()[0]) for told in each if told.kind == "note"]
        assert notes == list(range(1500)), "every note once and in order"
        numbers = [told.number for told in each]
        assert numbers == sorted(set(numbers))


def test_the_memory_for_a_client_is_bounded() -> None:
    """However much happens while nobody takes it; previews go first, then steps."""
    from bottega.jobs.foreman import Preview
    from bottega.jobs.job import Numbered

    client = events.Client(None, None)
    client.behind = False
    for number in range(events.ROOM):
        client.put(Numbered(number, "job", "me", 0.0, {"event": "note" if number % 2 else "step"}))
    client.put(Preview("job", "me", b"png"))
    client.put(Preview("job", "me", b"newer"))
    client.put(Numbered(9999, "job", "me", 0.0, {"event": "done"}))
    waiting = client.take()
    assert len(waiting) <= events.ROOM and not client.behind
    kinds = [each.event["event"] if isinstance(each, Numbered) else "preview" for each in waiting]
    assert kinds.count("note") == events.ROOM // 2 and kinds[-1] == "done"
    for number in range(10 * events.ROOM):
        client.put(Numbered(number, "job", "me", 0.0, {"event": "note"}))
    assert client.behind and len(client.take()) <= events.ROOM


def test_fifty_clients_take_no_thread_each_and_are_forgotten_when_they_go(api: Api) -> None:
    streams = [listening(api) for _ in range(60)]
    before = threading.active_count()
    opened = [stream.__enter__() for stream in streams]
    eventually(lambda: len(api.app.state.hub._clients) >= 60)
    id = submitted(api)
    for stream in opened:
        assert stream.until(lambda each: each.data["job"] == id)[-1].kind == "queued"
    assert threading.active_count() - before < 12
    for stream in streams:
        stream.__exit__(None, None, None)
    eventually(lambda: not api.app.state.hub._clients)


def test_a_stream_is_over_as_soon_as_its_client_is_gone() -> None:
    """And not when the garbage collector comes by: what it holds is given back."""
    told = []

    async def pieces() -> AsyncGenerator[str]:
        try:
            while True:
                yield "piece"
        finally:
            told.append("closed")

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            raise ConnectionError("gone")

    async def receive() -> MutableMapping[str, Any]:
        return await asyncio.Future()

    async def answered() -> None:
        with pytest.raises(ConnectionError) as kept:
            await Streamed(pieces())({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
        assert told == ["closed"] and kept.value.__traceback__  # which holds on to all that was going on

    asyncio.run(answered())


def test_a_quiet_stream_gives_signs_of_life(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT", 0.05)
    with listening(api) as stream:
        line = b""
        while not line.startswith(b":"):
            line = stream.response.readline()


def test_the_first_byte_comes_at_once(api: Api) -> None:
    """A client must know that it is connected before anything happens."""
    with listening(api) as stream:
        assert stream.response.readline().startswith(b"retry:")


@pytest.mark.parametrize("query", ["after=-1", "after=x", "after=99999999999999999999"])
def test_a_number_that_is_none_is_refused(api: Api, query: str) -> None:
    assert api.refused("GET", f"/events?{query}")[0] == 422


def test_a_made_up_last_number_is_as_good_as_none(api: Api) -> None:
    for made_up in ("nonsense", "-1", "1" * 40):
        with listening(api, Last_Event_ID=made_up) as stream:
            id = submitted(api)
            assert [each.kind for each in stream.until(lambda each: each.kind == "queued")] == ["queued"]
            assert id in api.get("/jobs")["items"][0]["id"]
