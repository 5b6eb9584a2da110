//! What a command sees.

use crate::mode::{modes, shell};
use sandbox::{Bind, Cancel, End, Identity, LogSink, Policy, Root, SandboxError, Scratch, Standing};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::time::Instant;

#[tokio::test]
async fn the_exit_code_and_both_streams_in_order_come_back() {
    for mode in modes() {
        let (outcome, log) = mode.shell("echo one; echo two >&2; echo three; exit 7").await;
        assert_eq!((outcome.end, log.as_str()), (End::Ended { code: 7 }, "one\ntwo\nthree\n"), "{}", mode.name);
        let (outcome, _) = mode.shell("kill -TERM $$").await;
        assert_eq!(outcome.end, End::Ended { code: 128 + 15 }, "{}", mode.name);
    }
}

#[tokio::test]
async fn captured_output_is_apart_from_errors_and_input_is_given() {
    for mode in modes() {
        let command = shell("cat; echo err >&2");
        let captured = mode.sandbox.capture(&mode.policy, &command, b"question", 100, Cancel::never()).await.unwrap();
        assert!(captured.outcome.is_success());
        assert_eq!((captured.output.as_slice(), captured.errors.as_str()), (&b"question"[..], "err\n"));
    }
}

/// What the daemon of a service manager is started with stays outside.
#[tokio::test]
async fn files_are_for_others_to_read_and_few_are_open_at_a_time() {
    for mode in modes() {
        let log = mode.says("umask; ulimit -S -n; : >/job/made; stat -c %a /job/made").await;
        assert_eq!(log, "0022\n1024\n644\n", "{}", mode.name);
    }
}

#[tokio::test]
async fn a_trial_does_what_builds_do_and_finds_nothing_wrong() {
    for mut mode in modes() {
        let layer = mode.path("layer");
        sandbox::prepare_layer(&mode.policy.root, &layer).unwrap();
        mode.policy.layers.push(layer);
        let findings = mode.sandbox.try_out(&mode.policy).await;
        for subject in ["a trial", "layers", "set-id bits", "programs", "32-bit programs", "user numbers"] {
            let found = findings.iter().find(|finding| finding.subject == subject);
            let found = found.unwrap_or_else(|| panic!("{}: {subject}: {findings:#?}", mode.name));
            assert_eq!(found.standing, Standing::Good, "{}: {found:?}", mode.name);
        }
        assert!(findings.iter().all(|finding| finding.standing < Standing::Blocks), "{findings:#?}");
    }
}

#[tokio::test]
async fn a_trial_without_a_root_names_it() {
    for mut mode in modes() {
        mode.policy.root = Root::stage("/nonexistent");
        let findings = mode.sandbox.try_out(&mode.policy).await;
        let blocks = findings.iter().find(|finding| finding.standing == Standing::Blocks).expect("nothing runs");
        assert!(blocks.subject == "a trial" && blocks.found.contains("/nonexistent"), "{findings:#?}");
    }
}

#[tokio::test]
async fn only_the_given_environment_and_no_descriptor_is_there() {
    for mut mode in modes() {
        mode.policy.environment.push(("GIVEN".into(), "yes no".into()));
        let log = mode.says("env | sort | grep -v -e ^_= -e ^SHLVL= -e ^FAKEROOTDONTTRYCHOWN=").await;
        let expected = "GIVEN=yes no\nHOME=/var/tmp\nLANG=C.UTF-8\nPATH=/usr/bin:/bin:/usr/sbin:/sbin\nPWD=/\n";
        assert_eq!(log, expected, "{}", mode.name);
        // What the tests themselves were started with may be there as a number, never as a file.
        let log = mode.says("for n in $(ls /proc/$$/fd); do readlink /proc/$$/fd/$n; done | sort | uniq").await;
        let unexpected =
            |line: &&str| !line.starts_with("/memfd:input") && !line.starts_with("pipe:") && *line != "/dev/null";
        assert_eq!(log.lines().find(unexpected), None, "{log}");
        assert_eq!(log.lines().filter(|line| line.starts_with("pipe:")).count(), 1, "{log}");
    }
}

