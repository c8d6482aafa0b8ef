//! Which descriptors stay open and which are closed, shown with pipes.
#![allow(unsafe_code, reason = "readers of control data that the tests made")]

use std::io;
use std::os::fd::IntoRawFd;

use super::wire::{self, FD_LEN};
use super::{AncillaryMessageReader, OwnedAncillaryMessage};

/// Returns a pipe whose write ends are `count` descriptors in one SCM_RIGHTS message.
/// Its read end sees the end once all of them are closed.
fn received(count: usize) -> (io::PipeReader, Vec<u8>) {
    let (reader, writer) = io::pipe().unwrap();
    let mut control = vec![0; wire::space(count * FD_LEN)];
    let data =
        wire::reserve(&mut control, &mut 0, libc::SOL_SOCKET, libc::SCM_RIGHTS, count * FD_LEN)
            .unwrap();
    for slot in data.chunks_exact_mut(FD_LEN) {
        let fd = writer.try_clone().unwrap().into_raw_fd();
        slot.copy_from_slice(&fd.to_ne_bytes());
    }
    (reader, control)
}

fn all_closed(mut reader: io::PipeReader) -> bool {
    use std::io::Read;
    rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::NONBLOCK).unwrap();
    matches!(reader.read(&mut [0]), Ok(0))
}

#[test]
fn descriptors_that_do_not_fit_are_closed_and_truncation_is_reported() {
    for (capacity, fitting) in
        [(0, 0), (16, 0), (19, 0), (20, 1), (24, 2), (27, 2), (28, 3), (64, 3)]
    {
        let (pipe, mut control) = received(3);
        // SAFETY: `received` has just made the descriptors in `control`, with no other owner.
        let reader = unsafe { AncillaryMessageReader::new(&mut control, false) };
        let mut buffer = vec![0; capacity];
        let moved = reader.move_into(&mut buffer);
        let count = moved.count_fds();
        assert_eq!(count, fitting, "capacity of {capacity} bytes");
        assert_eq!(moved.is_truncated(), fitting < 3, "capacity of {capacity} bytes");
        for message in moved.into_messages() {
            if let OwnedAncillaryMessage::FileDescriptors(fds) = message {
                assert_eq!(fds.count(), fitting);
            }
        }
        assert!(all_closed(pipe), "capacity of {capacity} bytes");
    }
}

#[test]
fn a_message_without_data_needs_capacity_for_its_header() {
    for (capacity, fitting) in [(0, 0), (8, 0), (15, 0), (16, 16), (24, 16)] {
        let mut control = vec![0; wire::HEADER_LEN];
        wire::reserve(&mut control, &mut 0, libc::SOL_SOCKET, 99, 0).unwrap();
        // SAFETY: there are no descriptors in `control`: its one message is of an unknown kind.
        let reader = unsafe { AncillaryMessageReader::new(&mut control, false) };
        let mut buffer = vec![0; capacity];
        let moved = reader.move_into(&mut buffer);
        assert_eq!(moved.len(), fitting, "capacity of {capacity} bytes");
        assert_eq!(moved.is_truncated(), fitting == 0, "capacity of {capacity} bytes");
    }
}

#[test]
fn one_descriptor_is_owned_in_a_pidfd_message_whatever_follows_it() {
    let (pipe, writer) = io::pipe().unwrap();
    let other = writer.try_clone().unwrap();
    let mut control = vec![0; wire::space(2 * FD_LEN)];
    let data =
        wire::reserve(&mut control, &mut 0, libc::SOL_SOCKET, wire::SCM_PIDFD, 2 * FD_LEN).unwrap();
    data[..FD_LEN].copy_from_slice(&writer.into_raw_fd().to_ne_bytes());
    data[FD_LEN..].copy_from_slice(&std::os::fd::AsRawFd::as_raw_fd(&other).to_ne_bytes());
    // SAFETY: the first descriptor has given up its owner with `into_raw_fd`, for this reader.
    let reader = unsafe { AncillaryMessageReader::new(&mut control, false) };
    assert!(reader.move_into(&mut []).is_truncated());
    assert!(!all_closed(pipe.try_clone().unwrap()), "this one is owned elsewhere");
    drop(other);
    assert!(all_closed(pipe));
}

#[test]
fn a_reader_closes_what_was_not_taken() {
    let (pipe, mut control) = received(3);
    // SAFETY: `received` has just made the descriptors in `control`, with no other owner.
    drop(unsafe { AncillaryMessageReader::new(&mut control, false) });
    assert!(all_closed(pipe));

    let (pipe, mut control) = received(3);
    // SAFETY: `received` has just made the descriptors in `control`, with no other owner.
    let mut messages = unsafe { AncillaryMessageReader::new(&mut control, false) }.into_messages();
    let Some(OwnedAncillaryMessage::FileDescriptors(mut fds)) = messages.next() else {
        panic!("no descriptors");
    };
    let first = fds.next();
    drop(fds);
    assert!(!all_closed(pipe.try_clone().unwrap()));
    drop(first);
    assert!(all_closed(pipe));
}
