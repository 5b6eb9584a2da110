//! What the programs and libraries of a package need of other libraries, and what its libraries give: sonames and symbol
//! versions, as the dynamic linker compares them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A library's name as the dynamic linker looks for it: only files of one ABI fit together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Soname {
    /// The kind of program.
    pub abi: Abi,
    /// As `DT_NEEDED` and `DT_SONAME` write it.
    pub name: String,
}

/// A kind of program: the ELF class (32 or 64 bits) and the number of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Abi {
    /// 32 or 64.
    pub bits: u8,
    /// `e_machine`: 3 for i386, 62 for x86-64, 183 for aarch64.
    pub machine: u16,
}

/// Sonames, and the symbol versions of each.
pub type Versions = BTreeMap<Soname, BTreeSet<String>>;

/// What the ELF files of a package, or of a machine, need and give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Libraries that are needed, and which versions of their symbols.
    pub needs: Versions,
    /// Libraries that are there, and which versions of symbols they define.
    pub gives: Versions,
}

impl fmt::Debug for Soname {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}:{}", self.abi.bits, self.abi.machine, self.name)
    }
}
