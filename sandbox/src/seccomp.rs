//! The system calls that are refused inside: a program for the kernel's filter, in the kernel's own words.
//!
//! It is made here and not by a library because what a library makes kills every program of the machine's 32-bit form,
//! which a multilib profile builds and runs, and does not look at the x32 form at all. All else is allowed: what the
//! namespaces do not hold is what is refused here. But for sockets: there are some forty families of them, few of which a
//! network namespace holds, so that only those are allowed which builds have a use for and it does hold.
//! Source: seccomp(2), `linux/filter.h`, `linux/net.h`, the kernel's system call tables.

/// Kinds of machine that there is a table for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Machine {
    X86_64,
    I386,
    Generic64 { audit: u32 },
}

const AUDIT_X86_64: u32 = 0xC000_003E;
const AUDIT_I386: u32 = 0x4000_0003;
const AUDIT_AARCH64: u32 = 0xC000_00B7;
const AUDIT_RISCV64: u32 = 0xC000_00F3;

impl Machine {
    fn audit(self) -> u32 {
        match self {
            Self::X86_64 => AUDIT_X86_64,
            Self::I386 => AUDIT_I386,
            Self::Generic64 { audit } => audit,
        }
    }

    /// Those this program's machine runs.
    fn here() -> &'static [Self] {
        if cfg!(target_arch = "x86_64") {
            &[Self::X86_64, Self::I386]
        } else if cfg!(target_arch = "aarch64") {
            &[Self::Generic64 { audit: AUDIT_AARCH64 }]
        } else if cfg!(target_arch = "riscv64") {
            &[Self::Generic64 { audit: AUDIT_RISCV64 }]
        } else {
            &[]
        }
    }
}

/// What a refused call answers.
const EPERM: u32 = 1;
/// Answered where programs try the older call then: glibc for clone3, libuv for io_uring.
const ENOSYS: u32 = 38;
/// What a kernel without a family of sockets answers.
const EAFNOSUPPORT: u32 = 97;

/// A call that is always refused: its numbers on x86_64, i386 and the generic table, 0 where there is none.
struct Refused(u32, u32, u32, u32);

