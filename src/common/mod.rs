//! What both backends are made of: queues, pending sends, policy, the cooperative budget. Nothing here knows a backend, and
//! system calls are made only for a call of the backend's.

pub(crate) mod async_fd;
pub(crate) mod completed;
pub(crate) mod idle_notify;
pub(crate) mod io_driver;
#[cfg(all(test, seqpacket_loom))]
mod loom_tests;
pub(crate) mod marks;
pub(crate) mod message;
pub(crate) mod metrics;
pub(crate) mod mmsg;
pub(crate) mod pending_send;
pub(crate) mod policy;
pub(crate) mod recv_batch;
pub(crate) mod recv_queue;
pub(crate) mod send_queue;
pub(crate) mod source;
pub(crate) mod trace;
pub(crate) mod trial;
pub(crate) mod wait_queue;
