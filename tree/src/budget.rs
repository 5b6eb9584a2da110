//! What it may cost to look into foreign bytes, counted where it is spent: a small file must not keep its reader busy.
//!
//! A bound on what is kept says nothing of what is looked at: the same few bytes can be named over and over. So every loop
//! of a parser takes a step for each turn, and every look at the bytes pays for those that it sees.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::cell::Cell;

/// Steps for one program or library. The largest ones have some thousand sections, names and versions.
const PROGRAM_STEPS: u64 = 1 << 18;
/// Bytes that are looked at in one: its tables and names, not its code. A browser has some 100 kB of them.
const PROGRAM_BYTES: u64 = 4 << 20;
/// Steps for all programs of a package. Some packages have ten thousand.
const PACKAGE_STEPS: u64 = 1 << 24;
/// Bytes that are looked at in all of them.
const PACKAGE_BYTES: u64 = 1 << 28;

/// There is nothing left of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent;

/// What is left. Once something was refused, all is.
#[derive(Debug)]
pub struct Budget {
    steps_max: u64,
    bytes_max: u64,
    steps: Cell<u64>,
    bytes: Cell<u64>,
    spent: Cell<bool>,
}

impl Budget {
    /// So many steps, and so many bytes that are looked at.
    #[must_use]
    pub const fn new(steps: u64, bytes: u64) -> Self {
        let (left, seen) = (Cell::new(steps), Cell::new(bytes));
        Self { steps_max: steps, bytes_max: bytes, steps: left, bytes: seen, spent: Cell::new(false) }
    }

    /// For one program or library.
    #[must_use]
    pub const fn of_program() -> Self {
        Self::new(PROGRAM_STEPS, PROGRAM_BYTES)
    }

    /// For all programs of a package.
    #[must_use]
    pub const fn of_package() -> Self {
        Self::new(PACKAGE_STEPS, PACKAGE_BYTES)
    }

    /// One turn of a loop.
    ///
    /// # Errors
    /// When there is nothing left.
    pub fn step(&self) -> Result<(), Spent> {
        self.steps(1)
    }

    /// So many turns.
    ///
    /// # Errors
    /// As [`Budget::step`].
    pub fn steps(&self, count: u64) -> Result<(), Spent> {
        self.take(&self.steps, count)
    }

    /// So many bytes are looked at.
    ///
    /// # Errors
    /// As [`Budget::step`].
    pub fn bytes(&self, count: u64) -> Result<(), Spent> {
        self.take(&self.bytes, count)
    }

    /// Pays what was spent of a part's own budget.
    ///
    /// # Errors
    /// As [`Budget::step`].
    pub fn pay_for(&self, part: &Self) -> Result<(), Spent> {
        let (steps, bytes) = part.used();
        self.steps(steps)?;
        self.bytes(bytes)
    }

    /// Whether something was refused.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.spent.get()
    }

    /// Steps and bytes so far.
    #[must_use]
    pub fn used(&self) -> (u64, u64) {
        (self.steps_max.saturating_sub(self.steps.get()), self.bytes_max.saturating_sub(self.bytes.get()))
    }

    fn take(&self, from: &Cell<u64>, count: u64) -> Result<(), Spent> {
        match from.get().checked_sub(count).filter(|_| !self.spent.get()) {
            Some(left) => {
                from.set(left);
                Ok(())
            }
            None => {
                self.spent.set(true);
                Err(Spent)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_once_stays_refused() {
        let budget = Budget::new(3, 10);
        assert_eq!((budget.step(), budget.bytes(10), budget.steps(2)), (Ok(()), Ok(()), Ok(())));
        assert_eq!((budget.used(), budget.is_spent()), ((3, 10), false));
        assert_eq!((budget.bytes(1), budget.is_spent()), (Err(Spent), true));
        let whole = Budget::new(5, 100);
        assert_eq!(whole.pay_for(&budget), Ok(()));
        assert_eq!((whole.used(), whole.pay_for(&budget)), ((3, 10), Err(Spent)), "there were five steps");
        let huge = Budget::new(1, u64::MAX);
        assert_eq!((huge.bytes(u64::MAX), huge.bytes(1), huge.step()), (Ok(()), Err(Spent), Err(Spent)));
    }
}
