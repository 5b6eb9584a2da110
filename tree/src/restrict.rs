//! RESTRICT: what an ebuild forbids (PMS 7.3.6, ebuild(5)).

use crate::depstring::{self, GrammarError, Signs, Step};

/// The restrictions that matter for handing files on. A restriction under any USE conditional counts as set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restrict {
    /// The files may not be fetched automatically, nor mirrored.
    pub fetch: bool,
    /// The files may not be mirrored.
    pub mirror: bool,
    /// Binary packages may not be handed on.
    pub bindist: bool,
}

impl Restrict {
    /// Reads the text of RESTRICT. A text that Portage would refuse counts as restricting everything.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut restrict = Self::default();
        let walked = depstring::walk(text, Signs::Plain, |step| {
            match step {
                // "nomirror" and "nofetch" are the forms that EAPI 0 ebuilds used.
                Step::Word("fetch" | "nofetch") => restrict.fetch = true,
                Step::Word("mirror" | "nomirror") => restrict.mirror = true,
                Step::Word("bindist") => restrict.bindist = true,
                _ => {}
            }
            Ok::<(), GrammarError>(())
        });
        walked.map_or(Self { fetch: true, mirror: true, bindist: true }, |()| restrict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_also_under_conditionals() {
        let restrict = |fetch, mirror, bindist| Restrict { fetch, mirror, bindist };
        for (text, expected) in [
            ("", restrict(false, false, false)),
            ("strip test", restrict(false, false, false)),
            ("mirror", restrict(false, true, false)),
            ("fetch bindist", restrict(true, false, true)),
            ("!test? ( test ) bindist? ( fetch )", restrict(true, false, false)),
            ("a? ( b? ( mirror ) )", restrict(false, true, false)),
            ("mirrors prefetch xbindist", restrict(false, false, false)),
        ] {
            assert_eq!(Restrict::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_broken_text_restricts_everything() {
        let everything = Restrict { fetch: true, mirror: true, bindist: true };
        for text in ["test? (", "test? test", ")", "|| ( a b )", "( test", "test )x"] {
            assert_eq!(Restrict::parse(text), everything, "{text:?}");
        }
    }
}
