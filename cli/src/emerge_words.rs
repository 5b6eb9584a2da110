//! The words of `emerge`, as far as `peer emerge` must understand them: what is to be installed, and whether anything is.
//!
//! Whatever is not understood goes straight to emerge: it decides what its words mean.

use crate::emerge_options::{Parsed, parse};
use daemon::api_builds::PlanOption;
use std::ffi::OsString;
use std::path::PathBuf;
use tree::shell_words::split;

/// Actions that install nothing, and options with which something else is made than the packages that are named: emerge is
/// left alone with them.
const OF_EMERGE: &[&str] = &[
    "buildpkgonly",
    "clean",
    "check-news",
    "config",
    "depclean",
    "deselect",
    "fetch-all-uri",
    "fetchonly",
    "help",
    "info",
    "list-sets",
    "metadata",
    "moo",
    "nobindeps",
    "nodeps",
    "onlydeps",
    "onlydeps-with-ideps",
    "onlydeps-with-rdeps",
    "prefix",
    "prune",
    "quickpkg-direct",
    "quickpkg-direct-root",
    "rage-clean",
    "regen",
    "resume",
    "root",
    "root-deps",
    "search",
    "searchdesc",
    "skip-first",
    "skipfirst",
    "status",
    "sync",
    "sync-submodule",
    "sysroot",
    "unmerge",
    "version",
];
/// Which options the plan is made with.
const PLANNED: &[(&str, PlanOption)] = &[
    ("update", PlanOption::Update),
    ("newuse", PlanOption::Newuse),
    ("changed-use", PlanOption::ChangedUse),
    ("emptytree", PlanOption::Emptytree),
];
/// With these the user has said where binary packages are taken from.
const SAY_BINARIES: &[&str] = &["getbinpkg", "getbinpkgonly", "usepkg", "usepkgonly"];
/// With these emerge shows its list, or asks.
const SHOW: &[&str] = &["ask", "tree", "verbose", "ignore-default-opts"];

/// What a command line of emerge asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// What is to be installed: atoms and sets, as emerge takes them.
    pub(crate) atoms: Vec<String>,
    /// How the plan is made.
    pub(crate) options: Vec<PlanOption>,
    /// Whether emerge only shows: then nothing is made before.
    pub(crate) pretends: bool,
    /// Whether it is to ask first: then nothing is made before the answer.
    pub(crate) asks: bool,
    /// Whether the user said where binary packages are taken from.
    pub(crate) says_binaries: bool,
    /// Where Portage's configuration is, if the words say so.
    pub(crate) config_root: Option<PathBuf>,
    /// Whether nothing at all is no answer.
    pub(crate) enter_invalid: bool,
    /// Whether the bell is rung with a question.
    pub(crate) alert: bool,
    /// All of it, taken apart.
    parsed: Parsed,
}

/// Puts `--` behind the verb `emerge`, so that every word that follows is for emerge, as `--help` and `--quiet` are. Only `--on`
/// is no word of emerge's, and goes before it.
pub(crate) fn set_apart(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut apart = Vec::new();
    let mut words = words.peekable();
    apart.extend(words.next());
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        apart.push(word);
        if text == "--control" {
            apart.extend(words.next());
        } else if !text.starts_with('-') {
            if text == "emerge" {
                let (ours, theirs) = ours_and_theirs(words.by_ref());
                apart.extend(ours.into_iter().chain([OsString::from("--")]).chain(theirs));
            }
            break;
        }
    }
    apart.extend(words);
    apart
}

fn ours_and_theirs(mut words: impl Iterator<Item = OsString>) -> (Vec<OsString>, Vec<OsString>) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--on") => ours.extend([word].into_iter().chain(words.next())),
            Some(text) if text.starts_with("--on=") => ours.push(word),
            Some("--") => {
                theirs.extend([word].into_iter().chain(words.by_ref()));
            }
            _ => theirs.push(word),
        }
    }
    (ours, theirs)
}

