//! The real emerge in a sandbox: it builds a package from an ebuild that does all that is delicate there.

use crate::mode::{Mode, modes};
use sandbox::{Bind, Cancel, LogFile, LogSink, Outcome, Phase, Root, Scratch};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where `./test` has put Portage.
fn portage() -> PathBuf {
    PathBuf::from(std::env::var_os("PEERAGE_PORTAGE").expect("./test --prepare says where Portage is"))
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    std::fs::write(path, text).expect("a file");
}

/// A repository with one ebuild, and the least configuration that Portage builds with.
fn configure(mode: &mut Mode, ebuild: &str, features: &str) {
    let repo = mode.path("repo");
    for (file, text) in [
        ("profiles/repo_name", "gentoo\n"),
        ("profiles/eapi", "8\n"),
        ("profiles/categories", "app-misc\n"),
        ("profiles/arch.list", "amd64\n"),
        ("profiles/profiles.desc", "amd64 base stable\n"),
        ("profiles/base/eapi", "8\n"),
        (
            "profiles/base/make.defaults",
            "ARCH=amd64\nACCEPT_KEYWORDS=amd64\nKERNEL=linux\nELIBC=glibc\nCHOST=x86_64-pc-linux-gnu\nABI=amd64\n\
             DEFAULT_ABI=amd64\nLIBDIR_amd64=lib64\nACCEPT_LICENSE=*\nCFLAGS=-O2\n",
        ),
        ("metadata/layout.conf", "masters =\nthin-manifests = true\nmanifest-hashes = BLAKE2B SHA512\n"),
        ("licenses/MIT", ""),
    ] {
        write(&repo.join(file), text);
    }
    write(&repo.join("app-misc/thing/thing-1.0.ebuild"), ebuild);
    let configuration = mode.path("portage");
    write(
        &configuration.join("make.conf"),
        &format!(
            "FEATURES=\"{features} -news -ipc-sandbox -network-sandbox -pid-sandbox -mount-sandbox -sandbox -usersandbox\"\n"
        ),
    );
    std::os::unix::fs::symlink("/var/db/repos/gentoo/profiles/base", configuration.join("make.profile"))
        .expect("a link");
    write(&configuration.join("repos.conf"), "[gentoo]\nlocation = /var/db/repos/gentoo\nsync-type =\nsync-uri =\n");
    let packages = mode.path("packages");
    std::fs::create_dir(&packages).expect("a directory");
    let identity = mode.policy.identity;
    let (uid, gid) = identity.start();
    sandbox::give(&packages, identity, uid, gid).expect("an owner");
    let portage = portage();
    // What is installed is not to be changed; Portage locks it beside it.
    let layer = mode.path("layer");
    sandbox::prepare_layer(&Root::host(), &layer).expect("a layer");
    std::fs::create_dir_all(layer.join("var/db/pkg/app-misc/other-1")).expect("a directory");
    let policy = &mut mode.policy;
    policy.layers = vec![layer];
    policy.binds.clear();
    policy.binds.extend([
        Bind::read_only(&portage),
        Bind::read_only(portage.join("share/portage")).at("/share/portage"),
        Bind::read_only(configuration).at("/etc/portage"),
        Bind::read_only(repo).at("/var/db/repos/gentoo"),
    ]);
    let scratch = ["/var/db", "/var/cache/edb", "/var/lib/portage", "/var/log", "/var/cache/distfiles"];
    policy.scratch = scratch.map(|path| Scratch { target: path.into(), size_bytes: 16 << 20, mode: 0o1777 }).into();
    let work = mode.path("work");
    mode.policy
        .binds
        .extend([Bind::writable(work).at("/var/tmp/portage"), Bind::writable(packages).at("/var/cache/binpkgs")]);
    mode.policy.environment = vec![
        ("PATH".into(), format!("{}/bin:/usr/bin:/bin:/usr/sbin:/sbin", portage.display()).into()),
        ("HOME".into(), "/var/tmp".into()),
        ("LANG".into(), "C.UTF-8".into()),
        ("PORTAGE_OVERRIDE_EPREFIX".into(), "".into()),
    ];
    if mode.name == "single" {
        // Portage builds for the members of its group, and asks for the supplementary groups only; a process whose one
        // group is Portage's is none. With FEATURES=fakeroot it keeps owners, but packs a copy of the image made
        // outside of fakeroot, whose files are the image's and whose directories are not.
        write(&mode.path("portage/bashrc"), RESTORE);
        write(
            &mode.path("python/sitecustomize.py"),
            "import os\n_groups = os.getgroups() + [os.getgid()]\nos.getgroups = lambda: _groups\n",
        );
        mode.policy.binds.push(Bind::read_only(mode.path("python")).at("/share/python"));
        mode.policy.environment.push(("PYTHONPATH".into(), "/share/python".into()));
    }
}

