//! Real sandboxes, made with the system's bwrap, in each way this user can make them.

#![expect(clippy::disallowed_methods, reason = "tests make files, start processes, and are told where Portage is")]

mod containers;
mod hostile;
mod inside;
mod killed;
mod limits;
mod mode;
mod portage;
