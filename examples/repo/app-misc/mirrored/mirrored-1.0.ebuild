# Copyright 2026 the Peerage authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

DESCRIPTION="A source file on third-party mirrors, and one that only a USE flag asks for"
HOMEPAGE="https://example.invalid/mirrored"
SRC_URI="
	mirror://demo/${PN}/${P}.tar
	doc? ( https://example.invalid/${PN}-doc-${PV}.tar )
"

LICENSE="Example"
SLOT="0"
KEYWORDS="amd64"
IUSE="+doc"
