//! Mirrors over real connections within this machine; one binary.

mod fetch;
mod pass;
mod scripted;
mod wget;
