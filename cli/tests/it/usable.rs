//! Which packages the binhost lists: only those that this machine can use, each other one with the reason. The ELF files
//! are made by the real compiler, the verdicts by the real Portage.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use tempfile::tempdir;

use crate::answers::{NOTE, is_rejected, listed, listed_of, only, package_env, until_listed};
use crate::builder::{Builder, binpkgs, planned};
use crate::peer::TestPeer;
use crate::wait;

/// A program by this compiler with these flags.
const PROGRAM: &str = "SLOT=\"0\"\nsrc_compile() { echo 'int main(void) { return 0; }' > main.c; gcc ${CFLAGS} -o prog \
                       main.c || die; }\nsrc_install() { newbin prog ${PN}; }\n";
/// The features of each level, as Linux calls them.
const V2: &[&str] = &["cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"];
const V3: &[&str] = &["abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"];
const V4: &[&str] = &["avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"];

/// A library of this soname with one function of a symbol version, linked against nothing: shell words of an ebuild.
fn stub(path: &str, soname: &str, version: &str, function: &str) -> String {
    format!(
        "\tmkdir -p $(dirname {path}) || die\n\techo '{version} {{ global: {function}; local: *; }};' > map || die\n\
         \techo 'int {function}(void) {{ return 1; }}' > stub.c || die\n\
         \tgcc -shared -fPIC -nostdlib -Wl,-soname,{soname} -Wl,--version-script=map -o {path} stub.c || die\n"
    )
}

/// A library that calls a function of another: shell words.
fn caller(name: &str, function: &str, library: &str) -> String {
    format!(
        "\techo 'int {function}(void); int call(void) {{ return {function}(); }}' > call.c || die\n\
         \tgcc -shared -fPIC -nostdlib -Wl,-soname,{name} -o {name} call.c {library} || die\n"
    )
}

/// An ebuild whose compilation is these words, and that installs this library.
fn library(more: &str, compile: &str, name: &str) -> String {
    format!("SLOT=\"0\"\n{more}src_compile() {{\n{compile}}}\nsrc_install() {{ exeinto /usr/lib64; doexe {name}; }}\n")
}

/// The features of this machine's processor.
fn cpuinfo() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags")).expect("Linux on x86 says what it has");
    flags.split_whitespace().map(str::to_owned).collect()
}

/// Builds these a few at a time, as one request must end before its deadline.
fn builds(peer: &TestPeer, atoms: &[&str]) {
    for some in atoms.chunks(4) {
        peer.does(&[&["build"], some].concat());
    }
}

