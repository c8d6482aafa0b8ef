//! What the targets under `fuzz/` call. Only with `cfg(fuzzing)`, which cargo-fuzz sets: no public API.
#![allow(unsafe_code, reason = "control data that a fuzzer made up is decoded as if received")]
#![allow(missing_docs, reason = "not public")]

use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;

use crate::ancillary::wire::{self, FD_LEN, MAX_CONTROL};
use crate::ancillary::{
    AncillaryBuffer, AncillaryMessage, AncillaryMessageReader, AncillaryMessageWriter,
    OwnedAncillaryMessage,
};
use crate::backend::model::{Event, Model};
use crate::types::socket_addr::SocketAddr;

/// Descriptors in one input, at most.
const MOST_FDS: usize = 300;

/// Decodes control data as the kernel may have written it: truncated anywhere, of any kind, with descriptors.
///
/// The first byte selects what is done with it, and the second is the capacity for it. Every descriptor is closed exactly
/// once in each case.
pub fn control(data: &[u8]) {
    let [action, capacity, data @ ..] = data else { return };
    let control = &data[..data.len().min(2 * MAX_CONTROL)];
    let (pipe, mut control, passed) = with_descriptors(control);
    let truncated = action & 0x80 != 0;
    // SAFETY: `with_descriptors` replaced every raw fd that the reader takes for a descriptor by one made for the reader.
    let reader = unsafe { AncillaryMessageReader::new(&mut control, truncated) };
    assert_eq!(count(&reader), passed, "the borrowed view");
    // A pidfd that the kernel could not make counts, too.
    assert_eq!(reader.kernel_truncated(), truncated);
    assert!(reader.is_truncated() || !truncated);
    let mut moved = vec![0; usize::from(*capacity) * 8];
    match action % 5 {
        0 => drop(reader),
        1 => {
            let mut taken = 0;
            for message in reader.into_messages() {
                match message {
                    OwnedAncillaryMessage::FileDescriptors(fds) => {
                        taken += fds.inspect(|fd| assert_ne!(fd.as_raw_fd(), -1)).count();
                    }
                    OwnedAncillaryMessage::Credentials(credentials) => {
                        let len = credentials.len();
                        assert!(credentials.get(len).is_none());
                        assert_eq!(credentials.count(), len);
                    }
                    OwnedAncillaryMessage::Other(other) => {
                        taken += other.into_pidfd().is_some() as usize;
                    }
                }
            }
            assert_eq!(taken, passed, "the owning view");
        }
        2 => {
            // Some of the messages, and of the first one's descriptors, are not taken.
            let mut messages = reader.into_messages();
            if let Some(OwnedAncillaryMessage::FileDescriptors(mut fds)) = messages.next() {
                drop(fds.next());
            }
        }
        3 => {
            let len = reader.len();
            let reader = reader.move_into(&mut moved);
            assert!(count(&reader) <= passed);
            assert!(reader.is_truncated() || count(&reader) == passed, "truncation is reported");
            // The last message gets its padding where it fits, as from the kernel.
            assert!(reader.len() <= len.next_multiple_of(8), "nothing is made up");
            let mut buffer = AncillaryBuffer::new();
            buffer.fill(reader);
        }
        _ => {
            let mut buffer = AncillaryBuffer::new();
            buffer.fill(reader);
            // Received descriptors can be sent on, unless there are more than one message can carry.
            let mut wire = [0; MAX_CONTROL];
            if let Ok(len) = buffer.encode(&mut wire) {
                assert_eq!(wire::count_fds(&wire[..len]), buffer.fds().len());
                let mut writer = AncillaryMessageWriter::new(&mut moved);
                let fds: Vec<_> = buffer.fds().iter().map(|fd| fd.as_fd()).collect();
                if writer.add_fds(&fds).is_ok() {
                    assert_eq!(wire::count_fds(writer.control()), fds.len());
                } else {
                    assert!(writer.is_empty(), "what does not fit is not added");
                }
            }
        }
    }
    assert_closed(pipe);
}

fn count(reader: &AncillaryMessageReader<'_>) -> usize {
    let count = |message| match message {
        AncillaryMessage::FileDescriptors(fds) => fds.len(),
        AncillaryMessage::Credentials(_) => 0,
        AncillaryMessage::Other(other) => {
            let pidfd = wire::is_pidfd(other.cmsg_level(), other.cmsg_type());
            let fd = wire::raw_fd(other.data(), 0).filter(|fd| *fd >= 0);
            (pidfd && fd.is_some()) as usize
        }
    };
    reader.messages().map(count).sum()
}

