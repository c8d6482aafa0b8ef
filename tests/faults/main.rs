//! What a fault or a hostile peer costs, and which sockets it affects.
//!
//! Every test has a process of its own.

#[path = "../harness/mod.rs"]
#[macro_use]
mod harness;

mod hostile;
mod inject;
mod kill;
mod panics;
mod sockopt;

use std::process::ExitCode;

use harness::AtOnce;

fn main() -> ExitCode {
    if inject::workload() || kill::victim() {
        return ExitCode::SUCCESS;
    }
    let tests = [panics::tests(), inject::tests(), kill::tests(), hostile::tests()];
    harness::main(AtOnce::One, tests.concat())
}
