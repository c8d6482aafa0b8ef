//! The contract of ARCHITECTURE.md: one test body for both backends and every kind of runtime.
//!
//! A module per part of the contract; tests are named after the rule or the interleaving they show.

#[path = "../harness/mod.rs"]
#[macro_use]
mod harness;

mod ancillary;
mod attacks;
mod busy;
mod cancel;
mod closing;
mod connect;
mod fairness;
mod first_poll;
#[cfg(feature = "codec")]
mod framed;
mod futurelock;
mod halves;
mod hostile;
mod identity;
mod large;
mod life;
mod lifetimes;
mod limits;
mod lingering;
mod listeners;
mod marks;
mod order;
mod owned;
mod peek;
mod places;
mod properties;
mod readiness;
mod readiness_waiters;
mod reset;
mod streams;
#[cfg(feature = "tracing")]
mod traces;

use std::process::ExitCode;

fn main() -> ExitCode {
    let tests = [
        order::tests(),
        attacks::tests(),
        cancel::tests(),
        ancillary::tests(),
        reset::tests(),
        limits::tests(),
        readiness::tests(),
        readiness_waiters::tests(),
        busy::tests(),
        connect::tests(),
        owned::tests(),
        fairness::tests(),
        futurelock::tests(),
        first_poll::tests(),
        life::tests(),
        lifetimes::tests(),
        closing::tests(),
        hostile::tests(),
        lingering::tests(),
        marks::tests(),
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
