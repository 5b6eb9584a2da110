//! Binary packages that are nearly what is wanted: what there is of a package here, seen as a reason why it is not taken.

use crate::api_questions::MissKind;
use crate::binhost::{self, RejectKind};
use crate::builds::plan::Planned;
use crate::swarm::PeerId;
use std::collections::BTreeSet;
use tree::cpv::Cpv;
use tree::digest::Digest;

/// One binary package somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// What.
    pub cpv: Cpv,
    /// From which ebuild repository.
    pub repo: String,
    /// USE flags that are on.
    pub use_flags: BTreeSet<String>,
    /// USE flags it has, on or off.
    pub iuse: BTreeSet<String>,
    /// For which system, where it is known.
    pub chost: Option<String>,
    /// With which compiler flags, where they are known.
    pub cflags: Option<String>,
    /// Of its recipe.
    pub fingerprint: Digest,
    /// Number among builds of the same version.
    pub build_id: Option<u64>,
    /// The blob.
    pub digest: Digest,
    /// Name of the node that has it; none for this one.
    pub at: Option<String>,
    /// That node.
    pub peer: Option<PeerId>,
    /// Why this machine cannot use it, if so.
    pub rejects: Vec<(MissKind, String)>,
}

impl Instance {
    /// A package of this node's binhost.
    #[must_use]
    pub fn of(instance: &binhost::Instance) -> Self {
        let row = &instance.row;
        let compiled = row.demands.as_ref().and_then(|demands| demands.flags.get("CFLAGS").cloned());
        let words = |key: &str| -> BTreeSet<String> {
            let text = row.entry.get(key).unwrap_or_default();
            text.split_ascii_whitespace().map(|flag| flag.trim_start_matches(['+', '-']).to_owned()).collect()
        };
        let iuse = words("IUSE");
        let text = |key: &str| row.entry.get(key).filter(|text| !text.is_empty()).map(str::to_owned);
        Self {
            cpv: row.entry.cpv().clone(),
            repo: text("REPO").unwrap_or_default(),
            use_flags: words("USE").intersection(&iuse).cloned().collect(),
            iuse,
            chost: text("CHOST"),
            cflags: compiled.or_else(|| text("CFLAGS")),
            fingerprint: row.fingerprint,
            build_id: row.entry.get("BUILD_ID").and_then(|id| id.parse().ok()),
            digest: row.digest,
            at: None,
            peer: None,
            rejects: instance.rejects.iter().map(|reject| (kind_of(reject.kind), reject.text.clone())).collect(),
        }
    }

    /// In which it differs from what is wanted, the weightiest first. Empty where only the recipe is another.
    #[must_use]
    pub fn differences(&self, wanted: &Sought) -> Vec<(MissKind, String)> {
        let mut found = Vec::new();
        if let (Some(here), Some(there)) = (&wanted.chost, &self.chost)
            && here != there
            && !self.rejects.iter().any(|(kind, _)| *kind == MissKind::Chost)
        {
            found.push((MissKind::Chost, format!("it is built for {there}")));
        }
        found.extend(self.rejects.iter().filter(|(kind, _)| *kind != MissKind::Use).cloned());
        let wanted_on: BTreeSet<&String> = wanted.use_flags.iter().filter(|flag| self.iuse.contains(*flag)).collect();
        let on: BTreeSet<&String> = self.use_flags.iter().collect();
        let more = on.difference(&wanted_on).map(|flag| format!("+{flag}"));
        let less = wanted_on.difference(&on).map(|flag| format!("-{flag}"));
        let flags: Vec<String> = more.chain(less).collect();
        if !flags.is_empty() {
            found.push((MissKind::Use, format!("it has USE {}", flags.join(" "))));
        }
        found
    }
}

fn kind_of(kind: RejectKind) -> MissKind {
    match kind {
        RejectKind::Guest => MissKind::Guest,
        RejectKind::Chost => MissKind::Chost,
        RejectKind::Use => MissKind::Use,
        RejectKind::Cpu => MissKind::Cpu,
        RejectKind::Soname => MissKind::Soname,
        RejectKind::Symbol => MissKind::Symbol,
    }
}

/// What is wanted, as far as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sought {
    /// What.
    pub cpv: Cpv,
    /// USE flags that are on.
    pub use_flags: BTreeSet<String>,
    /// For which system.
    pub chost: Option<String>,
    /// With which compiler flags.
    pub cflags: Option<String>,
}

impl Sought {
    /// What a plan wants.
    #[must_use]
    pub fn of(planned: &Planned) -> Self {
        let variable = |name: &str| planned.recipe.value("environment", name);
        Self {
            cpv: planned.cpv.clone(),
            use_flags: planned.use_flags.iter().cloned().collect(),
            chost: variable("CHOST"),
            cflags: variable("CFLAGS"),
        }
    }
}
