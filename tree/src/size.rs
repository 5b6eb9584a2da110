//! Sizes that others have written: how large one may be, and their sum.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

/// The largest file believed in: 1 TiB.
pub const SIZE_MAX: u64 = 1 << 40;

/// A size that somebody has said; None when nobody can mean it.
#[must_use]
pub const fn believed(size: u64) -> Option<u64> {
    if size <= SIZE_MAX { Some(size) } else { None }
}

/// The sum of sizes. However many there are and whoever wrote them, it is a number: more than can be counted is the largest.
#[must_use]
pub fn total(sizes: impl IntoIterator<Item = u64>) -> u64 {
    sizes.into_iter().fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_have_an_end_and_sizes_have_a_bound() {
        assert_eq!((total([]), total([1, 2, 3])), (0, 6));
        let numbers = [0, 1 << 31, 1 << 32, 1 << 63, u64::MAX];
        for one in numbers {
            for other in numbers {
                let exact = u128::from(one) + u128::from(other);
                assert_eq!(u128::from(total([one, other])), exact.min(u64::MAX.into()));
            }
            assert_eq!(believed(one).is_some(), one <= 1 << 40, "{one}");
        }
    }
}
