//! Errors that name the exceeded limit. This code runs only after a failure, off the hot path.

use std::io;
use std::os::fd::BorrowedFd;

use crate::ancillary::{too_many_fds, wire};
use crate::sys;

/// How many bytes of the send buffer a message cannot use: the kernel's bookkeeping.
pub(crate) const SEND_BUFFER_OVERHEAD: usize = 32;

/// Adds to the error of a failed send which limit the message exceeds, if it does.
pub(crate) fn refused_send(
    error: io::Error,
    fd: BorrowedFd<'_>,
    message_len: usize,
    control: &[u8],
) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => match sys::send_buffer_size(fd) {
            // The kernel reports both limits as EMSGSIZE.
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
        // A shorter message can succeed later: the kernel is only short of memory now.
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
