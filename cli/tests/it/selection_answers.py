"""What Portage itself says of atoms and sets, for selection.rs: `portageq best_visible` for each atom, and for each set the atoms
that emerge takes it for, less nested sets that are not there, each with its best visible ebuild.

Reads a JSON list, writes a JSON list of lists of cpvs.
"""

import contextlib
import io
import json
import os
import runpy
import sys

out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Portage talks on standard output

import portage  # noqa: E402
from _emerge.actions import load_emerge_config  # noqa: E402
from portage.exception import PackageSetNotFound  # noqa: E402

portage.util.noiselimit = -1
asked = json.load(sys.stdin)
program = os.path.join(os.environ["PEERAGE_PORTAGE"], "lib/portage/bin/portageq")


def best_visible(atom):
    said = io.StringIO()
    sys.argv = ["portageq", "best_visible", os.environ["ROOT"], atom]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        runpy.run_path(program, run_name="__main__")
    return said.getvalue().split()


def members(name, seen):
    """As SetConfig.getSetAtoms, which gives up where a nested set is missing."""
    seen.add(name)
    pset = sets[name]
    atoms = set(pset.getAtoms())
    for nested in pset.getNonAtoms():
        if nested[:1] == "@" and nested[1:] in sets and nested[1:] not in seen:
            atoms |= members(nested[1:], seen)
    return atoms


def answer(target):
    if not target.startswith("@"):
        return best_visible(target)
    if target[1:] not in sets:
        return None
    atoms = members(target[1:], set())
    with contextlib.suppress(PackageSetNotFound):
        assert atoms == set(root.setconfig.getSetAtoms(target[1:])), target
    return sorted({cpv for atom in atoms for cpv in best_visible(str(atom))})


root = load_emerge_config().target_config
sets = root.sets
json.dump([answer(target) for target in asked], out)
out.flush()
