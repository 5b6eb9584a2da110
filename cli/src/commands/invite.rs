//! `peer invite`: a ticket for another machine, the tickets that were made, and taking one back.

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::table::aligned;
use crate::watch::{now_s, short_time};
use clap::{Args, ValueEnum};
use daemon::api_group::{InviteRequest, Invited, RevokeRequest, TicketRow};
use qrcodegen::{QrCode, QrCodeEcc};

/// Light modules around a QR code, which readers need (ISO/IEC 18004).
const QUIET_ZONE: i32 = 4;

/// Make a ticket with which one machine joins this machine's group.
#[derive(Debug, Args)]
#[command(long_about = "Make a ticket with which one machine joins this machine's group.\n\n\
    Prints the ticket, one word. `peer join TICKET` on the other machine uses it, once. Whoever has it can do that: it is as \
    good as a password until it is used, expired or taken back.\n\n\
    The machine that joins trusts this one from then on, and every machine with the role sign. `peer trust remove NAME` \
    takes a machine off again.")]
pub(crate) struct InviteArgs {
    /// What the machine may do here and at the other members
    #[arg(long, value_enum, default_value_t = InviteRole::Build)]
    role: InviteRole,
    /// How long the ticket is good, such as 90s, 10m, 2h or 7d
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = seconds)]
    expires: u64,
    /// What the machine is to be called, whatever it calls itself
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Show the ticket as a QR code too; without this only on a terminal
    #[arg(long)]
    qr: bool,
    /// Show the tickets that were made: `ID ROLE STATE EXPIRES USED_BY`
    #[arg(long, conflicts_with_all = ["role", "expires", "name", "qr", "revoke"])]
    list: bool,
    /// Take a ticket back that nobody used, by its id or whole text
    #[arg(long, value_name = "ID|TICKET", conflicts_with_all = ["role", "expires", "name", "qr"])]
    revoke: Option<String>,
}

/// What a member may do; each includes the former.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum InviteRole {
    /// Take binary packages from members, and ask what they have
    Fetch,
    /// Also give members builds to do
    Build,
    /// Also build for others: what it builds counts at every member
    Sign,
}

impl InviteRole {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Build => "build",
            Self::Sign => "sign",
        }
    }
}

fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "expected a number and s, m, h or d, such as 10m".to_owned();
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at_checked(split).ok_or_else(wrong)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)?;
    if (1..=7 * 86_400).contains(&seconds) { Ok(seconds) } else { Err("must be from 1s to 7d".to_owned()) }
}

pub(crate) async fn run(args: &InviteArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    if let Some(ticket) = &args.revoke {
        let request = RevokeRequest { ticket: ticket.clone() };
        let tickets: Vec<TicketRow> = client.post("revoke the ticket", "/v1/group/tickets/revoke", &request).await?;
        if out.json() {
            out.object(&tickets)?;
        } else {
            out.say("revoked: nobody can join with it");
        }
        return Ok(Exit::Done);
    }
    if args.list {
        return list(&client.get::<Vec<TicketRow>>("list the tickets", "/v1/group/tickets").await?, out);
    }
    let role = args.role.as_str().to_owned();
    let request = InviteRequest { role, expires_s: args.expires, name: args.name.clone() };
    let invited: Invited = client.post("make a ticket", "/v1/group/invite", &request).await?;
    if out.json() {
        out.object(&invited)?;
    } else {
        out.fact(&invited.ticket)?;
    }
    if args.qr || (out.is_seen() && !out.json()) {
        qr(&invited.ticket).lines().for_each(|line| out.say(line));
    }
    if out.is_seen() && !out.json() {
        out.say(&format!("On the other machine, within {}: peer join {}", short_time(args.expires), invited.ticket));
        out.say(&format!("It may then {}.", allows(args.role)));
        out.say(&format!("`peer invite --revoke {}` takes the ticket back.", invited.id));
    }
    Ok(Exit::Done)
}

fn allows(role: InviteRole) -> &'static str {
    match role {
        InviteRole::Fetch => "take binary packages from the members, and ask what they have",
        InviteRole::Build => "take binary packages from the members, ask what they have, and give them builds to do",
        InviteRole::Sign => {
            "take binary packages from the members, give them builds to do, and build for them: what it builds is installed by every member"
        }
    }
}

fn list(tickets: &[TicketRow], out: &Output) -> Result<Exit, Failure> {
    if out.json() {
        out.object(&tickets)?;
        return Ok(Exit::Done);
    }
    let now = now_s();
    let row = |ticket: &TicketRow| {
        let left = ticket.expires_at.saturating_sub(now);
        let expires = if ticket.state == "open" { short_time(left) } else { "-".to_owned() };
        let used_by = ticket.used_by.clone().unwrap_or_default();
        [ticket.id.clone(), ticket.role.clone(), ticket.state.clone(), expires, used_by]
    };
    aligned(&tickets.iter().map(row).collect::<Vec<_>>()).iter().try_for_each(|line| out.fact(line))?;
    if tickets.is_empty() {
        out.say("no tickets were made here yet");
    }
    Ok(Exit::Done)
}

/// Two rows of modules a line. In upper case, for which QR codes have a denser form; it reads the same.
fn qr(ticket: &str) -> String {
    let Ok(code) = QrCode::encode_text(&ticket.to_ascii_uppercase(), QrCodeEcc::Low) else {
        return "the ticket is too long for a QR code".to_owned();
    };
    let (mut text, end) = (String::new(), code.size() + QUIET_ZONE);
    let mut y = -QUIET_ZONE;
    while y < end {
        for x in -QUIET_ZONE..end {
            // Light is drawn, dark is left: terminals are dark more often than not.
            let light = |y: i32| y < end && !code.get_module(x, y);
            text.push(match (light(y), light(y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        text.push('\n');
        y += 2;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_a_unit_within_a_week() {
        for (text, expected) in [("90s", 90), ("10m", 600), ("2h", 7200), ("7d", 604_800)] {
            assert_eq!(seconds(text), Ok(expected));
        }
        for text in ["", "10", "m", "8d", "0s", "1.5h", "-1m", "10 m", "99999999999999999999d"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_qr_code_has_its_quiet_zone_and_finder_pattern() {
        let text = qr("peer1abc");
        let lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
        let wide = lines[0].len();
        assert!(lines.iter().all(|line| line.len() == wide) && wide >= 29, "{wide}");
        assert!(lines[0].iter().chain(&lines[1]).all(|c| *c == '█'), "quiet zone");
        // The finder's first two rows: seven dark modules, and under them only the first and last.
        assert_eq!(lines[2][4..11].iter().collect::<String>(), " ▄▄▄▄▄ ");
    }
}
