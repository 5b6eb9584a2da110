"""Tries Portage's own commands to fetch on a URL that is there and one that is not, and tells in JSON how they did.

They run as Portage runs them: expanded, split and started by its own code, with the user, the environment and the
directory that it gives them.
"""

import json
import os
import shlex
import shutil
import sys
import tempfile

# Portage gives fetching programs its own output; here it is what they said.
answer = os.fdopen(os.dup(1), "w")
said = tempfile.TemporaryFile()
os.dup2(said.fileno(), 1)

import portage  # noqa: E402
from portage.package.ebuild.fetch import _spawn_fetch  # noqa: E402
from portage.util import varexpand  # noqa: E402

uri = sys.argv[1]
portage._internal_caller = True
settings = portage.config(config_root=os.environ["PORTAGE_CONFIGROOT"], env=os.environ)


def words():
    said.seek(0)
    lines = said.read().decode("utf-8", "replace").split("\n")
    said.seek(0)
    said.truncate()
    lines = [line.strip() for line in lines if line.strip()]
    return "; ".join(lines[-3:])[-500:]


def fetch(command, name, place):
    """Whether the command says that it went well, and what it left."""
    path = os.path.join(place, name)
    if os.path.exists(path):
        os.unlink(path)
    variables = {"DISTDIR": place, "FILE": name, "URI": uri.replace("layout.conf", name), "DIGESTS": ""}
    arguments = [varexpand(word, mydict=variables) for word in shlex.split(command)]
    try:
        code = _spawn_fetch(settings, arguments)
    except portage.exception.CommandNotFound as error:
        print(f"there is no program {error}", flush=True)
        code = 127
    try:
        with open(path, "rb") as file:
            return code == 0, file.read(65536)
    except OSError:
        return code == 0, b""


def main():
    place = tempfile.mkdtemp(prefix="peer-doctor-")
    os.chmod(place, 0o777)
    tried = []
    try:
        # Nothing is begun, so that the second one begins anew: it is asked whether it gets here.
        for name in ("FETCHCOMMAND", "RESUMECOMMAND"):
            command = settings.get(f"{name}_HTTP") or settings.get(name) or ""
            went_well, content = fetch(command, "layout.conf", place)
            is_right = went_well and b"content-hash BLAKE2B" in content
            text = words()
            took, content = fetch(command, "there-is-no-such-file", place) if is_right else (False, b"")
            words()
            tried.append({"name": name, "text": command[:500], "is_right": is_right, "takes_errors": took and bool(content), "said": text})
    finally:
        shutil.rmtree(place, ignore_errors=True)
    proxy = settings.get("http_proxy") or settings.get("HTTP_PROXY") or os.environ.get("http_proxy") or os.environ.get("all_proxy")
    none = settings.get("no_proxy") or os.environ.get("no_proxy")
    answer.write(json.dumps({"commands": tried, "proxy": proxy or None, "no_proxy": none or None}))
    answer.flush()


main()