/// What is refused whatever its arguments are.
const REFUSED: [Refused; 56] = [
    // mounts
    Refused(165, 21, 40, EPERM),   // mount
    Refused(166, 52, 39, EPERM),   // umount2
    Refused(0, 22, 0, EPERM),      // umount
    Refused(155, 217, 41, EPERM),  // pivot_root
    Refused(161, 61, 51, EPERM),   // chroot
    Refused(428, 428, 428, EPERM), // open_tree
    Refused(429, 429, 429, EPERM), // move_mount
    Refused(430, 430, 430, EPERM), // fsopen
    Refused(431, 431, 431, EPERM), // fsconfig
    Refused(432, 432, 432, EPERM), // fsmount
    Refused(433, 433, 433, EPERM), // fspick
    Refused(442, 442, 442, EPERM), // mount_setattr
    Refused(467, 467, 467, EPERM), // open_tree_attr
    // namespaces
    Refused(308, 346, 268, EPERM),  // setns
    Refused(435, 435, 435, ENOSYS), // clone3: its flags are out of a filter's sight
    // other processes
    Refused(101, 26, 117, EPERM),  // ptrace
    Refused(310, 347, 270, EPERM), // process_vm_readv
    Refused(311, 348, 271, EPERM), // process_vm_writev
    Refused(312, 349, 272, EPERM), // kcmp
    Refused(438, 438, 438, EPERM), // pidfd_getfd
    Refused(440, 440, 440, EPERM), // process_madvise
    // the kernel
    Refused(321, 357, 280, EPERM),  // bpf
    Refused(298, 336, 241, EPERM),  // perf_event_open
    Refused(246, 283, 104, EPERM),  // kexec_load
    Refused(320, 0, 294, EPERM),    // kexec_file_load
    Refused(175, 128, 105, EPERM),  // init_module
    Refused(313, 350, 273, EPERM),  // finit_module
    Refused(176, 129, 106, EPERM),  // delete_module
    Refused(174, 127, 0, EPERM),    // create_module
    Refused(323, 374, 282, EPERM),  // userfaultfd
    Refused(425, 425, 425, ENOSYS), // io_uring_setup
    Refused(426, 426, 426, ENOSYS), // io_uring_enter
    Refused(427, 427, 427, ENOSYS), // io_uring_register
    Refused(103, 103, 116, EPERM),  // syslog
    Refused(163, 51, 89, EPERM),    // acct
    Refused(167, 87, 224, EPERM),   // swapon
    Refused(168, 115, 225, EPERM),  // swapoff
    Refused(169, 88, 142, EPERM),   // reboot
    Refused(172, 110, 0, EPERM),    // iopl
    Refused(173, 101, 0, EPERM),    // ioperm
    Refused(154, 123, 0, EPERM),    // modify_ldt
    // memory that is in no process and no directory, where nobody can count it
    Refused(319, 356, 279, ENOSYS), // memfd_create
    Refused(447, 447, 447, ENOSYS), // memfd_secret
    // keys
    Refused(248, 286, 217, EPERM), // add_key
    Refused(249, 287, 218, EPERM), // request_key
    Refused(250, 288, 219, EPERM), // keyctl
    // files past their directories
    Refused(304, 342, 265, EPERM), // open_by_handle_at
    Refused(179, 131, 60, EPERM),  // quotactl
    Refused(443, 443, 443, EPERM), // quotactl_fd
    // clocks
    Refused(164, 79, 170, EPERM),  // settimeofday
    Refused(227, 264, 112, EPERM), // clock_settime
    Refused(159, 124, 171, EPERM), // adjtimex
    Refused(305, 343, 266, EPERM), // clock_adjtime
    Refused(0, 25, 0, EPERM),      // stime
    Refused(0, 404, 0, EPERM),     // clock_settime64
    Refused(0, 405, 0, EPERM),     // clock_adjtime64
];

/// Calls that are refused by what their arguments are: x86_64, i386, generic.
const CLONE: Numbers = Numbers(56, 120, 220);
const UNSHARE: Numbers = Numbers(272, 310, 97);
const IOCTL: Numbers = Numbers(16, 54, 29);
const PERSONALITY: Numbers = Numbers(135, 136, 92);
const SOCKET: Numbers = Numbers(41, 359, 198);
const SOCKETPAIR: Numbers = Numbers(53, 360, 199);
/// The one call of i386 for everything about sockets, before Linux 4.3: which one it is stands in its first argument, the
/// rest in memory, out of a filter's sight.
const SOCKETCALL: u32 = 102;
/// `SYS_SOCKET`; two ends of a pair that were made together lead nowhere, and their family is refused by the kernel
/// unless it is `AF_UNIX` or one that the network namespace holds.
const SOCKETCALL_SOCKET: u32 = 1;

/// `AF_UNIX`, `AF_INET`, `AF_INET6`, `AF_NETLINK`: those that end at the network namespace. `AF_VSOCK` reaches the machine
/// that this one runs on, and others the radio, the bus of a car, or the kernel's ciphers.
const FAMILIES: [u32; 4] = [1, 2, 10, 16];

struct Numbers(u32, u32, u32);

impl Numbers {
    fn on(&self, machine: Machine) -> u32 {
        match machine {
            Machine::X86_64 => self.0,
            Machine::I386 => self.1,
            Machine::Generic64 { .. } => self.2,
        }
    }
}

/// All `CLONE_NEW*` that clone and unshare know (time, mount, cgroup, uts, ipc, user, process, network).
const NEW_NAMESPACES: u32 =
    0x80 | 0x2_0000 | 0x200_0000 | 0x400_0000 | 0x800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000;
