//! `peer challenge`: builds again what is held, and compares.

use crate::client::Client;
use crate::commands::no_last_line;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::watch::Watch;
use clap::Args;
use daemon::api_builds::{ChallengeLine, ChallengeRequest, Verdict};

const DOING: &str = "challenge";

/// Build a held binary package again and compare what the two install.
#[derive(Debug, Args)]
#[command(long_about = "Build a held binary package again and compare what the two install.\n\n\
    Prints `same CPV IMAGE`, or `differs CPV HELD REBUILT` and `difference PATH: WHAT` for each file; then `claim BUILDER \
    trusted|stranger same|differs IMAGE` for what other builders say of the same recipe, compared with the rebuild. IMAGE, \
    HELD and REBUILT are digests of what the package installs. The held package stays as it is. Ends with 1 when the two \
    differ, when there is nothing to compare or when the rebuild fails.")]
pub(crate) struct ChallengeArgs {
    /// One atom that matches a held binary package
    #[arg(value_name = "ATOM")]
    atom: String,
}

/// What was heard so far.
struct Heard<'a> {
    out: &'a Output,
    watch: Watch<'a>,
    ended: Option<Exit>,
}

pub(crate) async fn run(args: &ChallengeArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let request = ChallengeRequest { atom: args.atom.clone() };
    let mut heard = Heard { out, watch: Watch::new(out), ended: None };
    tokio::select! {
        biased;
        ended = challenge(&request, client, &mut heard) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted { kept: heard.watch.left() }),
    }
}

async fn challenge(request: &ChallengeRequest, client: &Client, heard: &mut Heard<'_>) -> Result<Exit, Failure> {
    client.lines(DOING, "/v1/challenge", request, |raw, line| heard.hear(raw, line)).await?;
    heard.ended.ok_or_else(|| no_last_line(DOING))
}

impl Heard<'_> {
    fn hear(&mut self, raw: &str, line: ChallengeLine) -> Result<(), Failure> {
        if self.out.json() {
            self.out.fact(raw)?;
        }
        match line {
            ChallengeLine::Job(job) => self.watch.hear(&job)?,
            ChallengeLine::Verdict(verdict) => {
                if !self.out.json() {
                    facts(&verdict).iter().try_for_each(|fact| self.out.fact(fact))?;
                }
                self.ended = Some(if verdict.same { Exit::Done } else { Exit::No });
            }
            ChallengeLine::Refused { error, hint } => {
                if !self.out.json() {
                    self.out.complain(&format!("peer: cannot {DOING}: {error}"));
                    hint.iter().for_each(|hint| self.out.complain(&format!("hint: {hint}")));
                }
                self.ended = Some(Exit::No);
            }
        }
        Ok(())
    }
}

fn facts(verdict: &Verdict) -> Vec<String> {
    let mut facts = vec![if verdict.same {
        format!("same {} {}", verdict.cpv, verdict.rebuilt)
    } else {
        format!("differs {} {} {}", verdict.cpv, verdict.held, verdict.rebuilt)
    }];
    facts.extend(verdict.differences.iter().map(|file| format!("difference {}: {}", file.path, file.what)));
    facts.extend(verdict.claims.iter().map(|claim| {
        let trusted = if claim.trusted { "trusted" } else { "stranger" };
        let same = if claim.image == verdict.rebuilt { "same" } else { "differs" };
        format!("claim {} {trusted} {same} {}", claim.builder, claim.image)
    }));
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::api_builds::{ClaimView, FileDifference};

    fn verdict(same: bool) -> Verdict {
        let differs = |path: &str, what: &str| FileDifference { path: path.to_owned(), what: what.to_owned() };
        let claim = |image: &str, trusted| ClaimView {
            builder: "12D3KooWx".to_owned(),
            trusted,
            digest: "dd".to_owned(),
            image: image.to_owned(),
            made_at: 1,
        };
        Verdict {
            cpv: "app-misc/one-1.0".to_owned(),
            fingerprint: "ff".to_owned(),
            held: if same { "aa" } else { "bb" }.to_owned(),
            rebuilt: "aa".to_owned(),
            same,
            differences: if same {
                Vec::new()
            } else {
                vec![differs("usr/bin/one", "content"), differs("a\nb", "mode")]
            },
            claims: vec![claim("aa", true), claim("cc", false)],
        }
    }

    #[test]
    fn a_verdict_names_each_file_and_compares_each_claim_with_the_rebuild() {
        assert_eq!(
            facts(&verdict(false)),
            [
                "differs app-misc/one-1.0 bb aa",
                "difference usr/bin/one: content",
                "difference a\nb: mode",
                "claim 12D3KooWx trusted same aa",
                "claim 12D3KooWx stranger differs cc",
            ]
        );
        assert_eq!(facts(&verdict(true))[0], "same app-misc/one-1.0 aa");
    }

    #[test]
    fn only_equal_images_end_with_done() {
        let out = Output::new(true, true);
        for (line, exit) in [
            (ChallengeLine::Verdict(verdict(true)), Exit::Done),
            (ChallengeLine::Verdict(verdict(false)), Exit::No),
            (ChallengeLine::Refused { error: "nothing is held".to_owned(), hint: None }, Exit::No),
        ] {
            let mut heard = Heard { out: &out, watch: Watch::new(&out), ended: None };
            heard.hear("{}", line).unwrap();
            assert_eq!(heard.ended, Some(exit));
        }
    }
}