/// Returns a pipe, the data, and how many descriptors are in it. Every raw fd in the data is replaced by a duplicate of the
/// pipe's write end, so the pipe ends when all of them are closed. The data is decoded here without the decoder under test.
fn with_descriptors(data: &[u8]) -> (PipeReader, Vec<u8>, usize) {
    let (pipe, end) = std::io::pipe().expect("a pipe");
    let mut control = data.to_vec();
    let (mut at, mut passed) = (0, 0);
    while let Some(header) = control.get(at..at + 16) {
        let len = usize::from_ne_bytes(*header.first_chunk().expect("16 bytes"));
        let level = i32::from_ne_bytes(header[8..12].try_into().expect("4 bytes"));
        let kind = i32::from_ne_bytes(header[12..16].try_into().expect("4 bytes"));
        if len < 16 || len > control.len() - at {
            break;
        }
        let data = at + 16..at + len;
        let fds = match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => data.len() / FD_LEN,
            // One, and the kernel writes a negative errno if it could not make one.
            (libc::SOL_SOCKET, wire::SCM_PIDFD) if data.len() >= FD_LEN => {
                (control[data.start + 3] < 0x80) as usize
            }
            _ => 0,
        };
        if passed + fds > MOST_FDS {
            control.truncate(at);
            break;
        }
        for slot in control[data].chunks_exact_mut(FD_LEN).take(fds) {
            let fd = end.try_clone().expect("a descriptor").into_raw_fd();
            slot.copy_from_slice(&fd.to_ne_bytes());
        }
        passed += fds;
        at += len.next_multiple_of(8).min(control.len() - at);
    }
    (pipe, control, passed)
}

/// Asserts that all write ends are closed: a read returns 0 instead of `WouldBlock`.
fn assert_closed(mut pipe: PipeReader) {
    rustix::io::ioctl_fionbio(&pipe, true).expect("FIONBIO");
    let read = pipe.read(&mut [0]);
    assert!(matches!(read, Ok(0)), "a descriptor is open: {read:?}");
}

/// Decodes a socket address as the kernel may have written it: two bytes of length, then the address. The same bytes are
/// also parsed as a path of a caller's.
pub fn address(data: &[u8]) {
    let [len, high, data @ ..] = data else { return };
    let len = usize::from(u16::from_le_bytes([*len, *high]));
    // SAFETY: sockaddr_un consists of integers (unix(7)), for which zero is a valid value.
    let mut raw: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let [first, second, path @ ..] = data else { return };
    raw.sun_family = libc::sa_family_t::from_ne_bytes([*first, *second]);
    for (slot, byte) in raw.sun_path.iter_mut().zip(path) {
        *slot = *byte as libc::c_char;
    }
    if let Ok(address) = SocketAddr::from_raw(&raw, len) {
        let kinds = [
            address.is_unnamed(),
            address.as_pathname().is_some(),
            address.as_abstract_name().is_some(),
        ];
        assert_eq!(kinds.into_iter().filter(|is| *is).count(), 1, "{address:?}");
        again(&address);
    }
    if let Ok(address) = SocketAddr::from_path(std::ffi::OsStr::from_bytes(path)) {
        assert_eq!(address.clone().into_path_buf().as_os_str().as_bytes(), path);
        again(&address);
    }
}

/// Asserts that a decoded address can be encoded if it fits, and is the same when it is decoded again.
fn again(address: &SocketAddr) {
    let written = match address.to_rustix() {
        Ok(written) => written,
        Err(error) => {
            assert!(address.long_path().is_some(), "{address:?}: {error}");
            assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
            return;
        }
    };
    assert_eq!(address.long_path(), None);
    match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => {
            let written = written.path_bytes().expect("a path");
            assert_eq!(written.strip_suffix(&[0]).unwrap_or(written), path.as_os_str().as_bytes());
        }
        (_, Some(name)) => assert_eq!(written.abstract_name(), Some(name)),
        (None, None) => assert!(written.is_unnamed()),
    }
    let path = address.clone().into_path_buf();
    if !address.is_unnamed() {
        assert_eq!(SocketAddr::from_path(path).expect("it was one"), *address);
    }
}

/// Runs a script for both directions of a socket, fake drivers and a fake kernel, with two bytes for each event.
pub fn script(data: &[u8]) {
    let events = data.chunks_exact(2).take(400);
    Model::run(events.map(|bytes| Event::from_bytes([bytes[0], bytes[1]])));
}
