//! Plain values: addresses, credentials, what is known of a message. Nothing here asks the kernel.

pub mod borrow_fd;
pub(crate) mod message_info;
pub(crate) mod socket_addr;
pub(crate) mod ucred;
