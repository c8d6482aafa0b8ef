//! The io_uring backend: so far, whether it can be had.

pub(crate) mod probe;
