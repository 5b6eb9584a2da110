//! `peer emerge`: what can be had as a binary package is made ready, then the real emerge does its work.
//!
//! **Invariant.** Whatever fails before is said in one line, and emerge runs as it would without this program; the exit code
//! is emerge's.

use crate::Around;
use crate::client::Client;
use crate::commands::build::build_to_the_end;
use crate::commands::weather::{ask, state_word, sum};
use crate::emerge_words::{Asked, read};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use clap::Args;
use daemon::api::Status;
use daemon::api_builds::BuildRequest;
use daemon::api_questions::{Outlook, WeatherAnswer, WeatherRequest};
use daemon::portage::{hand_over, program};
use daemon::setup::{Portage, names_binhost};
use std::ffi::OsString;
use std::path::PathBuf;
use tree::conf::MakeConf;

/// Misses that are told one by one.
const MISSES_MAX: usize = 8;
/// How emerge is told to take binary packages from binhosts.
const GETBINPKG: &str = "--getbinpkg";

/// Run emerge, with everything ready before that can be had as a binary package.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    long_about = "Run emerge, with everything ready before that can be had as a binary package.\n\n\
    All words behind `emerge` are for emerge. If they install something, the weather is told, then what others have is \
    fetched, what the configuration lets others build is built there ([offload] builds) or here in the sandbox ([build] \
    on_miss), and emerge is run with --getbinpkg in front, unless the words say where binary packages come from or \
    binrepos.conf does not name this node. With --pretend or --ask nothing is made before. A step that fails is said in one \
    line, and emerge runs all the same. The exit code is emerge's."
)]
pub(crate) struct EmergeArgs {
    /// What emerge takes
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub(crate) async fn run(args: &EmergeArgs, client: &Client, around: &Around, out: &Output) -> Result<Exit, Failure> {
    let Some(emerge) = program(&around.path, "emerge") else {
        let what = "there is no emerge in the PATH".to_owned();
        return Err(Failure::Usage { what, hint: "`peer build` makes binary packages without it".to_owned() });
    };
    let out = out.aside();
    let mut words = args.args.clone();
    if let Some(asked) = understood(&args.args, around)
        && prepare(&asked, client, around, &out).await?
    {
        words.insert(0, GETBINPKG.into());
    }
    Err(Failure::local(format!("cannot run {}", emerge.display()), hand_over(&emerge, &words)))
}

/// What the words ask for, with those that make.conf puts before them.
fn understood(args: &[OsString], around: &Around) -> Option<Asked> {
    let given: Vec<String> = args.iter().map(|word| word.to_str().map(str::to_owned)).collect::<Option<_>>()?;
    let asked = read(&given)?;
    if given.iter().any(|word| word == "--ignore-default-opts") {
        return Some(asked);
    }
    let make_conf = MakeConf::load(&config_root(&asked, around)).ok();
    let default = make_conf.as_ref().and_then(|conf| conf.get("EMERGE_DEFAULT_OPTS")).unwrap_or_default();
    let all: Vec<String> = default.split_whitespace().map(str::to_owned).chain(given).collect();
    read(&all)
}

fn config_root(asked: &Asked, around: &Around) -> PathBuf {
    let named = asked.config_root.clone().or_else(|| around.portage_configroot.clone());
    named.unwrap_or_else(|| PathBuf::from("/"))
}

/// Tells the weather and makes ready what may be; whether emerge is to ask binhosts. Only an interrupt is a failure.
async fn prepare(asked: &Asked, client: &Client, around: &Around, out: &Output) -> Result<bool, Failure> {
    match make_ready(asked, client, out).await {
        Err(failure @ Failure::Interrupted { .. }) => return Err(failure),
        Err(failure @ Failure::Unreachable { .. }) => {
            out.say(&format!("peer: {failure}; emerge runs alone"));
            return Ok(false);
        }
        Err(failure) => out.say(&format!("peer: {failure}; emerge goes on without")),
        Ok(()) => {}
    }
    if asked.says_binaries {
        return Ok(false);
    }
    let named = match client.get::<Status>("ask for the binhost", "/v1/status").await {
        Ok(status) => {
            let portage = Portage { config_root: config_root(asked, around) };
            names_binhost(&portage, status.binhost.trim_end_matches('/'))
                .map_err(|error| Failure::local("cannot use binrepos.conf", error))
        }
        Err(failure) => Err(failure),
    };
    match named {
        Ok(true) => return Ok(true),
        Ok(false) => {
            out.say("peer: binrepos.conf does not name this node's binhost, so emerge does not ask it: `peer setup`");
        }
        Err(failure) => out.say(&format!("peer: {failure}; emerge does not ask the binhost")),
    }
    Ok(false)
}

async fn make_ready(asked: &Asked, client: &Client, out: &Output) -> Result<(), Failure> {
    let (atoms, options) = (asked.atoms.clone(), asked.options.clone());
    let request = WeatherRequest { atoms: atoms.clone(), options: options.clone(), domain: None };
    let answer = tokio::select! {
        biased;
        answer = ask::<WeatherAnswer>("tell the weather", "/v1/weather", &request, client, out) => answer?,
        _ = tokio::signal::ctrl_c() => return Err(Failure::Interrupted { kept: "nothing was begun".to_owned() }),
    };
    // Why there is no plan has been said; emerge says it again, and what else it knows.
    let Some(weather) = answer else { return Ok(()) };
    out.say(&format!("peer: {}", sum(&weather.totals)));
    misses(&weather).iter().for_each(|line| out.say(line));
    if asked.looks || weather.totals.ahead == 0 {
        return Ok(());
    }
    let request = BuildRequest { atoms, options, policy: true, ..BuildRequest::default() };
    if build_to_the_end(&request, client, out).await? != Exit::Done {
        out.say("peer: not all could be made ready; emerge builds the rest");
    }
    Ok(())
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
