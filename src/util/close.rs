//! Closing descriptors that were received and that no task takes.
//!
//! A peer chooses which descriptors it passes, and closing one can wait:
//! - The last close of a TCP socket under `SO_LINGER` with unsent data waits for as long as the peer has set (`socket(7)`).
//! - The last close of a Unix socket closes what lies in its queue. Another owner of the socket can change both between a
//!   check of it and its close.
//! - A file system in user space is asked at every close, and answers when it likes.
//!
//! So all descriptors but those that are known to close quickly are closed *aside*, on a thread that ends with its work.
//! `spawn_blocking` does not fit: there need not be a runtime, its threads are the caller's, and a runtime that ends
//! waits for them.
//!
//! A descriptor that waits for its close takes a slot of the process. One that is being closed does not. Where all threads
//! are held up, and more descriptors wait than a quarter of `RLIMIT_NOFILE`, more threads are started: a peer cannot use
//! up the descriptors this way. Those threads switch `SO_LINGER` off first, or a peer could use up threads instead.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fs::{AtFlags, FileType, StatxFlags, fcntl_get_seals, statx};
use rustix::net::sockopt;
use rustix::process::{Resource, getrlimit};

use crate::util::coop;

/// How many threads there are while their closes finish.
const THREADS: usize = 8;

/// Stack in bytes of a thread, which only closes.
const STACK: usize = 64 << 10;

static ASIDE: Mutex<Aside> = Mutex::new(Aside { process: 0, threads: 0, waiting: VecDeque::new() });

#[derive(Debug)]
struct Aside {
    /// The process that the threads belong to.
    process: u32,
    threads: usize,
    waiting: VecDeque<OwnedFd>,
}

/// Closes a descriptor that came from a peer, without waiting for what the peer has set.
pub(crate) fn close(fd: OwnedFd) {
    if may_wait(fd.as_fd()) {
        close_aside(fd);
    }
    coop::closed_one();
}

/// Returns the descriptor and the result of `check`. If that is an error, the descriptor is closed.
pub(crate) fn checked<T>(
    fd: OwnedFd,
    check: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
) -> io::Result<(OwnedFd, T)> {
    match check(fd.as_fd()) {
        Ok(found) => Ok((fd, found)),
        Err(error) => {
            close(fd);
            Err(error)
        }
    }
}

/// Descriptors, and whether they came from a peer. Those that did are closed by [`close`] unless they are taken.
#[derive(Debug, Default)]
pub(crate) struct Fds {
    fds: Vec<OwnedFd>,
    received: bool,
}

impl Fds {
    pub(crate) fn as_slice(&self) -> &[OwnedFd] {
        &self.fds
    }

    pub(crate) fn push(&mut self, fd: OwnedFd) {
        self.fds.push(fd);
    }

    pub(crate) fn push_received(&mut self, fd: OwnedFd) {
        self.received = true;
        self.fds.push(fd);
    }

    pub(crate) fn clear(&mut self) {
        drop(self.drain());
        self.received = false;
    }

    pub(crate) fn take(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.fds)
    }

    pub(crate) fn drain(&mut self) -> Drain<'_> {
        Drain { fds: self.fds.drain(..), received: self.received }
    }
}

impl FromIterator<OwnedFd> for Fds {
    fn from_iter<I: IntoIterator<Item = OwnedFd>>(fds: I) -> Self {
        Self { fds: fds.into_iter().collect(), received: false }
    }
}

impl Drop for Fds {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Yields descriptors. Those that are not taken are closed as by [`Fds`].
pub(crate) struct Drain<'a> {
    fds: std::vec::Drain<'a, OwnedFd>,
    received: bool,
}

impl Iterator for Drain<'_> {
    type Item = OwnedFd;

    fn next(&mut self) -> Option<OwnedFd> {
        self.fds.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.fds.size_hint()
    }
}

impl ExactSizeIterator for Drain<'_> {}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        if self.received {
            self.fds.by_ref().for_each(close);
        }
    }
}

