//! Errors that name the limit which was exceeded. Off the hot path: asked only after a failure.

use std::io;
use std::os::fd::BorrowedFd;

use crate::ancillary::{too_many_fds, wire};
use crate::sys;

/// What of a message's length the kernel keeps for itself in the send buffer.
pub(crate) const SEND_BUFFER_OVERHEAD: usize = 32;

/// Say of a failed send what the system's error leaves out.
pub(crate) fn refused_send(
    error: io::Error,
    fd: BorrowedFd<'_>,
    message_len: usize,
    control: &[u8],
) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => match sys::send_buffer_size(fd) {
            // The kernel says the same of both limits.
            Ok(size) if message_len <= size.saturating_sub(SEND_BUFFER_OVERHEAD) => io::Error::new(
                io::ErrorKind::InvalidInput,
                "message of more than 1024 buffers, the limit of one call (IOV_MAX; EMSGSIZE)",
            ),
            Ok(size) => io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "message of {message_len} bytes exceeds the limit of {} bytes of this socket's \
                     send buffer (SO_SNDBUF; EMSGSIZE)",
                    size.saturating_sub(SEND_BUFFER_OVERHEAD)
                ),
            ),
            Err(_) => error,
        },
        // A shorter one can be sent: only now that memory is short.
        Some(libc::ENOBUFS) if message_len > sys::ONE_PIECE => io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "message of {message_len} bytes exceeds what the kernel can hold in one piece, \
                 some 4 MiB whatever SO_SNDBUF says (ENOBUFS)"
            ),
        ),
        Some(libc::EINVAL) if wire::count_fds(control) > wire::MAX_FDS => {
            too_many_fds(wire::count_fds(control))
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn only_a_message_beyond_one_piece_is_called_too_long_for_memory() {
        let (socket, _peer) = sys::socketpair().unwrap();
        let refused = |len| {
            refused_send(io::Error::from_raw_os_error(libc::ENOBUFS), socket.as_fd(), len, &[])
        };
        assert_eq!(refused(sys::ONE_PIECE).raw_os_error(), Some(libc::ENOBUFS));
        assert_eq!(refused(sys::ONE_PIECE + 1).kind(), io::ErrorKind::InvalidInput);
    }
}
