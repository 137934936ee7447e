"""The HTTPS client connects to public addresses only, shows a key to nobody but its site, and unpacks nothing."""

from __future__ import annotations

import gzip
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from site_server import Request, Served, Site, chunked, raw, running

from bottega.errors import FileError, InvalidSetting
from bottega.library.sources import client as module
from bottega.library.sources import tokens
from bottega.library.sources.addresses import is_public
from bottega.library.sources.client import Client, client_for, origin_of, parse, shown_url
from bottega.library.sources.errors import HttpError, NetworkError, RefusedAddress, Unreachable
from bottega.library.sources.tokens import Token, site
from bottega.settings import Settings, read_settings

SECRET = "k3y-0123456789abcdef"


@pytest.fixture
def server() -> Iterator[Site]:
    with running() as running_site:
        yield running_site


@pytest.fixture
def other() -> Iterator[Site]:
    with running() as running_site:
        yield running_site


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def client(waits: list[float]) -> Client:
    return Client(stall=30, allow_loopback=True, pause=waits.append)


@pytest.fixture
def impatient(waits: list[float]) -> Client:
    """A client for servers that never come to an end: it may give up on a busy machine's good ones, too."""
    return Client(stall=0.3, allow_loopback=True, pause=waits.append)


def site_at(url: str, home: Path = Path("home")) -> tokens.Site:
    return tokens.Site("civitai", url, Token(SECRET, origin_of(parse(url))), home / "tokens.toml")


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("8.8.8.8", True),
        ("2606:4700::6810:84e5", True),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::5db8:d822", True),  # NAT64 of 93.184.216.34
        *((text, False) for text in (
            "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.9.9.9", "169.254.169.254",
            "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
            "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
            "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "fe80::1", "fc00::1",
            "fd00:ec2::254", "ff02::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1",
            "2002:7f00:1::", "2002:c0a8:101::1",
            "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "3fff::1", "100::1", "5f00::1",
        )),
    ],
)  # fmt: skip
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) == public


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/", "https://127.0.0.1:{port}/", "https://[::1]:{port}/", "https://localhost:{port}/",
        "https://[::ffff:127.0.0.1]:{port}/", "https://2130706433:{port}/", "https://0x7f.1:{port}/",
        "https://127.1:{port}/", "https://0:{port}/", "https://169.254.169.254/latest/meta-data/",
        "https://public.test:{port}/", "http://models.test:{port}/", "http://models.test/",
        "https://user:hunter2@models.test/", "https://models.test\\@127.0.0.1:{port}/", "https://models.test /x",
        "https://models.test/\r\nX: y", "file:///etc/passwd", "ftp://models.test/", "data:text/plain,x",
        "//models.test/", "https://", "https:///x", "https://[fe80::1%25eth0]/", "gopher://127.0.0.1:{port}/",
    ],
)  # fmt: skip
def test_nothing_else_is_connected_to(url: str) -> None:
    def resolve(host: str, port: int) -> list[str]:
        known = {"public.test": ["93.184.216.34", "127.0.0.1"], "models.test": ["93.184.216.34"]}
        return known.get(host) or sorted({str(found[4][0]) for found in socket.getaddrinfo(host, port)})

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        url = url.replace("{port}", str(listener.getsockname()[1]))
        with pytest.raises(RefusedAddress) as refused, Client(resolve=resolve, pause=lambda seconds: None).get(url):
            pass
        assert refused.value.exit_code == 2 and "hunter2" not in str(refused.value)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_name_is_looked_up_once_for_each_hop(server: Site) -> None:
    """A name that leads elsewhere a moment later is of no use to anybody: the checked address is the connected one."""
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    server.files["/x"] = Served(b"abc")
    client = Client(allow_loopback=True, resolve=resolve)
    with client.get(f"http://models.test:{server.port}/x") as response:
        assert response.read(10) == b"abc"
    assert asked == ["models.test"]
    assert server.header("Host") == [f"models.test:{server.port}"]
    with pytest.raises(RefusedAddress, match=r"models.test, which is 10.0.0.1 here, is no public address"):  # noqa: SIM117
        with client.get(f"http://models.test:{server.port}/x"):
            pass


def test_loopback_without_encryption_is_for_loopback_only() -> None:
    client = Client(allow_loopback=True, resolve=lambda host, port: ["93.184.216.34"])
    with pytest.raises(RefusedAddress, match="only https"), client.get("http://models.test/"):
        pass