/// Returns whether closing a descriptor of this file may wait for a peer, a server or a serial line. It is true unless the
/// close is known to be quick.
fn may_wait(fd: BorrowedFd<'_>) -> bool {
    // Miri knows neither these flags nor a file whose close waits.
    if cfg!(miri) {
        return false;
    }
    // With an empty mask no server is asked: only the kind and the devices are returned, from memory.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let Ok(file) = statx(fd, "", flags, StatxFlags::empty()) else { return true };
    match FileType::from_raw_mode(file.stx_mode.into()) {
        FileType::Fifo | FileType::Directory => false,
        // Memory: /dev/null and similar devices.
        FileType::CharacterDevice => file.stx_rdev_major != 1,
        // On a disk, or in memory. On a network or FUSE file system close(2) waits for its server.
        FileType::RegularFile => file.stx_dev_major == 0 && fcntl_get_seals(fd).is_err(),
        // An event counter, a timer, another process. statx returns nothing for a file of another user's FUSE.
        FileType::Unknown => file.stx_mode == 0,
        _ => true,
    }
}

fn close_aside(fd: OwnedFd) {
    let mut aside = lock();
    aside.waiting.push_back(fd);
    if aside.threads >= THREADS && aside.waiting.len() <= most_waiting() {
        return;
    }
    let close = if aside.threads < THREADS { drop } else { close_now };
    aside.threads += 1;
    drop(aside);
    let close_waiting = move || std::iter::from_fn(next).for_each(close);
    let builder = thread::Builder::new().name("seqpacket-close".into()).stack_size(STACK);
    if builder.spawn(close_waiting).is_err() {
        close_without_thread();
    }
}

/// Handles a thread that could not be started. Other threads close what waits. What exceeds the limit is closed here.
fn close_without_thread() {
    let mut aside = lock();
    aside.threads -= 1;
    let left = if aside.threads > 0 { most_waiting() } else { 0 };
    let here = left.min(aside.waiting.len());
    let here = aside.waiting.split_off(here);
    drop(aside);
    here.into_iter().for_each(close_now);
}

/// Closes a descriptor. A TCP socket does not linger then, which other owners of the socket can notice.
fn close_now(fd: OwnedFd) {
    let _ = sockopt::set_socket_linger(&fd, None);
}

fn most_waiting() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit / 4).unwrap_or(usize::MAX)
}

/// Returns what to close next. The thread ends after the last one.
fn next() -> Option<OwnedFd> {
    let mut aside = lock();
    let next = aside.waiting.pop_front();
    if next.is_none() {
        aside.threads -= 1;
    }
    next
}

fn lock() -> MutexGuard<'static, Aside> {
    // Nothing under this lock panics half-way or runs user code.
    let mut aside = ASIDE.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if std::mem::replace(&mut aside.process, process) != process {
        // A forked child has inherited the waiting descriptors, but none of the threads.
        aside.threads = 0;
    }
    aside
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixDatagram;

    /// Sockets are closed aside in any state: it can change before the close.
    #[test]
    fn all_but_what_is_known_to_be_quick_is_closed_aside() {
        let open = |path| std::fs::File::open(path).unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        let (file, directory) = (open("/dev/null"), open("/"));
        let memory = memfd_create("", MemfdFlags::CLOEXEC).unwrap();
        let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let quick =
            [reader.as_fd(), file.as_fd(), directory.as_fd(), memory.as_fd(), event.as_fd()];
        for fd in quick {
            assert!(!may_wait(fd), "{fd:?}");
        }
        // A file of a file system without a disk, and a terminal.
        for file in [open("/proc/version"), open("/dev/ptmx")] {
            assert!(may_wait(file.as_fd()), "{file:?}");
        }
        let (unix, _peer) = UnixDatagram::pair().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for fd in [unix.as_fd(), tcp.as_fd(), udp.as_fd()] {
            assert!(may_wait(fd), "{fd:?}");
        }
    }
}
