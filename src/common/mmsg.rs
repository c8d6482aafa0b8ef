//! Many messages with one system call: `sendmmsg(2)`, `recvmmsg(2)`.
#![allow(unsafe_code, reason = "sendmmsg and recvmmsg, which rustix does not offer")]

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::ancillary::AncillaryMessageReader;
use crate::ancillary::wire::{HEADER_LEN, MAX_CONTROL};
use crate::common::pending_send::vector;
use crate::common::source::Source;
use crate::sys::{RECV_NOW, SEND_NOW, empty_header, retry};
use crate::types::recv_meta::RecvMeta;

/// So many messages at most go through one call. The headers lie on the stack.
pub(crate) const MESSAGES_PER_CALL: usize = 32;

/// A message to send: its bytes, and its control data.
pub(crate) type ToSend<'a> = (&'a [u8], &'a [u8]);

/// Send messages, in order, without waiting. How many went out; an error if none did.
pub(crate) fn send_many<'a>(
    fd: BorrowedFd<'_>,
    messages: impl Iterator<Item = ToSend<'a>>,
) -> io::Result<usize> {
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; MESSAGES_PER_CALL];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MESSAGES_PER_CALL];
    let mut count = 0;
    for (bytes, control) in messages.take(MESSAGES_PER_CALL) {
        let mut header = empty_header();
        header.msg_iov = vectors[count].write(vector(bytes.as_ptr(), bytes.len()));
        header.msg_iovlen = 1;
        if !control.is_empty() {
            header.msg_control = control.as_ptr().cast_mut().cast();
            header.msg_controllen = control.len();
        }
        headers[count].write(libc::mmsghdr { msg_hdr: header, msg_len: 0 });
        count += 1;
    }
    retry(|| {
        // SAFETY: the first `count` headers are initialised, and point to `vectors` and to bytes that
        // are borrowed until this function returns; sendmmsg only reads those.
        unsafe {
            libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr().cast(), count as u32, SEND_NOW as _)
        }
    })
}

/// Receive as many messages as there are rooms, and no more than [`MESSAGES_PER_CALL`], without waiting; `each`
/// is told of them in order. How many; an error if none. At end of stream every room gets an empty
/// message. Without `control` there is no room for control data.
pub(crate) fn receive_many<'r>(
    source: &mut Source<'_>,
    rooms: impl Iterator<Item = &'r mut [MaybeUninit<u8>]>,
    mut each: impl FnMut(usize, RecvMeta, AncillaryMessageReader<'_>),
) -> io::Result<usize> {
    let fd = source.fd();
    source.marks.look_first(fd);
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; MESSAGES_PER_CALL];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MESSAGES_PER_CALL];
    let mut controls =
        [const { [const { MaybeUninit::<u8>::uninit() }; MAX_CONTROL] }; MESSAGES_PER_CALL];
    let mut count = 0;
    for room in rooms.take(MESSAGES_PER_CALL) {
        let mut header = empty_header();
        header.msg_iov = vectors[count].write(vector(room.as_mut_ptr().cast(), room.len()));
        header.msg_iovlen = 1;
        header.msg_control = controls[count].as_mut_ptr().cast();
        header.msg_controllen = MAX_CONTROL;
        headers[count].write(libc::mmsghdr { msg_hdr: header, msg_len: 0 });
        count += 1;
    }
    let received = retry(|| {
        // SAFETY: the first `count` headers are initialised, and point to `vectors`, to rooms that are
        // borrowed exclusively until this function returns, and to `controls`; the kernel writes to
        // the latter two and reads neither. No timeout.
        unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                headers.as_mut_ptr().cast(),
                count as u32,
                RECV_NOW as _,
                std::ptr::null_mut(),
            )
        }
    })?;
    // Messages for sure are those up to the last that has bytes or control data: nothing follows the end.
    let is_message = |header: &MaybeUninit<libc::mmsghdr>| {
        // SAFETY: `received` is no more than `count`, and those were initialised above.
        let header = unsafe { header.assume_init_ref() };
        header.msg_len > 0 || header.msg_hdr.msg_controllen > 0 || was_cut(header)
    };
    let sure = headers[..received].iter().rposition(is_message).map_or(0, |last| last + 1);
    let tail = if sure < received { source.marks.nothing(fd) } else { None };
    for (index, (header, control)) in headers.iter().zip(&mut controls).enumerate().take(received) {
        // SAFETY: `received` is no more than `count`, and those were initialised above.
        let header = unsafe { header.assume_init_ref() };
        let len = header.msg_hdr.msg_controllen.min(MAX_CONTROL);
        // SAFETY: `control` is that of a header that the kernel has filled in: control messages of `len` bytes.
        let control = unsafe { initialised(control, len) };
        // SAFETY: the kernel has just written these control messages, and no other code has read them.
        let mut reader = unsafe { AncillaryMessageReader::new(control, was_cut(header)) };
        source.marks.hide_time(&mut reader);
        let received = RecvMeta {
            message_len: header.msg_len as usize,
            control_truncated: reader.is_truncated(),
            end_of_stream: if index < sure { Some(false) } else { tail },
        };
        each(index, received, reader);
    }
    Ok(received)
}

