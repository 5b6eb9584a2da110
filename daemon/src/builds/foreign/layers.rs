//! What another machine's configuration can set, asked of real Portage: every name that Portage, the recipe and this program
//! know, in every layer of a configuration.

#[cfg(test)]
mod tests {
    use crate::builds::domain_names::may_be_foreign;
    use serde::Deserialize;
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write as _;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};

    const PROBE: &str = concat!(
        "NAMES = r'''",
        include_str!("../names.txt"),
        "'''\n",
        include_str!("../variables.py"),
        include_str!("probe.py")
    );
    /// Portage finds its own places by these before it reads anything else: with them in a configuration there is no other machine
    /// to be asked. That no domain has them is another test's.
    const PLACES: [&str; 13] = [
        "BROOT",
        "EPREFIX",
        "EROOT",
        "ESYSROOT",
        "PORTAGE_CONFIGROOT",
        "PORTAGE_INST_GID",
        "PORTAGE_INST_UID",
        "PORTAGE_REPOSITORIES",
        "PORTDIR",
        "PORTDIR_OVERLAY",
        "ROOT",
        "SYSROOT",
        "SYNC",
    ];

    #[derive(Debug, Deserialize)]
    struct Answer {
        named: BTreeMap<String, String>,
        depend: BTreeMap<String, String>,
        compile: BTreeMap<String, String>,
        features: BTreeSet<String>,
        compilers: BTreeMap<String, Vec<String>>,
        native: String,
        #[serde(rename = "kept from ebuilds")]
        kept_from_ebuilds: BTreeSet<String>,
        all: BTreeSet<String>,
        #[serde(rename = "may be foreign")]
        may_be_foreign: BTreeSet<String>,
    }

    /// A repository with one ebuild, and the configuration of another machine.
    struct Machine {
        dir: tempfile::TempDir,
    }

    #[expect(clippy::disallowed_methods, reason = "a test makes its configuration")]
    fn put(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    impl Machine {
        fn new() -> Self {
            use md5::Digest as _;
            let machine = Self { dir: tempfile::tempdir().unwrap() };
            let repo = machine.repo();
            put(&repo.join("profiles/repo_name"), "main\n");
            put(&repo.join("profiles/eapi"), "8\n");
            put(&repo.join("profiles/arch.list"), "amd64\n");
            put(&repo.join("profiles/categories"), "app-misc\n");
            put(
                &repo.join("metadata/layout.conf"),
                "masters =\nprofile-formats = portage-2\nthin-manifests = true\ncache-formats = md5-dict\n",
            );
            put(&repo.join("profiles/base/eapi"), "8\n");
            put(
                &repo.join("profiles/base/make.defaults"),
                "ARCH=amd64\nACCEPT_KEYWORDS=amd64\nKERNEL=linux\nELIBC=glibc\nCHOST=x86_64-pc-linux-gnu\nCFLAGS=-O2\n\
             OF_PROFILE=x\nUSE_EXPAND=\"ELIBC KERNEL\"\n",
            );
            let values = "DESCRIPTION=x\nEAPI=8\nKEYWORDS=amd64\nSLOT=0\n";
            put(&repo.join("app-misc/one/one-1.ebuild"), values);
            let sum: String = md5::Md5::digest(values).iter().map(|byte| format!("{byte:02x}")).collect();
            put(&repo.join("metadata/md5-cache/app-misc/one-1"), &format!("DEFINED_PHASES=-\n{values}_md5_={sum}\n"));
            machine
        }

        fn repo(&self) -> PathBuf {
            self.dir.path().join("main")
        }

        fn etc(&self, place: &str) -> PathBuf {
            self.dir.path().join("root/etc/portage").join(place)
        }

        /// The configuration in which one layer says this, whatever this program would let through.
        fn layer(&self, layer: Layer, text: &str) {
            let _absent = std::fs::remove_dir_all(self.etc(""));
            put(&self.etc("make.conf"), "");
            if layer != Layer::Parent {
                symlink(self.repo().join("profiles/base"), self.etc("make.profile")).unwrap();
            }
            match layer {
                Layer::MakeConf => put(&self.etc("make.conf"), text),
                Layer::PackageEnv | Layer::PackageEnvOfAll => {
                    let atom = if layer == Layer::PackageEnv { "app-misc/one" } else { "*/*" };
                    put(&self.etc("package.env"), &format!("{atom} file\n"));
                    put(&self.etc("env/file"), text);
                }
                Layer::Profile => put(&self.etc("profile/make.defaults"), text),
                Layer::Parent => {
                    put(&self.etc("make.profile/eapi"), "8\n");
                    put(&self.etc("make.profile/parent"), "main:base\n");
                    put(&self.etc("make.profile/make.defaults"), text);
                }
            }
        }

        /// What Portage says. `recipe` are the names of a recipe, once there is one.
        #[expect(clippy::disallowed_methods, reason = "tests may read the environment and start processes")]
        fn ask(&self, names: &BTreeSet<String>, recipe: Option<&BTreeSet<String>>, compilers: &[&str]) -> Answer {
            let python = std::env::var_os("PEERAGE_PYTHON").expect("PEERAGE_PYTHON is set by ./test");
            let portage = std::env::var_os("PEERAGE_PORTAGE").expect("PEERAGE_PORTAGE is set by ./test");
            let globals = PathBuf::from(portage).join("share/portage/config");
            let words = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(" ");
            let mut command = Command::new(python);
            command
                .args(["-I", "-c", PROBE])
                .arg(globals)
                .args(compilers)
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .env("HOME", "/var/tmp");
            command.env("PORTAGE_CONFIGROOT", self.dir.path().join("root")).env("PEERAGE_FOREIGN", "1");
            command.env("PORTAGE_TMPDIR", "/var/tmp").env("FEATURES", "-news").env("PORTAGE_OVERRIDE_EPREFIX", "");
            let repo = self.repo();
            let repositories = format!("[DEFAULT]\nmain-repo = main\n[main]\nlocation = {}\n", repo.display());
            command.env("PORTAGE_REPOSITORIES", repositories).env("PEERAGE_VARIABLES", words(names));
            if let Some(recipe) = recipe {
                command.env("PEERAGE_RECIPE", words(recipe));
            }
            let mut child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("Python starts");
            child.stdin.take().unwrap().write_all(words(names).as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Layer {
        MakeConf,
        PackageEnv,
        PackageEnvOfAll,
        Profile,
        Parent,
    }

    const LAYERS: [Layer; 5] =
        [Layer::MakeConf, Layer::PackageEnv, Layer::PackageEnvOfAll, Layer::Profile, Layer::Parent];

    /// Each name with a value that says where it comes from.
    fn all_set(names: &BTreeSet<String>) -> String {
        names.iter().fold(String::new(), |mut text, name| {
            writeln!(text, "{name}=\"foreign-{name}\"").unwrap();
            text
        })
    }

    /// Those with words that came from the other machine.
    fn foreign(environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let said = |value: &String| value.contains("foreign-");
        environment.iter().filter(|(_, value)| said(value)).map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// MAKEOPTS in a profile's make.defaults reached `make` and was in no recipe: an honest fingerprint for another package.
    #[test]
    fn whatever_a_domain_sets_in_whatever_layer_reaches_an_ebuild_only_as_its_recipe_says() {
        let machine = Machine::new();
        machine.layer(Layer::MakeConf, "");
        let mut names = machine.ask(&BTreeSet::new(), None, &[]).all;
        assert!(names.len() > 300, "{names:?}");
        names.extend(["NOBODY_KNOWS", "OF_PROFILE", "VIDEO_CARDS", "LESSCHARSET"].map(str::to_owned));
        // Portage makes other variables of LC_ALL: by itself, below. The words of FEATURES are cut when a domain is laid out.
        let is_asked =
            |name: &String| !PLACES.contains(&name.as_str()) && !["LC_ALL", "FEATURES"].contains(&name.as_str());
        names.retain(|name| is_asked(name) && crate::config_build::is_variable(name));
        let mut reached = BTreeSet::new();
        for layer in LAYERS {
            machine.layer(layer, &all_set(&names));
            let planned = machine.ask(&names, None, &[]);
            let named: BTreeSet<String> = planned.named.keys().cloned().collect();
            let built = machine.ask(&names, Some(&named), &[]);
            for answer in [&planned, &built] {
                for (name, value) in foreign(&answer.compile) {
                    assert_eq!(
                        planned.named.get(&name),
                        Some(&value),
                        "{name} in {layer:?} reaches, and is in no recipe"
                    );
                    assert!(may_be_foreign(&name), "{name} in {layer:?}");
                }
                assert_eq!(foreign(&answer.depend), BTreeMap::new(), "{layer:?}: before there is a recipe");
            }
            assert_eq!(foreign(&built.compile), foreign(&planned.named), "{layer:?}: and all of it reaches");
            let of_nothing = machine.ask(&names, Some(&BTreeSet::new()), &[]);
            assert_eq!(foreign(&of_nothing.compile), BTreeMap::new(), "{layer:?}: with a recipe that names nothing");
            reached.extend(foreign(&built.compile).into_keys());
        }
        for name in ["CFLAGS", "EXTRA_ECONF", "LDFLAGS", "NOBODY_KNOWS", "OF_PROFILE"] {
            assert!(reached.contains(name), "{name} is what a domain is for: {reached:?}");
        }
    }

    #[test]
    fn what_portage_makes_of_a_variable_of_a_domain_reaches_an_ebuild_as_that_variable_does() {
        let machine = Machine::new();
        machine.layer(Layer::MakeConf, "LC_ALL=\"foreign-LC_ALL\"\n");
        let of_nothing = machine.ask(&BTreeSet::new(), Some(&BTreeSet::new()), &[]);
        assert_eq!(foreign(&of_nothing.compile), BTreeMap::new());
        let planned = machine.ask(&BTreeSet::new(), None, &[]);
        assert_eq!(planned.named.get("LC_ALL").map(String::as_str), Some("foreign-LC_ALL"));
        let built = machine.ask(&BTreeSet::new(), Some(&planned.named.into_keys().collect()), &[]);
        assert_eq!(built.compile.get("LC_MESSAGES").map(String::as_str), Some("foreign-LC_ALL"));
    }

    /// A recipe does not say what is empty: an empty variable can take away what is there, and not be where there is none.
    #[test]
    fn an_empty_variable_of_a_domain_is_there_only_where_the_recipe_tells_it_from_none() {
        let machine = Machine::new();
        let names: BTreeSet<String> = ["SED", "CFLAGS", "PORTAGE_COMPRESS", "OF_PROFILE"].map(str::to_owned).into();
        let text: String = names.iter().map(|name| format!("{name}=\"\"\n")).collect();
        for layer in LAYERS {
            machine.layer(layer, &text);
            let answer = machine.ask(&names, None, &[]);
            let of = |name: &str| answer.compile.get(name).map(String::as_str);
            assert_eq!(of("SED"), None, "{layer:?}");
            assert_eq!(
                (of("PORTAGE_COMPRESS"), of("OF_PROFILE"), of("CFLAGS")),
                (Some(""), Some(""), Some("")),
                "{layer:?}"
            );
        }
    }

    #[test]
    fn the_list_of_names_means_the_same_here_and_inside_and_knows_what_portage_keeps_from_ebuilds() {
        let machine = Machine::new();
        machine.layer(Layer::MakeConf, "");
        let mut names = machine.ask(&BTreeSet::new(), None, &[]).all;
        for family in
            ["LD_X", "BASHX", "PYTHONX", "PYTHON_X", "PYTHON", "USE_EXPAND_X", "XYZ", "X_proxy", "PORTAGE_X", "__x"]
        {
            names.insert(family.to_owned());
        }
        names.retain(|name| crate::config_build::is_variable(name));
        let answer = machine.ask(&names, None, &[]);
        let ours: BTreeSet<String> = names.iter().filter(|name| may_be_foreign(name)).cloned().collect();
        assert_eq!(ours, answer.may_be_foreign);
        // But for what chooses packages: Portage needs it, and no ebuild gets it.
        let chooses = |name: &String| name.starts_with("ACCEPT_") || name.starts_with("USE_EXPAND");
        let missing: Vec<String> =
            answer.kept_from_ebuilds.into_iter().filter(|name| may_be_foreign(name) && !chooses(name)).collect();
        assert_eq!(missing, Vec::<String>::new());
    }

    /// `CC --version` is asked before there is a recipe: what else runs there could write any answer.
    #[test]
    fn of_another_machines_compiler_only_the_name_is_run_and_its_native_is_not_asked_for() {
        let machine = Machine::new();
        machine.layer(Layer::MakeConf, "");
        let runs = ["gcc", "gcc -m32", "x86_64-pc-linux-gnu-gcc-12", "clang-17 --target=x", "g++", "c++"];
        let refused =
            ["sh -c id", "/bin/gcc", "./gcc", "../gcc", "make -f x", "gcc;id", "env gcc", "python3", "gcc\nid"];
        let values: Vec<&str> = runs.into_iter().chain(refused).collect();
        let answer = machine.ask(&BTreeSet::new(), None, &values);
        for value in runs {
            assert_eq!(answer.compilers[value], [value.split(' ').next().unwrap()], "{value}");
        }
        for value in refused.iter().filter(|value| **value != "gcc\nid") {
            assert_eq!(answer.compilers[*value], ["false", "trouble"], "{value}");
        }
        assert_eq!(answer.compilers["gcc\nid"], ["gcc"], "the rest is not run");
        assert_eq!(answer.native, "-O2 -march=native");
        assert!(!answer.features.contains("news"), "what the node says counts");
    }
}
