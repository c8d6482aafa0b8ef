//! This module on processors that the crate io-uring does not know: no ring can be made, and [`support`] says why.
#![allow(dead_code, reason = "what only a ring uses")]

pub(crate) mod costs;
mod operation;
pub(crate) mod probe;
pub(crate) mod support;

pub(crate) mod ring {
    pub(crate) use super::operation::{Completion, Operation};
    use super::support::{self, Unavailable};
    use crate::common::metrics::CounterCells;

    /// No value of this type exists.
    #[derive(Debug)]
    pub(crate) enum Ring {}

    impl Ring {
        pub(crate) fn new() -> Result<Self, Unavailable> {
            Self::smallest().inspect_err(support::refused)
        }

        pub(crate) fn smallest() -> Result<Self, Unavailable> {
            Err(Unavailable::Processor)
        }

        pub(crate) fn is_own(&self) -> bool {
            match *self {}
        }

        pub(crate) fn receives_at_once(&self) -> usize {
            match *self {}
        }

        pub(crate) fn run<'a>(
            &mut self,
            _operations: impl Iterator<Item = Operation<'a>>,
            _counters: &CounterCells,
            _report: impl FnMut(usize, Completion<'_>),
        ) -> Result<(), Unavailable> {
            match *self {}
        }
    }
}