#[test]
fn a_package_for_another_processor_is_held_and_not_listed() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let defaults = fs::read_to_string(machine.repo.dir.join("profiles/base/make.defaults")).unwrap();
    let defaults = defaults.replace("USE_EXPAND=\"KERNEL", "USE_EXPAND=\"CPU_FLAGS_X86 KERNEL");
    machine.repo.write("profiles/base/make.defaults", &defaults);
    // No processor has them all: whatever this machine is, some of these are not for it.
    let cases: &[(&str, &str, &[&[&str]])] = &[
        ("tuned", "-O2 -mtune=bdver4", &[]),
        ("lvlthree", "-O2 -march=x86-64-v3", &[V2, V3]),
        ("lvlfour", "-O2 -march=x86-64-v4", &[V2, V3, V4]),
        ("dozer", "-O2 -march=bdver4", &[V2, &["avx2", "fma4", "tbm", "xop"]]),
        ("single", "-O2 -mfma4", &[&["fma4"]]),
        ("undone", "-O2 -mxop -mno-xop", &[]),
        ("flagged", "-O2 -pipe", &[&["3dnow", "3dnowext"]]),
    ];
    let packages: Vec<String> = cases.iter().map(|(name, ..)| format!("app-misc/{name}")).collect();
    let flags: Vec<String> = cases.iter().map(|(_, flags, _)| format!("CFLAGS=\"{flags}\"\n")).collect();
    let of_each: Vec<(&str, &str)> =
        packages.iter().zip(&flags).map(|(name, flags)| (name.as_str(), flags.as_str())).collect();
    package_env(&machine, &of_each);
    for name in &packages {
        let more = if name.ends_with("flagged") { "IUSE=\"cpu_flags_x86_3dnowext\"\n" } else { "" };
        machine.ebuild(&format!("{name}-1.0"), &format!("{PROGRAM}{more}"), &[]);
    }
    machine.etc("package.use", "app-misc/flagged CPU_FLAGS_X86: 3dnowext\n");
    let peer = machine.start();
    builds(&peer, &packages.iter().map(String::as_str).collect::<Vec<_>>());

    let has = cpuinfo();
    let (mut listed_count, mut rejected) = (0, 0);
    for (name, flags, needed) in cases {
        let cpv = format!("app-misc/{name}-1.0");
        let needed: Vec<&str> = needed.concat();
        let lacking: Vec<&str> = needed.into_iter().filter(|&feature| !has.contains(feature)).collect();
        if lacking.is_empty() {
            assert_eq!((listed(&peer, &cpv).len(), only(&peer, &cpv).len()), (1, 0), "{flags}");
            listed_count += 1;
        } else {
            is_rejected(&peer, &cpv, "cpu", &[]);
            let texts = only(&peer, &cpv);
            let said = |feature: &&&str| texts.iter().any(|(_, text)| text.contains(**feature));
            assert!(lacking.iter().any(|feature| said(&feature)), "{flags}: one of {lacking:?} in {texts:?}");
            rejected += 1;
        }
    }
    assert!(listed_count >= 2 && rejected >= 2, "both sides were seen");
    // Kept verdicts are there when the next daemon is.
    let before = listed_of(&peer, &["app-misc/tuned-1.0", "app-misc/dozer-1.0", "app-misc/single-1.0"]);
    let peer = peer.kill().start();
    assert_eq!(listed_of(&peer, &["app-misc/tuned-1.0", "app-misc/dozer-1.0", "app-misc/single-1.0"]), before);
}

#[test]
fn a_package_that_needs_a_library_or_a_symbol_version_that_is_not_here_is_not_listed() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    let ahead = stub("stub/libc.so.6", "libc.so.6", "GLIBC_2.99", "future_call")
        + &caller("libahead.so.1", "future_call", "stub/libc.so.6");
    machine.ebuild("app-misc/ahead-1.0", &library("", &ahead, "libahead.so.1"), &[]);
    let orphan = stub("stub/libnowhere.so.7", "libnowhere.so.7", "NOWHERE_1", "lost")
        + &caller("liborphan.so.1", "lost", "stub/libnowhere.so.7");
    machine.ebuild("app-misc/orphan-1.0", &library("", &orphan, "liborphan.so.1"), &[]);
    let giver = stub("libgiven.so.5", "libgiven.so.5", "GIVEN_1", "given");
    machine.ebuild("dev-libs/giver-1.0", &library("IUSE=\"+fast\"\n", &giver, "libgiven.so.5"), &[]);
    let taker = caller("libtaker.so.1", "given", "${ESYSROOT}/usr/lib64/libgiven.so.5");
    machine.ebuild(
        "app-misc/taker-1.0",
        &library("DEPEND=\"dev-libs/giver\"\nRDEPEND=\"dev-libs/giver\"\n", &taker, "libtaker.so.1"),
        &[],
    );
    let late = stub("stub/libgiven.so.5", "libgiven.so.5", "GIVEN_9", "later")
        + &caller("liblate.so.1", "later", "stub/libgiven.so.5");
    machine.ebuild("app-misc/late-1.0", &library("", &late, "liblate.so.1"), &[]);
    let chained = stub("stub/libtaker.so.1", "libtaker.so.1", "X", "call")
        + &caller("libchained.so.1", "call", "stub/libtaker.so.1");
    // Against a stub without versions, as the library that it is linked to has none; its own function has another name.
    let chained = chained.replace("-Wl,--version-script=map", "");
    let chained = chained.replace("int call(void); int call(void) {", "int call(void); int chain(void) {");
    machine.ebuild("app-misc/chained-1.0", &library("", &chained, "libchained.so.1"), &[]);
    // Garbage that calls itself ELF says nothing, and keeps nothing from being listed.
    let garbage = "SLOT=\"0\"\nsrc_install() {\n\tprintf '\\177ELF' > short\n\t{ printf '\\177ELF\\002\\001\\001'; head -c \
                   5000 /dev/zero | tr '\\0' '\\377'; } > long\n\texeinto /usr/lib64; doexe short long\n}\n";
    machine.ebuild("app-misc/garbage-1.0", garbage, &[]);
    let peer = machine.start();
    builds(&peer, &["app-misc/taker", "app-misc/ahead", "app-misc/orphan", "app-misc/late"]);
    builds(&peer, &["app-misc/garbage", "app-misc/chained"]);

    is_rejected(&peer, "app-misc/ahead-1.0", "symbol", &["GLIBC_2.99", "libc.so.6"]);
    is_rejected(&peer, "app-misc/orphan-1.0", "soname", &["libnowhere.so.7"]);
    is_rejected(&peer, "app-misc/late-1.0", "symbol", &["GIVEN_9", "libgiven.so.5"]);
    let all = ["app-misc/chained-1.0", "app-misc/garbage-1.0", "app-misc/taker-1.0", "dev-libs/giver-1.0"];
    until_listed(&peer, &all, &all);

    // What only an unusable package gives is not there, nor what only that one gives.
    machine.etc("package.use", "dev-libs/giver -fast\n");
    until_listed(&peer, &all, &["app-misc/garbage-1.0"]);
    is_rejected(&peer, "dev-libs/giver-1.0", "use", &["fast"]);
    is_rejected(&peer, "app-misc/taker-1.0", "soname", &["libgiven.so.5"]);
    is_rejected(&peer, "app-misc/chained-1.0", "soname", &["libtaker.so.1"]);
    machine.etc("package.use", "");
    until_listed(&peer, &all, &all);
}

