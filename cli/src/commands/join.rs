//! `peer join`: this machine into another's group.

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use clap::Args;
use daemon::api_group::{JoinAnswer, JoinRequest};

/// Join another machine's group with a ticket it made.
#[derive(Debug, Args)]
#[command(long_about = "Join another machine's group with a ticket it made with `peer invite`.\n\n\
    Prints `joined GROUP as ROLE`. From then on binary packages that the group's founder built, and those of every member with \
    the role sign, are installed here instead of being built: join only a group whose founder you trust with root on this \
    machine. `peer trust remove GROUP` leaves it.\n\n\
    Ends with 1 when the founder refuses the ticket or cannot be reached.")]
pub(crate) struct JoinArgs {
    /// The ticket, as `peer invite` printed it
    #[arg(value_name = "TICKET")]
    ticket: String,
    /// What this machine is to be called among the members [default: `node.name` of the configuration, else the host name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

pub(crate) async fn run(args: &JoinArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let request = JoinRequest { ticket: args.ticket.clone(), name: args.name.clone() };
    let joined: JoinAnswer = client.post("join the group", "/v1/group/join", &request).await?;
    if out.json() {
        out.object(&joined)?;
        return Ok(Exit::Done);
    }
    out.fact(&format!("joined {} as {}", joined.group, joined.role))?;
    for line in consequences(&joined) {
        out.say(&line);
    }
    Ok(Exit::Done)
}

/// What joining means, in words.
fn consequences(joined: &JoinAnswer) -> Vec<String> {
    let signing: Vec<&str> =
        joined.members.iter().filter(|member| member.role == "sign").map(|member| member.name.as_str()).collect();
    let may = match joined.role.as_str() {
        "fetch" => "take binary packages from the members, and ask what they have",
        "build" => "take binary packages from the members, ask what they have, and give them builds to do",
        _ => "take binary packages from the members, give them builds to do, and build for them",
    };
    vec![
        format!("This machine is called {} there, and may {may}.", joined.name),
        format!("What these machines build counts here now, for any package: {}.", signing.join(", ")),
        "The founder can add more such machines, and takes members off; `peer trust list` shows them.".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::api_group::MemberRow;

    #[test]
    fn who_joins_is_told_whose_builds_count_from_now_on() {
        let member = |name: &str, role: &str| MemberRow {
            peer: format!("12D3KooW{name}"),
            name: name.to_owned(),
            role: role.to_owned(),
            group: "12D3KooWfounder".to_owned(),
            founder: role == "sign",
            connected: true,
            blocked: false,
        };
        let members = vec![member("strong", "sign"), member("other", "build")];
        let (group, role, name) = ("12D3KooWfounder".to_owned(), "fetch".to_owned(), "weak".to_owned());
        let lines = consequences(&JoinAnswer { group, role, name, members });
        assert_eq!(lines[1], "What these machines build counts here now, for any package: strong.");
        assert!(lines[0].contains("called weak") && !lines[0].contains("builds to do"), "{}", lines[0]);
    }
}