/// Reads the words, with those of `EMERGE_DEFAULT_OPTS` before them as emerge puts them there. None when they install nothing, or are not
/// understood as a whole.
pub(crate) fn read(words: &[String], default: &str) -> Option<Asked> {
    let alone = parse(words)?;
    let parsed = if alone.has("ignore-default-opts") {
        alone
    } else {
        let mut all = split(default).ok()?;
        all.extend(words.iter().cloned());
        parse(&all)?
    };
    // `--deselect=n` and the like deselect nothing.
    let off = |name: &str| parsed.value(name) == Some("n");
    if OF_EMERGE.iter().any(|name| parsed.has(name) && !off(name)) {
        return None;
    }
    let atoms: Vec<String> = parsed.others.iter().map(|word| atom(word)).collect::<Option<_>>()?;
    if atoms.is_empty() {
        return None;
    }
    let pretends = parsed.has("pretend");
    Some(Asked {
        atoms,
        options: options(&parsed),
        pretends,
        asks: parsed.is_on("ask") && !pretends,
        says_binaries: SAY_BINARIES.iter().any(|name| parsed.has(name)),
        config_root: parsed.value("config-root").map(PathBuf::from),
        enter_invalid: parsed.has("ask-enter-invalid"),
        alert: parsed.is_on("alert"),
        parsed,
    })
}

fn options(parsed: &Parsed) -> Vec<PlanOption> {
    let said = PLANNED.iter().filter(|(name, _)| parsed.has(name)).map(|(_, option)| *option);
    let mut options: Vec<PlanOption> = said.collect();
    if parsed.value("deep").is_some_and(|depth| !depth.trim_start_matches(['0', '+', '_']).is_empty()) {
        options.push(PlanOption::Deep);
    }
    if parsed.value("reinstall").is_some() && !options.contains(&PlanOption::ChangedUse) {
        options.push(PlanOption::ChangedUse);
    }
    options.sort_unstable();
    options
}

impl Asked {
    /// Words with which emerge only shows what it would do.
    pub(crate) fn pretending(&self) -> Vec<String> {
        let mut words = vec!["--ignore-default-opts".to_owned(), "--pretend".to_owned()];
        words.extend(self.parsed.without(&["ask", "ignore-default-opts"]));
        words
    }

    /// Words with which it does it, neither asking nor showing its list again.
    pub(crate) fn answered(&self) -> Vec<String> {
        let mut words = vec!["--ignore-default-opts".to_owned(), "--ask=n".to_owned()];
        words.extend(self.parsed.without(SHOW));
        words
    }
}