#[test]
fn what_is_listed_follows_the_configuration_there_and_back() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    machine.ebuild("app-misc/note-1.0", NOTE, &[]);
    machine.ebuild("app-misc/flags-1.0", &format!("{NOTE}IUSE=\"+color debug\"\n"), &[]);
    machine.ebuild("app-misc/prog-1.0", PROGRAM, &[]);
    let peer = machine.start();
    builds(&peer, &["app-misc/note", "app-misc/flags", "app-misc/prog"]);
    let (note, flags, prog) = ("app-misc/note-1.0", "app-misc/flags-1.0", "app-misc/prog-1.0");
    assert_eq!(listed_of(&peer, &[note, flags, prog]), [note, flags, prog]);

    // Two of one version that differ in a flag: the one that fits is listed.
    machine.etc("package.use", "app-misc/flags -color debug\n");
    until_listed(&peer, &[note, flags, prog], &[note, prog]);
    is_rejected(&peer, flags, "use", &["color", "debug"]);
    peer.does(&["build", "app-misc/flags"]);
    let shown = |word: &str| {
        let entries = listed(&peer, flags);
        let uses: Vec<&str> = entries.iter().map(|entry| entry["USE"].as_str()).collect();
        assert_eq!(uses.len(), 1, "{uses:?}");
        uses[0].split(' ').any(|flag| flag == word)
    };
    assert!(shown("debug") && !shown("color"));
    assert_eq!(binpkgs(&peer, "app-misc/flags").len(), 2, "both are kept");
    machine.etc("package.use", "");
    planned(&peer, &["app-misc/flags"]);
    wait::until("the other instance", || (listed(&peer, flags).len() == 1 && shown("color")).then_some(()));
    assert!(!shown("debug"));

    // Two of one version that differ in nothing Portage chooses by: both are listed, with build numbers of their own.
    package_env(&machine, &[("app-misc/prog", "CFLAGS=\"-O1\"\n")]);
    peer.does(&["build", "app-misc/prog"]);
    wait::until("both instances", || (listed(&peer, prog).len() == 2).then_some(()));
    let ids: BTreeSet<String> = listed(&peer, prog).iter().map(|entry| entry["BUILD_ID"].clone()).collect();
    assert_eq!(ids.len(), 2);

    // A machine of another kind has none of them.
    let make_conf = fs::read_to_string(machine.dir.join("root/etc/portage/make.conf")).unwrap();
    machine.etc("make.conf", &format!("{make_conf}CHOST=\"i686-pc-linux-gnu\"\n"));
    until_listed(&peer, &[note, flags, prog], &[]);
    is_rejected(&peer, note, "chost", &["x86_64-pc-linux-gnu", "i686-pc-linux-gnu"]);
    machine.etc("make.conf", &make_conf);
    until_listed(&peer, &[note, flags, prog], &[note, flags, prog]);
    assert_eq!(listed(&peer, prog).len(), 2);
}

