# Copyright 2026 the Peerage authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

DESCRIPTION="A source file that only the user may fetch, and one exempted from that"
HOMEPAGE="https://example.invalid/licensed"
SRC_URI="
	https://example.invalid/${P}.tar
	fetch+https://example.invalid/${PN}-extra-${PV}.tar
"

LICENSE="Example"
SLOT="0"
KEYWORDS="amd64"
RESTRICT="fetch"

pkg_nofetch() {
	einfo "Accept the licence at ${HOMEPAGE} and put ${P}.tar into DISTDIR,"
	einfo "or give it to the node once: peer import ${P}.tar"
}
