//! The epoll backend: a system call at once, and tokio's readiness where an operation has to wait.
//!
//! The calls, queues and futures are those of [`crate::backend`]. What is particular to epoll is here. Sockets of the
//! io_uring backend wait in the same way: the ring carries messages, and nothing stays in flight in it.

pub(crate) mod readiness;
