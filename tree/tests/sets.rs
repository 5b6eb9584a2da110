//! Files of package sets and USE dependencies: the same questions to this crate and to Portage itself.

mod asked;

use asked::{compare, put};
use tree::atom::Atom;
use tree::set::{Items, SetFile};

/// Files of sets with all that people write into them.
const SET_FILES: &[(&str, &[u8])] = &[
    ("plain", b"app-misc/a\napp-misc/b\n"),
    ("no end of line", b"app-misc/a"),
    ("empty", b""),
    ("comments", b"# app-misc/x\n  # y\napp-misc/a # why\napp-misc/b#no\n#\n"),
    ("blank lines", b"\n\t\n   \napp-misc/a\n\x0c\n"),
    ("twice", b"app-misc/a\napp-misc/a\n=x\n=x\n"),
    ("more words", b"app-misc/a app-misc/b\n"),
    ("slots", b"dev-lang/py:3.11\ndev-lang/py:3.12/3.12\nx/y:0=\nx/z:=\nx/w:*\nx/v:0*\n"),
    ("bad slots", b"x/y:\nx/y:-1\nx/y:a/b/c\nx/y::\nx/y:0/=\nx/y:.a\nx/y:==\n"),
    ("repositories", b"x/y::gentoo\nx/y:0::gentoo\nx/y::gentoo[a]\nx/y::a:0\nx/y::-a\nx/y::a+b\n=x/y-1::gentoo\n"),
    ("operators", b"=x/y-1\n>=x/y-1\n<x/y-1\n<=x/y-1\n>x/y-1\n~x/y-1\n=x/y-1*\n=x/y-1.2_rc3-r4\n"),
    ("bad operators", b"x/y-1\n=x/y\n>x/y-1*\n==x/y-1\n=>x/y-1\n~x/y\n=x/y-\n=x/y-1-r\n>=x/y-*\n"),
    ("use", b"x/y[a]\nx/y[a,-b]\nx/y[a(+)]\nx/y[-a(-)]\nx/y:0[a]\n<x/y-2.0[php_targets_php5-5]\nx/y[a?]\nx/y[!a=]\n"),
    ("bad use", b"x/y[]\nx/y[a\nx/y[a,]\nx/y[,a]\nx/y[a b]\nx/y[--a]\nx/y[a]b\nx/y[a][b]\nx/y[!a]\n"),
    ("blockers", b"!x/y\n!!x/y\n!<x/y-1\n"),
    ("minus", b"app-misc/a\n-app-misc/b\n-*\n-@world\n*x/y\n"),
    ("wildcards", b"kde-plasma/*\n*/kwin\n*/*\nx/y*\n=*/y-1\n*\n*/*::gentoo\n"),
    ("conflict", b"app-misc/a\n<<<<<<< HEAD\napp-misc/b\n=======\napp-misc/c\n>>>>>>> mine\n"),
    ("no category", b"vim\n=vim-1\napp-misc/a\n/vim\nvim/\na/b/c\n"),
    ("latin 1", b"# gr\xfc\xdfe\napp-misc/a\n"),
    ("latin 1 in an atom", b"app-misc/\xfc\napp-misc/a\n"),
    ("latin 1 behind an atom", b"app-misc/a \xfc\napp-misc/b # \xff\xfe\n"),
    ("crlf", b"app-misc/a\r\napp-misc/b\r\n"),
    ("mac", b"app-misc/a\rapp-misc/b\r=x\r"),
    ("bom", b"\xef\xbb\xbfapp-misc/a\napp-misc/b\n"),
    ("bom before a comment", b"\xef\xbb\xbf# mine\napp-misc/b\n"),
    ("utf-16", b"\xff\xfea\0/\0b\0\n\0"),
    ("nul", b"app-misc/a\0\napp-misc/b\n"),
    ("sets", b"@world\n@system\n@mine\n@\n@a b\n@ a\n@no such\napp-misc/a\n"),
    ("odd names of sets", b"@a+b.c~\n@sub/one\n@../x\n@@x\n"),
    ("other spaces", "app-misc/a\u{a0}x\n\u{2003}app-misc/b\n\u{85}app-misc/c\n\u{200b}app-misc/d\n".as_bytes()),
    ("line separators", "app-misc/a\u{2028}app-misc/b\napp-misc/c\u{b}app-misc/d\n\u{1c}x/y\u{1f}z\n".as_bytes()),
    ("use flags of package.use", b"app-misc/a foo -bar\napp-misc/b:0 *\n"),
    ("quotes", b"\"app-misc/a\"\n'app-misc/b'\napp-misc/c;\napp-misc/d,\n"),
    ("names", b"dev-c++/g\nx/y+\nx/y_z\nx/-y\nx/+y\n-x/y\n.x/y\nx.y/z\n_x/y\nx/y-z\nx/y-1a\nx/y-1-z\n"),
    ("capitals", b"App-Misc/A\nX/Y:Z\n"),
    ("long", &[b'a'; 5000]),
    ("variables", b"${CATEGORY}/a\n$x\n"),
    ("build id", b"=x/y-1-2\n=x/y-1-r1-3\n"),
    ("paths", b"/etc/portage\n./x\n~/x\nx/../y\n"),
    ("ini", b"[mine]\nclass = x\n"),
    ("colon", b"x/y:0:1\nx/y:0::\nx/y ::gentoo\n"),
];

