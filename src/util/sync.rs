//! Locks and atomics for the code that loom checks (`.ci/loom`): std's, or loom's own in those tests.

#[cfg(not(all(test, seqpacket_loom)))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic::AtomicBool};

#[cfg(all(test, seqpacket_loom))]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic::AtomicBool};
