"""Says for each line of JSON what Portage makes of a command line of emerge and EMERGE_DEFAULT_OPTS (see emerge_words.rs)."""

import io
import json
import os
import shlex
import sys

import portage

portage._internal_caller = True
from _emerge.main import parse_opts  # noqa: E402


def answer(root, environment, arguments):
    os.environ.pop("EMERGE_DEFAULT_OPTS", None)
    if environment is not None:
        os.environ["EMERGE_DEFAULT_OPTS"] = environment
    first = parse_opts(arguments, silent=True)[1]
    settings = portage.config(config_root=root, target_root=root, eprefix="", env=os.environ.copy())
    words = []
    if "--ignore-default-opts" not in first:
        words += shlex.split(settings.get("EMERGE_DEFAULT_OPTS", ""))
    action, options, others = parse_opts(words + arguments)
    if action is not None:
        return {"action": action}
    return {
        "others": others,
        "asks": "--ask" in options and "--pretend" not in options,
        "pretends": "--pretend" in options,
        "shows": [name for name in ("--quiet", "--tree", "--verbose") if name in options],
        "plan": [name for name in ("--update", "--newuse", "--emptytree") if name in options]
        + (["--deep"] if options.get("--deep") else [])
        + (["--changed-use"] if options.get("--reinstall") == "changed-use" else []),
        "binaries": [name for name in ("--getbinpkg", "--getbinpkgonly", "--usepkg", "--usepkgonly") if options.get(name)],
        "jobs": options.get("--jobs"),
        "exclude": options.get("--exclude"),
        "enter_invalid": "--ask-enter-invalid" in options,
        "alert": "--alert" in options,
    }


for line in sys.stdin:
    asked = json.loads(line)
    said, sys.stderr = sys.stderr, io.StringIO()
    try:
        told = answer(asked["root"], asked["environment"], asked["arguments"])
    except (SystemExit, ValueError):
        told = {"wrong": True}
    finally:
        sys.stderr = said
    print(json.dumps(told), flush=True)