/// In clone the lowest byte is the signal at the child's end, so that `CLONE_NEWTIME` cannot be meant.
const NEW_BY_CLONE: u32 = NEW_NAMESPACES & !0xFF;
/// Typing into a terminal, as if by its user.
const TIOCSTI: u32 = 0x5412;
/// Pasting and more into a virtual console.
const TIOCLINUX: u32 = 0x541C;
/// Only `PER_LINUX`, `PER_LINUX32`, those with `UNAME26`, `ADDR_NO_RANDOMIZE`, and the question what it is.
const PERSONALITIES: [u32; 6] = [0, 8, 0x2_0000, 0x2_0008, 0x4_0000, u32::MAX];
/// This bit makes a number one of the x32 form.
const X32: u32 = 0x4000_0000;

const ALLOW: u32 = 0x7FFF_0000;
const KILL: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;

/// Offsets in the kernel's `struct seccomp_data`; of an argument the lower half, on a little-endian machine.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENT: [u32; 2] = [16, 24];

/// One instruction of the filter's machine (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

fn plain(code: u16, operand: u32) -> Instruction {
    Instruction { code, if_true: 0, if_false: 0, operand }
}

/// Goes on with the next instruction if true, else skips `skip`.
fn unless(code: u16, operand: u32, skip: u8) -> Instruction {
    Instruction { code, if_true: 0, if_false: skip, operand }
}

/// The filter of this machine, as bwrap reads it; none on a machine that there is no table for.
pub(crate) fn program() -> Option<Vec<u8>> {
    let machines = Machine::here();
    if machines.is_empty() || cfg!(target_endian = "big") {
        return None;
    }
    Some(bytes(&instructions(machines)))
}

fn bytes(instructions: &[Instruction]) -> Vec<u8> {
    let one = |instruction: &Instruction| {
        let code = instruction.code.to_ne_bytes();
        let operand = instruction.operand.to_ne_bytes();
        [code[0], code[1], instruction.if_true, instruction.if_false, operand[0], operand[1], operand[2], operand[3]]
    };
    instructions.iter().flat_map(one).collect()
}

fn instructions(machines: &[Machine]) -> Vec<Instruction> {
    let mut all = vec![plain(LOAD, ARCHITECTURE)];
    for &machine in machines {
        let of_machine = of_machine(machine);
        let length = u32::try_from(of_machine.len()).unwrap_or(u32::MAX);
        // A jump with a condition reaches 255 instructions only: the short one skips the long one.
        all.push(Instruction { code: JUMP_EQUAL, if_true: 1, if_false: 0, operand: machine.audit() });
        all.push(plain(JUMP, length));
        all.extend(of_machine);
    }
    all.push(plain(RETURN, KILL));
    all
}

