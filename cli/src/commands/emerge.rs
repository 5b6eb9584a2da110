//! `peer emerge`: what can be had as a binary package is made ready, then the real emerge does its work.
//!
//! **Invariants.** Nothing is made or fetched before a question of emerge's is answered with yes, and only what was shown then
//! is merged. Whatever fails before is said in one line, and emerge runs as it would without this program, but where the user
//! named the machine that is to build; the exit code is emerge's.

use crate::Around;
use crate::client::Client;
use crate::commands::build::build_to_the_end;
use crate::commands::weather::{ask, state_word, sum};
use crate::emerge_words::{Asked, read};
use crate::exit::{Exit, Failure};
use crate::merge_list::{Heard, MergeList};
use crate::output::Output;
use crate::question::{MergeQuestion, can_be_asked};
use clap::Args;
use daemon::api::Status;
use daemon::api_builds::BuildRequest;
use daemon::api_questions::{Outlook, WeatherAnswer, WeatherRequest};
use daemon::portage::{Stage, hand_over, overhear, program};
use daemon::setup::{Portage, names_binhost};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tree::conf::MakeConf;

/// Misses that are told one by one.
const MISSES_MAX: usize = 8;
/// How emerge is told to take binary packages from binhosts.
const GETBINPKG: &str = "--getbinpkg";
/// A list that is only read.
const UNSEEN: [&str; 2] = ["--color=n", "--nospinner"];
/// What emerge asks.
const QUESTION: &str = "Would you like to merge these packages?";

/// Run emerge, with everything ready before that can be had as a binary package.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    long_about = "Run emerge, with everything ready before that can be had as a binary package.\n\n\
    All words behind `emerge` but --on are for emerge. If they install something, the weather is told, then what others have \
    is fetched, what the configuration or --on lets others build is built there ([offload] builds) or here in the sandbox \
    ([build] on_miss), and emerge is run with --getbinpkg in front, unless the words say where binary packages come from or \
    binrepos.conf does not name this node. With --pretend nothing is made. With --ask, also that of EMERGE_DEFAULT_OPTS, \
    emerge's own list is shown and one question is asked before anything is made; then only what was shown is merged, and \
    emerge asks again if its list has changed meanwhile. A step that fails is said in one line, and emerge runs all the same, \
    but where --on names one machine: what is not built there is not built here instead. The exit code is emerge's."
)]
pub(crate) struct EmergeArgs {
    /// Where to build what nobody has: `local`, `any` machine of the group that builds for others, or that one
    #[arg(long, value_name = "PEER|local|any")]
    on: Option<String>,
    /// What emerge takes
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// What is to be done with the words.
enum Course {
    /// Emerge gets these.
    Emerge(Vec<OsString>),
    /// It is not run.
    End(Exit),
}

/// One run of this verb.
struct Wrapped<'a> {
    emerge: &'a Path,
    given: &'a [OsString],
    on: Option<&'a str>,
    client: &'a Client,
    around: &'a Around,
    out: &'a Output,
}

pub(crate) async fn run(args: &EmergeArgs, client: &Client, around: &Around, out: &Output) -> Result<Exit, Failure> {
    let Some(emerge) = program(&around.path, "emerge") else {
        let what = "there is no emerge in the PATH".to_owned();
        return Err(Failure::Usage { what, hint: "`peer build` makes binary packages without it".to_owned() });
    };
    let out = out.aside();
    let wrapped = Wrapped { emerge: &emerge, given: &args.args, on: args.on.as_deref(), client, around, out: &out };
    let course = match understood(&args.args, around, &out) {
        // Emerge says itself that nobody can be asked.
        Some(asked) if !asked.asks || can_be_asked() => wrapped.prepare(&asked).await?,
        _ => wrapped.alone(),
    };
    match course {
        Course::End(exit) => Ok(exit),
        Course::Emerge(words) => {
            Err(Failure::local(format!("cannot run {}", emerge.display()), hand_over(&emerge, &words)))
        }
    }
}