/// None for files and paths, which only emerge knows what to do with.
fn atom(word: &str) -> Option<String> {
    match word {
        "world" | "system" | "selected" => Some(format!("@{word}")),
        path if path.starts_with(['/', '.'])
            || path.ends_with(".ebuild")
            || path.ends_with(".tar")
            || path.ends_with(".tbz2")
            || path.ends_with(".xpak") =>
        {
            None
        }
        _ => Some(word.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_installed_and_how_is_read_as_emerge_reads_it() {
        use PlanOption::{ChangedUse, Deep, Emptytree, Newuse, Update};
        for (line, atoms, options, looks, says) in [
            ("htop", "htop", vec![], false, false),
            ("-uDN @world", "@world", vec![Update, Deep, Newuse], false, false),
            ("-auDU world", "@world", vec![Update, Deep, ChangedUse], true, false),
            ("--ask=n -u a/b", "a/b", vec![Update], false, false),
            ("--ask n a/b", "a/b", vec![], false, false),
            ("-a n a/b", "a/b", vec![], false, false),
            ("-pv --jobs 4 -l 2.5 -j4 a/b c/d", "a/b c/d", vec![], true, false),
            ("--exclude x/y -X z/z --deep 3 a/b", "a/b", vec![Deep], false, false),
            ("-gK a/b", "a/b", vec![], false, true),
            ("--getbinpkg=n =a/b-1:0[ssl,-nls]", "=a/b-1:0[ssl,-nls]", vec![], false, true),
            ("-1 -- a/b", "a/b", vec![], false, false),
            ("--emptytree a/b", "a/b", vec![Emptytree], false, false),
        ] {
            let asked = read(&words(line), "").unwrap_or_else(|| panic!("{line} installs something"));
            let got = (asked.atoms.join(" "), asked.options, asked.asks || asked.pretends, asked.says_binaries);
            assert_eq!(got, (atoms.to_owned(), options, looks, says), "{line}");
        }
        assert_eq!(read(&words("--config-root /x a/b"), "").unwrap().config_root, Some("/x".into()));
    }

    #[test]
    fn everything_else_goes_straight_to_emerge() {
        for line in [
            "",
            "--sync",
            "--search htop",
            "-s htop",
            "-S htop",
            "-C a/b",
            "--depclean",
            "-c a/b",
            "--info",
            "-V",
            "--version",
            "--resume",
            "-r",
            "-f a/b",
            "--fetchonly a/b",
            "-B a/b",
            "-o a/b",
            "-O a/b",
            "--root /mnt a/b",
            "--help",
            "-h",
            "./one-1.0.ebuild",
            "/usr/lib/libz.so",
            "--unknown a/b",
            "--config a/b",
            "--deselect a/b",
            "-W a/b",
            "--exclude",
        ] {
            assert_eq!(read(&words(line), ""), None, "{line}");
        }
    }

    /// A line of make.conf, the variable of the environment, and the words of the command line.
    const FORMS: &[(&str, Option<&str>, &str)] = &[
        ("", None, "-auvDN @world"),
        ("", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask --verbose\"", None, "-uDN @world"),
        ("EMERGE_DEFAULT_OPTS=\"-av\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS='--ask --exclude \"sys-kernel/* dev-lang/rust\"'", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask --exclude=\\\"x/y z/z\\\" --jobs 4\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask --exclude 'x/y z/z' -v\"", None, "@world"),
        ("EMERGE_DEFAULT_OPTS=\"'--ask' \\\"--verbose\\\"\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask\\n--verbose\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask\n  --jobs=3\n  --load-average=2.5\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--jobs --ask\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--jobs 4 --keep-going --with-bdeps=y --quiet-build=y\"", None, "-uD @world"),
        ("EMERGE_DEFAULT_OPTS=\"-j4 -l 3.5 --tree\"", None, "a/b"),
        ("X=\"--ask\"\nEMERGE_DEFAULT_OPTS=\"${X} -v\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--verbose\"\nEMERGE_DEFAULT_OPTS=\"${EMERGE_DEFAULT_OPTS} --ask\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask\"", None, "--ask=n a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask\"", None, "--ask n a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask\"", None, "-a n a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask=n\"", None, "-a a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask y\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask\"", None, "--pretend a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask\"", None, "-p a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask --pretend\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask\"", None, "--ignore-default-opts a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask\"", None, "--ignore-default-opts -v a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ignore-default-opts --ask\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask\"", Some("--verbose"), "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask\"", Some(""), "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--verbose\"", Some("--ask '--exclude=x/y z/z'"), "a/b"),
        ("", Some("--ask"), "--ask=n a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask --exclude 'x/y\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask \\\\\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask # --verbose\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--no-such-option\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask-enter-invalid --alert --ask\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"-aA\"", None, "a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--fetchonly\"", None, "-a a/b"),
        ("EMERGE_DEFAULT_OPTS=\"--ask\"", None, "--sync"),
        ("EMERGE_DEFAULT_OPTS=\"--getbinpkg --usepkg\"", None, "-a a/b"),
        ("", None, "-avuDN @world"),
        ("", None, "-auDU --with-bdeps=y @world"),
        ("", None, "-uND -a @world"),
        ("", None, "-1av a/b"),
        ("", None, "-av1 a/b c/d"),
        ("", None, "-vaj4 a/b"),
        ("", None, "-j4 -av a/b"),
        ("", None, "-j 4 -a a/b"),
        ("", None, "-jav a/b"),
        ("", None, "-aD 3 a/b"),
        ("", None, "-D 0 -u a/b"),
        ("", None, "--deep=0 -u a/b"),
        ("", None, "--deep=2 -u a/b"),
        ("", None, "--deep y"),
        ("", None, "-an a/b"),
        ("", None, "-a y a/b"),
        ("", None, "--upd --newu --dee a/b"),
        ("", None, "--as a/b"),
        ("", None, "--ask-e -a a/b"),
        ("", None, "--pret a/b"),
        ("", None, "--verb a/b"),
        ("", None, "--verbose-c a/b"),
        ("", None, "--excl x/y a/b"),
        ("", None, "--ask=maybe a/b"),
        ("", None, "--update=y a/b"),
        ("", None, "-aX x/y a/b"),
        ("", None, "-aX"),
        ("", None, "-avt a/b"),
        ("", None, "-qa a/b"),
        ("", None, "-qvta --quiet=n a/b"),
        ("", None, "--ask -- a/b"),
        ("", None, "a/b -- --ask"),
        ("", None, "a/b --ask c/d -u"),
        ("", None, "--reinstall changed-use -a a/b"),
        ("", None, "--color=maybe a/b"),
        ("", None, "-av --jobs y a/b"),
        ("", None, "--usepkg=n -g -a a/b"),
        ("", None, "-Wa a/b"),
        ("", None, "--deselect=n a/b"),
        ("", None, "-5 a/b"),
    ];

    /// What Portage says of each; None where there is none to ask.
    #[expect(clippy::disallowed_methods, reason = "a test may read the environment and start processes")]
    fn portage(questions: &[serde_json::Value]) -> Option<Vec<serde_json::Value>> {
        use std::io::Write as _;
        let Some(python) = std::env::var_os("PEERAGE_PYTHON").filter(|python| !python.is_empty()) else {
            assert!(std::env::var_os("CI").is_none(), "PEERAGE_PYTHON names no Python with Portage, and this is CI");
            return None;
        };
        let text: String = questions.iter().map(|question| format!("{question}\n")).collect();
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        std::io::Seek::rewind(&mut input).unwrap();
        let mut command = std::process::Command::new(python);
        command.arg("-c").arg(include_str!("emerge_answers.py")).stdin(input);
        let output = command.output().expect("the Python of PEERAGE_PYTHON starts");
        let said = String::from_utf8_lossy(&output.stdout);
        let answers: Vec<_> = said.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        assert_eq!(answers.len(), questions.len(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(answers)
    }

    /// The same of what is read here.
    fn ours(asked: &Asked) -> serde_json::Value {
        let parsed = &asked.parsed;
        let on = |names: &[&'static str]| -> Vec<String> {
            let on =
                names.iter().filter(|name| parsed.is_on(name) || (parsed.has(name) && parsed.value(name).is_none()));
            on.map(|name| format!("--{name}")).collect()
        };
        let mut plan: Vec<String> = on(&["update", "newuse", "emptytree"]);
        let (deep, changed) = (PlanOption::Deep, PlanOption::ChangedUse);
        plan.extend(
            [deep, changed]
                .iter()
                .filter(|option| asked.options.contains(option))
                .map(|option| option.flag().to_owned()),
        );
        let jobs = match parsed.value("jobs") {
            None | Some("n") => serde_json::Value::Null,
            Some("True" | "y") => true.into(),
            Some(number) => number.parse::<u64>().unwrap().into(),
        };
        let excluded = parsed.options.iter().filter(|option| option.name == "exclude");
        let excluded: Vec<_> = excluded.filter_map(|option| option.value.clone()).collect();
        serde_json::json!({
            "others": parsed.others,
            "asks": asked.asks,
            "pretends": asked.pretends,
            "shows": on(&["quiet", "tree", "verbose"]),
            "plan": plan,
            "binaries": on(SAY_BINARIES),
            "jobs": jobs,
            "exclude": if excluded.is_empty() { serde_json::Value::Null } else { excluded.into() },
            "enter_invalid": asked.enter_invalid,
            "alert": asked.alert,
        })
    }

    #[test]
    fn every_form_of_the_words_and_of_the_default_options_is_read_as_portage_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut questions = Vec::new();
        for (at, (make_conf, environment, arguments)) in FORMS.iter().enumerate() {
            let root = dir.path().join(at.to_string());
            let etc = root.join("etc/portage");
            std::fs::create_dir_all(&etc).unwrap();
            store_text(&etc.join("make.conf"), &format!("{make_conf}\n"));
            questions.push(serde_json::json!({
                "root": root, "environment": environment, "arguments": words(arguments),
            }));
        }
        let Some(answers) = portage(&questions) else { return };
        let mut differing = Vec::new();
        for (((make_conf, environment, arguments), question), theirs) in FORMS.iter().zip(&questions).zip(&answers) {
            let root = PathBuf::from(question["root"].as_str().unwrap());
            let make_conf_read = tree::conf::MakeConf::load(&root).unwrap();
            let of_file = make_conf_read.get("EMERGE_DEFAULT_OPTS").unwrap_or_default();
            let read = read(&words(arguments), environment.unwrap_or(of_file));
            let left = theirs.get("wrong").or(theirs.get("action")).is_some() || arguments.is_empty();
            let same = match &read {
                // Emerge is left alone with more than it refuses.
                None => left || make_conf.contains("fetchonly"),
                Some(asked) => ours(asked) == *theirs,
            };
            if !same {
                let ours = read.as_ref().map(ours);
                differing.push(format!(
                    "{make_conf:?} {environment:?} {arguments}\n  ours:    {ours:?}\n  Portage: {theirs}"
                ));
            }
        }
        assert!(differing.is_empty(), "{} of {} differ:\n{}", differing.len(), FORMS.len(), differing.join("\n"));
        // What emerge is called with after its question is the same, without the question and the list.
        let (mut again, mut expected) = (Vec::new(), Vec::new());
        for (question, theirs) in questions.iter().zip(&answers).filter(|(_, theirs)| theirs["asks"] == true) {
            let arguments: Vec<String> = serde_json::from_value(question["arguments"].clone()).unwrap();
            let root = PathBuf::from(question["root"].as_str().unwrap());
            let of_file = tree::conf::MakeConf::load(&root).unwrap();
            let of_file = of_file.get("EMERGE_DEFAULT_OPTS").unwrap_or_default().to_owned();
            let default = question["environment"].as_str().map_or(of_file, str::to_owned);
            let Some(asked) = read(&arguments, &default) else { continue };
            let mut after = theirs.clone();
            after["asks"] = false.into();
            after["shows"].as_array_mut().unwrap().retain(|name| name == "--quiet");
            let mut before = theirs.clone();
            (before["asks"], before["pretends"]) = (false.into(), true.into());
            for (words, answer) in [(asked.answered(), after), (asked.pretending(), before)] {
                again.push(serde_json::json!({ "root": root, "environment": "--ask", "arguments": words }));
                expected.push(answer);
            }
        }
        assert!(again.len() > 50, "{}", again.len());
        for ((said, expected), question) in portage(&again).unwrap().iter().zip(&expected).zip(&again) {
            assert_eq!(said, expected, "{question}");
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test writes what it reads")]
    fn store_text(path: &std::path::Path, text: &str) {
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn every_word_behind_the_verb_is_set_apart() {
        let apart = |line: &str| -> String {
            let words = set_apart(line.split(' ').map(OsString::from));
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(apart("peer emerge --help -q"), "peer emerge -- --help -q");
        assert_eq!(apart("peer --control emerge --quiet emerge -p x"), "peer --control emerge --quiet emerge -- -p x");
        assert_eq!(apart("peer emerge --on strong -auvDN @world"), "peer emerge --on strong -- -auvDN @world");
        assert_eq!(apart("peer emerge -a @world --on=any -v"), "peer emerge --on=any -- -a @world -v");
        assert_eq!(apart("peer emerge -- --on x"), "peer emerge -- -- --on x");
        assert_eq!(apart("peer build emerge"), "peer build emerge");
        assert_eq!(apart("peer"), "peer");
    }
}
