//! Forms in which people link their configuration, by the files that they link: what the real Portage reads here is what it
//! reads in the sandbox. Tests only.

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests may make files and read the environment")]

    use crate::builds::inside::Inside;
    use crate::builds::reach::{Reach, ReachError, Refusal};
    use crate::config::{Config, Overrides, Surroundings};
    use crate::config_build::ExtraBind;
    use sandbox::{Cancel, End, Sandbox};
    use std::collections::BTreeMap;
    use std::ffi::OsString;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    /// What Portage makes of the files, one answer a file.
    const ANSWERS: &str = r#"
import hashlib, json, os, types
import portage
from portage._sets.files import StaticFileSet
from portage.package.ebuild._config.UserPatches import UserPatches
portage._internal_caller = True
settings = portage.config(config_root=os.environ["PORTAGE_CONFIGROOT"], target_root="/", env=dict(os.environ))
db = portage.portdbapi(mysettings=settings)
etc = os.path.join(settings["PORTAGE_CONFIGROOT"], "etc/portage")
def of(cpv, variable):
    config = portage.config(clone=settings)
    config.setcpv(cpv, mydb=db)
    return config.get(variable, "")
def visible(name):
    return db.xmatch("bestmatch-visible", f"app-misc/{name}")
def text(name):
    path = os.path.join(etc, name)
    return hashlib.sha256(open(path, "rb").read()).hexdigest() if os.path.isfile(path) else "none"
