//! What does not know of sockets: closing files, panics of user code, tokio's cooperative budget, loom's locks,
//! errors for what a kernel lacks.

pub(crate) mod catch_panic;
pub(crate) mod close;
pub(crate) mod coop;
pub(crate) mod sync;
pub(crate) mod unsupported;
