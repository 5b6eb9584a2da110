"""Runs in a test, after variables.py: what an ebuild of this configuration gets, and what its recipe would name.

The arguments are where Portage's make.globals lies, and values of CC; standard input has names.
"""

import json
import sys

answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Portage talks on standard output

import portage.const  # noqa: E402
from portage.package.ebuild._config import special_env_vars  # noqa: E402
from portage.util.locale import split_LC_ALL  # noqa: E402

# The tests' Portage is installed for the sandbox, where this is bound to its place.
portage.const.GLOBAL_CONFIG_PATH = sys.argv[1]
keep_the_rest_out()
settings = portage.config(clone=portage.settings)
settings.setcpv("app-misc/one-1", mydb=portage.db[portage.root]["porttree"].dbapi)
named = environment(settings)
split_LC_ALL(settings)  # as before each phase (doebuild_environment)
phases = {}
for phase in ("depend", "compile"):
    settings["EBUILD_PHASE"] = phase
    phases[phase] = settings.environ()
compilers = {}
for value in sys.argv[2:]:
    settings["CC"] = value
    troubles.clear()
    compilers[value] = [*compiler(settings, "CC", "gcc"), *(["trouble"] if troubles else [])]
json.dump(
    {
        "named": named,
        "depend": phases["depend"],
        "compile": phases["compile"],
        "features": sorted(settings.features),
        "compilers": compilers,
        "native": resolved("-O2 -march=native", settings),
        "kept from ebuilds": sorted(special_env_vars.environ_filter | special_env_vars.env_blacklist),
        "all": sorted(KNOWN | UNNAMED | NEVER_FOREIGN | environ_whitelist | special_env_vars.environ_filter),
        "may be foreign": sorted(name for name in sys.stdin.read().split() if may_be_foreign(name)),
    },
    answer,
)
answer.flush()
