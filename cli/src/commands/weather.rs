//! `peer weather`: what is ready as a binary package, and why the rest is not.

use crate::client::Client;
use crate::commands::no_last_line;
use crate::exit::{Exit, Failure};
use crate::output::{Output, human};
use crate::table::aligned;
use crate::terminal::plain;
use crate::watch::{short_time, time};
use clap::Args;
use daemon::api_builds::PlanOption;
use daemon::api_questions::{
    MissKind, Outlook, QuestionLine, WeatherAnswer, WeatherPackage, WeatherRequest, WeatherTotals,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const WORLD: &str = "@world";

/// Say what is ready as a binary package, from whom, and why the rest is not.
#[derive(Debug, Args)]
#[command(long_about = "Say what is ready as a binary package, from whom, and why the rest is not.\n\n\
    Prints `STATE CPV REPOSITORY FROM SIZE TIME CAUSE` for each package that is needed, those that others need first. STATE \
    is have, substitute, offload, build or impossible; SIZE is what is to be fetched; TIME is how long a build may take, `?` \
    where nobody knows. Without an atom it is about what `emerge --update --deep --newuse @world` would do. Nothing is \
    begun. Ends with 1 when nothing matches.")]
pub(crate) struct WeatherArgs {
    /// What to ask about, as emerge takes it: atoms and sets; without any, @world
    #[arg(value_name = "ATOM|@SET")]
    atoms: Vec<String>,
    /// Of another machine of the group, by its name or key
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
}

pub(crate) async fn run(args: &WeatherArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let request = WeatherRequest { domain: args.domain.clone(), ..request(&args.atoms) };
    let Some(answer): Option<WeatherAnswer> = ask("tell the weather", "/v1/weather", &request, client, out).await?
    else {
        return Ok(Exit::No);
    };
    if out.json() {
        out.object(&answer)?;
        return Ok(Exit::Done);
    }
    aligned(&answer.packages.iter().map(row).collect::<Vec<_>>()).iter().try_for_each(|line| out.fact(line))?;
    if answer.more {
        out.say("these are the first packages only; the sum is of all");
    }
    out.say(&sum(&answer.totals));
    Ok(Exit::Done)
}

/// Nothing named is the world, as an update has it.
fn request(atoms: &[String]) -> WeatherRequest {
    let atoms = if atoms.is_empty() { vec![WORLD.to_owned()] } else { atoms.to_vec() };
    let options = if atoms.iter().any(|atom| atom == WORLD) { PlanOption::UPDATE.to_vec() } else { Vec::new() };
    WeatherRequest { atoms, options, domain: None, on: None }
}

/// Asks what may take minutes. None when the answer is no, which is said; what is wrong with this machine is a failure.
pub(crate) async fn ask<T: DeserializeOwned>(
    doing: &str,
    path: &str,
    request: &impl Serialize,
    client: &Client,
    out: &Output,
) -> Result<Option<T>, Failure> {
    let mut answer = None;
    client
        .lines(doing, path, request, |_raw, line: QuestionLine<T>| {
            answer = Some(line);
            Ok(())
        })
        .await?;
    match answer.ok_or_else(|| no_last_line(doing))? {
        QuestionLine::Answer(answer) => Ok(Some(answer)),
        QuestionLine::Refused { error, hint, said, no: false } => {
            said.lines().for_each(|line| out.say(&format!("  | {}", plain(line))));
            Err(Failure::Usage { what: format!("cannot {doing}: {error}"), hint: hint.unwrap_or_default() })
        }
        QuestionLine::Refused { error, hint, said, no: true } => {
            out.complain(&format!("peer: cannot {doing}: {error}"));
            said.lines().for_each(|line| out.complain(&format!("  | {}", plain(line))));
            if let Some(hint) = hint {
                out.complain(&format!("hint: {hint}"));
            }
            Ok(None)
        }
    }
}

fn row(package: &WeatherPackage) -> [String; 7] {
    let bytes = if package.bytes == 0 { "-".to_owned() } else { human(package.bytes) };
    let from = if package.from.is_empty() { "-".to_owned() } else { package.from.join(",") };
    let time = match package.state {
        Outlook::Build | Outlook::Offload => package.build_s.map_or("?".to_owned(), short_time),
        Outlook::Have | Outlook::Substitute | Outlook::Impossible => "-".to_owned(),
    };
    let cause = package.cause.clone().unwrap_or_default();
    [state_word(package.state).to_owned(), package.cpv.clone(), package.repo.clone(), from, bytes, time, cause]
}

pub(crate) fn state_word(state: Outlook) -> &'static str {
    match state {
        Outlook::Have => "have",
        Outlook::Substitute => "substitute",
        Outlook::Offload => "offload",
        Outlook::Build => "build",
        Outlook::Impossible => "impossible",
    }
}

