# Copyright 2026 the Peerage authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

DESCRIPTION="A source file that mirrors may not carry, and one exempted from that"
HOMEPAGE="https://example.invalid/unmirrored"
SRC_URI="
	https://example.invalid/${P}.tar
	mirror+https://example.invalid/${PN}-doc-${PV}.tar
"

LICENSE="Example"
SLOT="0"
KEYWORDS="amd64"
RESTRICT="mirror"
