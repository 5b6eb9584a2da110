//! What a command must not be able to do.

use crate::mode::{modes, survivors};
use sandbox::End;

#[tokio::test]
async fn there_is_no_network_not_even_this_machines_own() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for mode in modes() {
        let script = format!(
            "python3 -c \"
import socket
for address in (('127.0.0.1', {port}), ('192.0.2.1', 80)):
    try:
        socket.create_connection(address, 3); print('connected', address)
    except OSError as error:
        print('no')
try:
    socket.getaddrinfo('example.org', 80); print('resolved')
except OSError:
    print('no')
\"; cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' '"
        );
        assert_eq!(mode.says(&script).await, "no\nno\nno\nlo\n", "{}", mode.name);
    }
}

/// A socket of the family `AF_VSOCK` went past the network namespace, to the machine that this one runs on.
#[tokio::test]
async fn sockets_are_only_of_families_that_the_network_namespace_holds() {
    // A program of the 32-bit form that makes a socket of family `ebx`, and ends with the error: by socket(2) itself, and by
    // socketcall(2) with its arguments on the stack.
    let by_socket = "b867010000bb{:02x}000000b90100000031d2cd80f7d889c3b801000000cd80";
    let by_socketcall = "6a006a016a{:02x}b866000000bb0100000089e1cd80f7d889c3b801000000cd80";
    let script = format!(
        "python3 -c \"
import ctypes, os, socket, struct, subprocess
for family in range(0, 64):
    for make in (socket.socket, lambda family, kind: socket.socketpair(family, kind)[0]):
        try:
            make(family, socket.SOCK_DGRAM).close(); print('made', family)
        except OSError as error:
            if error.errno != 97 and family not in (1, 2, 10, 16): print('answered', family, error)
libc = ctypes.CDLL(None, use_errno=True)
print('x32', libc.syscall(0x40000000 | 41, 40, 1, 0), ctypes.get_errno())
def short(code):
    head = b'\\x7fELF' + bytes([1, 1, 1]) + bytes(9) + struct.pack('<HHIIIIIHHHHHH', 2, 3, 1, 0x8048054, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    load = struct.pack('<IIIIIIII', 1, 0, 0x8048000, 0x8048000, 84 + len(code), 84 + len(code), 5, 4096)
    with open('/job/short', 'wb') as file: file.write(head + load + code)
    os.chmod('/job/short', 0o755)
    return subprocess.run(['/job/short']).returncode
for family in (1, 2, 40, 38):
    codes = ['{by_socket}'.format(family), '{by_socketcall}'.format(family)]
    print('short', family, *(short(bytes.fromhex(code)) for code in codes))
\" 2>&1"
    );
    for mode in modes() {
        let log = mode.says(&script).await;
        let (short, others): (Vec<&str>, Vec<&str>) = log.lines().partition(|line| line.starts_with("short"));
        let made = ["made 1", "made 1", "made 2", "made 10", "made 16"];
        assert_eq!(others, [&made[..], &["x32 -1 38"]].concat(), "{}", mode.name);
        if cfg!(target_arch = "x86_64") {
            // What is made has the first free number, and ends with what that is below zero.
            let negative =
                |line: &str, at| line.split(' ').nth(at).and_then(|code| code.parse().ok()).unwrap_or(0) > 128;
            assert!(negative(short[0], 2) && negative(short[1], 2), "{}: {short:?}", mode.name);
            assert!(short.iter().all(|line| line.ends_with(" 97")), "{}: {short:?}", mode.name);
            assert_eq!(short[2..], ["short 40 97 97", "short 38 97 97"], "{}", mode.name);
        }
    }
}

#[tokio::test]
async fn secrets_and_other_homes_are_not_there() {
    for mode in modes() {
        let log = mode
            .says(
                "for f in /etc/shadow /etc/gshadow /etc/ssh /root /home /etc/machine-id /etc/ssl/private /proc/1/root/root \
                 /proc/1/root/etc/shadow /mnt /sys /var/lib /var/log /dev/mem /dev/sda /dev/vda /dev/kmsg; do
                   [ -e $f ] && echo \"$f is there\"; done; true",
            )
            .await;
        assert_eq!(log, "", "{}", mode.name);
    }
}

#[tokio::test]
async fn a_link_out_of_the_work_directory_leads_inside_only() {
    for mode in modes() {
        let outside = mode.path("outside");
        let script = format!(
            "ln -s {0} /job/link; echo x > /job/link 2>&1; mkdir -p {0} 2>&1; cd /job; cat ../../../../etc/shadow 2>&1; true",
            outside.display()
        );
        let log = mode.says(&script).await;
        assert!(!outside.exists() && !log.contains("root:"), "{}: {log}", mode.name);
    }
}

#[tokio::test]
async fn mounts_namespaces_and_tracing_are_refused() {
    for mode in modes() {
        let log = mode
            .says(
                "python3 -c \"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def refused(name, *arguments):
    ctypes.set_errno(0)
    answer = getattr(libc, name)(*arguments)
    print(name, answer, os.strerror(ctypes.get_errno()))
refused('mount', b'none', b'/tmp', b'tmpfs', 0, None)
refused('umount2', b'/tmp', 0)
refused('unshare', 0x10000000)
refused('unshare', 0x00020000)
refused('ptrace', 0, 0, 0, 0)
refused('setns', 0, 0)
refused('personality', 0x0400000)
refused('chroot', b'/tmp')
refused('memfd_create', b'x', 0)
refused('mknod', b'/job/sda', 0o60666, os.makedev(8, 0))
print(libc.syscall(435, 0, 0), ctypes.get_errno() == 0)
\"; grep -e Seccomp: -e NoNewPrivs /proc/self/status",
            )
            .await;
        let expected = "mount -1 Operation not permitted\numount2 -1 Operation not permitted\n\
             unshare -1 Operation not permitted\nunshare -1 Operation not permitted\n\
             ptrace -1 Operation not permitted\nsetns -1 Operation not permitted\n\
             personality -1 Operation not permitted\nchroot -1 Operation not permitted\n\
             memfd_create -1 Function not implemented\n\
             mknod -1 Operation not permitted\n-1 False\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        assert_eq!(log, expected, "{}", mode.name);
    }
}

#[tokio::test]
async fn capabilities_are_few_or_none() {
    for mode in modes() {
        let log = mode
            .says("grep -e CapPrm -e CapEff -e CapAmb -e CapInh /proc/self/status; setpriv -d | grep -i bounding")
            .await;
        // CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, FSETID 4, KILL 5, SETGID 6, SETUID 7
        let few = if mode.name == "mapped" { "00000000000000fb" } else { "0000000000000000" };
        assert!(
            log.contains(&format!("CapPrm:\t{few}")) && log.contains(&format!("CapEff:\t{few}")),
            "{}: {log}",
            mode.name
        );
    }
}

#[tokio::test]
async fn what_is_left_behind_is_gone_when_the_command_has_ended() {
    for mode in modes() {
        let marker = format!("3600.{}{}", std::process::id(), mode.name.len());
        let script = format!(
            "setsid sleep {marker} </dev/null >/dev/null 2>&1 & (setsid sh -c 'trap \"\" TERM HUP INT; sleep {marker}' & ) ; \
             python3 -c \"
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 100)
        os.execvp('sleep', ['sleep', '{marker}'])
\"; sleep 0.1; echo end"
        );
        let (outcome, log) = mode.shell(&script).await;
        assert_eq!((outcome.end, log.as_str()), (End::Ended { code: 0 }, "end\n"), "{}", mode.name);
        assert_eq!(survivors(&marker), Vec::<std::path::PathBuf>::new(), "{}", mode.name);
    }
}

#[tokio::test]
async fn a_command_that_ends_its_own_keeper_is_ended_too() {
    for mode in modes() {
        let (outcome, _) = mode.shell("kill -KILL 1; kill -TERM 1; kill -KILL -1; sleep 1; exit 3").await;
        assert!(matches!(outcome.end, End::Ended { code } if code != 0), "{}: {outcome:?}", mode.name);
    }
}
