//! `peer trust list|add|remove|explain`: whose binary packages count here, and who may do what.

use crate::client::{Client, encoded};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::question;
use crate::watch::{now_s, short_time};
use clap::{Args, Subcommand};
use daemon::api_builds::TrustedKey;
use daemon::api_group::{Explanation, GroupRow, MemberRow, TrustChanged, TrustList};

const PATH: &str = "/v1/trust";

/// Say whose binary packages may be installed here, and which.
#[derive(Debug, Args)]
#[command(long_about = "Say whose binary packages may be installed here, and which.\n\n\
    Sources need no trust: a Manifest names their bytes. A binary package is what its builder made of them, so only those of \
    trusted builders are taken instead of building: of keys listed here, within the packages named for each, and of members \
    with the role sign in a group that this machine founded (`peer invite`) or joined (`peer join`). What was taken before \
    stays when trust ends.")]
pub(crate) struct TrustArgs {
    #[command(subcommand)]
    what: TrustVerb,
}

#[derive(Debug, Subcommand)]
enum TrustVerb {
    /// Show the trusted keys, `KEY AGE ATOM…`, then the groups and their members
    #[command(long_about = "Show the trusted keys, the groups and their members.\n\n\
        Prints `KEY AGE ATOM…` for each key, AGE being how long it has been trusted; `group FOUNDER mine|joined SERIAL ROLE` for \
        each group, ROLE being this machine's; and `member PEER NAME ROLE GROUP connected|away|blocked` for each of its members.")]
    List,
    /// Trust a key for some packages; for a key that is trusted already, these take the place of those named before
    #[command(long_about = "Trust a key for some packages.\n\n\
        For a key that is trusted already, these take the place of those named before. A machine that was blocked is so no longer.")]
    Add {
        /// Peer id of the node that builds, as its `peer status` prints it, or the name of a member
        #[arg(value_name = "KEY")]
        key: String,
        /// What it may build for this machine, such as dev-libs/foo or dev-qt/*; '*/*' means anything
        #[arg(long, required = true, num_args = 1.., value_name = "ATOM")]
        packages: Vec<String>,
    },
    /// Trust a machine no longer: its key, its place in this machine's group, or the group it founded
    #[command(long_about = "Trust a machine no longer.\n\n\
        Its key is listed no longer. A member of the group this machine founded is taken off the roster, which the other \
        members learn; a member of another's group is blocked on this machine. Of a group's founder only the key goes: it still \
        counts by its group, which is left with --leave, or when that is answered with yes on a terminal.")]
    Remove {
        /// Leave the group that it founded: its members are strangers here then
        #[arg(long)]
        leave: bool,
        /// Peer id or name
        #[arg(value_name = "KEY|NAME")]
        key: String,
    },
    /// Say why a package or a machine counts here, or does not
    Explain {
        /// An atom, or the peer id or name of a machine
        #[arg(value_name = "ATOM|KEY|NAME")]
        what: String,
    },
}

pub(crate) async fn run(args: &TrustArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    match &args.what {
        TrustVerb::List => list(&client.get("list the trusted keys", PATH).await?, out),
        TrustVerb::Add { key, packages } => {
            let trusted = TrustedKey { key: key.clone(), packages: packages.clone(), since: 0 };
            changed(&client.post(&format!("trust {key}"), PATH, &trusted).await?, out)
        }
        TrustVerb::Remove { key, leave } => match removed(key, *leave, client).await {
            // To leave a group is more than was said: it is asked, where somebody can answer.
            Err(Failure::Refused { status: 409, refusal, .. }) if question::can_be_asked() => {
                if question::confirmed(&format!("{}. Leave it?", refusal.error), out)? {
                    changed(&removed(key, true, client).await?, out)
                } else {
                    Ok(Exit::No)
                }
            }
            done => changed(&done?, out),
        },
        TrustVerb::Explain { what } => {
            let path = format!("{PATH}/explain?what={}", encoded(what));
            let explained: Explanation = client.get(&format!("explain {what}"), &path).await?;
            if out.json() {
                out.object(&explained)?;
            } else {
                out.fact(&format!("{} {}", explained.verdict, explained.subject))?;
                explained.lines.iter().try_for_each(|line| out.fact(&format!("  {line}")))?;
            }
            Ok(Exit::Done)
        }
    }
}

