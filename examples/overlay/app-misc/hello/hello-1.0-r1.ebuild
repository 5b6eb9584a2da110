# Copyright 2026 the Peerage authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

DESCRIPTION="The overlay's hello: the same file name as the main repository's, other bytes"
HOMEPAGE="https://example.invalid/overlay/hello"
SRC_URI="https://example.invalid/overlay/${P}.tar"

LICENSE="Example"
SLOT="0"
KEYWORDS="amd64"