#[tokio::test]
async fn private_places_are_writable_and_the_rest_is_not() {
    for mut mode in modes() {
        mode.policy.scratch.push(Scratch { target: "/var/cache/edb".into(), size_bytes: 1 << 20, mode: 0o1777 });
        let log = mode
            .says(
                "for d in /tmp /run /var/tmp /dev/shm /var/cache/edb /job; do echo x > $d/x || echo \"no $d\"; done
                 for d in / /usr /etc /var /dev /var/cache /var/db /home; do touch $d/x 2>/dev/null && echo \"yes $d\"; done
                 hostname; id -un; ls -A /home /root /sys 2>/dev/null; pwd",
            )
            .await;
        let user = if mode.name == "mapped" { "root" } else { "portage" };
        assert_eq!(log, format!("builder\n{user}\n/\n"), "{}", mode.name);
        assert_eq!(mode.read("work/x"), "x\n");
    }
}

#[tokio::test]
async fn a_private_directory_is_bounded() {
    for mut mode in modes() {
        mode.policy.limits.scratch_bytes = 1 << 20;
        let log = mode
            .says("for d in /tmp /run /var/tmp /dev/shm; do head -c 4194304 /dev/zero > $d/x 2>/dev/null; stat -c %s $d/x; done")
            .await;
        assert_eq!(log, "1048576\n".repeat(4), "{}", mode.name);
    }
}

#[tokio::test]
async fn a_layer_is_seen_over_the_root_and_a_higher_over_a_lower() {
    for mut mode in modes() {
        for (name, text) in [("low", "low"), ("high", "high")] {
            let layer = mode.path(name);
            sandbox::prepare_layer(&Root::host(), &layer).unwrap();
            std::fs::create_dir_all(layer.join("usr/share/peer-test")).unwrap();
            std::fs::create_dir_all(layer.join("var/db/pkg/app").join(name)).unwrap();
            std::fs::create_dir_all(layer.join("etc/env.d")).unwrap();
            std::fs::create_dir_all(layer.join("var/lib/of-layer")).unwrap();
            std::fs::write(layer.join("usr/share/peer-test/both"), text).unwrap();
            std::fs::write(layer.join("usr/share/peer-test").join(name), text).unwrap();
            std::fs::write(layer.join("etc/env.d").join(name), text).unwrap();
            std::fs::write(layer.join("etc/shadow"), "never").unwrap();
        }
        mode.policy.layers = vec![mode.path("high"), mode.path("low")];
        let log = mode
            .says(
                "cd /usr/share/peer-test; cat both high low; echo; ls /var/db/pkg/app /etc/env.d /var/lib | tr '\\n' ' ';
                 echo; ls /usr/bin/env; cat /etc/shadow 2>&1; touch /usr/share/peer-test/x 2>&1; true",
            )
            .await;
        let mut lines = log.lines();
        assert_eq!(lines.next(), Some("highhighlow"), "{}: {log}", mode.name);
        let listed = lines.next().unwrap();
        for wanted in ["/var/db/pkg/app: high low", "high low", "of-layer"] {
            assert!(listed.contains(wanted), "{}: {log}", mode.name);
        }
        assert_eq!(lines.next(), Some("/usr/bin/env"));
        assert!(lines.next().unwrap().contains("No such file"), "{log}");
        assert!(lines.next().unwrap().contains("Read-only"), "{log}");
    }
}

#[tokio::test]
async fn files_and_directories_behind_a_closed_parent_are_seen() {
    for mut mode in modes() {
        std::fs::create_dir(mode.path("closed")).unwrap();
        std::fs::write(mode.path("closed/file"), "content").unwrap();
        let deep = Bind::read_only(mode.path("closed/file")).at("/some/deep/place");
        let same = Bind::read_only(mode.path("closed"));
        mode.policy.binds.extend([deep, same]);
        let script =
            format!("cat /some/deep/place {}; stat -c %a /some /some/deep", mode.path("closed/file").display());
        assert_eq!(mode.says(&script).await, "contentcontent755\n755\n", "{}", mode.name);
        let (outcome, _) = mode.shell("echo x > /some/deep/place").await;
        assert!(!outcome.is_success());
        assert_eq!(mode.read("closed/file"), "content");
    }
}

