//! The contract of ARCHITECTURE.md: one test body for both backends and every kind of runtime.
//!
//! A module per part of the contract; tests are named after the rule or the interleaving they show.

#[path = "../harness/mod.rs"]
#[macro_use]
mod harness;

mod ancillary;
mod busy;
mod cancel;
mod connect;
mod fairness;
#[cfg(feature = "codec")]
mod framed;
mod halves;
mod identity;
mod large;
mod life;
mod limits;
mod listeners;
mod order;
mod owned;
mod peek;
mod places;
mod properties;
mod readiness;
mod reset;
mod streams;
#[cfg(feature = "tracing")]
mod traces;

use std::process::ExitCode;

fn main() -> ExitCode {
    let tests = [
        order::tests(),
        cancel::tests(),
        ancillary::tests(),
        reset::tests(),
        limits::tests(),
        readiness::tests(),
        busy::tests(),
        connect::tests(),
        owned::tests(),
        fairness::tests(),
        life::tests(),
        places::tests(),
        streams::tests(),
        large::tests(),
        peek::tests(),
        #[cfg(feature = "codec")]
        framed::tests(),
        listeners::tests(),
        halves::tests(),
        properties::tests(),
        identity::tests(),
        #[cfg(feature = "tracing")]
        traces::tests(),
    ];
    harness::main(tests.concat())
}