async fn removed(key: &str, leave: bool, client: &Client) -> Result<TrustChanged, Failure> {
    let path = format!("{PATH}/{}?leave={leave}", encoded(key));
    client.delete(&format!("remove {key}"), &path).await
}

fn changed(done: &TrustChanged, out: &Output) -> Result<Exit, Failure> {
    if out.json() {
        out.object(done)?;
        return Ok(Exit::Done);
    }
    done.said.iter().for_each(|line| out.say(line));
    done.now.keys.iter().try_for_each(|key| out.fact(&line(key, now_s())))?;
    Ok(Exit::Done)
}

fn list(trust: &TrustList, out: &Output) -> Result<Exit, Failure> {
    if out.json() {
        out.object(trust)?;
        return Ok(Exit::Done);
    }
    trust.keys.iter().try_for_each(|key| out.fact(&line(key, now_s())))?;
    trust.groups.iter().try_for_each(|group| out.fact(&group_line(group)))?;
    trust.members.iter().try_for_each(|member| out.fact(&member_line(member)))?;
    trust.blocked.iter().try_for_each(|peer| out.fact(&format!("blocked {peer}")))?;
    if trust.keys.is_empty() && !trust.members.iter().any(|member| member.role == "sign" && !member.blocked) {
        out.say("nobody is trusted: binary packages are built here");
    }
    Ok(Exit::Done)
}

fn line(trusted: &TrustedKey, now_s: u64) -> String {
    let age = short_time(now_s.saturating_sub(trusted.since));
    format!("{} {age} {}", trusted.key, trusted.packages.join(" ")).trim_end().to_owned()
}

fn group_line(group: &GroupRow) -> String {
    let whose = if group.mine { "mine" } else { "joined" };
    format!("group {} {whose} {} {}", group.group, group.serial, group.role)
}

fn member_line(member: &MemberRow) -> String {
    let state = match (member.blocked, member.connected) {
        (true, _) => "blocked",
        (false, true) => "connected",
        (false, false) => "away",
    };
    format!("member {} {} {} {} {state}", member.peer, member.name, member.role, member.group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[test]
    fn a_key_is_told_with_all_it_may_build() {
        let mut trusted = TrustedKey {
            key: "12D3KooWx".to_owned(),
            packages: vec!["dev-libs/foo".into(), "dev-qt/*".into()],
            since: 100,
        };
        assert_eq!(line(&trusted, 160), "12D3KooWx 1min0s dev-libs/foo dev-qt/*");
        trusted.packages.clear();
        assert_eq!(line(&trusted, 100), "12D3KooWx 0s");
    }

    #[test]
    fn a_blocked_member_is_shown_as_that_even_when_it_is_connected() {
        let mut member = MemberRow {
            peer: "12D3KooWx".to_owned(),
            name: "weak".to_owned(),
            role: "build".to_owned(),
            group: "12D3KooWy".to_owned(),
            founder: false,
            connected: true,
            blocked: false,
        };
        assert_eq!(member_line(&member), "member 12D3KooWx weak build 12D3KooWy connected");
        member.blocked = true;
        assert!(member_line(&member).ends_with(" blocked"));
    }

    #[test]
    fn trust_without_limits_must_be_said() {
        let parse = |words: &[&str]| crate::args::Peer::try_parse_from(words);
        let error = parse(&["peer", "trust", "add", "12D3KooWx"]).unwrap_err();
        assert!(error.to_string().contains("--packages"), "{error}");
        assert_eq!(error.exit_code(), 2);
        assert!(parse(&["peer", "trust", "add", "12D3KooWx", "--packages"]).is_err());
        assert!(parse(&["peer", "trust", "add", "12D3KooWx", "--packages", "*/*"]).is_ok());
        assert!(parse(&["peer", "trust", "add", "--packages", "a/b", "c/d", "--", "12D3KooWx"]).is_ok());
    }
}