#[tokio::test]
async fn what_is_hidden_is_empty() {
    for mut mode in modes() {
        std::fs::create_dir_all(mode.path("portage/gnupg")).unwrap();
        std::fs::write(mode.path("portage/gnupg/secret"), "secret").unwrap();
        std::fs::write(mode.path("portage/secret.conf"), "secret").unwrap();
        mode.policy.binds.push(Bind::read_only(mode.path("portage")).at("/etc/portage"));
        mode.policy.hidden =
            ["/etc/portage/gnupg", "/etc/portage/secret.conf", "/etc/portage/absent"].map(Into::into).into();
        let log =
            mode.says("cd /etc/portage; ls; ls gnupg; cat secret.conf; touch gnupg/x 2>/dev/null || echo no").await;
        assert_eq!(log, "gnupg\nsecret.conf\nno\n", "{}", mode.name);
    }
}

#[tokio::test]
async fn owners_are_changed_with_a_mapped_range_and_kept_by_fakeroot_without() {
    for mode in modes() {
        if mode.name == "mapped" {
            mode.says("cd /job; touch f; chown nobody:nogroup f; install -o portage -g portage -m 4755 /dev/null g")
                .await;
            let (file, owned) = (mode.path("work/f"), mode.path("work/g"));
            let owner = |path| std::fs::metadata(path).map(|about| (about.uid(), about.gid())).unwrap();
            let outer = |inner| mode.policy.identity.outer(inner).map(|number| (number, number)).unwrap();
            assert_eq!((owner(file), owner(owned)), (outer(65_534), outer(250)));
            let log = mode.says("cd /job; setpriv --reuid 250 --regid 250 --clear-groups id -u; stat -c %U:%G f").await;
            assert_eq!(log, "250\nnobody:nogroup\n");
        } else if mode.shell("command -v fakeroot").await.0.is_success() {
            let log = mode.says("cd /job; fakeroot sh -c 'touch f; chown 5:7 f; stat -c %u:%g f; id -u'").await;
            assert_eq!(log, "5:7\n0\n");
        }
    }
}

#[tokio::test]
async fn a_policy_that_cannot_be_carried_out_is_an_error_that_names_the_path() {
    for mode in modes() {
        let run = async |policy: &Policy, command: &[OsString]| {
            mode.sandbox.run(policy, command, LogSink::default(), Cancel::never()).await
        };
        let mut policy = mode.policy.clone();
        policy.binds.push(Bind::read_only("/nonexistent/source"));
        let error = run(&policy, &shell("true")).await.unwrap_err();
        assert!(
            matches!(error, SandboxError::Policy(_)) && error.to_string().contains("/nonexistent/source"),
            "{error}"
        );
        let mut policy = mode.policy.clone();
        policy.binds.push(Bind::read_only("/usr").at("/a/../etc"));
        assert!(run(&policy, &shell("true")).await.unwrap_err().to_string().contains("/a/../etc"));
        let mut policy = mode.policy.clone();
        policy.binds.push(Bind::read_only("/usr").at("/usr/no/such/place"));
        let error = run(&policy, &shell("echo started > /job/started")).await.unwrap_err();
        assert!(matches!(&error, SandboxError::Setup { said } if said.contains("bwrap")), "{error}");
        assert!(!mode.path("work/started").exists());
        let outcome = run(&mode.policy, &["/nonexistent".into()]).await.unwrap();
        assert!(matches!(outcome.end, End::Ended { code: 126..=127 }), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_stage_may_be_the_root() {
    for mut mode in modes() {
        let stage = mode.path("stage");
        std::fs::create_dir_all(stage.join("etc")).unwrap();
        std::fs::create_dir_all(stage.join("home/somebody")).unwrap();
        std::fs::write(stage.join("etc/gentoo-release"), "stage").unwrap();
        for name in ["bin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), stage.join(name)).unwrap();
        }
        // This machine's own programs serve as the stage's.
        std::fs::create_dir(stage.join("usr")).unwrap();
        mode.policy.root = Root::stage(&stage);
        mode.policy.binds.insert(0, Bind::read_only("/usr"));
        let log = mode.says("cat /etc/gentoo-release; ls /home /etc/alternatives 2>/dev/null; true").await;
        assert_eq!(log, "stage\n", "{}", mode.name);
    }
}

#[tokio::test]
async fn what_a_start_costs_is_told() {
    for mode in modes() {
        let began = Instant::now();
        for _again in 0..5 {
            mode.says("true").await;
        }
        println!("{}: {:?} for each start of a sandbox", mode.name, began.elapsed() / 5);
        assert_ne!(mode.policy.identity, Identity::Single { uid: 0, gid: 0 });
    }
}
