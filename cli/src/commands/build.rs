//! `peer build`: binary packages of atoms, from peers or from here.

use crate::client::Client;
use crate::commands::no_last_line;
use crate::exit::{Exit, Failure};
use crate::output::{Output, human};
use crate::table::aligned;
use crate::terminal::plain;
use crate::watch::{Watch, fate_word};
use clap::Args;
use daemon::api_builds::{BuildLine, BuildRequest, Fate, PlannedPackage};

const DOING: &str = "build";
/// Make binary packages: from what is held, from trusted peers, or here in the sandbox.
#[derive(Clone, Debug, Args)]
#[command(long_about = "Make binary packages: from what is held, from trusted peers, or here in the sandbox.\n\n\
    Prints `have CPV`, `substituted CPV SIZE in TIME from PEER`, `offloaded CPV SIZE in TIME on PEER` or `built CPV SIZE in TIME` for each package, those that \
    others need first. Portage's own resolver decides which packages are needed and how each is configured. The jobs go \
    on when this command is interrupted. Ends with 1 when a package could not be made or nothing matches.")]
pub(crate) struct BuildArgs {
    /// What to build, as emerge takes it: atoms and sets
    #[arg(required = true, value_name = "ATOM")]
    atoms: Vec<String>,
    /// Only say what would be done: `FATE CPV REPOSITORY USE SIZE REASON`, FATE being have, substitute, offload or build
    #[arg(long, short)]
    pretend: bool,
    /// Build here even what is held or a trusted peer has; the new package takes the old one's place
    #[arg(long)]
    rebuild: bool,
    /// Where to build what nobody has: `local`, `any` machine of the group that builds for others (or here), or that one
    #[arg(long, value_name = "PEER|local|any")]
    on: Option<String>,
}

/// What was heard so far.
struct Heard<'a> {
    out: &'a Output,
    pretend: bool,
    watch: Watch<'a>,
    ended: Option<Exit>,
}

pub(crate) async fn run(args: &BuildArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let BuildArgs { atoms, pretend, rebuild, on } = args.clone();
    let request = BuildRequest { atoms, pretend, rebuild, on, ..BuildRequest::default() };
    build_to_the_end(&request, client, out).await
}

/// Builds, telling what becomes of each package.
pub(crate) async fn build_to_the_end(request: &BuildRequest, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let mut heard = Heard { out, pretend: request.pretend, watch: Watch::new(out), ended: None };
    tokio::select! {
        biased;
        ended = build(request, client, &mut heard) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted { kept: heard.watch.left() }),
    }
}

async fn build(request: &BuildRequest, client: &Client, heard: &mut Heard<'_>) -> Result<Exit, Failure> {
    client.lines(DOING, "/v1/build", request, |raw, line| heard.hear(raw, line)).await?;
    heard.ended.ok_or_else(|| no_last_line(DOING))
}

impl Heard<'_> {
    fn hear(&mut self, raw: &str, line: BuildLine) -> Result<(), Failure> {
        if self.out.json() {
            self.out.fact(raw)?;
        }
        match line {
            BuildLine::Planned { packages } => self.planned(&packages)?,
            BuildLine::Job(job) => self.watch.hear(&job)?,
            BuildLine::Done { have, substituted, offloaded, built, failed } => {
                if !self.pretend {
                    self.out.say(&format!(
                        "{have} here already, {substituted} from peers, {offloaded} built by others, {built} built, {failed} failed"
                    ));
                }
                self.ended = Some(if failed == 0 { Exit::Done } else { Exit::No });
            }
            BuildLine::Refused { error, hint, said, no } => {
                if !self.out.json() {
                    refused(&error, hint.as_deref(), &said).iter().for_each(|line| self.out.complain(line));
                }
                self.ended = Some(if no { Exit::No } else { Exit::Usage });
            }
        }
        Ok(())
    }

    fn planned(&mut self, packages: &[PlannedPackage]) -> Result<(), Failure> {
        if !self.out.json() {
            if self.pretend {
                aligned(&rows(packages)).iter().try_for_each(|line| self.out.fact(line))?;
            } else {
                let held = packages.iter().filter(|package| package.fate == Fate::Have);
                held.map(|package| format!("have {}", package.cpv)).try_for_each(|line| self.out.fact(&line))?;
            }
        }
        self.out.say(&sum(packages));
        if self.pretend {
            self.ended = Some(Exit::Done);
        }
        Ok(())
    }
}

