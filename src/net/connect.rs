//! Connecting, also to a listener whose backlog is full.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::net::backoff::Backoff;
use crate::sys;
use crate::types::socket_addr::SocketAddr;

const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(32);

/// The socket, connected to `address`.
///
/// `connect(2)` on a non-blocking Unix socket succeeds or fails at once. While the backlog is full
/// it fails with EAGAIN, and nothing tells when there is room again: poll(2) reports the
/// unconnected socket as writable. So the call is repeated, after a wait that doubles up to a bound
/// and is drawn at random, lest many clients knock in step.
pub(crate) async fn connect(socket: OwnedFd, address: &SocketAddr) -> io::Result<OwnedFd> {
    let mut backoff = None;
    loop {
        match sys::connect(socket.as_fd(), address) {
            Ok(()) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let backoff = match &mut backoff {
            Some(backoff) => backoff,
            None => backoff.insert(Backoff::new(FIRST_WAIT, LONGEST_WAIT)?),
        };
        backoff.wait().await?;
    }
}
