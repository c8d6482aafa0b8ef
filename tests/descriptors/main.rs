//! Descriptors by number and count, and what changes the whole process: limits, environment, fork.
//!
//! Each test has a process for itself, so that /proc/self/fd can be counted and limits changed.

#[path = "../harness/mod.rs"]
#[macro_use]
mod harness;

mod leaks;
mod process_wide;

use std::process::ExitCode;
use std::sync::OnceLock;

use harness::AtOnce;
use harness::descriptors::descriptors;

/// Descriptors that are not this process's own.
static INHERITED: OnceLock<Vec<i32>> = OnceLock::new();

fn main() -> ExitCode {
    INHERITED.get_or_init(|| descriptors().into_iter().map(|(number, _)| number as i32).collect());
    harness::main(AtOnce::Many, [leaks::tests(), process_wide::tests()].concat())
}
