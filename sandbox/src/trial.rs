//! A trial: one real sandbox, made as builds make theirs, in which is done what builds do. What fails is told with its mend.

use crate::limits::Limits;
use crate::policy::{Identity, Policy};
use crate::preflight::{self, Finding, Standing};
use crate::run::{Cancel, SandboxError};
use crate::{Captured, Sandbox, proc};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// It takes a second; a machine that is busy may take some more.
const TIME: Duration = Duration::from_secs(60);
/// Some lines.
const OUTPUT_MAX_BYTES: u64 = 16 * 1024;
/// What the layer of a trial brings, below the root.
const LAYERED: &str = "usr/share/peerage-trial";

/// Does what builds do in the directory `$1` and tells how each thing went, a line `NAME=VALUE` each. The program is the
/// smallest of 32 bits on x86: it ends with 42.
const SCRIPT: &str = r#"cd "$1" || exit 3
echo processes=$(ls -d /proc/[0-9]* | wc -l)
echo filter=$(sed -n 's/^Seccomp:[[:space:]]*//p' /proc/self/status)
mkdir own && : >own/file && : >own/owned
chmod 2775 own; chmod 4755 own/file
echo bits=$(stat -c %a own own/file)
chown 250:250 own/owned; echo owner=$(stat -c %u:%g own/owned)
echo faked=$(fakeroot sh -c 'chown 0:0 own/owned; stat -c %u:%g own/owned')
printf '#!/bin/sh\nexit 42\n' >script; chmod 755 script; ./script; echo script=$?
[ ! -d /usr/share/peerage-trial ] || echo layer=yes
printf '\177ELF\001\001\001\000\000\000\000\000\000\000\000\000\002\000\003\000\001\000\000\000T\200\004\010\064\000\000\000\000\000\000\000\000\000\000\000\064\000\040\000\001\000\000\000\000\000\000\000\001\000\000\000\000\000\000\000\000\200\004\010\000\200\004\010`\000\000\000`\000\000\000\005\000\000\000\000\020\000\000\270\001\000\000\000\273*\000\000\000\315\200' >short
chmod 755 short; ./short; echo short=$?
setarch i686 true; echo personality=$?
exit 0"#;

/// What systemd's settings do to a sandbox, by the name that `systemctl cat` shows.
const UNIT: &str = "take it out of the unit (systemctl cat peer), as the unit of this version does";

impl Sandbox {
    /// Makes a sandbox of this policy, does in its first writable bind what builds do, and tells what came of it. The first
    /// layer, if there is one, is written. For threads see [`Self::run`]. Cancel safe: yes.
    pub async fn try_out(&self, policy: &Policy) -> Vec<Finding> {
        let mut policy = policy.clone();
        policy.limits = Limits { time: TIME, ..policy.limits };
        let work = policy.binds.iter().find(|bind| bind.writable).map(|bind| bind.target.clone());
        let Some(work) = work else {
            return vec![Finding::bad("a trial", Standing::Blocks, "there is no place to try it in", "see the log")];
        };
        for layer in &policy.layers {
            if let Err(error) = std::fs::create_dir_all(layer.join(LAYERED)) {
                tracing::debug!(%error, "the layer of a trial cannot be written");
            }
        }
        let mut tried = self.tried(&policy, &work).await;
        let mut findings = vec![preflight::bwrap(&self.programs).await];
        if !policy.layers.is_empty() {
            let with_layer = tried.as_ref().is_ok_and(|done| done.contains_key("layer"));
            let why = tried.as_ref().err().map_or_else(|| "it is not seen".to_owned(), ToString::to_string);
            if !with_layer {
                policy.layers.clear();
                tried = self.tried(&policy, &work).await;
            }
            if tried.is_ok() {
                findings.push(layers(with_layer, &why));
            }
        }
        match tried {
            Err(error) => findings.push(refused(&error)),
            Ok(done) => findings.extend(judge(&done, policy.identity)),
        }
        findings.push(preflight::numbers(policy.identity, rustix::process::geteuid().is_root()));
        findings.push(preflight::cgroups(self.has_cgroups()));
        findings
    }

