//! `peer search`: packages by words.

use crate::client::Client;
use crate::commands::weather::ask;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::table::aligned;
use clap::Args;
use daemon::api_questions::{SearchAnswer, SearchRequest, SearchRow};

/// Find packages by words in their names and descriptions.
#[derive(Debug, Args)]
#[command(long_about = "Find packages by words in their names and descriptions.\n\n\
    Prints `CPV REPOSITORY binary|- DOMAIN DESCRIPTION` for the newest version of each package that has all of the words, \
    those with the words in their names first; DOMAIN is `here` or the name of the node that knows of it. Ends with 1 when \
    nothing is found.")]
pub(crate) struct SearchArgs {
    /// All of these are in the name or the description
    #[arg(required = true, value_name = "WORD")]
    words: Vec<String>,
    /// Only of this machine of the group, by its name or key
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
}

pub(crate) async fn run(args: &SearchArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let request = SearchRequest { words: args.words.clone(), domain: args.domain.clone() };
    let Some(answer): Option<SearchAnswer> = ask("search", "/v1/search", &request, client, out).await? else {
        return Ok(Exit::No);
    };
    if out.json() {
        out.object(&answer)?;
    } else {
        aligned(&answer.rows.iter().map(row).collect::<Vec<_>>()).iter().try_for_each(|line| out.fact(line))?;
    }
    answer.silent.iter().for_each(|why| out.say(&format!("peer: {why}")));
    if answer.more {
        out.say(&format!("these are the first {}: say more words to find fewer", answer.rows.len()));
    }
    if answer.rows.is_empty() {
        out.complain(&format!("peer: nothing has {:?} in its name or description", args.words.join(" ")));
        return Ok(Exit::No);
    }
    Ok(Exit::Done)
}

fn row(row: &SearchRow) -> [String; 5] {
    let repo = if row.repo.is_empty() { "-" } else { &row.repo };
    let binary = if row.binary { "binary" } else { "-" };
    let domain = row.domain.as_deref().unwrap_or("here");
    [row.cpv.clone(), repo.to_owned(), binary.to_owned(), domain.to_owned(), row.description.clone()]
}
