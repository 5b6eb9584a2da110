//! What ends a command.

use crate::mode::{modes, shell, survivors};
use sandbox::{Cancel, End, Limit, LogFile, LogSink, SandboxError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

#[tokio::test]
async fn a_command_past_its_time_is_ended_with_all_it_started() {
    for mut mode in modes() {
        mode.policy.limits.time = Duration::from_millis(300);
        let marker = format!("3601.{}{}", std::process::id(), mode.name.len());
        let (outcome, log) =
            mode.shell(&format!("trap '' TERM; echo on; sleep {marker} & setsid sleep {marker}")).await;
        assert_eq!((outcome.end, log.as_str()), (End::Limit(Limit::Time), "on\n"), "{}", mode.name);
        assert_eq!(survivors(&marker), Vec::<std::path::PathBuf>::new(), "{}", mode.name);
    }
}

#[tokio::test]
async fn a_command_that_is_cancelled_is_ended_with_all_it_started() {
    for mode in modes() {
        let marker = format!("3602.{}{}", std::process::id(), mode.name.len());
        let (lines, mut follow) = mpsc::channel(10);
        let (cancel, cancelled) = watch::channel(false);
        let command = shell(&format!("echo on; sleep {marker}"));
        let sink = LogSink { file: None, lines: Some(lines) };
        let run = mode.sandbox.run(&mode.policy, &command, sink, Cancel::when(cancelled));
        let cancel_it = async {
            assert_eq!(follow.recv().await.unwrap().text, "on");
            cancel.send(true).unwrap();
        };
        let (outcome, ()) = tokio::join!(run, cancel_it);
        assert_eq!(outcome.unwrap().end, End::Cancelled, "{}", mode.name);
        assert_eq!(survivors(&marker), Vec::<std::path::PathBuf>::new(), "{}", mode.name);
    }
}

#[tokio::test]
async fn one_that_was_cancelled_before_does_not_start() {
    for mode in modes() {
        let (_cancel, cancelled) = watch::channel(true);
        let command = shell("echo x > /job/started");
        let run = mode.sandbox.run(&mode.policy, &command, LogSink::default(), Cancel::when(cancelled));
        assert!(matches!(run.await.unwrap_err(), SandboxError::Cancelled));
        assert!(!mode.path("work/started").exists());
    }
}

#[tokio::test]
async fn forks_without_end_are_bounded() {
    for mut mode in modes() {
        mode.policy.limits.pids = 100;
        mode.policy.limits.time = Duration::from_secs(20);
        let script = "python3 -c \"
import os, time
children = 0
try:
    while children < 2000:
        if os.fork() == 0:
            time.sleep(1000)
        children += 1
except OSError as error:
    print('stopped', children < 100, error.errno)
    raise SystemExit(9)
time.sleep(1000)
\"";
        let (outcome, log) = mode.shell(script).await;
        // The machine's root is not counted by the kernel, only by looking.
        let is_stopped = match outcome.end {
            End::Ended { code: 9 } => log == "stopped True 11\n",
            end => end == End::Limit(Limit::Pids),
        };
        assert!(is_stopped, "{}: {outcome:?} {log}", mode.name);
    }
}

#[tokio::test]
async fn too_much_memory_in_one_process_or_in_all_is_not_had() {
    for mut mode in modes() {
        mode.policy.limits.memory_bytes = 256 << 20;
        let (outcome, log) = mode.shell("python3 -c 'x = bytearray(400 << 20)' 2>&1 | tail -1").await;
        assert!(
            log.contains("MemoryError") || outcome.end == End::Limit(Limit::Memory),
            "{}: {outcome:?} {log}",
            mode.name
        );
        let many =
            "for i in 1 2 3 4; do python3 -c 'import time; x = bytearray(100 << 20); time.sleep(1000)' & done; wait";
        let (outcome, _) = mode.shell(many).await;
        assert_eq!(outcome.end, End::Limit(Limit::Memory), "{}", mode.name);
        let shared = "python3 -c \"import mmap, time; x = mmap.mmap(-1, 400 << 20); x.write(bytes(400 << 20)); time.sleep(1000)\"";
        let (outcome_of_shared, log) = mode.shell(shared).await;
        assert_ne!(outcome_of_shared.end, End::Ended { code: 0 }, "{}: {log}", mode.name);
        assert!(outcome.usage.memory_peak_bytes.is_some_and(|peak| peak > 200 << 20), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_full_work_directory_ends_the_command() {
    for mut mode in modes() {
        mode.policy.limits.disk_bytes = 8 << 20;
        let (outcome, _) =
            mode.shell("for i in 1 2 3 4; do head -c 4194304 /dev/urandom > /job/$i; done; sleep 1000").await;
        assert_eq!(outcome.end, End::Limit(Limit::Disk), "{}", mode.name);
        mode.policy.limits.file_bytes = 1 << 20;
        let (outcome, _) = mode.shell("rm /job/*; head -c 4194304 /dev/zero > /job/long").await;
        assert!(!outcome.is_success());
        assert_eq!(std::fs::metadata(mode.path("work/long")).unwrap().len(), 1 << 20, "{}", mode.name);
    }
}

/// Empty files fill no disk, and still use up what a file system has, or the kernel's memory.
#[tokio::test]
async fn files_without_end_end_the_command_wherever_they_are() {
    for place in ["/job", "/job/deep/in/it", "/tmp", "/dev/shm"] {
        for mut mode in modes() {
            mode.policy.limits.files = 2000;
            mode.policy.limits.scratch_bytes = 2000 * 4096;
            let script = format!(
                "python3 -c \"
import os, time
os.makedirs('{place}', exist_ok=True)
for number in range(4000):
    os.close(os.open('{place}/%d' % number, os.O_CREAT))
time.sleep(1000)
\""
            );
            let (outcome, log) = mode.shell(&script).await;
            assert_eq!(outcome.end, End::Limit(Limit::Files), "{} {place}: {log}", mode.name);
        }
    }
    for mut mode in modes() {
        mode.policy.limits.files = 2000;
        mode.says("for i in $(seq 100); do : > /job/$i; : > /tmp/$i; done").await;
    }
}

#[tokio::test]
async fn a_disk_that_gets_full_ends_the_command_whoever_fills_it() {
    for mut mode in modes() {
        // More than any disk keeps free cannot be passed below: the bound counts only for a disk that was above it.
        mode.policy.limits.disk_reserve_bytes = u64::MAX;
        mode.says("echo x > /job/x").await;
    }
}

#[tokio::test]
async fn a_log_without_end_is_bounded_and_its_end_is_kept() {
    for mode in modes() {
        let path = mode.path("bounded");
        let sink = LogSink { file: Some(LogFile::create(&path, 64 << 10).unwrap()), lines: None };
        let command = shell("seq 1 2000000; echo last");
        let outcome = mode.sandbox.run(&mode.policy, &command, sink, Cancel::never()).await.unwrap();
        assert!(outcome.is_success() && outcome.log.left_out_bytes > 10 << 20, "{outcome:?}");
        let text = mode.read("bounded");
        assert!(text.starts_with("1\n2\n") && text.ends_with("2000000\nlast\n") && text.len() < 70 << 10);
        assert_eq!(outcome.log.last.last().map(String::as_str), Some("last"));
    }
}

#[tokio::test]
async fn captured_output_without_end_ends_the_command() {
    for mode in modes() {
        let captured = mode.sandbox.capture(&mode.policy, &shell("yes"), &[], 1 << 20, Cancel::never()).await.unwrap();
        assert_eq!(captured.outcome.end, End::Limit(Limit::Output), "{}", mode.name);
        assert!(captured.output.len() <= 1 << 20);
    }
}

#[tokio::test]
async fn what_it_used_is_told() {
    for mode in modes() {
        let (outcome, _) = mode
            .shell("python3 -c 'for i in range(20000000): pass'; head -c 1000000 /dev/urandom > /job/x; sleep 1.2")
            .await;
        let usage = outcome.usage;
        assert!(usage.cpu.is_some_and(|cpu| cpu > Duration::from_millis(50)), "{usage:?}");
        assert!(usage.disk_bytes.is_some_and(|bytes| bytes >= 1_000_000), "{usage:?}");
    }
}
