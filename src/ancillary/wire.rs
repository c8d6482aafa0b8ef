//! Control data as bytes: the encoding of `cmsg(3)`, without pointers.
//!
//! A control message is a header (`cmsg_len` as `size_t`, `cmsg_level` and `cmsg_type` as `int`),
//! its data, and padding to the alignment of `size_t`. Positions are relative to the start of the
//! control data, so that the buffer itself may lie anywhere.

use std::ops::Range;

use crate::types::ucred::UCred;

pub(crate) const HEADER_LEN: usize = size_of::<libc::cmsghdr>();
pub(crate) const FD_LEN: usize = size_of::<libc::c_int>();

/// `SCM_MAX_FD`: file descriptors that one message can carry.
pub(crate) const MAX_FDS: usize = 253;

/// The most control data that can come with one message, in bytes: the time of its arrival,
/// credentials, descriptors, a pidfd.
pub(crate) const MAX_CONTROL: usize = space(size_of::<libc::timeval>())
    + space(UCred::WIRE_LEN)
    + space(MAX_FDS * FD_LEN)
    + space(FD_LEN);

/// `SCM_PIDFD` (Linux 6.5), which the libc crate does not have for every target.
pub(crate) const SCM_PIDFD: libc::c_int = 4;

const fn align(len: usize) -> usize {
    len.next_multiple_of(size_of::<usize>())
}

/// Returns the bytes that a control message with `data_len` bytes of data takes (`CMSG_SPACE`).
pub(crate) const fn space(data_len: usize) -> usize {
    align(HEADER_LEN) + align(data_len)
}

/// One control message's kind and where its data lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) level: i32,
    pub(crate) kind: i32,
    pub(crate) data: Range<usize>,
    /// Where the next control message starts.
    pub(crate) end: usize,
}

impl Item {
    pub(crate) fn is_rights(&self) -> bool {
        (self.level, self.kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS)
    }

    pub(crate) fn is_credentials(&self) -> bool {
        (self.level, self.kind) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS)
    }
}

/// Returns the control message at `at`, or `None` at the end or where there is no valid header.
pub(crate) fn item_at(control: &[u8], at: usize) -> Option<Item> {
    let header = control.get(at..)?.first_chunk::<HEADER_LEN>()?;
    let word = |from: usize| [header[from], header[from + 1], header[from + 2], header[from + 3]];
    let mut len = [0; size_of::<usize>()];
    len.copy_from_slice(&header[..size_of::<usize>()]);
    let len = usize::from_ne_bytes(len);
    if len < HEADER_LEN || len > control.len() - at {
        return None;
    }
    Some(Item {
        level: i32::from_ne_bytes(word(size_of::<usize>())),
        kind: i32::from_ne_bytes(word(size_of::<usize>() + 4)),
        data: at + align(HEADER_LEN)..at + len,
        end: (at + align(len)).min(control.len()),
    })
}

/// Returns all control messages, up to the first that has no valid header.
pub(crate) fn items(control: &[u8]) -> impl Iterator<Item = Item> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let item = item_at(control, at)?;
        at = item.end;
        Some(item)
    })
}

/// Writes the header of a control message at `*len`, and returns its zeroed data.
///
/// Returns `None` and changes nothing if `control` is too short.
pub(crate) fn reserve<'a>(
    control: &'a mut [u8],
    len: &mut usize,
    level: i32,
    kind: i32,
    data_len: usize,
) -> Option<&'a mut [u8]> {
    // u32 is what CMSG_LEN(3) takes.
    let _ = u32::try_from(data_len).ok()?;
    let end = len.checked_add(space(data_len))?;
    let message = control.get_mut(*len..end)?;
    message.fill(0);
    message[..size_of::<usize>()].copy_from_slice(&(HEADER_LEN + data_len).to_ne_bytes());
    message[size_of::<usize>()..][..4].copy_from_slice(&level.to_ne_bytes());
    message[size_of::<usize>() + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
    *len = end;
    Some(&mut message[align(HEADER_LEN)..][..data_len])
}