/// `MSG_CTRUNC`: control data was discarded.
fn was_cut(header: &libc::mmsghdr) -> bool {
    header.msg_hdr.msg_flags & libc::MSG_CTRUNC != 0
}

/// The first `len` bytes, in which the kernel has written control messages: it writes headers and data (`put_cmsg`,
/// `scm_detach_fds`), and counts the padding behind them without writing it. That is set to zero here.
///
/// # Safety
/// The kernel has said that control messages of `len` bytes begin there.
unsafe fn initialised(control: &mut [MaybeUninit<u8>], len: usize) -> &mut [u8] {
    let control = &mut control[..len];
    let mut at = 0;
    while at < len {
        let header = &control[at..];
        let message_len = if header.len() < HEADER_LEN {
            0
        } else {
            // SAFETY: a whole header fits, so the kernel has written one (the caller's promise): its first field is a size_t.
            unsafe { header.as_ptr().cast::<usize>().read_unaligned() }
        };
        let written = (at + message_len).min(len);
        // A length that is none ends the walk: nothing behind it is read as a message.
        let end = if message_len < HEADER_LEN {
            len
        } else {
            at + message_len.next_multiple_of(size_of::<usize>())
        };
        let end = end.min(len);
        control[written..end].fill(MaybeUninit::new(0));
        at = end;
    }
    // SAFETY: headers and data were written by the kernel, the rest just now.
    unsafe { &mut *(std::ptr::from_mut(control) as *mut [u8]) }
}

/// As [`receive_many`], with control data, into the capacity of vectors.
pub(crate) fn receive_vectors(
    source: &mut Source<'_>,
    buffers: &mut [impl AsMut<Vec<u8>>],
    mut each: impl FnMut(RecvMeta, AncillaryMessageReader<'_>),
) -> io::Result<usize> {
    let mut lens = [0; MESSAGES_PER_CALL];
    let rooms = buffers.iter_mut().map(|buffer| {
        buffer.as_mut().clear();
        buffer.as_mut().spare_capacity_mut()
    });
    let received = receive_many(source, rooms, |index, received, reader| {
        lens[index] = received.message_len;
        each(received, reader);
    })?;
    for (buffer, len) in buffers.iter_mut().zip(lens).take(received) {
        let buffer = buffer.as_mut();
        let len = len.min(buffer.capacity());
        // SAFETY: the kernel has written a message of that length into the vector's whole capacity, as
        // far as that reaches.
        unsafe { buffer.set_len(len) };
    }
    Ok(received)
}

/// Lent slices as rooms.
pub(crate) fn lent<'r>(
    buffers: &'r mut [IoSliceMut<'_>],
) -> impl Iterator<Item = &'r mut [MaybeUninit<u8>]> {
    buffers.iter_mut().map(|buffer| {
        let buffer: &mut [u8] = buffer;
        // SAFETY: the same bytes; receive_many writes initialised ones only.
        unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ancillary::wire;

    #[test]
    fn padding_that_the_kernel_leaves_out_is_set_to_zero() {
        // Two messages of four bytes, padding behind the first, as MaybeUninit of a value that shows.
        let mut written = [0xaa; 64];
        let mut len = 0;
        for number in [7_i32, 8] {
            let data = wire::reserve(&mut written, &mut len, 1, 2, 4).unwrap();
            data.copy_from_slice(&number.to_ne_bytes());
        }
        for padding in [20..24, 44..48] {
            written[padding].fill(0xaa);
        }
        let mut control = written.map(MaybeUninit::new);
        // SAFETY: all of it is initialised.
        let control = unsafe { initialised(&mut control, len) };
        assert_eq!(
            (control.len(), &control[20..24], &control[44..48]),
            (48, &[0; 4][..], &[0; 4][..])
        );
        assert_eq!(wire::items(control).count(), 2);
    }
}