/// Fate, cpv, repository, USE, size and reason.
fn rows(packages: &[PlannedPackage]) -> Vec<[String; 6]> {
    let row = |package: &PlannedPackage| {
        let size = if package.fate == Fate::Have { "-".to_owned() } else { human(package.size) };
        let flags = format!("USE=\"{}\"", package.use_flags.join(" "));
        let (cpv, repo, reason) = (package.cpv.clone(), package.repo.clone(), package.reason.clone());
        [fate_word(package.fate).to_owned(), cpv, repo, flags, size, reason]
    };
    packages.iter().map(row).collect()
}

fn sum(packages: &[PlannedPackage]) -> String {
    let count = |fate| packages.iter().filter(|package| package.fate == fate).count();
    let bytes = packages.iter().fold(0_u64, |sum, package| sum.saturating_add(package.size));
    let (all, have, substitute, build) =
        (packages.len(), count(Fate::Have), count(Fate::Substitute), count(Fate::Build));
    let offload = count(Fate::Offload);
    let elsewhere = if offload == 0 { String::new() } else { format!(" {offload} to build elsewhere,") };
    let packages = if all == 1 { "package" } else { "packages" };
    format!(
        "{all} {packages}: {have} here, {substitute} from peers,{elsewhere} {build} to build; {} to fetch at most",
        human(bytes)
    )
}

/// The error, what Portage said, and what to do.
fn refused(error: &str, hint: Option<&str>, said: &str) -> Vec<String> {
    let mut lines = vec![format!("peer: cannot {DOING}: {error}")];
    // An error may quote it all already.
    let said = if error.contains(said.trim()) { "" } else { said };
    lines.extend(said.lines().map(|line| format!("  | {}", plain(line))));
    lines.extend(hint.map(|hint| format!("hint: {hint}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::tests::job;
    use daemon::api_builds::JobState;

    fn package(cpv: &str, fate: Fate, use_flags: &[&str]) -> PlannedPackage {
        PlannedPackage {
            cpv: cpv.to_owned(),
            repo: "main".to_owned(),
            fate,
            size: 10_240,
            reason: "nobody has it".to_owned(),
            use_flags: use_flags.iter().map(|flag| (*flag).to_owned()).collect(),
            fingerprint: String::new(),
            job: None,
        }
    }

    fn heard(out: &Output, pretend: bool) -> Heard<'_> {
        Heard { out, pretend, watch: Watch::new(out), ended: None }
    }

    #[test]
    fn a_plan_stands_in_columns() {
        let packages = [
            package("app-misc/one-1.0", Fate::Have, &[]),
            package("app-misc/twelve-1.0-r2", Fate::Build, &["nls", "ssl"]),
        ];
        assert_eq!(
            aligned(&rows(&packages)),
            [
                "have   app-misc/one-1.0        main  USE=\"\"         -          nobody has it",
                "build  app-misc/twelve-1.0-r2  main  USE=\"nls ssl\"  10.00 KiB  nobody has it",
            ]
        );
        assert_eq!(sum(&packages), "2 packages: 1 here, 0 from peers, 1 to build; 20.00 KiB to fetch at most");
    }

    #[test]
    fn a_refusal_gives_the_words_of_portage_between_error_and_hint() {
        let lines = refused(
            "nothing matches",
            Some("peer search nothing"),
            "emerge: there are no ebuilds\nto satisfy \x1b[31;01mit\x1b[0m\n",
        );
        assert_eq!(
            lines,
            [
                "peer: cannot build: nothing matches",
                "  | emerge: there are no ebuilds",
                "  | to satisfy it",
                "hint: peer search nothing",
            ]
        );
    }

    #[test]
    fn what_an_error_quotes_is_not_said_twice() {
        assert_eq!(refused("no answer: x\ny", None, "x\ny\n"), ["peer: cannot build: no answer: x\ny"]);
    }

    #[test]
    fn the_last_line_decides_how_it_ends() {
        let out = Output::new(true, true);
        for (line, exit) in [
            (BuildLine::Done { have: 1, substituted: 0, offloaded: 1, built: 2, failed: 0 }, Some(Exit::Done)),
            (BuildLine::Done { have: 0, substituted: 0, offloaded: 0, built: 2, failed: 1 }, Some(Exit::No)),
            (BuildLine::Refused { error: String::new(), hint: None, said: String::new(), no: true }, Some(Exit::No)),
            (
                BuildLine::Refused { error: String::new(), hint: None, said: String::new(), no: false },
                Some(Exit::Usage),
            ),
            (BuildLine::Job(Box::new(job(1, JobState::Running))), None),
            (BuildLine::Planned { packages: Vec::new() }, None),
        ] {
            let mut heard = heard(&out, false);
            heard.hear("{}", line).unwrap();
            assert_eq!(heard.ended, exit);
        }
    }
}
