//! The phases of a build as its user sees them, read from the lines that Portage writes.

use std::fmt;

/// A step of a build, named as the ebuild's function is (PMS, "Ebuild-defined functions"), with Portage's own steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The sources are looked for.
    Fetch,
    /// `pkg_pretend`.
    Pretend,
    /// `pkg_setup`.
    Setup,
    /// `src_unpack`.
    Unpack,
    /// `src_prepare`.
    Prepare,
    /// `src_configure`.
    Configure,
    /// `src_compile`.
    Compile,
    /// `src_test`.
    Test,
    /// `src_install`, and what Portage does with the image after it.
    Install,
    /// The binary package is written.
    Package,
    /// `pkg_preinst`, the files are put in place, `pkg_postinst`.
    Merge,
    /// All is done.
    Clean,
}

impl Phase {
    const NAMES: [(Self, &'static str); 12] = [
        (Self::Fetch, "fetch"),
        (Self::Pretend, "pretend"),
        (Self::Setup, "setup"),
        (Self::Unpack, "unpack"),
        (Self::Prepare, "prepare"),
        (Self::Configure, "configure"),
        (Self::Compile, "compile"),
        (Self::Test, "test"),
        (Self::Install, "install"),
        (Self::Package, "package"),
        (Self::Merge, "merge"),
        (Self::Clean, "clean"),
    ];

    /// Its name, as in Portage's `(compile phase)`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(phase, _)| *phase == self).map_or("clean", |(_, name)| name)
    }

    /// The phase of that name; Portage's own `preinst`, `postinst` and so on are parts of [`Self::Merge`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "preinst" | "postinst" | "prerm" | "postrm" | "qmerge" | "instprep" => Some(Self::Merge),
            "cleanrm" => Some(Self::Clean),
            _ => Self::NAMES.iter().find(|(_, known)| *known == name).map(|(phase, _)| *phase),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())
    }
}

/// How Portage's lines about phases begin (`bin/phase-functions.sh`, `bin/phase-helpers.sh`, `_emerge/`).
const BEGINNINGS: [(&str, Phase); 14] = [
    (">>> Emerging ", Phase::Fetch),
    (">>> Running pre-merge checks for ", Phase::Pretend),
    (">>> Unpacking source", Phase::Unpack),
    (">>> Preparing source in ", Phase::Prepare),
    (">>> Configuring source in ", Phase::Configure),
    (">>> Compiling source in ", Phase::Compile),
    (">>> Test phase: ", Phase::Test),
    (">>> Install ", Phase::Install),
    (">>> Creating binpkg", Phase::Package),
    (">>> Extracting ", Phase::Merge),
    (">>> Installing (", Phase::Merge),
    (">>> Merging ", Phase::Merge),
    (">>> Done.", Phase::Clean),
    (">>> Completed (", Phase::Clean),
];

/// Follows a log line by line.
#[derive(Debug, Default)]
pub struct Tracker {
    phase: Option<Phase>,
    failed: Option<Phase>,
    failure: Option<String>,
    /// Kept here for [`crate::log`]: the last line was ended by a carriage return.
    pub(crate) after_return: bool,
}

impl Tracker {
    /// Looks at a line without colours. What an ebuild prints may look like Portage's lines: the phase is for people
    /// to read, and nothing is decided by it.
    pub fn line(&mut self, line: &str) {
        if self.failed.is_some() {
            self.message(line);
            return;
        }
        if let Some(text) = line.trim_start().strip_prefix("* ERROR: ") {
            let phase = text.split_once(" failed (").and_then(|(_, rest)| rest.split_once(" phase)"));
            if let Some(phase) = phase.and_then(|(name, _)| Phase::from_name(name)) {
                self.failed = Some(phase);
                self.failure = Some(text.to_owned());
            }
        } else if let Some((_, phase)) = BEGINNINGS.iter().find(|(beginning, _)| line.starts_with(beginning)) {
            self.phase = Some(*phase);
        }
    }