    /// What the script says; its directory is left as it makes it.
    async fn tried(&self, policy: &Policy, work: &Path) -> Result<BTreeMap<String, String>, SandboxError> {
        let mut command: Vec<OsString> = ["/bin/sh", "-c", SCRIPT, "sh"].map(OsString::from).to_vec();
        command.push(work.into());
        let captured = self.capture(policy, &command, b"", OUTPUT_MAX_BYTES, Cancel::never()).await?;
        if captured.outcome.is_success() { Ok(done(&captured)) } else { Err(ended(&captured)) }
    }
}

fn done(captured: &Captured) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(&captured.output);
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

fn ended(captured: &Captured) -> SandboxError {
    let said = format!("{:?}: {}", captured.outcome.end, captured.errors.trim().replace('\n', "; "));
    SandboxError::Setup { said }
}

fn layers(are_seen: bool, why: &str) -> Finding {
    if are_seen {
        return Finding::good("layers", "build dependencies can be laid over the root");
    }
    Finding::bad(
        "layers",
        Standing::Less,
        format!("{why}; packages whose build dependencies are not installed on the root cannot be built"),
        "load the module overlay, or build a kernel (5.11 or newer) with CONFIG_OVERLAY_FS; or run the node as root",
    )
}

/// Why there was no sandbox at all.
fn refused(error: &SandboxError) -> Finding {
    let said = error.to_string();
    if let SandboxError::Proc { covered } = error {
        let found = format!("builds cannot have a /proc of their own: {}", proc::in_words(covered));
        let unit = "; under systemd, the unit must be without ProtectKernelTunables, ProtectKernelLogs, ProtectProc";
        return Finding::bad("a trial", Standing::Blocks, found, format!("{}{unit}", proc::MEND));
    }
    let (cause, mend) = if said.contains("hostname") {
        ("the service manager forbids host names: ProtectHostname", UNIT)
    } else if matches!(error, SandboxError::Setup { .. }) {
        preflight::namespace_cause(Path::new("/proc/sys"), rustix::process::geteuid().is_root())
    } else {
        ("the system refused a step of it", "see the log of the node; docs/SANDBOX.md says what a sandbox needs")
    };
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    Finding::bad("a trial", Standing::Blocks, format!("{said}{source}: {cause}"), mend)
}

