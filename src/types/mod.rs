//! Plain values: addresses, credentials, what is known of a message. Nothing here calls the kernel.

pub(crate) mod backend;
pub mod borrow_fd;
pub(crate) mod message_info;
pub(crate) mod recv_meta;
pub(crate) mod socket_addr;
pub(crate) mod ucred;
