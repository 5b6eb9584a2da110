//! What starting a sandbox costs: `/bin/true` inside of one and bare, in turn. Prints the medians in milliseconds as JSON.
//!
//! For `bench/builds`; the argument is the number of pairs.
#![expect(clippy::print_stdout, reason = "it is a program of its own, and its output is its answer")]

use sandbox::spawn::{Job, run};
use sandbox::{Cancel, End, Identity, Policy, Root, Sandbox};
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant};

const COMMAND: &str = "/bin/true";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pairs: usize = std::env::args().nth(1).map_or(Ok(20), |word| word.parse())?;
    let sandbox = Sandbox::open(OsStr::new(""))?;
    let policy = Policy::new(Root::host(), Identity::of_this_process());
    let (mut inside, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        let begun = Instant::now();
        let captured = sandbox.capture(&policy, &[OsString::from(COMMAND)], b"", 1024, Cancel::never()).await?;
        inside.push(begun.elapsed());
        if !matches!(captured.outcome.end, End::Ended { code: 0 }) {
            return Err(captured.errors.into());
        }
        let job = Job {
            program: COMMAND.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            input: Vec::new(),
            output_max_bytes: 1024,
            deadline: Duration::from_secs(10),
        };
        let begun = Instant::now();
        run(job).await?;
        bare.push(begun.elapsed());
    }
    println!("{{\"sandbox_ms\": {:.2}, \"bare_ms\": {:.2}}}", median_ms(inside), median_ms(bare));
    Ok(())
}

fn median_ms(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64) * 1000.0
}
