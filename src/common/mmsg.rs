//! Many messages with one system call: `sendmmsg(2)`, `recvmmsg(2)`.
#![allow(unsafe_code, reason = "sendmmsg and recvmmsg, which rustix does not offer")]

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::ancillary::AncillaryMessageReader;
use crate::ancillary::wire::{self, HEADER_LEN, MAX_CONTROL};
use crate::common::metrics::Carried;
use crate::common::pending_send::vector;
use crate::common::source::Source;
use crate::sys::{RECV_NOW, SEND_NOW, control_len, header, retry, set_control};
use crate::types::recv_meta::RecvMeta;

/// At most so many messages go through one call. The headers lie on the stack.
pub(crate) const MESSAGES_PER_CALL: usize = 32;

/// A message to send: its bytes, and its control data.
pub(crate) type ToSend<'a> = (&'a [u8], &'a [u8]);

/// Sends messages, in order, without waiting. Returns what was sent, or an error if nothing was.
pub(crate) fn send_many<'a>(
    fd: BorrowedFd<'_>,
    messages: impl Iterator<Item = ToSend<'a>> + Clone,
) -> io::Result<Carried> {
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; MESSAGES_PER_CALL];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MESSAGES_PER_CALL];
    let mut count = 0;
    for (bytes, control) in messages.clone().take(MESSAGES_PER_CALL) {
        let mut header = header(vectors[count].write(vector(bytes.as_ptr(), bytes.len())), 1);
        if !control.is_empty() {
            set_control(&mut header, control.as_ptr().cast_mut(), control.len());
        }
        headers[count].write(libc::mmsghdr { msg_hdr: header, msg_len: 0 });
        count += 1;
    }
    let sent = retry(|| {
        // SAFETY: the first `count` headers are initialized by the loop above. They point to `vectors` and to bytes that
        // are borrowed until this function returns. sendmmsg(2) reads those, and writes to `msg_len` only. By number, since the
        // function of musl makes a system call for each message: see `crate::sys`.
        unsafe {
            let fd = fd.as_raw_fd();
            libc::syscall(libc::SYS_sendmmsg, fd, headers.as_mut_ptr(), count as u32, SEND_NOW)
        }
    })?;
    let mut carried = Carried::default();
    for (bytes, control) in messages.take(sent) {
        carried += Carried::message(bytes.len(), wire::count_fds(control));
    }
    Ok(carried)
}