/// What the lines of the script mean.
fn judge(done: &BTreeMap<String, String>, identity: Identity) -> Vec<Finding> {
    let said = |name: &str| done.get(name).map_or("", String::as_str);
    let mut findings = Vec::new();
    let mut judge = |subject, is_good: bool, good: &str, standing, bad: String, mend: &str| {
        findings.push(if is_good { Finding::good(subject, good) } else { Finding::bad(subject, standing, bad, mend) });
    };
    let is_closed = said("filter") == "2" && said("processes").parse().is_ok_and(|count: u32| (1..20).contains(&count));
    judge(
        "a trial",
        is_closed,
        "a command ran in it, with a /proc and a system call filter of its own",
        Standing::Blocks,
        format!("it is not closed: {} processes are seen, filter {:?}", said("processes"), said("filter")),
        "report it, with the output of peer doctor --json",
    );
    judge(
        "set-id bits",
        said("bits") == "2775 4755",
        "directories and programs keep them",
        Standing::Blocks,
        format!(
            "2775 and 4755 became {:?}: something around the node forbids them, RestrictSUIDSGID of systemd perhaps",
            said("bits")
        ),
        UNIT,
    );
    match identity {
        Identity::Mapped { .. } => judge(
            "owners",
            said("owner") == "250:250",
            "files can be given to any user of the sandbox",
            Standing::Blocks,
            format!("a file given to 250:250 belongs to {:?}", said("owner")),
            "let the node have the capabilities of dist/peer-root.conf, or run it as an ordinary user",
        ),
        Identity::Single { .. } => judge(
            "fakeroot",
            said("faked") == "0:0",
            "it remembers the owners of packages",
            Standing::Blocks,
            format!(
                "without fakeroot the files of a package would belong to the node's user; it says {:?}",
                said("faked")
            ),
            "install sys-apps/fakeroot (Debian: fakeroot), or run the node as root",
        ),
    }
    judge(
        "programs",
        said("script") == "42",
        "what a build makes can be run",
        Standing::Blocks,
        "what a build makes cannot be run: the file system of the data directory is mounted noexec, perhaps".to_owned(),
        "mount it without noexec, or say data_dir",
    );
    if cfg!(target_arch = "x86_64") {
        let found = match said("short") {
            "126" => "they cannot be started: the kernel has no CONFIG_IA32_EMULATION",
            _ => "they are ended by a filter around the node, SystemCallArchitectures of systemd perhaps",
        };
        judge(
            "32-bit programs",
            said("short") == "42" && said("personality") == "0",
            "they run",
            Standing::Less,
            format!("{found}; packages with abi_x86_32 may fail in their tests or while configuring"),
            "take SystemCallArchitectures and LockPersonality out of the unit, or build a kernel with CONFIG_IA32_EMULATION",
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPED: Identity = Identity::Mapped { outer_first: 100_000, count: 65_536 };
    const SINGLE: Identity = Identity::Single { uid: 250, gid: 250 };

    fn lines(changed: &[(&str, &str)]) -> BTreeMap<String, String> {
        let good = [
            ("processes", "6"),
            ("filter", "2"),
            ("bits", "2775 4755"),
            ("owner", "250:250"),
            ("faked", "0:0"),
            ("script", "42"),
            ("short", "42"),
            ("personality", "0"),
        ];
        good.iter().chain(changed).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn each_thing_that_a_build_cannot_do_is_told_with_a_mend() {
        for (changed, identity, subject, standing) in [
            (("filter", "0"), MAPPED, "a trial", Standing::Blocks),
            (("processes", "200"), SINGLE, "a trial", Standing::Blocks),
            (("bits", "775 755"), SINGLE, "set-id bits", Standing::Blocks),
            (("owner", "0:0"), MAPPED, "owners", Standing::Blocks),
            (("faked", ""), SINGLE, "fakeroot", Standing::Blocks),
            (("script", "126"), MAPPED, "programs", Standing::Blocks),
            #[cfg(target_arch = "x86_64")]
            (("short", "159"), MAPPED, "32-bit programs", Standing::Less),
            #[cfg(target_arch = "x86_64")]
            (("personality", "1"), SINGLE, "32-bit programs", Standing::Less),
        ] {
            assert!(judge(&lines(&[]), identity).iter().all(|finding| finding.standing == Standing::Good));
            let findings = judge(&lines(&[changed]), identity);
            let bad: Vec<_> = findings.iter().filter(|finding| finding.standing != Standing::Good).collect();
            assert_eq!(bad.len(), 1, "{changed:?}: {bad:?}");
            assert_eq!((bad[0].subject, bad[0].standing), (subject, standing), "{bad:?}");
            assert!(!bad[0].mend.is_empty());
        }
    }

    #[test]
    fn why_there_is_no_sandbox_is_told_with_the_setting() {
        let setup = |said: &str| SandboxError::Setup { said: said.to_owned() };
        let found = refused(&setup("bwrap: Can't set hostname to builder: Operation not permitted"));
        assert!(found.found.contains("ProtectHostname") && found.mend.contains("systemctl cat"), "{found:?}");
        let found = refused(&SandboxError::Proc { covered: vec!["/proc/kcore".into()] });
        assert!(found.found.contains("/proc/kcore") && found.mend.contains("systempaths"), "{found:?}");
        assert!(!refused(&setup("bwrap: No permissions to create new namespace")).mend.is_empty());
    }
}
