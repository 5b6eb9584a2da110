//! `peer why`: why a package is, or is not, to be had as a binary.

use crate::client::Client;
use crate::commands::weather::{ask, kind_word, state_word};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use clap::Args;
use daemon::api_questions::{WhyAnswer, WhyBuilder, WhyClaim, WhyInstance, WhyRequest};

/// Say why a package is, or is not, to be had as a binary.
#[derive(Debug, Args)]
#[command(long_about = "Say why a package is, or is not, to be had as a binary.\n\n\
    Prints `STATE CPV REPOSITORY KIND CAUSE` for the package that Portage takes, then `instance CPV BUILD_ID PLACE \
    usable|REJECTS DIGEST` for each binary package there is of any version, `claim KEY NAME counts|void WHY` for each node \
    that says it built exactly what is wanted, and `builder KEY NAME STATE` for each whose word counts. Ends with 1 when \
    nothing is known of the atom.")]
pub(crate) struct WhyArgs {
    /// Which package: an atom
    #[arg(value_name = "ATOM")]
    atom: String,
}

pub(crate) async fn run(args: &WhyArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let request = WhyRequest { atom: args.atom.clone() };
    let Some(answer): Option<WhyAnswer> =
        ask(&format!("explain {}", args.atom), "/v1/why", &request, client, out).await?
    else {
        return Ok(Exit::No);
    };
    if out.json() {
        out.object(&answer)?;
        return Ok(Exit::Done);
    }
    lines(&answer).iter().try_for_each(|line| out.fact(line))?;
    if let Some(next) = &answer.next {
        out.say(&format!("hint: {next}"));
    }
    Ok(Exit::Done)
}

fn lines(answer: &WhyAnswer) -> Vec<String> {
    let state = answer.state.map_or("impossible", state_word);
    let kind = answer.kind.map_or("-", kind_word);
    let cause = answer.cause.clone().unwrap_or_default();
    let repo = if answer.repo.is_empty() { "-" } else { &answer.repo };
    let mut lines = vec![format!("{state} {} {repo} {kind} {cause}", answer.cpv).trim_end().to_owned()];
    lines.extend(answer.instances.iter().map(instance));
    lines.extend(answer.claims.iter().map(claim));
    lines.extend(answer.builders.iter().map(builder));
    lines
}

fn instance(instance: &WhyInstance) -> String {
    let build_id = instance.build_id.map_or("-".to_owned(), |id| id.to_string());
    let place = instance.at.as_deref().unwrap_or("here");
    let texts: Vec<String> =
        instance.rejects.iter().map(|reject| format!("{}: {}", kind_word(reject.kind), reject.text)).collect();
    let verdict = if instance.usable { "usable".to_owned() } else { texts.join("; ") };
    format!("instance {} {build_id} {place} {verdict} {}", instance.cpv, instance.digest)
}

fn claim(claim: &WhyClaim) -> String {
    let verdict = if claim.counts { "counts" } else { "void" };
    format!("claim {} {} {verdict} {}", claim.builder, claim.name, claim.why)
}

fn builder(builder: &WhyBuilder) -> String {
    format!("builder {} {} {}", builder.peer, builder.name, builder.state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::api_questions::{MissKind, Outlook, WhyReject};

    #[test]
    fn each_fact_has_a_line() {
        let answer = WhyAnswer {
            cpv: "a/b-2".to_owned(),
            repo: "main".to_owned(),
            state: Some(Outlook::Build),
            use_flags: Vec::new(),
            kind: Some(MissKind::Cpu),
            cause: Some("here: it needs avx2".to_owned()),
            next: None,
            instances: vec![WhyInstance {
                cpv: "a/b-2".to_owned(),
                repo: "main".to_owned(),
                build_id: Some(1),
                digest: "dd".to_owned(),
                at: None,
                usable: false,
                rejects: vec![WhyReject { kind: MissKind::Cpu, text: "it needs avx2".to_owned() }],
            }],
            claims: vec![WhyClaim {
                builder: "k".to_owned(),
                name: "big".to_owned(),
                counts: false,
                why: "w".to_owned(),
            }],
            builders: vec![WhyBuilder { peer: "k".to_owned(), name: "big".to_owned(), state: "away".to_owned() }],
        };
        assert_eq!(
            lines(&answer),
            [
                "build a/b-2 main cpu here: it needs avx2",
                "instance a/b-2 1 here cpu: it needs avx2 dd",
                "claim k big void w",
                "builder k big away",
            ]
        );
    }
}