#[test]
fn lines_of_sets_are_read_as_portage_reads_them() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let mut cases = Vec::new();
    for (number, (name, content)) in SET_FILES.iter().enumerate() {
        for (kind, path, items) in [
            ("world", "var/lib/portage/world", Items::Atoms),
            ("world_sets", "var/lib/portage/world_sets", Items::Sets),
            ("mine", "mine", Items::Both),
        ] {
            let root = directory.path().join(number.to_string());
            put(&root, path, content);
            let file = SetFile::read(&root.join(path), items).unwrap_or_else(|error| panic!("{name}: {error}"));
            let sorted = |mut words: Vec<String>| {
                words.sort();
                words.join(" ")
            };
            let atoms = sorted(file.atoms.iter().map(|item| item.text.clone()).collect());
            let sets = sorted(file.sets.iter().map(|item| item.text.clone()).collect());
            let lines: Vec<String> = file.left_out.iter().map(|line| line.line.to_string()).collect();
            cases.push((format!("set\t{kind}\t{}", root.display()), format!("{atoms} | {sets} | {}", lines.join(" "))));
        }
    }
    assert!(cases.len() > 100, "the table has its cases");
    compare(&cases);
}

#[test]
fn use_dependencies_match_built_packages_as_portage_matches_them() {
    let mut cases = Vec::new();
    let deps = [
        "a",
        "-a",
        "a,b",
        "a,-b",
        "-a,-b",
        "a(+)",
        "a(-)",
        "-a(+)",
        "-a(-)",
        "a?",
        "!a?",
        "a=",
        "!a=",
        "a(+)?",
        "c",
        "c(+)",
        "c(-)",
        "-c",
        "-c(+)",
        "-c(-)",
        "c?",
        "c(+)?",
        "c(-)=",
        "a,c(-)",
        "a,c(+)",
        "a,-c(-)",
        "a(-),b(-),c(+)",
    ];
    for dep in deps {
        let text = format!("a/b[{dep}]");
        let atom: Atom = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        for (iuse, on) in
            [("a b", ""), ("a b", "a"), ("+a -b", "b"), ("a b", "a b"), ("", ""), ("a", "a"), ("b", "b"), ("a c", "c")]
        {
            let matches = atom.use_matches(
                |flag| iuse.split(' ').any(|word| word.trim_start_matches(['+', '-']) == flag),
                |flag| on.split(' ').any(|word| word == flag),
            );
            cases.push((format!("use\t{text}\t{iuse}\t{on}"), if matches { "yes" } else { "no" }.to_owned()));
        }
    }
    compare(&cases);
}
