//! The guarantees G1 to G13 of the crate documentation: one test body for both backends and every kind of runtime.
//!
//! A module for each subject, whose first lines name its guarantees. Tests are named after the rule or the interleaving they
//! show.

#[path = "../harness/mod.rs"]
#[macro_use]
mod harness;

mod ancillary;
mod busy_poll;
#[cfg(feature = "postcard")]
mod calls;
mod cancel;
mod closing;
mod connect;
mod connection_limits;
mod counters;
mod descriptor_limits;
mod drop_races;
mod execution_contexts;
mod fairness;
mod first_poll;
#[cfg(feature = "codec")]
mod framed;
mod futurelock;
mod halves;
mod handover;
mod identity;
mod limits;
mod lingering;
mod listeners;
mod missing_drivers;
mod option_changes;
mod order;
mod owned;
mod owned_batches;
mod owned_streams;
#[cfg(feature = "postcard")]
mod passed;
mod paths;
mod peek;
mod properties;
mod readiness;
mod readiness_waiters;
mod registrations;
mod reset;
mod sealed_memory;
mod streams;
mod threads_and_runtimes;
#[cfg(feature = "tracing")]
mod traces;
mod unwanted_descriptors;
mod wakers;

use std::process::ExitCode;

use harness::AtOnce;

fn main() -> ExitCode {
    let tests = [
        order::tests(),
        wakers::tests(),
        busy_poll::tests(),
        cancel::tests(),
        ancillary::tests(),
        reset::tests(),
        limits::tests(),
        descriptor_limits::tests(),
        readiness::tests(),
        readiness_waiters::tests(),
        registrations::tests(),
        connect::tests(),
        owned::tests(),
        paths::tests(),
        fairness::tests(),
        futurelock::tests(),
        first_poll::tests(),
        threads_and_runtimes::tests(),
        missing_drivers::tests(),
        counters::tests(),
        drop_races::tests(),
        closing::tests(),
        unwanted_descriptors::tests(),
        lingering::tests(),
        option_changes::tests(),
        execution_contexts::tests(),
        streams::tests(),
        owned_streams::tests(),
        owned_batches::tests(),
        sealed_memory::tests(),
        peek::tests(),
        #[cfg(feature = "codec")]
        framed::tests(),
        #[cfg(feature = "postcard")]
        passed::tests(),
        #[cfg(feature = "postcard")]
        calls::tests(),
        listeners::tests(),
        connection_limits::tests(),
        halves::tests(),
        handover::tests(),
        properties::tests(),
        identity::tests(),
        #[cfg(feature = "tracing")]
        traces::tests(),
    ];
    harness::main(AtOnce::Many, tests.concat())
}