/// Gives directories of the copy that is packed the owners that the image's have.
const RESTORE: &str = r#"if [[ " ${MISC_FUNCTIONS_ARGS} " == *" __dyn_package "* && -d ${PORTAGE_BUILDDIR}/image ]]; then
    ( cd "${PORTAGE_BUILDDIR}/image" && find . -type d '(' ! -uid 0 -o ! -gid 0 ')' -print0 |
        while IFS= read -r -d '' x; do chown --reference="${x}" "${D%/}/${x}" || exit; done ) || die "owners"
fi
"#;

async fn emerge(mode: &Mode) -> (Outcome, String) {
    let command = ["emerge", "--buildpkgonly", "--nodeps", "--oneshot", "--color=n", "=app-misc/thing-1.0::gentoo"];
    let sink = LogSink { file: Some(LogFile::create(&mode.path("log"), 1 << 20).expect("a log")), lines: None };
    let command: Vec<OsString> = command.into_iter().map(OsString::from).collect();
    let outcome = mode.sandbox.run(&mode.policy, &command, sink, Cancel::never()).await.expect("a sandbox");
    (outcome, mode.read("log"))
}

/// The owners in the image of the one package there is, as tar tells them.
fn image(mode: &Mode) -> String {
    let package = mode.path("packages/app-misc/thing/thing-1.0-1.gpkg.tar");
    let script = "cd \"$1\" && tar -xOf \"$2\" thing-1.0-1/image.tar.zst | zstd -dq | tar --numeric-owner -tv | awk '{print $1, $2, $6}'";
    let output = std::process::Command::new("/bin/sh")
        .args(["-c", script, "sh"])
        .args([mode.path(""), package])
        .output()
        .expect("tar and zstd");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const EBUILD: &str = r#"EAPI=8
DESCRIPTION="a thing"
HOMEPAGE="https://example.org"
LICENSE="MIT"
SLOT="0"
KEYWORDS="amd64"
S="${WORKDIR}"
src_compile() {
    echo 'int main(void) { return 0; }' > thing.c || die
    cc -o thing thing.c || die
    id -un
}
src_test() { ./thing || die; }
src_install() {
    dobin thing
    insinto /etc
    newins thing.c thing.conf
    fowners nobody:nogroup /etc/thing.conf
    fperms 4711 /usr/bin/thing
    keepdir /var/lib/thing
    fowners 12:34 /var/lib/thing
}
"#;

#[tokio::test]
async fn owners_and_modes_of_a_package_are_right_in_every_mode() {
    for mut mode in modes() {
        let features = if mode.name == "mapped" { "userpriv test" } else { "fakeroot test" };
        configure(&mut mode, EBUILD, features);
        let (outcome, log) = emerge(&mode).await;
        assert!(outcome.is_success(), "{}: {outcome:?}\n{log}", mode.name);
        let image = image(&mode);
        for line in [
            "-rws--x--x 0/0 image/usr/bin/thing",
            "-rw-r--r-- 65534/65534 image/etc/thing.conf",
            "drwxr-xr-x 12/34 image/var/lib/thing/",
            "drwxr-xr-x 0/0 image/usr/bin/",
        ] {
            assert!(image.lines().any(|found| found == line), "{}: {line} is not in\n{image}\n{log}", mode.name);
        }
        assert!(log.lines().any(|line| line == "portage"), "{}: compiled by another user\n{log}", mode.name);
        assert_eq!(outcome.phase, Some(Phase::Clean), "{}: {log}", mode.name);
    }
}

#[tokio::test]
async fn a_phase_that_fails_is_named() {
    for mut mode in modes() {
        let features = if mode.name == "mapped" { "userpriv" } else { "fakeroot" };
        configure(&mut mode, &EBUILD.replace("id -un", "echo last words; die \"it is meant to\""), features);
        let (outcome, log) = emerge(&mode).await;
        assert_eq!(outcome.end, sandbox::End::Ended { code: 1 }, "{}: {log}", mode.name);
        assert_eq!(outcome.phase, Some(Phase::Compile), "{}: {log}", mode.name);
        let failure = outcome.log.failure.unwrap_or_default();
        assert!(failure.contains("app-misc/thing-1.0::gentoo failed (compile phase)"), "{failure}");
    }
}