#[test]
fn what_a_trusted_builder_made_is_judged_here() {
    let dir = tempdir().unwrap();
    let machine = |name: &str| {
        let machine = Builder::new(&dir.path().join(name));
        let ahead = stub("stub/libc.so.6", "libc.so.6", "GLIBC_2.99", "future_call")
            + &caller("libahead.so.1", "future_call", "stub/libc.so.6");
        machine.ebuild("app-misc/ahead-1.0", &library("", &ahead, "libahead.so.1"), &[]);
        machine.ebuild("app-misc/dozer-1.0", PROGRAM, &[]);
        machine.ebuild("app-misc/plain-1.0", PROGRAM, &[]);
        package_env(&machine, &[("app-misc/dozer", "CFLAGS=\"-O2 -mfma4 -mamx-tile\"\n")]);
        machine
    };
    let cpvs = ["app-misc/ahead-1.0", "app-misc/dozer-1.0", "app-misc/plain-1.0"];
    let atoms = ["app-misc/ahead", "app-misc/dozer", "app-misc/plain"];
    let a = machine("a").start_with("share = \"lan\"").start();
    builds(&a, &atoms);
    let at_b = machine("b");
    let b = at_b.start_with("").knows(&a).start();
    b.wait_for_peers(1);
    b.does(&["trust", "add", &a.peer_id(), "--packages", "*/*"]);
    builds(&b, &atoms);
    for node in [&a, &b] {
        until_listed(node, &cpvs, &["app-misc/plain-1.0"]);
        is_rejected(node, "app-misc/ahead-1.0", "symbol", &["GLIBC_2.99"]);
        is_rejected(node, "app-misc/dozer-1.0", "cpu", &[]);
    }
    for cpv in cpvs {
        let job = crate::builder::came(&b, cpv);
        assert_eq!(job, ("substitute".into(), a.peer_id().into()), "{cpv}");
    }
    // What is not listed is not had for nothing: the same is said after a restart, at once.
    let b = b.kill().start();
    assert_eq!(listed_of(&b, &cpvs), ["app-misc/plain-1.0"]);
}

#[test]
fn the_next_index_that_emerge_asks_for_is_of_the_configuration_as_it_is() {
    let dir = tempdir().unwrap();
    let machine = Builder::new(dir.path());
    machine.ebuild("app-misc/flags-1.0", &format!("{NOTE}IUSE=\"color\"\n"), &[]);
    let peer = machine.start();
    let flags = "app-misc/flags-1.0";
    let uses = || listed(&peer, flags).iter().map(|entry| entry["USE"].contains("color")).collect::<Vec<_>>();
    peer.does(&["build", "app-misc/flags"]);
    machine.etc("package.use", "app-misc/flags color\n");
    peer.does(&["build", "app-misc/flags"]);
    assert_eq!(uses(), [true]);
    // A user edits package.use and runs emerge. An index that was made sure of within the last second stays as it is.
    let edits = |words: &str| {
        let start = Instant::now();
        wait::until("a second to pass", || (start.elapsed() > Duration::from_millis(1100)).then_some(()));
        machine.etc("package.use", &format!("app-misc/flags {words}\n"));
    };
    edits("-color");
    assert_eq!(uses(), [false]);
    edits("color");
    assert_eq!(uses(), [true]);
}