/// Receives as many messages as there are buffers, and at most [`MESSAGES_PER_CALL`], without waiting.
///
/// Calls `each` for every message, in order. Returns how many came, or an error if none did. At the end of the stream every
/// buffer gets an empty message.
pub(crate) fn receive_many<'r>(
    source: &mut Source<'_>,
    buffers: impl Iterator<Item = &'r mut [MaybeUninit<u8>]>,
    mut each: impl FnMut(usize, RecvMeta, AncillaryMessageReader<'_>),
) -> io::Result<usize> {
    let fd = source.fd();
    source.marks.read_first(fd);
    let capacity = source.control_len();
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; MESSAGES_PER_CALL];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MESSAGES_PER_CALL];
    let mut controls =
        [const { [const { MaybeUninit::<u8>::uninit() }; MAX_CONTROL] }; MESSAGES_PER_CALL];
    let mut count = 0;
    for buffer in buffers.take(MESSAGES_PER_CALL) {
        let one = vectors[count].write(vector(buffer.as_mut_ptr().cast(), buffer.len()));
        let mut header = header(one, 1);
        set_control(&mut header, controls[count].as_mut_ptr().cast(), capacity);
        headers[count].write(libc::mmsghdr { msg_hdr: header, msg_len: 0 });
        count += 1;
    }
    let received = retry(|| {
        // SAFETY: the first `count` headers are initialized by the loop above. They point to `vectors`, to buffers that
        // are borrowed exclusively until this function returns, and to `controls`. recvmmsg(2) writes to the latter two
        // and reads neither. A null timeout means none.
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
    // Certainly messages are those up to the last that has bytes or control data: nothing follows the end.
    let is_message = |header: &MaybeUninit<libc::mmsghdr>| {
        // SAFETY: `received` is at most `count`, and the loop above initialized the first `count` headers.
        let header = unsafe { header.assume_init_ref() };
        header.msg_len > 0 || control_len(&header.msg_hdr) > 0 || is_truncated(header)
    };
    let sure = headers[..received].iter().rposition(is_message).map_or(0, |last| last + 1);
    let tail = if sure < received { source.marks.nothing(fd) } else { None };
    for (index, (header, control)) in headers.iter().zip(&mut controls).enumerate().take(received) {
        // SAFETY: `received` is at most `count`, and the loop above initialized the first `count` headers.
        let header = unsafe { header.assume_init_ref() };
        let len = control_len(&header.msg_hdr).min(MAX_CONTROL);
        // SAFETY: `control` belongs to a header that recvmmsg(2) has filled in: control messages of `len` bytes begin there.
        let control = unsafe { initialized(control, len) };
        // SAFETY: recvmmsg(2) has just written these control messages, and no other code has read them.
        let mut reader = unsafe { AncillaryMessageReader::new(control, is_truncated(header)) };
        source.limit_fds(&mut reader);
        source.marks.hide_time(&mut reader);
        let received = RecvMeta {
            message_len: header.msg_len as usize,
            control_truncated: source.marks.note_truncated(reader.is_truncated()),
            end_of_stream: if index < sure { Some(false) } else { tail },
        };
        each(index, received, reader);
    }
    Ok(received)
}

/// Returns whether control data was discarded (`MSG_CTRUNC`).
fn is_truncated(header: &libc::mmsghdr) -> bool {
    header.msg_hdr.msg_flags & libc::MSG_CTRUNC != 0
}

/// Returns the first `len` bytes, in which the kernel has written control messages.
///
/// The kernel writes headers and data (`put_cmsg`, `scm_detach_fds`), and counts the padding behind them without writing it.
/// The padding is set to zero here.
///
/// # Safety
/// recvmmsg(2) has reported that control messages of `len` bytes begin there.
unsafe fn initialized(control: &mut [MaybeUninit<u8>], len: usize) -> &mut [u8] {
    let control = &mut control[..len];
    let mut at = 0;
    while at < len {
        let header = &control[at..];
        let message_len = if header.len() < HEADER_LEN {
            0
        } else {
            // SAFETY: a whole header fits, so by this function's contract the kernel has written one. Its first field is a
            // size_t (cmsg(3)).
            unsafe { header.as_ptr().cast::<usize>().read_unaligned() }
        };
        let written = (at + message_len).min(len);
        // An invalid length ends the walk: nothing behind it is read as a message.
        let end = if message_len < HEADER_LEN {
            len
        } else {
            at + message_len.next_multiple_of(size_of::<usize>())
        };
        let end = end.min(len);
        control[written..end].fill(MaybeUninit::new(0));
        at = end;
    }
    // SAFETY: the kernel has written headers and data by this function's contract, and the loop above the rest.
    unsafe { &mut *(std::ptr::from_mut(control) as *mut [u8]) }
}

/// Receives messages into the capacity of vectors. Otherwise as [`receive_many`].
pub(crate) fn receive_vectors(
    source: &mut Source<'_>,
    buffers: &mut [impl AsMut<Vec<u8>>],
    mut each: impl FnMut(RecvMeta, AncillaryMessageReader<'_>),
) -> io::Result<usize> {
    let mut lens = [0; MESSAGES_PER_CALL];
    let spare = buffers.iter_mut().map(|buffer| {
        buffer.as_mut().clear();
        buffer.as_mut().spare_capacity_mut()
    });
    let received = receive_many(source, spare, |index, received, reader| {
        lens[index] = received.message_len;
        each(received, reader);
    })?;
    for (buffer, len) in buffers.iter_mut().zip(lens).take(received) {
        let buffer = buffer.as_mut();
        let len = len.min(buffer.capacity());
        // SAFETY: recvmmsg(2) has written a message of that length into the vector's spare capacity, as far as it fits. The
        // vector was cleared before, so that starts at its first byte.
        unsafe { buffer.set_len(len) };
    }
    Ok(received)
}

/// Returns lent slices as memory to receive into.
pub(crate) fn lent<'r>(
    buffers: &'r mut [IoSliceMut<'_>],
) -> impl Iterator<Item = &'r mut [MaybeUninit<u8>]> {
    buffers.iter_mut().map(|buffer| {
        let buffer: &mut [u8] = buffer;
        // SAFETY: u8 and MaybeUninit<u8> have the same layout (std's guarantee). `receive_many` is the only user of the
        // result, and the kernel writes initialized bytes only.
        unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // SAFETY: every element of `control` is initialized, since the line above makes it of `written`.
        let control = unsafe { initialized(&mut control, len) };
        assert_eq!(
            (control.len(), &control[20..24], &control[44..48]),
            (48, &[0; 4][..], &[0; 4][..])
        );
        assert_eq!(wire::items(control).count(), 2);
    }
}
