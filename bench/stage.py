"""What a benchmark stands on: nodes, nginx, and ebuild repositories made for it, all below one directory."""

import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

MIB = 1 << 20
# What TCP leaves of a gigabit line.
LINE_BYTES_A_SECOND = 118_000_000
# Nothing listens on port 1 of loopback: whoever is sent there is refused at once.
NOWHERE = "http://127.0.0.1:1"


class ControlConnection(http.client.HTTPConnection):
    """HTTP over the control socket of a node."""

    def __init__(self, path):
        super().__init__("localhost", timeout=900)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Node:
    """A `peer daemon`; `started_s` is the time from its start to the line that says it serves."""

    def __init__(self, peer, folder, repos, *flags):
        self.folder = pathlib.Path(folder)
        (self.folder / "alone/etc/portage").mkdir(parents=True, exist_ok=True)
        command = [peer, "daemon", "--data-dir", self.folder / "data", "--control", self.folder / "control.sock",
                   "--config-root", self.folder / "alone", "--http", "127.0.0.1:0", "--p2p", "/ip4/127.0.0.1/tcp/0",
                   "--no-mdns"]
        for repo in repos:
            command += ["--repo", repo]
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder), "LANG": "C.UTF-8"}
        self.log = self.folder / "log"
        begun = time.monotonic()
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(list(map(str, [*command, *flags])), stdin=subprocess.DEVNULL,
                                          stdout=subprocess.PIPE, stderr=log, env=environment)
        line = self.child.stdout.readline()
        self.started_s = time.monotonic() - begun
        if not line:
            raise SystemExit("the node did not start:\n" + self.log.read_text(errors="replace")[-2000:])
        self.ready = json.loads(line)
        self.http = self.ready["http"][0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Ends it as systemd would; the store stays."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        self.child.stdout.close()

    def ask(self, method, path, body=None):
        """The lines of the answer of a verb, each parsed, and how long it took in seconds."""
        connection = ControlConnection(self.folder / "control.sock")
        begun = time.monotonic()
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        took = time.monotonic() - begun
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {text[:300]!r}")
        return [json.loads(line) for line in text.splitlines() if line], took

    def status(self):
        return self.ask("GET", "/v1/status")[0][0]

    def take_in(self, folder, count):
        """Imports the folder, which holds `count` files that the repositories name."""
        lines, took = self.ask("POST", "/v1/import", {"paths": [str(folder)]})
        if lines[-1]["imported"] != count:
            raise SystemExit(f"{lines[-1]} instead of {count} files")
        return took

    def memory(self, field="VmRSS"):
        """MiB of a line of the process's status."""
        text = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.M).group(1)) / 1024

    def processor_s(self):
        """Seconds of processor time so far."""
        fields = pathlib.Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def forget_peak(self):
        """Begins VmHWM, the highest VmRSS, anew."""
        pathlib.Path(f"/proc/{self.child.pid}/clear_refs").write_text("5")


class Nginx:
    """nginx as Debian sets it up (sendfile, keep-alive), without its access log; `plain` is the same without sendfile,
    `line` the same at the rate of a gigabit line."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.root = self.folder / "www"
        (self.root / "distfiles").mkdir(parents=True)
        # The ports are bound here and handed over, so that none is guessed.
        sockets = [socket.create_server(("127.0.0.1", 0), backlog=511) for _ in range(3)]
        self.http, self.plain, self.line = (f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)
        at = self.folder
        temporary = " ".join(f"{kind}_temp_path {at}/t-{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
        (at / "nginx.conf").write_text(f"""
            daemon off; worker_processes auto; {"user root;" if os.geteuid() == 0 else ""} pid {at}/pid;
            error_log {at}/error.log;
            events {{ worker_connections 1024; }}
            http {{
                access_log off; tcp_nopush on; keepalive_requests 10000000; default_type application/octet-stream;
                client_body_temp_path {at}/t-body; {temporary}
                server {{ listen {self.http}; root {self.root}; sendfile on; }}
                server {{ listen {self.plain}; root {self.root}; sendfile off; }}
                server {{ listen {self.line}; root {self.root}; sendfile on; limit_rate {LINE_BYTES_A_SECOND}; }}
            }}""")
        handed = [one.fileno() for one in sockets]
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        self.child = subprocess.Popen([program, "-e", at / "error.log", "-c", at / "nginx.conf"], pass_fds=handed,
                                      env={**os.environ, "NGINX": "".join(f"{number};" for number in handed)},
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for one in sockets:
            one.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.send_signal(signal.SIGQUIT)
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.terminate()
            self.child.wait()


class Distfile:
    """A file with its sums; `path` is where the content-hash layout has it."""

    def __init__(self, path):
        self.file = pathlib.Path(path)
        self.name = self.file.name
        self.size = self.file.stat().st_size
        sums = [hashlib.blake2b(), hashlib.sha512()]
        with open(self.file, "rb") as file:
            while step := file.read(MIB):
                for one in sums:
                    one.update(step)
        self.blake2b, self.sha512 = (one.hexdigest() for one in sums)
        self.path = f"/distfiles/{self.blake2b[:2]}/{self.blake2b}"

    def line(self):
        return f"DIST {self.name} {self.size} BLAKE2B {self.blake2b} SHA512 {self.sha512}\n"


def write_distfile(path, size):
    """A file of pseudo-random bytes that no other file begins with."""
    block = hashlib.shake_256(str(path.name).encode()).digest(min(size, MIB))
    with open(path, "wb") as file:
        for number in range(0, size, MIB):
            step = number.to_bytes(8, "big") + block[8:] if size > MIB else block
            file.write(step[:size - number])
    return Distfile(path)


def write_repository(folder, name, packages):
    """An ebuild repository with a Manifest, an ebuild and an md5-cache entry for each package: name to distfiles."""
    folder = pathlib.Path(folder)
    for part in ("profiles", "metadata"):
        (folder / part).mkdir(parents=True)
    (folder / "profiles/repo_name").write_text(name + "\n")
    (folder / "profiles/categories").write_text("app-misc\n")
    (folder / "metadata/layout.conf").write_text("masters =\ncache-formats = md5-dict\nthin-manifests = true\n")
    cache = folder / "metadata/md5-cache/app-misc"
    cache.mkdir(parents=True)
    for package, distfiles in packages.items():
        at = folder / "app-misc" / package
        at.mkdir(parents=True)
        uris = " ".join(f"{NOWHERE}/{one.name}" for one in distfiles)
        said = {"DESCRIPTION": "made for a benchmark", "EAPI": "8", "LICENSE": "MIT", "SLOT": "0", "SRC_URI": uris}
        ebuild = "".join(f'{key}="{value}"\n' for key, value in said.items()).replace('EAPI="8"', "EAPI=8")
        (at / f"{package}-1.ebuild").write_text(ebuild)
        (at / "Manifest").write_text("".join(one.line() for one in distfiles))
        md5 = hashlib.md5(ebuild.encode()).hexdigest()
        said = {**said, "DEFINED_PHASES": "-", "_md5_": md5}
        (cache / f"{package}-1").write_text("".join(f"{key}={said[key]}\n" for key in sorted(said)))
    return folder