/// What the words ask for, with those of `EMERGE_DEFAULT_OPTS`, of the environment or of make.conf, before them.
fn understood(args: &[OsString], around: &Around, out: &Output) -> Option<Asked> {
    let given: Vec<String> = args.iter().map(|word| word.to_str().map(str::to_owned)).collect::<Option<_>>()?;
    let alone = read(&given, "")?;
    let default = match &around.emerge_default_opts {
        Some(default) => default.to_str()?.to_owned(),
        None => match MakeConf::load(&config_root(&alone, around)) {
            Ok(make_conf) => make_conf.get("EMERGE_DEFAULT_OPTS").unwrap_or_default().to_owned(),
            Err(error) => {
                let failure = Failure::local("cannot tell EMERGE_DEFAULT_OPTS", error);
                out.say(&format!("peer: {failure}; emerge runs alone"));
                return None;
            }
        },
    };
    read(&given, &default)
}

fn config_root(asked: &Asked, around: &Around) -> PathBuf {
    let named = asked.config_root.clone().or_else(|| around.portage_configroot.clone());
    named.unwrap_or_else(|| PathBuf::from("/"))
}

impl Wrapped<'_> {
    /// Emerge with its own words.
    fn alone(&self) -> Course {
        Course::Emerge(self.given.to_vec())
    }

    /// The user's words, with a word for binhosts before them where emerge is to ask them.
    fn words(&self, binaries: bool) -> Course {
        let before = binaries.then(|| OsString::from(GETBINPKG));
        Course::Emerge(before.into_iter().chain(self.given.iter().cloned()).collect())
    }

    /// Tells the weather, makes ready what may be, and says what emerge is to be told. Only an interrupt is a failure, and what
    /// the one named machine does not do.
    async fn prepare(&self, asked: &Asked) -> Result<Course, Failure> {
        let weather = match self.weather(asked).await {
            Err(failure @ Failure::Interrupted { .. }) => return Err(failure),
            Err(failure @ Failure::Unreachable { .. }) if !self.named() => {
                self.out.say(&format!("peer: {failure}; emerge runs alone"));
                return Ok(self.alone());
            }
            Err(failure) if self.named() => return Err(failure),
            Err(failure) => {
                self.out.say(&format!("peer: {failure}; emerge goes on without"));
                None
            }
            Ok(weather) => weather,
        };
        let binaries = self.binaries(asked).await;
        // Why there is no plan has been said; emerge says it again, and what else it knows.
        let Some(weather) = weather else { return Ok(self.words(binaries)) };
        if weather.totals.ahead == 0 || asked.pretends {
            self.tell(&weather);
            return Ok(self.words(binaries));
        }
        if asked.asks {
            return self.ask_first(asked, &weather, binaries).await;
        }
        self.tell(&weather);
        Ok(if self.make(asked, &weather, Vec::new()).await? { self.words(binaries) } else { Course::End(Exit::No) })
    }

    /// Whether the user named the one machine that is to build.
    fn named(&self) -> bool {
        self.on.is_some_and(|on| !["any", "local"].contains(&on))
    }

    async fn weather(&self, asked: &Asked) -> Result<Option<WeatherAnswer>, Failure> {
        let request = WeatherRequest {
            atoms: asked.atoms.clone(),
            options: asked.options.clone(),
            domain: None,
            on: self.on.map(str::to_owned),
        };
        tokio::select! {
            biased;
            answer = ask("tell the weather", "/v1/weather", &request, self.client, self.out) => answer,
            _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted { kept: "nothing was begun".to_owned() }),
        }
    }

    fn tell(&self, weather: &WeatherAnswer) {
        self.out.say(&format!("peer: {}", sum(&weather.totals)));
        misses(weather).iter().for_each(|line| self.out.say(line));
    }

    /// Whether emerge is to ask binhosts.
    async fn binaries(&self, asked: &Asked) -> bool {
        if asked.says_binaries {
            return false;
        }
        let named = match self.client.get::<Status>("ask for the binhost", "/v1/status").await {
            Ok(status) => {
                let portage = Portage { config_root: config_root(asked, self.around) };
                names_binhost(&portage, status.binhost.trim_end_matches('/'))
                    .map_err(|error| Failure::local("cannot use binrepos.conf", error))
            }
            Err(failure) => Err(failure),
        };
        match named {
            Ok(true) => return true,
            Ok(false) => {
                let why = "binrepos.conf does not name this node's binhost, so emerge does not ask it: `peer setup`";
                self.out.say(&format!("peer: {why}"));
            }
            Err(failure) => self.out.say(&format!("peer: {failure}; emerge does not ask the binhost")),
        }
        false
    }

    /// Makes ready what may be; false when the one machine that was named did not.
    async fn make(&self, asked: &Asked, weather: &WeatherAnswer, only: Vec<String>) -> Result<bool, Failure> {
        let request = BuildRequest {
            atoms: asked.atoms.clone(),
            options: asked.options.clone(),
            policy: true,
            on: self.on.map(str::to_owned),
            plan: weather.plan,
            only,
            ..BuildRequest::default()
        };
        let made = match build_to_the_end(&request, self.client, self.out).await {
            Err(failure @ Failure::Interrupted { .. }) => return Err(failure),
            Err(failure) if self.named() => return Err(failure),
            Err(failure) => {
                self.out.say(&format!("peer: {failure}; emerge goes on without"));
                return Ok(true);
            }
            Ok(exit) => exit == Exit::Done,
        };
        match (made, self.on.filter(|_| self.named())) {
            (true, _) => Ok(true),
            (false, None) => {
                self.out.say("peer: not all could be made ready; emerge builds the rest");
                Ok(true)
            }
            (false, Some(on)) => {
                self.out.complain(&format!("peer: not all could be built on {on}, so emerge is not run"));
                self.out.complain("hint: `--on any` lets others build, and emerge what nobody builds");
                Ok(false)
            }
        }
    }

    /// Shows emerge's list and asks, before anything is made; then makes it, and has emerge merge what was shown.
    async fn ask_first(&self, asked: &Asked, weather: &WeatherAnswer, binaries: bool) -> Result<Course, Failure> {
        let with_binaries = |words: Vec<String>| -> Vec<OsString> {
            let before = binaries.then(|| GETBINPKG.to_owned());
            before.into_iter().chain(words).map(OsString::from).collect()
        };
        let (shown, code) = self.list(with_binaries(asked.pretending()), Stage::Seen).await?;
        if shown.is_empty() || code != Some(0) {
            // It has more to say or to ask than a list; nothing is made before.
            self.tell(weather);
            return Ok(self.words(binaries));
        }
        self.tell(weather);
        let (question, enter_invalid, alert) = (QUESTION, asked.enter_invalid, asked.alert);
        if !(MergeQuestion { question, enter_invalid, alert }).ask(self.out).await? {
            self.out.complain("\nQuitting.\n");
            return Ok(Course::End(Exit::Interrupted));
        }
        if !self.make(asked, weather, shown.merged()).await? {
            return Ok(Course::End(Exit::No));
        }
        let mut again = with_binaries(asked.pretending());
        again.extend(UNSEEN.map(OsString::from));
        let (now, _code) = self.list(again, Stage::Unseen).await?;
        if let Some(difference) = shown.differs(&now) {
            self.out
                .complain(&format!("peer: emerge's list is another one than was shown ({difference}): it asks again"));
            return Ok(self.words(binaries));
        }
        Ok(Course::Emerge(with_binaries(asked.answered())))
    }

    /// Runs emerge to its end, and reads the list it shows.
    async fn list(&self, words: Vec<OsString>, stage: Stage) -> Result<(MergeList, Option<i32>), Failure> {
        let mut heard = Heard::default();
        let hear = |bytes: &[u8]| {
            if stage == Stage::Seen {
                self.out.theirs(bytes);
            }
            heard.take(bytes);
        };
        let ended = tokio::select! {
            biased;
            ended = overhear(self.emerge, &words, stage, hear) => ended,
            _ = tokio::signal::ctrl_c() => return Err(Failure::Interrupted { kept: "nothing was merged".to_owned() }),
        };
        let code = ended.map_err(|error| Failure::local(format!("cannot run {}", self.emerge.display()), error))?;
        Ok((heard.list(), code))
    }
}

/// A line for each package that is not to be had as a binary, up to a number.
fn misses(weather: &WeatherAnswer) -> Vec<String> {
    let missed = |state| matches!(state, Outlook::Build | Outlook::Offload | Outlook::Impossible);
    let missed: Vec<_> = weather.packages.iter().filter(|package| missed(package.state)).collect();
    let line = |package: &&daemon::api_questions::WeatherPackage| {
        format!(
            "  {} {}: {}",
            state_word(package.state),
            package.cpv,
            package.cause.as_deref().unwrap_or("not known why")
        )
    };
    let mut lines: Vec<String> = missed.iter().take(MISSES_MAX).map(line).collect();
    if missed.len() > MISSES_MAX {
        lines.push(format!("  and {} more: `peer weather` tells all", missed.len() - MISSES_MAX));
    }
    lines
}
