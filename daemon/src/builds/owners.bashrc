# Sourced by Portage in a sandbox with one user number: the user's own bashrc, then one repair.
if [[ -r ${PORTAGE_CONFIGROOT%/}/etc/portage/bashrc ]]; then
	source "${PORTAGE_CONFIGROOT%/}/etc/portage/bashrc"
fi
# FEATURES=fakeroot remembers owners, but what is packed is a copy of the image that was made outside of it: its files
# have the image's owners, its directories have not.
if [[ " ${MISC_FUNCTIONS_ARGS} " == *" __dyn_package "* && -d ${PORTAGE_BUILDDIR}/image ]]; then
	( cd "${PORTAGE_BUILDDIR}/image" && find . -type d '(' ! -uid 0 -o ! -gid 0 ')' -print0 |
		while IFS= read -r -d '' x; do chown --reference="${x}" "${D%/}/${x}" || exit; done ) || die "owners of directories"
fi