pub(crate) fn kind_word(kind: MissKind) -> &'static str {
    match kind {
        MissKind::Nobody => "nobody",
        MissKind::Version => "version",
        MissKind::Use => "use",
        MissKind::Chost => "chost",
        MissKind::Cpu => "cpu",
        MissKind::Soname => "soname",
        MissKind::Symbol => "symbol",
        MissKind::Recipe => "recipe",
        MissKind::Guest => "guest",
        MissKind::Trust => "trust",
        MissKind::Policy => "policy",
    }
}

/// One line of all.
pub(crate) fn sum(totals: &WeatherTotals) -> String {
    let WeatherTotals { have, substitute, offload, build, impossible, bytes, build_s, unknown_times, .. } = totals;
    // Another machine's are what it says.
    let all =
        [have, substitute, offload, build, impossible].into_iter().fold(0, |sum: u64, one| sum.saturating_add(*one));
    let packages = if all == 1 { "package" } else { "packages" };
    let mut text = format!("{all} {packages}: {have} here, {substitute} from others");
    if *offload > 0 {
        text.push_str(&format!(", {offload} to build by others"));
    }
    text.push_str(&format!(", {build} to build here"));
    if *impossible > 0 {
        text.push_str(&format!(", {impossible} impossible"));
    }
    text.push_str(&format!("; {} to fetch", human(*bytes)));
    let builds = offload.saturating_add(*build);
    if builds > 0 {
        let known = builds.saturating_sub(*unknown_times);
        text.push_str(&match (known, unknown_times) {
            (0, _) => "; how long the builds take is not known".to_owned(),
            (_, 0) => format!("; builds of about {}", time(*build_s)),
            (_, unknown) => format!("; builds of about {} and {unknown} of unknown time", time(*build_s)),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_stand_in_columns_and_unknown_times_are_said() {
        let mut package = WeatherPackage {
            cpv: "app-misc/one-1.0".to_owned(),
            repo: "main".to_owned(),
            state: Outlook::Build,
            from: Vec::new(),
            bytes: 10_240,
            build_s: Some(90),
            kind: Some(MissKind::Use),
            cause: Some("here: it has USE -ssl".to_owned()),
        };
        let known = row(&package);
        package.build_s = None;
        let unknown = row(&package);
        (package.state, package.bytes, package.cause, package.from) = (Outlook::Have, 0, None, vec!["big".to_owned()]);
        assert_eq!(
            aligned(&[known, unknown, row(&package)]),
            [
                "build  app-misc/one-1.0  main  -    10.00 KiB  1min30s  here: it has USE -ssl",
                "build  app-misc/one-1.0  main  -    10.00 KiB  ?        here: it has USE -ssl",
                "have   app-misc/one-1.0  main  big  -          -",
            ]
        );
    }

    #[test]
    fn the_sum_is_one_line() {
        let totals = WeatherTotals {
            have: 1,
            substitute: 2,
            build: 3,
            bytes: 1024,
            build_s: 60,
            unknown_times: 1,
            ..WeatherTotals::default()
        };
        assert_eq!(
            sum(&totals),
            "6 packages: 1 here, 2 from others, 3 to build here; 1.00 KiB to fetch; builds of about 1 min 0 s and 1 of unknown time"
        );
    }

    #[test]
    fn the_world_is_asked_about_as_an_update_has_it() {
        assert_eq!(request(&[]).atoms, ["@world"]);
        assert_eq!(request(&[]).options, PlanOption::UPDATE);
        assert_eq!(request(&["a/b".to_owned()]).options, []);
    }
}