sets = StaticFileSet.multiBuilder({"directory": os.path.join(etc, "sets")}, settings, {"vartree": types.SimpleNamespace(dbapi=None)}) if os.path.isdir(os.path.join(etc, "sets")) else {}
print(json.dumps({
    "make.conf": settings.get("CFLAGS", ""),
    "package.use": of("app-misc/use-1", "PORTAGE_USE"),
    "package.accept_keywords": visible("keyword"),
    "package.mask": visible("mask"),
    "package.unmask": visible("unmask"),
    "package.env": of("app-misc/env-1", "CFLAGS"),
    "package.license": visible("license"),
    "patches": UserPatches(etc).digest(portage.versions._pkg_str("app-misc/patch-1", slot="0"), "none"),
    "sets": sorted(f"{name} {sorted(one.getAtoms())}" for name, one in sets.items()),
    "profile": of("app-misc/profile-1", "PORTAGE_USE"),
    "bashrc": text("bashrc"),
    "savedconfig": text("savedconfig/app-misc/use-1"),
    "repos.conf": visible("overlaid"),
}))
"#;

    /// The files, by the names of the answers.
    const FILES: [(&str, &str, &str); 14] = [
        ("make.conf", "make.conf", "CFLAGS=\"-O3 -DMINE\"\nACCEPT_LICENSE=\"-* MIT\"\n"),
        ("package.use", "package.use", "app-misc/use alpha\n"),
        ("package.accept_keywords", "package.accept_keywords", "app-misc/keyword ~amd64\n"),
        ("package.mask", "package.mask", ">=app-misc/mask-2\n"),
        ("package.unmask", "package.unmask", "app-misc/unmask\n"),
        ("package.env", "package.env", "app-misc/env fast.conf\n"),
        ("package.env", "env/fast.conf", "CFLAGS=\"-Ofast\"\n"),
        ("package.license", "package.license", "app-misc/license Example\n"),
        ("patches", "patches/app-misc/patch/a.patch", "a patch\n"),
        ("sets", "sets/mine", "app-misc/use\n"),
        ("profile", "profile/package.use", "app-misc/profile alpha\n"),
        ("bashrc", "bashrc", "true\n"),
        ("savedconfig", "savedconfig/app-misc/use-1", "CONFIG_X=y\n"),
        (
            "repos.conf",
            "repos.conf",
            "[DEFAULT]\nmain-repo = main\n[main]\nlocation = @/main\n[over]\nlocation = @/over\n",
        ),
    ];

    /// A machine that is made for one form.
    struct Machine {
        dir: tempfile::TempDir,
        top: PathBuf,
    }

    fn put(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn link(to: impl AsRef<Path>, at: &Path) {
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        symlink(to, at).unwrap();
    }

    impl Machine {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
            let top = dir.path().canonicalize().unwrap();
            let machine = Self { dir, top };
            let profile = "ARCH=amd64\nACCEPT_KEYWORDS=amd64\nKERNEL=linux\nELIBC=glibc\nCHOST=x86_64-pc-linux-gnu\n\
                           IUSE_IMPLICIT=\"prefix\"\nCFLAGS=-O2\n";
            for (repo, masters) in [("main", ""), ("over", "main")] {
                let repo_dir = machine.top.join(repo);
                put(&repo_dir.join("profiles/repo_name"), repo);
                put(&repo_dir.join("profiles/eapi"), "8\n");
                put(&repo_dir.join("profiles/arch.list"), "amd64\n");
                put(&repo_dir.join("profiles/categories"), "app-misc\n");
                let layout = format!(
                    "masters = {masters}\nprofile-formats = portage-2\nthin-manifests = true\ncache-formats = md5-dict\n"
                );
                put(&repo_dir.join("metadata/layout.conf"), &layout);
                put(&repo_dir.join("licenses/MIT"), "");
                put(&repo_dir.join("licenses/Example"), "");
            }
            let base = machine.top.join("main/profiles/base");
            put(&base.join("eapi"), "8\n");
            put(&base.join("make.defaults"), profile);
            put(&base.join("package.mask"), "app-misc/unmask\n");
            for name in ["use", "mask", "unmask", "env", "patch", "profile"] {
                machine.ebuild(&format!("main/app-misc/{name}/{name}-1"), "amd64", "MIT");
            }
            machine.ebuild("main/app-misc/mask/mask-2", "amd64", "MIT");
            machine.ebuild("main/app-misc/keyword/keyword-1", "~amd64", "MIT");
            machine.ebuild("main/app-misc/license/license-1", "amd64", "Example");
            machine.ebuild("over/app-misc/overlaid/overlaid-1", "amd64", "MIT");
            link("../../../main/profiles/base", &machine.etc().join("make.profile"));
            machine
        }

        /// With its md5-cache entry, so that nothing is run to know of it.
        fn ebuild(&self, path: &str, keywords: &str, license: &str) {
            use md5::Digest as _;
            let values = format!("DESCRIPTION=x\nEAPI=8\nIUSE=alpha\nKEYWORDS={keywords}\nLICENSE={license}\nSLOT=0\n");
            put(&self.top.join(format!("{path}.ebuild")), &values);
            let sum: String = md5::Md5::digest(&values).iter().map(|byte| format!("{byte:02x}")).collect();
            let (package, pf) = path.rsplit_once('/').unwrap();
            let (category, _name) = package.rsplit_once('/').unwrap();
            let (repo, category) = category.rsplit_once('/').unwrap();
            let entry = self.top.join(repo).join("metadata/md5-cache").join(category).join(pf);
            put(&entry, &format!("DEFINED_PHASES=-\n{values}_md5_={sum}\n"));
        }

        fn etc(&self) -> PathBuf {
            self.top.join("root/etc/portage")
        }

        fn text(&self, text: &str) -> String {
            text.replace('@', &self.top.display().to_string())
        }

        fn config(&self) -> Config {
            let data = self.top.join("data");
            std::fs::create_dir_all(&data).unwrap();
            let overrides = Overrides {
                data_dir: Some(data),
                config_root: Some(self.top.join("root")),
                config: Some("/dev/null".into()),
                ..Overrides::default()
            };
            let mut config = Config::load(&overrides, &Surroundings::default()).unwrap().0;
            let same = |path: &str| ExtraBind { source: portage().join(path), target: portage().join(path) };
            let share = ExtraBind { source: portage().join("share/portage"), target: "/share/portage".into() };
            config.build.binds = vec![same(""), share];
            config
        }

        fn reach(&self) -> Result<Reach, ReachError> {
            Reach::of(&Inside::asked(&self.config(), &self.repositories()))
        }

        fn repositories(&self) -> Vec<PathBuf> {
            vec![self.top.join("main"), self.top.join("over")]
        }

        /// What Portage reads here, and in the sandbox.
        async fn both(&self) -> (BTreeMap<String, serde_json::Value>, BTreeMap<String, serde_json::Value>) {
            let config = self.config();
            let reach = self.reach().unwrap();
            let path: OsString = format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", portage().join("bin").display()).into();
            let inside = Inside::new(&config, &self.repositories(), reach, None, path.clone());
            let policy = inside.resolver();
            let python = inside.program("python3").unwrap();
            let arguments: Vec<OsString> = vec!["-I".into(), "-c".into(), ANSWERS.into()];
            // Here nothing is written but below the machine.
            let mut environment = policy.environment.clone();
            for name in ["PORTAGE_TMPDIR", "PORTAGE_DEPCACHEDIR"] {
                environment.retain(|(other, _)| other != name);
                environment.push((name.into(), self.top.join("data").into()));
            }
            let job = sandbox::spawn::Job {
                program: python.clone(),
                arguments: arguments.clone(),
                environment,
                input: Vec::new(),
                output_max_bytes: 1 << 20,
                deadline: Duration::from_secs(120),
            };
            let outside = sandbox::spawn::run(job).await.unwrap();
            assert_eq!(outside.code, Some(0), "{}", outside.errors);
            let command: Vec<OsString> = std::iter::once(python.into()).chain(arguments).collect();
            let sandbox = Sandbox::open(&path).unwrap();
            let captured = sandbox.capture(&policy, &command, b"", 1 << 20, Cancel::never()).await.unwrap();
            let ended = matches!(captured.outcome.end, End::Ended { code: 0 });
            assert!(ended, "{:?} {}", captured.outcome.end, captured.errors);
            let read = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap();
            (read(&outside.output), read(&captured.output))
        }
    }

    fn portage() -> PathBuf {
        std::env::var_os("PEERAGE_PORTAGE").expect("PEERAGE_PORTAGE is set by ./test").into()
    }

    /// Lays a file of the configuration out: its name below `/etc/portage`, its text.
    type Form = (&'static str, fn(&Machine, &str, &str));

    /// A directory of the user's own, whose files the others link.
    fn dots(machine: &Machine, name: &str, text: &str) -> PathBuf {
        let path = machine.top.join("home/ada/dots").join(name);
        put(&path, text);
        path
    }

    const FORMS: [Form; 12] = [
        ("no link at all", |m, name, text| put(&m.etc().join(name), text)),
        ("an absolute link", |m, name, text| link(dots(m, name, text), &m.etc().join(name))),
        ("a relative link", |m, name, text| {
            dots(m, name, text);
            let up = "../".repeat(2 + name.split('/').count());
            link(format!("{up}home/ada/dots/{name}"), &m.etc().join(name));
        }),
        ("a chain of links", |m, name, text| {
            let (first, second) = (m.top.join("chain/one").join(name), m.top.join("chain/two").join(name));
            link(dots(m, name, text), &second);
            link(&second, &first);
            link(&first, &m.etc().join(name));
        }),
        ("through a directory that is a link", |m, name, text| {
            dots(m, name, text);
            let way = m.top.join("way");
            if !way.exists() {
                link("home/../home/ada", &way);
            }
            link(way.join("dots").join(name), &m.etc().join(name));
        }),
        ("a directory that is a link", |m, name, text| {
            let (first, rest) = name.split_once('/').unwrap_or((name, "10-own"));
            // One file cannot be a directory.
            let alone = first == "bashrc" || first == "savedconfig";
            dots(m, &if alone { name.to_owned() } else { format!("{first}/{rest}") }, text);
            if !m.etc().join(first).exists() {
                link(m.top.join("home/ada/dots").join(first), &m.etc().join(first));
            }
        }),
        ("links in a directory", |m, name, text| {
            let is_one = name.contains('/') || name == "bashrc";
            let name = if is_one { name.to_owned() } else { format!("{name}/10-own") };
            link(dots(m, &name, text), &m.etc().join(&name));
        }),
        ("a directory of links in a linked directory", |m, name, text| {
            let is_one = name.contains('/') || name == "bashrc";
            let name = if is_one { name.to_owned() } else { format!("{name}/10-own/own") };
            let real = dots(m, &name, text);
            let top = name.split('/').next().unwrap();
            link(real, &m.top.join("stow").join(&name));
            if !m.etc().join(top).exists() {
                link(m.top.join("stow").join(top), &m.etc().join(top));
            }
        }),
        ("a link into a repository", |m, name, text| {
            let path = m.top.join("over/settings").join(name);
            put(&path, text);
            link(path, &m.etc().join(name));
        }),
        ("out and back again", |m, name, text| {
            let stock = m.etc().join(".stock").join(name);
            put(&stock, text);
            let out = m.top.join("home/ada/dots").join(name);
            link(stock, &out);
            link(out, &m.etc().join(name));
        }),
        ("/etc/portage itself is a link", |m, name, text| {
            let real = m.top.join("home/ada/portage");
            if !real.exists() {
                std::fs::create_dir_all(real.parent().unwrap()).unwrap();
                std::fs::rename(m.etc(), &real).unwrap();
                // What it had, seen from where it is now.
                std::fs::remove_file(real.join("make.profile")).unwrap();
                link("../../../main/profiles/base", &real.join("make.profile"));
                link("../../home/ada/portage", &m.etc());
            }
            dots(m, name, text);
            let up = "../".repeat(name.split('/').count());
            link(format!("{up}dots/{name}"), &real.join(name));
        }),
        ("a link whose name has signs and spaces", |m, name, text| {
            let path = m.top.join("my \"own\" $dots ü").join(name);
            put(&path, text);
            link(path, &m.etc().join(name));
        }),
    ];

    #[tokio::test(flavor = "multi_thread")]
    async fn what_portage_reads_by_links_it_reads_in_the_sandbox() {
        let mut plain: Option<BTreeMap<String, serde_json::Value>> = None;
        let (mut differing, mut compared) = (Vec::new(), 0);
        for (form, lay_out) in FORMS {
            let machine = Machine::new();
            for (_, name, text) in FILES {
                lay_out(&machine, name, &machine.text(text));
            }
            let (outside, inside) = machine.both().await;
            let plain = plain.get_or_insert_with(|| outside.clone());
            for (name, here) in &outside {
                compared += 1;
                if inside.get(name) != Some(here) {
                    differing.push(format!("{form}, {name}: {here} here, {:?} inside", inside.get(name)));
                }
                assert_eq!(plain.get(name), Some(here), "{form}, {name}: the form does not say what it should");
            }
            let refused = machine.top.join("root/etc/portage/gnupg");
            assert!(!refused.exists());
        }
        assert!(differing.is_empty(), "{differing:#?}");
        assert!(compared >= 40, "{compared} combinations");
        let plain = plain.unwrap();
        assert_eq!(plain["make.conf"], "-O3 -DMINE");
        assert_eq!(plain["package.env"], "-Ofast");
        assert_eq!(plain["package.use"], "alpha");
        assert!(plain.values().all(|answer| *answer != "" && *answer != "none"), "{plain:?}");
    }

    /// What it is, the file whose answer becomes another, and how it is laid out.
    type Way = (&'static str, &'static str, fn(&Machine));

    /// Forms that are not a file of `/etc/portage`: each is laid over the plain one, and Portage's answer becomes another.
    const WAYS: [Way; 10] = [
        ("make.conf sources a file", "make.conf", |m| {
            let file = dots(m, "more.conf", "CFLAGS=\"-Og\"\nsource ./even-more.conf\n");
            dots(m, "even-more.conf", "CFLAGS=\"${CFLAGS} -DMORE\"\n");
            add(m, "make.conf", &format!("source {}\n", file.display()));
        }),
        ("make.conf sources a link by a variable", "make.conf", |m| {
            link(dots(m, "more.conf", "CFLAGS=\"-Os\"\n"), &m.top.join("way/more.conf"));
            add(m, "make.conf", &format!("DOTS=\"{}\"\nsource ${{DOTS}}/more.conf\n", m.top.join("way").display()));
        }),
        ("a file of package.env sources one", "package.env", |m| {
            let file = dots(m, "fastest.conf", "CFLAGS=\"-O1\"\n");
            add(m, "env/fast.conf", &format!("source {}\n", file.display()));
        }),
        ("package.env names a file outside", "package.env", |m| {
            let file = dots(m, "outside.conf", "CFLAGS=\"-O0\"\n");
            put(&m.etc().join("package.env"), &format!("app-misc/env {}\n", file.display()));
        }),
        ("the older make.conf, a link", "make.conf", |m| {
            std::fs::remove_file(m.etc().join("make.conf")).unwrap();
            link(
                dots(m, "old.conf", "CFLAGS=\"-DOLD\"\nACCEPT_LICENSE=\"-* MIT\"\n"),
                &m.top.join("root/etc/make.conf"),
            );
        }),
        ("the older make.profile", "package.use", |m| {
            std::fs::remove_file(m.etc().join("make.profile")).unwrap();
            own_profile(m);
            link("../../home/ada/profile", &m.top.join("root/etc/make.profile"));
        }),
        ("a profile of the user's own with parents", "package.use", |m| {
            std::fs::remove_file(m.etc().join("make.profile")).unwrap();
            own_profile(m);
            link(m.top.join("home/ada/profile"), &m.etc().join("make.profile"));
        }),
        ("a repository behind a link", "repos.conf", |m| {
            std::fs::create_dir_all(m.top.join("behind")).unwrap();
            std::fs::rename(m.top.join("over"), m.top.join("behind/over")).unwrap();
            m.ebuild("behind/over/app-misc/overlaid/overlaid-2", "amd64", "MIT");
            link("behind", &m.top.join("links"));
            link("links/over", &m.top.join("over"));
        }),
        ("a repository synchronised aside", "repos.conf", |m| {
            let aside = m.top.join(".sync-rcu/snapshots");
            std::fs::create_dir_all(&aside).unwrap();
            std::fs::rename(m.top.join("over"), aside.join("7")).unwrap();
            m.ebuild(".sync-rcu/snapshots/7/app-misc/overlaid/overlaid-3", "amd64", "MIT");
            link("7", &aside.join("latest"));
            link(".sync-rcu/snapshots/latest", &m.top.join("over"));
        }),
        ("a profile linked by a directory of the repository", "package.use", |m| {
            link("base", &m.top.join("main/profiles/mine"));
            put(&m.top.join("main/profiles/base/package.use"), "app-misc/use -alpha\n");
            std::fs::remove_file(m.etc().join("package.use")).unwrap();
            std::fs::remove_file(m.etc().join("make.profile")).unwrap();
            link(m.top.join("main/profiles/mine"), &m.etc().join("make.profile"));
        }),
    ];

    fn add(machine: &Machine, name: &str, text: &str) {
        let path = machine.etc().join(name);
        let before = std::fs::read_to_string(&path).unwrap();
        put(&path, &(before + text));
    }

    /// A profile that takes away what package.use gives, by a parent beside it.
    fn own_profile(machine: &Machine) {
        let profile = machine.top.join("home/ada/profile");
        put(&profile.join("eapi"), "8\n");
        put(&profile.join("parent"), "../more\n");
        let more = machine.top.join("home/ada/more");
        put(&more.join("eapi"), "8\n");
        put(&more.join("parent"), &format!("main:base\n{}\n", machine.top.join("mask").display()));
        put(&machine.top.join("mask/eapi"), "8\n");
        put(&machine.top.join("mask/package.use.mask"), "app-misc/use alpha\n");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_portage_reads_by_other_ways_it_reads_in_the_sandbox() {
        let mut differing = Vec::new();
        let plain = Machine::new();
        FILES.iter().for_each(|(_, name, text)| put(&plain.etc().join(name), &plain.text(text)));
        let (plain, _) = plain.both().await;
        for (way, name, lay_out) in WAYS {
            let machine = Machine::new();
            FILES.iter().for_each(|(_, name, text)| put(&machine.etc().join(name), &machine.text(text)));
            lay_out(&machine);
            let (outside, inside) = machine.both().await;
            assert_ne!(outside[name], plain[name], "{way}: the way changes nothing");
            for (name, here) in &outside {
                if inside.get(name) != Some(here) {
                    differing.push(format!("{way}, {name}: {here} here, {:?} inside", inside.get(name)));
                }
            }
        }
        assert!(differing.is_empty(), "{differing:#?}");
    }

    /// What leads to something that no build is shown, and what is said of it.
    #[test]
    fn what_cannot_be_shown_is_an_error_that_names_the_file() {
        type Case = (&'static str, fn(&Machine) -> PathBuf, fn(&ReachError) -> bool);
        fn refused(error: &ReachError, wanted: Refusal) -> bool {
            matches!(error, ReachError::Refused { why, .. } if *why == wanted)
        }
        const CASES: [Case; 9] = [
            ("package.use", |_| "/".into(), |error| refused(error, Refusal::System)),
            ("package.use", |_| "/home".into(), |error| refused(error, Refusal::System)),
            ("env", |_| "/proc/self".into(), |error| refused(error, Refusal::Kernel)),
            ("patches", |m| m.top.join("root"), |error| refused(error, Refusal::System)),
            ("sets", |m| m.top.join("data"), |error| refused(error, Refusal::Node)),
            (
                "package.use",
                |m| {
                    std::fs::create_dir_all(m.top.join("ada/.ssh")).unwrap();
                    m.top.join("ada")
                },
                |error| refused(error, Refusal::Keys),
            ),
            (
                "package.use",
                |m| {
                    put(&m.etc().join("gnupg/secring"), "key");
                    m.etc().join("gnupg/secring")
                },
                |error| refused(error, Refusal::Secret),
            ),
            (
                "package.use",
                |m| {
                    put(&m.top.join("dots/credentials"), "password");
                    link(m.top.join("dots/credentials"), &m.etc().join("binrepos.conf"));
                    m.top.join("dots/credentials")
                },
                |error| refused(error, Refusal::Secret),
            ),
            (
                "patches",
                |m| {
                    let mut deep = m.top.join("deep");
                    deep.extend(std::iter::repeat_n("d", 40));
                    std::fs::create_dir_all(&deep).unwrap();
                    m.top.join("deep")
                },
                |error| matches!(error, ReachError::TooMany { .. }),
            ),
        ];
        for (name, target, is_meant) in CASES {
            let machine = Machine::new();
            let to = target(&machine);
            link(&to, &machine.etc().join(name));
            let error = machine.reach().unwrap_err();
            assert!(is_meant(&error), "{name} to {}: {error:?}", to.display());
            assert!(error.to_string().contains(&format!("etc/portage/{name}")), "{error}");
        }
    }

    #[test]
    fn what_nobody_else_may_read_is_named() {
        let is_mapped = matches!(sandbox::Identity::of_this_process(), sandbox::Identity::Mapped { .. });
        for name in ["make.conf", "package.use/own", "patches/app-misc/patch/a.patch", "env/fast.conf"] {
            let machine = Machine::new();
            let file = dots(&machine, "private", "x\n");
            link(&file, &machine.etc().join(name));
            // Not read by Portage.
            put(&machine.etc().join("package.use.d/.hidden"), "");
            put(&machine.etc().join("notes"), "");
            machine.reach().unwrap();
            for (path, mode) in [(&machine.etc().join("notes"), 0o600), (&file, 0o600)] {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            }
            let reached = machine.reach();
            assert_eq!(reached.is_err(), is_mapped, "{name}: {reached:?}");
            if let Err(error) = reached {
                let said = error.to_string();
                assert!(said.contains(name) && said.contains("dots/private") && said.contains("chmod o+r"), "{said}");
            }
        }
    }

    #[test]
    fn keys_and_credentials_are_hidden_wherever_they_are_reached() {
        let machine = Machine::new();
        let dots = machine.top.join("dots");
        for secret in ["gnupg/key", "binrepos.conf", "sets/.password-store/key", "sets/deeper/gnupg/key"] {
            put(&dots.join(secret), "secret");
        }
        put(&dots.join("sets/mine"), "app-misc/use\n");
        link(dots.join("gnupg"), &machine.etc().join("gnupg"));
        link(dots.join("binrepos.conf"), &machine.etc().join("binrepos.conf"));
        link(dots.join("sets"), &machine.etc().join("sets"));
        let reach = machine.reach().unwrap();
        assert_eq!(reach.shown.iter().collect::<Vec<_>>(), [&dots.join("sets")]);
        let etc = machine.etc();
        for hidden in [
            dots.join("gnupg"),
            dots.join("binrepos.conf"),
            dots.join("sets/deeper/gnupg"),
            etc.join("gnupg"),
            etc.join("binrepos.conf"),
        ] {
            assert!(reach.hidden.contains(&hidden), "{} in {:?}", hidden.display(), reach.hidden);
        }
        drop(machine.dir);
    }

    #[test]
    fn many_links_are_one_error_and_many_files_are_none() {
        let machine = Machine::new();
        for number in 0..3000 {
            put(&machine.top.join(format!("dots/patches/app-misc/patch/{number}.patch")), "x\n");
        }
        link(machine.top.join("dots/patches"), &machine.etc().join("patches"));
        let reach = machine.reach().unwrap();
        assert_eq!(reach.shown.len(), 1);
        for number in 0..3000 {
            link(
                machine.top.join(format!("dots/patches/app-misc/patch/{number}.patch")),
                &machine.etc().join(format!("env/{number}")),
            );
        }
        assert_eq!(machine.reach().unwrap().shown, reach.shown, "they lie in what is shown anyway");
        for number in 0..3000 {
            let one = machine.top.join(format!("other/{number}"));
            put(&one, "x\n");
            link(one, &machine.etc().join(format!("env/other-{number}")));
        }
        let error = machine.reach().unwrap_err();
        assert!(matches!(error, ReachError::TooMany { what: "links to elsewhere", .. }), "{error:?}");
    }
}