/// Appends a control message as the kernel's `put_cmsg` does.
///
/// The last message may lack its padding. The caller has checked that header and data fit.
pub(crate) fn put(control: &mut [u8], len: &mut usize, level: i32, kind: i32, data: &[u8]) {
    let message = &mut control[*len..];
    message[..size_of::<usize>()].copy_from_slice(&(HEADER_LEN + data.len()).to_ne_bytes());
    message[size_of::<usize>()..][..4].copy_from_slice(&level.to_ne_bytes());
    message[size_of::<usize>() + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
    message[HEADER_LEN..][..data.len()].copy_from_slice(data);
    *len += space(data.len()).min(message.len());
}

/// Returns whether a control message carries a descriptor of the sending process.
pub(crate) fn is_pidfd(level: i32, kind: i32) -> bool {
    (level, kind) == (libc::SOL_SOCKET, SCM_PIDFD)
}

/// Returns the raw fd at `index` in the data of an `SCM_RIGHTS` or `SCM_PIDFD` message.
pub(crate) fn raw_fd(data: &[u8], index: usize) -> Option<i32> {
    let bytes = data.get(index.checked_mul(FD_LEN)?..)?.first_chunk()?;
    Some(i32::from_ne_bytes(*bytes))
}

/// Returns the raw fds in the data of an `SCM_RIGHTS` or `SCM_PIDFD` message.
///
/// A negative value is left out. It is an errno where the kernel could not install a descriptor: a
/// pidfd at the limit on descriptors, or any slot under `SO_RIGHTS_NOTRUNC` (Linux 7.3).
pub(crate) fn fds(data: &[u8]) -> impl Iterator<Item = i32> {
    slots(data).flatten()
}

/// Returns the slots of such data: a raw fd, or the errno in its place.
pub(crate) fn slots(data: &[u8]) -> impl Iterator<Item = Result<i32, i32>> {
    data.chunks_exact(FD_LEN).map(|slot| {
        let fd = raw_fd(slot, 0).unwrap_or(-libc::EBADF);
        if fd < 0 { Err(fd.saturating_neg()) } else { Ok(fd) }
    })
}

/// Returns whether the kernel could not install a descriptor that belongs to this control data.
pub(crate) fn lacks_fds(control: &[u8]) -> bool {
    items(control).any(|item| {
        let mut slots = slots(&control[item.data.clone()]);
        if item.is_rights() {
            slots.any(|slot| slot.is_err())
        } else {
            is_pidfd(item.level, item.kind) && slots.next().is_some_and(|slot| slot.is_err())
        }
    })
}

/// Returns how many file descriptors control data passes.
pub(crate) fn count_fds(control: &[u8]) -> usize {
    items(control).filter(Item::is_rights).map(|item| item.data.len() / FD_LEN).sum()
}

/// Returns where the time of arrival ends, if that is the first control message.
pub(crate) fn time_at_start(control: &[u8]) -> Option<usize> {
    let is_time = |item: &Item| (item.level, item.kind) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMP);
    item_at(control, 0).filter(is_time).map(|item| item.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_cmsg_3() {
        assert_eq!(std::mem::offset_of!(libc::cmsghdr, cmsg_len), 0);
        assert_eq!(std::mem::offset_of!(libc::cmsghdr, cmsg_level), size_of::<usize>());
        assert_eq!(std::mem::offset_of!(libc::cmsghdr, cmsg_type), size_of::<usize>() + 4);
        assert_eq!(align(HEADER_LEN), HEADER_LEN);
        assert_eq!(space(4), 24);
        assert_eq!(space(8), 24);
        assert_eq!(space(12), 32);
    }

    #[test]
    fn a_negative_raw_fd_is_the_errno_of_a_missing_descriptor() {
        let data: Vec<_> = [7, -24, i32::MIN].into_iter().flat_map(i32::to_ne_bytes).collect();
        assert!(slots(&data).eq([Ok(7), Err(24), Err(i32::MAX)]));
        assert!(fds(&data).eq([7]));
        let mut control = [0; 32];
        let (level, mut len) = (libc::SOL_SOCKET, 0);
        reserve(&mut control, &mut len, level, libc::SCM_RIGHTS, 12)
            .unwrap()
            .copy_from_slice(&data);
        assert!(lacks_fds(&control[..len]));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut control = [0xff; 64];
        let mut len = 0;
        reserve(&mut control, &mut len, 1, 2, 4).unwrap().copy_from_slice(&7i32.to_ne_bytes());
        reserve(&mut control, &mut len, 3, 4, 0).unwrap();
        assert_eq!(len, 40);
        let found: Vec<_> = items(&control[..len]).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].level, found[0].kind), (1, 2));
        assert_eq!(raw_fd(&control[found[0].data.clone()], 0), Some(7));
        assert_eq!((found[1].level, found[1].kind), (3, 4));
        assert!(found[1].data.is_empty());
    }

    #[test]
    fn too_short_a_buffer_is_not_changed() {
        let mut control = [0xff; 23];
        let mut len = 0;
        assert!(reserve(&mut control, &mut len, 1, 2, 4).is_none());
        assert_eq!((len, control), (0, [0xff; 23]));
    }

    #[test]
    fn truncated_and_nonsensical_headers_end_the_walk() {
        assert_eq!(items(&[]).count(), 0);
        assert_eq!(items(&[0; 16]).count(), 0);
        assert_eq!(items(&[0xff; 64]).count(), 0);
        let mut control = [0; 24];
        let mut len = 0;
        reserve(&mut control, &mut len, 1, 1, 8).unwrap();
        assert_eq!(items(&control[..23]).count(), 0);
        // The last message may lack its padding: the kernel writes CMSG_LEN bytes there.
        reserve(&mut control, &mut 0, 1, 1, 4).unwrap();
        assert_eq!(items(&control[..20]).count(), 1);
    }
}
