"""Runs inside the sandbox, after variables.py: `emerge` of the Portage that this interpreter has.

Where there is only one user number, Portage is told that it may build all the same (it asks only the supplementary groups
whether it belongs to its own), and a bashrc of the node is sourced after the user's: its path is the first argument, or
nothing.
"""

import os
import sys

import portage.const
import portage.process

bashrc, arguments = sys.argv[1], sys.argv[2:]
if bashrc:
    groups = [*os.getgroups(), os.getgid()]
    os.getgroups = lambda: groups
    # Joined to the configuration's root by Portage: an absolute path stays what it is.
    portage.const.EBUILD_SH_ENV_FILE = bashrc
portage._internal_caller = True
portage._disable_legacy_globals()
portage.process.sanitize_fds()

from _emerge.main import emerge_main  # noqa: E402  (after what it reads was set)

keep_the_rest_out()


def say_it_everywhere():
    """With another ROOT than `/`, Portage gives its second configuration, of `/`, nothing of the environment: there the
    user's places (PORTAGE_TMPDIR, logs) would count again, which are not here."""
    begin = portage.config.__init__
    of_one_root = ("ROOT", "SYSROOT", "PKGDIR", "PORTAGE_CONFIGROOT")
    said = {name: value for name, value in os.environ.items() if name not in of_one_root}

    def begin_as_said(self, *arguments, env=None, **others):
        begin(self, *arguments, env=None if env is None else {**said, **env}, **others)

    portage.config.__init__ = begin_as_said


say_it_everywhere()
sys.exit(emerge_main(arguments))