def test_addresses_are_shown_without_what_is_secret() -> None:
    assert shown_url("https://me:word@x.test/a?token=1#b") == "https://x.test/a"
    assert shown_url("https://x.test/\x1b[31m").isprintable()


# --- certificates ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for models.test that nobody but its maker vouches for, and its key."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=models.test", "-addext", "subjectAltName=DNS:models.test"]
    subprocess.run([*command, "-keyout", key, "-out", cert, *names], check=True, capture_output=True)
    return cert, key


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with running(context) as running_site:
        running_site.files["/x"] = Served(b"abc")
        yield running_site


def names_lead_here(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def test_the_certificate_must_be_for_the_name(
    secure: Site, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    trusting = Client(allow_loopback=True, resolve=names_lead_here)
    with trusting.get(f"https://models.test:{secure.port}/x") as response:
        assert response.read(10) == b"abc"
    for host in ("other.test", "127.0.0.1"):
        with (
            pytest.raises(NetworkError, match="certificate is not valid"),
            trusting.get(f"https://{host}:{secure.port}/x"),
        ):
            pass
    monkeypatch.delenv("SSL_CERT_FILE")
    stranger = Client(allow_loopback=True, resolve=names_lead_here)
    with pytest.raises(NetworkError, match="certificate"), stranger.get(f"https://models.test:{secure.port}/x"):
        pass
    assert secure.paths() == ["/x"]


def test_encryption_is_not_given_up(
    secure: Site, server: Site, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect from https to http would be followed for loopback in a test, and for nothing else."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    secure.answers["/away"] = lambda request: request.reply(302, Location="http://models.test/x")
    public = Client(allow_loopback=False, resolve=names_lead_here)
    with pytest.raises(RefusedAddress), public.get(f"http://127.0.0.1:{server.port}/x"):
        pass
    client = Client(
        allow_loopback=True, resolve=lambda host, port: ["127.0.0.1"] if port == secure.port else ["93.184.216.34"]
    )
    with pytest.raises(RefusedAddress, match="only https"), client.get(f"https://models.test:{secure.port}/away"):
        pass


# --- keys ------------------------------------------------------------------------------------------------------------


def authorizations(server: Site) -> list[str | None]:
    return server.header("Authorization")


def test_a_key_goes_to_its_site_and_no_further(server: Site, other: Site, client: Client) -> None:
    for each in (server, other):
        each.files["/x"] = Served(b"abc")
    server.answers["/here"] = lambda request: request.reply(302, Location="/x")
    server.answers["/away"] = lambda request: request.reply(302, Location=f"{other.url}/x")
    server.answers["/back"] = lambda request: request.reply(307, Location=f"{other.url}/return")
    other.answers["/return"] = lambda request: request.reply(301, Location=f"{server.url}/x")
    there = site_at(server.url)
    for path in ("/x", "/here", "/away", "/back"):
        with client.get(f"{server.url}{path}", site=there) as response:
            assert response.read(10) == b"abc"
    bearer = f"Bearer {SECRET}"
    assert list(zip(server.paths(), authorizations(server), strict=True)) == [
        ("/x", bearer),
        ("/here", bearer),
        ("/x", bearer),
        ("/away", bearer),
        ("/back", bearer),
        ("/x", None),  # it has been elsewhere meanwhile
    ]
    with client.get(f"{other.url}/x", site=there) as response:
        assert response.status == 200
    assert set(authorizations(other)) == {None}


def test_a_name_that_only_looks_like_the_site_gets_no_key(server: Site) -> None:
    server.files["/x"] = Served(b"abc")
    client = Client(allow_loopback=True, resolve=names_lead_here)
    there = site_at(f"http://site.test:{server.port}")
    for host in ("site.test.evil.test", "sub.site.test", "evilsite.test", "127.0.0.1"):
        with client.get(f"http://{host}:{server.port}/x", site=there):
            pass
    assert set(authorizations(server)) == {None}
    with client.get(f"http://SITE.test:{server.port}/x", site=there):
        pass
    assert authorizations(server)[-1] == f"Bearer {SECRET}"


def test_what_a_site_repeats_of_a_key_is_not_shown(server: Site, client: Client) -> None:
    told = f'{{"message": "the key {SECRET} is unknown"}}'.encode()
    server.answers["/x"] = lambda request: request.reply(401, told, X_Error_Message="")
    with pytest.raises(HttpError, match=r"the key \[key\] is unknown") as error:
        client.json(f"{server.url}/x", site_at(server.url))
    assert SECRET not in repr(error.value) + repr(site_at(server.url))


def settings_at(home: Path, text: str | None = None, mode: int = 0o600) -> Settings:
    home.mkdir(exist_ok=True)
    if text is not None:
        (home / "tokens.toml").write_text(text)
        (home / "tokens.toml").chmod(mode)
    return read_settings({"BOTTEGA_HOME": str(home)})


def key_of(name: str, settings: Settings, **environment: str) -> str | None:
    token = site(name, settings, environment).token
    return token.header() if token else None


def test_where_keys_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_at(tmp_path / "home")
    assert key_of("civitai", settings) is None
    assert key_of("civitai", settings, CIVITAI_TOKEN="a", HF_TOKEN="b") == "Bearer a"
    assert key_of("huggingface", settings, CIVITAI_TOKEN="a", HF_TOKEN="b") == "Bearer b"
    settings = settings_at(tmp_path / "home", 'civitai = "c"')
    assert key_of("civitai", settings, CIVITAI_TOKEN="a") == "Bearer c"

    class Keyring:
        @staticmethod
        def get_password(service: str, name: str) -> str | None:
            return {("bottega", "civitai"): "d"}.get((service, name))

    monkeypatch.setitem(__import__("sys").modules, "keyring", Keyring)
    assert key_of("civitai", settings) == "Bearer d"
    assert key_of("huggingface", settings) is None


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o777])
def test_a_file_of_keys_that_others_can_read_is_refused(mode: int, tmp_path: Path) -> None:
    settings = settings_at(tmp_path / "home", f'civitai = "{SECRET}"', mode)
    with pytest.raises(FileError, match="chmod 600") as refused:
        site("civitai", settings, {})
    assert SECRET not in str(refused.value)


def test_a_broken_file_of_keys_is_refused_without_quoting_it(tmp_path: Path) -> None:
    for text in (f"civitai = {SECRET}", f'civitai = "{SECRET}', f'civitai = ["{SECRET}"]'):
        with pytest.raises(FileError) as refused:
            site("civitai", settings_at(tmp_path / "home", text), {})
        assert SECRET not in str(refused.value)
    with pytest.raises(InvalidSetting):
        site("civitai", settings_at(tmp_path / "home2"), {"CIVITAI_TOKEN": f"{SECRET}\r\nX: y"})


# --- answers ---------------------------------------------------------------------------------------------------------


def test_json(server: Site, client: Client, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    there = site_at(server.url)
    server.json["/good"] = {"a": [1, None]}
    assert client.json(f"{server.url}/good", there) == {"a": [1, None]}
    for body in (b"", b"[1]", b"<html>", b'{"a": ', b"[" * 100_000, b"\xff\xfe", b'{"a": ' * 500 + b"1" + b"}" * 500):
        server.answers["/bad"] = lambda request, body=body: request.reply(200, body)  # type: ignore[misc]
        with pytest.raises(NetworkError, match="no JSON object"):
            client.json(f"{server.url}/bad", there)
    server.answers["/packed"] = lambda request: request.reply(200, gzip.compress(b"{}"), Content_Encoding="gzip")
    with pytest.raises(NetworkError, match="compressed"):
        client.json(f"{server.url}/packed", there)
    monkeypatch.setattr(module, "MAX_JSON", 1000)
    server.answers["/large"] = lambda request: chunked(bytes(5000))(request, Served(b""))
    with pytest.raises(NetworkError, match="larger than"):
        client.json(f"{server.url}/large", there)
    assert waits == []
    cut = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}")
    server.files["/cut"] = Served(b"{}", faults=[cut, cut])
    assert client.json(f"{server.url}/cut", there) == {}
    assert waits == [1, 2]


def test_headers_that_never_end(server: Site, impatient: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(request: Request) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(100):
            request.wfile.write(b"y")
            threading.Event().wait(0.02)

    server.answers["/drip"] = drip
    monkeypatch.setattr(module, "HEADERS_WITHIN", 0.2)
    with pytest.raises(Unreachable, match="no answer in time"), impatient.get(f"{server.url}/drip"):
        pass


def test_no_more_addresses_are_tried_than_there_is_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEADERS_WITHIN", 0.2)
    monkeypatch.setattr(module, "CONNECT_WITHIN", 0.15)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        client = Client(allow_loopback=True, resolve=lambda host, port: ["127.0.0.1"] * 40)
        url = f"https://models.test:{silent.getsockname()[1]}/"
        with pytest.raises(Unreachable, match="no answer in time"), client.get(url):
            pass
        silent.settimeout(0.1)
        tried = 0
        with pytest.raises(TimeoutError):
            while True:
                silent.accept()[0].close()
                tried += 1
    assert 1 <= tried <= 3


def test_a_small_body_that_never_ends(server: Site, impatient: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(request: Request) -> None:
        request.begin(200, {})
        for _ in range(100):
            request.wfile.write(b" ")
            threading.Event().wait(0.02)

    server.answers["/drip"] = drip
    monkeypatch.setattr(module, "HEADERS_WITHIN", 0.2)
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    with pytest.raises(Unreachable, match="no answer in time"):
        impatient.json(f"{server.url}/drip", site_at(server.url))


def test_who_asks_is_said(server: Site, client: Client) -> None:
    server.files["/x"] = Served(b"abc")
    with client.get(f"{server.url}/x"):
        pass
    ((_, headers),) = server.requests
    assert headers["User-Agent"].startswith("bottega/") and headers["Accept-Encoding"] == "identity"
    assert "Cookie" not in headers and "Referer" not in headers


# --- proxies ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[bytes]]]:
    """An HTTP proxy that connects whatever it is asked for to the port that is named; and what it was asked."""
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            with near:
                request = near.recv(4096)
                asked.append(request)
                port = int(request.split(b" ")[1].rpartition(b":")[2])
                far = socket.create_connection(("127.0.0.1", port))
                near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=pump, args=(far, near))
                back.start()
                pump(near, far)
                back.join()
                far.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(4096):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


def test_a_proxy_is_used_only_if_the_settings_say_so(
    secure: Site,
    certificate: tuple[Path, Path],
    proxy: tuple[str, list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    address, asked = proxy
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    url = f"https://models.test:{secure.port}/x"
    environment = {"https_proxy": address.replace("//", "//me:word@")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def fetch(client: Client) -> bytes:
        with client.get(url, site=site_at(f"https://models.test:{secure.port}")) as response:
            return response.read(10)

    assert fetch(Client(allow_loopback=True, resolve=names_lead_here)) == b"abc"
    assert asked == []

    def nobody(host: str, port: int) -> list[str]:
        raise AssertionError("the proxy looks names up")

    assert fetch(Client(proxy=address, resolve=nobody)) == b"abc"
    assert fetch(Client(proxy="environment", resolve=nobody)) == b"abc"
    assert [request.split(b"\r\n")[0] for request in asked] == [
        f"CONNECT models.test:{secure.port} HTTP/1.0".encode()
    ] * 2
    assert b"proxy-authorization: basic" in asked[1].lower() and SECRET.encode() not in b"".join(asked)
    with pytest.raises(RefusedAddress), Client(proxy=address).get(f"https://127.0.0.1:{secure.port}/x"):
        pass
    monkeypatch.setenv("no_proxy", "models.test")
    assert fetch(Client(proxy="environment", allow_loopback=True, resolve=names_lead_here)) == b"abc"
    assert len(asked) == 2
    assert isinstance(client_for(settings_at(tmp_path / "home")), Client)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "0", "[::1]", "[::ffff:7f00:1]", "10.1", "127.0.0.1.",
     "localhost", "LOCALHOST.", "models.localhost", "localhost.localdomain", "ip6-localhost", "2852039166"],
)  # fmt: skip
def test_no_proxy_is_asked_for_this_machine_or_its_network(host: str, proxy: tuple[str, list[bytes]]) -> None:
    address, asked = proxy
    with pytest.raises(RefusedAddress, match="is no public address"), Client(proxy=address).get(f"https://{host}/x"):
        pass
    assert asked == []


@pytest.mark.parametrize(
    "told", ["http://[::1", "http://proxy:99999", "https://proxy:1", "socks5://proxy:1", "http://"]
)
def test_a_proxy_that_is_none_is_named_after_who_told_it(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefusedAddress, match="proxy of the settings"), Client(proxy=told).get("https://models.test/"):
        pass
    monkeypatch.setenv("https_proxy", told)
    monkeypatch.delenv("no_proxy", raising=False)
    with (
        pytest.raises(RefusedAddress, match=r"proxy of the environment .* set https_proxy to"),
        Client(proxy="environment").get("https://models.test/"),
    ):
        pass