fn of_machine(machine: Machine) -> Vec<Instruction> {
    let mut all = vec![plain(LOAD, NUMBER)];
    if machine == Machine::X86_64 {
        all.push(unless(JUMP_ANY_BIT, X32, 1));
        all.push(plain(RETURN, ERRNO | ENOSYS));
    }
    for Refused(x86_64, i386, generic, errno) in &REFUSED {
        let number = Numbers(*x86_64, *i386, *generic).on(machine);
        if number != 0 {
            all.push(unless(JUMP_EQUAL, number, 1));
            all.push(plain(RETURN, ERRNO | errno));
        }
    }
    for (numbers, flags) in [(CLONE, NEW_BY_CLONE), (UNSHARE, NEW_NAMESPACES)] {
        all.push(unless(JUMP_EQUAL, numbers.on(machine), 4));
        all.push(plain(LOAD, ARGUMENT[0]));
        all.push(unless(JUMP_ANY_BIT, flags, 1));
        all.push(plain(RETURN, ERRNO | EPERM));
        all.push(plain(RETURN, ALLOW));
    }
    all.push(unless(JUMP_EQUAL, IOCTL.on(machine), 6));
    all.push(plain(LOAD, ARGUMENT[1]));
    for request in [TIOCSTI, TIOCLINUX] {
        all.push(unless(JUMP_EQUAL, request, 1));
        all.push(plain(RETURN, ERRNO | EPERM));
    }
    all.push(plain(RETURN, ALLOW));
    for numbers in [SOCKET, SOCKETPAIR] {
        all.push(unless(JUMP_EQUAL, numbers.on(machine), 10));
        all.push(plain(LOAD, ARGUMENT[0]));
        for family in FAMILIES {
            all.push(unless(JUMP_EQUAL, family, 1));
            all.push(plain(RETURN, ALLOW));
        }
        all.push(plain(RETURN, ERRNO | EAFNOSUPPORT));
    }
    if machine == Machine::I386 {
        all.push(unless(JUMP_EQUAL, SOCKETCALL, 4));
        all.push(plain(LOAD, ARGUMENT[0]));
        all.push(unless(JUMP_EQUAL, SOCKETCALL_SOCKET, 1));
        all.push(plain(RETURN, ERRNO | EAFNOSUPPORT));
        all.push(plain(RETURN, ALLOW));
    }
    all.push(unless(JUMP_EQUAL, PERSONALITY.on(machine), 14));
    all.push(plain(LOAD, ARGUMENT[0]));
    for personality in PERSONALITIES {
        all.push(unless(JUMP_EQUAL, personality, 1));
        all.push(plain(RETURN, ALLOW));
    }
    all.push(plain(RETURN, ERRNO | EPERM));
    all.push(plain(RETURN, ALLOW));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer: the filter's machine, as far as it is used here.
    fn answer(machine: u32, number: u32, arguments: [u32; 2]) -> u32 {
        let of_arm = [Machine::Generic64 { audit: AUDIT_AARCH64 }];
        answer_of(
            &instructions(if machine == AUDIT_AARCH64 { &of_arm } else { &[Machine::X86_64, Machine::I386] }),
            machine,
            number,
            arguments,
        )
    }

    fn answer_of(all: &[Instruction], machine: u32, number: u32, arguments: [u32; 2]) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let step = all[at];
            at += 1;
            match step.code {
                LOAD => {
                    value = match step.operand {
                        NUMBER => number,
                        ARCHITECTURE => machine,
                        16 => arguments[0],
                        24 => arguments[1],
                        other => panic!("no such place: {other}"),
                    }
                }
                JUMP => at += step.operand as usize,
                JUMP_EQUAL => at += usize::from(if value == step.operand { step.if_true } else { step.if_false }),
                JUMP_ANY_BIT => at += usize::from(if value & step.operand != 0 { step.if_true } else { step.if_false }),
                RETURN => return step.operand,
                other => panic!("no such code: {other}"),
            }
        }
    }

    #[test]
    fn mounts_and_tracing_are_refused_in_both_forms() {
        assert_eq!(answer(AUDIT_X86_64, 165, [0, 0]), ERRNO | EPERM);
        assert_eq!(answer(AUDIT_X86_64, 101, [0, 0]), ERRNO | EPERM);
        assert_eq!(answer(AUDIT_I386, 21, [0, 0]), ERRNO | EPERM);
        assert_eq!(answer(AUDIT_I386, 26, [0, 0]), ERRNO | EPERM);
    }

    #[test]
    fn reading_and_writing_go_on_and_so_does_a_call_of_tomorrow() {
        for number in [0, 1, 2, 57, 59, 60, 257, 9999] {
            assert_eq!(answer(AUDIT_X86_64, number, [7, 7]), ALLOW, "{number}");
        }
        // 40 is mount in the generic table, sendfile here.
        assert_eq!(answer(AUDIT_X86_64, 40, [0, 0]), ALLOW);
    }

    #[test]
    fn a_thread_is_made_but_no_namespace() {
        assert_eq!(answer(AUDIT_X86_64, 56, [0x003D_0F00, 0]), ALLOW);
        assert_eq!(answer(AUDIT_X86_64, 56, [0x1000_0011, 0]), ERRNO | EPERM);
        assert_eq!(answer(AUDIT_X86_64, 56, [0x0000_0091, 0]), ALLOW);
        assert_eq!(answer(AUDIT_X86_64, 272, [0x80, 0]), ERRNO | EPERM);
        assert_eq!(answer(AUDIT_X86_64, 272, [0x200, 0]), ALLOW);
        assert_eq!(answer(AUDIT_X86_64, 435, [0, 0]), ERRNO | ENOSYS);
        assert_eq!(answer(AUDIT_I386, 120, [0x2000_0000, 0]), ERRNO | EPERM);
    }

    #[test]
    fn nothing_is_typed_into_a_terminal() {
        assert_eq!(answer(AUDIT_X86_64, 16, [0, TIOCSTI]), ERRNO | EPERM);
        assert_eq!(answer(AUDIT_X86_64, 16, [0, TIOCLINUX]), ERRNO | EPERM);
        assert_eq!(answer(AUDIT_X86_64, 16, [0, 0x5401]), ALLOW);
    }

    #[test]
    fn harmless_personalities_are_allowed_and_others_not() {
        assert_eq!(answer(AUDIT_X86_64, 135, [u32::MAX, 0]), ALLOW);
        assert_eq!(answer(AUDIT_X86_64, 135, [8, 0]), ALLOW);
        assert_eq!(answer(AUDIT_X86_64, 135, [0x0040_0000, 0]), ERRNO | EPERM);
        assert_eq!(answer(AUDIT_X86_64, 136, [0x0040_0000, 0]), ALLOW);
    }

    #[test]
    fn the_x32_form_is_no_way_around() {
        assert_eq!(answer(AUDIT_X86_64, X32 | 165, [0, 0]), ERRNO | ENOSYS);
    }

    #[test]
    fn a_program_of_another_machine_is_ended() {
        assert_eq!(answer(AUDIT_RISCV64, 0, [0, 0]), KILL);
    }

    /// A socket of the family `AF_VSOCK` went past the network namespace, to the machine that this one runs on.
    #[test]
    fn sockets_are_of_families_that_a_network_namespace_holds() {
        let calls = [(AUDIT_X86_64, 41, 53), (AUDIT_I386, 359, 360), (AUDIT_AARCH64, 198, 199)];
        for (machine, socket, pair) in calls {
            for family in (0..=64).chain([u32::MAX, 1 << 16]) {
                let expected = if [1, 2, 10, 16].contains(&family) { ALLOW } else { ERRNO | EAFNOSUPPORT };
                for number in [socket, pair] {
                    assert_eq!(answer(machine, number, [family, 1]), expected, "{machine:x} {number} {family}");
                }
            }
            assert_eq!(answer(AUDIT_X86_64, X32 | 41, [1, 1]), ERRNO | ENOSYS);
        }
        for call in 0..32 {
            let expected = if call == 1 { ERRNO | EAFNOSUPPORT } else { ALLOW };
            assert_eq!(answer(AUDIT_I386, 102, [call, 0]), expected, "socketcall {call}");
        }
        assert_eq!(answer(AUDIT_X86_64, 102, [1, 0]), ALLOW, "getuid");
    }

    #[test]
    fn the_program_fits_the_kernels_bound() {
        let all = instructions(&[Machine::X86_64, Machine::I386]);
        assert!(all.len() < 4096, "{}", all.len());
        assert_eq!(bytes(&all).len(), all.len() * 8);
        let generic = instructions(&[Machine::Generic64 { audit: AUDIT_AARCH64 }]);
        assert!(generic.iter().any(|step| step.code == JUMP_EQUAL && step.operand == 117), "ptrace");
    }
}
