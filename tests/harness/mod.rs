//! What the test binaries share: the runner, the matrix of backends and runtimes, and tools.

#![allow(dead_code, unused_macros, unused_imports, reason = "each test binary uses its own part")]

#[macro_use]
pub mod runner;
#[macro_use]
pub mod matrix;

pub mod call_variants;
pub mod descriptors;
pub mod messages;
pub mod need;
pub mod peer;
pub mod syscalls;
pub mod waiting;

pub use matrix::{Cell, Flavor, only, with_pidfds};
pub use need::Need;
pub use runner::{AtOnce, Test, alone, main};
