//! The epoll backend: a system call at once, and tokio's readiness where it has to wait.
//!
//! The calls, queues and futures are those of [`crate::backend`]; what is particular to epoll is here. Sockets of the
//! io_uring backend wait in the same way: the ring carries messages, nothing is left in flight in it.

pub(crate) mod readiness;