    /// The line after the one that says what failed is what the ebuild said to `die`.
    fn message(&mut self, line: &str) {
        if let Some(failure) = self.failure.as_mut().filter(|failure| failure.ends_with(':')) {
            match line.trim_start().strip_prefix('*').map(str::trim) {
                Some(message) if !message.is_empty() => *failure = format!("{failure} {message}"),
                Some(_) | None => _ = failure.pop(),
            }
        }
    }

    /// Where the build is; after a failure, the phase that failed.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        self.failed.or(self.phase)
    }

    /// What Portage said failed.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_with_what_the_ebuild_said_and_no_later_line_changes_it() {
        let mut tracker = Tracker::default();
        for line in [
            ">>> Compiling source in /var/tmp/portage ...",
            " * ERROR: a/b-1::main failed (compile phase):",
            " *   emake failed: see above",
            " *   more",
            " * ERROR: a/b-1::main failed (install phase):",
            " *   another",
        ] {
            tracker.line(line);
        }
        assert_eq!(tracker.failure(), Some("a/b-1::main failed (compile phase): emake failed: see above"));
        assert_eq!(tracker.phase(), Some(Phase::Compile));
    }

    #[test]
    fn a_failure_without_a_message_ends_with_its_phase() {
        for after in [" * ", "Killed"] {
            let mut tracker = Tracker::default();
            tracker.line(" * ERROR: a/b-1 failed (install phase):");
            tracker.line(after);
            tracker.line(" *   not of it");
            assert_eq!(tracker.failure(), Some("a/b-1 failed (install phase)"));
        }
    }

    /// The phases that a log goes through, and the tracker at its end.
    fn follow(log: &str) -> (Vec<Phase>, Tracker) {
        let (mut phases, mut tracker) = (Vec::new(), Tracker::default());
        for line in log.lines() {
            tracker.line(line);
            phases.extend(tracker.phase().filter(|phase| phases.last() != Some(phase)));
        }
        (phases, tracker)
    }

    /// The logs were written by Portage 3.0.83.
    #[test]
    fn a_build_goes_through_its_phases() {
        let (phases, tracker) = follow(include_str!("../tests/logs/built.txt"));
        let expected = [
            Phase::Fetch,
            Phase::Unpack,
            Phase::Prepare,
            Phase::Configure,
            Phase::Compile,
            Phase::Test,
            Phase::Install,
            Phase::Package,
            Phase::Clean,
        ];
        assert_eq!(phases, expected);
        assert_eq!(tracker.failure(), None);
    }

    #[test]
    fn a_failed_build_stays_in_the_phase_that_failed() {
        let (phases, tracker) = follow(include_str!("../tests/logs/failed.txt"));
        assert_eq!(phases.last(), Some(&Phase::Compile));
        assert_eq!(tracker.failure(), Some("app-misc/thing-1.0::gentoo failed (compile phase): it is meant to"));
    }

    #[test]
    fn a_binary_package_is_merged() {
        let (phases, _) = follow(include_str!("../tests/logs/merged.txt"));
        assert_eq!(phases, [Phase::Fetch, Phase::Merge, Phase::Clean]);
    }

    #[test]
    fn names_and_phases_are_one_to_one() {
        for (phase, name) in Phase::NAMES {
            assert_eq!((Phase::from_name(name), phase.to_string().as_str()), (Some(phase), name));
        }
        assert_eq!(Phase::from_name("postinst"), Some(Phase::Merge));
        assert_eq!(Phase::from_name("nonsense"), None);
    }

    #[test]
    fn tests_that_are_left_out_are_no_phase() {
        let mut tracker = Tracker::default();
        tracker.line(">>> Test phase [not enabled]: app/one-1");
        assert_eq!(tracker.phase(), None);
    }

    #[test]
    fn a_failure_of_no_known_phase_is_only_text() {
        let mut tracker = Tracker::default();
        tracker.line(" * ERROR: app/one-1::r failed (unheard-of phase):");
        tracker.line(" * ERROR: it failed (");
        assert_eq!((tracker.phase(), tracker.failure()), (None, None));
    }
}
