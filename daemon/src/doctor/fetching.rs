//! Whether Portage reaches this node with the commands that it is configured to fetch with: tried by Portage's own code,
//! so that proxies, options, wrappers and what users make of FETCHCOMMAND are what they are for emerge.

use super::{Check, State};
use crate::portage::program;
use sandbox::spawn::{Job, RunError, run};
use serde::Deserialize;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// On loopback an answer takes milliseconds; a proxy that is not there may take its time.
const DEADLINE: Duration = Duration::from_secs(20);
/// The answer is a JSON object with the end of what two commands said.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;
/// Runs both commands on a file that is there, and the first on one that is not.
const SCRIPT: &str = include_str!("fetching.py");
/// What fetching programs read of an environment.
pub const VARIABLES: [&str; 16] = [
    "HOME",
    "WGETRC",
    "CURL_HOME",
    "FETCHCOMMAND",
    "RESUMECOMMAND",
    "FETCHCOMMAND_HTTP",
    "RESUMECOMMAND_HTTP",
    "FEATURES",
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "RSYNC_PROXY",
];

/// How Portage's commands did.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Fetching {
    commands: Vec<Tried>,
    proxy: Option<String>,
    no_proxy: Option<String>,
}

/// One command.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Tried {
    /// FETCHCOMMAND or RESUMECOMMAND.
    name: String,
    /// What it says in the configuration.
    text: String,
    /// Whether the file came.
    is_right: bool,
    /// Whether a file that is not there was taken for one.
    takes_errors: bool,
    /// The end of what it said.
    said: String,
}

impl Fetching {
    /// Tries them out at `http`, with Portage of the `python3` in `path` and these variables of the environment.
    ///
    /// Cancel safe: yes.
    ///
    /// # Errors
    /// Why it cannot be told; that it took too long is a finding.
    pub async fn try_out(
        path: &OsStr,
        config_root: &Path,
        http: SocketAddr,
        variables: &[(OsString, OsString)],
    ) -> Result<Self, String> {
        let python = program(path, "python3").ok_or("there is no python3 in the PATH")?;
        let mut environment: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), path.to_owned()),
            ("LANG".into(), "C.UTF-8".into()),
            ("PORTAGE_CONFIGROOT".into(), config_root.into()),
        ];
        environment.extend_from_slice(variables);
        let url = format!("http://{http}/distfiles/layout.conf");
        let job = Job {
            program: python,
            arguments: vec!["-I".into(), "-c".into(), SCRIPT.into(), url.into()],
            environment,
            input: Vec::new(),
            output_max_bytes: ANSWER_MAX_BYTES,
            deadline: DEADLINE,
        };
        match run(job).await {
            Ok(ended) => serde_json::from_slice(&ended.output)
                .map_err(|_| ended.errors.lines().last().unwrap_or("it said nothing").to_owned()),
            Err(RunError::Deadline { seconds, .. }) => Ok(Self::silent(seconds)),
            Err(error) => Err(error.to_string()),
        }
    }

    fn silent(seconds: u64) -> Self {
        let tried = Tried {
            name: "FETCHCOMMAND".to_owned(),
            text: String::new(),
            is_right: false,
            takes_errors: false,
            said: format!("nothing came within {seconds} s"),
        };
        Self { commands: vec![tried], proxy: None, no_proxy: None }
    }
}

pub(super) fn checks(fetching: &Result<Fetching, String>) -> Vec<Check> {
    const NAME: &str = "fetching";
    let fetching = match fetching {
        Ok(fetching) => fetching,
        Err(why) => return vec![Check::new(NAME, State::Info, format!("Portage's way to fetch was not tried: {why}"))],
    };
    let mut checks = Vec::new();
    for tried in &fetching.commands {
        let object = match tried.text.as_str() {
            "" => tried.name.clone(),
            text => format!("{}=\"{text}\"", tried.name),
        };
        if !tried.is_right {
            let said = if tried.said.is_empty() { "it said nothing" } else { &tried.said };
            let (cause, mend) = cause(fetching, tried);
            let finding = format!("Portage cannot fetch from this node with its {}: {said}{cause}", tried.name);
            checks.push(Check::new(NAME, State::Fail, finding).object(object).mend(mend));
        } else if tried.takes_errors {
            let finding = format!(
                "{} takes the page of an error for a file, so each file that nobody has is fetched and thrown away",
                tried.name
            );
            checks.push(Check::new(NAME, State::Warn, finding).object(object).mend("curl wants --fail"));
        }
    }
    if checks.is_empty() {
        checks.push(Check::new(NAME, State::Ok, "Portage's own commands fetch from this node"));
    }
    checks
}

fn cause(fetching: &Fetching, tried: &Tried) -> (String, String) {
    match &fetching.proxy {
        Some(proxy) => {
            let without = fetching.no_proxy.as_deref().unwrap_or_default();
            let shown = proxy.rsplit_once('@').map_or(proxy.as_str(), |(_credentials, host)| host);
            let joined =
                [without, "127.0.0.1,localhost"].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
            (
                format!(
                    "; a proxy is asked for this machine's own address: http_proxy is {shown}, no_proxy is {without:?}"
                ),
                format!(
                    "no_proxy=\"{}\" in make.conf, and in the environment where the proxy stands there",
                    joined.join(",")
                ),
            )
        }
        None => (
            String::new(),
            format!(
                "mend {} in make.conf, or take it out: Portage's own works; an option such as --proxy must spare 127.0.0.1",
                tried.name
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(is_right: bool, takes_errors: bool, proxy: Option<&str>) -> Check {
        let name = "FETCHCOMMAND".to_owned();
        let tried =
            Tried { name, text: "wget \"${URI}\"".to_owned(), is_right, takes_errors, said: "failed".to_owned() };
        let fetching = Fetching {
            commands: vec![tried],
            proxy: proxy.map(str::to_owned),
            no_proxy: Some("example.org".to_owned()),
        };
        checks(&Ok(fetching)).remove(0)
    }

    #[test]
    fn what_keeps_portage_from_this_node_is_told_with_its_mend() {
        assert_eq!(told(true, false, Some("http://p.example:3128")).state, State::Ok);
        assert_eq!(told(true, true, None).state, State::Warn);
        let check = told(false, false, Some("http://me:secret@p.example:3128"));
        assert_eq!(check.state, State::Fail);
        assert!(check.finding.contains("p.example:3128") && !check.finding.contains("secret"), "{check:?}");
        assert!(check.mend.is_some_and(|mend| mend.contains("no_proxy=\"example.org,127.0.0.1,localhost\"")));
        let check = told(false, false, None);
        assert_eq!((check.state, check.object.as_deref()), (State::Fail, Some("FETCHCOMMAND=\"wget \"${URI}\"\"")));
        assert_eq!(checks(&Ok(Fetching::silent(20)))[0].state, State::Fail);
        assert_eq!(checks(&Err("no Portage".to_owned()))[0].state, State::Info);
    }
}
